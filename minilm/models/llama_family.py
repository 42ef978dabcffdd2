"""Mistral, Qwen2, Qwen3, SmolLM3 and Phi-3: Llama's layers with a window, with biases, or with one thing more.

    Mistral    a window of positions in all layers                              Jiang et al. 2023
    Qwen2      biases on queries, keys and values; a window in some layers      Yang et al. 2024
    Qwen3      a norm of each head's query and key instead of biases            Yang et al. 2025, section 2
    SmolLM3    every fourth layer without rotary positions ("NoPE")             Bakouch et al. 2025
    Phi-3      a window in all layers; stretched by "longrope"                  Abdin et al. 2024

Their files have Llama's names of tensors; only Phi-3's hold query, key and value in one, and gate and up. What differs
is how their ``config.json`` is read: its defaults, and which layers see only the last ``window`` positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from minilm.errors import UserError
from minilm.models.architecture import Architecture, Row, check_fixed
from minilm.models.layer_kinds import FULL, SLIDING, full_layers
from minilm.models.llama import ARCHITECTURE, FIXED, NAMES, SETTINGS, LlamaConfig, whole_rotary, write
from minilm.models.rotary import Rotary, read_rotary, write_rotary

NO_BIASES = {"attention_bias": False, "output_bias": False, "mlp_bias": False}
# Rows of settings. As in Llama "attention_bias" means all four; a padding token must be one of the vocabulary.
BIASES, PAD = ("attention_bias", "attention_bias"), ("pad_token", "pad_token_id")


def fixed(*free: str, **others: Any) -> dict[str, Any]:
    """Settings that a published class cannot change, with their values: ``FIXED`` without the ``free`` names, and
    ``others``."""
    return {name: value for name, value in FIXED.items() if name not in free} | others


# --- Mistral --------------------------------------------------------------------------------------------------------

MISTRAL_DEFAULTS = {"max_position_embeddings": 131072, "num_key_value_heads": 8, "intermediate_size": 14336}


def read_window(published: dict[str, Any], usual: int | None) -> int:
    """A window that all layers have; null: none. Raises UserError for a window of 0, in which nothing is seen."""
    if published.get("sliding_window") == 0:
        raise UserError("config.json: sliding_window must be above 0, or null for none")
    return published.get("sliding_window", usual) or 0


def read_mistral(published: dict[str, Any]) -> dict[str, Any]:
    """A window, in all layers."""
    return {"rotary": whole_rotary(published), "window": read_window(published, 4096)}


def write_mistral(config: LlamaConfig) -> dict[str, Any]:
    """The inverse of ``read_mistral``."""
    return {**write(config, "Mistral", fixed("window", **NO_BIASES)), "sliding_window": config.window or None}


# --- Qwen2, Qwen3, SmolLM3: a window in some layers -----------------------------------------------------------------

QWEN2_DEFAULTS = {
    "vocab_size": 151936, "max_position_embeddings": 32768, "intermediate_size": 22016, "num_key_value_heads": 32,
}  # fmt: skip
QWEN3_DEFAULTS = {**QWEN2_DEFAULTS, "head_dim": 128}
SMOLLM3_DEFAULTS = {
    "vocab_size": 128256, "max_position_embeddings": 32768, "hidden_size": 2048, "num_hidden_layers": 36,
    "num_attention_heads": 16, "num_key_value_heads": 4, "tie_word_embeddings": True, "rope_theta": 2_000_000.0,
    "pad_token_id": 128004,
}  # fmt: skip
HEAD_NORMS = (
    Row("layers.{i}.attention.query_norm", "layers.{i}.self_attn.q_norm"),
    Row("layers.{i}.attention.key_norm", "layers.{i}.self_attn.k_norm"),
)


def read_windows(kinds: Sequence[str], depth: int, window: int | None) -> dict[str, Any]:
    """The window, and the layers with full attention. Raises UserError for a window without a size."""
    full = full_layers(kinds, depth)
    if len(full) == depth:
        return {"window": 0, "full_layers": ()}
    if not window:
        raise UserError(f"config.json: layer_types has layers of {SLIDING}, but sliding_window gives no window")
    return {"window": window, "full_layers": full}


def write_windows(config: LlamaConfig) -> dict[str, Any]:
    """The inverse of ``read_windows``."""
    full = range(config.depth) if not config.window else config.full_layers
    return {
        "use_sliding_window": config.window > 0,
        "sliding_window": config.window or None,
        "layer_types": [FULL if i in full else SLIDING for i in range(config.depth)],
    }


def read_qwen(published: dict[str, Any]) -> dict[str, Any]:
    """With ``use_sliding_window`` a window, in the upper or the listed layers."""
    depth, first = published.get("num_hidden_layers", 32), published.get("max_window_layers", 28)
    window = published.get("sliding_window", 4096) if published.get("use_sliding_window") else None
    usual = [FULL if window is None or i < first else SLIDING for i in range(depth)]
    return {"rotary": whole_rotary(published), **read_windows(published.get("layer_types") or usual, depth, window)}


def read_qwen2(published: dict[str, Any]) -> dict[str, Any]:
    """Biases on queries, keys and values."""
    return {**read_qwen(published), "attention_bias": True, "output_bias": False}


def write_qwen2(config: LlamaConfig) -> dict[str, Any]:
    """The inverse of ``read_qwen2``."""
    biases = {"attention_bias": True, "output_bias": False, "mlp_bias": False}
    return {**write(config, "Qwen2", fixed("window", "full_layers", **biases)), **write_windows(config)}


def read_qwen3(published: dict[str, Any]) -> dict[str, Any]:
    """Norms of queries and keys; biases on all four, or none."""
    return {**read_qwen(published), "head_norms": True, "output_bias": bool(published.get("attention_bias"))}


def write_qwen3(config: LlamaConfig) -> dict[str, Any]:
    """The inverse of ``read_qwen3``."""
    others = {"head_norms": True, "output_bias": config.attention_bias, "mlp_bias": False}
    return {**write(config, "Qwen3", fixed("window", "full_layers", **others)), **write_windows(config)}


def read_smollm3(published: dict[str, Any]) -> dict[str, Any]:
    """Layers without positions; if there are windows, those layers have them, or the listed ones."""
    depth, every = published["num_hidden_layers"], published.get("no_rope_layer_interval", 4)
    placed = published.get("no_rope_layers")  # in spite of its name, 1 is a layer with positions
    if not every:
        raise UserError("config.json: no_rope_layer_interval must be above 0")
    placed = [(i + 1) % every != 0 for i in range(depth)] if placed is None else placed
    if len(placed) < depth:
        raise UserError(f"config.json: no_rope_layers must have a number for each of {depth} layers")
    window = published.get("sliding_window")
    windows = published.get("use_sliding_window") and window is not None
    usual = [FULL if turned or not windows else SLIDING for turned in placed[:depth]]
    return {
        "rotary": whole_rotary(published),
        "output_bias": bool(published.get("attention_bias")),
        "unplaced_layers": tuple(i for i, turned in enumerate(placed[:depth]) if not turned),
        **read_windows(published.get("layer_types") or usual, depth, window),
    }


def write_smollm3(config: LlamaConfig) -> dict[str, Any]:
    """The inverse of ``read_smollm3``."""
    names = fixed("window", "full_layers", "unplaced_layers", output_bias=config.attention_bias)
    placed = [int(i not in config.unplaced_layers) for i in range(config.depth)]
    return {**write(config, "SmolLM3", names), **write_windows(config), "no_rope_layers": placed}


# --- Phi-3 ----------------------------------------------------------------------------------------------------------

TRAINED = "original_max_position_embeddings"
PHI3_DEFAULTS = {
    "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 4096,
    TRAINED: 4096, "rms_norm_eps": 1e-5, "pad_token_id": 32000,
}  # fmt: skip


def _heads(config: LlamaConfig) -> tuple[int, ...]:
    """How many heads the queries, keys and values have: their proportions in the fused matrix."""
    return (config.heads, config.kv_heads, config.kv_heads)


FUSED = {
    **{
        f"layers.{{i}}.attention.{part}": Row(
            f"layers.{{i}}.attention.{part}", "layers.{i}.self_attn.qkv_proj", part=number, sizes=_heads
        )
        for number, part in enumerate(("query", "key", "value"))
    },
    "layers.{i}.mlp.gate": Row("layers.{i}.mlp.gate", "layers.{i}.mlp.gate_up_proj", part=0, parts=2),
    "layers.{i}.mlp.up": Row("layers.{i}.mlp.up", "layers.{i}.mlp.gate_up_proj", part=1, parts=2),
}


def read_phi3(published: dict[str, Any]) -> dict[str, Any]:
    """A window, in all layers; rotary positions of a part of each head, and perhaps of "longrope", also called "su"."""
    table = dict(published.get("rope_scaling") or published.get("rope_parameters") or {})
    kind = table.pop("rope_type", None) or table.pop("type", None) or "default"
    kind = "longrope" if kind in ("su", "yarn") else kind
    rotary = read_rotary({**published, "rope_scaling": {**table, "rope_type": kind}})
    _check_kind(rotary)
    return {"rotary": rotary, "window": read_window(published, None)}


def write_phi3(config: LlamaConfig) -> dict[str, Any]:
    """The inverse of ``read_phi3``."""
    check_fixed(config, "Phi-3", fixed("window", "dropout", **NO_BIASES))
    _check_kind(config.rotary)
    written = {**write_rotary(config.rotary), "sliding_window": config.window or None}
    return written if config.rotary.trained is None else {**written, TRAINED: config.rotary.trained}


def _check_kind(rotary: Rotary) -> None:
    if rotary.kind not in ("default", "longrope"):
        raise UserError(f'Phi-3 checkpoints have rotary positions of the kind "longrope" or none, not "{rotary.kind}"')


# --- All of them ----------------------------------------------------------------------------------------------------


def _family(
    title: str,
    read: Callable[[dict[str, Any]], dict[str, Any]],
    write: Callable[[LlamaConfig], dict[str, Any]],
    defaults: dict[str, Any],
    *more: tuple[str, str],
    rows: tuple[Row, ...] = NAMES.rows,
) -> Architecture[LlamaConfig]:
    """``more``: rows of settings."""
    return replace(
        ARCHITECTURE,
        title=title,
        classes={task: name.replace("Llama", title.replace("-", "")) for task, name in ARCHITECTURE.classes.items()},
        names=replace(NAMES, rows=rows),
        settings=(*SETTINGS, *more),
        defaults=defaults,
        read=read,
        write=write,
    )


MISTRAL = _family("Mistral", read_mistral, write_mistral, MISTRAL_DEFAULTS)
QWEN2 = _family("Qwen2", read_qwen2, write_qwen2, QWEN2_DEFAULTS)
QWEN3 = _family("Qwen3", read_qwen3, write_qwen3, QWEN3_DEFAULTS, BIASES, rows=(*NAMES.rows, *HEAD_NORMS))
SMOLLM3 = _family("SmolLM3", read_smollm3, write_smollm3, SMOLLM3_DEFAULTS, BIASES, ("mlp_bias", "mlp_bias"), PAD)
PHI3 = _family(
    "Phi-3", read_phi3, write_phi3, PHI3_DEFAULTS, ("dropout", "resid_pdrop"), PAD,
    rows=tuple(FUSED.get(row.ours, row) for row in NAMES.rows),
)  # fmt: skip
