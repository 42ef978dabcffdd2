"""A label column's cells to class numbers: which labels there are, and whether they are labels at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minilm.data.readers import Defects, Table
from minilm.errors import UserError, nearest

if TYPE_CHECKING:
    from minilm.config import DataSection

INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)  # as programs write a number that is missing or none
MANY = 20  # rows from which on the labels tell whether they are classes


def label_text(cell: Any) -> str:
    """A label as text, so that 1, 1.0, "1" and True are one label. Empty where the cell is."""
    if cell is None or cell != cell:  # NaN, which stands for missing
        return ""
    if isinstance(cell, bool | int) or (isinstance(cell, float) and cell.is_integer()):
        return str(int(cell))
    return str(cell).strip()


def _no_label(cell: Any) -> str:
    """What a cell is that no class is called by; empty: it may be one's name."""
    if isinstance(cell, list):
        return "a list; for several labels a text name a column of 0 and 1 for each (data.label_columns)"
    if isinstance(cell, dict):
        return "an object, not a name or a number"
    return f"{cell}, not a finite number" if NOT_FINITE.fullmatch(label_text(cell)) else ""


def label_names(section: DataSection, train: Table) -> list[str]:
    """The classes in order: as the config lists them, else as found in the training data, sorted."""
    names = section.labels or section.label_columns
    if not names:
        found = {label_text(cell) for cell in train.columns[section.label] if not _no_label(cell)} - {""}
        numbers = all(INTEGER.fullmatch(name) for name in found)
        names = sorted(found, key=int) if numbers else sorted(found)
    return list(names)


def classes(table: Table, section: DataSection, names: list[str], defects: Defects) -> np.ndarray:
    """(N,) class numbers. A label is a name or, where no name is itself a number, its place from 0 to C-1."""
    number = {name: i for i, name in enumerate(names)}
    if not any(INTEGER.fullmatch(name) for name in names):
        number |= {str(i): i for i in range(len(names))}
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    known = "data.labels lists" if section.labels else "the training data has"
    labels = np.full(len(table.lines), -1, dtype=np.int64)
    for i, (line, cell) in enumerate(zip(table.lines, table.columns[section.label], strict=True)):
        label = label_text(cell)
        labels[i] = number.get(label, -1)
        if not label:
            defects.add(table.path, line, f'the label (column "{section.label}") is missing', table.unit)
        elif label not in number and (kind := _no_label(cell)):
            defects.add(table.path, line, f'the label (column "{section.label}") is {kind}', table.unit)
        elif label not in number:
            what = f'unknown label "{label}"{nearest(label, names)}: {known} {shown}'
            defects.add(table.path, line, what, table.unit)
    return labels


def bits(table: Table, column: str, defects: Defects) -> np.ndarray:
    """(N,) 0 or 1."""
    found = np.zeros(len(table.lines), dtype=np.int64)
    for i, (line, cell) in enumerate(zip(table.lines, table.columns[column], strict=True)):
        bit = label_text(cell)
        found[i] = bit == "1"
        if bit not in ("0", "1"):
            what = f'column "{column}" must be 0 or 1, got "{bit}"' if bit else f'column "{column}" is missing'
            defects.add(table.path, line, what, table.unit)
    return found


def check_kind(train: Table, column: str, where: str) -> None:
    """Raises UserError where a column's cells are texts or measured values rather than classes."""
    counts = Counter(label_text(cell) for cell in train.columns[column])
    rows, once = counts.total(), sum(count == 1 for count in counts.values())
    if rows < MANY:
        return
    is_right = f'is "{column}" (data.label) the right column? If it is, list the labels in data.labels'
    if 2 * once > len(counts):
        raise UserError(f"{where}{train.path}: {len(counts):,} different labels in {rows:,} rows: {is_right}")
    if fraction := _fraction(list(counts)):
        raise UserError(f"{where}{train.path}: the labels are measured values such as {fraction}: {is_right}")


def _fraction(names: Sequence[str]) -> str:
    """The first that is no whole number, where all are numbers; empty: there is none."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return ""
    return next((name for name, number in numbers.items() if not number.is_integer()), "")
