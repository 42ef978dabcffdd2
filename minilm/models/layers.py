"""What several architectures share: the batch, the state between layers, attention, feed-forwards.

Shapes: ``B`` sequences, ``T`` positions, ``S`` positions attended to, ``D`` width, ``L`` layers, ``H`` heads, ``K``
key-value heads, ``D/H`` the width of a head (where a family sets another, that one), ``V`` words, ``C`` classes.

Padding is always on the right. So a causal model needs no padding mask: a real token sees only what lies to its
left, which is never padding, and nobody reads what the padding positions compute.

Attention is computed by PyTorch's ``scaled_dot_product_attention`` (SDPA).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minilm.models.rotary import rotate

if TYPE_CHECKING:
    from minilm.models.heads import HeadConfig, LanguageConfig


@dataclass
class Batch:
    """Token ids of ``B`` texts, padded on the right to one length ``T``, and what belongs to them."""

    ids: Tensor  # (B, T) token ids
    mask: Tensor | None = None  # (B, T) True at real tokens; None: nothing is padded
    segments: Tensor | None = None  # (B, T) 0 in the first text of a pair, 1 in the second
    positions: Tensor | None = None  # (B, T); None: 0, 1, ..., T-1
    labels: Tensor | None = None  # (B,) classes; (B, C) several per text; (B, T), T5 (B, T'), tokens, -100: none
    decoder_ids: Tensor | None = None  # (B, T') what an encoder-decoder's decoder reads
    read: Tensor | None = None  # (B,) the one position of each text whose finished vector is wanted; None: all
    cache: Cache | None = None  # keys and values of earlier positions, in generation

    @staticmethod
    def of(ids: Tensor | Batch, mask: Tensor | None = None, segments: Tensor | None = None) -> Batch:
        """A batch from plain tensors. Raises ValueError where the mask pads anywhere but on the right, or where a
        whole batch is given a mask or segments beside its own."""
        if isinstance(ids, Batch):
            if mask is not None or segments is not None:
                raise ValueError("a Batch has its own mask and segments; give plain ids with others")
            return ids
        if mask is not None:
            mask = mask.bool()
            if not bool((mask[:, 1:] <= mask[:, :-1]).all() and mask[:, 0].all()):
                raise ValueError("padding must be on the right of each text, and no text may be empty")
            mask = None if bool(mask.all()) else mask
        return Batch(ids, mask, segments)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def rows(self, kept: Tensor) -> Batch:
        """Only those texts; they leave a cache's rows to ``Cache.keep``."""
        return self._map(lambda tensor: tensor[kept])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with every tensor changed alike."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {k: change(v) for k, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **changed)

    def last(self) -> Tensor:
        """Position of each text's last real token: (B,)."""
        if self.mask is None:
            return torch.full((len(self.ids),), self.ids.shape[1] - 1, device=self.ids.device)
        return self.mask.sum(dim=1) - 1


@dataclass
class State:
    """What one layer hands to the next."""

    x: Tensor  # (B, T, D)
    memory: Tensor | None = None  # (B, S, D) an encoder's finished output, while the decoder runs


def scores(model: Any, batch: Batch, state: State | None = None, first: int = 0) -> Tensor:
    """What a model computes: its stages in a row, and the head where there is one.

    From ``state``, the one before layer ``first``, where it is known; else from the start. Most classification heads
    read one position of each text, and the batch says which (``Batch.read``). The last layer then computes the query
    and the MLP for it alone; the other positions contribute only keys and values.
    """
    if model.head is not None and batch.cache is None:
        batch = replace(batch, read=model.head.position(batch))
    state = model.embed(batch) if state is None else state
    state = model.run(state, batch, first, stages_of(model))
    x = model.finish(state)  # (B, T, D), or (B, 1, D) where one position is read
    return x if model.head is None else model.head(x, batch, getattr(model, "pooler", None))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Without dropout inside; afterwards every part is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def stages_of(model: Any) -> int:
    """How many layers run, one after another: T5's encoder's and decoder's; ALBERT's one, as many times as it runs."""
    stages: int = getattr(model.config, "stages", model.config.depth)
    return stages


def pick(x: Tensor, at: Tensor | None) -> Tensor:
    """One position of each text: x (B or 1, ..., T, n), at (B,) -> (B, ..., 1, n). All of them where ``at`` is None.

    Where x has one position only, that is the one: it was picked before, or stands for all.
    """
    if at is None or x.shape[-2] == 1:
        return x
    if len(x) == 1:  # all texts share it
        return x.index_select(-2, at).transpose(0, -2)
    return x.take_along_dim(at.view(-1, *[1] * (x.dim() - 1)), dim=-2)


def padding_mask(batch: Batch) -> Tensor | None:
    """Which positions everyone may attend to, (B, 1, 1, S); None where nothing is padded."""
    return None if batch.mask is None else batch.mask[:, None, None, :]


