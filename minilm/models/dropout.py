"""Dropout (Srivastava et al. 2014): in training each number of x becomes 0 with probability p, and the others grow.

    dropout(x) = x * noise            noise = 1 / (1 - p) with probability 1 - p, else 0

So the mean stays, and the model learns to rely on no single number. On a GPU torch's own kernel does it in one pass.
On a CPU torch draws one random number for each element, which takes a fifth of a training step of GPT-2. Here 64 random
bits serve four elements, and the rest is vectorised, so it takes a third of that:

    u     = 16 random bits, a whole number from 0 to 65,535
    noise = 65536 / k  if u < k,  else 0                             k = 65536 (1 - p), rounded

The probability is exact to 2^-17, and the factor is that of the rounded one, so the mean is exact (up to the rounding
of x's dtype). The bits come from torch's generator: with the same seed, or with its state put back, the noise is the
same, whatever the number of threads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATTERNS = 1 << 16  # of 16 bits


class Dropout(nn.Dropout):
    """``dropout`` with its probability p, in training mode; else nothing."""

    def forward(self, input: Tensor) -> Tensor:
        """The same shape and dtype."""
        return dropout(input, self.p) if self.training else input


def dropout(x: Tensor, p: float) -> Tensor:
    """x with each number set to 0 with probability p, and the others times 1 / (1 - p)."""
    if x.device.type != "cpu":
        return F.dropout(x, p)
    kept = round(PATTERNS * (1 - p))
    return x if kept == PATTERNS else x * noise(x.shape, kept, x.dtype)


def noise(shape: torch.Size, kept: int, dtype: torch.dtype) -> Tensor:
    """Random numbers: 65536 / kept with probability kept / 65536, else 0; ``kept``: from 0 to 65,535."""
    count = shape.numel()
    numbers = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None)
    u = numbers.view(torch.int16)[:count]  # from -32768
    # In place, as 0 and 1 of 16 bits: comparisons and conversions of these are vectorised, those of bools are not.
    return u.lt_(kept - PATTERNS // 2).to(dtype).mul_(PATTERNS / max(kept, 1)).view(shape)
