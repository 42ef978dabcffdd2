"""Gemma's published checkpoints: Gemma 1, Gemma 2, and the text models of Gemma 3, EmbeddingGemma among them.

Their files have Llama's names of tensors, and more norms. What they call ``post_attention_layernorm`` is, as in Llama,
the norm before the MLP in Gemma 1. In Gemma 2 and 3 it is the norm after attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from minilm.errors import UserError
from minilm.models.architecture import Architecture, Row, check_fixed
from minilm.models.gemma import Gemma, GemmaConfig, initialize, language_head
from minilm.models.heads import HeadConfig
from minilm.models.layer_kinds import FULL, SLIDING, Kind, full_layers, read_both, write_both
from minilm.models.llama import NAMES as LLAMA
from minilm.models.llama import whole_rotary
from minilm.models.llama_family import HEAD_NORMS
from minilm.models.rotary import Rotary, turns_whole_heads, write_rotary

NAMES = replace(
    LLAMA,
    rows=(
        *(row for row in LLAMA.rows if row.ours != "layers.{i}.mlp_norm"),
        *HEAD_NORMS,
        Row("layers.{i}.mlp_norm", "layers.{i}.post_attention_layernorm", when=lambda c: not c.post_norms),
        Row("layers.{i}.attention_post_norm", "layers.{i}.post_attention_layernorm", when=lambda c: c.post_norms),
        Row("layers.{i}.mlp_norm", "layers.{i}.pre_feedforward_layernorm", when=lambda c: c.post_norms),
        Row("layers.{i}.mlp_post_norm", "layers.{i}.post_feedforward_layernorm"),
    ),
    # Within a Gemma 3 that reads images too; there are two spellings.
    nested="language_model.",
    other_prefixes=("language_model.model.", "model.language_model.", "language_model."),
    old=(("language_model.lm_head", "lm_head"),),
    ignored=(*LLAMA.ignored, "vision_tower.*", "multi_modal_projector.*"),
)
SETTINGS = (
    ("vocab_size", "vocab_size"),
    ("context", "max_position_embeddings"),
    ("width", "hidden_size"),
    ("depth", "num_hidden_layers"),
    ("heads", "num_attention_heads"),
    ("kv_heads", "num_key_value_heads"),
    ("head_width", "head_dim"),
    ("mlp_width", "intermediate_size"),
    ("attention_bias", "attention_bias"),
    ("attention_dropout", "attention_dropout"),
    ("norm_eps", "rms_norm_eps"),
    ("tied", "tie_word_embeddings"),
)
DEFAULTS = {"head_dim": 256, "num_hidden_layers": 26, "num_key_value_heads": 4, "sliding_window": 4096}  # 2 and 3


def _family(
    title: str,
    config: type[GemmaConfig],
    read: Callable[[dict[str, Any]], dict[str, Any]],
    write: Callable[[GemmaConfig], dict[str, Any]],
    defaults: dict[str, Any],
    *more: tuple[str, str],
    text: str = "",
) -> Architecture[GemmaConfig]:
    """``more``: rows of settings; ``text``: what the published classes without a language head have in their name."""
    name = title.replace(" ", "")
    return Architecture(
        title=title,
        config=config,
        model=Gemma,
        initialize=initialize,
        classes={
            "encode": f"{name}{text}Model",
            "classify": f"{name}{text}ForSequenceClassification",
            "lm": f"{name}ForCausalLM",
        },
        language_modeling="causal",
        names=NAMES,
        classification_head=lambda c: HeadConfig(pooling="last", bias=False),
        language_head=language_head,
        settings=(*SETTINGS, *more),
        defaults=defaults,
        read=read,
        write=write,
    )


# --- Gemma 1 --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gemma1Config(GemmaConfig):
    """The settings of Gemma 1; the defaults are those of the published class, the model with 7 billion parameters."""

    width: int = 3072
    depth: int = 28
    heads: int = 16
    mlp_width: int = 24576
    attention_scalar: int = 0
    attention_cap: float = 0.0
    language_cap: float = 0.0
    post_norms: bool = False
    window: int = 0
    global_every: int = 1


def read_gemma1(published: dict[str, Any]) -> dict[str, Any]:
    """Rotary positions; and what "gelu" means in the first files."""
    _refuse_bidirectional(published)
    rotary = whole_rotary(published)
    settings: dict[str, Any] = {"rotary": rotary, "local_rotary": rotary}
    return settings | ({"activation": "gelu_tanh"} if published["hidden_act"] == "gelu" else {})


def write_gemma1(config: GemmaConfig) -> dict[str, Any]:
    """The inverse of ``read_gemma1``."""
    fixed = {"attention_scalar": config.head_width, "attention_cap": 0.0, "language_cap": 0.0, "window": 0}
    check_fixed(config, "Gemma", {**fixed, "post_norms": False, "head_norms": False})
    if config.activation == "gelu":
        raise UserError('Gemma checkpoints use "gelu_tanh" for "gelu"; this model has the exact GELU')
    return _write_one_rotary(config, "Gemma")


def _write_one_rotary(config: GemmaConfig, family: str) -> dict[str, Any]:
    check_fixed(config, family, {"bidirectional": False, "local_rotary": config.rotary})
    turns_whole_heads(config.rotary, config.head_width)
    return write_rotary(config.rotary)


def _refuse_bidirectional(published: dict[str, Any]) -> None:
    if published.get("use_bidirectional_attention"):
        raise UserError("config.json: use_bidirectional_attention is not supported before Gemma 3")


DEFAULTS_1 = {"head_dim": 256, "num_key_value_heads": 16, "hidden_act": "gelu_pytorch_tanh"}
GEMMA1 = _family("Gemma", Gemma1Config, read_gemma1, write_gemma1, DEFAULTS_1, ("activation", "hidden_act"))


# --- Gemma 2 --------------------------------------------------------------------------------------------------------

LATER = (("activation", "hidden_activation"), ("attention_scalar", "query_pre_attn_scalar"))  # rows of settings


def read_later(published: dict[str, Any], every: int) -> dict[str, Any]:
    """The settings that Gemma 2 and 3 share: the global layers, as a list or every n-th; the window; the head's cap.

    Raises UserError for settings with which the published classes fail.
    """
    depth, window = published["num_hidden_layers"], published["sliding_window"]
    if not window or 0 in (published.get("query_pre_attn_scalar"), published.get("rms_norm_eps")):
        raise UserError("config.json: sliding_window, query_pre_attn_scalar and rms_norm_eps must be above 0")
    kinds = published.get("layer_types") or [SLIDING if (i + 1) % every else FULL for i in range(depth)]
    cap = _cap(published, "final_logit_softcapping")
    return {"global_layers": full_layers(kinds, depth), "window": window, "language_cap": cap}


def _cap(published: dict[str, Any], key: str) -> float:
    """The cap that a key gives, 0 if it is null. Raises UserError for 0, by which the published classes divide."""
    if published.get(key) == 0:
        raise UserError(f"config.json: {key} must be a number above 0, or null")
    return published.get(key) or 0.0


def write_later(config: GemmaConfig) -> dict[str, Any]:
    """The inverse of ``read_later``."""
    return {
        "layer_types": [FULL if config.is_global(i) else SLIDING for i in range(config.depth)],
        "sliding_window": config.window,
        "final_logit_softcapping": config.language_cap or None,
    }


def read_gemma2(published: dict[str, Any]) -> dict[str, Any]:
    """A cap of attention's scores, and one kind of rotary positions."""
    _refuse_bidirectional(published)
    rotary, cap = whole_rotary(published), _cap(published, "attn_logit_softcapping")
    return {**read_later(published, every=2), "attention_cap": cap, "rotary": rotary, "local_rotary": rotary}


