"""Is it worth letting a model choose the texts that are labelled next, and by which rule?

Every rule starts from the same rows as random choice and is compared with it seed by seed. Many rules are compared at
many numbers of labels, so p values are corrected for all comparisons at once, as the best of many may be best by
chance. A gain is also expressed in labels, as the number of labels that random choice needs for the same metric:

    m(n)    the metric of random choice with n labels, for one seed: linear between the rounds, over log n
    n'      the number for which m(n') equals the metric of the rule with n labels; over seeds the geometric mean

The baselines were fitted to the same rows as the runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minilm.errors import UserError
from minilm.evaluation.statistics import ALPHA, ENOUGH_PAIRS, Interval, Paired, is_significant, mean, t_interval
from minilm.reporting.over_seeds import (
    Tested,
    compare_all,
    corrected_for,
    interval_of,
    reached,
    significance,
    tested,
    versus_table,
    with_spread,
)
from minilm.reporting.page import Block, Picture, Section, Table
from minilm.reporting.style import SERIES, legend, name_axes, new_figure, save, short, widen, within_range
from minilm.reporting.tables import ABSENT, join_words, metric_name, p_value
from minilm.studies.finished import FinishedRun
from minilm.studies.line_plots import (
    add_explanations,
    axis_label,
    draw_line,
    fewest_texts,
    log_axis,
    offsets,
    styles_of,
)
from minilm.studies.lines import Line, gain, lines_of, lines_table, rounded
from minilm.studies.plan import FIRST_ROUND, LabellingRound, Study
from minilm.studies.question import StudyAnswer, StudyQuestion

RANDOM = "random"
ROUND_KEYS = ("rule", "labels", "noise")  # the axes that rounds add to a run's point


@dataclass(frozen=True, eq=False)
class RuleComparison:
    """All rules for one variant, one point on the other axes, and one fraction of wrong labels."""

    name: str
    rules: dict[str, Line]  # over the numbers of labels, from the round that they share; random choice first
    baselines: dict[str, list[Line]]  # fitted to the rows of each rule

    @property
    def start(self) -> float:
        """The number of labels that all rules share."""
        return min(x for line in self.rules.values() for x in line.at)

    @property
    def chosen(self) -> list[str]:
        """The rules by which a model chooses."""
        return [rule for rule in self.rules if rule not in (RANDOM, FIRST_ROUND)]

    @property
    def drawn(self) -> list[Line]:
        """Every rule, and the baselines on the rows of the first, which is random choice if that was run."""
        first = next(iter(self.rules))
        baselines = [replace(baseline, name=f"{baseline.name} ({first})") for baseline in self.baselines[first]]
        return [*self.rules.values(), *baselines]

    @property
    def leads(self) -> list[Line]:
        """Each rule minus random choice, seed by seed, after the round that they share."""
        random = self.rules[RANDOM].at if RANDOM in self.rules else {}
        found = []
        for rule in self.chosen:
            line = replace(self.rules[rule], at={}, difference=True)
            for x, values in self.rules[rule].at.items():
                both = {seed: value - random[x][seed] for seed, value in values.items() if seed in random.get(x, {})}
                if both and x > self.start:
                    line.at[x] = both
            found += [line] if line.at else []
        return found


RoundKey = tuple[RuleComparison, str, float]  # a round: its comparison, rule and number of labels


def _answer(study: Study, runs: Sequence[FinishedRun], figures: Path) -> StudyAnswer:
    """Compare the line of each rule with random choice: which differences are significant, and how many labels they
    save.
    """
    metric = study.config.metric
    comparisons = comparisons_of(runs, metric)
    if not comparisons:
        raise UserError("the analysis active needs rounds of a section [active] that have the metric on test texts")
    one = len(comparisons) == 1
    picture = _draw(comparisons, metric, figures / "active.png")
    parts: list[Block] = [Picture(picture, f"{metric_name(metric)} over the number of labelled texts")]
    for comparison in comparisons:
        parts += [] if one else [f"{comparison.name}:"]
        parts.append(lines_table(comparison.drawn, "labels", lambda x: f"{x:,.0f}"))
    sections = [Section("What each number of labels gives", parts)]
    keys = [(comparison, lead.name, x) for comparison in comparisons for lead in comparison.leads for x in lead.at]
    compared = compare_all({(c, rule, x): (c.rules[RANDOM].at[x], c.rules[rule].at[x]) for c, rule, x in keys}, metric)

    def cells(key: RoundKey) -> list[str]:
        comparison, rule, x = key
        return [rule if one else f"{comparison.name}, {rule}", f"{x:,.0f}"]

    if compared:
        table = versus_table(compared, ["", "labels"], cells)
        sections.append(Section("Compared with random choice", [table, _needed_table(keys, cells, metric)]))
    if fitted := _baselines_table(comparisons, cells, metric):
        sections.append(Section("The baselines, fitted to the rows that each rule chose", [fitted]))
    return StudyAnswer(_headline(comparisons, compared, metric), sections)


def comparisons_of(runs: Sequence[FinishedRun], metric: str) -> list[RuleComparison]:
    """The rounds, grouped by setting and rule. The first round, which all rules share, is in each rule's line."""
    together: dict[str, dict[str, list[FinishedRun]]] = {}
    for finished in runs:
        if labelling := finished.planned.round:
            name = finished.name_without(*ROUND_KEYS)
            if labelling.noise:
                name += f", {100 * labelling.noise:.10g}% wrong labels"
            together.setdefault(name, {}).setdefault(labelling.rule, []).append(finished)
    found = []
    for name, by_rule in together.items():
        start = by_rule.pop(FIRST_ROUND, [])
        comparison = RuleComparison(name, {}, {})
        for rule in sorted(by_rule, key=lambda rule: rule != RANDOM) or [FIRST_ROUND]:
            lines, baselines = lines_of(
                [*start, *by_rule.get(rule, [])], ROUND_KEYS, lambda f: float(_round_of(f).labels), metric
            )
            for line in lines:  # one, or none if no run has the metric
                comparison.rules[rule], comparison.baselines[rule] = replace(line, name=rule), baselines
        found += [comparison] if comparison.rules else []
    return found


