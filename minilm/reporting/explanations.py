"""Show explained predictions in the terminal, and those of ``explanations.json`` in a run's report."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from minilm.atomic import atomic
from minilm.evaluation.explained import ExplainedText
from minilm.reporting.page import Block, Folded, Section, Table, Weighted
from minilm.reporting.record import Run
from minilm.reporting.tables import text_table
from minilm.schema import JSON, as_table, read_table
from minilm.terminal import printable
from minilm.textfiles import read_json

EXPLANATIONS = "explanations.json"
FOR, AGAINST = (0, 114, 178), (200, 110, 0)  # blue and orange, which are distinguishable with colour blindness
LISTED = 20  # the most words in the terminal's table


@dataclass(frozen=True)
class Explanations:
    """The contents of explanations.json."""

    texts: list[ExplainedText]


def write_explanations(folder: Path, texts: Sequence[ExplainedText]) -> None:
    """Save explanations in a run's folder."""
    with atomic(folder / EXPLANATIONS) as file:
        file.write(json.dumps(as_table(Explanations(list(texts))), ensure_ascii=False).encode(errors="replace"))


def explanation_text(found: ExplainedText) -> str:
    """A text for the terminal: the prediction, the text in colours, and the words that contribute most."""
    shown = "".join(_coloured(text, weight) for text, weight in found.pieces())
    words = sorted(found.words, key=lambda word: -abs(word.attribution))[:LISTED]
    rows = [[word.text, f"{word.attribution:+.3f}", f"{word.left_out:+.3f}"] for word in words]
    header = ("word", "counts for it", "falls without it")
    return "\n".join([*_about(found), "", shown, "", text_table(header, rows)])


def _coloured(text: str, weight: float | None) -> str:
    text = printable(text, keep="\n\t")
    if weight is None:
        return text
    red, green, blue = (round(255 - (255 - c) * min(1.0, abs(weight))) for c in (FOR if weight > 0 else AGAINST))
    return click.style(text, fg=(255, 255, 255) if abs(weight) > 0.6 else (0, 0, 0), bg=(red, green, blue))


def _about(found: ExplainedText) -> list[str]:
    """Lines with the numbers of the prediction."""
    what = "its words replaced by zeros" if found.baseline == "zero" else f"each word replaced by {found.baseline}"
    lines = [
        f"{printable(found.label)} {found.probability:.3f}",
        f"log-odds {found.score:+.3f}; with {printable(what)} {found.baseline_score:+.3f}; the difference is the sum "
        f"of the numbers of all words, with an error of {found.completeness_error:.1%}",
    ]
    if found.windows > 1:
        own = 1 / (1 + math.exp(-found.score))
        lines.append(f"window {found.window} of {found.windows}, with the highest probability for it: {own:.3f}")
    return lines


def explanations_section(run: Run) -> Section | None:
    """The report's section of explanations; None if there are none."""
    path = run.folder / EXPLANATIONS
    if not path.is_file():
        return None
    found = read_table(Explanations, read_json(path), lambda key: str(path), syntax=JSON)
    about = (
        "How much each word of some texts contributes to the predicted label, by integrated gradients: blue words are "
        "evidence for the label, orange words against it. The tables show these contributions in log-odds and, as a "
        "check, how much the log-odds fall if the word is removed."
    )
    blocks: list[Block] = [about]
    for text in found.texts:
        blocks += [f"{text.label} {text.probability:.3f}:", Weighted(list(text.pieces()))]
        rows = [[word.text, f"{word.attribution:+.3f}", f"{word.left_out:+.3f}"] for word in text.words]
        note = " ".join(f"{line}." for line in _about(text)[1:])
        blocks.append(Folded("In numbers", Table(["word", "counts for it", "falls without it"], rows, note=note)))
    return Section("Why these answers", blocks)
