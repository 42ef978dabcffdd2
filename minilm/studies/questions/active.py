"""Does it pay to let a model choose the texts that are labelled next, and by which rule?

Every rule goes on from the same rows as random choice does, and is compared with it seed by seed. As many rules are
compared at many numbers of labels, p values are corrected for all of them at once: the best of many is ahead by luck
too. What a lead is worth is told in labels: how many random choice needs to get as far.

    m(n)    of one seed, what random choice reaches with n labels: straight lines between the rounds, over log n
    n'      where m(n') is what the rule reaches with n labels; over seeds the geometric mean

Beside the runs stand the baselines that were fitted to the same rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minilm.errors import UserError
from minilm.evaluation.statistics import ALPHA, Interval, mean, t_interval
from minilm.reporting.over_seeds import (
    Tested,
    compare_all,
    corrected_for,
    interval_of,
    reached,
    versus_table,
    with_spread,
)
from minilm.reporting.page import Block, Picture, Section, Table
from minilm.reporting.tables import ABSENT, metric_name, p_value
from minilm.studies.questions.lines import Line, ahead, lines_of, lines_table, listed, name_without, number
from minilm.studies.rounds import START

if TYPE_CHECKING:
    from minilm.studies.analyses import Finished
    from minilm.studies.config import Study

RANDOM = "random"
OWN = ("rule", "labels", "noise")  # what rounds add to a run's point


@dataclass(frozen=True, eq=False)
class Setting:
    """All rules in one setting: a variant, its point on other axes, a share of wrong labels."""

    name: str
    rules: dict[str, Line]  # over the numbers of labels, from the start that they share; random choice first
    baselines: dict[str, list[Line]]  # fitted to each rule's rows

    @property
    def start(self) -> float:
        """The number of labels that all rules share."""
        return min(x for line in self.rules.values() for x in line.at)

    @property
    def chosen(self) -> list[str]:
        """The rules by which a model chooses."""
        return [rule for rule in self.rules if rule not in (RANDOM, START)]

    @property
    def drawn(self) -> list[Line]:
        """Every rule, and the baselines on the rows of the first, which is random choice where that was run."""
        first = next(iter(self.rules))
        return [*self.rules.values(), *(Line(f"{b.name} ({first})", b.at, True) for b in self.baselines[first])]

    @property
    def leads(self) -> list[Line]:
        """How far each rule lies above random choice, seed by seed, after the start that they share."""
        random = self.rules[RANDOM].at if RANDOM in self.rules else {}
        found = []
        for rule in self.chosen:
            line = Line(rule)
            for x, values in self.rules[rule].at.items():
                both = {seed: value - random[x][seed] for seed, value in values.items() if seed in random.get(x, {})}
                if both and x > self.start:
                    line.at[x] = both
            found += [line] if line.at else []
        return found


Key = tuple[Setting, str, float]  # of a round: its setting, rule and number of labels


def active(study: Study, runs: Sequence[Finished], figures: Path) -> tuple[str, list[Section]]:
    """The curve of each rule beside random choice, what is told from chance, and what it saves."""
    from minilm.studies.questions.line_pictures import active_picture

    metric = study.config.metric
    settings = settings_of(runs, metric)
    if not settings:
        raise UserError("the analysis active needs rounds of a section [active], measured on test texts by the metric")
    one = len(settings) == 1
    picture = active_picture(settings, metric, figures / "active.png")
    parts: list[Block] = [Picture(picture, f"{metric_name(metric)} over the number of labelled texts")]
    for setting in settings:
        parts += [] if one else [f"{setting.name}:"]
        parts.append(lines_table(setting.drawn, "labels", metric, lambda x: f"{x:,.0f}"))
    sections = [Section("What each number of labels gives", parts)]
    beside = [(setting, lead.name, x) for setting in settings for lead in setting.leads for x in lead.at]
    compared = compare_all({(s, rule, x): (s.rules[RANDOM].at[x], s.rules[rule].at[x]) for s, rule, x in beside})

    def cells(key: Key) -> list[str]:
        setting, rule, x = key
        return [rule if one else f"{setting.name}, {rule}", f"{x:,.0f}"]

    if compared:
        table = versus_table(compared, ["", "labels"], cells)
        sections.append(Section("Compared with random choice", [table, _needs(beside, cells, metric)]))
    if fitted := _baselines_table(settings, cells, metric):
        sections.append(Section("The baselines, fitted to the rows that each rule chose", [fitted]))
    return answer(settings, compared, metric), sections


def settings_of(runs: Sequence[Finished], metric: str) -> list[Setting]:
    """The rounds, put together by setting and rule. The first round, which all rules share, is in each rule's line."""
    together: dict[str, dict[str, list[Finished]]] = {}
    for finished in runs:
        if choice := finished.planned.choice:
            name = name_without(finished, *OWN)
            if choice.noise:
                name += f", {100 * choice.noise:.10g}% wrong labels"
            together.setdefault(name, {}).setdefault(choice.rule, []).append(finished)
    found = []
    for name, by_rule in together.items():
        start = by_rule.pop(START, [])
        setting = Setting(name, {}, {})
        for rule in sorted(by_rule, key=lambda rule: rule != RANDOM) or [START]:
            lines, baselines = lines_of([*start, *by_rule.get(rule, [])], OWN, _labels, metric)
            for line in lines:  # one, or none where nothing has the metric
                setting.rules[rule], setting.baselines[rule] = Line(rule, line.at), baselines
        found += [setting] if setting.rules else []
    return found


