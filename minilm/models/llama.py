"""Llama: the decoder of Llama, Bielik, Mistral, Qwen, SmolLM3 and Phi-3 (``llama_family.py``; Touvron et al. 2023,
"LLaMA: Open and Efficient Foundation Language Models").

The input vector of a token is its token embedding, without a position. Each of ``L`` layers adds the output of
attention to the token and those on its left, then the output of the MLP:

    x_0     = token[ids]
    a_l     = x_l + attention(norm(x_l))
    x_{l+1} = a_l + down(silu(gate(n)) * up(n))             n = norm(a_l)
    y       = norm(x_L)

    attention(Q, K, V) = softmax(R(Q) R(K)^T / sqrt(D/H) + mask) V         R: rotates by position

``Q``, ``K`` and ``V`` are three linear maps of x, cut into heads (``gpt2.py`` explains attention). ``mask`` is minus
infinity at keys on the right, and 0 elsewhere.

Five things differ from GPT-2:

- ``norm`` divides by the root mean square and subtracts no mean (Zhang and Sennrich 2019).
- Positions are encoded inside attention: at position ``t`` the pairs of numbers in a query or a key are rotated by
  angles proportional to ``t``, so their product depends on the distance of the two positions (Su et al. 2021;
  ``rotary.py``).
- Groups of ``H/G`` query heads share a key and a value head, so the cache is smaller (Ainslie et al. 2023;
  from the largest models of Llama 2 on).
- The MLP has a gate, a second projection that scales each number (SwiGLU, Shazeer 2020).
- Biases: none in Llama, on queries, keys and values in Qwen2, everywhere in Bielik-1.5B.

Some families have one more difference. Mistral's layers see only the last ``window`` positions; information from
earlier positions still arrives, as each layer carries it one window further. Qwen3 norms each head's query and key,
before ``R``. Every fourth layer of SmolLM3 has no rotary positions: the mask, and the vectors from the other layers,
carry the order. Phi-3 stretches the rotary positions of long texts; its files hold query, key and value as one matrix.

A classifier reads the last token's vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from minilm.errors import UserError
from minilm.models.architecture import Architecture, Backbone, BackboneConfig, Names, Row, check_fixed
from minilm.models.batch import Batch, LayerCache, State, select_position
from minilm.models.dropout import Dropout
from minilm.models.heads import HeadConfig, LanguageConfig
from minilm.models.layers import MLP, Attention, RMSNorm, draw_weights
from minilm.models.masks import causal_mask
from minilm.models.rotary import Rotary, read_rotary, rotary_tables, turns_whole_heads, write_rotary


@dataclass(frozen=True)
class LlamaConfig(BackboneConfig):
    """Llama's settings; the defaults are the published class's: the first LLaMA with 7 billion parameters (Touvron et
    al. 2023).

    Raises UserError if the width, the heads and the key-value heads do not divide, or a head's numbers do not pair.
    """

    vocab_size: int = 32000
    context: int = 2048  # longest text in training; longer ones run too
    width: int = 4096
    depth: int = 32
    heads: int = 32
    kv_heads: int = 0  # 0: as many as heads
    head_width: int = 0  # 0: width / heads
    mlp_width: int = 11008
    activation: str = "silu"
    attention_bias: bool = False  # on queries, keys and values
    output_bias: bool = False  # on attention's output
    mlp_bias: bool = False
    head_norms: bool = False  # a norm of each head's query and key
    attention_dropout: float = 0.0  # on the attention weights
    dropout: float = 0.0  # on what each sublayer adds
    norm_eps: float = 1e-6
    rotary: Rotary = field(default_factory=Rotary)
    window: int = 0  # how many positions a layer sees, its own included; 0: all to its left
    full_layers: tuple[int, ...] = ()  # layers that see everything in spite of the window
    unplaced_layers: tuple[int, ...] = ()  # layers without rotary positions
    tied: bool = False  # a language head shares the token embedding
    pad_token: int | None = None  # for padding, which does not affect outputs; None: not in the vocabulary

    def __post_init__(self) -> None:
        if not self.heads or (self.width % self.heads and not self.head_width):
            raise UserError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        resolve = object.__setattr__  # how a frozen dataclass completes itself
        resolve(self, "kv_heads", self.kv_heads or self.heads)
        if self.pad_token is not None and self.pad_token >= self.vocab_size:
            resolve(self, "pad_token", None)
        resolve(self, "head_width", self.head_width or self.width // self.heads)
        if isinstance(self.rotary, dict):  # a table in TOML or JSON
            resolve(self, "rotary", Rotary(**self.rotary))
        if self.heads % self.kv_heads:
            raise UserError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        self.rotary.rotated(self.head_width)


class LlamaLayer(nn.Module):
    """One layer: attention to the left, then the gated MLP, each added to its input."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.attention_norm = RMSNorm(width, eps)
        self.attention = Attention(
            width,
            config.heads,
            kv_heads=config.kv_heads,
            head_width=config.head_width,
            bias=config.attention_bias,
            output_bias=config.output_bias,
            dropout=config.attention_dropout,
            causal=True,
            head_norm=(lambda head_width: RMSNorm(head_width, eps)) if config.head_norms else None,
        )
        self.mlp_norm = RMSNorm(width, eps)
        self.mlp = MLP(width, config.mlp_width, config.activation, bias=config.mlp_bias, gated=True)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        query_position: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D), or (B, 1, D) with a ``query_position`` (B,). ``rotary``: cos and sin,
        (B or 1, 1, T, n) each; None: no rotary positions."""
        x_norm = self.attention_norm(x)
        y = self.attention(x_norm, mask, rotary=rotary, cache=cache, query_position=query_position)
        x = select_position(x, query_position) + self.dropout(y)
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class LlamaEmbeddings(nn.Module):
    """The token embedding."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, T, D)."""
        return self.token(ids)


