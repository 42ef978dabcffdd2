"""A finished run, measured again."""

from __future__ import annotations

from pathlib import Path

from minilm.data.sources import load_dataset, load_rows
from minilm.errors import UserError, located
from minilm.evaluation.metrics import Metrics
from minilm.evaluation.predictor import Classifier
from minilm.loading import load_config
from minilm.reporting.page import terminal_table
from minilm.reporting.report import label_table
from minilm.reporting.tables import count, decimal, metric_columns, metric_name, text_table
from minilm.runs.folders import stored_environment
from minilm.runs.results import measure


def evaluate_run(
    run: Path, split: str = "test", file: Path | None = None, device: str = "auto"
) -> tuple[Metrics, list[str]]:
    """The metrics of a run on a split of its data, or on a file with the same columns; and the labels' names.

    Raises UserError if the folder is no finished run, or the data are not those it was trained on.
    """
    path = run / "config.toml"
    if not path.exists():
        raise UserError(f"{run}: not a run's folder; give one that `minilm train` made, such as runs/scratch-sample")
    section, classifier = load_config(path).data, Classifier.load(run, device)
    if file is not None:
        rows = load_rows(file, section, classifier.labels)
    else:
        with located(str(path)):
            data = load_dataset(section)
        if data.fingerprint != stored_environment(run).data.fingerprint:
            raise UserError(f"{run}: its data have changed since it was trained; name a file to measure it on (--file)")
        rows = getattr(data, split)
    return measure(rows.labels, classifier.scores_of_rows(rows), classifier.reading.threshold), classifier.labels


def evaluation_text(metrics: Metrics, labels: list[str]) -> str:
    """The metrics for the terminal: of all texts, of each label, and the confusion matrix."""
    columns = metric_columns(metrics.multi_label)
    whole = text_table([*map(metric_name, columns)], [[decimal(metrics[key]) for key in columns]], left=0)
    tables = [whole, terminal_table(label_table(metrics, labels))]
    if metrics.confusion is not None:
        taken = [[name, *map(count, row)] for name, row in zip(labels, metrics.confusion, strict=True)]
        tables.append(text_table(("is \\ taken for", *labels), taken))
    return "\n\n".join(tables)