def _labels(finished: Finished) -> float:
    assert finished.planned.choice is not None  # of a round
    return float(finished.planned.choice.labels)


def _baselines_table(settings: Sequence[Setting], cells: Callable[[Key], list[str]], metric: str) -> Table | None:
    """Every round beside the baselines on its rows; None where none was fitted."""
    kinds = list(dict.fromkeys(b.name for s in settings for lines in s.baselines.values() for b in lines))
    if not kinds:
        return None
    rows = []
    for setting in settings:
        for i, (rule, line) in enumerate(setting.rules.items()):
            fitted = {b.name: b for b in setting.baselines[rule]}
            for x in line.at:
                if x > setting.start or i == 0:  # the start, which all share, once
                    beside = [fitted[kind].values(x) if kind in fitted else [] for kind in kinds]
                    rows.append([*cells((setting, rule, x)), *map(with_spread, [line.values(x), *beside])])
    note = f"{metric_name(metric)} on the test texts, mean ± standard deviation over seeds."
    return Table(["", "labels", "the model", *kinds], rows, note=note[0].upper() + note[1:])


# --- What a rule saves ---


def labels_needed(random: Line, rule: Line, x: float, metric: str) -> tuple[float, Interval | None] | None:
    """How many labels random choice needs to get where the rule is with x, and the 95% interval over seeds.

    None where a seed's line does not get there, or is there from the start: that cannot be told.
    """
    logs = []
    for seed, target in rule.at[x].items():
        curve = [(n, ahead(metric, values[seed])) for n, values in random.at.items() if seed in values]
        n = _crossing(curve, ahead(metric, target))
        if n is None:
            return None
        logs.append(math.log(n))
    interval = t_interval(logs)
    return math.exp(mean(logs)), Interval(*map(math.exp, interval)) if interval else None


def _crossing(curve: Sequence[tuple[float, float]], target: float) -> float | None:
    """Where straight lines between the points, over log n, first rise to the target; None where they begin there."""
    if curve and curve[0][1] >= target:
        return None
    for (n, low), (m, high) in itertools.pairwise(curve):
        if low < target <= high:
            return n * (m / n) ** ((target - low) / (high - low))
    return None


