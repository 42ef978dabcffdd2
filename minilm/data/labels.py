"""Convert the cells of a label column to class numbers: find the labels, and check that they are labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from minilm.callers import changes
from minilm.data.decoding import BROKEN
from minilm.data.label_sets import are_multi_hot, as_list, guess_separator, split_cell
from minilm.data.tables import Defects, Table
from minilm.errors import UserError, nearest
from minilm.schema import shown

INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,99})")
WHOLE = re.compile(rf"({INTEGER.pattern})\.0+")  # "3.0": programs write whole numbers so if a cell is missing
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)  # missing or invalid numbers
BITS = {"0": 0, "false": 0, "1": 1, "true": 1}
MANY_MISSING = 3  # labels of a data frame; they may be a label that pandas reads as missing
MANY = 20  # fewer rows are too few to decide whether a column contains classes
# Class numbers of rows whose label is invalid, is dropped, or is missing.
UNKNOWN, OTHER, ABSENT = -1, -2, -3


@dataclass(frozen=True)
class LabelScheme:
    """How labels are read: the settings of ``[data]`` that concern labels."""

    column: str = "label"
    columns: Sequence[str] = ()  # for several labels per text: one column of 0 and 1 per label, instead of ``column``
    separator: str = ""  # for several labels per text in one cell
    names: Sequence[str] = ()  # in the order of the class numbers; empty: as found in the training data
    rename: dict[str, str] = field(default_factory=dict)
    other: Literal["error", "drop"] = "error"  # what to do with labels that are not in ``names``
    listed: bool = False  # whether the user gave ``names`` in order, so that a number may be an index into them
    multi_hot: bool = False  # whether cells are lists of 0 and 1; found from the data

    @property
    def multi_label(self) -> bool:
        return bool(self.columns or self.separator)

    def name_of(self, cell: Any) -> str:
        """A cell's label, renamed if ``rename`` says so."""
        name = label_text(cell)
        return self.rename.get(name, self.rename.get(_whole(name), name)) if self.rename else name


def label_text(cell: Any) -> str:
    """A label as text, so that 1, 1.0, "1" and True are one label. Empty if the cell is empty."""
    if cell is None or cell != cell:  # NaN means that the cell is missing
        return ""
    if isinstance(cell, bool | int) or (isinstance(cell, float) and cell.is_integer()):
        return str(int(cell))
    return str(cell).strip()


def _whole(label: str) -> str:
    """A whole number without decimals: "1.0" becomes "1". Other labels do not change: "01" and "1.10" may be codes."""
    match = WHOLE.fullmatch(label)
    return match[1] if match else label


def _no_label(cell: Any) -> str:
    """Why a cell cannot be a label; empty if it can."""
    if isinstance(cell, list):
        return f"is a list; if a text has several labels, add: {changes({'data.label_separator': shown(',')})}"
    if isinstance(cell, dict):
        return "is an object, not a name or a number"
    if isinstance(cell, bytes):
        return f"is {cell!r}, which is bytes; save it as text"
    if NOT_FINITE.fullmatch(label_text(cell)):
        return f"is {cell}, not a finite number"
    return _no_name(label_text(cell))


def _no_name(name: str) -> str:
    """Why a text cannot be the name of a class; empty if it can."""
    if not name:
        return "is empty, which means a missing label"
    if BROKEN.search(name):
        return "contains an invalid Unicode surrogate"
    return "contains a line break; a label must be one line" if len(name.splitlines()) > 1 else ""


# Which labels there are --------------------------------------------------------------------------------------


