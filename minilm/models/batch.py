"""The inputs of a model: a batch of texts, the state between two layers, and the cache of generation.

Shapes: ``B`` sequences, ``T`` positions (``T'`` in the decoder of an encoder-decoder), ``S`` positions attended to,
``D`` width, ``L`` layers, ``H`` heads, ``G`` key-value heads, ``D/H`` the width of a head (or the width that a config
sets), ``V`` vocabulary, ``C`` classes.

Padding is always on the right. So a causal model needs no padding mask: a real token sees only what lies to its
left, which is never padding, and nothing reads what the padding positions compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
    """Token ids of ``B`` texts, padded on the right to one length ``T``, and their masks, segments, positions and
    labels."""

    ids: Tensor  # (B, T) token ids
    mask: Tensor | None = None  # (B, T) True at real tokens; None: no padding
    segments: Tensor | None = None  # (B, T) 0 in the first text of a pair, 1 in the second
    positions: Tensor | None = None  # (B, T); None: 0, 1, ..., T-1
    # (B,) one class per text; (B, C) several classes; tokens: (B, T), of an encoder-decoder (B, T'), -100 for none
    labels: Tensor | None = None
    decoder_ids: Tensor | None = None  # (B, T') what the decoder of an encoder-decoder reads
    query_position: Tensor | None = None  # (B,) the only position of each text that the head uses; None: all
    cache: Cache | None = None  # keys and values of earlier positions, in generation

    @staticmethod
    def of(
        ids: Tensor | Batch,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        decoder_ids: Tensor | None = None,
    ) -> Batch:
        """A batch from tensors; a ``Batch`` is returned unchanged. Raises ValueError if padding is not on the right, or
        if a ``Batch`` is given together with a mask, segments or decoder_ids."""
        if isinstance(ids, Batch):
            if mask is not None or segments is not None or decoder_ids is not None:
                raise ValueError("a Batch contains mask, segments and decoder_ids; give either a Batch or ids")
            return ids
        if mask is not None:
            mask = mask.bool()
            if not bool((mask[:, 1:] <= mask[:, :-1]).all() and mask[:, 0].all()):
                raise ValueError("padding must be on the right of each text, and no text may be empty")
            mask = None if bool(mask.all()) else mask
        return Batch(ids, mask, segments, decoder_ids=decoder_ids)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def rows(self, kept: Tensor) -> Batch:
        """The batch of only those texts. It does not change the cache; ``Cache.keep`` does."""
        return self._map(lambda tensor: tensor[kept])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with a function applied to every tensor."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {k: change(v) for k, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **changed)

    def last(self) -> Tensor:
        """Position of each text's last real token: (B,)."""
        if self.mask is None:
            return torch.full((len(self.ids),), self.ids.shape[1] - 1, device=self.ids.device)
        return self.mask.sum(dim=1) - 1

    def position_numbers(self) -> Tensor:
        """The position of each token, (B or 1, T)."""
        if self.positions is None:
            return torch.arange(self.ids.shape[1], device=self.ids.device)[None]
        return self.positions

    def layer_cache(self, index: int) -> LayerCache | None:
        """The part of the cache that belongs to a layer; None: nothing is cached."""
        return None if self.cache is None else self.cache.layer(index)


@dataclass
class State:
    """The vectors between two layers."""

    x: Tensor  # (B, T, D)
    memory: Tensor | None = None  # (B, S, D) an encoder's finished output, while the decoder runs


def select_position(x: Tensor, position: Tensor | None) -> Tensor:
    """One position of each text: x (B or 1, ..., T, n), position (B,) -> (B, ..., 1, n). None: all positions.

    If x has only one position, it is returned unchanged.
    """
    if position is None or x.shape[-2] == 1:
        return x
    if x.shape[0] == 1:  # all texts share it
        return x.index_select(-2, position).transpose(0, -2)
    index = position.view(-1, *[1] * (x.dim() - 1)).expand(*x.shape[:-2], 1, x.shape[-1])
    return x.gather(-2, index)


@dataclass
class Cache:
    """Keys and values of all earlier positions, so that generation computes each token once.

    Every layer owns buffers (B, G, length, D/H). Position ``t`` of a text lies in slot ``t``, also if the texts of a
    batch have different lengths; ``causal_mask`` hides the slots that a text has not reached yet.
    """

    length: int  # slots: the longest text, prompt and continuation together
    positions: Tensor  # (B, T) the slots of this step's tokens
    layers: dict[int, LayerCache] = field(default_factory=dict)
    memory: Tensor | None = None  # (B, S, D) an encoder's finished output, kept from the first step

    def layer(self, index: int) -> LayerCache:
        """The part of one layer, made on first use."""
        return self.layers.setdefault(index, LayerCache(self))

    def keep(self, rows: Tensor) -> None:
        """Keep only those rows of the batch; the other texts are finished."""
        self.positions = self.positions[rows]
        self.memory = None if self.memory is None else self.memory[rows]
        for layer in self.layers.values():
            layer.keep(rows)


class LayerCache:
    """One layer's keys and values: those of the text so far, and those of an encoder's memory if there is one."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.key: Tensor | None = None  # (B, G, length, D/H)
        self.value: Tensor | None = None
        self.memory: tuple[Tensor, Tensor] | None = None  # (B, G, S, D/H) each; never change

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of this step, (B, G, T, D/H) each; return those of all steps."""
        if self.key is None or self.value is None:
            batch, kv_heads, _, head_width = key.shape
            self.key = key.new_zeros(batch, kv_heads, self.cache.length, head_width)
            self.value = torch.zeros_like(self.key)
        slots = self.cache.positions[:, None, :, None].expand_as(key)
        self.key.scatter_(2, slots, key)
        self.value.scatter_(2, slots, value)
        return self.key, self.value

    def keep(self, rows: Tensor) -> None:
        """Keep only those rows of the batch."""
        if self.key is not None and self.value is not None:
            self.key, self.value = self.key[rows], self.value[rows]
        if self.memory is not None:
            self.memory = self.memory[0][rows], self.memory[1][rows]
