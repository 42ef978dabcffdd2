"""What the user wishes of a classifier's answers, if not what was chosen in training: --threshold and its like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from minilm.callers import option
from minilm.errors import UserError, located
from minilm.evaluation.decisions import Decision
from minilm.evaluation.selective import OperatingPoint
from minilm.evaluation.validation_scores import ValidationScores, points_for_precision, with_precision


class Decider(Protocol):
    """What wishes change in a classifier; ``Predictor`` has it."""

    labels: list[str]
    decision: Decision

    @property
    def multi_label(self) -> bool: ...

    def without_temperature(self) -> None: ...

    def validation(self) -> ValidationScores: ...


@dataclass(frozen=True)
class Wishes:
    """Options that change the decision which was chosen in training."""

    raw: bool = False  # without the temperature
    threshold: float | None = None
    unsure_below: float | None = None
    min_precision: float | None = None  # choose the lowest thresholds with this precision on validation texts


USUAL = Wishes()


def apply_wishes(predictor: Decider, wishes: Wishes) -> list[str]:
    """Apply options to a predictor; returns messages about them. Raises UserError for an option that is not
    possible."""
    precision = option("--min-precision")
    given = {option("--threshold"): wishes.threshold, option("--unsure-below"): wishes.unsure_below}
    if wishes.min_precision is not None and (other := [key for key, value in given.items() if value is not None]):
        raise UserError(f"give either {precision}, which chooses a probability, or {other[0]}, not both")
    if wishes.raw:
        predictor.without_temperature()
    if wishes.threshold is not None:
        predictor.decision = predictor.decision.with_threshold(wishes.threshold, len(predictor.labels))
    if wishes.unsure_below is not None:
        predictor.decision = predictor.decision.with_unsure_below(wishes.unsure_below)
    if wishes.min_precision is None:
        return []
    with located(precision):
        points = points_for_precision(predictor.decision, predictor.validation(), wishes.min_precision)
    if predictor.multi_label:
        predictor.decision = with_precision(predictor.decision, points)
        return _of_labels(predictor.labels, points, wishes.min_precision)
    [point] = points
    if not point.reached:
        raise UserError(
            f"{precision}: no threshold has a precision of {wishes.min_precision:g} on the validation texts; the "
            f"highest is {point.precision:.3f}, with the threshold {point.threshold:.4g}, for "
            f"{point.coverage:.0%} of texts"
        )
    predictor.decision = predictor.decision.with_unsure_below(point.threshold)
    return [
        f"on the validation texts, {point.coverage:.1%} of texts ({point.answered:,}) have answers of a probability of "
        f"at least {point.threshold:.4g}, of which {point.precision:.1%} are right; the others are unsure"
    ]


def _of_labels(labels: Sequence[str], points: Sequence[OperatingPoint], precision: float) -> list[str]:
    """Messages about the threshold of each label."""
    reached = [point for point in points if point.reached]
    never = [name for name, point in zip(labels, points, strict=True) if not point.reached]
    lines = [f"on the validation texts, {len(reached):,} of {len(labels):,} labels reach a precision of {precision:g}"]
    if never:
        shown = ", ".join(f'"{name}"' for name in never[:10]) + (", ..." if len(never) > 10 else "")
        lines.append(f"these labels do not reach it at any threshold and are never given: {shown}")
    return lines
