"""Choose the next token of a text from the scores of a language model.

A model computes a score ``z_i`` for each token ``i`` of its vocabulary as the next token. From the scores:

    1. z_i <- z_i / r if z_i > 0, else z_i r            for every token already in the text   (repetition penalty r)
    2. p = softmax(z / t)                                                                     (temperature t)
    3. keep the k most probable tokens                  scaled to add up to 1 again           (top-k)
    4. keep the fewest most probable tokens with a total probability of at least P, scaled    (top-p, the nucleus)
    5. draw a token from p;    t = 0: take the most probable token after step 1               (greedy)

The penalty makes repetition less probable (Keskar et al. 2019, section 4.1; their formula also divides negative scores,
which makes those tokens more probable). A temperature below 1 favours probable tokens. Top-k (Fan et al. 2018, section
5.4) and the nucleus (Holtzman et al. 2020, section 3.1) remove the many improbable tokens, which together have a
considerable probability: top-k keeps a fixed number of tokens, the nucleus a fixed probability.
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
    """How the next token is chosen. Raises UserError for an invalid number."""

    temperature: float = 0.0  # 0: the most probable token; 1: the model's probabilities
    top_k: int = 0  # 0: all tokens
    top_p: float = 1.0  # 1: all tokens
    repetition_penalty: float = 1.0  # 1: none
    seed: int | None = None  # text i uses the seed ``seed + i``; None: a random seed

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
            raise UserError("top_k and top_p have no effect with temperature 0; set a temperature above 0")
        if self.seed is not None and not 0 <= self.seed < 1 << 62:
            raise UserError(f"seed must be a whole number from 0 to 2^62, got {self.seed}")


GREEDY = Sampling()


def penalize(z: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Step 1: z (B, V), seen (B, V) True at the tokens of each text -> (B, V)."""
    return torch.where(seen, torch.where(z > 0, z / penalty, z * penalty), z)


def keep_top_k(z: Tensor, k: int) -> Tensor:
    """Step 3: keep the k highest scores of each text, and scores equal to the k-th; the others become -inf. (B, V)."""
    lowest = z.topk(min(k, z.shape[-1])).values[:, -1:]  # (B, 1)
    return z.masked_fill(z < lowest, -math.inf)


def keep_nucleus(z: Tensor, p: float) -> Tensor:
    """Step 4: keep a token if all more probable tokens together have less than ``p``; others become -inf. (B, V)."""
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

    The probabilities divide the interval from 0 to 1 into parts; the token in whose part the number falls is chosen.
    """
    ends = z.softmax(dim=-1).cumsum(dim=-1)  # (B, V)
    return (ends <= uniform * ends[:, -1:]).sum(dim=-1)


def choose(z: Tensor, how: Sampling, rngs: Sequence[torch.Generator]) -> Tensor:
    """Steps 2 to 5: scores (B, V) -> tokens (B,). ``rngs``: one random generator per text."""
    if how.temperature == 0:
        return z.argmax(dim=-1)
    uniform = torch.stack([torch.rand(1, generator=generator) for generator in rngs])  # (B, 1)
    return draw(warp(z, how), uniform.to(z.device))
