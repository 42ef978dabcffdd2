"""Finished runs, measured again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from minilm.data.sources import load_dataset, load_rows
from minilm.errors import UserError, located, shortened
from minilm.evaluation.ensemble import USUAL, Wishes, apply_wishes, load_predictor
from minilm.evaluation.metrics import Metrics
from minilm.loading import load_config
from minilm.measures import RANKING_METRICS
from minilm.reporting.page import terminal_table
from minilm.reporting.report import label_table
from minilm.reporting.tables import count, decimal, metric_columns, metric_name, text_table
from minilm.runs.folders import stored_environment
from minilm.runs.results import measure
from minilm.training.console import say

ROWS, PAIRS = 40, 20  # labels, and confused pairs, that the terminal shows


def evaluate_runs(
    runs: Sequence[Path],
    split: str = "test",
    file: Path | None = None,
    device: str = "auto",
    precision: str = "",
    wishes: Wishes = USUAL,
) -> tuple[Metrics, list[str]]:
    """The metrics of a run on a split of its data, or on a file with the same columns; and the labels' names.

    Of several runs, those of their ensemble. precision: as ``devices.runtime`` takes it; empty: that of training.
    Raises UserError if a folder is no finished run, or the data are not those it was trained on.
    """
    for run in runs:
        if not (run / "config.toml").exists():
            example = "such as runs/scratch-sample"
            raise UserError(f"{run}: not a run's folder; give one that `minilm train` made, {example}")
    path = runs[0] / "config.toml"
    section, predictor = load_config(path).data, load_predictor(runs, device, precision)
    for line in apply_wishes(predictor, wishes):
        say(line)
    if file is not None:
        rows = load_rows(file, section, predictor.labels)
    else:
        with located(str(path)):
            data = load_dataset(section)
        for run in runs:
            _check_data(run, runs[0], data.fingerprint)
        rows = getattr(data, split)
        if not len(rows):
            raise UserError(
                f"{runs[0]}: has no {split} split (data.test_fraction = 0); name a split (--split) or a file"
            )
    return measure(rows.labels, predictor.scores_of_rows(rows), predictor.decision), predictor.labels


def _check_data(run: Path, first: Path, fingerprint: str) -> None:
    """Raise UserError unless the first run's data, as they are, are those that a run was trained on."""
    trained_on = stored_environment(run).data.fingerprint
    if trained_on == fingerprint:
        return
    if trained_on != stored_environment(first).data.fingerprint:
        raise UserError(
            f"{run}: was trained on other texts than {first}, so what is a test for one may have taught the other; "
            "name a file to measure both on (--file)"
        )
    raise UserError(f"{run}: its data have changed since it was trained; name a file to measure it on (--file)")


def evaluation_text(metrics: Metrics, labels: list[str]) -> str:
    """The metrics for the terminal: of all texts, of each label, and the confusion matrix."""
    ranking = [key for key in RANKING_METRICS if metrics.get(key) is not None]
    columns = [*metric_columns(metrics.multi_label), *ranking]
    whole = text_table([*map(metric_name, columns)], [[decimal(metrics[key]) for key in columns]], left=0)
    names = [shortened(name) for name in labels]
    by_label = label_table(metrics, names)
    tables = [whole, terminal_table(replace(by_label, rows=by_label.rows[:ROWS]))]
    if len(labels) > ROWS:
        tables[-1] += f"\n({len(labels) - ROWS:,} more labels: --json has all)"
    if metrics.multi_label:
        return "\n\n".join(tables)
    width = shutil.get_terminal_size().columns
    if metrics.confusion is not None:
        taken = [[name, *map(count, row)] for name, row in zip(names, metrics.confusion, strict=True)]
        matrix = text_table(("is \\ taken for", *names), taken)
        if max(map(len, matrix.splitlines())) <= width:
            return "\n\n".join([*tables, matrix])
    pairs = [[names[pair.truth], names[pair.predicted], count(pair.texts)] for pair in metrics.most_confused()[:PAIRS]]
    return "\n\n".join([*tables, text_table(("is", "taken for", "texts"), pairs, left=2)])
