"""Rotary positions: queries and keys are rotated by angles that depend on the position (Su et al. 2021, "RoPE").

The first ``n`` numbers of a head form ``n/2`` pairs. At position ``t``, pair ``j`` is rotated by the angle ``t f_j``:

    (x_j, x_{j+n/2})  ->  (x_j cos - x_{j+n/2} sin,  x_{j+n/2} cos + x_j sin)         f_j = base^(-2j/n)

Rotating both by the same angle does not change their product, so the product of a query at ``t`` and a key at ``s``
depends only on ``t - s``. The first pairs rotate fast and distinguish neighbours; the last hardly rotate within a text.

Usually ``n`` is the whole head. With ``partial`` below 1 only the first ``n`` numbers are rotated, and the others do
not depend on the position.

There are two layouts. The paper pairs neighbours, (2j, 2j+1). Here, as in the published files of Hugging Face, pair j
is (j, j+n/2), so that one half of the head is a slice. A layout only renumbers the rows of the query and key matrices.
A file in the paper's layout (Meta's original Llama files) gives wrong numbers here until its rows are renumbered.

In texts that are longer than those of training, angles occur that the model has not seen. So models are extended: all
pairs, or only the slow ones, are rotated more slowly (``Rotary.kind``), and the model is trained a little further.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from minilm.errors import UserError, nearest


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first n numbers of x (B, H, T, D/H) by the tables (B or 1, 1, T, n) of ``rotary_tables``, whose
    ``sin`` contains the minus sign of the formula."""
    n = cos.shape[-1]
    if n < x.shape[-1]:
        return torch.cat((rotate(x[..., :n], cos, sin), x[..., n:]), dim=-1)
    return torch.addcmul(x * cos, x.roll(n // 2, dims=-1), sin)


@dataclass(frozen=True)
class Rotary:
    """The frequencies of the pairs. Raises UserError for an unknown kind, and for numbers not above 0."""

    kind: str = "default"  # how it was extended: "linear", "dynamic", "llama3", "yarn", "longrope"; "default": not
    base: float = 10000.0
    factor: float = 1.0  # how many times longer the longest text became
    trained: int | None = None  # llama3, yarn, longrope: the longest text before; None: the model's context
    low: float = 1.0  # llama3, yarn: a pair that makes fewer turns than this within ``trained`` is slowed down,
    high: float = 32.0  # and one that makes more turns than this is not
    attention: float | None = None  # yarn, longrope: factor on both tables; None: see ``sharpness``
    truncate: bool = True  # yarn: the range of pairs between ``low`` and ``high`` ends at whole pairs
    short: tuple[float, ...] = ()  # longrope: what each pair is divided by in texts up to ``trained`` positions
    long: tuple[float, ...] = ()  # longrope: the same in longer ones
    partial: float = 1.0  # n as a fraction of a head's width; an odd n is rounded up

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in SPELLINGS:
            kinds = ", ".join(SPELLINGS)
            raise UserError(
                f'no rotary positions of the kind "{self.kind}"{nearest(str(self.kind), SPELLINGS)}; use {kinds}'
            )
        numbers = {"base": self.base, "factor": self.factor, "low": self.low, "high": self.high}
        numbers |= {"partial": self.partial, "trained": self.trained or 1, "attention": self.attention or 1.0}
        for name, value in numbers.items():
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise UserError(f"rotary positions need a {name} above 0, got {value!r}")
        if not isinstance(self.truncate, bool):
            raise UserError(f"rotary positions need truncate to be true or false, got {self.truncate!r}")
        for name in ("short", "long"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a list in TOML or JSON
            if not all(isinstance(value, int | float) and value > 0 for value in getattr(self, name)):
                raise UserError(f"rotary positions need numbers above 0 as {name} factors (short_factor, long_factor)")

    def rotated(self, width: int) -> int:
        """How many numbers of a head of this width are rotated: n, or n + 1 if n is odd.

        Raises UserError if that is more than the head has, or nothing, or if longrope's factors are not one a pair.
        """
        n = int(width * self.partial)
        if not 0 < n + n % 2 <= width:
            raise UserError(f"rotary positions rotate pairs: {n} of a head's {width} numbers do not form pairs")
        if self.kind == "longrope" and {len(self.short), len(self.long)} != {(n + 1) // 2}:
            got = f"{len(self.short)} and {len(self.long)}"
            raise UserError(f"short_factor and long_factor must have {(n + 1) // 2} numbers, one per pair; got {got}")
        return n + n % 2


def turns_whole_heads(rotary: Rotary, width: int) -> Rotary:
    """The settings for a published class that only rotates whole heads of this width; with the default kind that class
    ignores ``partial``. Raises UserError if ``partial`` is below 1 with another kind, with which that class fails."""
    if rotary.kind == "default":
        return replace(rotary, partial=1.0)
    if rotary.rotated(width) < width:
        raise UserError(f"config.json: partial_rotary_factor must be 1 with this rope_type, got {rotary.partial}")
    return rotary


def rotary_tables(rotary: Rotary, width: int, context: int, positions: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The tables for ``rotate`` and heads of this width: positions (B or 1, T) -> cos, sin (B or 1, 1, T, n).

    They have the dtype that a layer's queries and keys will have: that of its input x, or autocast's.
    """
    if rotary.kind == "dynamic":
        frequencies = dynamic_frequencies(rotary, width, context, positions)
    else:
        frequencies = rotary_frequencies(rotary, width, context, positions.device)
    if rotary.kind == "longrope":
        long = rotary_frequencies(rotary, width, context, positions.device, long=True)
        frequencies = torch.where(positions.max() < (rotary.trained or context), frequencies, long)
    angles = positions[:, None, :, None].float() * frequencies  # (B or 1, 1, T, n/2)
    cos, sin = angles.cos(), angles.sin()
    if (sharper := sharpness(rotary, context)) != 1.0:
        cos, sin = cos * sharper, sin * sharper
    device = x.device.type
    mixed = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if mixed else x.dtype
    return torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype)


def sharpness(rotary: Rotary, context: int) -> float:
    """The factor on both tables. More keys dilute attention; larger products sharpen it again.

    yarn: 0.1 ln(factor) + 1 (Peng et al. 2023, section 3.4); longrope: sqrt(1 + ln(context / trained) / ln(trained)).
    """
    if rotary.kind not in ("yarn", "longrope"):
        return 1.0
    if rotary.attention is not None:
        return rotary.attention
    if rotary.kind == "yarn":
        return 0.1 * math.log(max(rotary.factor, 1.0)) + 1.0
    trained = rotary.trained or context
    return _longrope_sharpness(context / trained, trained)


def _longrope_sharpness(factor: float, trained: int) -> float:
    return math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0


@lru_cache(maxsize=32)
def rotary_frequencies(
    rotary: Rotary, width: int, context: int, device: torch.device, *, long: bool = False
) -> Tensor:
    """Radians that each pair turns per position, (n/2,): ``base^(-2j/n)`` for pair j. Stretched models divide some of
    them by ``factor``:

        linear   every pair, as if positions lay closer together (Chen et al. 2023)
        llama3   the slow pairs, which made fewer than ``low`` turns in training; in part those up to ``high``,
                 in proportion to their turns (Llama 3.1's published code; Grattafiori et al. 2024)
        yarn     the same, but in proportion to the pair's number j
        longrope each by a factor of its own, which a search found; there are two sets of them, and a text of more than
                 ``trained`` positions, padding included, takes the other, ``long`` (Ding et al. 2024)

    YaRN is from Peng et al. 2023. Their section 3.2 ("NTK-by-parts") counts turns; their published code, whose numbers
    are reproduced here, counts j.

    Computed on the CPU in float32, so that every device turns alike, and kept for the next batch.
    """
    n = int(width * rotary.partial)
    growth = rotary.base ** (torch.arange(0, n, 2, dtype=torch.float32, device="cpu") / n)
    if rotary.kind == "longrope":
        return (1.0 / (torch.tensor(rotary.long if long else rotary.short, device="cpu") * growth)).to(device)
    plain = 1.0 / growth
    if rotary.kind == "default":
        return plain.to(device)
    if rotary.kind == "linear":
        return (plain / rotary.factor).to(device)
    trained = rotary.trained or context
    if rotary.kind == "llama3":
        turns = trained / (2 * math.pi / plain)
        kept = (turns - rotary.low) / (rotary.high - rotary.low)
    else:  # yarn: pair j makes trained * base^(-2j/n) / (2 pi) turns; which pairs make ``high`` and ``low``?
        first = n * math.log(trained / (rotary.high * 2 * math.pi)) / (2 * math.log(rotary.base))
        last = n * math.log(trained / (rotary.low * 2 * math.pi)) / (2 * math.log(rotary.base))
        if rotary.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, n - 1)
        kept = 1 - (torch.arange(len(plain), device="cpu") - first) / (last - first or 0.001)
    kept = kept.clamp(0, 1)
    return (plain / rotary.factor * (1 - kept) + plain * kept).to(device)


def dynamic_frequencies(rotary: Rotary, width: int, context: int, positions: Tensor) -> Tensor:
    """Dynamic NTK scaling: past ``context`` positions, padding included, the base grows with their number.

    So the fastest pairs stay as they are and the slowest slow down just enough (Peng et al. 2023, section 3.3).
    Up to ``context`` nothing changes.
    """
    n = int(width * rotary.partial)
    length = (positions.max() + 1).clamp(min=context)
    growth = rotary.factor * length / context - (rotary.factor - 1)
    base = rotary.base * growth ** (n / (n - 2))
    return 1.0 / base ** (torch.arange(0, n, 2, dtype=torch.float32, device=positions.device) / n)


# --- The published configs: (ours, theirs) for each kind, some optional --------------------------------------------

FACTOR, TRAINED = ("factor", "factor"), ("trained", "original_max_position_embeddings", "optional")
SPELLINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "default": (),
    "linear": (FACTOR,),
    "dynamic": (FACTOR,),
    "llama3": (FACTOR, TRAINED, ("low", "low_freq_factor"), ("high", "high_freq_factor")),
    "yarn": (
        FACTOR,
        TRAINED,
        ("low", "beta_slow", "optional"),
        ("high", "beta_fast", "optional"),
        ("attention", "attention_factor", "optional"),
        ("truncate", "truncate", "optional"),
    ),
    "longrope": (
        TRAINED,
        ("short", "short_factor"),
        ("long", "long_factor"),
        ("attention", "attention_factor", "optional"),
    ),
}
COMMON = (("base", "rope_theta", "optional"), ("partial", "partial_rotary_factor", "optional"))


def read_rotary(published: dict[str, Any]) -> Rotary:
    """Read the settings from a config.json's ``rope_parameters``, or the older ``rope_theta`` and ``rope_scaling``.

    Raises UserError if the rope_type is not supported, or if a setting is missing.
    """
    table = published.get("rope_scaling") or published.get("rope_parameters") or {}
    if not isinstance(table, dict):
        raise UserError(f"config.json: rope_parameters must be an object, got {table!r}")
    if any(isinstance(value, dict) for value in table.values()):
        raise UserError("config.json: rope_parameters must be one table, not one table per layer type")
    kind = table.get("rope_type") or table.get("type") or "default"
    if not isinstance(kind, str):
        raise UserError(f"config.json: rope_type must be a text, got {kind!r}")
    given = {**published, **table}
    if TRAINED[1] in published:  # what the model's own settings say comes first
        given[TRAINED[1]] = published[TRAINED[1]]
    settings: dict[str, Any] = {"kind": kind}
    for ours, theirs, *optional in (*COMMON, *SPELLINGS.get(kind, ())):
        if given.get(theirs) is not None:
            settings[ours] = given[theirs]
        elif not optional:
            raise UserError(f'config.json: rope_parameters of the rope_type "{kind}" need {theirs}')
    if kind == "yarn" and "attention" not in settings and given.get("mscale") and given.get("mscale_all_dim"):
        growth = 0.1 * math.log(max(settings["factor"], 1.0))
        settings["attention"] = (given["mscale"] * growth + 1.0) / (given["mscale_all_dim"] * growth + 1.0)
    if kind == "longrope" and "attention" not in settings and given.get("factor"):
        trained = settings.get("trained") or given["max_position_embeddings"]
        settings["attention"] = _longrope_sharpness(given["factor"], trained)
    return Rotary(**settings)


def write_rotary(rotary: Rotary) -> dict[str, Any]:
    """The inverse of ``read_rotary``, with the new and the old keys: a reader without its key would silently use the
    default base."""
    table: dict[str, Any] = {"rope_type": rotary.kind}
    for ours, theirs, *_ in (*COMMON, *SPELLINGS[rotary.kind]):
        if getattr(rotary, ours) is not None and (ours, rotary.partial) != ("partial", 1.0):
            table[theirs] = getattr(rotary, ours)
    scaling = None if rotary.kind == "default" else table
    return {"rope_parameters": table, "rope_theta": rotary.base, "rope_scaling": scaling}
