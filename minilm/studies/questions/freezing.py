"""How much of a model can stay frozen? Quality and speed against the number of parameters that train.

Each way to freeze is a variant or a point of the axis ``freeze.layers``; that with the most trained parameters is what
the others are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from minilm.errors import UserError
from minilm.evaluation.statistics import ALPHA, Paired, mean
from minilm.reporting.compare import learning
from minilm.reporting.groups import Group, costs_of
from minilm.reporting.over_seeds import ALONE, compare_all, reached, shown_p, tested, with_spread
from minilm.reporting.page import Block, Picture, Section, Table
from minilm.reporting.tables import ABSENT, duration, metric_name, short_count
from minilm.studies.questions.lines import ahead, listed

if TYPE_CHECKING:
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
    if not ways:
        why = f"the analysis freezing needs runs that were measured on test texts by {metric}"
        raise UserError(f"{why}; name a metric they have, such as metric=accuracy")
    picture = freezing_picture(ways, metric, figures / "freezing.png")
    parts: list[Block] = [
        Picture(picture, f"{metric_name(metric)} and training time over the parameters that train"),
        _table(ways, metric),
    ]
    sections = [Section("What stays frozen, and what that gives", parts)]
    if learned := learning([way.group for way in ways], metric, figures):
        sections.append(Section("How each learned", learned))
    return answer(ways, metric), sections


def ways_of(runs: Sequence[Finished], metric: str) -> list[Way]:
    """Each way that has the metric, with what it costs; the one that trains most first, compared with it."""
    from minilm.studies.analyses import groups_of

    ways = []
    for group in groups_of(runs):
        if group.values(metric):
            costs = [costs_of(run) for run in group.runs]
            kinds = [(cost.trained, cost.total, cost.seconds, cost.tokens_per_second) for cost in costs]
            trained, total, seconds, speed = (mean([cost or 0 for cost in kind]) for kind in zip(*kinds, strict=True))
            ways.append(Way(group, trained, total, seconds, speed))
    ways.sort(key=lambda way: -way.trained)
    reached_by = [way.group.by_seed(metric) for way in ways]
    found = compare_all({i: (reached_by[0], reached_by[i]) for i in range(1, len(ways))})
    return [replace(way, against=found.get(i)) for i, way in enumerate(ways)]


def _table(ways: Sequence[Way], metric: str) -> Table:
    header = ["", "parameters that train", "share", f"test {metric_name(metric)}", f"less than {ways[0].group.name}"]
    header += ["95% interval", "corrected: p", "training", "tokens/s"]
    rows = []
    for way in ways:
        told = [ABSENT] * 3
        if way.against:
            pair, p = way.against
            between = f"{-pair.interval.high:+.4f} to {-pair.interval.low:+.4f}" if pair.interval else ABSENT
            told = [f"{-pair.difference:+.4f}", between, shown_p(p)]
        share = f"{way.trained / way.total:.1%}" if way.total else ABSENT
        quality = with_spread(way.group.values(metric))
        costs = [duration(way.seconds), short_count(way.speed)]
        rows.append([way.group.name, short_count(way.trained), share, quality, *told, *costs])
    note = "±: standard deviation over the seeds. p: paired t test over the same seeds (permutation test where all "
    note += f"differ alike), corrected after Holm. {ALONE}"
    return Table(header, rows, note=note)


def answer(ways: Sequence[Way], metric: str) -> str:
    """Two sentences: what training most reaches, and how far one can freeze before a loss is told from chance."""
    most, what = ways[0], metric_name(metric)
    name = most.group.name
    first = (
        f"With {short_count(most.trained)} trained parameters {name} has {what} {reached(most.group.values(metric))}."
    )
    found = [(way, *way.against) for way in ways if way.against]
    if not found:
        return f"{first} Too few seeds were run to tell what freezing more loses."
    untold = [way.group.name for way in ways[1:] if not way.against]
    untested = f"; too few seeds were run to tell of {listed(untold)}" if untold else ""
    alike = [(way, pair, p) for way, pair, p in found if p >= ALPHA or ahead(metric, pair.difference) >= 0]
    if not alike:
        way, pair, p = found[0]
        every = "Every other way that was tested" if untold else "Every other way"
        return (
            f"{first} {every} loses: {way.group.name}, which freezes least, by {abs(pair.difference):.3f} "
            f"({tested(pair, p, len(found), sized=True)}), which is significant at 5%{untested}."
        )
    way, pair, p = alike[-1]
    share = f"{way.trained / most.trained:.1%}"
    faster = f", in {way.seconds / most.seconds:.0%} of its time" if most.seconds else ""
    return (
        f"{first} {way.group.name}, with {share} of these parameters{faster}, is the most frozen whose difference "
        f"({pair.difference:+.3f}, {tested(pair, p, len(found))}) cannot be told from chance as a loss{untested}."
    )
