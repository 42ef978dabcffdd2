"""``minilm evaluate``: metrics of a finished run, or of any classifier on a labelled file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from minilm.data.rows import Rows
from minilm.data.sources import load_dataset
from minilm.errors import UserError, located, shortened
from minilm.evaluation.ensemble import load_predictor
from minilm.evaluation.measuring import measure_on, measure_rows
from minilm.evaluation.metrics import Metrics
from minilm.evaluation.reading import columns_of
from minilm.evaluation.regression import ScoreMetrics
from minilm.evaluation.wishes import USUAL, Wishes, apply_wishes
from minilm.loading import change_data, load_config
from minilm.measures import RANKING_METRICS
from minilm.reporting.page import terminal_table
from minilm.reporting.report import label_table
from minilm.reporting.tables import count, decimal, metric_columns, metric_name, text_table
from minilm.runs.folders import stored_environment
from minilm.training.console import say

LABEL_COLUMN = "data.label=label"
ROWS, PAIRS = 40, 20  # the most labels and confused pairs that the terminal shows


def evaluate_runs(
    runs: Sequence[str | Path],
    split: str | None = None,
    file: Path | None = None,
    device: str = "auto",
    precision: str = "",
    wishes: Wishes = USUAL,
    changes: Sequence[str] = (),
) -> tuple[Metrics | ScoreMetrics, list[str]]:
    """The metrics of a run on a split of its data (None: test), or of any classifier on a file; and the labels' names.

    Several classifiers are evaluated as an ensemble.

    Args:
        runs: runs' folders; or models' folders, catalogue names or Hub ids.
        split: of the run's data; None: test.
        file: labelled texts, with the columns of the first run's data, or of ``DataSection``'s defaults.
        device: the device to compute on.
        precision: as in ``devices.runtime``; empty: that of training.
        wishes: how labels are chosen, if not as in training.
        changes: ``data.key=value``, for other columns of the file.

    Raises:
        UserError: there is no such classifier, a run's data have changed since training, or a file's labels cannot be
            matched with the model's.
    """
    finished = all((Path(run) / "config.toml").exists() for run in runs)
    if file is None:
        _check_without_file(runs, changes)
    predictor = load_predictor(runs, device, precision)
    for line in apply_wishes(predictor, wishes):
        say(line)
    if file is None:
        rows = _rows_of_split([Path(run) for run in runs], split or "test")
    else:
        section, _ = columns_of(Path(runs[0]), bool(predictor.reading.pairs))
        section = change_data(section, changes)
        if not section.labelled:
            raise UserError(f"{runs[0]}: its texts have no labels; name the file's column of labels: {LABEL_COLUMN}")
        metrics, notes = measure_on(predictor, file, section, matched=not finished)
        say(*notes)
        return metrics, predictor.labels
    return measure_rows(predictor, rows), predictor.labels


def _check_without_file(runs: Sequence[str | Path], changes: Sequence[str]) -> None:
    """Raise UserError if the evaluation needs a file."""
    if changes:
        raise UserError(f"{changes[0]}: names a column of a file; give the file (--file)")
    for run in runs:
        if not (Path(run) / "config.toml").exists():
            raise UserError(f"{run}: not a run's folder, so it has no data; give a labelled file (--file)")


def _rows_of_split(runs: Sequence[Path], split: str) -> Rows:
    """A split of the first run's data. Raises UserError if a run was trained on other data."""
    path = runs[0] / "config.toml"
    with located(str(path)):
        section = load_config(path).data
        if not section.labelled:
            raise UserError(f"its texts have no labels; give a labelled file: --file FILE {LABEL_COLUMN}")
        data = load_dataset(section)
    for run in runs:
        _check_data(run, runs[0], data.fingerprint)
    rows: Rows = getattr(data, split)
    if not len(rows):
        raise UserError(f"{runs[0]}: has no {split} split (data.test_fraction = 0); give another --split, or --file")
    return rows


def _check_data(run: Path, first: Path, fingerprint: str) -> None:
    """Raise UserError if a run was not trained on the current data of the first run."""
    trained_on = stored_environment(run).data.fingerprint
    if trained_on == fingerprint:
        return
    if trained_on != stored_environment(first).data.fingerprint:
        raise UserError(
            f"{run}: was not trained on the same texts as {first}, and may have been trained on its test texts; "
            "give a file to evaluate both on (--file)"
        )
    raise UserError(f"{run}: its data have changed since it was trained; give a file to evaluate it on (--file)")


def evaluation_text(metrics: Metrics | ScoreMetrics, labels: list[str]) -> str:
    """The metrics for the terminal: overall, per label, and the confusion matrix; or those of a score."""
    if isinstance(metrics, ScoreMetrics):
        names = [name.replace("_", " ") for name in asdict(metrics)]
        numbers = (metrics.pearson, metrics.spearman, metrics.mean_squared_error, metrics.mean_absolute_error)
        return text_table(["", *names], [[labels[0], count(metrics.texts), *map(decimal, numbers)]])
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
