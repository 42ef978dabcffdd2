"""How does the error fall with the number of training texts, what is expected with twice as many, and where does the
curve flatten?

The power law, its fit and its band are in ``minilm.studies.power_law``. As a check, the law is also fitted without the
largest size, and its prediction for that size is compared with the measured metric.

If the forecast for more texts is worse than a metric that was already measured, the law fits the largest sizes badly;
then the page gives no forecast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from minilm.errors import UserError
from minilm.evaluation.statistics import Interval, mean
from minilm.measures import HIGHER_IS_BETTER
from minilm.reporting.over_seeds import reached
from minilm.reporting.page import Block, Picture, Section, Table
from minilm.reporting.style import legend, name_axes, new_figure, save, widen
from minilm.reporting.tables import ABSENT, metric_name, titled
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
from minilm.studies.lines import Line, best_line, lines_of, lines_table, rounded
from minilm.studies.plan import Study
from minilm.studies.power_law import PowerLaw, fit_power_law, why_no_power_law
from minilm.studies.question import StudyAnswer, StudyQuestion

GAIN = 0.01  # more texts are worth their cost if twice as many lower the error by at least this
SIZE_KEYS = ("data.train_rows", "data.shots")


def _answer(study: Study, runs: Sequence[FinishedRun], figures: Path) -> StudyAnswer:
    """The metric of each variant over the number of texts, its power law, its forecast and its check."""
    metric = study.config.metric
    key = next((key for key in SIZE_KEYS if key in study.config.axes), SIZE_KEYS[0])
    lines, baselines = lines_of(runs, [key], lambda finished: float(finished.size("train")), metric)
    if not lines:
        raise UserError(f"the analysis scaling needs runs that have the metric {metric} on test texts")
    everything = [*lines, *baselines]
    why = {line.name: why_no_power_law(errors_of(line)) for line in everything}
    laws = {line.name: fit_power_law(errors_of(line)) for line in everything if not why[line.name]}
    largest = max(x for line in lines for x in line.at)
    best = best_line(lines, largest)
    picture = _draw(everything, laws, metric, figures / "scaling.png")
    parts: list[Block] = [
        Picture(picture, f"{metric_name(metric)} and error over the number of training texts"),
        lines_table(everything, "training texts", lambda x: f"{x:,.0f}"),
    ]
    sections = [Section("What each number of texts gives", parts)]
    tables: list[Block] = [_laws_table([line for line in everything if line.name in laws], laws)] if laws else []
    tables += [f"{name}: no law is fitted; {reason}." for name, reason in why.items() if reason]
    sections.append(Section("The power laws", tables))
    if checks := {line.name: check for line in everything if (check := check_of(line))}:
        sections.append(Section("The check on the size held back", [_checks_table(checks)]))
    if best.name in laws:
        return StudyAnswer(_headline(best, laws[best.name]), sections)
    level = f"With {largest:,.0f} training texts {best.name} has {metric_name(metric)}"
    text = f"{level} {reached(best.values(largest), metric)}. How it grows with more is undecided: {why[best.name]}."
    return StudyAnswer(text, sections)


def errors_of(line: Line) -> dict[int, list[float]]:
    """size -> the error of each seed: 1 minus the metric."""
    assert HIGHER_IS_BETTER[line.metric]
    return {int(x): [1 - value for value in values.values()] for x, values in line.at.items()}


class Forecast(NamedTuple):
    """The metric that a law expects with twice the largest number of texts."""

    texts: int
    value: float
    interval: Interval
    measured: float  # with the largest number of texts

    @property
    def is_plausible(self) -> bool:
        """Whether it is at least as good as what was already measured with fewer texts."""
        return self.value >= self.measured


def forecast_of(line: Line, law: PowerLaw) -> Forecast:
    """What a line's law expects with twice the texts."""
    texts = 2 * law.sizes[-1]
    low, high = law.band(texts)
    interval = Interval(max(0.0, 1 - float(high)), min(1.0, 1 - float(low)))
    return Forecast(int(texts), 1 - float(law.error(texts)), interval, line.mean(law.sizes[-1]))