def write_gemma2(config: GemmaConfig) -> dict[str, Any]:
    """The inverse of ``read_gemma2``."""
    check_fixed(config, "Gemma 2", {"post_norms": True, "head_norms": False})
    cap = config.attention_cap or None
    return {**write_later(config), **_write_one_rotary(config, "Gemma 2"), "attn_logit_softcapping": cap}


DEFAULTS_2 = {**DEFAULTS, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0}
GEMMA2 = _family("Gemma 2", GemmaConfig, read_gemma2, write_gemma2, DEFAULTS_2, *LATER)


# --- Gemma 3 --------------------------------------------------------------------------------------------------------

KINDS = {
    FULL: Kind("rotary", "rope_theta", 1_000_000.0), SLIDING: Kind("local_rotary", "rope_local_base_freq", 10_000.0),
}  # fmt: skip


@dataclass(frozen=True)
class Gemma3Config(GemmaConfig):
    """The settings of Gemma 3; the defaults are those of the published class of its text models."""

    vocab_size: int = 262208
    context: int = 131072
    attention_cap: float = 0.0
    language_cap: float = 0.0
    head_norms: bool = True
    global_every: int = 6
    rotary: Rotary = field(default_factory=lambda: Rotary(base=1_000_000.0))


def read_gemma3(published: dict[str, Any]) -> dict[str, Any]:
    """Rotary positions of both kinds of layers. (The published class never reads ``attn_logit_softcapping``.)"""
    settings = read_later(published, every=published.get("sliding_window_pattern", 6))
    settings |= read_both(published, KINDS, published["head_dim"], scaled=(FULL,))
    return {**settings, "bidirectional": bool(published.get("use_bidirectional_attention"))}


def write_gemma3(config: GemmaConfig) -> dict[str, Any]:
    """The inverse of ``read_gemma3``, with new and, if possible, old keys."""
    check_fixed(config, "Gemma 3", {"post_norms": True, "head_norms": True, "attention_cap": 0.0})
    for rotary in (config.rotary, config.local_rotary):
        turns_whole_heads(rotary, config.head_width)
    return {
        **write_later(config),
        **write_both({FULL: config.rotary, SLIDING: config.local_rotary}, KINDS),
        "rope_scaling": write_rotary(config.rotary)["rope_scaling"],
        "use_bidirectional_attention": config.bidirectional,
    }


GEMMA3 = replace(
    _family("Gemma 3", Gemma3Config, read_gemma3, write_gemma3, DEFAULTS, *LATER, text="Text"), nested_in=("gemma3",)
)
