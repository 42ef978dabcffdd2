"""Convert between minilm's tensors and published tensors with the name table of an architecture.

Every architecture's file ends with a table of rows (see ``minilm.models.architecture.Row``). A row contains one of
minilm's modules ("ours"), the published module that contains it ("theirs"), and the layout. Reading takes minilm's
tensor out of the published tensor; writing assembles the published tensor:

    ours   = block of the rows of transpose(theirs)
    theirs = transpose(all blocks joined)

A published name may have a prefix that depends on the class that wrote it ("bert."), and an old or new spelling. Its
*plain* name has no prefix and the new spelling; rows contain plain names.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from minilm.models.architecture import BackboneConfig, Names, Row


@dataclass(frozen=True)
class Layout:
    """How minilm's matrices are arranged in a published matrix: as blocks of its rows, after transposing.

    The rows form ``groups`` equal groups (for matrices fused by attention head, one group per head). Each group
    contains one block of each of minilm's matrices, in the proportions ``sizes``.
    """

    transposed: bool = False
    sizes: tuple[int, ...] = (1,)
    groups: int = 1

    def cut(self, rows: Tensor, part: int) -> Tensor:
        """Take the rows of one part out of the published rows, (R, ...) -> (R_part, ...): a view if there is one group.
        """
        if len(self.sizes) == 1:
            return rows
        unit = len(rows) // (sum(self.sizes) * self.groups)
        start, size = unit * sum(self.sizes[:part]), unit * self.sizes[part]
        return rows.unflatten(0, (self.groups, -1))[:, start : start + size].flatten(0, 1)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Join the rows of all parts into the published rows; the inverse of ``cut``."""
        if len(parts) == 1:
            return parts[0]
        return torch.cat([part.unflatten(0, (self.groups, -1)) for part in parts], dim=1).flatten(0, 1)

    def rows_of_all(self, rows: int, part: int) -> int:
        """The number of published rows if this part has ``rows`` rows."""
        return rows * sum(self.sizes) // self.sizes[part]


