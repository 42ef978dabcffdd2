"""ModernBERT and mmBERT: encoders with improvements from decoders (Warner et al. 2024, "Smarter, Better, Faster,
Longer: A Modern Bidirectional Encoder for Fast, Memory Efficient, and Long Context Finetuning and
Inference"; Marone et al. 2025, "mmBERT: A Modern Multilingual Encoder with Annealed Language Learning").

As in BERT, each position attends to both sides. ``L`` layers add to a token's vector:

    x_0     = norm(token[ids])
    a_l     = x_l + attention_l(norm(x_l))                  in the first layer attention_l(x_l): x_0 is normed already
    x_{l+1} = a_l + down(gelu(gate(n)) * up(n))             n = norm(a_l)
    y       = norm(x_L)

    attention_l(Q, K, V) = softmax(R(Q) R(K)^T / sqrt(D/H) + mask_l) V

``Q``, ``K`` and ``V`` are three linear maps of x, cut into ``H`` heads (``gpt2.py`` explains attention).

Five things differ from BERT (section 2.1):

- Positions are encoded inside attention: ``R`` rotates queries and keys (Su et al. 2021; ``rotary.py``). There is no
  position table, and there are no segments.
- Attention alternates. Every third layer is *global*: it sees the whole text. The others are *local*: they see 64
  positions to each side, so long texts are cheaper. ``mask_l`` is minus infinity at keys that a query does not see.
  Rotary positions have the base 10,000 in local layers and 160,000 in global ones, for texts of 8,192 tokens (in
  mmBERT 160,000 in all).
- ``norm``, a LayerNorm, comes before each sublayer ("pre-norm"), so the path from x_0 to x_L is a plain sum.
- The MLP has a gate (GeGLU, Shazeer 2020).
- Matrices and norms have no biases; only the heads' last matrices have one.

It learned one task, to fill in masked words (30% of them). A classifier reads the vector at [CLS], or the mean of all:

    which words were masked?    scores = norm(gelu(dense(y))) token^T + b          at every position
    which class?                scores = output(norm(gelu(dense(pool(y))))) + b

Both heads begin with the same layers, so a new classifier keeps the language model's dense layer and norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from minilm.errors import UserError
from minilm.models.architecture import Architecture, Backbone, BackboneConfig, Names, Row
from minilm.models.batch import Batch, State, select_position
from minilm.models.dropout import Dropout
from minilm.models.heads import ClassificationHead, HeadConfig, LanguageConfig
from minilm.models.layer_kinds import FULL, SLIDING, Kind, full_layers, read_both, write_both
from minilm.models.layers import MLP, Attention, draw_weights
from minilm.models.masks import padding_mask, window_mask
from minilm.models.rotary import Rotary, rotary_tables


@dataclass(frozen=True)
class ModernBertConfig(BackboneConfig):
    """ModernBERT's settings; the defaults are those of the base model.

    Raises UserError if the width and the heads do not divide, or a head's numbers do not pair.
    """

    vocab_size: int = 50368
    context: int = 8192  # longest text in training; longer ones run too
    width: int = 768
    depth: int = 22
    heads: int = 12
    mlp_width: int = 1152
    activation: str = "gelu"
    global_layers: tuple[int, ...] | None = None  # None: every third, from the first on
    window: int = 128  # a local layer sees half of it to each side
    rotary: Rotary = field(default_factory=lambda: Rotary(base=160_000.0))  # of global layers
    local_rotary: Rotary = field(default_factory=Rotary)
    attention_bias: bool = False
    mlp_bias: bool = False
    norm_bias: bool = False
    norm_eps: float = 1e-5
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0  # on the attention weights, and after attention
    mlp_dropout: float = 0.0  # on the MLP's hidden vectors
    head_pooling: str = "cls"  # of the family's classification head; or "mean"
    head_activation: str = "gelu"  # of both heads
    head_bias: bool = False  # of both heads' dense layer
    head_dropout: float = 0.0  # in the family's classification head
    language_bias: bool = True  # of the language head's last layer
    tied: bool = True  # a language head shares the token embedding
    pad_token: int | None = 50283  # for padding, which does not affect outputs; None: not in the vocabulary

    def __post_init__(self) -> None:
        super().__post_init__()
        resolve = object.__setattr__  # how a frozen dataclass completes itself
        chosen = range(0, self.depth, 3) if self.global_layers is None else self.global_layers
        resolve(self, "global_layers", tuple(i for i in chosen if i < self.depth))
        if self.pad_token is not None and self.pad_token >= self.vocab_size:
            resolve(self, "pad_token", None)
        for name in ("rotary", "local_rotary"):
            if isinstance(rotary := getattr(self, name), dict):  # a table in TOML or JSON
                resolve(self, name, Rotary(**rotary))
        for rotary in (self.rotary, self.local_rotary):
            rotary.rotated(self.head_width)
        if self.head_pooling not in ("cls", "mean"):
            raise UserError(f'head_pooling (classifier_pooling) must be "cls" or "mean", got {self.head_pooling!r}')

    @property
    def head_width(self) -> int:
        """The width of an attention head."""
        return self.width // self.heads

    def is_global(self, layer: int) -> bool:
        """Whether a layer sees the whole text."""
        return self.global_layers is not None and layer in self.global_layers


class ModernBertLayer(nn.Module):
    """One layer: attention to all positions or those nearby, then the gated MLP, each added to its input."""

    def __init__(self, config: ModernBertConfig, *, first: bool) -> None:
        super().__init__()
        c = config
        self.attention_norm = nn.Identity() if first else nn.LayerNorm(c.width, c.norm_eps, bias=c.norm_bias)
        self.attention = Attention(c.width, c.heads, bias=c.attention_bias, dropout=c.attention_dropout)
        self.dropout = Dropout(c.attention_dropout)
        self.mlp_norm = nn.LayerNorm(c.width, c.norm_eps, bias=c.norm_bias)
        self.mlp = MLP(c.width, c.mlp_width, c.activation, bias=c.mlp_bias, gated=True, dropout=c.mlp_dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None, rotary: tuple[Tensor, Tensor], query_position: Tensor | None = None
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D), or (B, 1, D) with a ``query_position`` (B,). ``rotary`` turns queries and keys."""
        y = self.attention(self.attention_norm(x), mask, rotary=rotary, query_position=query_position)
        x = select_position(x, query_position) + self.dropout(y)
        return x + self.mlp(self.mlp_norm(x))


