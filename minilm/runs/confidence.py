"""Evaluate a classifier's probabilities on one split: calibration, and accuracy against coverage."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minilm.evaluation.calibration import answers, brier_score, calibration_error, reliability
from minilm.evaluation.decisions import Decision
from minilm.evaluation.measuring import measure
from minilm.evaluation.selective import CoverageCurve, coverage_curve
from minilm.reporting.confidence_plots import accuracy_and_coverage, reliability_diagram
from minilm.reporting.results import Calibration, CalibrationErrors, CoveragePoint

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)  # fractions of texts that a report lists
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # for several labels per text: probabilities


def measure_calibration(decision: Decision, labels: np.ndarray, scores: np.ndarray, split: str) -> Calibration | None:
    """The calibration of the scores (N, C) of a split, without and with the decision's temperature.

    labels (N,), or (N, C) of 0 and 1. None if the decision has no temperature.
    """
    if decision.temperature is None:
        return None
    return Calibration(
        split=split,
        temperature=decision.temperature.tolist(),
        before=_errors(decision.without_temperature(), labels, scores),
        after=_errors(decision, labels, scores),
        coverage=_points(decision, labels, scores),
    )


def draw_confidence(decision: Decision, labels: np.ndarray, scores: np.ndarray, split: str, figures: Path) -> None:
    """Draw ``calibration.png`` and ``coverage.png``."""
    if decision.temperature is None:
        return
    before, after = (
        reliability(*answers(labels, d.probabilities(scores))) for d in (decision.without_temperature(), decision)
    )
    several = decision.kind == "multi"
    reliability_diagram(before, after, split, figures / "calibration.png", several=several)
    each = labels.shape[1] if several else 1  # answers per text
    accuracy_and_coverage(_curve(decision, labels, scores), each, split, figures / "coverage.png", several=several)


def _errors(decision: Decision, labels: np.ndarray, scores: np.ndarray) -> CalibrationErrors:
    p = decision.probabilities(scores)
    loss = measure(labels, decision.calibrated(scores)).loss
    return CalibrationErrors(calibration_error(labels, p), brier_score(labels, p), loss)


def _curve(decision: Decision, labels: np.ndarray, scores: np.ndarray) -> CoverageCurve:
    """Accuracy against coverage of texts, or with several labels, of the labels of all texts together."""
    p = decision.probabilities(scores)
    if decision.kind == "multi":
        return coverage_curve(*answers(labels, p))
    return coverage_curve(decision.confidence(p), decision.choose(p) == labels)


def _points(decision: Decision, labels: np.ndarray, scores: np.ndarray) -> list[CoveragePoint]:
    """Points of the curve: at some coverages; with several labels, at some thresholds."""
    curve, each = _curve(decision, labels, scores), labels.shape[1] if labels.ndim == 2 else 1
    if decision.kind == "multi":
        places = [int(np.searchsorted(-curve.threshold, -t, side="right")) - 1 for t in THRESHOLDS]
    else:
        places = [int(np.searchsorted(curve.coverage, c - 1e-12)) for c in COVERAGES]
    return [
        CoveragePoint(float(curve.threshold[k]), each * float(curve.coverage[k]), float(curve.accuracy[k]))
        for k in dict.fromkeys(places)
        if k >= 0
    ]