def _round_of(finished: FinishedRun) -> LabellingRound:
    assert finished.planned.round is not None  # of a study with [active]
    return finished.planned.round


def _baselines_table(
    comparisons: Sequence[RuleComparison], cells: Callable[[RoundKey], list[str]], metric: str
) -> Table | None:
    """Every round beside the baselines on its rows; None if no baseline was fitted."""
    kinds = list(dict.fromkeys(b.name for c in comparisons for lines in c.baselines.values() for b in lines))
    if not kinds:
        return None
    rows = []
    for comparison in comparisons:
        for i, (rule, line) in enumerate(comparison.rules.items()):
            fitted = {b.name: b for b in comparison.baselines[rule]}
            for x in line.at:
                if x > comparison.start or i == 0:  # the start, which all rules share, once
                    baselines = [fitted[kind].values(x) if kind in fitted else [] for kind in kinds]
                    rows.append([*cells((comparison, rule, x)), *map(with_spread, [line.values(x), *baselines])])
    note = f"{metric_name(metric)} on the test texts, mean ± standard deviation over seeds."
    return Table(["", "labels", "the model", *kinds], rows, note=note[0].upper() + note[1:])


# --- What a rule saves ---


def labels_needed(random: Line, rule: Line, x: float) -> tuple[float, Interval | None] | None:
    """The number of labels that random choice needs for the metric of the rule with x labels, and its 95% interval over
    seeds.

    None if the line of a seed never reaches the metric, or starts above it: then the number is unknown.
    """
    logs = []
    for seed, target in rule.at[x].items():
        curve = [(n, gain(rule.metric, values[seed])) for n, values in random.at.items() if seed in values]
        n = _crossing(curve, gain(rule.metric, target))
        if n is None:
            return None
        logs.append(math.log(n))
    interval = t_interval(logs)
    return math.exp(mean(logs)), Interval(*(math.exp(min(end, 700.0)) for end in interval)) if interval else None


def _crossing(curve: Sequence[tuple[float, float]], target: float) -> float | None:
    """The n at which straight lines between the points, over log n, first reach the target; None if they start
    there."""
    if curve and curve[0][1] >= target:
        return None
    for (n, low), (m, high) in itertools.pairwise(curve):
        if low < target <= high:
            return n * (m / n) ** ((target - low) / (high - low))
    return None


