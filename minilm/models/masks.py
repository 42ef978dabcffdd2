"""Masks: boolean, true at the keys that a query may attend to; shapes as in ``layers.py``.

In the formula of attention a mask is added to the scores: 0 where it is true, minus infinity where it is false.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minilm.models.batch import Batch


def padding_mask(batch: Batch) -> Tensor | None:
    """(B, 1, 1, S) True at positions that are not padding; None if there is no padding."""
    return None if batch.mask is None else batch.mask[:, None, None, :]


def is_within(batch: Batch, length: int) -> bool:
    """Whether the texts, with their padding, have at most this length. False while a model is exported: the graph is
    for texts of any length."""
    return not torch.compiler.is_exporting() and batch.ids.shape[1] <= length


def causal_mask(batch: Batch, window: int = 0) -> Tensor | None:
    """Which keys each query of a causal model may see, (B or 1, 1, T, S); None: the mask that ``is_causal`` makes.

    With a cache, key ``s`` lies at position ``s``, and a query at position ``t`` sees the keys ``s <= t``. With a
    sliding window (Mistral) it sees only the last ``window`` of them.
    """
    if batch.cache is None and (window <= 0 or is_within(batch, window)):
        return None
    length = batch.ids.shape[1]
    keys = torch.arange(length if batch.cache is None else batch.cache.length, device=batch.ids.device)
    distance = batch.position_numbers()[:, :, None] - keys  # (B or 1, T, S)
    visible = distance >= 0
    if window > 0:
        visible &= distance < window
    return visible[:, None]


def window_mask(batch: Batch, reach: int) -> Tensor | None:
    """Which keys each query of an encoder may see if it looks no further than ``reach`` positions to either side:
    (B or 1, 1, T, T), or (B, 1, 1, T) if that reaches over the whole text; None: all of them.

    A query that is padding sees itself: with no key at all, its softmax would divide by zero.
    """
    if is_within(batch, reach + 1):
        return padding_mask(batch)
    positions = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    distance = (positions[:, None] - positions).abs()  # (T, T)
    near = (distance <= reach)[None]
    if batch.mask is not None:
        near = near & (batch.mask[:, None, :] | (distance == 0))
    return near[:, None]
