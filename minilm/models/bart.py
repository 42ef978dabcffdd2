"""BART: an encoder like BERT and a decoder like GPT, trained to restore corrupted texts (Lewis et al. 2020, "BART:
Denoising Sequence-to-Sequence Pre-training for Natural Language Generation, Translation, and Comprehension").

The encoder attends to both sides. The decoder attends to the tokens generated so far, and to the encoder's output, its
memory (see ``encoder_decoder.py``). Both have learned position embeddings, and a norm follows each sublayer
("post-norm", as in BERT), so there is no final norm:

    both                  x_0 = norm(token[ids] + position[0..T-1])          one token table, two of positions
    encoder, L layers     x <- norm(x + attention(x))
                          x <- norm(x + down(gelu(up(x))))                   memory = x after the last
    decoder, L' layers    x <- norm(x + attention(x))
                          x <- norm(x + cross_attention(x, memory))          (keys and values from the memory)
                          x <- norm(x + down(gelu(up(x))))                   y = x after the last

    attention(Q, K, V) = softmax(Q K^T / sqrt(D/H) + mask) V

``Q``, ``K`` and ``V`` are three linear maps of x (of the memory for cross-attention's ``K`` and ``V``), cut into heads
(``gpt2.py`` explains attention). ``mask`` is minus infinity at padding and, in the decoder, at keys on the right.

BART learned from texts in which spans of words, some of them empty, were each replaced by one mask token ("text
infilling"), and sentences were shuffled: the encoder reads the damaged text, the decoder writes the whole one. T5
learned to write the missing spans alone. The language head is the token table E:

    which word comes next?    scores = y E^T

To classify, the decoder reads the text as well, moved one place to the right, and the head reads its last vector, at
the place of the text's </s>. Every vector of the decoder has seen the text through the memory; the last one has all the
decoder's other vectors to its left as well:

    which class?              scores = output(tanh(dense(y_{T-1})))

``facebook/bart-large-mnli`` is such a classifier: does the first text entail the second?
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minilm.errors import UserError
from minilm.models.architecture import Architecture, Names, Row
from minilm.models.batch import Batch, LayerCache, select_position
from minilm.models.dropout import Dropout
from minilm.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, Stack, check_published
from minilm.models.heads import HeadConfig, LanguageConfig
from minilm.models.layers import MLP, Attention, draw_weights
from minilm.models.masks import padding_mask

FIRST_POSITION = 2  # the first token's row in the tables of positions; those before it are never used


@dataclass(frozen=True)
class BartConfig(EncoderDecoderConfig):
    """BART's settings; the defaults are those of the published class, the large model.

    Raises UserError if the heads of a stack do not divide the width.
    """

    vocab_size: int = 50265
    context: int = 1024  # longest text, in tokens, to read and to write
    width: int = 1024
    depth: int = 12  # layers of the encoder
    heads: int = 16
    mlp_width: int = 4096
    decoder_heads: int = 0  # 0: as many as the encoder
    decoder_mlp_width: int = 0  # 0: as the encoder
    activation: str = "gelu"
    scaled_tokens: bool = False  # token vectors times sqrt(D)
    dropout: float = 0.1  # after the embeddings and each sublayer
    attention_dropout: float = 0.0  # on the attention weights
    mlp_dropout: float = 0.0  # on the MLP's hidden vectors
    head_dropout: float = 0.0  # in the family's classification head
    tied: bool = True  # a language head shares the token embedding
    start_token: int = 2
    pad_token: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, encoders in (("depth", self.depth), ("heads", self.heads), ("mlp_width", self.mlp_width)):
            own = getattr(self, f"decoder_{name}") or encoders
            object.__setattr__(self, f"decoder_{name}", own)  # how a frozen dataclass completes itself
        if self.width % self.decoder_heads:
            raise UserError(f"width ({self.width}) must be a multiple of decoder_heads ({self.decoder_heads})")


class BartLayer(nn.Module):
    """One layer: attention to its own stack, in the decoder attention to the memory, then the MLP."""

    def __init__(self, config: BartConfig, *, decoder: bool) -> None:
        super().__init__()
        width, heads = config.width, config.decoder_heads if decoder else config.heads
        mlp_width = config.decoder_mlp_width if decoder else config.mlp_width
        self.attention = Attention(width, heads, dropout=config.attention_dropout, causal=decoder)
        self.attention_norm = nn.LayerNorm(width)
        if decoder:
            self.cross_attention = Attention(width, heads, dropout=config.attention_dropout)
            self.cross_attention_norm = nn.LayerNorm(width)
        self.mlp = MLP(width, mlp_width, config.activation, dropout=config.mlp_dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        batch: Batch,
        memory: Tensor | None = None,
        cache: LayerCache | None = None,
        query_position: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, D), memory (B, S, D) -> (B, T, D), or (B, 1, D) with a ``query_position`` (B,)."""
        y = self.attention(x, mask, cache=cache, query_position=query_position)
        x = self.attention_norm(select_position(x, query_position) + self.dropout(y))
        if memory is not None:
            y = self.cross_attention(x, padding_mask(batch), memory=memory, cache=cache)
            x = self.cross_attention_norm(x + self.dropout(y))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class BartStack(Stack):
    """The layers of the encoder or the decoder."""

    def __init__(self, config: BartConfig, *, decoder: bool) -> None:
        super().__init__(decoder=decoder)
        depth = config.decoder_depth if decoder else config.depth
        self.layers = nn.ModuleList(BartLayer(config, decoder=decoder) for _ in range(depth))

    def mask(self, batch: Batch, length: int) -> Tensor | None:
        """The keys that a query may attend to. Encoder: those that are not padding, (B, 1, 1, S). Decoder: those that
        are not on the right, (B, 1, T, S) with a cache; without a cache None, as SDPA's causal mask suffices."""
        if not self.is_decoder or batch.cache is None:
            return None if self.is_decoder else padding_mask(batch)
        keys = torch.arange(batch.cache.length, device=batch.ids.device)
        return (keys <= batch.cache.positions[:, :, None])[:, None]


