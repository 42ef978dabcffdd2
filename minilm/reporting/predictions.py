"""A run's predictions for the test texts, ``predictions.csv``, for reading and for comparing runs row by row.

    row   text               label     predicted   P(negative)   P(neutral)   P(positive)
    17    not bad at all     positive  negative    0.61          0.08         0.31

``row`` is the row's number in its file, from 1; the columns that ``data.keep`` names follow it. With more than 100
labels there are no columns of probabilities. A pair's second text has a column ``pair``. With several labels per text,
label and predicted are JSON lists. The probabilities are those that ``minilm predict`` gives. Texts without labels
(``[zero_shot]``) have no column ``label``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minilm.atomic import atomic
from minilm.data.readers import read_table
from minilm.data.rows import Rows
from minilm.data.tables import Defects
from minilm.errors import UserError
from minilm.evaluation.decisions import Decision, plain_decision
from minilm.reporting.record import Run

PREDICTIONS = "predictions.csv"
ALL_SCORES = 100  # up to this number of labels, each has a column of probabilities
EDITED = "was changed after the run wrote it; train again, or remove the file"


@dataclass(frozen=True)
class Predictions:
    """The predictions of a run for its N test rows, in their order."""

    labels: np.ndarray  # (N,) class numbers; with several labels per text (N, C) of 0 and 1
    predicted: np.ndarray  # the same shape

    @property
    def right(self) -> np.ndarray:
        """(N,) bool: which rows are right in all labels."""
        same = self.labels == self.predicted
        return same if same.ndim == 1 else same.all(axis=1)


def write_predictions(
    folder: Path,
    rows: Rows,
    scores: np.ndarray,
    names: Sequence[str],
    decision: Decision | None = None,
    numbers: np.ndarray | None = None,
    kept: Mapping[str, Sequence[Any]] | None = None,
    labelled: bool = True,
) -> None:
    """Write a run's file from its test rows and their scores (N, C).

    numbers: (N,) of the rows in their file. kept: other columns of the file, N cells each (``data.keep``). labelled:
    whether the rows have labels.
    """
    decision = decision or plain_decision(rows.labels)
    several = decision.kind == "multi"
    probabilities = decision.probabilities(scores)

    def written(label: np.ndarray) -> str:
        if not several:
            return names[int(label)]
        return json.dumps([names[c] for c in range(len(names)) if label[c]], ensure_ascii=False)

    columns: dict[str, Iterable[Any]] = {} if numbers is None else {"row": numbers.tolist()}
    columns |= kept or {}
    columns |= {"text": rows.texts} | ({} if rows.pairs is None else {"pair": rows.pairs})
    columns |= {"label": map(written, rows.labels)} if labelled else {}
    columns["predicted"] = map(written, decision.choose(probabilities))
    if len(names) <= ALL_SCORES:
        written_out = ([f"{p:.6g}" for p in of_label] for of_label in probabilities.T)
        columns |= {f"P({name})": cells for name, cells in zip(names, written_out, strict=True)}
    table = io.StringIO(newline="")
    csv.writer(table).writerows([columns, *zip(*columns.values(), strict=True)])
    with atomic(folder / PREDICTIONS) as file:
        file.write(table.getvalue().encode())


def read_predictions(run: Run) -> Predictions | None:
    """Read a run's predictions; None if it has no such file, or if its texts have no labels.

    Raises UserError if the file was edited.
    """
    path = run.folder / PREDICTIONS
    if not path.is_file() or not run.config.data.labelled:
        return None
    names, defects = run.results.labels, Defects()
    table = read_table(path, {"label", "predicted"}, defects)
    if defects.found or len(table) != run.results.data.sizes["test"]:
        raise UserError(f"{path}: {EDITED}")
    several = run.results.multi_label
    number = {name: i for i, name in enumerate(names)}

    def decided(cell: str) -> np.ndarray:
        if not several:
            return np.array(number[cell])
        return np.isin(np.arange(len(names)), [number[name] for name in json.loads(cell)]).astype(np.int64)

    return Predictions(*(_column(path, table.columns.get(key, []), decided) for key in ("label", "predicted")))


def _column(path: Path, cells: Sequence[str], decided: Callable[[str], np.ndarray]) -> np.ndarray:
    try:
        return np.stack([decided(cell) for cell in cells])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise UserError(f"{path}: {EDITED}") from None
