"""T5: an encoder that reads a text and a decoder that writes one (Raffel et al. 2020).

The encoder reads to both sides. The decoder reads what is written so far, from left to right, and attends to the
encoder's finished vectors, its memory:

    encoder, L layers     x <- x + attention(norm(x))                      x starts as token[ids]
                          x <- x + mlp(norm(x))                            memory = norm(x) after the last
    decoder, L' layers    x <- x + attention(norm(x))                      x starts as token[decoder ids]
                          x <- x + cross_attention(norm(x), memory)        (keys and values from the memory)
                          x <- x + mlp(norm(x))                            y = norm(x) after the last

Nothing tells a token where it stands. Instead, each head adds a number to the score of a query and a key, by their
distance; all layers of a stack share these numbers (section 2.1), and cross-attention has none:

    attention(Q, K, V) = softmax(Q K^T + bias) V                           bias[h, t, s] = table[bucket(s - t), h]

The scores are not divided by the root of a head's width: the initial weights are smaller instead. ``norm`` is
RMSNorm, and no matrix has a bias. Version 1.0 has ``mlp(x) = down(relu(up(x)))``, and its language head is the token
table E: ``scores = (y / sqrt(D)) E^T``. Version 1.1 and Flan-T5 (Chung et al. 2022) have
``down(gelu(gate(x)) * up(x))`` (Shazeer 2020), and their language head is a matrix of its own, without the factor.

To classify, the decoder reads the text as well, moved one place to the right, and the head reads its last vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from minilm.errors import UserError, nearest
from minilm.models.architecture import Architecture, Backbone, BackboneConfig, Names, Row
from minilm.models.batch import Batch, LayerCache, State, select_position
from minilm.models.dropout import Dropout
from minilm.models.heads import HeadConfig, LanguageConfig, LanguageHead
from minilm.models.layers import MLP, Attention, RMSNorm, padding_mask


@dataclass(frozen=True)
class T5Config(BackboneConfig):
    """T5's settings; the defaults are those of the published class, T5-small of version 1.0."""

    vocab_size: int = 32128
    width: int = 512
    depth: int = 6  # layers of the encoder
    decoder_depth: int = 0  # layers of the decoder; 0: as many
    heads: int = 8
    head_width: int = 64  # heads * head_width need not be the width
    mlp_width: int = 2048
    activation: str = "relu"
    gated: bool = False
    buckets: int = 32  # rows of the table of relative positions
    max_distance: int = 128  # from here on, all distances share a bucket
    dropout: float = 0.1  # after embeddings, sublayers and final norms, in the MLP, on the attention weights
    head_dropout: float = 0.0  # in the family's classification head
    norm_eps: float = 1e-6
    tied: bool = True  # a language head shares the token embedding
    scaled: bool = True  # a language head reads y / sqrt(D), as in version 1.0
    start_token: int = 0  # what the decoder reads first
    pad_token: int = 0
    decoder: bool = True  # False: the encoder alone

    def __post_init__(self) -> None:
        """Heads have a width of their own."""


def bucket(distance: Tensor, buckets: int, max_distance: int, *, both_sides: bool) -> Tensor:
    """The bucket of each distance ``s - t`` from a query at ``t`` to a key at ``s`` (section 2.1).

    ``both_sides`` gives half of them to keys on the right; else those are in bucket 0, for no decoder looks there. Of
    a side's ``n`` buckets, the distances below n/2 have one each, and those up to ``max_distance`` share the others,
    in equal steps of their logarithm."""
    side = buckets // 2 if both_sides else buckets
    offset = (distance > 0) * side if both_sides else 0
    distance = distance.abs() if both_sides else (-distance).clamp(min=0)
    near = side // 2
    ratio = torch.log(distance.clamp(min=near).float() / near) / math.log(max_distance / near)  # 0 to 1, then above
    far = near + (ratio * (side - near)).long()
    return offset + torch.where(distance < near, distance, far.clamp(max=side - 1))


def finite(x: Tensor) -> Tensor:
    """Sums that overflowed float16, brought back into its range; other dtypes have a wider one."""
    return x.nan_to_num(math.nan, 64504.0, -64504.0) if x.dtype == torch.float16 else x