class BartPositions(nn.Module):
    """The position embedding of one stack."""

    def __init__(self, config: BartConfig) -> None:
        super().__init__()
        self.position = nn.Embedding(FIRST_POSITION + config.context, config.width)
        self.norm, self.dropout = nn.LayerNorm(config.width), Dropout(config.dropout)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Token vectors x (B, T, D), positions (B or 1, T) -> (B, T, D)."""
        return self.dropout(self.norm(x + self.position(positions + FIRST_POSITION)))


class BartEmbeddings(nn.Module):
    """The token embedding, which both stacks share, and a position embedding for each stack."""

    def __init__(self, config: BartConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.scale = config.width**0.5 if config.scaled_tokens else 1.0
        self.encoder, self.decoder = BartPositions(config), BartPositions(config)

    def forward(self, ids: Tensor, positions: Tensor, *, decoder: bool) -> Tensor:
        """ids (B, T), positions (B or 1, T) -> (B, T, D)."""
        x = self.token(ids) * self.scale
        return self.decoder(x, positions) if decoder else self.encoder(x, positions)


class Bart(EncoderDecoder):
    """Encoder and decoder."""

    config: BartConfig

    def __init__(self, config: BartConfig) -> None:
        super().__init__(config)
        self.embeddings = BartEmbeddings(config)
        self.encoder = BartStack(config, decoder=False)
        self.decoder = BartStack(config, decoder=True)

    @property
    def context(self) -> int:
        return self.config.context

    def embed_ids(self, ids: Tensor, batch: Batch, *, decoder: bool) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        if decoder and batch.cache is not None:
            positions = batch.cache.positions
        return self.embeddings(ids, positions, decoder=decoder)


def initialize(model: Bart) -> None:
    """The published class's initialisation: N(0, 0.02^2), zero biases, unit norms."""
    draw_weights(model)


# --- The published checkpoints -----------------------------------------------------------------------------------