@dataclass(frozen=True)
class Place:
    """The position of one of minilm's tensors in a published file."""

    ours: str  # minilm's name; "{i}" is replaced by the number of a layer
    theirs: str  # the published tensor's plain name
    row: Row
    layout: Layout

    @property
    def module(self) -> str:
        """minilm's module."""
        return module_of(self.ours)

    @property
    def their_module(self) -> str:
        """The published module."""
        return module_of(self.theirs)

    @property
    def may_be_zero(self) -> bool:
        """Whether the file may contain this tensor, as zeros, although minilm's config does not have it."""
        return self.row.zero_bias and (self.row.bare or self.theirs.endswith(".bias"))

    def shape_of_theirs(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """The published tensor's shape, from that of minilm's tensor."""
        whole = (self.layout.rows_of_all(ours[0], self.row.part), *ours[1:])
        return whole[::-1] if self.layout.transposed else whole

    def take(self, theirs: Tensor) -> Tensor:
        """minilm's tensor, taken out of the published tensor; a view if possible."""
        return self.layout.cut(theirs.t() if self.layout.transposed else theirs, self.row.part)


def module_of(tensor: str) -> str:
    """The name of the module that a tensor belongs to."""
    return tensor.rpartition(".")[0]


def rows_of(names: Names, config: BackboneConfig, task: str, *, prefixed: bool = False) -> tuple[Place, ...]:
    """The places of the backbone's tensors and of the family's own head for this task ("encode": none).

    ``prefixed``: with the backbone's names as the published class of this task has them.
    """
    prefix = names.prefix[task] if prefixed else ""
    rows = [*(replace(row, theirs=prefix + row.theirs) for row in names.rows), *names.heads.get(task, ())]
    return tuple(place for row in rows if row.when is None or row.when(config) for place in _places(row, config))


def _places(row: Row, config: BackboneConfig) -> Iterator[Place]:
    sizes = (1,) * row.parts if row.sizes is None else row.sizes(config)
    layout = Layout(row.transposed, sizes, config.heads if row.by_heads else 1)
    if row.bare:
        yield Place(row.ours, row.theirs, row, layout)
        return
    yield Place(f"{row.ours}.weight", f"{row.theirs}.weight", row, layout)
    yield Place(f"{row.ours}.bias", f"{row.theirs}.bias", row, replace(layout, transposed=False))


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\{i\}", r"(\d+)"))


def _match(template: str, name: str) -> str | None:
    """The layer's number in ``name`` if it matches ``template``, "" if the template has none; None if no match."""
    matched = _pattern(template).fullmatch(name)
    return None if matched is None else "".join(matched.groups())


def _named(place: Place, index: str) -> Place:
    return replace(place, ours=place.ours.replace("{i}", index), theirs=place.theirs.replace("{i}", index))


def places_of_ours(ours: str, places: Iterable[Place]) -> list[Place]:
    """The possible places of minilm's tensor of this name. If there are several, the first that a file has is used."""
    return [_named(place, index) for place in places if (index := _match(place.ours, ours)) is not None]


def places_of_theirs(theirs: str, places: Iterable[Place]) -> list[Place]:
    """The places in a published tensor of this name: several if it is fused."""
    return [_named(place, index) for place in places if (index := _match(place.theirs, theirs)) is not None]


def todays_spelling(published: str, names: Names) -> str:
    """A published name in the new spelling."""
    for old, new in names.old:
        published = published.replace(old, new)
    return published


def plain_name(published: str, names: Names) -> str:
    """A published name in the new spelling and without its prefix."""
    published = todays_spelling(published, names)
    for prefix in names.prefixes:
        if published.startswith(prefix):
            return published.removeprefix(prefix)
    return published


def is_of_head(published: str, names: Names) -> bool:
    """Whether a published tensor is outside the backbone: its name has neither the backbone's prefix nor the beginning
    of a name in the backbone."""
    beginnings = {row.theirs.partition(".")[0] for row in names.rows}
    plain = plain_name(published, names)
    return not published.startswith(names.prefixes) and plain.partition(".")[0] not in beginnings


def is_ignored(plain: str, names: Names) -> bool:
    """Whether a published tensor (plain name) is ignored, as no model needs it."""
    return any(fnmatch.fnmatchcase(plain, pattern) for pattern in names.ignored)


def all_places(names: Names, config: BackboneConfig) -> tuple[Place, ...]:
    """The name table with the heads of all tasks."""
    return tuple(dict.fromkeys(place for task in ("encode", *names.heads) for place in rows_of(names, config, task)))


def is_needed(plain: str, names: Names, places: Sequence[Place]) -> bool:
    """Whether a published tensor (plain name) matches no pattern of ``ignored``, or has a place."""
    return not is_ignored(plain, names) or bool(places_of_theirs(plain, places))


def published_tensors(ours: Mapping[str, Tensor], places: Iterable[Place]) -> Iterator[tuple[str, Tensor]]:
    """Convert minilm's tensors to published tensors, by name; as views if possible.

    Raises KeyError for a tensor that is not in the table.
    """
    places = list(places)
    blocks: dict[str, list[tuple[Place, Tensor]]] = {}
    for name, tensor in {**ours, **dict(_zeros(ours, places))}.items():
        found = places_of_ours(name, places)
        if not found:
            raise KeyError(f"the name table has no row for {name}")
        for place in found:
            blocks.setdefault(place.theirs, []).append((place, tensor.detach()))
    for theirs, parts in blocks.items():
        parts.sort(key=lambda pair: pair[0].row.part)
        layout = parts[0][0].layout
        whole = layout.join([tensor for _, tensor in parts])
        yield theirs, whole.t() if layout.transposed else whole


def _zeros(ours: Mapping[str, Tensor], places: Iterable[Place]) -> Iterator[tuple[str, Tensor]]:
    """Zeros for the biases that a published file must contain and this model does not have."""
    for place in places:
        if place.row.zero_bias and place.ours.endswith(".weight"):
            for name in ours:
                index = _match(place.ours, name)
                bias = place.ours.removesuffix("weight").replace("{i}", index or "") + "bias"
                if index is not None and bias not in ours:
                    yield bias, torch.zeros_like(ours[name][:, 0])
