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


def causal_mask(batch: Batch, window: int = 0) -> Tensor | None:
    """Which keys each query of a causal model may see, (B or 1, 1, T, S); None: the mask that ``is_causal`` makes.

    With a cache, key ``s`` lies at position ``s``, and a query at position ``t`` sees the keys ``s <= t``. With a
    sliding window (Mistral) it sees only the last ``window`` of them.
    """
    length = batch.ids.shape[1]
    if batch.cache is None and not 0 < window < length:
        return None
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
    length = batch.ids.shape[1]
    if reach >= length - 1:
        return padding_mask(batch)
    positions = torch.arange(length, device=batch.ids.device)
    distance = (positions[:, None] - positions).abs()  # (T, T)
    near = (distance <= reach)[None]
    if batch.mask is not None:
        near = near & (batch.mask[:, None, :] | (distance == 0))
    return near[:, None]