class ModernBertEmbeddings(nn.Module):
    """The token embedding, followed by a norm."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.norm = nn.LayerNorm(config.width, config.norm_eps, bias=config.norm_bias)
        self.dropout = Dropout(config.embedding_dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, T, D)."""
        return self.dropout(self.norm(self.token(ids)))


class ModernBert(Backbone):
    """The encoder."""

    config: ModernBertConfig

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__(config)
        self.embeddings = ModernBertEmbeddings(config)
        self.layers = nn.ModuleList(ModernBertLayer(config, first=i == 0) for i in range(config.depth))
        self.norm = nn.LayerNorm(config.width, config.norm_eps, bias=config.norm_bias)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    @property
    def context(self) -> int:
        return self.config.context

    def embed(self, batch: Batch) -> State:
        return State(self.embeddings(batch.ids))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        x, c = state.x, self.config
        where = c.head_width, c.context, batch.position_numbers(), x
        everywhere = padding_mask(batch), rotary_tables(c.rotary, *where)
        nearby = window_mask(batch, c.window // 2), rotary_tables(c.local_rotary, *where)
        for i in range(first, last):
            mask, rotary = everywhere if c.is_global(i) else nearby
            x = self.layers[i](x, mask, rotary, self.query_position(batch, i))
        return replace(state, x=x)

    def finish(self, state: State) -> Tensor:
        return self.norm(state.x)

    def norms_after(self, layer: int) -> Sequence[nn.Module]:
        return (self.norm,)


def initialize(model: ModernBert) -> None:
    """The published class's initialisation: N(0, 0.02^2), cut off at two deviations; zero biases, unit norms.

    Each layer adds two terms to the path from x_0 to x_L. The deviation of the matrices that make them is divided by
    sqrt(2 L), and so is that of the heads' dense layer. A classifier's last layer has D^(-1/2).
    """
    draw_weights(model, truncated=True)
    deviations = dict.fromkeys(("attention.output", "mlp.down", "head.dense"), 0.02 / (2 * model.config.depth) ** 0.5)
    if isinstance(model.head, ClassificationHead):
        deviations["head.output"] = model.config.width**-0.5
    for name, module in model.named_modules():
        std = deviations.get(".".join(name.split(".")[-2:]))
        if std is not None and isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)


# --- The published checkpoints ------------------------------------------------------------------------------------

