"""A finished run, measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minilm.data.sources import load_dataset, load_rows
from minilm.errors import UserError, located
from minilm.evaluation.predictor import Classifier
from minilm.loading import load_config
from minilm.reporting.tables import count, decimal, label_rows, metric_columns, metric_name, text_table
from minilm.runs.folders import stored_fingerprint
from minilm.runs.results import measure


def evaluate_run(
    run: Path, split: str = "test", file: Path | None = None, device: str = "auto"
) -> tuple[dict[str, Any], list[str]]:
    """The metrics of a run on a split of its data, or on a file with the same columns; and the labels' names.

    Raises UserError where the folder is no finished run, or the data are not those it was trained on.
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
        if data.fingerprint != stored_fingerprint(run):
            raise UserError(f"{run}: its data have changed since it was trained; name a file to measure it on (--file)")
        rows = getattr(data, split)
    return measure(rows.labels, classifier.scores_of_rows(rows), classifier.reading.threshold), classifier.labels


def evaluation_text(metrics: dict[str, Any], labels: list[str]) -> str:
    """The metrics for the terminal: of all texts, of each label, and which were taken for which."""
    columns = metric_columns(metrics)
    whole = text_table([*map(metric_name, columns)], [[decimal(metrics[key]) for key in columns]], left=0)
    tables = [whole, text_table(*label_rows(metrics, labels))]
    if "confusion" in metrics:
        taken = [[name, *map(count, row)] for name, row in zip(labels, metrics["confusion"], strict=True)]
        tables.append(text_table(("is \\ taken for", *labels), taken))
    return "\n\n".join(tables)
