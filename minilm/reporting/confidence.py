"""The section of a run's report about its probabilities: calibration, and accuracy against coverage."""

from __future__ import annotations

from minilm.evaluation.calibration import FEWEST
from minilm.reporting.page import Block, Folded, Prose, Section, Span, Table
from minilm.reporting.record import Run
from minilm.reporting.results import Calibration, Results
from minilm.reporting.tables import count, decimal

FEW = 500  # with fewer texts, most of the calibration error is chance
NO_TEST = " The temperature was fitted on these texts, so its results here are better than on new texts."


def confidence_section(run: Run) -> Section | None:
    """Calibration without and with the temperature, and accuracy against coverage; why there is no temperature, if a
    model was trained with few texts; else None."""
    found, fitted_on = run.results.calibration, run.results.data.sizes["validation"]
    if found is None:
        trained, why = run.results.best is not None and 0 < fitted_on < FEWEST, no_temperature(fitted_on)
        return Section("What its probabilities mean", [f"{why.capitalize()}."]) if trained else None
    texts = run.results.data.sizes[found.split]
    several = run.results.multi_label
    blocks: list[Block] = [_temperature(found, several, fitted_on)]
    if several and len(found.temperature) > 1:
        rows = [[name, f"{t:.3f}"] for name, t in zip(run.results.labels, found.temperature, strict=True)]
        blocks.append(Folded("The temperature of each label", Table(["label", "temperature"], rows)))
    errors = (("without temperature", found.before), ("with temperature", found.after))
    table = [[name, decimal(e.expected_error), decimal(e.brier), decimal(e.loss)] for name, e in errors]
    note = (
        f"On the {count(texts)} {found.split} texts. Calibration error: the mean difference between the probability "
        "and the fraction of right answers, in 15 bins of equal size. Brier score: the mean squared distance to the "
        "truth. Lower is better."
    )
    if texts < FEW:
        note += f" With {count(texts)} texts, most of the calibration error may be chance."
    note += NO_TEST if found.split == "validation" else ""
    blocks.append(Table(["", "calibration error", "Brier score", "loss"], table, note=note))
    return Section("What its probabilities mean", [*blocks, _coverage(found, several)])


def no_temperature(texts: int) -> str:
    """Why probabilities have no temperature."""
    return (
        f"no temperature was fitted, as {texts:,} validation texts are fewer than {FEWEST}: whether the probabilities "
        "are too high or too low is not known"
    )


def _temperature(found: Calibration, several: bool, fitted_on: int) -> Prose:
    if several:
        low, high = min(found.temperature), max(found.temperature)
        what = f"The score of each label is divided by its own temperature, from {low:.3g} to {high:.3g}"
    else:
        [t] = found.temperature
        effect = "less confident" if t > 1 else "more confident"
        what = f"Scores are divided by a temperature of {t:.3g}, which makes the answers {effect}"
    few = ", which are few: it may be far off" if fitted_on < FEWEST else ""
    text = f"{what}. It was fitted on the {count(fitted_on)} validation texts{few}. "
    return [text, Span("minilm predict", "code"), " uses it, unless --raw is given."]


def _coverage(found: Calibration, several: bool) -> Table:
    """The table of accuracy against coverage for several probability thresholds."""
    rows = [
        [f"{p.threshold:.3f}", f"{p.coverage:.2f}" if several else f"{p.coverage:.1%}", f"{p.accuracy:.1%}"]
        for p in found.coverage
    ]
    if several:
        header = ["labels given from a probability of", "labels per text", "right"]
        note = "--threshold gives only such labels; --min-precision chooses a threshold per label by validation."
    else:
        header = ["answers from a probability of", "texts answered", "right"]
        note = "--unsure-below gives only such answers; --min-precision chooses the probability by validation."
    return Table(header, rows, left=0, note=note)


def threshold_sentence(results: Results, chosen: bool) -> str:
    """A sentence about the decision threshold; empty if there is none. chosen: whether it was chosen by validation."""
    threshold = results.decision_threshold
    if threshold is None:
        return ""
    by = ", chosen on the validation texts." if chosen else "."
    if isinstance(threshold, list):
        low, high = min(threshold), max(threshold)
        return f" Each label has its own threshold, from {low:.2f} to {high:.2f}{by}"
    if results.multi_label:
        return f" A label is given if its probability is at least {threshold:.2f}{by}"
    return f' "{results.labels[1]}" is given from a probability of {threshold:.2f}, else "{results.labels[0]}"{by}'
