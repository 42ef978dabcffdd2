"""T5: an encoder that reads a text and a decoder that writes one (Raffel et al. 2020, "Exploring the Limits of Transfer
Learning with a Unified Text-to-Text Transformer").

The encoder attends to both sides. The decoder attends to the tokens so far, and to the encoder's output, its memory:

    encoder, L layers     x <- x + attention(norm(x))                      x starts as token[ids]
                          x <- x + mlp(norm(x))                            memory = norm(x) after the last
    decoder, L' layers    x <- x + attention(norm(x))                      x starts as token[decoder ids]
                          x <- x + cross_attention(norm(x), memory)        (keys and values from the memory)
                          x <- x + mlp(norm(x))                            y = norm(x) after the last

There are no position embeddings. Instead, each head adds a number to the score of a query and a key that depends on
their distance; all layers of a stack share these numbers (section 2.1), and cross-attention has none:

    attention(Q, K, V) = softmax(Q K^T + bias + mask) V                    bias[h, t, s] = table[bucket(s - t), h]

``Q``, ``K`` and ``V`` are linear maps of x (``K`` and ``V`` of the memory, in cross-attention), cut into heads; see
``gpt2.py``. ``mask`` is minus infinity at padding and, in the decoder, at keys on the right.

The scores are not divided by the root of a head's width: the initial weights are smaller instead. ``norm`` is
RMSNorm, and no matrix has a bias. Version 1.0 has ``mlp(x) = down(relu(up(x)))``, and its language head is the token
table E: ``scores = (y / sqrt(D)) E^T``. Version 1.1 and Flan-T5 (Chung et al. 2022) have
``down(gelu(gate(x)) * up(x))`` (Shazeer 2020), and their language head is a matrix of its own, without the factor.
``t5_family.py`` has mT5 and umT5.

To classify, the decoder reads the text as well, moved one place to the right, and the head reads its last vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from minilm.errors import UserError, nearest
from minilm.models.architecture import Architecture, Names, Row, check_fixed
from minilm.models.batch import Batch, LayerCache, select_position
from minilm.models.dropout import Dropout
from minilm.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, Stack, check_published
from minilm.models.heads import HeadConfig, LanguageConfig
from minilm.models.layers import MLP, Attention, RMSNorm, relative_bucket
from minilm.models.masks import padding_mask


@dataclass(frozen=True)
class T5Config(EncoderDecoderConfig):
    """T5's settings; the defaults are those of the published class, T5-small of version 1.0."""

    vocab_size: int = 32128
    width: int = 512
    depth: int = 6  # layers of the encoder
    heads: int = 8
    head_width: int = 64  # heads * head_width need not be the width
    mlp_width: int = 2048
    activation: str = "relu"
    gated: bool = False
    buckets: int = 32  # rows of the table of relative positions
    max_distance: int = 128  # from here on, all distances share a bucket
    own_positions: bool = False  # each layer has a table of its own (umT5)
    dropout: float = 0.1  # after embeddings, sublayers and final norms, in the MLP, on the attention weights
    head_dropout: float = 0.0  # in the family's classification head
    norm_eps: float = 1e-6
    tied: bool = True  # a language head shares the token embedding
    scaled: bool = True  # a language head reads y / sqrt(D), as in version 1.0
    decoder: bool = True  # False: only the encoder

    def __post_init__(self) -> None:
        """Raises UserError for too few buckets, or if max_distance leaves none for distances beyond half of them."""
        if self.buckets < 4 or self.max_distance <= self.buckets // 2:
            raise UserError(f"max_distance ({self.max_distance}) must be above half of {self.buckets} buckets (from 4)")


def finite(x: Tensor) -> Tensor:
    """Clamp sums that overflowed float16; other dtypes are returned unchanged."""
    return x.nan_to_num(math.nan, 64504.0, -64504.0) if x.dtype == torch.float16 else x


@dataclass(frozen=True)
class Distances:
    """The distances between keys and queries, for all layers of a stack, and the bias of their scores."""

    rows: Tensor  # (B or 1, T, S) of a table of relative positions
    visible: Tensor | None  # (B or 1, 1, T or 1, S); None: all keys
    shared: Tensor | None = None  # (B or 1, H, T, S), if the layers share a table: what each adds

    def bias(self, table: nn.Embedding) -> Tensor:
        """(B or 1, H, T, S) the bias of attention scores: from the table of relative positions, or minus infinity."""
        bias = table(self.rows).permute(0, 3, 1, 2)
        return (bias if self.visible is None else bias.masked_fill(~self.visible, -math.inf)).contiguous()


