"""DeBERTa's published checkpoints: versions 2 and 3, with mDeBERTa, and version 1.

Version 1 fuses query, key and value into one matrix, head after head, and stores the biases of queries and values on
their own; keys have none. Its relative positions have matrices of their own and no buckets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from minilm.errors import UserError
from minilm.models.architecture import Architecture, Names, Row, check_fixed
from minilm.models.deberta import Deberta, DebertaConfig, initialize
from minilm.models.heads import HeadConfig, LanguageConfig

KINDS = {"content_to_position": "c2p", "position_to_content": "p2c"}  # our flags -> entries of pos_att_type


LAYER = "encoder.layer.{i}"
ATTENTION = (
    Row("layers.{i}.attention.query", f"{LAYER}.attention.self.query_proj"),
    Row("layers.{i}.attention.key", f"{LAYER}.attention.self.key_proj"),
    Row("layers.{i}.attention.value", f"{LAYER}.attention.self.value_proj"),
    Row("layers.{i}.attention.position_key", f"{LAYER}.attention.self.pos_key_proj"),
    Row("layers.{i}.attention.position_query", f"{LAYER}.attention.self.pos_query_proj"),
)
REST = (
    Row("embeddings.token", "embeddings.word_embeddings"),
    Row("embeddings.position", "embeddings.position_embeddings", when=lambda c: c.positions),
    Row("embeddings.segment", "embeddings.token_type_embeddings"),
    Row("embeddings.projection", "embeddings.embed_proj"),
    Row("embeddings.norm", "embeddings.LayerNorm"),
    Row("embeddings.relative", "encoder.rel_embeddings"),
    Row("embeddings.relative_norm", "encoder.LayerNorm"),
    Row("layers.0.convolution.kernel", "encoder.conv.conv"),
    Row("layers.0.convolution.norm", "encoder.conv.LayerNorm"),
    Row("layers.{i}.attention.output", f"{LAYER}.attention.output.dense"),
    Row("layers.{i}.attention_norm", f"{LAYER}.attention.output.LayerNorm"),
    Row("layers.{i}.mlp.up", f"{LAYER}.intermediate.dense"),
    Row("layers.{i}.mlp.down", f"{LAYER}.output.dense"),
    Row("layers.{i}.mlp_norm", f"{LAYER}.output.LayerNorm"),
)
NAMES = Names(
    prefix={"encode": "", "classify": "deberta.", "lm": "deberta."},
    rows=(*REST, *ATTENTION),
    heads={
        "classify": (Row("head.dense", "pooler.dense"), Row("head.output", "classifier")),
        "lm": (
            Row("head.dense", "cls.predictions.transform.dense"),
            Row("head.norm", "cls.predictions.transform.LayerNorm"),
            Row("head.output", "cls.predictions.decoder"),
            # Files have the bias under one name or both; if they differ, the untied decoder's counts.
            Row("head.output.bias", "cls.predictions.bias", bare=True),
        ),
    },
    old=(  # The language head has two spellings. In this one, of the first files, it is always tied.
        ("lm_predictions.lm_head.dense", "cls.predictions.transform.dense"),
        ("lm_predictions.lm_head.LayerNorm", "cls.predictions.transform.LayerNorm"),
        ("lm_predictions.lm_head.bias", "cls.predictions.bias"),
    ),
    # A buffer of 0..T-1; a table of positions that the config does without; heads of other tasks: was this word
    # replaced, and where in a text is the answer.
    ignored=("embeddings.position_ids", "embeddings.position_embeddings.*", "mask_predictions.*", "qa_outputs.*"),
)


def read(published: dict[str, Any]) -> dict[str, Any]:
    """The settings that no row converts. Raises UserError for settings with which the published class fails or that it
    does not use."""
    kinds = published.get("pos_att_type") or []
    kinds = [kind.strip() for kind in kinds.lower().split("|")] if isinstance(kinds, str) else list(kinds)
    if unknown := set(kinds) - {*KINDS.values()}:
        raise UserError(f"config.json: pos_att_type {sorted(unknown)[0]!r} is not supported; supported are c2p and p2c")
    width, heads = published.get("hidden_size", DebertaConfig.width), published.get("num_attention_heads", 24)
    if published.get("pooler_hidden_size", width) != width:
        raise UserError(f"config.json: pooler_hidden_size must be hidden_size ({width})")
    if "attention_head_size" in published and published["attention_head_size"] * heads != width:
        raise UserError(f"config.json: attention_head_size must be hidden_size / heads: {width} / {heads}")
    norms = [norm.strip() for norm in published.get("norm_rel_ebd", "none").lower().split("|")]
    settings: dict[str, Any] = {ours: theirs in kinds for ours, theirs in KINDS.items()}
    settings["relative_norm"] = "layer_norm" in norms
    for ours, key in (("max_distance", "max_relative_positions"), ("buckets", "position_buckets")):
        settings[ours] = max(published.get(key, -1), 0)
    if published.get("cls_dropout") is None:
        settings["head_dropout"] = published.get("hidden_dropout_prob", DebertaConfig.dropout)
    return settings if published.get("legacy", True) else settings | {"tied": True}


def write(config: DebertaConfig, **fixed: Any) -> dict[str, Any]:
    """The inverse. Raises UserError if a setting differs from the ``fixed`` value of the published class."""
    check_fixed(config, "such DeBERTa", fixed or {"key_bias": True})
    return {
        "pos_att_type": [theirs for ours, theirs in KINDS.items() if vars(config)[ours]],
        "max_relative_positions": config.max_distance,
        "position_buckets": config.buckets or -1,
        "norm_rel_ebd": "layer_norm" if config.relative_norm else "none",
        "pooler_hidden_size": config.width,
        "legacy": True,
    }


ARCHITECTURE = Architecture(
    title="DeBERTa-v2",
    config=DebertaConfig,
    model=Deberta,
    initialize=initialize,
    classes={
        "encode": "DebertaV2Model",
        "classify": "DebertaV2ForSequenceClassification",
        "lm": "DebertaV2ForMaskedLM",
    },
    language_modeling="masked",
    names=NAMES,
    classification_head=lambda c: HeadConfig(
        pooling="cls",
        hidden=c.width,
        activation=c.pooler_activation,
        dropout=c.head_dropout,
        input_dropout=c.pooler_dropout,
    ),
    language_head=lambda c: LanguageConfig(c.embedding_width, c.activation, c.norm_eps, bias=True),
    settings=(
        ("vocab_size", "vocab_size"),
        ("context", "max_position_embeddings"),
        ("width", "hidden_size"),
        ("embedding_width", "embedding_size"),
        ("depth", "num_hidden_layers"),
        ("heads", "num_attention_heads"),
        ("mlp_width", "intermediate_size"),
        ("activation", "hidden_act"),
        ("segments", "type_vocab_size"),
        ("positions", "position_biased_input"),
        ("relative", "relative_attention"),
        ("dropout", "hidden_dropout_prob"),
        ("attention_dropout", "attention_probs_dropout_prob"),
        ("pooler_activation", "pooler_hidden_act"),
        ("pooler_dropout", "pooler_dropout"),
        ("head_dropout", "cls_dropout"),
        ("norm_eps", "layer_norm_eps"),
        ("tied", "tie_word_embeddings"),
        ("shared", "share_att_key"),
        ("kernel", "conv_kernel_size"),
        ("kernel_groups", "conv_groups"),
        ("kernel_activation", "conv_act"),
    ),
    read=read,
    write=write,
)


# --- Version 1 ------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Deberta1Config(DebertaConfig):
    """Version 1's settings; the defaults are those of its published class."""

    vocab_size: int = 50265
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    key_bias: bool = False