class T5Layer(nn.Module):
    """One layer: attention to its own stack, in the decoder attention to the memory, then the MLP."""

    def __init__(self, config: T5Config, decoder: bool) -> None:
        super().__init__()
        plain: dict[str, Any] = {"bias": False, "dropout": config.dropout}
        heads: dict[str, Any] = {"heads": config.heads, "head_width": config.head_width, "scale": 1.0, **plain}
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config.width, **heads)
        if decoder:
            self.cross_attention_norm = RMSNorm(config.width, config.norm_eps)
            self.cross_attention = Attention(config.width, **heads)
        self.mlp_norm = RMSNorm(config.width, config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation, gated=config.gated, **plain)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Tensor, mask: Tensor, batch: Batch, memory: Tensor | None = None, cache: LayerCache | None = None,
        query_position: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """x (B, T, D), memory (B, S, D) -> (B, T, D), or (B, 1, D) with a ``query_position`` (B,)."""
        y = self.attention(self.attention_norm(x), mask, cache=cache, query_position=query_position)
        x = finite(select_position(x, query_position) + self.dropout(y))
        if memory is not None:
            y = self.cross_attention(self.cross_attention_norm(x), padding_mask(batch), memory=memory, cache=cache)
            x = finite(x + self.dropout(y))
        return finite(x + self.dropout(self.mlp(self.mlp_norm(x))))


class T5Stack(nn.Module):
    """The encoder or the decoder: its table of relative positions, its layers, its final norm."""

    def __init__(self, config: T5Config, depth: int, *, decoder: bool) -> None:
        super().__init__()
        self.config, self.is_decoder = config, decoder
        self.relative_bias = nn.Embedding(config.buckets, config.heads)
        self.layers = nn.ModuleList(T5Layer(config, decoder) for _ in range(depth))
        self.norm, self.dropout = RMSNorm(config.width, config.norm_eps), Dropout(config.dropout)

    def mask(self, batch: Batch, length: int) -> Tensor:
        """What every layer adds to its scores, (B or 1, H, T, S): the bias, and minus infinity at hidden keys."""
        cache = batch.cache if self.is_decoder else None
        queries = torch.arange(length, device=batch.ids.device)[None] if cache is None else cache.positions
        keys = torch.arange(length if cache is None else cache.length, device=batch.ids.device)
        distance = keys - queries[:, :, None]  # (B or 1, T, S)
        rows = bucket(distance, self.config.buckets, self.config.max_distance, both_sides=not self.is_decoder)
        bias = self.relative_bias(rows).permute(0, 3, 1, 2)  # (B or 1, H, T, S)
        visible = (distance <= 0)[:, None] if self.is_decoder else padding_mask(batch)
        return (bias if visible is None else bias.masked_fill(~visible, -math.inf)).contiguous()


class T5Embeddings(nn.Module):
    """What a token is; encoder and decoder share the table."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.token, self.dropout = nn.Embedding(config.vocab_size, config.width), Dropout(config.dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, T, D)."""
        return self.dropout(self.token(ids))


