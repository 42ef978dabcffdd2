"""Classify the lines of a file or of standard input: each line is a text, or a pair of texts with a tab between them.

Also classifies the texts of a table, to show them; ``minilm.runs.predict`` writes whole tables with all columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minilm.data.decoding import display_name
from minilm.data.other_files import load_texts
from minilm.data.readers import is_table
from minilm.data.tokenization import NoTokens
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
        if not self.scores:
            return ""
        if self.labels is None:
            return ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items())
        if self.unsure:
            return f"unsure ({', '.join(self.labels)} {self.scores[self.labels[0]]:.2f})"
        return ", ".join(f"{label} {self.scores[label]:.2f}" for label in self.labels) or "none"

    def as_json(self) -> dict[str, Any]:
        """The answer as an object. An unsure answer, a score and an empty answer have no labels."""
        if self.labels is None:
            return {"scores": self.scores}
        asked = {} if self.unsure is None else {"unsure": self.unsure}
        return {"labels": [] if self.unsure else self.labels, **asked, "scores": self.scores}


def answer_of(predictor: Predictor, scores: dict[str, float]) -> Answer:
    """The answer for a text with these probabilities; an empty answer for {}."""
    if not scores:
        return Answer([], {})
    has_labels = predictor.decision.kind != "score"
    return Answer(predictor.decide(scores) if has_labels else None, scores, predictor.is_unsure(scores))


def predict_file(
    predictor: Predictor, path: Path, run: str | Path, column: str | None = None
) -> Iterator[tuple[str, dict[str, float]]]:
    """The texts of a file with their ``{label: probability}``: those of a table (``predict_table``), or its lines.

    Texts that are empty have an empty answer, {}. column: as for ``load_texts``.
    """
    if is_table(path):
        yield from predict_table(predictor, path, run, column)
        return
    check_column(column, path)
    place = f"{path}, line"
    with path.open("rb") as binary:
        yield from predict_lines(predictor, read_lines(binary, place), place, gaps=True)


def check_column(column: str | None, path: Path) -> None:
    """Raise UserError if a column of a file is named that is read as lines."""
    if column:
        name = display_name(path)
        raise UserError(f"--column: {name}: is read as one text per line, so it has no columns; leave it out")


def predict_table(
    classifier: Predictor, path: Path, run: str | Path, column: str | None = None
) -> Iterator[tuple[str, dict[str, float]]]:
    """The texts of a table, with their ``{label: probability}``, in order. A tab joins the two texts of a pair.

    The texts are in ``column``, or in the columns that the classifier's ``run`` was trained on. A row without a text
    has an empty answer, {}. Raises UserError before the first prediction if a column is missing or a text cannot be
    read.
    """
    section, place = columns_of(Path(run), bool(classifier.reading.pairs))
    texts, usable = load_texts(path, replace(section, clean=classifier.reading.clean), place, column)
    for start in range(0, len(texts), LINES):
        chunk = texts[start : start + LINES]
        shown = (text if isinstance(text, str) else "\t".join(text) for text in chunk)
        given = [text if full else None for text, full in zip(chunk, usable[start:], strict=False)]
        yield from zip(shown, _with_gaps(classifier, given), strict=True)


def predict_lines(
    classifier: Predictor, lines: Iterable[str], place: str = "text", *, gaps: bool = False
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each line with its ``{label: probability}``, in order. Lines are classified in chunks.

    If the classifier reads pairs, a line is two texts with a tab between them. Raises UserError with the line's number
    if the line is empty, before or after cleaning, or is not a pair.

    gaps: whether empty lines have an empty answer, {}, instead.
    """
    numbered, pairs = iter(enumerate(lines, 1)), bool(classifier.reading.pairs)
    while chunk := list(itertools.islice(numbered, LINES)):
        if gaps:
            given = [text_of_line(x, f"{place} {number}", pairs) if x.strip() else None for number, x in chunk]
            scores = _with_gaps(classifier, given)
        else:
            texts = [text_of_line(line, f"{place} {number}", pairs) for number, line in chunk]
            scores = classifier.predict(texts, place=place, first=chunk[0][0])
        yield from zip((line for _, line in chunk), scores, strict=True)


def _with_gaps(classifier: Predictor, texts: Sequence[Text | None]) -> list[dict[str, float]]:
    """The ``{label: probability}`` of each text; {} for None, and for a text that is empty after cleaning, or in which
    the tokenizer finds no token."""
    parts = [(text,) if isinstance(text, str) else text or ("",) for text in texts]
    usable = {i: texts[i] for i, both in enumerate(parts) if all(map(classifier.clean, both))}
    try:
        found = classifier.predict([text for text in usable.values() if text is not None])
    except NoTokens as error:
        places = list(usable)
        for row in error.rows:
            del usable[places[row]]
        found = classifier.predict([text for text in usable.values() if text is not None])
    answers = dict(zip(usable, found, strict=True))
    return [answers.get(i, {}) for i in range(len(texts))]


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
