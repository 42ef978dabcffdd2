"""A label column's cells to class numbers: which labels there are, and whether they are labels at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from minilm.data.decoding import BROKEN
from minilm.data.label_sets import are_multi_hot, as_list, looks_like_sets, split_cell
from minilm.data.tables import Defects, Table
from minilm.errors import UserError, nearest

INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,99})")
WHOLE = re.compile(rf"({INTEGER.pattern})\.0+")  # as programs write a column of whole numbers that has a gap
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)  # as programs write a number that is missing or none
BITS = {"0": 0, "false": 0, "1": 1, "true": 1}
MANY = 20  # rows from which on the labels tell whether they are classes
# Class numbers of rows whose label cannot be used, is to be dropped, or is not there.
UNKNOWN, OTHER, ABSENT = -1, -2, -3


@dataclass(frozen=True)
class LabelScheme:
    """How labels are written, and what becomes of them: the part of ``[data]`` that is about labels."""

    column: str = "label"
    columns: Sequence[str] = ()  # several labels a text: columns of 0 and 1, in place of one column
    separator: str = ""  # several labels a text: in one cell
    names: Sequence[str] = ()  # in order; empty: as found in the training data
    rename: dict[str, str] = field(default_factory=dict)
    other: Literal["error", "drop"] = "error"  # what becomes of labels that ``names`` does not list
    listed: bool = False  # whether the names' order is somebody's, so that a number may be a place among them
    multi_hot: bool = False  # cells are lists of 0 and 1; found by looking

    @property
    def multi_label(self) -> bool:
        return bool(self.columns or self.separator)

    def name_of(self, cell: Any) -> str:
        """A cell's label, renamed if ``rename`` says so."""
        name = label_text(cell)
        return self.rename.get(name, self.rename.get(_whole(name), name)) if self.rename else name


def label_text(cell: Any) -> str:
    """A label as text, so that 1, 1.0, "1" and True are one label. Empty if the cell is."""
    if cell is None or cell != cell:  # NaN, which stands for missing
        return ""
    if isinstance(cell, bool | int) or (isinstance(cell, float) and cell.is_integer()):
        return str(int(cell))
    return str(cell).strip()


def _whole(label: str) -> str:
    """A whole number without its decimals: "1.0" is "1". All else is as it was: "01" and "1.10" may be codes."""
    match = WHOLE.fullmatch(label)
    return match[1] if match else label


def _no_label(cell: Any) -> str:
    """Why no class is called so; empty: one may be."""
    if isinstance(cell, list):
        return 'is a list; if a text has several labels, add: data.label_separator=","'
    if isinstance(cell, dict):
        return "is an object, not a name or a number"
    if isinstance(cell, bytes):
        return f"is {cell!r}, bytes and not text; write it as text"
    if NOT_FINITE.fullmatch(label_text(cell)):
        return f"is {cell}, not a finite number"
    return _no_name(label_text(cell))


def _no_name(name: str) -> str:
    """Why a name cannot be a class's, or be written into the files of a run; empty: it can."""
    if not name:
        return "is empty, which stands for a missing label"
    if BROKEN.search(name):
        return "contains an invalid Unicode surrogate"
    return "holds a line break; a label is one line" if len(name.splitlines()) > 1 else ""


# Which labels there are --------------------------------------------------------------------------------------


def find_labels(scheme: LabelScheme, train: Table) -> LabelScheme:
    """The scheme with the classes in order: as the config lists them, else as found in the training data, sorted.

    Raises UserError if the config lists what can be no name, or renames a label that is not there; and if a cell
    looks like several labels, which training would take for one.
    """
    scheme = replace(scheme, listed=bool(scheme.names))
    for key, names in (("labels", scheme.names), ("label_columns", scheme.columns)):
        for name in names:
            if why := _no_name(name):
                raise UserError(f"data.{key}: {name!r} {why}")
    if scheme.columns:
        return replace(scheme, names=list(scheme.names or [scheme.rename.get(name, name) for name in scheme.columns]))
    cells = train.columns[scheme.column]
    if scheme.separator:
        sets = [split_cell(cell, scheme.separator) for cell in cells]
        scheme = replace(scheme, multi_hot=are_multi_hot(sets))
        if scheme.multi_hot:
            numbers = [scheme.name_of(i) for i in range(len(sets[0]))]
            return replace(scheme, names=list(scheme.names) or numbers)
        found = {label_text(item) for items in sets for item in items}
    else:
        found = {label_text(cell) for cell in cells if not _no_label(cell)} - {""}
    _check_rename(scheme, found)
    if scheme.names:
        return replace(scheme, names=list(scheme.names))
    names = _sorted({scheme.name_of(name) for name in found})
    if not scheme.separator:
        _check_single(train, scheme.column, names)
    return replace(scheme, names=names)


