"""Llama: the decoder of Llama, Bielik, Mistral and Qwen2 (Touvron et al. 2023, Jiang et al. 2023, Yang et al. 2024).

A token starts as what it is, without its place. Each of ``L`` layers then adds to it what it gathered from its left and
what it made of that:

    x_0     = token[ids]
    a_l     = x_l + attention(norm(x_l))
    x_{l+1} = a_l + down(silu(gate(n)) * up(n))             n = norm(a_l)
    y       = norm(x_L)

Five things differ from GPT-2:

- ``norm`` divides by the root mean square and subtracts no mean (Zhang and Sennrich 2019).
- Places enter inside attention: at position ``t`` the pairs of numbers in a query or a key are turned by angles
  proportional to ``t``, so that their product depends on how far apart they are (Su et al. 2021; ``rotary.py``).
- Groups of ``H/K`` query heads share a key and a value head: generation has fewer to keep (Ainslie et al. 2023).
- The MLP has a gate, a second projection that says how much of each number passes (SwiGLU, Shazeer 2020).
- Biases: none in Llama, on queries, keys and values in Qwen2, everywhere in Bielik.

Mistral's layers see only the last ``window`` positions. What lies further back still arrives: each layer carries it one
window further.

A classifier reads the last token's vector. As only that position's vector is read, the last layer computes a query, and
the MLP, for it alone; the other positions contribute only keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from minilm.errors import UserError
from minilm.models.heads import HeadConfig, LanguageConfig
from minilm.models.layers import (
    MLP,
    Architecture,
    Attention,
    Batch,
    LayerCache,
    Names,
    RMSNorm,
    State,
    causal_mask,
    pick,
    scores,
)
from minilm.models.rotary import Rotary, read_rotary, rotary_tables, write_rotary


@dataclass(frozen=True)
class LlamaConfig:
    """Llama's settings; the defaults are the published class's: the first LLaMA with 7 billion parameters (Touvron et
    al. 2023).

    Raises UserError where the width, the heads and the key-value heads do not divide, or a head's numbers do not pair.
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
    attention_dropout: float = 0.0  # on the attention weights
    norm_eps: float = 1e-6
    rotary: Rotary = field(default_factory=Rotary)
    window: int = 0  # how many positions a layer sees, its own included; 0: all to its left
    full_layers: tuple[int, ...] = ()  # layers that see everything in spite of the window
    tied: bool = False  # a language head shares the token embedding

    def __post_init__(self) -> None:
        if not self.heads or (self.width % self.heads and not self.head_width):
            raise UserError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        resolve = object.__setattr__  # how a frozen dataclass completes itself
        resolve(self, "kv_heads", self.kv_heads or self.heads)
        resolve(self, "head_width", self.head_width or self.width // self.heads)
        if isinstance(self.rotary, dict):  # a table in TOML or JSON
            resolve(self, "rotary", Rotary(**self.rotary))
        if self.heads % self.kv_heads:
            raise UserError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        self.rotary.spread(self.head_width)


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
        )
        self.mlp_norm = RMSNorm(width, eps)
        self.mlp = MLP(width, config.mlp_width, config.activation, bias=config.mlp_bias, gated=True)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: LayerCache | None, at: Tensor | None
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D); at (B,): (B, 1, D), those positions alone. ``rotary`` turns queries and keys."""
        x = pick(x, at) + self.attention(self.attention_norm(x), mask, rotary=rotary, cache=cache, at=at)
        return x + self.mlp(self.mlp_norm(x))


class LlamaEmbeddings(nn.Module):
    """What a token is."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, T, D)."""
        return self.token(ids)


