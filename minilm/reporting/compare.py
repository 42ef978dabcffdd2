"""Compare runs: their models, metrics and costs, as text, as Markdown and as an HTML page.

Runs that differ only in their seed are one row, with mean and standard deviation.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minilm.errors import UserError
from minilm.evaluation.statistics import ALPHA, holm, mcnemar, mean
from minilm.measures import HIGHER_IS_BETTER
from minilm.reporting.groups import Group, costs_of, group_runs, unique_names
from minilm.reporting.over_seeds import (
    Tested,
    compare_all,
    corrected_for,
    interval_over,
    shown_p,
    significance,
    tested,
    versus_table,
    with_spread,
)
from minilm.reporting.page import Block, Page, Picture, Section, Table, html, markdown_block, terminal_table
from minilm.reporting.predictions import EDITED, PREDICTIONS, read_predictions
from minilm.reporting.record import Run, read_run
from minilm.reporting.tables import (
    count,
    duration,
    join_words,
    metric_columns,
    metric_name,
    p_value,
    short_count,
)
from minilm.terminal import printable

NEW_TEXTS = "What each answers to new texts"  # a section


def load_groups(paths: Iterable[Path]) -> list[Group]:
    """The runs in these folders, in groups of runs that differ only in their seed. A repeated folder counts once.

    Raises UserError if a folder is not the folder of a run, or if the run has not finished.
    """
    runs = [read_run(path) for path in {Path(path).resolve(): Path(path) for path in paths}.values()]
    if not runs:
        raise UserError("nothing to compare; give one or more folders of runs, such as runs/*")
    return group_runs(runs)


def compare_text(groups: Sequence[Group], new_texts: Sequence[Table] = ()) -> str:
    """Tables for the terminal, with one row per group: the metrics and the costs. new_texts: ``answers_to_file``."""
    tables = [*quality_tables(groups), *row_tables(groups), cost_table(groups), *new_texts]
    return "\n\n".join([*map(terminal_table, tables), *map(printable, notes(groups))])


def compare_markdown(groups: Sequence[Group], new_texts: Sequence[Table] = ()) -> str:
    """The same tables in Markdown."""
    tables = [*quality_tables(groups), *row_tables(groups), cost_table(groups), *new_texts]
    blocks: list[Block] = [*tables, *notes(groups)]
    return "\n\n".join(map(markdown_block, blocks))


def compare_html(groups: Sequence[Group], metric: str = "", new_texts: Sequence[Table] = ()) -> str:
    """The comparison by a metric as one HTML file. Default: macro F1, or perplexity if all runs only adapted."""
    metric = metric or ("perplexity" if all(run.only_adapted for group in groups for run in group.runs) else "macro_f1")
    with tempfile.TemporaryDirectory() as folder:
        answer, sections = comparison(groups, metric, Path(folder))
        sections += [Section(NEW_TEXTS, [table]) for table in new_texts]
        names = ", ".join(group.name for group in groups)
        return html(Page("Comparison", f"How do {names} compare?" if len(groups) > 1 else "", answer, sections))


def comparison(groups: Sequence[Group], metric: str, figures: Path) -> tuple[str, list[Section]]:
    """A sentence about the best group, and the sections of the page. The figures are saved in ``figures``.

    Raises UserError if no run has the metric.
    """
    from minilm.reporting.group_plots import bars  # imports matplotlib, which tables do not need

    split = "validation" if metric == "perplexity" else "test"
    known = metric in HIGHER_IS_BETTER
    measured = [group for group in groups if known and group.values(metric, split)]
    if not measured:
        there = dict.fromkeys(key for group in groups for key in columns_of(group.runs[0], "test"))
        there |= dict.fromkeys(key for group in groups for key in columns_of(group.runs[0], "validation"))
        raise UserError(f"no run has the metric {metric}; the metrics are: {', '.join(there)}")
    rivals = compare_with_first(measured, metric, split)
    lines = common_baselines(measured, metric) if split == "test" else {}
    well: list[Block] = [
        Picture(
            bars(measured, metric, figures / "bars.png", split=split, lines=lines), f"{metric_name(metric)} of each"
        ),
        *quality_tables(groups),
    ]
    sections = [Section("How well each does", [*well, *notes(groups)])]
    if rivals:
        sections.append(
            Section(
                f"Compared with {measured[0].name}",
                [versus_table(rivals, ["run"], lambda name: [name], f"{metric_name(metric)}: difference")],
            )
        )
    if by_row := row_tables(measured):
        sections.append(Section(f"Compared with {measured[0].name}, test row by test row", by_row))
    if learned := learning(groups, metric, figures):
        sections.append(Section("How each learned", learned))
    sections.append(Section("What each cost", [cost_table(groups), *cost_ratios(groups)]))
    sets = {run.results.data.name for group in measured for run in group.runs}
    if len(sets) > 1:  # metrics on different data cannot be compared
        return notes(groups)[0], sections
    return _answer(measured, metric, split, rivals), sections


def learning(groups: Sequence[Group], metric: str, figures: Path) -> list[Block]:
    """The learning curves: one figure for classifiers, and one for adapted language models."""
    from minilm.reporting.group_plots import curves

    parts: list[Block] = []
    for adapted, name in ((False, "curves"), (True, "curves_adaptation")):
        kind = [group for group in groups if group.runs[0].only_adapted == adapted and group.runs[0].history]
        shown = ["perplexity"] if adapted else list(dict.fromkeys(("loss", metric)))
        evaluations = [entry.validation for group in kind for entry in group.runs[0].history]
        shown = [key for key in shown if any(metrics.get(key) is not None for metrics in evaluations)]
        if shown:
            what = "the adapted language models" if adapted else "each"
            parts.append(Picture(curves(kind, shown, figures / f"{name}.png"), f"Learning curves of {what}"))
    return parts


# --- The tables ---


def columns_of(run: Run, split: str) -> list[str]:
    """The metrics of a run that get a column."""
    columns = (*metric_columns(run.results.multi_label), "perplexity")
    return [key for key in columns if run.metric(key, split) is not None]


def quality_tables(groups: Sequence[Group]) -> list[Table]:
    """Tables of the groups' models and metrics: one table, or if there are several seeds one table per split."""
    seeds = any(len(group.runs) > 1 for group in groups)
    parts = [("test",), ("validation",)] if seeds else [("test", "validation")]
    return [table for splits in parts if (table := _quality(groups, splits, seeds)).header[2:]]