def _needs(rounds: Sequence[Key], cells: Callable[[Key], list[str]], metric: str) -> Table:
    rows = []
    for key in rounds:
        setting, rule, x = key
        line = setting.rules[rule]
        found = labels_needed(setting.rules[RANDOM], line, x, metric)
        interval = found[1] if found else None
        between = f"{number(interval.low)} to {number(interval.high)}" if interval else ABSENT
        rows.append([*cells(key), with_spread(line.values(x)), number(found[0]) if found else ABSENT, between])
    note = f"{ABSENT}: not told, as with a seed random choice does not get as far in its rounds, or is there from the "
    note += "start. Between rounds it is taken to rise along a straight line over the logarithm of the labels."
    return Table(["", "labels", metric_name(metric), "labels random needs", "95% interval"], rows, note=note)


# --- In words ---


def answer(settings: Sequence[Setting], compared: Tested[Key], metric: str) -> str:
    """Two sentences: how far the best rule gets with most labels, and where it is told from random choice."""
    chosen = [(setting, rule) for setting in settings for rule in setting.chosen]
    if not chosen:
        why = (
            "No round after the first has finished" if START in settings[0].rules else "Texts were drawn at random only"
        )
        return f"{why}. Whether choosing texts pays is not known."
    most = max(x for setting, rule in chosen for x in setting.rules[rule].at)
    there = [(setting, rule) for setting, rule in chosen if most in setting.rules[rule].at]
    setting, rule = max(there, key=lambda pair: ahead(metric, pair[0].rules[pair[1]].mean(most)))
    line, random = setting.rules[rule], setting.rules.get(RANDOM)
    name = rule if len(settings) == 1 else f"{rule} ({setting.name})"
    does = f"of {len(chosen)} ways to choose texts {name} does best:" if len(chosen) > 1 else f"{name} has"
    first = f"With {most:,.0f} labels {does} {metric_name(metric)} {reached(line.values(most))}"
    if random is None or not random.values(most):
        return f"{first}. Random choice was not run, so whether choosing texts pays is not known."
    first += f", after {reached(random.values(most))} by random choice"
    found = {x: told for (s, r, x), told in compared.items() if s is setting and r == rule}
    if not found:
        return f"{first}. Too few seeds were run to tell the two apart."
    return f"{first}{_saved(random, line, list(found), metric)}. {_apart(found, len(compared), metric)}"


def _saved(random: Line, line: Line, points: Sequence[float], metric: str) -> str:
    """What the lead is worth in labels, at the largest number where it can be told."""
    for x in sorted(points, reverse=True):
        needed = labels_needed(random, line, x, metric)
        if needed and ahead(metric, line.mean(x) - random.mean(x)) > 0:
            n, between = needed
            interval = f" (95% interval {number(between.low)} to {number(between.high)})" if between else ""
            return f", which needs about {number(n)} labels{interval} for what {line.name} reaches with {x:,.0f}"
    return ", and how many labels that needs for as much cannot be told"


def _apart(found: Tested[float], comparisons: int, metric: str) -> str:
    """Its difference from random choice at every number of labels, and which are told from chance."""
    said = [
        f"{pair.difference:+.3f} with {x:,.0f} ({interval_of(pair)}, {p_value(p)})" for x, (pair, p) in found.items()
    ]
    pairs = min(pair.pairs for pair, _ in found.values())
    sure = {x: ahead(metric, pair.difference) > 0 for x, (pair, p) in found.items() if p < ALPHA}
    verdict = [
        f"it is {where} with {listed([f'{x:,.0f}' for x in points])}, which is significant at 5%"
        for where, points in (("ahead", [x for x in sure if sure[x]]), ("behind", [x for x in sure if not sure[x]]))
        if points
    ]
    alike = any(pair.interval is None for pair, _ in found.values())
    tests = f"paired t tests{', or permutation tests where all seeds differ alike,' if alike else ''}"
    alone = ", each interval of its comparison alone" if comparisons > 1 else ""
    return (
        f"Its difference from random choice is {listed(said)} by {tests} over {pairs} seeds"
        f"{corrected_for(comparisons)}{alone}: {'; '.join(verdict) or 'none can be told from chance'}."
    )