class Llama(Backbone):
    """The decoder."""

    config: LlamaConfig

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.embeddings = LlamaEmbeddings(config)
        self.layers = nn.ModuleList(LlamaLayer(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width, config.norm_eps)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    @property
    def is_causal(self) -> bool:
        return True

    @property
    def context(self) -> int:
        """With "linear" rotary positions the context is the config's times ``factor``. With "dynamic" it is not longer,
        as beyond the config's context each new token would change the angles of the cached keys. For the same reason
        "longrope" ends at the original context; beyond it, the other texts of a batch would change a text's vectors."""
        rotary = self.config.rotary
        if rotary.kind == "longrope":
            return rotary.trained or self.config.context
        return int(self.config.context * (rotary.factor if rotary.kind == "linear" else 1))

    def embed(self, batch: Batch) -> State:
        return State(self.embeddings(batch.ids))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        x, c = state.x, self.config
        rotary = rotary_tables(c.rotary, c.head_width, c.context, batch.position_numbers(), x)
        full, windowed = causal_mask(batch), causal_mask(batch, c.window)
        for i in range(first, last):
            mask = full if i in c.full_layers else windowed
            turned = None if i in c.unplaced_layers else rotary
            x = self.layers[i](x, turned, mask, batch.layer_cache(i), self.query_position(batch, i))
        return replace(state, x=x)

    def finish(self, state: State) -> Tensor:
        return self.norm(state.x)

    def norms_after(self, layer: int) -> Sequence[nn.Module]:
        return (self.norm,)


def initialize(model: Llama) -> None:
    """The published class's initialisation: N(0, 0.02^2), zero biases, unit norms."""
    draw_weights(model)


# --- The published checkpoints ----------------------------------------------------------------------------------

NAMES = Names(
    prefix={"encode": "", "classify": "model.", "lm": "model."},
    rows=(
        Row("embeddings.token", "embed_tokens"),
        Row("layers.{i}.attention_norm", "layers.{i}.input_layernorm"),
        Row("layers.{i}.attention.query", "layers.{i}.self_attn.q_proj"),
        Row("layers.{i}.attention.key", "layers.{i}.self_attn.k_proj"),
        Row("layers.{i}.attention.value", "layers.{i}.self_attn.v_proj"),
        Row("layers.{i}.attention.output", "layers.{i}.self_attn.o_proj"),
        Row("layers.{i}.mlp_norm", "layers.{i}.post_attention_layernorm"),
        Row("layers.{i}.mlp.gate", "layers.{i}.mlp.gate_proj"),
        Row("layers.{i}.mlp.up", "layers.{i}.mlp.up_proj"),
        Row("layers.{i}.mlp.down", "layers.{i}.mlp.down_proj"),
        Row("norm", "norm"),
    ),
    heads={"classify": (Row("head.output", "score"),), "lm": (Row("head.output", "lm_head"),)},
    ignored=("layers.*.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq"),  # buffers of older versions
    other_prefixes=("transformer.",),  # LlamaForQuestionAnswering
)


FIXED = {"window": 0, "full_layers": (), "unplaced_layers": (), "head_norms": False, "dropout": 0.0}


def write(config: LlamaConfig, family: str = "Llama", fixed: dict[str, Any] | None = None) -> dict[str, Any]:
    """The keys for rotary positions. Raises UserError if a setting differs from its value in ``fixed`` (None: Llama's),
    or if only a part of each head is rotated."""
    check_fixed(config, family, fixed or {**FIXED, "output_bias": config.attention_bias})
    if config.rotary.rotated(config.head_width) < config.head_width:
        raise UserError(f"{family} checkpoints have rotary.partial = 1, but this model has {config.rotary.partial}")
    return write_rotary(config.rotary)


def whole_rotary(published: dict[str, Any]) -> Rotary:
    """Rotary positions that turn whole heads, as the published class does."""
    width = published.get("head_dim") or published.get("hidden_size", 4096) // published.get("num_attention_heads", 32)
    return turns_whole_heads(read_rotary(published), width)


SETTINGS = (
    ("vocab_size", "vocab_size"),
    ("context", "max_position_embeddings"),
    ("width", "hidden_size"),
    ("depth", "num_hidden_layers"),
    ("heads", "num_attention_heads"),
    ("kv_heads", "num_key_value_heads"),
    ("head_width", "head_dim"),
    ("mlp_width", "intermediate_size"),
    ("activation", "hidden_act"),
    ("attention_dropout", "attention_dropout"),
    ("norm_eps", "rms_norm_eps"),
    ("tied", "tie_word_embeddings"),
)

ARCHITECTURE = Architecture(
    title="Llama",
    config=LlamaConfig,
    model=Llama,
    initialize=initialize,
    classes={"encode": "LlamaModel", "classify": "LlamaForSequenceClassification", "lm": "LlamaForCausalLM"},
    language_modeling="causal",
    names=NAMES,
    classification_head=lambda c: HeadConfig(pooling="last", bias=False),
    language_head=lambda c: LanguageConfig(),
    settings=(*SETTINGS, ("attention_bias", "attention_bias"), ("mlp_bias", "mlp_bias")),
    read=lambda published: {
        "rotary": whole_rotary(published),
        "output_bias": bool(published.get("attention_bias")),  # Llama's means all four
    },
    write=write,
)
