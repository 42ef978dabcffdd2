"""A finished run, measured again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from minilm.config import load_config
from minilm.data.sources import load_dataset, load_rows
from minilm.errors import UserError
from minilm.evaluation.predictor import Classifier
from minilm.reporting.tables import count, decimal, metric_columns, metric_name, text_table
from minilm.runs.results import measure


def evaluate_run(
    run: Path, split: str = "test", file: Path | None = None, device: str = "auto"
) -> tuple[dict[str, Any], list[str]]:
    """The metrics of a run on a split of its data, or on a file with the same columns; and the labels' names.

    Raises UserError where the folder is no finished run, or the file does not fit its data.
    """
    if not (run / "config.toml").exists():
        raise UserError(f"{run}: not a run's folder; give one that `minilm train` made, such as runs/scratch-sample")
    classifier = Classifier.load(run, device)
    section = load_config(run / "config.toml").data
    if file is None:
        rows = getattr(load_dataset(section, str(run / "config.toml")), split)
    else:
        rows = load_rows(file, replace(section, labels=classifier.labels))
    texts = rows.texts if rows.pairs is None else list(zip(rows.texts, rows.pairs, strict=True))
    return measure(rows.labels, classifier.scores(texts), classifier.threshold), classifier.labels


def evaluation_text(metrics: dict[str, Any], labels: list[str]) -> str:
    """The metrics for the terminal: all texts in a line, each label in one, and which were taken for which."""
    columns = metric_columns(metrics)
    parts = [text_table([metric_name(key) for key in columns], [[decimal(metrics[key]) for key in columns]], left=0)]
    per_label = metrics.get("per_class") or metrics["per_label"]
    rows = [
        [name, *(decimal(row[key]) for key in ("precision", "recall", "f1")), count(row["support"])]
        for name, row in zip(labels, per_label, strict=True)
    ]
    parts.append(text_table(("label", "precision", "recall", "F1", "texts"), rows))
    if "confusion" in metrics:
        taken = [[name, *map(count, row)] for name, row in zip(labels, metrics["confusion"], strict=True)]
        parts.append(text_table(("is \\ taken for", *labels), taken))
    return "\n\n".join(parts)
