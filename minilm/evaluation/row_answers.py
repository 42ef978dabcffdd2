"""Predictions for the rows of a table, as cells that are added to each row.

    predicted      the label, or a list with several labels per text; "unsure" if its probability is too low
    probability    the probability of that label, or of each of them
    P(label)       with ``everything``, the probability of each label

A model that gives a score has a column for each of its outputs instead.

If a row has no text or cannot be read, its added cells are empty. Such rows are counted and do not stop the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minilm.data.decoding import BROKEN
from minilm.data.row_stream import Row
from minilm.data.row_writers import Kind
from minilm.data.rows import LONGEST
from minilm.data.tokenization import NoTokens
from minilm.errors import UserError
from minilm.evaluation.predictor import Predictor

UNSURE = "unsure"
NAMED = 100  # the most unusable rows that the report names


@dataclass
class Tally:
    """Counts of the rows that were read, and of those without an answer."""

    rows: int = 0
    empty: int = 0  # rows without a text
    unsure: int = 0
    failed: int = 0  # rows that cannot be used
    failures: list[str] = field(default_factory=list)  # messages about the first of these


class RowAnswers:
    """Classifies rows in chunks."""

    def __init__(
        self, predictor: Predictor, columns: Sequence[str], *, everything: bool = False, strict: bool = False
    ) -> None:
        """columns: the column of the texts, or two columns for pairs. everything: whether to add a column for each
        label. strict: whether a row without an answer is an error."""
        if UNSURE in predictor.labels and predictor.decision.unsure_below:
            raise UserError(f'{predictor.name}: has a label "{UNSURE}", so "{UNSURE}" answers would be ambiguous')
        self.predictor, self.columns = predictor, list(columns)[: 1 + bool(predictor.reading.pairs)]
        self.everything, self.strict, self.tally = everything, strict, Tally()
        self.added = self._added()

    def _added(self) -> dict[str, Kind]:
        """The columns that follow a row's own, and what their cells are."""
        several, labels = self.predictor.multi_label, self.predictor.labels
        if self.predictor.decision.kind == "score":
            return dict.fromkeys(labels, "number")
        added: dict[str, Kind] = {
            "predicted": "texts" if several else "text",
            "probability": "numbers" if several else "number",
        }
        return added | dict.fromkeys((f"P({label})" for label in labels if self.everything), "number")

    def of(self, window: Sequence[Row]) -> list[list[Any]]:
        """The added cells of each row; None for a row without an answer.

        With ``strict``, raises UserError for the first row without an answer.
        """
        usable: dict[int, list[str]] = {}  # place in the window -> text, or pair
        for i, row in enumerate(window):
            texts, defect = self._texts_of(row)
            if defect:
                self._fail(row, defect)
            elif all(texts):
                usable[i] = texts
            elif self.strict:
                raise UserError(f"{row.origin}: the text is empty (--strict)")
            else:
                self.tally.empty += 1
        try:
            scores = self._scores(usable)
        except NoTokens as error:
            places = list(usable)
            for i in error.rows:
                self._fail(window[places[i]], "the tokenizer finds no token in its text")
                del usable[places[i]]
            scores = self._scores(usable)
        self.tally.rows += len(window)
        answers = dict(zip(usable, self._cells(scores), strict=True))
        nothing = [None] * len(self.added)
        return [answers.get(i, nothing) for i in range(len(window))]

    def _scores(self, usable: dict[int, list[str]]) -> np.ndarray:
        pairs = [texts[1] for texts in usable.values()] if len(self.columns) > 1 else None
        return self.predictor.scores_of_clean_texts([texts[0] for texts in usable.values()], pairs)

    def _texts_of(self, row: Row) -> tuple[list[str], str]:
        """The cleaned text or texts of a row, and why they cannot be used; an empty text is not an error here."""
        if row.defect:
            return [], row.defect
        found = []
        for name in self.columns:
            cell = row.cell(name)
            where = f'the text (column "{name}")'
            if cell is not None and not isinstance(cell, str):
                return [], f"{where} is {cell!r}, not text"
            if cell and not cell.isascii() and BROKEN.search(cell):
                return [], f"{where} contains an invalid Unicode surrogate, or bytes that cannot be decoded"
            if cell and len(cell) > LONGEST and self.predictor.reading.long_texts != "windows":
                return [], f"{where} has {len(cell):,} characters, more than {LONGEST:,}"
            found.append(self.predictor.clean(cell or ""))
        return found, ""

    def _cells(self, scores: np.ndarray) -> Iterator[list[Any]]:
        """Scores (N, C) -> the added cells of each text."""
        decision, labels = self.predictor.decision, self.predictor.labels
        p = decision.probabilities(scores)
        if decision.kind == "score":
            yield from ([_six_digits(value) for value in row] for row in p)
            return
        chosen, unsure = decision.choose(p), decision.is_unsure(p)
        self.tally.unsure += int(unsure.sum())
        for row, given, doubtful in zip(p, chosen, unsure, strict=True):
            if self.predictor.multi_label:
                numbers = np.flatnonzero(given)
                cells: list[Any] = [[labels[c] for c in numbers], [_six_digits(row[c]) for c in numbers]]
            else:
                cells = [UNSURE if doubtful else labels[given], _six_digits(row[given])]
            yield cells + ([_six_digits(value) for value in row] if self.everything else [])

    def _fail(self, row: Row, what: str) -> None:
        if self.strict:
            raise UserError(f"{row.origin}: {what} (--strict)")
        self.tally.failed += 1
        if len(self.tally.failures) < NAMED:
            self.tally.failures.append(f"{row.origin}: {what}")

    def report(self) -> list[str]:
        """The final messages: about rows without an answer, and texts that were cut."""
        tally, lines = self.tally, [*self.tally.failures]
        if tally.failed > len(lines):
            lines.append(f"and {tally.failed - len(lines):,} more that cannot be used")
        counts = {
            "cannot be used": tally.failed,
            "without a text": tally.empty,
            f"unsure, below a probability of {self.predictor.decision.unsure_below:.4g}": tally.unsure,
        }
        found = [f"{number:,} {what}" for what, number in counts.items() if number]
        lines.append(f"{tally.rows:,} rows{': ' + ', '.join(found) if found else ''}")
        message = self.predictor.cut_message()
        return [*lines, message] if message else lines


def _six_digits(value: float) -> float:
    """A probability, rounded as in predictions.csv."""
    return float(f"{value:.6g}")