def causal_mask(batch: Batch, window: int = 0) -> Tensor | None:
    """Who may see whom in a causal model, (B or 1, 1, T, S); None: SDPA's own triangle is enough.

    With a cache, key ``s`` lies at position ``s``, and a query at position ``t`` sees the keys ``s <= t``. With a
    sliding window (Mistral) it sees only the last ``window`` of them.
    """
    length = batch.ids.shape[1]
    if batch.cache is None and not 0 < window < length:
        return None
    device = batch.ids.device
    positions = torch.arange(length, device=device)[None] if batch.positions is None else batch.positions
    keys = torch.arange(length if batch.cache is None else batch.cache.length, device=device)
    distance = positions[:, :, None] - keys  # (B, T, S)
    visible = distance >= 0
    if window > 0:
        visible &= distance < window
    return visible[:, None]


def takes_groups(query: Tensor, mask: Tensor | None) -> bool:
    """Whether SDPA has a fast kernel for fewer key-value heads than heads; where it has none, they are repeated first.

    On CUDA FlashAttention is one, but it takes neither a mask nor float32, and the memory-efficient kernel takes no
    groups. SDPA would turn to its plain kernel, which stores all weights (torch, sdp_utils.cpp).
    """
    return not query.is_cuda or (mask is None and query.dtype != torch.float32)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2), grouped as in Ainslie et al. 2023.

        Q, K, V = W_q x, W_k x, W_v x        what a position looks for, what it is found by, what it gives
        head    = softmax(Q K^T * scale + mask) V                   scale = 1 / sqrt(D/H)
        y       = W_o [head_1, ..., head_H]

    Each of the ``H`` heads computes this on its own slice of Q, K and V; ``K < H`` key-value heads are shared by
    groups of query heads. SDPA evaluates the formula without storing the (T, S) weights.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kv_heads: int = 0,
        head_width: int = 0,
        bias: bool = True,
        output_bias: bool | None = None,
        dropout: float = 0.0,
        causal: bool = False,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        head_width = head_width or width // heads
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.dropout, self.causal, self.scale = dropout, causal, scale
        self.query = nn.Linear(width, self.heads * head_width, bias=bias)
        self.key = nn.Linear(width, self.kv_heads * head_width, bias=bias)
        self.value = nn.Linear(width, self.kv_heads * head_width, bias=bias)
        self.output = nn.Linear(self.heads * head_width, width, bias=bias if output_bias is None else output_bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        rotary: tuple[Tensor, Tensor] | None = None,
        memory: Tensor | None = None,
        cache: LayerCache | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D). ``memory`` (B, S, D): attend to it instead of to x itself.

        With a cache, x's keys and values join those of earlier steps; a memory's are computed at the first step only.
        With ``at`` (B,), a query is computed for that position of each text alone: (B, 1, D). The other positions
        contribute only keys and values.
        """
        query = self.query(pick(x, at)).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T or 1, D/H)
        if memory is None or cache is None:
            key, value = self.keys_values(x if memory is None else memory)
        else:
            cache.memory = cache.memory or self.keys_values(memory)
            key, value = cache.memory
        if rotary is not None:
            cos, sin = rotary
            query, key = rotate(query, pick(cos, at), pick(sin, at)), rotate(key, cos, sin)
        if cache is not None and memory is None:
            key, value = cache.extend(key, value)
        if at is not None and self.causal and mask is None:  # the triangle's row
            mask = (torch.arange(x.shape[1], device=x.device) <= at[:, None])[:, None, None]
        mask = None if mask is None else pick(mask, at)  # (B or 1, H or 1, T or 1, S)
        if self.kv_heads != self.heads and not takes_groups(query, mask):
            key, value = (kv.repeat_interleave(self.heads // self.kv_heads, dim=1) for kv in (key, value))
        y = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.causal and mask is None,
            scale=self.scale,
            enable_gqa=key.shape[1] != self.heads,
        )
        return self.output(y.transpose(1, 2).flatten(2))  # heads side by side again: (B, T or 1, D)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (B, S, D) -> keys and values, (B, K, S, D/H) each."""
        key = self.key(source).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        value = self.value(source).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        return key, value


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019): LayerNorm without mean and bias.

    norm(x) = weight * x / sqrt(mean(x^2) + eps)                computed in float32 whatever x is
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D), in the weight's dtype."""
        wide = torch.promote_types(x.dtype, self.weight.dtype)
        y = F.rms_norm(x.to(wide), self.weight.shape, self.weight.to(wide), self.eps)
        return y.to(self.weight.dtype)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # x * Phi(x), exact (Hendrycks and Gimpel 2016)
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),  # its approximation, as in GPT-2
    "relu": F.relu,
    "silu": F.silu,  # x * sigmoid(x)
    "tanh": torch.tanh,
}


