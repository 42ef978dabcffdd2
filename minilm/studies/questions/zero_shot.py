"""What does a model know of the labels before it has seen a labelled text, and by which way of asking?

Each run with [zero_shot] stands beside what it must beat: the majority class, and the same checkpoint with an untrained
head, which is how classes without training are often done by mistake. Nothing is trained, so seeds say nothing:
intervals are over the test rows (bootstrap), and two ways are compared on the same rows (McNemar).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from minilm.errors import UserError
from minilm.evaluation.metrics import Metrics
from minilm.evaluation.statistics import Interval, confusion_interval
from minilm.reporting.compare import SameRows, baselines, compare_rows, row_by_row, row_tables
from minilm.reporting.groups import OF_CONFUSION, Group
from minilm.reporting.page import Block, Picture, Section, Table
from minilm.reporting.report import CHOSEN
from minilm.reporting.tables import ABSENT, decimal, duration, metric_name
from minilm.studies.questions.lines import ahead

if TYPE_CHECKING:
    from minilm.studies.analyses import Finished
    from minilm.studies.config import Study


class Reached(NamedTuple):
    """A metric on the test rows, and its interval over them; None where the metric has none."""

    value: float
    interval: Interval | None

    def __str__(self) -> str:
        return f"{self.value:.3f}" + (f" ({self.between})" if self.interval else "")

    @property
    def between(self) -> str:
        """``0.690 to 0.724``."""
        return f"{self.interval.low:.3f} to {self.interval.high:.3f}" if self.interval else ABSENT


class Way(NamedTuple):
    """One way of asking, and what it must beat."""

    group: Group
    own: Reached
    majority: Reached
    untrained: Reached

    @property
    def rows(self) -> int:
        """How many test texts it was asked about."""
        return self.group.runs[0].results.data.sizes["test"]


def zero_shot(study: Study, runs: Sequence[Finished], figures: Path) -> tuple[str, list[Section]]:
    """How well each way does, best first, which differences the test rows tell, and what was asked."""
    from minilm.reporting.group_plots import dots

    metric = study.config.metric
    ways = sorted(_ways(runs, metric), key=lambda way: -ahead(metric, way.own.value))
    if not ways:
        raise UserError(f"the analysis zero-shot needs runs with [zero_shot] that have the metric {metric}")
    groups = [way.group for way in ways]
    picture = dots(
        [group.name for group in groups],
        {"asked": [way.own for way in ways], "untrained head": [way.untrained for way in ways]},
        metric,
        figures / "zero_shot.png",
        lines={name: value for name, value in baselines(groups, metric).items() if name == "majority"},
    )
    name = metric_name(metric)
    well: list[Block] = [Picture(picture, f"{name} of each way of asking, with its interval"), _table(ways, name)]
    sections = [Section("How well each way does", well)]
    if by_row := row_tables(groups, best_first=True):
        sections.append(Section(f"Compared with {groups[0].name}, test row by test row", by_row))
    sections.append(Section("What was asked", [_asked(groups), CHOSEN]))
    return answer(ways, compare_rows(groups, best_first=True), metric), sections


def _ways(runs: Sequence[Finished], metric: str) -> list[Way]:
    """Those with the metric; of runs that differ only in their seed, the first."""
    found: dict[str, Way] = {}
    for finished in runs:
        run, name, own = finished.run, finished.planned.group, finished.run.results.test
        if run.results.zero_shot is None or own is None or own.get(metric) is None or name in found:
            continue
        majority, untrained = (run.results.baselines[kind].test for kind in ("majority", "untrained"))
        assert majority is not None and untrained is not None  # as the run has a test split
        found[name] = Way(Group(name, (run,)), *(_reached(metrics, metric) for metrics in (own, majority, untrained)))
    return list(found.values())


def _reached(metrics: Metrics, metric: str) -> Reached:
    confusion = metrics.confusion if metric in OF_CONFUSION else None
    interval = confusion_interval(OF_CONFUSION[metric], confusion) if confusion else None
    return Reached(metrics[metric], interval)


def _table(ways: Sequence[Way], name: str) -> Table:
    header = ["", name, "95% interval", "untrained head", "95% interval", "majority class", "100 texts in"]
    rows = [
        [
            way.group.name,
            decimal(way.own.value),
            way.own.between,
            decimal(way.untrained.value),
            way.untrained.between,
            decimal(way.majority.value),
            duration(way.group.runs[0].results.times.inference_seconds_per_100_texts),
        ]
        for way in ways
    ]
    note = (
        "On the test texts. Intervals: over the test rows, by the bootstrap; an untrained head changes with its seed."
    )
    return Table(header, rows, note=note)


def _asked(groups: Sequence[Group]) -> Table:
    rows = []
    for group in groups:
        asked = group.runs[0].results.zero_shot
        assert asked is not None
        words = "; ".join(f"{label}: {word}" for label, word in asked.words.items())
        texts = [asked.pattern or ABSENT, words, asked.content_free or ABSENT]
        rows.append([group.name, group.runs[0].model, asked.method, *texts])
    return Table(["", "model", "by", "pattern", "words or descriptions", "calibrated by"], rows, left=6)


def answer(ways: Sequence[Way], by_row: Mapping[str, SameRows], metric: str) -> str:
    """Two sentences: what the best way reaches beside what it must beat, and what the test rows tell of it."""
    best = ways[0]
    said = f"{best.own.value:.3f}"
    said += f" (95% interval {best.own.between} over {best.rows:,} test rows)" if best.own.interval else ""
    chosen = f", the best of {len(ways)} ways," if len(ways) > 1 else ""
    first = (
        f"Without a labelled text {best.group.name}{chosen} has {metric_name(metric)} {said}, where the majority class "
        f"has {best.majority} and the same model with an untrained head {best.untrained}."
    )
    if best.own.interval is None:
        return f"{first} How far other test rows would move these numbers is not known for this metric."
    rivals = {"majority class": best.majority, "untrained head": best.untrained}
    level = [name for name, rival in rivals.items() if not _above(best.own, rival)]
    second = (
        f"Its interval does not lie above that of the {' and of the '.join(level)}, so that it knows more is not shown"
        if level
        else "Its interval lies above those of both, so the choice of test rows does not explain the difference"
    )
    if len(ways) > 1:
        second += f"; {_next(ways[1], by_row, best.group.name)}"
    return f"{first} {second}."


def _above(own: Reached, rival: Reached) -> bool:
    return bool(own.interval and rival.interval and own.interval.low > rival.interval.high)


def _next(way: Way, by_row: Mapping[str, SameRows], best: str) -> str:
    said = f"{way.group.name} is next with {way.own}"
    told = row_by_row(by_row, way.group.name, best)
    return f"{said}; of {told}" if told else said