FIXED = {"shared": False, "key_bias": False, "buckets": 0, "relative_norm": False, "kernel": 0}
LATER = ("attention_head_size", "position_buckets", "norm_rel_ebd")  # keys that version 1 does not read
SETTINGS = tuple(row for row in ARCHITECTURE.settings if row[0] != "shared" and not row[0].startswith("kernel"))


def read_version_1(published: dict[str, Any]) -> dict[str, Any]:
    """Version 2's, and what is fixed."""
    if published.get("talking_head"):
        raise UserError("config.json: talking_head: talking-heads attention is not supported")
    seen = {"hidden_size": Deberta1Config.width} | {key: v for key, v in published.items() if key not in LATER}
    return read(seen) | FIXED


def _fused(part: int, ours: str) -> Row:
    return Row(
        f"layers.{{i}}.attention.{ours}.weight",
        f"{LAYER}.attention.self.in_proj.weight",
        part=part,
        parts=3,
        by_heads=True,
        bare=True,
    )


VERSION_1 = replace(
    ARCHITECTURE,
    title="DeBERTa",
    config=Deberta1Config,
    classes={task: name.replace("V2", "") for task, name in ARCHITECTURE.classes.items()},
    names=replace(
        NAMES,
        rows=(
            *REST,
            *(_fused(part, ours) for part, ours in enumerate(("query", "key", "value"))),
            Row("layers.{i}.attention.query.bias", f"{LAYER}.attention.self.q_bias", bare=True),
            Row("layers.{i}.attention.value.bias", f"{LAYER}.attention.self.v_bias", bare=True),
            Row("layers.{i}.attention.position_key", f"{LAYER}.attention.self.pos_proj"),
            Row("layers.{i}.attention.position_query", f"{LAYER}.attention.self.pos_q_proj"),
        ),
    ),
    settings=SETTINGS,
    read=read_version_1,
    write=lambda c: {key: value for key, value in write(c, **FIXED).items() if key not in LATER},
)
