"""Sections that the pages of several questions have: an overview figure, and a description of the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minilm.config import SPLITS
from minilm.reporting.group_plots import dashboard
from minilm.reporting.groups import Group
from minilm.reporting.page import Block, Folded, Picture, Section, Table
from minilm.reporting.record import Run
from minilm.reporting.tables import ABSENT, count
from minilm.studies.finished import FinishedRun

MANY_LABELS = 20  # with more labels, the table is folded


def at_a_glance(groups: Sequence[Group], metric: str, figures: Path) -> list[Section]:
    """Quality, learning curves, time and size of all variants in one picture."""
    split = "validation" if metric == "perplexity" else "test"
    picture = dashboard(groups, metric, figures / "dashboard.png", split=split)
    return [Section("At a glance", [Picture(picture, "Quality, learning curves, training time and size of each")])]


def data_section(runs: Sequence[FinishedRun]) -> Section:
    """The data sets of a study: their sizes, how often each label occurs, and how long the texts are."""
    first_of = {finished.run.results.data.name: finished.run for finished in reversed(runs)}
    sizes = [
        [name, *(count(run.results.data.sizes[split]) for split in SPLITS)] for name, run in reversed(first_of.items())
    ]
    blocks: list[Block] = [Table(["data set", *(f"{split} texts" for split in SPLITS)], sizes)]
    for name, run in reversed(first_of.items()):
        blocks += _label_shares(name, run)
    return Section("The data", [*blocks, *_lengths(runs)])


def _label_shares(name: str, run: Run) -> list[Block]:
    """How many texts of each split have each label."""
    measured = [(split, metrics) for split in SPLITS if (metrics := run.results.metrics(split)) is not None]
    if not measured:
        return []
    rows = []
    for i, label in enumerate(run.results.labels):
        cells = []
        for split, metrics in measured:
            several = metrics.multi_label
            texts = run.results.data.sizes[split] if several else sum(row.support for row in metrics.by_label)
            cells.append(f"{count(metrics.by_label[i].support)} ({metrics.by_label[i].support / max(texts, 1):.1%})")
        rows.append([label, *cells])
    note = f"Texts of {name} that have each label, in the first run; training texts include those that were added."
    table = Table(["label", *(split for split, _ in measured)], rows, note=note)
    return [table] if len(rows) <= MANY_LABELS else [Folded(f"How often each of {len(rows)} labels occurs", table)]


def _lengths(runs: Sequence[FinishedRun]) -> list[Block]:
    """How long the training texts are: in characters, and in the tokens of each tokenizer; equal rows once."""
    rows: dict[tuple[str, ...], None] = {}
    for finished in runs:
        lengths, name = finished.run.results.lengths, finished.run.results.data.name
        if lengths is None:
            continue
        if (found := lengths.characters) is not None:
            cells = [f"{found.mean:.1f}", f"{found.median:.0f}", f"{found.p95:.0f}", count(found.longest), ABSENT]
            rows[name, "characters", *cells] = None
        cells = [f"{lengths.mean:.1f}", f"{lengths.median:.0f}", f"{lengths.p95:.0f}", count(lengths.longest)]
        cut = f"{count(lengths.truncated)} (at {count(lengths.max_tokens)})"
        rows[name, f"tokens of {finished.run.model}", *cells, cut] = None
    header = ["data set", "training texts in", "mean", "median", "95% up to", "longest", "cut"]
    table = Table(header, [list(row) for row in rows], left=2)
    if len(rows) > MANY_LABELS:
        return [Folded("How long the training texts are", table)]
    return [table] if rows else []
