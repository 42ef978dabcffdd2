"""``results.csv``: a row for every run of a study, with its value on every axis and all its metrics and times.

    run         state     variant  seed  train.lr  test_accuracy  validation_accuracy  train_seconds  ...
    full_seed-1 finished  full     1     5e-05     0.9070         0.8833               61.2

It is meant for spreadsheets and statistics programs. A cell is empty if a run has no such value; failed runs have a row
too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from minilm.measures import HIGHER_IS_BETTER
from minilm.reporting.groups import costs_of
from minilm.schema import shown as as_toml
from minilm.studies.finished import FinishedRun
from minilm.studies.plan import PlannedRun, Study

_SPLITS = ("test", "validation", "train")


def results_csv(study: Study, finished: Sequence[FinishedRun], failed: Mapping[str, str]) -> str:
    """The table as CSV text, its rows in the order of the study."""
    by_name = {run.planned.name: run for run in finished}
    rows = []
    for planned in study.runs:
        row = _place(study, planned)
        if planned.name in by_name:
            row |= {"state": "finished", **_numbers(by_name[planned.name])}
        elif planned.name in failed:
            row |= {"state": "failed", "failure": failed[planned.name]}
        rows.append(row)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if "failure" in columns:  # long texts come last
        columns.append(columns.pop(columns.index("failure")))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _place(study: Study, planned: PlannedRun) -> dict[str, str]:
    """The columns that identify a run."""
    row = {"run": planned.name, "state": "", "variant": planned.variant, "seed": str(planned.config.seed)}
    values = {key: planned.point.get(key) for key in study.axes}
    there = {key: value for key, value in values.items() if value is not None}
    return row | {key: value if isinstance(value, str) else as_toml(value) for key, value in there.items()}


def _numbers(finished: FinishedRun) -> dict[str, str]:
    """The metrics and times of a run, by column."""
    run, found = finished.run, {"model": finished.run.model}
    numbers: dict[str, float | None] = {}
    for split in _SPLITS:
        numbers |= {f"{split}_{metric}": run.metric(metric, split) for metric in HIGHER_IS_BETTER}
    for metric in HIGHER_IS_BETTER:
        numbers |= {f"{kind}_baseline_test_{metric}": value for kind, value in finished.baselines(metric).items()}
    costs = costs_of(run)
    numbers |= {
        "parameters": costs.total,
        "trained_parameters": costs.trained,
        "train_seconds": costs.seconds,
        "tokens_per_second": costs.tokens_per_second,
        "inference_seconds_per_100_texts": costs.inference,
        **{f"{split}_texts": finished.size(split) for split in _SPLITS},
    }
    return found | {key: repr(value) for key, value in numbers.items() if value is not None}
