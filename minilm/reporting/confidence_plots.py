"""Figures of a classifier's confidence: the reliability diagram, and accuracy against coverage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minilm.evaluation.calibration import Reliability
from minilm.evaluation.selective import CoverageCurve
from minilm.reporting.style import GREY, MARK, SERIES, TEST, VALIDATION, legend, name_axes, new_figure, save

COLOURS = {"validation": VALIDATION, "test": TEST}
LEAST_GIVEN = 0.02  # with several labels per text, the curve ends at this threshold, as lower ones are not useful


def reliability_diagram(
    before: Reliability, after: Reliability, split: str, path: Path, *, several: bool = False
) -> Path:
    """The fraction of right answers against their probability. Points of a calibrated classifier are on the diagonal.

    before, after: without and with the temperature. several: whether a text may have several labels.
    """
    figure = new_figure(6.6, 6.2, f"Do the probabilities come true? ({split} texts)")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.5, label="calibrated")
    found = (("without temperature", before, SERIES[1]), ("with temperature", after, SERIES[0]))
    for name, each, style in found:
        label = f"{name} (error {each.error:.3f})"
        axes.plot(each.confidence, each.accuracy, label=label, linewidth=2.0, markersize=6, **style)
    # The highest probability of C classes is at least 1/C, so the empty part of the figure is not shown.
    least = 0.0 if several else min(float(min(e.confidence.min(), e.accuracy.min())) for e in (before, after))
    low = max(0.0, np.floor(10 * (least - 0.03)) / 10)
    axes.set_xlim(low, 1.0)
    axes.set_ylim(low, 1.0)
    axes.set_aspect("equal")
    what = "Fraction of labels that apply" if several else "Fraction of answers that are right"
    name_axes(axes, title="", x="Mean probability of the answers in a bin", y=what)
    axes.grid(alpha=0.3)
    legend(figure, [axes])
    return save(figure, path)


def accuracy_and_coverage(
    curve: CoverageCurve, each: int, split: str, path: Path, *, several: bool = False
) -> Path:
    """The accuracy of the most confident answers against their number. ``each``: the number of answers per text."""
    title = "How right are labels of at least some probability?" if several else "How right are the surest answers?"
    figure = new_figure(7.6, 4.8, f"{title} ({split} texts)")
    axes = figure.subplots()
    drawn = curve.threshold >= LEAST_GIVEN if several else np.ones(len(curve.threshold), dtype=bool)
    coverage, accuracy = each * curve.coverage[drawn], curve.accuracy[drawn]
    axes.plot(coverage, accuracy, color=COLOURS[split], linewidth=2.2, drawstyle="steps-pre")
    chosen = np.flatnonzero(curve.threshold[drawn] >= 0.5)[-1:] if several else np.array([len(coverage) - 1])
    for k in chosen:
        style: dict[str, Any] = {"color": MARK, "markersize": 8, "clip_on": False}  # whole at the edge too
        at = "threshold 0.5" if several else "all texts answered"
        axes.plot([coverage[k]], [accuracy[k]], "o", label=f"{at}: {accuracy[k]:.3f}", **style)
    axes.set_xlim(0, None if several else 1.0)
    low = float(accuracy.min(initial=1.0))
    axes.set_ylim(max(0.0, low - max(0.02, 0.1 * (1 - low))), 1.005)
    if several:
        name_axes(axes, title="", x="Labels given a text", y="Fraction of them that is right")
    else:
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        name_axes(axes, title="", x="Texts that are answered, the surest first", y="Accuracy")
    axes.grid(alpha=0.3)
    legend(figure, [axes])
    return save(figure, path)
