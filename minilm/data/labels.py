"""A label column's cells to class numbers: which labels there are, and whether they are labels at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm.config import DataSection
from minilm.data.readers import BROKEN, Defects, Table
from minilm.errors import UserError, nearest

INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,99})")
WHOLE = re.compile(rf"({INTEGER.pattern})\.0+")  # as programs write a column of whole numbers that has a gap
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)  # as programs write a number that is missing or none
BITS = {"0": 0, "false": 0, "1": 1, "true": 1}
MANY = 20  # rows from which on the labels tell whether they are classes


def label_text(cell: Any) -> str:
    """A label as text, so that 1, 1.0, "1" and True are one label. Empty where the cell is."""
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
        return "is a list; for several labels a text name a column of 0 and 1 for each (data.label_columns)"
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


def label_names(section: DataSection, train: Table) -> list[str]:
    """The classes in order: as the config lists them, else as found in the training data, sorted.

    Raises UserError where the config lists what can be no name.
    """
    for key in ("labels", "label_columns"):
        for name in getattr(section, key):
            if why := _no_name(name):
                raise UserError(f"data.{key}: {name!r} {why}")
    if names := section.labels or section.label_columns:
        return list(names)
    found = {label_text(cell) for cell in train.columns[section.label] if not _no_label(cell)} - {""}
    whole = {_whole(name) for name in found}
    if not all(INTEGER.fullmatch(name) for name in whole):
        return sorted(found)  # among names that are no numbers, 1 and 1.0 may be two versions of something
    return sorted(found if len(found) == len(whole) else whole, key=lambda name: int(_whole(name)))


def classes(table: Table, section: DataSection, names: list[str], known: str, defects: Defects) -> np.ndarray:
    """(N,) class numbers. A label is a name; as numbers 1 and 1.0 are one, where no two names are that number.

    Where ``section`` lists the names, so that their order is somebody's, and none is itself a number, it may be a
    name's place from 0 to C-1. Where the two names are false and true, or 0 and 1, each may be written as the other.
    ``known`` begins a list of the names in messages.
    """
    number = {name: i for i, name in enumerate(names)}
    spellings = Counter(map(_whole, names))
    alike = {_whole(name): i for i, name in enumerate(names) if spellings[_whole(name)] == 1}
    places = {} if any(map(_is_number, names)) else {str(i): i for i in range(len(names))}
    if section.labels:
        alike |= places
    bit = {BITS.get(_whole(name).lower(), -1): i for i, name in enumerate(names)}
    truth = bit if len(names) == 2 and bit.keys() == {0, 1} else {}
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    labels = np.full(len(table.lines), -1, dtype=np.int64)
    for i, (line, cell) in enumerate(zip(table.lines, table.columns[section.label], strict=True)):
        label = label_text(cell)
        if isinstance(cell, bool) and truth:  # as it says itself, it is no place among the names
            labels[i] = truth[cell]
        else:
            labels[i] = number.get(label, alike.get(_whole(label), truth.get(BITS.get(_whole(label).lower(), -1), -1)))
        if not label:
            defects.add(table.path, line, f'the label (column "{section.label}") is missing', table.unit)
        elif labels[i] < 0 and (why := _no_label(cell)):
            defects.add(table.path, line, f'the label (column "{section.label}") {why}', table.unit)
        elif labels[i] < 0:
            what = f'unknown label "{label}"{nearest(label, names)}: {known} {shown}'
            if _whole(label) in places and not section.labels:
                what += " (a number is a place among them only where data.labels lists them in order)"
            defects.add(table.path, line, what, table.unit)
    return labels


def bits(table: Table, column: str, defects: Defects) -> np.ndarray:
    """(N,) 0 or 1, of a column that may say so with True and False too."""
    found = np.zeros(len(table.lines), dtype=np.int64)
    for i, (line, cell) in enumerate(zip(table.lines, table.columns[column], strict=True)):
        bit = label_text(cell)
        found[i] = BITS.get(_whole(bit).lower(), -1)
        if found[i] < 0:
            what = f'column "{column}" must be 0 or 1, got "{bit}"' if bit else f'column "{column}" is missing'
            defects.add(table.path, line, what, table.unit)
    return found


def check_kind(train: Table, column: str) -> None:
    """Raises UserError where a column's cells are texts or measured values rather than classes."""
    counts = Counter(label_text(cell) for cell in train.columns[column])
    rows, once = counts.total(), sum(count == 1 for count in counts.values())
    if rows < MANY:
        return
    is_right = f'is "{column}" (data.label) the right column? If it is, list the labels in data.labels'
    if 2 * once > len(counts):
        raise UserError(f"{train.path}: {len(counts):,} different labels in {rows:,} rows: {is_right}")
    if fraction := _fraction(list(counts)):
        raise UserError(f"{train.path}: the labels are measured values such as {fraction}: {is_right}")


def _is_number(name: str) -> bool:
    """Whether it can be read as a number, be it written as "01" or "1.50"."""
    try:
        float(name)
    except ValueError:
        return False
    return not NOT_FINITE.fullmatch(name)


def _fraction(names: Sequence[str]) -> str:
    """The first that is no whole number, where all are numbers; empty: there is none."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return ""
    return next((name for name, number in numbers.items() if not number.is_integer()), "")
