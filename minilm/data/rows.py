"""Convert the cells of a table to labelled texts, which are cleaned and checked and keep their place in the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from minilm.data.decoding import BROKEN
from minilm.data.labels import ABSENT, OTHER, LabelScheme, label_text, read_labels
from minilm.data.tables import SHOWN, Defects, Table

LONGEST = 1_000_000  # the most characters of a text: a tokenizer needs a hundred times as much memory


@dataclass(frozen=True)
class Rows:
    """N labelled texts."""

    texts: list[str]
    pairs: list[str] | None  # the second text of each pair
    labels: np.ndarray  # (N,) int64 class numbers; with several labels per text (N, C) int64 of 0 and 1

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> Rows:
        """The rows with these numbers, in this order."""
        pairs = None if self.pairs is None else [self.pairs[i] for i in rows]
        return Rows([self.texts[i] for i in rows], pairs, self.labels[rows])


@dataclass(frozen=True)
class Part:
    """Rows, their origin in a table, and the groups that must not be divided between splits."""

    rows: Rows
    table: Table
    numbers: np.ndarray  # (N,) each row's number in the table
    groups: np.ndarray | None  # (N,) each row's value in the group column

    def take(self, rows: np.ndarray) -> Part:
        groups = None if self.groups is None else self.groups[rows]
        return Part(self.rows.take(rows), self.table, self.numbers[rows], groups)

    def place(self, rows: Sequence[int]) -> str:
        """The file and line of the first of these rows: ``test.csv, lines 3, 8``."""
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
    """How texts and labels are read from a table: the settings of ``[data]`` that concern rows."""

    text: str
    pair: str  # column of the second text; empty: single texts
    group: str  # column; empty: no groups
    labels: LabelScheme
    clean: Callable[[str], str]
    empty: Literal["error", "skip"] = "error"  # what to do with rows without a text or a label
    longest: int = LONGEST  # the most characters of a text; 0: no limit


@dataclass
class LeftOut:
    """How many rows of a table are dropped, and why."""

    reasons: Counter[str] = field(default_factory=Counter)

    def notes(self, table: Table) -> list[str]:
        return [
            f"{table.path}: {number:,} {'row is' if number == 1 else 'rows are'} dropped: {why}"
            for why, number in self.reasons.items()
        ]


def read_rows(table: Table, rules: RowRules, known: str, defects: Defects, left_out: LeftOut) -> Part:
    """The labelled texts of a table, whose text cells are replaced by the cleaned texts.

    known: the words before the list of labels in messages.
    """
    usable = np.ones(len(table), dtype=bool)
    groups = _groups(table, rules.group, defects) if rules.group else None
    labels = read_labels(table, rules.labels, known, defects, skip=rules.empty == "skip")
    texts = read_texts(table, rules.text, rules, defects, usable)
    pairs = read_texts(table, rules.pair, rules, defects, usable) if rules.pair else None
    left_out.reasons["the text is empty (data.empty=skip)"] += int((~usable).sum())
    if labels.ndim == 1:
        others = usable & (labels == OTHER)
        left_out.reasons["the label is not in data.labels (data.other=drop)"] += int(others.sum())
        missing = labels == ABSENT
    else:
        missing = (labels < 0).any(axis=1)
    left_out.reasons["the label is missing (data.empty=skip)"] += int((usable & missing).sum())
    left_out.reasons = +left_out.reasons  # keeps only counts above 0
    usable &= ~missing if labels.ndim == 2 else labels >= 0
    part = Part(Rows(texts, pairs, labels), table, np.arange(len(table)), groups)
    if defects.found or usable.all():  # if there are defects, the caller raises an error
        return part
    return part.take(np.flatnonzero(usable))


def read_texts(table: Table, column: str, rules: RowRules, defects: Defects, usable: np.ndarray) -> list[str]:
    """The column's N texts, cleaned and stripped. They replace the cells of the table, to save memory.

    usable: (N,); with ``empty = "skip"`` a row without text becomes False here; otherwise it is a defect.
    """
    cells = table.columns[column]
    for row, cell in enumerate(cells):
        text = rules.clean(cell) if isinstance(cell, str) else ""
        if cell is not None and not isinstance(cell, str):
            defects.add(table.origin(row), f'the text (column "{column}") is {cell!r}, not text')
        elif not text and rules.empty == "skip":
            usable[row] = False
        elif not text:
            what = f'the text (column "{column}") is empty{" after cleaning" if cell and cell.strip() else ""}'
            defects.add(table.origin(row), f"{what} (data.empty=skip drops such rows)")
        elif not text.isascii() and BROKEN.search(text):
            defects.add(table.origin(row), f'the text (column "{column}") contains an invalid Unicode surrogate')
        elif len(text) > rules.longest > 0:
            what = f'the text (column "{column}") has {len(text):,} characters, more than {rules.longest:,}'
            defects.add(table.origin(row), f"{what}; shorten it, or read it in windows: data.long_texts=windows")
        cells[row] = text
    return cells


def _groups(table: Table, column: str, defects: Defects) -> np.ndarray:
    """(N,) the values of the group column; an empty cell is a defect."""
    groups = np.array([label_text(cell) for cell in table.columns[column]])
    for row in np.flatnonzero(groups == ""):
        defects.add(table.origin(int(row)), f'column "{column}" (data.group) is empty')
    return groups
