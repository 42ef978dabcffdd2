"""How much of a model can stay frozen? Quality and speed against the number of parameters that train.

Each way to freeze is a variant or a point of the axis ``freeze.layers``; that with the most trained parameters is what
the others are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minilm.evaluation.statistics import Paired, holm, mean, paired
from minilm.reporting.compare import learning
from minilm.reporting.groups import Group, costs_of
from minilm.reporting.page import Part, Picture, Section, Table
from minilm.reporting.tables import ABSENT, duration, metric_name, p_value, short_count
from minilm.studies.questions.lines import LEVEL, ahead, reached, with_spread

if TYPE_CHECKING:
    from minilm.reporting.record import Run
    from minilm.studies.analyses import Finished
    from minilm.studies.config import Study


@dataclass(frozen=True)
class Way:
    """One way to freeze, over its seeds."""

    group: Group
    trained: float  # parameters
    total: float
    seconds: float  # of training
    speed: float  # tokens a second
    against: tuple[Paired, float] | None = None  # the way that trains most, and the p value after Holm


def freezing(study: Study, runs: Sequence[Finished], figures: Path) -> tuple[str, list[Section]]:
    """What each way to freeze loses in quality and gains in time."""
    from minilm.studies.questions.pictures import freezing_picture

    metric = study.config.metric
    ways = ways_of(runs, metric)
    picture = freezing_picture(ways, metric, figures / "freezing.png")
    parts: list[Part] = [
        Picture(picture, f"{metric_name(metric)} and training time over the parameters that train"),
        _table(ways, metric),
    ]
    sections = [Section("What stays frozen, and what that gives", parts)]
    if learned := learning([way.group for way in ways], metric, figures):
        sections.append(Section("How each learned", learned))
    return answer(ways, metric), sections


def ways_of(runs: Sequence[Finished], metric: str) -> list[Way]:
    """Each way with what it costs, the one that trains most first, compared with it."""
    together: dict[str, list[Run]] = {}
    for finished in runs:
        together.setdefault(finished.planned.group, []).append(finished.run)
    ways = []
    for name, group in together.items():
        costs = [costs_of(run) for run in group]
        keys = ("trained", "total", "seconds", "tokens_per_second")
        trained, total, seconds, speed = (mean([cost[key] or 0 for cost in costs]) for key in keys)
        ways.append(Way(Group(name, tuple(group)), trained, total, seconds, speed))
    ways.sort(key=lambda way: -way.trained)
    base = ways[0].group.by_seed(metric)
    pairs: dict[int, Paired] = {}
    for i, way in enumerate(ways[1:], start=1):
        own = way.group.by_seed(metric)
        if len(seeds := [seed for seed in base if seed in own]) > 1:
            pairs[i] = paired([base[seed] for seed in seeds], [own[seed] for seed in seeds])
    corrected = dict(zip(pairs, holm([pair.t_test for pair in pairs.values()]), strict=True))
    return [
        Way(way.group, way.trained, way.total, way.seconds, way.speed, (pairs[i], corrected[i]) if i in pairs else None)
        for i, way in enumerate(ways)
    ]


def _table(ways: Sequence[Way], metric: str) -> Table:
    header = ["", "parameters that train", "share", f"test {metric_name(metric)}", f"less than {ways[0].group.name}"]
    header += ["95% interval", "corrected: p", "training", "tokens/s"]
    rows = []
    for way in ways:
        told = [ABSENT] * 3
        if way.against:
            pair, p = way.against
            told = [f"{-pair.difference:+.4f}", f"{-pair.interval.high:+.4f} to {-pair.interval.low:+.4f}", f"{p:.4f}"]
        share = f"{way.trained / way.total:.1%}" if way.total else ABSENT
        quality = with_spread(way.group.values(metric))
        costs = [duration(way.seconds), short_count(way.speed)]
        rows.append([way.group.name, short_count(way.trained), share, quality, *told, *costs])
    note = "±: standard deviation over the seeds. p: paired t test over the same seeds, corrected after Holm."
    return Table(header, rows, note=note)


def answer(ways: Sequence[Way], metric: str) -> str:
    """Two sentences: what training most reaches, and how far one can freeze before a loss is told from chance."""
    most, what = ways[0], metric_name(metric)
    name = most.group.name
    first = (
        f"With {short_count(most.trained)} trained parameters {name} has {what} {reached(most.group.values(metric))}."
    )
    if not any(way.against for way in ways):
        return f"{first} Too few seeds were run to tell what freezing more loses."
    lost = [way for way in ways if way.against and _loses(way, metric) and way.against[1] < LEVEL]
    alike = [way for way in ways if way.against and way not in lost]
    told = alike[-1] if alike else lost[0]
    assert told.against is not None
    pair, p = told.against
    low, high = pair.interval
    between = f"95% interval {low:+.3f} to {high:+.3f} over {pair.pairs} seeds; paired t test, corrected: {p_value(p)}"
    if not alike:
        return (
            f"{first} Every other way loses: {told.group.name}, which freezes least, by {abs(pair.difference):.3f} "
            f"({between}), which is significant at 5%."
        )
    share = f"{told.trained / most.trained:.1%}"
    faster = f", in {told.seconds / most.seconds:.0%} of its time" if most.seconds else ""
    return (
        f"{first} {told.group.name}, with {share} of these parameters{faster}, is the most frozen whose difference "
        f"({pair.difference:+.3f}, {between}) cannot be told from chance as a loss."
    )


def _loses(way: Way, metric: str) -> bool:
    return way.against is not None and ahead(metric, way.against[0].difference) < 0
