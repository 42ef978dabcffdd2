"""How well does a model classify without labelled texts, and which zero-shot method is best?

Each run with [zero_shot] is compared with two baselines: the majority class, and the same checkpoint with an untrained
head, which is a common mistake in zero-shot classification. Nothing is trained, so seeds do not matter. Intervals are
over the test rows (Wilson for the accuracy, else the bootstrap), and methods are compared on the same rows (McNemar).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from minilm.errors import UserError
from minilm.evaluation.metrics import Metrics
from minilm.evaluation.statistics import Interval
from minilm.reporting.compare import SameRows, common_baselines, compare_rows, row_by_row, row_tables
from minilm.reporting.group_plots import dots
from minilm.reporting.groups import Group, interval_over_rows, method_over_rows
from minilm.reporting.page import Block, Picture, Section, Table
from minilm.reporting.report import CHOSEN
from minilm.reporting.tables import ABSENT, decimal, duration, metric_name
from minilm.studies.finished import FinishedRun
from minilm.studies.lines import gain
from minilm.studies.plan import Study
from minilm.studies.question import StudyAnswer, StudyQuestion

_NEEDS = "runs with a section [zero_shot]"


class MeasuredOnRows(NamedTuple):
    """A metric on the test rows, and its interval over them; None if the metric has none."""

    value: float
    interval: Interval | None

    def __str__(self) -> str:
        return f"{self.value:.3f}" + (f" ({self.ends})" if self.interval else "")

    @property
    def ends(self) -> str:
        """``0.690 to 0.724``."""
        return f"{self.interval.low:.3f} to {self.interval.high:.3f}" if self.interval else ABSENT


class ZeroShotRun(NamedTuple):
    """One zero-shot method and its baselines."""

    group: Group
    own: MeasuredOnRows
    majority: MeasuredOnRows
    untrained: MeasuredOnRows

    @property
    def rows(self) -> int:
        """How many test texts were classified."""
        return self.group.runs[0].results.data.sizes["test"]


def _answer(study: Study, runs: Sequence[FinishedRun], figures: Path) -> StudyAnswer:
    """The metric of each method, best first, the significance of differences, and the prompts."""
    metric = study.config.metric
    methods = sorted(_methods_of(runs, metric), key=lambda method: -gain(metric, method.own.value))
    if not methods:
        raise UserError(f"the analysis zero-shot needs runs with a section [zero_shot] that have the metric {metric}")
    groups = [method.group for method in methods]
    picture = dots(
        [group.name for group in groups],
        {"zero-shot": [m.own for m in methods], "untrained head": [m.untrained for m in methods]},
        metric,
        figures / "zero_shot.png",
        lines={name: value for name, value in common_baselines(groups, metric).items() if name == "majority"},
    )
    name = metric_name(metric)
    parts: list[Block] = [Picture(picture, f"{name} of each method, with its interval"), _table(methods, metric)]
    sections = [Section("How well each method does", parts)]
    if by_row := row_tables(groups, best_first=True):
        sections.append(Section(f"Compared with {groups[0].name}, test row by test row", by_row))
    sections.append(Section("The prompts", [_prompts(groups), CHOSEN]))
    return StudyAnswer(_headline(methods, compare_rows(groups, best_first=True), metric), sections)


def _methods_of(runs: Sequence[FinishedRun], metric: str) -> list[ZeroShotRun]:
    """The runs that have the metric; the first of runs that differ only in their seed."""
    found: dict[str, ZeroShotRun] = {}
    for finished in runs:
        run, name = finished.run, finished.planned.group
        own, kinds = run.results.test, run.results.baselines
        if run.results.zero_shot is None or own is None or own.get(metric) is None or name in found:
            continue
        majority, untrained = kinds["majority"].test, kinds["untrained"].test
        assert majority is not None and untrained is not None  # as the run has test texts
        measured = own, majority, untrained
        found[name] = ZeroShotRun(Group(name, (run,)), *(_measured(metrics, metric) for metrics in measured))
    return list(found.values())


def _measured(metrics: Metrics, metric: str) -> MeasuredOnRows:
    found = interval_over_rows(metrics, metric, "test")
    return MeasuredOnRows(metrics[metric], found[0] if found else None)


def _table(methods: Sequence[ZeroShotRun], metric: str) -> Table:
    name = metric_name(metric)
    header = ["", name, "95% interval", "untrained head", "95% interval", "majority class", "100 texts in"]
    rows = [
        [
            method.group.name,
            decimal(method.own.value),
            method.own.ends,
            decimal(method.untrained.value),
            method.untrained.ends,
            decimal(method.majority.value),
            duration(method.group.runs[0].results.times.inference_seconds_per_100_texts),
        ]
        for method in methods
    ]
    how = method_over_rows(metric)
    note = f"On the test texts. Intervals: over the test rows ({how}); an untrained head also varies with its seed."
    return Table(header, rows, note=note)


def _prompts(groups: Sequence[Group]) -> Table:
    rows = []
    for group in groups:
        asked = group.runs[0].results.zero_shot
        assert asked is not None  # only such runs are compared here
        words = "; ".join(f"{label}: {word}" for label, word in asked.words.items())
        prompt = [asked.pattern or ABSENT, words, asked.content_free or ABSENT]
        rows.append([group.name, group.runs[0].model, asked.method, *prompt])
    return Table(["", "model", "method", "pattern", "words or descriptions", "calibrated by"], rows, left=6)


# --- In words ---


def _headline(methods: Sequence[ZeroShotRun], by_row: Mapping[str, SameRows], metric: str) -> str:
    """Compare the best method with the baselines, and name the significant differences."""
    best = methods[0]
    level = f"{best.own.value:.3f}"
    level += f" (95% interval {best.own.ends} over {best.rows:,} test rows)" if best.own.interval else ""
    chosen = f", the best of {len(methods)} methods," if len(methods) > 1 else ""
    first = (
        f"Without a labelled text {best.group.name}{chosen} has {metric_name(metric)} {level}; the majority class has "
        f"{best.majority}, and the same model with an untrained head {best.untrained}."
    )
    if best.own.interval is None:
        return f"{first} This metric has no interval over the test rows."
    second = f"Its interval {_beside(best)}"
    if len(methods) > 1:
        second += f"; {_next_best(methods[1], by_row, best.group.name)}"
    return f"{first} {second}."


def _beside(best: ZeroShotRun) -> str:
    """How the interval of a method is placed beside those of its baselines, and what this means."""
    rivals = {"the majority class": best.majority, "the untrained head": best.untrained}
    worse = [name for name, rival in rivals.items() if _above(rival, best.own)]
    close = [name for name, rival in rivals.items() if name not in worse and not _above(best.own, rival)]
    parts = [f"is below that of {' and of '.join(worse)}, so it knows less"] if worse else []
    if close:
        parts.append(f"overlaps with that of {' and of '.join(close)}, so it is undecided whether it knows more")
    if parts:
        return ", and ".join(parts)
    return "is above both of theirs, so the choice of test rows does not explain the difference"


def _above(first: MeasuredOnRows, second: MeasuredOnRows) -> bool:
    return bool(first.interval and second.interval and first.interval.low > second.interval.high)


def _next_best(method: ZeroShotRun, by_row: Mapping[str, SameRows], best: str) -> str:
    text = f"the next best, {method.group.name}, has {method.own}"
    rows = row_by_row(by_row, method.group.name, best)
    return f"{text}; on {rows}" if rows else text


ZERO_SHOT = StudyQuestion(
    "zero-shot",
    _answer,
    fits=lambda study: any(run.config.zero_shot is not None for run in study.runs),
    needs=_NEEDS,
)