class HeldBackCheck(NamedTuple):
    """What the other sizes predict for the largest, and what was measured there: values of the metric."""

    size: int
    predicted: float
    interval: Interval  # of a mean over as many seeds
    measured: float

    @property
    def held(self) -> bool:
        """Whether the prediction was right."""
        return self.interval.low <= self.measured <= self.interval.high


def check_of(line: Line) -> HeldBackCheck | None:
    """The check of a line; None if the other sizes are too few."""
    errors = errors_of(line)
    largest = max(errors)
    others = {size: values for size, values in errors.items() if size != largest}
    if len(others) < 3 or why_no_power_law(others):
        return None
    law = fit_power_law(others)
    low, high = np.clip(law.prediction(largest, len(errors[largest])), 0, 1)
    interval = Interval(1 - float(high), 1 - float(low))
    return HeldBackCheck(largest, 1 - float(law.error(largest)), interval, 1 - mean(errors[largest]))


# --- Tables ---


def _laws_table(lines: Sequence[Line], laws: Mapping[str, PowerLaw]) -> Table:
    header = ["", "error (n texts)", "b, 95% interval", "c, 95% interval", "with twice the texts", "95% interval"]
    header += [f"twice gains < {GAIN:g} from", "95% interval"]
    rows = []
    for line in lines:
        law = laws[line.name]
        b, c, forecast = law.exponent(), law.floor(), forecast_of(line, law)
        flat, between = law.flattens(GAIN)
        expected = [f"{forecast.texts:,}: no forecast", ABSENT]
        if forecast.is_plausible:
            ends = f"{forecast.interval.low:.4f} to {forecast.interval.high:.4f}"
            expected = [f"{forecast.texts:,}: {metric_name(line.metric)} {forecast.value:.4f}", ends]
        rows.append(
            [
                line.name,
                formula(law),
                f"{b.low:.2f} to {b.high:.2f}",
                f"{c.low:.3f} to {c.high:.3f}",
                *expected,
                rounded(flat),
                f"{rounded(between.low)} to {rounded(between.high)}",
            ]
        )
    note = "Fitted by weighted least squares; intervals by a parametric bootstrap, 2,000 fits to means drawn again. "
    note += "No forecast: the law expects less than what was already measured with the most texts."
    return Table(header, rows, left=2, note=note)


def _checks_table(checks: Mapping[str, HeldBackCheck]) -> Table:
    header = ["", "held back", "predicted", "95% interval", "measured", ""]
    rows = []
    for name, check in checks.items():
        interval = f"{check.interval.low:.4f} to {check.interval.high:.4f}"
        cells = [f"{check.predicted:.4f}", interval, f"{check.measured:.4f}", "inside" if check.held else "outside"]
        rows.append([name, f"{check.size:,}", *cells])
    return Table(header, rows, note="The law is fitted to all sizes but the largest, and predicts the largest.")


# --- In words ---


def formula(law: PowerLaw) -> str:
    """``2.1 n^-0.50 + 0.080``."""
    a, b, c = law.parameters
    return f"{a:.3g} n^-{b:.2f} + {c:.3f}" if a > 0 else f"{c:.3f}, flat"


def _headline(line: Line, law: PowerLaw) -> str:
    """The law, its forecast, where it flattens, and whether the check held."""
    most = law.sizes[-1]
    between_sizes = f"From {law.sizes[0]:,.0f} to {most:,.0f} training texts the error of {line.name}"
    if not law.falls:
        return (
            f"{between_sizes} does not fall by more than chance explains. What more texts would give is undecided."
        )
    b = law.exponent()
    first = f"{between_sizes} falls as {formula(law)} (95% interval of the exponent {b.low:.2f} to {b.high:.2f})"
    flat, between = law.flattens(GAIN)
    second = (
        f"Twice the texts gain less than {GAIN:g} from about {rounded(flat)} on (95% interval {rounded(between.low)} "
        f"to {rounded(between.high)}), {_inside_or_outside(between, most)}"
    )
    check = check_of(line)
    if check is None:
        return f"{first}. {_forecast(line, law)} {second}; there are too few sizes to hold one back as a check."
    return (
        f"{first}. {_forecast(line, law)} {second}; the prediction of the size held back was "
        f"{'right' if check.held else 'wrong'}: at {check.size:,} texts {check.predicted:.4f} "
        f"({check.interval.low:.4f} to {check.interval.high:.4f}) predicted, {check.measured:.4f} measured."
    )