class T5Layer(nn.Module):
    """One layer: attention to its own stack, in the decoder attention to the memory, then the MLP."""

    def __init__(self, config: T5Config, decoder: bool) -> None:
        super().__init__()
        plain: dict[str, Any] = {"bias": False, "dropout": config.dropout}
        heads: dict[str, Any] = {"heads": config.heads, "head_width": config.head_width, "scale": 1.0, **plain}
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config.width, **heads)
        self.relative_bias = nn.Embedding(config.buckets, config.heads) if config.own_positions else None
        if decoder:
            self.cross_attention_norm = RMSNorm(config.width, config.norm_eps)
            self.cross_attention = Attention(config.width, **heads)
        self.mlp_norm = RMSNorm(config.width, config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation, gated=config.gated, **plain)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        distances: Distances,
        batch: Batch,
        memory: Tensor | None = None,
        cache: LayerCache | None = None,
        query_position: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, D), memory (B, S, D) -> (B, T, D), or (B, 1, D) with a ``query_position`` (B,)."""
        bias = distances.shared if self.relative_bias is None else distances.bias(self.relative_bias)
        y = self.attention(self.attention_norm(x), bias, cache=cache, query_position=query_position)
        x = finite(select_position(x, query_position) + self.dropout(y))
        if memory is not None:
            y = self.cross_attention(self.cross_attention_norm(x), padding_mask(batch), memory=memory, cache=cache)
            x = finite(x + self.dropout(y))
        return finite(x + self.dropout(self.mlp(self.mlp_norm(x))))


class T5Stack(Stack):
    """The encoder or the decoder: its table of relative positions, its layers, its final norm."""

    norm: RMSNorm

    def __init__(self, config: T5Config, depth: int, *, decoder: bool) -> None:
        super().__init__(decoder=decoder)
        self.config = config
        self.relative_bias = None if config.own_positions else nn.Embedding(config.buckets, config.heads)
        self.layers = nn.ModuleList(T5Layer(config, decoder) for _ in range(depth))
        self.norm, self.dropout = RMSNorm(config.width, config.norm_eps), Dropout(config.dropout)

    def mask(self, batch: Batch, length: int) -> Distances:
        """The distances of all keys from these queries, without keys on the right (decoder) or padding (encoder)."""
        cache = batch.cache if self.is_decoder else None
        queries = torch.arange(length, device=batch.ids.device)[None] if cache is None else cache.positions
        keys = torch.arange(length if cache is None else cache.length, device=batch.ids.device)
        distance = keys - queries[:, :, None]  # (B or 1, T, S)
        rows = relative_bucket(distance, self.config.buckets, self.config.max_distance, both_sides=not self.is_decoder)
        found = Distances(rows, (distance <= 0)[:, None] if self.is_decoder else padding_mask(batch))
        return found if self.relative_bias is None else replace(found, shared=found.bias(self.relative_bias))

    def finish(self, x: Tensor) -> Tensor:
        return self.dropout(self.norm(x))


class T5Embeddings(nn.Module):
    """The token embedding, which encoder and decoder share."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.token, self.dropout = nn.Embedding(config.vocab_size, config.width), Dropout(config.dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, T, D)."""
        return self.dropout(self.token(ids))


class T5(EncoderDecoder):
    """Encoder and decoder, with one token table."""

    config: T5Config

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.embeddings = T5Embeddings(config)
        self.encoder = T5Stack(config, config.depth, decoder=False)
        self.decoder = T5Stack(config, config.decoder_depth or config.depth, decoder=True) if config.decoder else None

    def embed_ids(self, ids: Tensor, batch: Batch, *, decoder: bool) -> Tensor:
        return self.embeddings(ids)