class T5(Backbone):
    """Encoder and decoder. Layers are numbered through the encoder, then the decoder.

    Before the decoder's first layer, the encoder's output becomes the state's memory, and its x the decoder's tokens.
    """

    config: T5Config

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.start_token = config.start_token
        self.embeddings = T5Embeddings(config)
        self.encoder = T5Stack(config, config.depth, decoder=False)
        self.decoder = T5Stack(config, config.decoder_depth or config.depth, decoder=True) if config.decoder else None

    @property
    def stacks(self) -> list[T5Stack]:
        return [self.encoder] if self.decoder is None else [self.encoder, self.decoder]

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [layer for stack in self.stacks for layer in stack.layers]

    def norms_after(self, layer: int) -> Sequence[nn.Module]:
        return [stack.norm for stack in self.stacks[int(layer >= self.config.depth) :]]

    def embed(self, batch: Batch) -> State:
        """The state before the first layer; in later steps of a generation, before the decoder's first."""
        memory = batch.cache.memory if batch.cache is not None else None
        return State(self.embeddings(batch.ids)) if memory is None else self.enter_decoder(batch, memory)

    def enter_decoder(self, batch: Batch, memory: Tensor) -> State:
        """The state before the decoder's first layer. Without ids it reads labels or else the text, moved right."""
        ids = batch.decoder_ids
        if ids is None:
            wanted = batch.labels if isinstance(self.head, LanguageHead) else batch.ids
            if wanted is None:
                raise ValueError("a T5 language model needs decoder_ids or labels")
            ids = self.shift_right(wanted)
        if batch.cache is not None:
            batch.cache.memory = memory
        return State(self.embeddings(ids), memory=memory)

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        depth = self.config.depth
        if first < depth and state.memory is None:
            state = self._run(self.encoder, state, batch, range(first, min(last, depth)))
        if last > depth and self.decoder is not None:
            if state.memory is None:
                state = self.enter_decoder(batch, self.finish(state))
            state = self._run(self.decoder, state, batch, range(max(first, depth), last))
        return state

    def _run(self, stack: T5Stack, state: State, batch: Batch, layers: range) -> State:
        x, mask, blocks = state.x, stack.mask(batch, state.x.shape[1]), self.blocks
        for i in layers:
            cache = batch.layer_cache(i) if stack.is_decoder else None
            x = blocks[i](x, mask, batch, state.memory, cache, self.query_position(batch, i))
        return replace(state, x=x)

    def finish(self, state: State) -> Tensor:
        """The finished vectors, (B, T or 1, D), of the stack that the state is in."""
        stack = self.stacks[int(state.memory is not None)]
        return stack.dropout(stack.norm(state.x))

    def shift_right(self, labels: Tensor) -> Tensor:
        """What a decoder reads to predict ``labels`` (B, T'): the start token, then all of them but the last."""
        earlier = labels[:, :-1].masked_fill(labels[:, :-1] < 0, self.config.pad_token)
        return torch.cat((labels.new_full((len(labels), 1), self.config.start_token), earlier), dim=1)


def initialize(model: T5) -> None:
    """T5's initialisation: tokens from N(0, 1), matrices from N(0, 1/inputs), which keeps the vectors' size; queries
    are smaller by sqrt(head_width), for attention does not scale its scores."""
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
    yield Row(f"{stack}.relative_bias", f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias")
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


def _read(published: dict[str, Any]) -> dict[str, Any]:
    kind, kinds = published.get("feed_forward_proj", "relu"), {name: key for key, name in KINDS.items()}
    if kind not in kinds:
        raise UserError(f"config.json: feed_forward_proj {kind!r} is not one of ours{nearest(kind, kinds)}")
    return dict(zip(("activation", "gated"), kinds[kind], strict=True))


ARCHITECTURE = Architecture(
    title="T5", config=T5Config, model=T5, initialize=initialize, names=NAMES, language_modeling="seq2seq",
    read=_read, float32=("*.mlp.down.weight",), switches=("decoder",),
    classes={"encode": "T5EncoderModel", "classify": "T5ForSequenceClassification", "lm": "T5ForConditionalGeneration"},
    classification_head=lambda c: HeadConfig(
        pooling="last", hidden=c.width, activation="tanh", dropout=c.head_dropout, input_dropout=c.head_dropout
    ),
    language_head=lambda c: LanguageConfig(scale=c.width**-0.5 if c.scaled else 1.0),
    tied_by_tensors=True,  # in most files "tie_word_embeddings" means that the head is scaled, and not what it says
    settings=(
        ("vocab_size", "vocab_size"), ("width", "d_model"), ("heads", "num_heads"), ("head_width", "d_kv"),
        ("depth", "num_layers"), ("decoder_depth", "num_decoder_layers"), ("decoder", "is_encoder_decoder"),
        ("mlp_width", "d_ff"), ("norm_eps", "layer_norm_epsilon"), ("dropout", "dropout_rate"),
        ("buckets", "relative_attention_num_buckets"), ("max_distance", "relative_attention_max_distance"),
        ("tied", "tie_word_embeddings"), ("start_token", "decoder_start_token_id"), ("pad_token", "pad_token_id"),
        ("scaled", "scale_decoder_outputs", "tie_word_embeddings"), ("head_dropout", "classifier_dropout"),
    ),
    write=lambda c: {"feed_forward_proj": KINDS[c.activation, c.gated], "num_decoder_layers": c.decoder_depth or None},
)  # fmt: skip