def _needed_table(keys: Sequence[RoundKey], cells: Callable[[RoundKey], list[str]], metric: str) -> Table:
    rows = []
    for key in keys:
        comparison, rule, x = key
        line = comparison.rules[rule]
        found = labels_needed(comparison.rules[RANDOM], line, x)
        interval = found[1] if found else None
        ends = f"{rounded(interval.low)} to {rounded(interval.high)}" if interval else ABSENT
        rows.append([*cells(key), with_spread(line.values(x)), rounded(found[0]) if found else ABSENT, ends])
    note = f"{ABSENT}: unknown, because with a seed random choice never reaches as much in its rounds, or starts there."
    note += " Between rounds it is assumed to rise along a straight line over the logarithm of the labels."
    return Table(["", "labels", metric_name(metric), "labels random needs", "95% interval"], rows, note=note)


# --- In words ---


def _headline(comparisons: Sequence[RuleComparison], compared: Tested[RoundKey], metric: str) -> str:
    """Whether any rule beats random choice, the metric of the best rule, and its gain in labels."""
    rules = [(comparison, rule) for comparison in comparisons for rule in comparison.chosen]
    if not rules:
        only_start = FIRST_ROUND in comparisons[0].rules
        why = "No round after the first has finished" if only_start else "Texts were drawn at random only"
        return f"{why}. Whether choosing texts pays is unknown."
    if not any(comparison.leads for comparison in comparisons):
        comparison, rule = max(rules, key=lambda pair: gain(metric, _last(pair[0].rules[pair[1]])))
        line = comparison.rules[rule]
        level = f"{metric_name(metric)} {reached(line.values(max(line.at)), metric)}"
        return (
            "Random choice was not run, so whether choosing texts pays is unknown. "
            f"The best rule, {rule}, has {level} with {max(line.at):,.0f} labels."
        )
    if not compared:
        return f"With one seed it is undecided whether choosing texts pays. {_levels(comparisons, metric)}"
    wins = {key: value for key, value in compared.items() if _is_win(key, compared, metric)}
    if not wins:
        many = f"None of the {len(rules)} rules" if len(rules) > 1 else "No:"
        name = "" if len(rules) > 1 else f" {rules[0][1]} did not"
        return f"{many}{name} beat random choice. {_levels(comparisons, metric)} {_losses(compared, metric)}"
    sure = {key: value for key, value in wins.items() if is_significant(*value)}
    return f"{_opening(sure or wins, bool(sure), comparisons)} {_best_lead(sure or wins, len(compared), metric)}"


def _last(line: Line) -> float:
    return line.mean(max(line.at))


def _is_win(key: RoundKey, compared: Tested[RoundKey], metric: str) -> bool:
    pair, p = compared[key]
    return gain(metric, pair.difference) > 0 and p < ALPHA


def _called(comparison: RuleComparison, rule: str, comparisons: Sequence[RuleComparison]) -> str:
    return rule if len(comparisons) == 1 else f"{rule} ({comparison.name})"


def _opening(wins: Tested[RoundKey], sure: bool, comparisons: Sequence[RuleComparison]) -> str:
    """Which rules beat random choice, and with how many labels."""
    by_rule: dict[str, list[str]] = {}
    for comparison, rule, x in wins:
        by_rule.setdefault(_called(comparison, rule, comparisons), []).append(f"{x:,.0f}")
    rules = "; ".join(f"{rule} with {join_words(labels)} labels" for rule, labels in by_rule.items())
    if sure:
        return f"It pays: these rules beat random choice significantly: {rules}."
    fewest = min(pair.pairs for pair, _ in wins.values())
    return (
        f"It seems to pay, but {fewest} seeds are too few to call it significant (at least {ENOUGH_PAIRS} are needed): "
        f"ahead of random choice are {rules}."
    )


def _best_lead(wins: Tested[RoundKey], comparisons: int, metric: str) -> str:
    """The largest gain over random choice, also in labels."""
    (comparison, rule, x), (pair, p) = max(wins.items(), key=lambda item: gain(metric, item[1][0].difference))
    line, random = comparison.rules[rule], comparison.rules[RANDOM]
    text = (
        f"The largest lead is that of {rule} with {x:,.0f} labels: {metric_name(metric)} {line.mean(x):.3f}, random "
        f"choice {random.mean(x):.3f}, a difference of {pair.difference:+.3f} ({tested(pair, p, comparisons)})"
    )
    if needed := labels_needed(random, line, x):
        n, between = needed
        interval = f" (95% interval {rounded(between.low)} to {rounded(between.high)})" if between else ""
        return f"{text}; random choice needs about {rounded(n)} labels{interval} for as much."
    return f"{text}."