def initialize(model: T5) -> None:
    """T5's initialisation: tokens from N(0, 1), matrices from N(0, 1/inputs), which keeps the vectors' size,
    tables of relative positions from N(0, 1/D). Queries are smaller by sqrt(head_width), as scores are not scaled."""
    width, head_width = model.config.width, model.config.head_width
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=width**-0.5 if name.endswith("relative_bias") else 1.0)
        elif isinstance(module, nn.Linear) and module.weight is not model.token_embedding.weight:
            inputs = module.in_features * (head_width if name.endswith("attention.query") else 1)
            nn.init.normal_(module.weight, std=inputs**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


# --- The published checkpoints -----------------------------------------------------------------------------------
# Sublayers are numbered there, and a stack's table of relative positions lies in its first layer.

ATTENTION = (Row("query", "q"), Row("key", "k"), Row("value", "v"), Row("output", "o"))
FEED_FORWARD: tuple[Row, ...] = (Row("gate", "wi_0"), Row("down", "wo"))
FEED_FORWARD += (Row("up", "wi", when=lambda c: not c.gated), Row("up", "wi_1", when=lambda c: c.gated))


def _stack(stack: str, **sublayers: str) -> Iterator[Row]:
    table = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
    yield Row(f"{stack}.relative_bias", table, when=lambda c: not c.own_positions)
    own = table.replace(".0.", ".{i}.", 1)
    yield Row(f"{stack}.layers.{{i}}.relative_bias", own, when=lambda c: c.own_positions)
    yield Row(f"{stack}.norm", f"{stack}.final_layer_norm")
    for number, (ours, theirs) in enumerate(sublayers.items()):
        layer, block = f"{stack}.layers.{{i}}.{ours}", f"{stack}.block.{{i}}.layer.{number}"
        yield Row(f"{layer}_norm", f"{block}.layer_norm")
        for row in FEED_FORWARD if ours == "mlp" else ATTENTION:
            yield replace(row, ours=f"{layer}.{row.ours}", theirs=f"{block}.{theirs}.{row.theirs}")


NAMES = Names(
    prefix={"encode": "", "classify": "transformer.", "lm": ""},
    rows=(
        Row("embeddings.token", "shared"),
        *_stack("encoder", attention="SelfAttention", mlp="DenseReluDense"),
        *_stack("decoder", attention="SelfAttention", cross_attention="EncDecAttention", mlp="DenseReluDense"),
    ),
    heads={
        "classify": tuple(
            Row(f"head.{a}", f"classification_head.{b}") for a, b in (("dense", "dense"), ("output", "out_proj"))
        ),
        "lm": (Row("head.output", "lm_head"),),
    },
    old=(("encoder.embed_tokens.", "shared."), ("decoder.embed_tokens.", "shared.")),  # copies of one table
    ignored=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),  # never used
)
KINDS = {(name, gated): "gated-" * gated + name for name in ("relu", "silu", "tanh") for gated in (False, True)}
KINDS |= {("gelu", False): "gelu", ("gelu", True): "gated-gelu_python"}  # activation, gated -> feed_forward_proj
KINDS |= {("gelu_tanh", False): "gelu_new", ("gelu_tanh", True): "gated-gelu"}


def read(published: dict[str, Any]) -> dict[str, Any]:
    """The feed-forward network. If ``dense_act_fn`` and ``is_gated_act`` contradict ``feed_forward_proj``, they
    take precedence, as in the published class."""
    check_published(published)
    if (kind := published.get("feed_forward_proj")) is None:
        return {}
    kinds = {name: key for key, name in KINDS.items()}
    if kind not in kinds:
        raise UserError(f"config.json: feed_forward_proj {kind!r} is not supported{nearest(kind, kinds)}")
    activation, gated = kinds[kind]
    made = {"activation": (activation, "dense_act_fn"), "gated": (gated, "is_gated_act")}
    return {ours: value for ours, (value, key) in made.items() if published.get(key) is None}


def write(config: T5Config, family: str = "T5", **fixed: Any) -> dict[str, Any]:
    """The inverse. Raises UserError if a setting differs from the ``fixed`` value of the family's published class."""
    check_fixed(config, family, {"own_positions": False, **fixed})
    kind = KINDS[config.activation, config.gated]
    return {"feed_forward_proj": kind, "num_decoder_layers": config.decoder_depth or None}


SETTINGS = (
    ("vocab_size", "vocab_size"),
    ("width", "d_model"),
    ("heads", "num_heads"),
    ("head_width", "d_kv"),
    ("depth", "num_layers"),
    ("decoder_depth", "num_decoder_layers"),
    ("decoder", "is_encoder_decoder"),
    ("mlp_width", "d_ff"),
    ("activation", "dense_act_fn"),
    ("gated", "is_gated_act"),
    ("norm_eps", "layer_norm_epsilon"),
    ("dropout", "dropout_rate"),
    ("head_dropout", "classifier_dropout"),
    ("buckets", "relative_attention_num_buckets"),
    ("max_distance", "relative_attention_max_distance"),
    ("tied", "tie_word_embeddings"),
    ("start_token", "decoder_start_token_id"),
    ("pad_token", "pad_token_id"),
)
ARCHITECTURE = Architecture(
    title="T5",
    config=T5Config,
    model=T5,
    initialize=initialize,
    classes={"encode": "T5EncoderModel", "classify": "T5ForSequenceClassification", "lm": "T5ForConditionalGeneration"},
    language_modeling="seq2seq",
    names=NAMES,
    classification_head=lambda c: HeadConfig(
        pooling="last", hidden=c.width, activation="tanh", dropout=c.head_dropout, input_dropout=c.head_dropout
    ),
    language_head=lambda c: LanguageConfig(scale=c.width**-0.5 if c.scaled else 1.0),
    settings=(*SETTINGS, ("scaled", "scale_decoder_outputs", "tie_word_embeddings")),
    read=read,
    write=write,
    switches=("decoder",),
    tied_by_tensors=True,  # in most files "tie_word_embeddings" only means that the head is scaled
    float32=("*.mlp.down.weight",),
)