def _sorted(found: set[str]) -> list[str]:
    """Numbers by their value, else names by the alphabet. 1 and 1.0 are one number, unless some are no numbers."""
    whole = {_whole(name) for name in found}
    if not all(INTEGER.fullmatch(name) for name in whole):
        return sorted(found)  # among names that are no numbers, 1 and 1.0 may be two versions of something
    return sorted(found if len(found) == len(whole) else whole, key=lambda name: int(_whole(name)))


def _check_rename(scheme: LabelScheme, found: set[str]) -> None:
    for name in scheme.rename:
        if name not in found and name not in {_whole(other) for other in found}:
            raise UserError(f'data.rename: no training row has the label "{name}"{nearest(name, found)}')


def _check_single(train: Table, column: str, names: Sequence[str]) -> None:
    """Raises UserError if the cells look as if each held several labels."""
    lists = [cell for cell in train.columns[column] if as_list(cell)]
    if len(lists) > 1:
        what, separator = f"are lists, such as {_shortened(lists[0])}", ","
    else:
        name, separator = looks_like_sets(names)
        if not name:
            return
        what = f'look like several in one cell, such as "{_shortened(name)}"'
    raise UserError(
        f'{train.path}: the labels (column "{column}") {what}; if a text has several labels, '
        f'add: data.label_separator="{separator}"; if each is one name, list the names in data.labels'
    )


def _shortened(cell: Any) -> str:
    text = str(cell)
    return text if len(text) <= 60 else f"{text[:59]}…"


# Cells to numbers --------------------------------------------------------------------------------------------


def read_labels(
    table: Table, scheme: LabelScheme, known: str, defects: Defects, *, skip: bool = False
) -> np.ndarray:
    """Class numbers (N,); several labels a text: (N, C) int64 of 0 and 1. Negative: the row is not to be used.

    ``known`` begins a list of the names in messages. With ``skip`` a label that is not there is no defect.
    """
    if scheme.columns:
        return np.stack([_bits(table, column, defects, skip) for column in scheme.columns], axis=1)
    if scheme.separator:
        return _sets(table, scheme, known, defects)
    return _classes(table, scheme, known, defects, skip)


def _classes(table: Table, scheme: LabelScheme, known: str, defects: Defects, skip: bool) -> np.ndarray:
    """(N,) class numbers. A label is a name; as numbers 1 and 1.0 are one, if no two names are that number.

    If the config lists the names, so that their order is somebody's, and none is itself a number, it may be a name's
    place from 0 to C-1. If the two names are false and true, or 0 and 1, each may be written as the other.
    """
    reader = _Reader(scheme, known)
    labels = np.full(len(table), UNKNOWN, dtype=np.int64)
    numbers: dict[str, int] = {}  # of the cells seen so far
    for row, cell in enumerate(table.columns[scheme.column]):
        if isinstance(cell, str) and cell in numbers:
            labels[row] = numbers[cell]
            continue
        labels[row] = number = reader.number_of(cell)
        if number >= 0:
            if isinstance(cell, str):
                numbers[cell] = number
        elif not label_text(cell):
            labels[row] = ABSENT
            if not skip:
                what = f'the label (column "{scheme.column}") is missing (data.empty=skip leaves it out)'
                defects.add(table.origin(row), what)
        elif why := _no_label(cell):
            defects.add(table.origin(row), f'the label (column "{scheme.column}") {why}')
        elif scheme.other == "drop":
            labels[row] = OTHER
        else:
            defects.add(table.origin(row), reader.unknown(cell))
    return labels