class MLP(nn.Module):
    """The feed-forward network: ``down(act(up(x)))``, or gated ``down(act(gate(x)) * up(x))`` (Shazeer 2020)."""

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: str,
        *,
        bias: bool = True,
        gated: bool = False,
        dropout: float = 0.0,  # on the hidden vectors
    ) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=bias)
        self.gate = nn.Linear(width, hidden, bias=bias) if gated else None
        self.down = nn.Linear(hidden, width, bias=bias)
        self.activation, self.dropout = ACTIVATIONS[activation], nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D), each position on its own."""
        up = self.up(x)
        hidden = self.dropout(self.activation(up) if self.gate is None else self.activation(self.gate(x)) * up)
        # float16 can overflow in ``down``; a family may keep that matrix in float32 (``Architecture.float32``).
        if hidden.dtype == torch.float16:
            hidden = hidden.to(self.down.weight.dtype)
        return self.down(hidden)


@dataclass
class Cache:
    """Keys and values of all earlier positions, so that generation computes each token once.

    Every layer owns buffers (B, K, length, D/H); position ``t`` of a text lies in slot ``t``, also where the texts of a
    batch have different lengths. ``causal_mask`` hides the slots a text has not reached yet.
    """

    length: int  # slots: the longest text, prompt and continuation together
    positions: Tensor  # (B, T) slots that the tokens of this step go to
    layers: dict[int, LayerCache] = field(default_factory=dict)
    memory: Tensor | None = None  # (B, S, D) an encoder's finished output, kept from the first step

    def layer(self, index: int) -> LayerCache:
        """The part of one layer, made on first use."""
        return self.layers.setdefault(index, LayerCache(self))

    def keep(self, rows: Tensor) -> None:
        """Forget all texts but those rows of the batch: the others are finished."""
        self.positions = self.positions[rows]
        self.memory = None if self.memory is None else self.memory[rows]
        for layer in self.layers.values():
            layer.keep(rows)


class LayerCache:
    """One layer's keys and values: those of the text so far, and those of an encoder's memory where there is one."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.key: Tensor | None = None  # (B, K, length, D/H)
        self.value: Tensor | None = None
        self.memory: tuple[Tensor, Tensor] | None = None  # (B, K, S, D/H) each; never change

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of this step, (B, K, T, D/H) each; return those of all steps."""
        if self.key is None or self.value is None:
            batch, kv_heads, _, head_width = key.shape
            self.key = key.new_zeros(batch, kv_heads, self.cache.length, head_width)
            self.value = torch.zeros_like(self.key)
        slots = self.cache.positions[:, None, :, None].expand_as(key)
        self.key.scatter_(2, slots, key)
        self.value.scatter_(2, slots, value)
        return self.key, self.value

    def keep(self, rows: Tensor) -> None:
        """Forget all texts but those rows of the batch."""
        if self.key is not None and self.value is not None:
            self.key, self.value = self.key[rows], self.value[rows]
        if self.memory is not None:
            self.memory = self.memory[0][rows], self.memory[1][rows]


class Names(NamedTuple):
    """How a family's published tensors are called: the name table, applied by ``minilm.checkpoints.names``.

    A row is ``(ours, theirs)`` or ``(ours, theirs, how)``, ``{i}`` standing for a layer's number. ``how`` is made of
    ``"transposed"`` where the file holds the transpose; ``"part p of n"`` where ours is the p-th of n equal blocks of
    rows of theirs (after transposing); ``"or zero"`` where the file must have the tensor although our config can do
    without it: then zeros are written, and zeros are expected; ``"if field"`` or ``"unless field"`` where the row holds
    only for configs with, or without, that setting. They are joined by commas.
    """

    rows: tuple[tuple[str, ...], ...]  # the backbone
    heads: dict[str, tuple[tuple[str, ...], ...]]  # task ("classify", "lm") -> rows of the family's own head
    prefix: dict[str, str]  # task -> what stands before the backbone's rows; on reading it may be absent or present
    old: tuple[tuple[str, str], ...] = ()  # (old spelling, new spelling) of parts of their names
    ignored: tuple[str, ...] = ()  # patterns of tensors that files carry and nobody needs


def _nothing(_: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Architecture:
    """All that the rest of the project knows about one family of models."""

    config: type  # its settings, a frozen dataclass whose defaults are the published class's
    model: Callable[..., nn.Module]  # (config, head=None) -> the backbone with that head
    initialize: Callable[[Any], None]  # random weights as the paper draws them
    classes: dict[str, str]  # task -> name of the published class
    names: Names
    classification_head: Callable[[Any], HeadConfig]  # config -> the head that published classifiers were trained with
    language_head: Callable[[Any], LanguageConfig]  # config -> the head of the published language models
    settings: tuple[tuple[str, ...], ...]  # rows (ours, theirs, older spellings ...) of config.json
    read: Callable[[dict[str, Any]], dict[str, Any]] = _nothing  # config.json -> settings that no row can say
    write: Callable[[Any], dict[str, Any]] = _nothing  # config -> what config.json needs and no row can say
    tied_by_tensors: bool = False  # whether the language head is tied is told by the tensors, not by config.json
    float32: tuple[str, ...] = ()  # patterns of our tensors that stay float32 in a float16 model, for their range
