"""How does the error fall with the training rows, what would twice as many give, and where does it flatten?

The law, its fit and its band are in ``minilm.studies.scaling``. The largest size is a check too: it is held back, and
what the others foretell of it is compared with what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minilm.errors import UserError
from minilm.evaluation.metrics import HIGHER_IS_BETTER
from minilm.evaluation.statistics import Interval, mean
from minilm.reporting.over_seeds import reached
from minilm.reporting.page import Block, Picture, Section, Table
from minilm.reporting.tables import metric_name
from minilm.studies.questions.lines import Line, best_line, lines_of, lines_table, number
from minilm.studies.scaling import Curve, fit_curve, why_no_curve

if TYPE_CHECKING:
    from minilm.studies.analyses import Finished
    from minilm.studies.config import Study

GAIN = 0.01  # an error that twice the rows must lower by, to be worth it
KEYS = ("data.train_rows", "data.shots")


def scaling(study: Study, runs: Sequence[Finished], figures: Path) -> tuple[str, list[Section]]:
    """The learning curve of each variant, its power law, its forecast and its check."""
    from minilm.studies.questions.pictures import scaling_picture

    metric = study.config.metric
    key = next((key for key in KEYS if key in study.config.axes), KEYS[0])
    lines, baselines = lines_of(runs, [key], _rows, metric)
    if not lines:
        raise UserError(f"the analysis scaling needs runs that were measured on test texts by {metric}")
    everything = [*lines, *baselines]
    why = {line.name: why_no_curve(errors_of(line, metric)) for line in everything}
    curves = {line.name: fit_curve(errors_of(line, metric)) for line in everything if not why[line.name]}
    largest = max(x for line in lines for x in line.at)
    best = best_line(lines, largest, metric)
    picture = scaling_picture(everything, curves, metric, figures / "scaling.png")
    parts: list[Block] = [
        Picture(picture, f"{metric_name(metric)} and error over the number of training texts"),
        lines_table(everything, "training texts", metric, lambda x: f"{x:,.0f}"),
    ]
    sections = [Section("What each number of texts gives", parts)]
    laws: list[Block] = [_laws(curves, metric)] if curves else []
    laws += [f"{name}: no curve is fitted; {reason}." for name, reason in why.items() if reason]
    sections.append(Section("The curves", laws))
    if checks := {line.name: check for line in everything if (check := check_of(line, metric))}:
        sections.append(Section("A check on the size held back", [_checks(checks)]))
    if best.name in curves:
        return answer(best, curves[best.name], metric), sections
    first = f"With {largest:,.0f} training texts {best.name} has {metric_name(metric)} {reached(best.values(largest))}"
    return f"{first}. How it grows with them cannot be told: {why[best.name]}.", sections


def _rows(finished: Finished) -> float:
    return float(finished.run.results.data.sizes["train"])


def errors_of(line: Line, metric: str) -> dict[int, list[float]]:
    """size -> the error of each seed: what the metric lacks to 1."""
    assert HIGHER_IS_BETTER[metric]
    return {int(x): [1 - value for value in values.values()] for x, values in line.at.items()}


def without_largest(errors: dict[int, list[float]]) -> tuple[int, Curve | None]:
    """The largest size, and the curve of the others; None where they are too few."""
    largest = max(errors)
    others = {size: values for size, values in errors.items() if size != largest}
    return largest, None if why_no_curve(others) else fit_curve(others)


def _laws(curves: dict[str, Curve], metric: str) -> Table:
    header = ["", "error (n texts)", "b, 95% interval", "c, 95% interval", "with twice the texts", "95% interval"]
    header += [f"twice gain less than {GAIN:g} from", "95% interval"]
    rows = []
    for name, curve in curves.items():
        b, c, twice = curve.exponent(), curve.floor(), 2 * curve.sizes[-1]
        low, high = curve.band(twice)
        flat, between = curve.flattens(GAIN)
        rows.append(
            [
                name,
                law(curve),
                f"{b.low:.2f} to {b.high:.2f}",
                f"{c.low:.3f} to {c.high:.3f}",
                f"{twice:,.0f}: {metric_name(metric)} {1 - float(curve.error(twice)):.4f}",
                f"{1 - float(high):.4f} to {1 - float(low):.4f}",
                number(flat),
                f"{number(between.low)} to {number(between.high)}",
            ]
        )
    note = "Fitted by weighted least squares; intervals by a parametric bootstrap, 2,000 fits to means drawn again."
    return Table(header, rows, left=2, note=note)


class Check(NamedTuple):
    """What the other sizes foretell of the largest, and what was measured there: the metric."""

    size: int
    foretold: float
    interval: Interval  # of a mean over as many seeds
    measured: float

    @property
    def held(self) -> bool:
        """Whether the forecast was right."""
        return self.interval.low <= self.measured <= self.interval.high


def check_of(line: Line, metric: str) -> Check | None:
    """The check of a line; None where the other sizes are too few."""
    errors = errors_of(line, metric)
    if len(errors) < 4:
        return None
    largest, curve = without_largest(errors)
    if curve is None:
        return None
    low, high = np.clip(curve.prediction(largest, len(errors[largest])), 0, 1)
    between = Interval(1 - float(high), 1 - float(low))
    return Check(largest, 1 - float(curve.error(largest)), between, 1 - mean(errors[largest]))


def _checks(checks: dict[str, Check]) -> Table:
    header = ["", "held back", "foretold", "95% interval", "measured", ""]
    rows = []
    for name, check in checks.items():
        between = f"{check.interval.low:.4f} to {check.interval.high:.4f}"
        cells = [f"{check.foretold:.4f}", between, f"{check.measured:.4f}", "inside" if check.held else "outside"]
        rows.append([name, f"{check.size:,}", *cells])
    return Table(header, rows, note="Fitted to all sizes but the largest, which it then foretells.")


def law(curve: Curve) -> str:
    """``2.1 n^-0.50 + 0.080``."""
    a, b, c = curve.parameters
    return f"{a:.3g} n^-{b:.2f} + {c:.3f}" if a > 0 else f"{c:.3f}, flat"


def answer(line: Line, curve: Curve, metric: str) -> str:
    """Two sentences: the law with its forecast; where it flattens, and whether the check held."""
    what, most = metric_name(metric), curve.sizes[-1]
    if not curve.falls:
        return (
            f"From {curve.sizes[0]:,.0f} to {most:,.0f} training texts the error of {line.name} does not fall by more "
            f"than chance would have it. What more texts would give cannot be told."
        )
    low, high = curve.band(2 * most)
    b = curve.exponent()
    first = (
        f"From {curve.sizes[0]:,.0f} to {most:,.0f} training texts the error of {line.name} falls as {law(curve)} "
        f"(95% interval of the exponent {b.low:.2f} to {b.high:.2f}), and twice as many are expected to give {what} "
        f"{1 - float(curve.error(2 * most)):.3f} (95% interval {1 - float(high):.3f} to {1 - float(low):.3f}), after "
        f"{line.mean(most):.3f} now"
    )
    flat, between = curve.flattens(GAIN)
    second = (
        f"Twice the texts gain less than {GAIN:g} from about {number(flat)} on (95% interval {number(between.low)} to "
        f"{number(between.high)}), {_where(between, most)}"
    )
    check = check_of(line, metric)
    if check is None:
        return f"{first}. {second}; there are too few sizes to hold one back as a check."
    return (
        f"{first}. {second}; the forecast of the size held back was {'right' if check.held else 'wrong'}: at "
        f"{check.size:,} texts {check.foretold:.4f} foretold ({check.interval.low:.4f} to {check.interval.high:.4f}), "
        f"{check.measured:.4f} measured."
    )


def _where(flat: Interval, most: float) -> str:
    """On which side of the largest size all of an interval lies."""
    if flat.low > most:
        return "which lies beyond what was measured"
    if flat.high <= most:
        return "which lies within what was measured"
    return "so whether that lies within or beyond what was measured cannot be told"