def _forecast(line: Line, law: PowerLaw) -> str:
    """What twice the texts are expected to give, in a sentence."""
    name, forecast = metric_name(line.metric), forecast_of(line, law)
    if not forecast.is_plausible:
        return (
            f"There is no forecast: with twice as many the law expects {name} {forecast.value:.3f}, less than the "
            f"{forecast.measured:.3f} already measured."
        )
    return (
        f"With twice as many it expects {name} {forecast.value:.3f} (95% interval {forecast.interval.low:.3f} to "
        f"{forecast.interval.high:.3f}); {forecast.measured:.3f} was measured with {forecast.texts // 2:,}."
    )


def _inside_or_outside(flat: Interval, most: float) -> str:
    """On which side of the largest size an interval lies."""
    if flat.low > most:
        return "which is beyond what was measured"
    if flat.high <= most:
        return "which is within what was measured"
    return "which may be within or beyond what was measured"


# --- The picture ---


def _draw(lines: Sequence[Line], laws: Mapping[str, PowerLaw], metric: str, path: Path) -> Path:
    """The metric, and the error on logarithmic axes: measured points, and the law up to twice the texts."""
    figure = new_figure(12, 5.6, "What more training texts give")
    plain, log = figure.subplots(1, 2)
    for line, style, offset in zip(lines, styles_of(lines), offsets(len(lines)), strict=True):
        draw_line(plain, line, style, join=line.name not in laws, offset=offset)
        at = {x: {seed: 1 - value for seed, value in seeds.items()} for x, seeds in line.at.items()}
        draw_line(log, replace(line, at=at), style, join=line.name not in laws, offset=offset)
        if line.name in laws:
            _draw_law(plain, log, laws[line.name], style, band=not line.baseline)
    add_explanations(plain, lines, "lines: a n^-b + c; band: its 95% interval" if laws else "")
    points = sorted({x for line in lines for x in line.at})
    errors = [1 - v for line in lines for values in line.at.values() for v in values.values()]
    _error_axis(log, errors)
    for axes in (plain, log):
        log_axis(axes, points)
        axes.axvspan(points[-1], 2.05 * points[-1], color="#000000", alpha=0.06, linewidth=0)
        axes.grid(alpha=0.3)
    values = [1 - e for e in errors]
    margin = 0.08 * (max(values) - min(values)) or 0.05
    plain.set_ylim(min(values) - margin, max(values) + margin)
    widen(plain, metric, fewest_texts(lines))
    x = "Training texts (shaded: not measured)"
    name_axes(plain, title=titled(metric), x=x, y=axis_label(metric))
    name_axes(log, title="Error, both axes logarithmic", x=x, y=f"1 - {titled(metric)}")
    legend(figure, [plain])
    return save(figure, path, svg=True)


def _error_axis(axes: Axes, errors: Sequence[float]) -> None:
    """A logarithmic y axis with round ticks."""
    axes.set_yscale("log")
    low, high = 0.8 * max(min(errors), 1e-4), min(1.15 * max(errors), 1.0)
    axes.set_ylim(low, high)
    ticks = [t for t in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1) if low <= t <= high]
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.yaxis.set_minor_locator(NullLocator())


def _draw_law(plain: Axes, log: Axes, law: PowerLaw, style: Mapping[str, Any], *, band: bool) -> None:
    x = np.geomspace(law.sizes[0], 2 * law.sizes[-1], 120)
    middle, (low, high) = law.error(x), law.band(x)
    seen = x <= law.sizes[-1]
    for axes, flip in ((plain, True), (log, False)):
        y, bottom, top = (1 - v if flip else v for v in (middle, low, high))
        axes.plot(x[seen], y[seen], color=style["color"], linewidth=2, linestyle=style["linestyle"])
        axes.plot(x[~seen], y[~seen], color=style["color"], linewidth=2, linestyle=":")
        if band:
            axes.fill_between(x, bottom, top, color=style["color"], alpha=0.16, linewidth=0)


SCALING = StudyQuestion(
    "scaling",
    _answer,
    fits=lambda study: study.config.metric not in ("mcc", "loss"),
    needs="a metric whose best value is 1, such as metric=accuracy",
)
