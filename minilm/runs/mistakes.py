"""The mistakes that a run's report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm.data.rows import Rows
from minilm.evaluation.confusions import most_confused
from minilm.evaluation.decisions import Decision
from minilm.evaluation.mistakes import surest_mistakes, texts_of_pair, wrongness
from minilm.reporting.label_issues import SHOWN, Issue
from minilm.reporting.results import ConfusedTexts, LabelIssueText, Mistake, Mistakes
from minilm.reporting.tables import clipped

SUREST, PAIRS, EACH = 10, 5, 3  # the most mistakes, confused pairs, and texts of each pair, that are shown


@dataclass(frozen=True)
class HeldOut:
    """The texts on which a report evaluates the model."""

    split: str
    rows: Rows
    numbers: np.ndarray  # (N,) the numbers of the rows in their file, from 1
    kept: Mapping[str, Sequence[Any]]  # the columns of data.keep

    def text(self, i: int) -> str:
        """The i-th text, or both texts of a pair."""
        return self.rows.texts[i] if self.rows.pairs is None else f"{self.rows.texts[i]} / {self.rows.pairs[i]}"

    @property
    def columns(self) -> dict[str, Sequence[Any]]:
        """The columns that identify a row in a file: its number, the columns of data.keep, and its text."""
        pairs = {} if self.rows.pairs is None else {"pair": self.rows.pairs}
        return {"row": self.numbers.tolist(), **self.kept, "text": self.rows.texts, **pairs}


def describe_mistakes(
    held_out: HeldOut, scores: np.ndarray, names: Sequence[str], decision: Decision, issues: Sequence[Issue]
) -> Mistakes:
    """The mistakes of a split for the report. scores (N, C); issues: labels that are probably wrong."""
    labels, p = held_out.rows.labels, decision.probabilities(scores)
    predicted = decision.choose(p)
    wrong = wrongness(labels, predicted, p)

    def mistake(i: int) -> Mistake:
        found = _names(labels[i], names), _names(predicted[i], names)
        return Mistake(int(held_out.numbers[i]), clipped(held_out.text(i)), *found, float(wrong[i]))

    confused = []
    for pair in most_confused(labels, predicted, PAIRS) if labels.ndim == 1 else ():
        texts = map(mistake, texts_of_pair(pair, labels, predicted, p, EACH))
        confused.append(ConfusedTexts(names[pair.truth], names[pair.predicted], pair.texts, list(texts)))
    return Mistakes(
        split=held_out.split,
        surest=list(map(mistake, surest_mistakes(labels, predicted, p, SUREST))),
        confused=confused,
        label_issues=[
            LabelIssueText(
                int(held_out.numbers[each.index]), clipped(held_out.text(each.index)), each.label, each.suggested,
                each.score,
            )
            for each in issues[:SHOWN]
        ],
        all_label_issues=len(issues),
    )  # fmt: skip


def _names(value: Any, names: Sequence[str]) -> str | list[str]:
    return names[int(value)] if np.ndim(value) == 0 else [names[int(i)] for i in np.flatnonzero(value)]