def find_labels(scheme: LabelScheme, train: Table) -> LabelScheme:
    """Add the class names to the scheme: those that the config lists, or those found in the training data, sorted.

    Raises UserError if the config lists an invalid name or renames a label that no row has, or if cells seem to contain
    several labels, which would count as one.
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
        scheme = replace(scheme, multi_hot=are_multi_hot(sets) or are_multi_hot(sets, len(scheme.names)))
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


def known_labels(scheme: LabelScheme, names: Sequence[str], table: Table) -> LabelScheme:
    """The scheme for another table, if the labels are known.

    A column of lists of 0 and 1 is recognised by their length, which is the number of labels. Two labels that are named
    0 and 1 leave a doubt if every cell is [0, 1] or [1, 0]; then these are numbers, one per label, and not names.
    """
    scheme = replace(scheme, names=list(names), listed=bool(scheme.names))
    if not scheme.separator or scheme.columns:
        return scheme
    sets = [split_cell(cell, scheme.separator) for cell in table.columns[scheme.column]]
    return replace(scheme, multi_hot=are_multi_hot(sets, len(names)))


def _sorted(found: set[str]) -> list[str]:
    """Labels that are all whole numbers, sorted by value, with 1 and 1.0 as one label; other labels alphabetically."""
    whole = {_whole(name) for name in found}
    if not all(INTEGER.fullmatch(name) for name in whole):
        return sorted(found)  # among other names, 1 and 1.0 may be two different version numbers
    return sorted(found if len(found) == len(whole) else whole, key=lambda name: int(_whole(name)))


def _check_rename(scheme: LabelScheme, found: set[str]) -> None:
    for name in scheme.rename:
        if name not in found and name not in {_whole(other) for other in found}:
            raise UserError(f'data.rename: no training row has the label "{name}"{nearest(name, found)}')


def _check_single(train: Table, column: str, names: Sequence[str]) -> None:
    """Raises UserError if cells seem to contain several labels each."""
    found, separator = guess_separator(train.columns[column], names)
    if not separator:
        return
    what = "are lists, such as" if as_list(found) else "seem to be several labels per cell, such as"
    what += f" {_shortened(found)}" if as_list(found) else f' "{_shortened(found)}"'
    raise UserError(
        f'{train.path}: the labels (column "{column}") {what}; if a text has several labels, '
        f'add: {changes({"data.label_separator": shown(separator)})}; if each cell is one label, list the labels in '
        "data.labels"
    )


def _shortened(cell: Any) -> str:
    text = str(cell)
    return text if len(text) <= 60 else f"{text[:59]}…"


# Cells to numbers --------------------------------------------------------------------------------------------


def read_labels(
    table: Table, scheme: LabelScheme, known: str, defects: Defects, *, skip: bool = False
) -> np.ndarray:
    """Class numbers (N,); with several labels per text (N, C) int64 of 0 and 1. A negative number: do not use the row.

    known: the words before the list of names in messages. skip: a missing label is not a defect.
    """
    if scheme.columns:
        return np.stack([_bits(table, column, defects, skip) for column in scheme.columns], axis=1)
    if scheme.separator:
        return _sets(table, scheme, known, defects)
    return _classes(table, scheme, known, defects, skip)


def _classes(table: Table, scheme: LabelScheme, known: str, defects: Defects, skip: bool) -> np.ndarray:
    """(N,) class numbers. A cell must be one of the names; 1 and 1.0 are equal, unless both are names.

    If the config lists the names and none of them is a number, a cell may also be the index of a name, from 0 to C-1.
    If the names are false and true, or 0 and 1, a cell may use either pair.
    """
    reader = _Reader(scheme, known)
    labels, missing = np.full(len(table), UNKNOWN, dtype=np.int64), list[int]()
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
            missing.append(row)
        elif why := _no_label(cell):
            defects.add(table.origin(row), f'the label (column "{scheme.column}") {why}')
        elif scheme.other == "drop":
            labels[row] = OTHER
        else:
            defects.add(table.origin(row), reader.unknown(cell))
    for row in () if skip else missing:
        what = f'the label (column "{scheme.column}") is missing'
        if table.is_frame and len(missing) >= MANY_MISSING:
            what += _missing_in_frame(len(missing)) if row == missing[0] else ""
        else:
            what += " (data.empty=skip drops such rows)"
        defects.add(table.origin(row), what)
    return labels


def _missing_in_frame(rows: int) -> str:
    return (
        f', as in {rows:,} rows; if a label is called "NA", "None" or "null", pandas reads it as missing: read the '
        "file with pd.read_csv(..., keep_default_na=False). data.empty=skip drops these rows, perhaps a whole class"
    )


class _Reader:
    """Finds the class number of a label."""

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
        """A label's class number; UNKNOWN if it is none of the names."""
        if isinstance(cell, bool) and self.truth:  # True and False are never indices
            return self.truth[cell]
        label = self.scheme.name_of(cell)
        found = self.number.get(label, self.alike.get(_whole(label)))
        return self.truth.get(BITS.get(_whole(label).lower(), -1), UNKNOWN) if found is None else found

    def unknown(self, cell: Any) -> Any:
        """A function that writes the message for an unknown label. It is called only if shown, as the hint is slow."""
        names, label = self.scheme.names, self.scheme.name_of(cell)

        def message() -> str:
            shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            what = f'unknown label "{label}"{nearest(label, names)}: {self.known} {shown}'
            if self.known.startswith("data.labels"):
                return f"{what} (data.other=drop drops all rows with other labels)"
            if _whole(label) in self.places and not self.scheme.listed:
                what += " (to use a number as the index of a label, list the labels in order in data.labels)"
            return what

        return message


def _sets(table: Table, scheme: LabelScheme, known: str, defects: Defects) -> np.ndarray:
    """(N, C) 0 and 1, from cells with several labels. With ``other = "drop"`` unknown labels of a cell are ignored."""
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
    """(N,) 0 or 1, from a column of 0 and 1 or of False and True."""
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
    """Raises UserError if the cells of a column look like texts or measured values, not like classes."""
    counts = Counter(label_text(cell) for cell in train.columns[column])
    rows, once = counts.total(), sum(count == 1 for count in counts.values())
    if rows < MANY:
        return
    if fraction := _fraction(list(counts)):
        raise UserError(
            f'{train.path}: the labels (column "{column}") look like measured values, such as {fraction}; minilm '
            "does classification, not regression: replace the values by ranges such as low and high, name another "
            "column in data.label, or, if they are classes, list them in data.labels"
        )
    if 2 * once > len(counts):
        raise UserError(
            f'{train.path}: {len(counts):,} different labels in {rows:,} rows: is "{column}" (data.label) the '
            "right column? If it is, list the labels in data.labels"
        )


def _is_number(name: str) -> bool:
    """Whether a name is a number, also if it is written as "01" or "1.50"."""
    try:
        float(name)
    except ValueError:
        return False
    return not NOT_FINITE.fullmatch(name)


def _fraction(names: Sequence[str]) -> str:
    """If all names are numbers, the first that is not a whole number; otherwise empty."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return ""
    return next((name for name, number in numbers.items() if not number.is_integer()), "")
