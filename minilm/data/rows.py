"""A table's cells to labelled texts: cleaned, checked, and each with the place it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from minilm.data.decoding import BROKEN
from minilm.data.labels import ABSENT, OTHER, LabelScheme, label_text, read_labels
from minilm.data.tables import SHOWN, Defects, Table

LONGEST = 1_000_000  # characters of a text: a tokenizer takes a hundred times the memory


@dataclass(frozen=True)
class Rows:
    """N labelled texts."""

    texts: list[str]
    pairs: list[str] | None  # each text's second text
    labels: np.ndarray  # (N,) int64 class numbers; several labels a text: (N, C) int64 of 0 and 1

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> Rows:
        """The rows of these numbers, in this order."""
        pairs = None if self.pairs is None else [self.pairs[i] for i in rows]
        return Rows([self.texts[i] for i in rows], pairs, self.labels[rows])


@dataclass(frozen=True)
class Part:
    """Rows, where they come from, and what they are split by."""

    rows: Rows
    table: Table
    numbers: np.ndarray  # (N,) of the table's rows
    groups: np.ndarray | None  # (N,) the group column's values

    def take(self, rows: np.ndarray) -> Part:
        groups = None if self.groups is None else self.groups[rows]
        return Part(self.rows.take(rows), self.table, self.numbers[rows], groups)

    def place(self, rows: Sequence[int]) -> str:
        """Where the first of these rows are: ``test.csv, lines 3, 8``."""
        found: dict[tuple[str, str], list[int]] = {}
        for row in rows[:SHOWN]:
            path, line, unit = self.table.origin(int(self.numbers[row]))
            found.setdefault((path, unit), []).append(line)
        more = ", ..." if len(rows) > SHOWN else ""
        places = [
            f"{path}, {unit}{'s' if len(rows) > 1 else ''} {', '.join(map(str, lines))}"
            for (path, unit), lines in found.items()
        ]
        return "; ".join(places) + more


@dataclass(frozen=True)
class RowRules:
    """How texts and labels are read from a table: the part of ``[data]`` that is about rows."""

    text: str
    pair: str  # column of the second text; empty: single texts
    group: str  # column; empty: no groups
    labels: LabelScheme
    clean: Callable[[str], str]
    empty: Literal["error", "skip"] = "error"  # what becomes of rows without a text or a label
    longest: int = LONGEST  # characters of a text; 0: no limit


@dataclass
class LeftOut:
    """How many rows of a table are not used, and why."""

    reasons: Counter[str] = field(default_factory=Counter)

    def notes(self, table: Table) -> list[str]:
        return [
            f"{table.path}: {number:,} {'row is' if number == 1 else 'rows are'} left out: {why}"
            for why, number in self.reasons.items()
        ]


def read_rows(table: Table, rules: RowRules, known: str, defects: Defects, left_out: LeftOut) -> Part:
    """The labelled texts of a table, whose cells are used up. ``known`` begins a list of the labels in messages."""
    usable = np.ones(len(table), dtype=bool)
    groups = _groups(table, rules.group, defects) if rules.group else None
    labels = read_labels(table, rules.labels, known, defects, skip=rules.empty == "skip")
    texts = read_texts(table, rules.text, rules, defects, usable)
    pairs = read_texts(table, rules.pair, rules, defects, usable) if rules.pair else None
    left_out.reasons["the text is empty (data.empty=skip)"] += int((~usable).sum())
    if labels.ndim == 1:
        others = usable & (labels == OTHER)
        left_out.reasons["the label is none of data.labels (data.other=drop)"] += int(others.sum())
        missing = labels == ABSENT
    else:
        missing = (labels < 0).any(axis=1)
    left_out.reasons["the label is missing (data.empty=skip)"] += int((usable & missing).sum())
    left_out.reasons = +left_out.reasons  # without those of none
    usable &= ~missing if labels.ndim == 2 else labels >= 0
    part = Part(Rows(texts, pairs, labels), table, np.arange(len(table)), groups)
    if defects.found or usable.all():  # with defects nothing is used
        return part
    return part.take(np.flatnonzero(usable))


def read_texts(table: Table, column: str, rules: RowRules, defects: Defects, usable: np.ndarray) -> list[str]:
    """The column's texts (N), cleaned and stripped. They take the place of the cells, which may be a million.

    usable: (N,); with ``empty = "skip"`` the rows without a text are unset there, and are no defects.
    """
    cells = table.columns[column]
    for row, cell in enumerate(cells):
        text = rules.clean(cell) if isinstance(cell, str) else ""
        if cell is not None and not isinstance(cell, str):
            defects.add(table.origin(row), f'the text (column "{column}") is {cell!r}, not text')
        elif not text and rules.empty == "skip":
            usable[row] = False
        elif not text:
            what = f'the text (column "{column}") is empty{" once cleaned" if cell and cell.strip() else ""}'
            defects.add(table.origin(row), f"{what} (data.empty=skip leaves it out)")
        elif not text.isascii() and BROKEN.search(text):
            defects.add(table.origin(row), f'the text (column "{column}") contains an invalid Unicode surrogate')
        elif len(text) > rules.longest > 0:
            what = f'the text (column "{column}") has {len(text):,} characters, more than {rules.longest:,}'
            defects.add(table.origin(row), f"{what}; shorten it, or read it in pieces (data.long_texts=windows)")
        cells[row] = text
    return cells


def _groups(table: Table, column: str, defects: Defects) -> np.ndarray:
    """The column's values (N,), which may be anything but nothing."""
    groups = np.array([label_text(cell) for cell in table.columns[column]])
    for row in np.flatnonzero(groups == ""):
        defects.add(table.origin(int(row)), f'column "{column}" (data.group) is empty')
    return groups