def _quality(groups: Sequence[Group], splits: Sequence[str], seeds: bool) -> Table:
    # If some runs have one label per text and others several, there are columns for both kinds.
    columns = list(
        dict.fromkeys(
            (split, key) for split in splits for g in groups for run in g.runs for key in columns_of(run, split)
        )
    )
    groups = [group for group in groups if not columns or any(group.values(key, split) for split, key in columns)]
    header = [
        "run",
        "model",
        *(["seeds"] if seeds else []),
        *(f"{split}\n{metric_name(key)}" for split, key in columns),
    ]
    rows = []
    for group in groups:
        first = group.runs[0]
        what = first.model + (", from scratch" if first.from_scratch else "")
        cells = [with_spread(group.values(key, split)) for split, key in columns]
        rows.append([group.name, what, *([count(len(group.runs))] if seeds else []), *cells])
    note = "±: standard deviation over the seeds." if seeds else ""
    return Table(header if columns else [], rows, left=2, note=note)


def cost_table(groups: Sequence[Group]) -> Table:
    """The costs of each group, the mean over its runs."""
    header = ["run", "parameters", "trained", "training", "tokens/s", "100 texts predicted in"]
    written = (short_count, short_count, duration, short_count, duration)
    rows = [[g.name, *(write(cost) for write, cost in zip(written, _mean_costs(g), strict=True))] for g in groups]
    return Table(header, rows)


def cost_ratios(groups: Sequence[Group]) -> list[str]:
    """One sentence per group but the first: its costs relative to the first group. Empty if nothing was measured."""
    kinds = ("the parameters", "the trained parameters", "the training time", "the time to predict 100 texts")
    costs = [_mean_costs(group) for group in groups]
    shown = [(total, trained, seconds, inference) for total, trained, seconds, _, inference in costs]
    sentences = []
    for group, own in zip(groups[1:], shown[1:], strict=True):
        pairs = zip(kinds, own, shown[0], strict=True)
        ratios = [f"{_times(mine / base)} {kind}" for kind, mine, base in pairs if mine is not None and base]
        sentences += [f"Relative to {groups[0].name}, {group.name} has {join_words(ratios)}."] if ratios else []
    return sentences


