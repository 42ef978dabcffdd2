"""Classify the lines of a file or of standard input: each line is a text, or a pair of texts with a tab between them.

Also classifies the texts of a table, to show them; ``minilm.runs.predict`` writes whole tables with all columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minilm.data.readers import is_table
from minilm.data.sources import load_texts
from minilm.errors import UserError
from minilm.evaluation.predictor import Predictor
from minilm.evaluation.reading import Text, columns_of
from minilm.textfiles import read_lines

LINES = 512  # lines that are read and classified together


@dataclass(frozen=True)
class Answer:
    """A prediction for one text."""

    labels: list[str] | None  # of the text: one, or with several labels per text any number; None: a score
    scores: dict[str, float]  # label -> probability; or the name of an output -> its value
    unsure: bool | None = None  # whether the probability is too low for an answer; None: there is no limit

    def __str__(self) -> str:
        if self.labels is None:
            return ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items())
        if self.unsure:
            return f"unsure ({', '.join(self.labels)} {self.scores[self.labels[0]]:.2f})"
        return ", ".join(f"{label} {self.scores[label]:.2f}" for label in self.labels) or "none"

    def as_json(self) -> dict[str, Any]:
        """The answer as an object. An unsure answer and a score have no labels."""
        if self.labels is None:
            return {"scores": self.scores}
        asked = {} if self.unsure is None else {"unsure": self.unsure}
        return {"labels": [] if self.unsure else self.labels, **asked, "scores": self.scores}


def answer_of(predictor: Predictor, scores: dict[str, float]) -> Answer:
    """The answer for a text with these probabilities."""
    has_labels = predictor.decision.kind != "score"
    return Answer(predictor.decide(scores) if has_labels else None, scores, predictor.is_unsure(scores))


def predict_file(predictor: Predictor, path: Path, run: str | Path) -> Iterator[tuple[str, dict[str, float]]]:
    """The texts of a file with their ``{label: probability}``: those of a table (``predict_table``), or its lines."""
    if is_table(path):
        yield from predict_table(predictor, path, run)
        return
    place = f"{path}, line"
    with path.open("rb") as binary:
        yield from predict_lines(predictor, read_lines(binary, place), place)


def predict_table(classifier: Predictor, path: Path, run: str | Path) -> Iterator[tuple[str, dict[str, float]]]:
    """The texts of a table, with their ``{label: probability}``, in order. A tab joins the two texts of a pair.

    The texts are in the columns that the classifier's ``run`` was trained on. Raises UserError before the first
    prediction if a column is missing or a text cannot be read.
    """
    section, place = columns_of(Path(run), bool(classifier.reading.pairs))
    texts = load_texts(path, replace(section, clean=classifier.reading.clean), place)
    for start in range(0, len(texts), LINES):
        chunk = texts[start : start + LINES]
        shown = (text if isinstance(text, str) else "\t".join(text) for text in chunk)
        yield from zip(shown, classifier.predict(chunk), strict=True)


def predict_lines(
    classifier: Predictor, lines: Iterable[str], place: str = "text"
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each line with its ``{label: probability}``, in order. Lines are classified in chunks.

    If the classifier reads pairs, a line is two texts with a tab between them. Raises UserError with the line's number
    if the line is empty, before or after cleaning, or is not a pair.
    """
    numbered = iter(enumerate(lines, 1))
    while chunk := list(itertools.islice(numbered, LINES)):
        texts = [text_of_line(line, f"{place} {number}", bool(classifier.reading.pairs)) for number, line in chunk]
        scores = classifier.predict(texts, place=place, first=chunk[0][0])
        yield from zip((line for _, line in chunk), scores, strict=True)


def text_of_line(line: str, place: str, as_pair: bool) -> Text:
    """A line as a text, or as a pair with a tab between. Raises UserError naming the place if it is none."""
    parts = [part.strip() for part in line.split("\t")] if as_pair else [line.strip()]
    is_text = line.isascii() or line == line.encode(errors="ignore").decode()  # not bytes of another encoding
    if not line.strip():
        raise UserError(f"{place} is empty")
    if not is_text or not all(parts) or len(parts) != 1 + as_pair:
        wanted = "two texts in UTF-8 with a tab between them" if as_pair else "a text in UTF-8"
        raise UserError(f"{place} must be {wanted}, got {line!r}")
    return (parts[0], parts[1]) if as_pair else parts[0]
