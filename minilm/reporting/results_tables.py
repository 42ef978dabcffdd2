"""The tables of a run's results: for reports, the terminal and notebooks."""

from __future__ import annotations

from minilm.config import SPLITS
from minilm.reporting.page import Table
from minilm.reporting.results import Adaptation, Results, ZeroShot
from minilm.reporting.tables import count, decimal, metric_columns, metric_name


def metrics_table(results: Results) -> Table:
    """The metrics of every split and baseline, a row each."""
    measured = [(split, metrics) for split in SPLITS if (metrics := results.metrics(split)) is not None]
    for name, baseline in results.baselines.items():
        found = {split: baseline.metrics(split) for split in ("validation", "test")}
        measured += [(f"{name}, {split}", metrics) for split, metrics in found.items() if metrics is not None]
    columns = metric_columns(results.multi_label)
    rows = [[name, *(decimal(metrics[key]) for key in columns)] for name, metrics in measured]
    return Table(["", *map(metric_name, columns)], rows)


def given_table(asked: ZeroShot) -> Table:
    """How many texts without labels get each label."""
    texts = max(1, sum(asked.given.values()))
    rows = [[label, count(number), f"{number / texts:.1%}"] for label, number in asked.given.items()]
    return Table(["given", "texts", "of all given"], rows)


def perplexity_table(adaptation: Adaptation) -> Table:
    """The loss and the perplexity on the validation texts before and after adaptation."""
    loss, perplexity = adaptation.loss, adaptation.perplexity
    rows = [
        ["before", decimal(loss.before), f"{perplexity.before:,.1f}"],
        ["after", decimal(loss.after), f"{perplexity.after:,.1f}"],
    ]
    return Table(["validation texts", "loss", "perplexity"], rows)
