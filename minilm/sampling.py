"""How the next token of a text is chosen from the scores that a language model gives.

A model gives one score ``z_i`` a token ``i`` of its vocabulary, for what comes next. From the scores:

    1. z_i <- z_i / r where z_i > 0, else z_i r         for every token in the text already   (repetition penalty r)
    2. p = softmax(z / t)                                                                     (temperature t)
    3. p_i <- 0 but for the k likeliest                 scaled to add up to 1 again           (top-k)
    4. p_i <- 0 but for the fewest likeliest whose probabilities reach P     likewise         (top-p, the nucleus)
    5. draw a token from p;    t = 0: take the likeliest after step 1                         (greedy)

A penalty makes a text's tokens less likely to come again (Keskar et al. 2019, section 4.1; theirs divides negative
scores too, which makes them more likely). A temperature below 1 favours the likely ones. Top-k (Fan et al. 2018,
section 5.4) and the nucleus (Holtzman et al. 2020, section 3.1) cut off the many tokens that are each unlikely and
together are not: the first keeps so many, the second as many as it takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minilm.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Raises UserError for a number that makes no sense."""

    temperature: float = 0.0  # 0: the likeliest token; 1: as the model says
    top_k: int = 0  # 0: all tokens
    top_p: float = 1.0  # 1: all tokens
    repetition_penalty: float = 1.0  # 1: none
    seed: int | None = None  # text i draws as if it were alone with seed + i; None: a new one each time

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature must be a number of at least 0, got {self.temperature}")
        if self.top_k < 0:
            raise UserError(f"top_k must be at least 0, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise UserError(f"repetition_penalty must be a number above 0, got {self.repetition_penalty}")
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise UserError("top_k and top_p choose among tokens to draw from; give a temperature above 0 too")
        if self.seed is not None and not 0 <= self.seed < 1 << 62:
            raise UserError(f"seed must be a whole number from 0 to 2^62, got {self.seed}")


GREEDY = Sampling()


def penalize(z: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Step 1: z (B, V), seen (B, V) True at the tokens of each text -> (B, V)."""
    return torch.where(seen, torch.where(z > 0, z / penalty, z * penalty), z)


def keep_top_k(z: Tensor, k: int) -> Tensor:
    """Step 3: the k highest scores of each text, and those equal to the last of them; the others -inf. (B, V)."""
    lowest = z.topk(min(k, z.shape[-1])).values[:, -1:]  # (B, 1)
    return z.masked_fill(z < lowest, -math.inf)


def keep_nucleus(z: Tensor, p: float) -> Tensor:
    """Step 4: a token stays where all likelier ones together have less than ``p``; the others -inf. (B, V)."""
    probabilities, order = z.softmax(dim=-1).sort(dim=-1, descending=True)
    likelier = probabilities.cumsum(dim=-1) - probabilities
    outside = (likelier >= p).scatter(-1, order, likelier >= p)  # back in the vocabulary's order
    return z.masked_fill(outside, -math.inf)


def warp(z: Tensor, how: Sampling) -> Tensor:
    """Steps 2 to 4 on scores, for a temperature above 0: (B, V) -> (B, V)."""
    z = z / how.temperature
    z = keep_top_k(z, how.top_k) if how.top_k else z
    return keep_nucleus(z, how.top_p) if how.top_p < 1 else z


def draw(z: Tensor, uniform: Tensor) -> Tensor:
    """Step 5: scores (B, V) and numbers from [0, 1) (B, 1) -> tokens (B,).

    The probabilities lie side by side on a line from 0 to 1; the token is the one in whose part the number falls.
    """
    ends = z.softmax(dim=-1).cumsum(dim=-1)  # (B, V)
    return (ends <= uniform * ends[:, -1:]).sum(dim=-1)


def choose(z: Tensor, how: Sampling, chance: Sequence[torch.Generator]) -> Tensor:
    """Steps 2 to 5: scores (B, V) -> tokens (B,). Each text draws from random numbers of its own, ``chance``."""
    if how.temperature == 0:
        return z.argmax(dim=-1)
    uniform = torch.stack([torch.rand(1, generator=generator) for generator in chance])  # (B, 1)
    return draw(warp(z, how), uniform.to(z.device))