def _levels(comparisons: Sequence[RuleComparison], metric: str) -> str:
    """The metrics of the best rule and of random choice at the largest number of labels that both have."""
    both = [
        (comparison, lead.name, max(lead.at)) for comparison in comparisons for lead in comparison.leads
    ]
    most = max(x for _, _, x in both)
    there = [(comparison, rule) for comparison, rule, x in both if x == most]
    comparison, rule = max(there, key=lambda pair: gain(metric, pair[0].rules[pair[1]].mean(most)))
    name = _called(comparison, rule, comparisons)
    best = f"the best rule, {name}," if len(there) > 1 else name
    own, random = comparison.rules[rule].values(most), comparison.rules[RANDOM].values(most)
    return (
        f"With {most:,.0f} labels {best} has {metric_name(metric)} {reached(own, metric)}, random choice "
        f"{reached(random, metric)}."
    )


def _losses(compared: Tested[RoundKey], metric: str) -> str:
    """The best difference, which is no significant gain, and how often rules are worse than random choice."""
    (_, rule, x), (pair, p) = max(compared.items(), key=lambda item: gain(metric, item[1][0].difference))
    text = f"The best difference is {pair.difference:+.3f}"
    seeds = f" over {pair.pairs} seeds" if pair.interval else ""
    test = f"{interval_of(pair)}{seeds}, {p_value(p)}{corrected_for(len(compared))}"
    behind = [key for key, (other, q) in compared.items() if _is_loss(other, q, metric)]
    worse = f"; behind random choice in {len(behind)} of {len(compared)} comparisons" if behind else ""
    return f"{text}, of {rule} with {x:,.0f} labels ({test}), which {significance(pair, p)}{worse}."


def _is_loss(pair: Paired, p: float, metric: str) -> bool:
    return gain(metric, pair.difference) < 0 and is_significant(pair, p)


# --- The picture ---


def _draw(comparisons: Sequence[RuleComparison], metric: str, path: Path) -> Path:
    """A row for each setting: what each rule reaches, and its difference from random choice, seed by seed."""
    columns = 1 + any(comparison.leads for comparison in comparisons)
    title = "What labels are worth, by how the texts are chosen"
    figure = new_figure(9 if columns == 1 else 12.5, 1.2 + 4.4 * len(comparisons), title)
    panels = figure.subplots(len(comparisons), columns, sharex="col", sharey="col", squeeze=False)
    for i, (row, comparison) in enumerate(zip(panels, comparisons, strict=True)):
        lines = comparison.drawn
        styles = dict(zip((line.name for line in lines), styles_of(lines), strict=True))
        for axes, shown, step in zip(row, (lines, comparison.leads), (0.007, 0.02), strict=False):
            for line, offset in zip(shown, offsets(len(shown), step), strict=True):
                draw_line(axes, line, styles[line.name], offset=offset)
            add_explanations(axes, shown)
            log_axis(axes, sorted({x for line in shown for x in line.at}))
            axes.grid(alpha=0.3)
        below = "Labelled texts" if i == len(comparisons) - 1 else ""
        name_axes(row[0], title=short(comparison.name, 40), x=below, y=axis_label(metric))
        if columns == 2:
            name_axes(row[1], title="Minus random choice, seed by seed", x=below, y="Difference")
            row[1].axhline(0, linewidth=2.2, color=SERIES[0]["color"])  # in the style of random choice, the first line
    texts = min(fewest_texts(comparison.drawn) for comparison in comparisons)
    within_range(panels[0, 0], metric)  # the rows share their axes, so their limits come after the last line
    widen(panels[0, 0], metric, texts)
    if columns == 2:
        widen(panels[0, 1], metric, texts, difference=True)
    legend(figure, panels.ravel())
    return save(figure, path, svg=True)


ACTIVE = StudyQuestion(
    "active", _answer, fits=lambda study: study.config.active is not None, needs="a section [active]"
)