def _rows(stack: str, **attentions: str) -> Iterator[Row]:
    yield Row(f"embeddings.{stack}.position", f"{stack}.embed_positions")
    yield Row(f"embeddings.{stack}.norm", f"{stack}.layernorm_embedding")
    layer = f"{stack}.layers.{{i}}"
    for ours, theirs in attentions.items():
        for part, name in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("output", "out_proj")):
            yield Row(f"{layer}.{ours}.{part}", f"{layer}.{theirs}.{name}")
        yield Row(f"{layer}.{ours}_norm", f"{layer}.{theirs}_layer_norm")
    yield Row(f"{layer}.mlp.up", f"{layer}.fc1")
    yield Row(f"{layer}.mlp.down", f"{layer}.fc2")
    yield Row(f"{layer}.mlp_norm", f"{layer}.final_layer_norm")


NAMES = Names(
    prefix={"encode": "", "classify": "model.", "lm": "model."},
    rows=(
        Row("embeddings.token", "shared"),
        # If nothing is tied, the published classes need copies.
        Row("embeddings.token", "encoder.embed_tokens", when=lambda c: not c.tied),
        Row("embeddings.token", "decoder.embed_tokens", when=lambda c: not c.tied),
        *_rows("encoder", attention="self_attn"),
        *_rows("decoder", attention="self_attn", cross_attention="encoder_attn"),
    ),
    heads={
        "classify": (
            Row("head.dense", "classification_head.dense"),
            Row("head.output", "classification_head.out_proj"),
        ),
        # A buffer beside the head: a number for each word, which no training changes from 0.
        "lm": (Row("head.output", "lm_head"), Row("head.output.bias", "final_logits_bias", bare=True, zero_bias=True)),
    },
    old=(("encoder.embed_tokens.", "shared."), ("decoder.embed_tokens.", "shared.")),  # copies of one table
    ignored=("encoder.version", "decoder.version", "qa_outputs.*"),
)
# Settings that some config.json have, and with which the published class, which does not read them, would be wrong.
FIXED = {
    "is_encoder_decoder": True, "is_decoder": False, "normalize_before": False, "add_final_layer_norm": False,
    "normalize_embedding": True, "static_position_embeddings": False, "add_bias_logits": False,
    "encoder_layerdrop": 0, "decoder_layerdrop": 0,
}  # fmt: skip


def read(published: dict[str, Any]) -> dict[str, Any]:
    """The decoder's sizes have defaults of their own. Raises UserError for settings that are not supported."""
    for key, value in FIXED.items():
        if published.get(key, value) != value:
            raise UserError(f"config.json: {key} = {published[key]} is not supported, only {value}")
    if "classifier_dropout" in published and published["classifier_dropout"] is None:
        raise UserError("config.json: classifier_dropout is null; give a number, such as 0.0")
    check_published(published)
    defaults = {"decoder_depth": "decoder_layers", "decoder_heads": "decoder_attention_heads"}
    defaults |= {"decoder_mlp_width": "decoder_ffn_dim"}
    usual = BartConfig()
    return {ours: getattr(usual, ours) for ours, theirs in defaults.items() if published.get(theirs) is None}


ARCHITECTURE = Architecture(
    title="BART",
    config=BartConfig,
    model=Bart,
    initialize=initialize,
    classes={
        "encode": "BartModel",
        "classify": "BartForSequenceClassification",
        "lm": "BartForConditionalGeneration",
    },
    language_modeling="seq2seq",
    names=NAMES,
    classification_head=lambda c: HeadConfig(
        pooling="last", hidden=c.width, activation="tanh", dropout=c.head_dropout, input_dropout=c.head_dropout
    ),
    language_head=lambda c: LanguageConfig(),
    settings=(
        ("vocab_size", "vocab_size"),
        ("context", "max_position_embeddings"),
        ("width", "d_model"),
        ("depth", "encoder_layers"),
        ("heads", "encoder_attention_heads"),
        ("mlp_width", "encoder_ffn_dim"),
        ("decoder_depth", "decoder_layers"),
        ("decoder_heads", "decoder_attention_heads"),
        ("decoder_mlp_width", "decoder_ffn_dim"),
        ("activation", "activation_function"),
        ("scaled_tokens", "scale_embedding"),
        ("dropout", "dropout"),
        ("attention_dropout", "attention_dropout"),
        ("mlp_dropout", "activation_dropout"),
        ("head_dropout", "classifier_dropout"),
        ("tied", "tie_word_embeddings"),
        ("start_token", "decoder_start_token_id"),
        ("pad_token", "pad_token_id"),
    ),
    read=read,
)
