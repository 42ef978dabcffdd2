"""Mistral and Qwen2: Llama's layers with a window or with biases (Jiang et al. 2023, Yang et al. 2024).

Their files have Llama's names of tensors. What differs is how their ``config.json`` is read: its defaults, and which
layers see only the last ``window`` positions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minilm.errors import UserError
from minilm.models.llama import ARCHITECTURE, SETTINGS, LlamaConfig, whole_rotary, write


def read_mistral(published: dict[str, Any]) -> dict[str, Any]:
    """A window, in all layers; and the published class's defaults where they differ from Llama's."""
    defaults = {"max_position_embeddings": 131072, "num_key_value_heads": 8, "intermediate_size": 14336}
    window = published.get("sliding_window", 4096) or 0
    return {**_absent(published, defaults), "rotary": whole_rotary(published), "window": window}


def write_mistral(config: LlamaConfig) -> dict[str, Any]:
    """The reverse."""
    fixed = {"attention_bias": False, "output_bias": False, "mlp_bias": False, "full_layers": ()}
    return {**write(config, "Mistral", **fixed), "sliding_window": config.window or None}


def read_qwen2(published: dict[str, Any]) -> dict[str, Any]:
    """Biases on queries, keys and values; with ``use_sliding_window`` a window, in the upper or the listed layers."""
    defaults = {"vocab_size": 151936, "max_position_embeddings": 32768, "intermediate_size": 22016}
    depth, first = published.get("num_hidden_layers", 32), published.get("max_window_layers", 28)
    kinds = published.get("layer_types") or ["full_attention"] * first + ["sliding_attention"] * (depth - first)
    if other := set(kinds) - {"full_attention", "sliding_attention"}:
        raise UserError(f"config.json: layer_types: {', '.join(sorted(other))} is not supported")
    settings = {"rotary": whole_rotary(published), "attention_bias": True, "output_bias": False}
    if published.get("use_sliding_window") and "sliding_attention" in kinds:
        settings["window"] = published.get("sliding_window", 4096) or 0
        settings["full_layers"] = tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")
    return {**_absent(published, defaults), **settings}


def write_qwen2(config: LlamaConfig) -> dict[str, Any]:
    """The reverse."""
    full = range(config.depth) if not config.window else config.full_layers
    return {
        **write(config, "Qwen2", attention_bias=True, output_bias=False, mlp_bias=False),
        "use_sliding_window": config.window > 0,
        "sliding_window": config.window or None,
        "layer_types": [f"{'full' if i in full else 'sliding'}_attention" for i in range(config.depth)],
    }


def _absent(published: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Those defaults, by our names, that the file leaves out."""
    return {ours: defaults[key] for ours, key in SETTINGS if key in defaults and key not in published}


def _classes(family: str) -> dict[str, str]:
    return {task: name.replace("Llama", family) for task, name in ARCHITECTURE.classes.items()}


MISTRAL = replace(
    ARCHITECTURE,
    title="Mistral",
    classes=_classes("Mistral"),
    settings=SETTINGS,
    read=read_mistral,
    write=write_mistral,
)
QWEN2 = replace(
    ARCHITECTURE,
    title="Qwen2",
    classes=_classes("Qwen2"),
    settings=SETTINGS,
    read=read_qwen2,
    write=write_qwen2,
)