class _Reader:
    """Finds the class of one label after another."""

    def __init__(self, scheme: LabelScheme, known: str) -> None:
        self.scheme, self.known = scheme, known
        names = scheme.names
        self.number = {name: i for i, name in enumerate(names)}
        spellings = Counter(map(_whole, names))
        self.alike = {_whole(name): i for i, name in enumerate(names) if spellings[_whole(name)] == 1}
        self.places = {} if any(map(_is_number, names)) else {str(i): i for i in range(len(names))}
        if scheme.listed:
            self.alike |= self.places
        bit = {BITS.get(_whole(name).lower(), -1): i for i, name in enumerate(names)}
        self.truth = bit if len(names) == 2 and bit.keys() == {0, 1} else {}

    def number_of(self, cell: Any) -> int:
        """A label's class number; UNKNOWN: it is none of the names."""
        if isinstance(cell, bool) and self.truth:  # as it says itself, it is no place among the names
            return self.truth[cell]
        label = self.scheme.name_of(cell)
        found = self.number.get(label, self.alike.get(_whole(label)))
        return self.truth.get(BITS.get(_whole(label).lower(), -1), UNKNOWN) if found is None else found

    def unknown(self, cell: Any) -> Any:
        """What is wrong with a label that is none of the names; made when it is shown, as the hint takes its time."""
        names, label = self.scheme.names, self.scheme.name_of(cell)

        def message() -> str:
            shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            what = f'unknown label "{label}"{nearest(label, names)}: {self.known} {shown}'
            if self.known.startswith("data.labels"):
                return f"{what} (data.other=drop leaves out all rows with other labels)"
            if _whole(label) in self.places and not self.scheme.listed:
                what += " (a number is a place among them only if data.labels lists them in order)"
            return what

        return message


def _sets(table: Table, scheme: LabelScheme, known: str, defects: Defects) -> np.ndarray:
    """(N, C) 0 and 1, from cells of several labels. With ``other`` = "drop" unknown labels are left out of a cell."""
    reader = _Reader(scheme, known)
    labels = np.zeros((len(table), len(scheme.names)), dtype=np.int64)
    for row, cell in enumerate(table.columns[scheme.column]):
        items = split_cell(cell, scheme.separator)
        if scheme.multi_hot:
            if items and (len(items) != len(scheme.names) or not are_multi_hot([items])):
                wanted = f"a list of {len(scheme.names)} numbers, 0 or 1"
                defects.add(table.origin(row), f'column "{scheme.column}" must be {wanted}, got {_shortened(cell)}')
            elif items:
                labels[row] = items
            continue
        for item in items:
            number = reader.number_of(item)
            if number >= 0:
                labels[row, number] = 1
            elif why := _no_label(item):
                defects.add(table.origin(row), f'a label (column "{scheme.column}") {why}')
            elif scheme.other == "error":
                defects.add(table.origin(row), reader.unknown(item))
    return labels


def _bits(table: Table, column: str, defects: Defects, skip: bool) -> np.ndarray:
    """(N,) 0 or 1, of a column that may say so with True and False too."""
    found = np.zeros(len(table), dtype=np.int64)
    for row, cell in enumerate(table.columns[column]):
        bit = label_text(cell)
        found[row] = BITS.get(_whole(bit).lower(), UNKNOWN)
        if found[row] < 0 and (bit or not skip):
            what = f'column "{column}" must be 0 or 1, got "{bit}"' if bit else f'column "{column}" is missing'
            defects.add(table.origin(row), what)
    return found


def read_numbers(table: Table, column: str, defects: Defects) -> np.ndarray:
    """(N,) float64, of a column of measured values."""
    found = np.zeros(len(table))
    for row, cell in enumerate(table.columns[column]):
        try:
            found[row] = float(label_text(cell))
        except ValueError:
            found[row] = np.nan
        if not np.isfinite(found[row]):
            defects.add(table.origin(row), f'column "{column}" must be a number, got "{_shortened(label_text(cell))}"')
            found[row] = 0.0
    return found


# Whether they are labels -------------------------------------------------------------------------------------


def check_kind(train: Table, column: str) -> None:
    """Raises UserError if a column's cells are texts or measured values rather than classes."""
    counts = Counter(label_text(cell) for cell in train.columns[column])
    rows, once = counts.total(), sum(count == 1 for count in counts.values())
    if rows < MANY:
        return
    if fraction := _fraction(list(counts)):
        raise UserError(
            f'{train.path}: the labels (column "{column}") are measured values such as {fraction}; minilm sorts '
            "texts into classes and does no regression: write ranges in their place, such as low and high, name "
            "another column (data.label), or, if they are classes, list them in data.labels"
        )
    if 2 * once > len(counts):
        raise UserError(
            f'{train.path}: {len(counts):,} different labels in {rows:,} rows: is "{column}" (data.label) the '
            "right column? If it is, list the labels in data.labels"
        )


def _is_number(name: str) -> bool:
    """Whether it can be read as a number, be it written as "01" or "1.50"."""
    try:
        float(name)
    except ValueError:
        return False
    return not NOT_FINITE.fullmatch(name)


def _fraction(names: Sequence[str]) -> str:
    """The first that is no whole number, if all are numbers; empty: there is none."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return ""
    return next((name for name, number in numbers.items() if not number.is_integer()), "")