HEAD = (Row("head.dense", "head.dense"), Row("head.norm", "head.norm"))
NAMES = Names(
    prefix={"encode": "", "classify": "model.", "lm": "model."},
    rows=(
        Row("embeddings.token", "embeddings.tok_embeddings"),
        Row("embeddings.norm", "embeddings.norm"),
        Row("layers.{i}.attention_norm", "layers.{i}.attn_norm"),
        Row("layers.{i}.attention.query", "layers.{i}.attn.Wqkv", part=0, parts=3),
        Row("layers.{i}.attention.key", "layers.{i}.attn.Wqkv", part=1, parts=3),
        Row("layers.{i}.attention.value", "layers.{i}.attn.Wqkv", part=2, parts=3),
        Row("layers.{i}.attention.output", "layers.{i}.attn.Wo"),
        Row("layers.{i}.mlp_norm", "layers.{i}.mlp_norm"),
        Row("layers.{i}.mlp.gate", "layers.{i}.mlp.Wi", part=0, parts=2),
        Row("layers.{i}.mlp.up", "layers.{i}.mlp.Wi", part=1, parts=2),
        Row("layers.{i}.mlp.down", "layers.{i}.mlp.Wo"),
        Row("norm", "final_norm"),
    ),
    heads={
        "classify": (*HEAD, Row("head.output", "classifier")),
        "lm": (*HEAD, Row("head.output", "decoder")),
    },
)
KINDS = {
    FULL: Kind("rotary", "global_rope_theta", 160_000.0), SLIDING: Kind("local_rotary", "local_rope_theta", 10_000.0),
}  # fmt: skip


def read(published: dict[str, Any]) -> dict[str, Any]:
    """The global layers, as a list or every n-th; and the rotary positions of both kinds."""
    depth, every = published.get("num_hidden_layers", 22), published.get("global_attn_every_n_layers", 3)
    kinds = published.get("layer_types") or [SLIDING if i % every else FULL for i in range(depth)]
    head_width = published.get("hidden_size", 768) // published.get("num_attention_heads", 12)
    return {"global_layers": full_layers(kinds, depth), **read_both(published, KINDS, head_width)}


def write(config: ModernBertConfig) -> dict[str, Any]:
    """The inverse of ``read``, with new and, if possible, old keys, as readers use defaults for missing keys."""
    every = {tuple(range(0, config.depth, n)): n for n in range(1, config.depth + 1)}.get(config.global_layers or ())
    return {
        "layer_types": [FULL if config.is_global(i) else SLIDING for i in range(config.depth)],
        "global_attn_every_n_layers": every,
        **write_both({FULL: config.rotary, SLIDING: config.local_rotary}, KINDS),
    }


ARCHITECTURE = Architecture(
    title="ModernBERT",
    config=ModernBertConfig,
    model=ModernBert,
    initialize=initialize,
    classes={
        "encode": "ModernBertModel", "classify": "ModernBertForSequenceClassification", "lm": "ModernBertForMaskedLM",
    },
    language_modeling="masked", names=NAMES,
    classification_head=lambda c: HeadConfig(
        c.head_pooling, c.width, norm=True, norm_last=True, norm_eps=c.norm_eps, activation=c.head_activation,
        dropout=c.head_dropout, dense_bias=c.head_bias, norm_bias=c.norm_bias,
    ),
    language_head=lambda c: LanguageConfig(
        c.width, c.head_activation, c.norm_eps, bias=c.language_bias, dense_bias=c.head_bias, norm_bias=c.norm_bias
    ),
    settings=(
        ("vocab_size", "vocab_size"),
        ("context", "max_position_embeddings"),
        ("width", "hidden_size"),
        ("depth", "num_hidden_layers"),
        ("heads", "num_attention_heads"),
        ("mlp_width", "intermediate_size"),
        ("activation", "hidden_activation"),
        ("window", "local_attention"),
        ("attention_bias", "attention_bias"),
        ("mlp_bias", "mlp_bias"),
        ("norm_bias", "norm_bias"),
        ("norm_eps", "norm_eps"),
        ("embedding_dropout", "embedding_dropout"),
        ("attention_dropout", "attention_dropout"),
        ("mlp_dropout", "mlp_dropout"),
        ("head_pooling", "classifier_pooling"),
        ("head_activation", "classifier_activation"),
        ("head_bias", "classifier_bias"),
        ("head_dropout", "classifier_dropout"),
        ("language_bias", "decoder_bias"),
        ("tied", "tie_word_embeddings"),
        ("pad_token", "pad_token_id"),
    ),
    read=read,
    write=write,
)  # fmt: skip