def _mean_costs(group: Group) -> list[float | None]:
    """Each field of ``Costs`` as the mean over the runs."""
    kinds = zip(*(costs_of(run) for run in group.runs), strict=True)
    known = [[cost for cost in kind if cost is not None] for kind in kinds]
    return [mean(found) if found else None for found in known]


def _times(ratio: float) -> str:
    """``160 times``, ``0.35 times``."""
    digits = f"{ratio:,.0f}" if ratio >= 9.95 else f"{ratio:#.2g}"
    return f"{digits} times"


def common_baselines(groups: Sequence[Group], metric: str) -> dict[str, float]:
    """A metric on the test texts for each baseline that all runs share; {} if the runs have different data."""
    runs = [run for group in groups for run in group.runs]
    if len({run.results.data.fingerprint for run in runs}) > 1:
        return {}
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, baseline in run.results.baselines.items():
            if (value := baseline.tested(metric)) is not None:
                found.setdefault(name, []).append(value)
    everywhere = {name: values for name, values in found.items() if len(values) == len(runs)}
    return {name: values[0] for name, values in everywhere.items() if max(values) - min(values) < 1e-6}


def notes(groups: Sequence[Group]) -> list[str]:
    """Notes on problems of the comparison, and on runs that it excludes.

    All runs must have the same data. If each seed draws its own data (``data.redraw``), all runs of one seed must.
    """
    runs = [run for group in groups for run in group.runs]
    redrawn = all(run.config.data.redraw for run in runs)
    fingerprints: dict[int, set[str]] = {}
    for run in runs:
        fingerprints.setdefault(run.config.seed if redrawn else 0, set()).add(run.results.data.fingerprint)
    found = []
    if any(len(of_seed) > 1 for of_seed in fingerprints.values()):
        named = zip(unique_names([[run] for run in runs]), [run.results.data for run in runs], strict=True)
        sets = [f"{name}: {data.name} {data.fingerprint[:8]}" for name, data in named]
        found.append(f"The runs have different data, so the metrics cannot be compared: {', '.join(sets)}.")
    pairs = [unique_names([[run], [first]]) for group in groups for run, first in group.repeats]
    if repeats := ", ".join(f"{run} (as {first})" for run, first in pairs):
        found.append(f"Excluded, as another run has the same settings, seed and data: {repeats}.")
    return found


# --- The comparison ---


def compare_with_first(groups: Sequence[Group], metric: str, split: str) -> Tested[str]:
    """The difference of each other group from the first, over the seeds that both have."""
    first = groups[0].by_seed(metric, split)
    return compare_all({group.name: (first, group.by_seed(metric, split)) for group in groups[1:]}, metric)


class SameRows(NamedTuple):
    """A comparison of two runs on the same test rows."""

    gained: int  # rows that the run has right and the first run wrong
    lost: int  # rows that the run has wrong and the first run right
    rows: int
    mcnemar: float  # p value
    corrected: float  # p value after Holm's correction
    comparisons: int  # number of comparisons in the correction


def compare_rows(groups: Sequence[Group], *, best_first: bool = False) -> dict[str, SameRows]:
    """Compare each other run with the first, if both have the same data and one label per text.

    Groups of several runs, and runs without a file of predictions, are excluded.

    best_first: the first run was chosen for its score on these rows. Any other could have been, so p values are
        corrected for all pairs.

    Raises UserError if a run's file of predictions was edited.
    """
    right = _right_rows(groups)
    if groups[0].name not in right:
        return {}
    pairs = list(itertools.combinations(right, 2))
    shown = pairs[: len(right) - 1]  # those with the first
    p_values = [mcnemar(right[a], right[b]) for a, b in (pairs if best_first else shown)]
    found = {}
    for (base, own), p, corrected in zip(shown, p_values, holm(p_values), strict=False):
        gained, lost = (right[own] & ~right[base]).sum(), (right[base] & ~right[own]).sum()
        found[own] = SameRows(int(gained), int(lost), len(right[own]), p, corrected, len(p_values))
    return found


def _right_rows(groups: Sequence[Group]) -> dict[str, np.ndarray]:
    """For each run with the data of the first: (N,) bool, which rows it has right."""
    first, labels, found = groups[0].runs[0], None, {}
    for group in groups:
        run, predictions = group.runs[0], read_predictions(group.runs[0]) if len(group.runs) == 1 else None
        same = run.results.data.fingerprint == first.results.data.fingerprint
        if predictions is None or predictions.labels.ndim > 1 or not same:
            continue
        if labels is not None and (predictions.labels != labels).any():  # its rows may have been sorted
            raise UserError(f"{run.folder / PREDICTIONS} (or {first.folder / PREDICTIONS}): {EDITED}")
        labels, found[group.name] = predictions.labels, predictions.right
    return found


