"""The part of a run's report that is about its probabilities: whether they come true, and what answering only if sure
gives."""

from __future__ import annotations

from collections.abc import Sequence

from minilm.reporting.page import Block, Folded, Section, Table
from minilm.reporting.record import Run
from minilm.reporting.results import Calibration, Results
from minilm.reporting.tables import count, decimal

FEW = 500  # texts below which the calibration error is mostly chance
NO_TEST = " These are the texts that chose the temperature, which they flatter."


def confidence_section(run: Run) -> Section | None:
    """Calibration before and after the temperature, and accuracy against coverage; None: there was no temperature."""
    found = run.results.calibration
    if found is None:
        return None
    texts = run.results.data.sizes[found.split]
    several = run.results.multi_label
    blocks: list[Block] = [_temperature(found, run.results.labels, several)]
    if several and len(found.temperature) > 1:
        rows = [[name, f"{t:.3f}"] for name, t in zip(run.results.labels, found.temperature, strict=True)]
        blocks.append(Folded("The temperature of each label", Table(["label", "temperature"], rows)))
    errors = (("without temperature", found.before), ("with temperature", found.after))
    table = [[name, decimal(e.expected_error), decimal(e.brier), decimal(e.loss)] for name, e in errors]
    note = (
        f"On the {count(texts)} {found.split} texts. Calibration error: the mean gap between a probability and how "
        "often it comes true, in 15 bins of equally many answers. Brier score: the mean squared distance to the truth. "
        "Lower is better."
    )
    if texts < FEW:
        note += f" With {count(texts)} texts, most of the calibration error may be chance."
    note += NO_TEST if found.split == "validation" else ""
    blocks.append(Table(["", "calibration error", "Brier score", "loss"], table, note=note))
    return Section("What its probabilities mean", [*blocks, _coverage(found, several)])


def _temperature(found: Calibration, labels: Sequence[str], several: bool) -> str:
    if several:
        low, high = min(found.temperature), max(found.temperature)
        what = f"Each label's score is divided by a temperature of its own, from {low:.3g} to {high:.3g}"
    else:
        [t] = found.temperature
        effect = "less sure" if t > 1 else "surer"
        what = f"Scores are divided by a temperature of {t:.3g}, which makes the answers {effect}"
    return f"{what}; the validation texts chose it. `minilm predict` uses it, and does not with --raw."


def _coverage(found: Calibration, several: bool) -> Table:
    """What answering only from a probability on gives."""
    rows = [
        [f"{p.threshold:.3f}", f"{p.coverage:.2f}" if several else f"{p.coverage:.1%}", f"{p.accuracy:.1%}"]
        for p in found.coverage
    ]
    if several:
        header = ["labels given from a probability of", "labels a text", "right"]
        note = "--threshold gives such labels alone; --min-precision finds a threshold for each label on validation."
    else:
        header = ["answers from a probability of", "texts answered", "right"]
        note = "--unsure-below gives such answers alone; --min-precision finds the probability on validation."
    return Table(header, rows, left=0, note=note)


def threshold_sentence(results: Results, chosen: bool) -> str:
    """From which probability on a label is given; empty: none depends on one. chosen: whether validation chose it."""
    threshold = results.decision_threshold
    if threshold is None:
        return ""
    by = ", chosen on the validation texts." if chosen else "."
    if isinstance(threshold, list):
        low, high = min(threshold), max(threshold)
        return f" Each label is given from a probability of its own on, from {low:.2f} to {high:.2f}{by}"
    if results.multi_label:
        return f" A label is given from a probability of {threshold:.2f} on{by}"
    return f' "{results.labels[1]}" is given from a probability of {threshold:.2f} on, else "{results.labels[0]}"{by}'
