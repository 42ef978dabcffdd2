"""Measure a classifier on labelled texts: on scores that are there, on a file, or on data in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from minilm.config import DataSection
from minilm.data.other_files import load_rows, load_rows_matched, load_scores
from minilm.data.rows import Rows
from minilm.data.tables import Table
from minilm.errors import UserError
from minilm.evaluation.decisions import Decision, plain_decision
from minilm.evaluation.metrics import Metrics, classification_metrics, multilabel_metrics
from minilm.evaluation.reading import Reading
from minilm.evaluation.regression import ScoreMetrics, score_metrics

MOST_LABELS = 1000  # with more labels, the linear baseline and ranking metrics would be too slow
SHOWN = 40  # matched labels that a message names


class Measurable(Protocol):
    """What a measurement needs of a classifier; ``Predictor`` has it."""

    name: str
    labels: list[str]
    reading: Reading
    decision: Decision

    @property
    def multi_label(self) -> bool: ...

    def scores_of_rows(self, rows: Rows) -> np.ndarray: ...

    def scores_and_plain(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]: ...


def measure(
    labels: np.ndarray,
    scores: np.ndarray,
    decision: Decision | None = None,
    ranking: bool | None = None,
    plain: np.ndarray | None = None,
) -> Metrics:
    """The metrics of scores (N, C) for labels (N,), or (N, C) with several labels per text.

    decision: determines the labels that the texts get. The loss is computed without a temperature.
    ranking: whether to compute ROC AUC and average precision; None: unless there are very many labels.
    plain: scores in which no temperature is, for the loss, if ``scores`` contain one; None: they do not.
    """
    if plain is not None:
        return replace(measure(labels, scores, decision, ranking), loss=measure(labels, plain, ranking=False).loss)
    decision = decision or plain_decision(labels)
    ranking = scores.shape[1] <= MOST_LABELS if ranking is None else ranking
    if decision.kind == "multi":
        given = decision.choose(decision.probabilities(scores))
        return multilabel_metrics(labels, scores, given=given, ranking=ranking)
    chosen = decision.choose(decision.probabilities(scores)) if decision.has_threshold else None
    return classification_metrics(labels, scores, given=chosen, ranking=ranking)


def measure_on(
    predictor: Measurable, data: Path | Table, section: DataSection, *, matched: bool
) -> tuple[Metrics | ScoreMetrics, list[str]]:
    """The metrics on the labelled rows of a file or a table, whose columns ``section`` names; and notes.

    The notes are those of ``Dataset.notes``: guesses about the file, and rows that are dropped.

    matched: whether the labels may have other names than the classifier's, because it was trained elsewhere. A note
        says how they were matched, unless all names are equal.

    Raises UserError if rows cannot be read, if labels are unknown, or if only the data or only the classifier has
    several labels per text.
    """
    section, notes = replace(section, clean=predictor.reading.clean), list[str]()
    if predictor.decision.kind == "score":
        return _measure_scores(predictor, data, section, notes), notes
    _check_several(predictor, section)
    taken: dict[str, str] = {}
    if matched:
        rows, taken = load_rows_matched(data, section, predictor.labels, notes)
    else:
        rows = load_rows(data, section, predictor.labels, notes)
    metrics = measure_rows(predictor, rows)
    other = [f"{written} = {name}" for written, name in taken.items() if written != name]
    shown = ", ".join(other[:SHOWN]) + (", ..." if len(other) > SHOWN else "")
    if other:
        notes.append(f"{data.path if isinstance(data, Table) else data}: its labels match the model's: {shown}")
    return metrics, notes


def measure_rows(predictor: Measurable, rows: Rows) -> Metrics:
    """The metrics on labelled rows. The loss is that of the probabilities without a temperature, also of an ensemble's
    members, so that it can be compared between a model and an ensemble, and with the losses in reports."""
    scores, plain = predictor.scores_and_plain(rows)
    return measure(rows.labels, scores, predictor.decision, plain=None if plain is scores else plain)


def _check_several(predictor: Measurable, section: DataSection) -> None:
    """Raise UserError if only the data or only the classifier has several labels per text."""
    if predictor.multi_label and not section.multi_label:
        raise UserError(
            f"{predictor.name}: gives several labels per text; name the file's columns, one per label "
            '(data.label_columns=["...", "..."]) or give the separator of its cells (data.label_separator=",")'
        )
    if section.multi_label and not predictor.multi_label:
        key = "data.label_columns" if section.label_columns else "data.label_separator"
        raise UserError(f"{predictor.name}: gives one label per text, so remove {key}")


def _measure_scores(
    predictor: Measurable, data: Path | Table, section: DataSection, notes: list[str]
) -> ScoreMetrics:
    """Metrics of a model's scores against a column of numbers."""
    if len(predictor.labels) > 1:
        scores = ", ".join(predictor.labels)
        raise UserError(f"{predictor.name}: gives {len(predictor.labels)} scores ({scores}); a file can have only one")
    if section.multi_label:
        raise UserError(f"{predictor.name}: gives one score per text; name the column of the true values (data.label)")
    rows, values = load_scores(data, section, notes)
    answers = predictor.decision.probabilities(predictor.scores_of_rows(rows))  # (N, 1)
    return score_metrics(values, answers[:, 0])
