"""The name table, applied in either direction.

Every architecture's file ends with a table of rows ``(ours, theirs, how)`` (see ``minilm.models.layers.Names``).
Reading takes our tensor out of a published one, writing puts the published one together from ours:

    ours   = block(part of parts, transpose(theirs))
    theirs = transpose(concatenate(ours_0, ..., ours_{parts-1}))

A published name comes with or without a prefix that tells which class wrote it ("bert."), and in old or new
spelling. Its *plain* name has no prefix and today's spelling; rows hold plain names.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from minilm.models.layers import Names


@dataclass(frozen=True)
class Row:
    """A row of the table: what our tensor is called, and where and how it lies in a published file."""

    ours: str  # "{i}" stands for a layer's number; ``named`` puts one in
    theirs: str
    transposed: bool = False
    part: int = 0  # ours is this block of rows of theirs (after transposing) ...
    parts: int = 1  # ... out of so many
    or_zero: bool = False  # the file must have it, zero where our config does without it
    condition: tuple[str, bool] | None = None  # the row counts only where this setting of the config is this

    def named(self, index: str) -> Row:
        """The row of layer ``index``."""
        return replace(self, ours=self.ours.replace("{i}", index), theirs=self.theirs.replace("{i}", index))

    def shape_of_theirs(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """The published tensor's shape, from our tensor's."""
        whole = (ours[0] * self.parts, *ours[1:])
        return whole[::-1] if self.transposed else whole

    def take(self, theirs: Tensor) -> Tensor:
        """Our tensor, as a view into theirs."""
        whole = theirs.t() if self.transposed else theirs
        return whole if self.parts == 1 else whole.chunk(self.parts)[self.part]


def _parse(row: tuple[str, ...]) -> Row:
    ours, theirs, *how = row
    parsed = Row(ours, theirs)
    for word in how[0].split(", ") if how else ():
        if word == "transposed":
            parsed = replace(parsed, transposed=True)
        elif word == "or zero":
            parsed = replace(parsed, or_zero=True)
        elif part := re.fullmatch(r"part (\d+) of (\d+)", word):
            parsed = replace(parsed, part=int(part[1]), parts=int(part[2]))
        elif condition := re.fullmatch(r"(if|unless) (\w+)", word):
            parsed = replace(parsed, condition=(condition[2], condition[1] == "if"))
        else:
            raise ValueError(f"the row of {ours} says {word!r}, which means nothing")
    return parsed


def rows_of(names: Names, config: Any, task: str, *, prefixed: bool = False) -> tuple[Row, ...]:
    """The rows of the backbone and of the family's own head for this task ("encode": none).

    ``prefixed``: with the backbone's names as the published class of this task has them.
    """
    prefix = names.prefix[task] if prefixed else ""
    backbone = [replace(row, theirs=prefix + row.theirs) for row in map(_parse, names.rows)]
    rows = [*backbone, *map(_parse, names.heads.get(task, ()))]
    return tuple(r for r in rows if r.condition is None or bool(getattr(config, r.condition[0])) == r.condition[1])


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\{i\}", r"(\d+)"))


def _match(template: str, name: str) -> str | None:
    """The layer's number with which ``template`` gives ``name`` ("" where it has none); None: it does not."""
    matched = _pattern(template).fullmatch(name)
    return None if matched is None else "".join(matched.groups())


def rows_of_ours(ours: str, rows: Iterable[Row]) -> list[Row]:
    """Where our tensor of this name may lie. Of several places, the first that a file has counts."""
    return [row.named(index) for row in rows if (index := _match(row.ours, ours)) is not None]


def rows_of_theirs(theirs: str, rows: Iterable[Row]) -> list[Row]:
    """What lies in a published tensor of this name: several of ours where it is fused."""
    return [row.named(index) for row in rows if (index := _match(row.theirs, theirs)) is not None]


def plain_name(published: str, names: Names) -> str:
    """A published name in today's spelling and without its prefix."""
    for old, new in names.old:
        published = published.replace(old, new)
    for prefix in sorted(set(names.prefix.values()), key=len, reverse=True):
        if prefix and published.startswith(prefix):
            return published.removeprefix(prefix)
    return published


def is_ignored(plain: str, names: Names) -> bool:
    """Whether a published tensor (plain name) is one that nobody needs."""
    return any(fnmatch.fnmatchcase(plain, pattern) for pattern in names.ignored)


def published_tensors(ours: Mapping[str, Tensor], rows: Iterable[Row]) -> Iterator[tuple[str, Tensor]]:
    """Our tensors as a published file holds them, by name; as views where they can be.

    Raises KeyError for a tensor that the table does not know.
    """
    rows = list(rows)
    tensors = {**ours, **dict(_zeros(ours, rows))}
    blocks: dict[str, list[tuple[Row, Tensor]]] = {}
    for name, tensor in tensors.items():
        places = rows_of_ours(name, rows)
        if not places:
            raise KeyError(f"the name table has no row for {name}")
        for row in places:
            blocks.setdefault(row.theirs, []).append((row, tensor.detach()))
    for theirs, parts in blocks.items():
        parts.sort(key=lambda pair: pair[0].part)
        whole = parts[0][1] if len(parts) == 1 else torch.cat([tensor for _, tensor in parts])
        yield theirs, whole.t() if parts[0][0].transposed else whole


def _zeros(ours: Mapping[str, Tensor], rows: Iterable[Row]) -> Iterator[tuple[str, Tensor]]:
    """The biases that a published file must have and this model does without."""
    for row in rows:
        weight = row.ours.removesuffix("bias") + "weight"
        for name in ours if row.or_zero else ():
            if (index := _match(weight, name)) is not None and (absent := row.named(index).ours) not in ours:
                yield absent, torch.zeros_like(ours[name][:, 0])