def row_tables(groups: Sequence[Group], *, best_first: bool = False) -> list[Table]:
    """The table of McNemar's tests from ``compare_rows``; no table if it compares no runs."""
    if not (found := compare_rows(groups, best_first=best_first)):
        return []
    comparisons = next(iter(found.values())).comparisons
    header = ["run", f"right where\n{groups[0].name} is wrong", "the other way"]
    header += ["McNemar: p", "corrected: p", "test rows"]
    rows = [
        [name, count(r.gained), count(r.lost), *map(shown_p, (r.mcnemar, r.corrected)), count(r.rows)]
        for name, r in found.items()
    ]
    note = "McNemar's test asks whether both runs are right equally often. It does not cover other seeds."
    pairs = f": all pairs, because {groups[0].name} was chosen for its score on these rows"
    if comparisons > 1:
        note += f" Corrected: for {comparisons} comparisons at once, after Holm{pairs if best_first else ''}."
    return [Table(header, rows, note=note)]


NAMED_RIVALS = 3  # the most comparisons in a sentence; if there are more, it has only that with the best run


def _answer(groups: Sequence[Group], metric: str, split: str, rivals: Tested[str]) -> str:
    """Two sentences: which group is best, and whether that is significant."""
    sign = 1 if HIGHER_IS_BETTER[metric] else -1
    ranked = sorted(groups, key=lambda group: -sign * mean(group.values(metric, split)))
    best, what = ranked[0], f"{metric_name(metric)} on the {split} texts"
    reached = _reached(best, metric, split)
    if len(groups) == 1:
        return f"{best.name} reaches {reached} in {what}."
    tie = f"{mean(best.values(metric, split)):.3f}" == f"{mean(ranked[1].values(metric, split)):.3f}"
    next_one = f"{'level with' if tie else 'ahead of'} {ranked[1].name} with {_reached(ranked[1], metric, split)}"
    first = f"{best.name} has the {'highest' if sign > 0 else 'lowest'} {what}: {reached}, {next_one}."
    rival = ranked[1] if best is groups[0] else best
    if rival.name not in rivals:
        if any(len(group.runs) > 1 for group in groups):
            return f"{first} {rival.name} and {groups[0].name} share fewer than two seeds: no test compares them."
        alone = "each ran with one seed only, so how far another seed would move these numbers is not known."
        by_row = row_by_row(compare_rows(groups), rival.name, groups[0].name)
        return f"{first} On {by_row}; but {alone}" if by_row else f"{first} {alone.capitalize()}"
    names = [rival.name, *(name for name in rivals if name != rival.name)]
    named = names if len(names) <= NAMED_RIVALS else names[:1]
    compared = [_difference(name, groups[0].name, rivals) for name in named]
    return f"{first} Over the same seeds {'; '.join(compared)}."


def _difference(name: str, first: str, rivals: Tested[str]) -> str:
    """``lora has 0.010 less than full (95% interval ...; paired t test: p = 0.004), which is significant at 5%``."""
    pair, p = rivals[name]
    more = "more" if pair.difference > 0 else "less"
    test = tested(pair, p, len(rivals), unsigned=True)
    return f"{name} has {abs(pair.difference):.3f} {more} than {first} ({test}), which {significance(pair, p)}"


def row_by_row(found: Mapping[str, SameRows], name: str, first: str) -> str:
    """McNemar's test of a run and the first one; completes "on ...". Empty if the two were not compared."""
    if name not in found:
        return ""
    rows = found[name]
    many, p = corrected_for(rows.comparisons), p_value(rows.corrected)
    chance = "which is significant at 5%" if rows.corrected < ALPHA else "which may be chance"
    return (
        f"the same {rows.rows:,} test rows {name} has {rows.gained:,} right that {first} has wrong, and {rows.lost:,} "
        f"the other way round (McNemar's test{many}: {p}), {chance}"
    )


def _reached(group: Group, metric: str, split: str) -> str:
    """``0.907 (95% interval 0.890 to 0.924 over 3 seeds)``."""
    found = group.interval(metric, split)
    return f"{mean(group.values(metric, split)):.3f}" + (f" ({interval_over(*found)})" if found else "")