class Llama(nn.Module):
    """The decoder, and the head that reads it where there is one: a classifier's, or a language model's."""

    def __init__(self, config: LlamaConfig, head: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.embeddings = LlamaEmbeddings(config)
        self.layers = nn.ModuleList(LlamaLayer(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = head

    def embed(self, batch: Batch) -> State:
        """The state before the first layer."""
        return State(self.embeddings(batch.ids))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        """The state after layers ``first`` to ``last`` (exclusive)."""
        x, config = state.x, self.config
        positions = batch.positions
        if positions is None:
            positions = torch.arange(batch.ids.shape[1], device=x.device)[None]
        rotary = rotary_tables(config.rotary, config.head_width, config.context, positions, x)
        full, windowed = causal_mask(batch), causal_mask(batch, config.window)
        for index in range(first, last):
            mask = full if index in config.full_layers else windowed
            at = batch.read if index == self.config.depth - 1 else None
            x = self.layers[index](x, rotary, mask, batch.cache and batch.cache.layer(index), at)
        return replace(state, x=x)

    def finish(self, state: State) -> Tensor:
        """The finished vectors, (B, T or 1, D)."""
        return self.norm(state.x)

    def forward(self, ids: Tensor | Batch, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D) without a head, (B, C) with a classifier's, (B, T, V) with a language model's."""
        return scores(self, Batch.of(ids, mask, segments))


def initialize(model: Llama) -> None:
    """The published class's initialisation: N(0, 0.02), zero biases, unit norms."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


# --- The published checkpoints ----------------------------------------------------------------------------------

NAMES = Names(
    prefix={"encode": "", "classify": "model.", "lm": "model."},
    rows=(
        ("embeddings.token.weight", "embed_tokens.weight"),
        ("layers.{i}.attention_norm.weight", "layers.{i}.input_layernorm.weight"),
        ("layers.{i}.attention.query.weight", "layers.{i}.self_attn.q_proj.weight"),
        ("layers.{i}.attention.query.bias", "layers.{i}.self_attn.q_proj.bias"),
        ("layers.{i}.attention.key.weight", "layers.{i}.self_attn.k_proj.weight"),
        ("layers.{i}.attention.key.bias", "layers.{i}.self_attn.k_proj.bias"),
        ("layers.{i}.attention.value.weight", "layers.{i}.self_attn.v_proj.weight"),
        ("layers.{i}.attention.value.bias", "layers.{i}.self_attn.v_proj.bias"),
        ("layers.{i}.attention.output.weight", "layers.{i}.self_attn.o_proj.weight"),
        ("layers.{i}.attention.output.bias", "layers.{i}.self_attn.o_proj.bias"),
        ("layers.{i}.mlp_norm.weight", "layers.{i}.post_attention_layernorm.weight"),
        ("layers.{i}.mlp.gate.weight", "layers.{i}.mlp.gate_proj.weight"),
        ("layers.{i}.mlp.gate.bias", "layers.{i}.mlp.gate_proj.bias"),
        ("layers.{i}.mlp.up.weight", "layers.{i}.mlp.up_proj.weight"),
        ("layers.{i}.mlp.up.bias", "layers.{i}.mlp.up_proj.bias"),
        ("layers.{i}.mlp.down.weight", "layers.{i}.mlp.down_proj.weight"),
        ("layers.{i}.mlp.down.bias", "layers.{i}.mlp.down_proj.bias"),
        ("norm.weight", "norm.weight"),
    ),
    heads={
        "classify": (("head.output.weight", "score.weight"),),
        "lm": (("head.output.weight", "lm_head.weight"),),
    },
    ignored=("layers.*.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq"),  # buffers of older versions
)


def write(config: LlamaConfig, family: str = "Llama", **fixed: Any) -> dict[str, Any]:
    """Rotary positions. Raises UserError where a setting is not as it is ``fixed`` in the family's published class."""
    for name, value in (fixed or {"window": 0, "output_bias": config.attention_bias}).items():
        if getattr(config, name) != value:
            raise UserError(f"{family} checkpoints have {name} = {value}; this model has {getattr(config, name)}")
    return write_rotary(config.rotary)


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
    config=LlamaConfig,
    model=Llama,
    initialize=initialize,
    classes={"encode": "LlamaModel", "classify": "LlamaForSequenceClassification", "lm": "LlamaForCausalLM"},
    names=NAMES,
    classification_head=lambda c: HeadConfig(pooling="last", bias=False),
    language_head=lambda c: LanguageConfig(),
    settings=(*SETTINGS, ("attention_bias", "attention_bias"), ("mlp_bias", "mlp_bias")),
    read=lambda published: {
        "rotary": read_rotary(published),
        "output_bias": bool(published.get("attention_bias")),  # Llama's means all four
    },
    write=write,
)


# --- Mistral and Qwen2 ------------------------------------------------------------------------------------------


def read_mistral(published: dict[str, Any]) -> dict[str, Any]:
    """A window, in all layers; and the published class's defaults where they differ from Llama's."""
    defaults = {"max_position_embeddings": 131072, "num_key_value_heads": 8, "intermediate_size": 14336}
    window = published.get("sliding_window", 4096) or 0
    return {**_absent(published, defaults), "rotary": read_rotary(published), "window": window}


def write_mistral(config: LlamaConfig) -> dict[str, Any]:
    """The reverse."""
    fixed = {"attention_bias": False, "output_bias": False, "mlp_bias": False, "full_layers": ()}
    return {**write(config, "Mistral", **fixed), "sliding_window": config.window or None}


def read_qwen2(published: dict[str, Any]) -> dict[str, Any]:
    """Biases on queries, keys and values; and where wanted a window, in the upper layers or in those listed."""
    defaults = {"vocab_size": 151936, "max_position_embeddings": 32768, "intermediate_size": 22016}
    depth, first = published.get("num_hidden_layers", 32), published.get("max_window_layers", 28)
    kinds = published.get("layer_types") or ["full_attention"] * first + ["sliding_attention"] * (depth - first)
    if other := set(kinds) - {"full_attention", "sliding_attention"}:
        raise UserError(f"config.json: layer_types: {', '.join(sorted(other))} is not supported")
    settings = {"rotary": read_rotary(published), "attention_bias": True, "output_bias": False}
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


MISTRAL = replace(ARCHITECTURE, classes=_classes("Mistral"), settings=SETTINGS, read=read_mistral, write=write_mistral)
QWEN2 = replace(ARCHITECTURE, classes=_classes("Qwen2"), settings=SETTINGS, read=read_qwen2, write=write_qwen2)
