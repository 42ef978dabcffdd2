"""How good is a model on all of the data? Cross-validation: each row is tested once, by a model trained on other folds.

The axis is ``data.fold`` = [1, ..., k], with ``data.folds`` = k. ``out_of_fold.csv`` contains the prediction for every
row by the model that was not trained on it. ``label_issues.csv`` lists the labels that are probably wrong according to
these predictions.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minilm.atomic import atomic
from minilm.evaluation.statistics import folds_interval, mean
from minilm.measures import HIGHER_IS_BETTER
from minilm.reporting.label_issues import (
    LABEL_ISSUES,
    SHOWN,
    issue_blocks,
    issues_of,
    write_label_issues,
)
from minilm.reporting.page import Block, Picture, Section, Table
from minilm.reporting.predictions import PREDICTIONS
from minilm.reporting.results import Results
from minilm.reporting.style import MARK, SMALL, TEST, name_axes, new_figure, save, short
from minilm.reporting.tables import ABSENT, clipped, count, decimal, metric_name
from minilm.studies.finished import FinishedRun
from minilm.studies.line_plots import axis_label
from minilm.studies.plan import Study
from minilm.studies.question import StudyAnswer, StudyQuestion
from minilm.textfiles import read_text

OUT_OF_FOLD = "out_of_fold.csv"
INTERVAL = (
    "The intervals are Student's, corrected for the dependence of the folds (Nadeau and Bengio 2003), as any two "
    "models were trained on mostly the same texts."
)


def _answer(study: Study, runs: Sequence[FinishedRun], figures: Path) -> StudyAnswer:
    metric = study.config.metric
    variants = _by_variant(runs)
    measured: dict[str, list[tuple[FinishedRun, float]]] = {}
    for name, found in variants.items():
        if reached := [(run, value) for run in found if (value := run.value(metric)) is not None]:
            measured[name] = reached
    if not measured:
        return StudyAnswer(f"No run has a {metric_name(metric)}. There is nothing to compare.", [])
    values = {name: [value for _, value in found] for name, found in measured.items()}
    rows = _out_of_fold(variants)
    _write_out_of_fold(study.folder / OUT_OF_FOLD, rows)
    picture = _picture(values, metric, figures / "folds.png")
    blocks: list[Block] = [Picture(picture, f"{metric_name(metric)} of each fold, and its mean with the interval")]
    blocks += [_table(measured, metric), INTERVAL]
    tested = sum(run.size("test") for run in next(iter(variants.values())))
    blocks.append(
        f"The predictions for all {count(tested)} rows, each by the model that was not trained on it: {OUT_OF_FOLD}."
    )
    sections = [Section("Fold by fold", blocks)]
    best = _best(values, metric)
    first = variants[best][0].run.results
    of_best = [row for row in rows if row["variant"] == best]
    if of_best and f"P({first.labels[0]})" in of_best[0]:  # absent with very many labels
        sections.append(_label_issues(study.folder / LABEL_ISSUES, of_best, first))
    return StudyAnswer(_headline(values, metric), sections)


def _by_variant(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """The folds of each variant, in order. If several runs of a fold differ only in their seed, the first is used."""
    found: dict[str, dict[int, FinishedRun]] = {}
    for run in runs:
        found.setdefault(run.name_without("data.fold"), {}).setdefault(run.planned.config.data.fold, run)
    return {name: [folds[fold] for fold in sorted(folds)] for name, folds in found.items()}


def _best(values: dict[str, list[float]], metric: str) -> str:
    """The variant with the best mean."""
    return min(values, key=lambda name: mean(values[name]) * (-1 if HIGHER_IS_BETTER[metric] else 1))


def _headline(values: dict[str, list[float]], metric: str) -> str:
    best = _best(values, metric)
    found = values[best]
    reached = f"a mean {metric_name(metric)} of {decimal(mean(found))} ({_between(found)})"
    text = f"Over {len(found)} folds {best} has {reached}."
    lowest, highest = min(found), max(found)
    text += f" The single folds lie between {decimal(lowest)} and {decimal(highest)}."
    others = [name for name in values if name != best]
    if others:
        text += f" It is the best of {len(values)} variants by the mean."
    return text


def _between(values: Sequence[float]) -> str:
    interval = folds_interval(values)
    if interval is None:
        return "with too few folds, or equal ones, for an interval"
    return f"95% interval {decimal(interval.low)} to {decimal(interval.high)}"


def _table(measured: dict[str, list[tuple[FinishedRun, float]]], metric: str) -> Table:
    folds = sorted({run.planned.config.data.fold for found in measured.values() for run, _ in found})
    header = ["", "mean", "95% interval", *(f"fold {fold}" for fold in folds)]
    rows = []
    for name, found in measured.items():
        by_fold = {run.planned.config.data.fold: value for run, value in found}
        rows.append(_row(name, by_fold, folds))
        baselines = {run.planned.config.data.fold: run.baselines(metric) for run, _ in found}
        for kind in sorted({kind for fitted in baselines.values() for kind in fitted}):
            theirs = {fold: fitted[kind] for fold, fitted in baselines.items() if kind in fitted}
            rows.append(_row(f"{kind} baseline ({name})", theirs, folds))
    unique = list(dict.fromkeys(map(tuple, rows)))
    return Table(header, [list(row) for row in unique])


def _row(name: str, by_fold: dict[int, float], folds: Sequence[int]) -> list[str]:
    values = list(by_fold.values())
    interval = folds_interval(values)
    between = ABSENT if interval is None else f"{decimal(interval.low)} to {decimal(interval.high)}"
    cells = [decimal(by_fold[fold]) if fold in by_fold else ABSENT for fold in folds]
    return [name, decimal(mean(values)), between, *cells]


def _out_of_fold(variants: dict[str, list[FinishedRun]]) -> list[dict[str, str]]:
    """The predictions of all folds, variant by variant, in the order of the rows."""
    rows: list[dict[str, str]] = []
    for name, found in variants.items():
        for run in found:
            file = run.run.folder / PREDICTIONS
            if file.is_file():
                place = {"variant": name, "fold": str(run.planned.config.data.fold)}
                rows += [place | row for row in csv.DictReader(io.StringIO(read_text(file), newline=""))]
    order = {name: i for i, name in enumerate(variants)}
    rows.sort(key=lambda row: (order[row["variant"]], int(row.get("row") or 0)))
    return rows


def _write_out_of_fold(path: Path, rows: list[dict[str, str]]) -> None:
    if not rows:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic(path) as out:
        out.write(table.getvalue().encode())


def _label_issues(path: Path, rows: list[dict[str, str]], first: Results) -> Section:
    """Find the labels that are probably wrong, by the predictions of models that were not trained on them; write a
    file.

    rows: the rows of one variant. first: the results of its first fold.
    """
    names = first.labels
    p = np.array([[float(row[f"P({name})"]) for name in names] for row in rows])
    number = {name: i for i, name in enumerate(names)}
    if first.multi_label:
        labels = np.zeros(p.shape, np.int64)
        for i, row in enumerate(rows):
            labels[i, [number[name] for name in json.loads(row["label"])]] = 1
    else:
        labels = np.array([number[row["label"]] for row in rows])
    issues = issues_of(labels, p, names)
    own = [key for key in rows[0] if key not in ("label", "predicted") and not key.startswith("P(")]
    path.unlink(missing_ok=True)
    if issues:
        write_label_issues(path, issues, {key: [row[key] for row in rows] for key in own})
    shown = [
        [rows[each.index].get("row", ""), clipped(rows[each.index]["text"]), each.label, each.suggested,
         f"{each.score:.3f}"]
        for each in issues[:SHOWN]
    ]  # fmt: skip
    title = "Labels that are probably wrong"
    return Section(title, issue_blocks(shown, len(issues), len(rows), f"rows (by {rows[0]['variant']})"))


def _picture(values: dict[str, list[float]], metric: str, path: Path) -> Path:
    """A dot for each fold, and the mean with its interval."""
    figure = new_figure(8.5, 2.2 + 0.6 * len(values), "Every fold")
    axes = figure.subplots()
    for place, found in enumerate(values.values()):
        axes.plot(found, [place] * len(found), "o", color="white", markeredgecolor=TEST, markeredgewidth=1.5)
        interval = folds_interval(found)
        if interval is not None:
            axes.plot(interval, [place] * 2, color=MARK, linewidth=2)
        axes.plot([mean(found)], [place], "D", color=MARK, markersize=8)
    axes.set_yticks(range(len(values)), [short(name, 30) for name in values], fontsize=SMALL)
    axes.set_ylim(len(values) - 0.5, -0.5)
    name_axes(axes, title="", x=axis_label(metric), y="")
    axes.grid(axis="x", alpha=0.3)
    return save(figure, path, svg=True)


def _fits(study: Study) -> bool:
    return "data.fold" in study.axes


FOLDS = StudyQuestion("folds", _answer, _fits, 'an axis "data.fold", such as [1, 2, 3, 4, 5], and data.folds = 5')
