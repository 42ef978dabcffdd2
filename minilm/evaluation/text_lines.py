"""Texts without columns: each line of a file, or of standard input, is a text; of a pair, two with a tab between.

And the texts of a table alone, for the terminal. Whole tables, with all their columns: ``minilm.runs.predict``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from minilm.config import DataSection
from minilm.data.sources import load_texts
from minilm.errors import UserError
from minilm.evaluation.predictor import Predictor, Text
from minilm.loading import load_config

LINES = 512  # lines read before the first is answered


def predict_table(classifier: Predictor, path: Path, run: str | Path) -> Iterator[tuple[str, dict[str, float]]]:
    """The texts of a table, a tab between those of a pair, with their ``{label: probability}``, in order.

    They are in the columns that ``run``, which the classifier is from, was trained on. Raises UserError naming what is
    missing or cannot be read, before the first is answered.
    """
    section, place = columns_of(Path(run), bool(classifier.reading.pairs))
    texts = load_texts(path, replace(section, clean=classifier.reading.clean), place)
    for start in range(0, len(texts), LINES):
        chunk = texts[start : start + LINES]
        shown = (text if isinstance(text, str) else "\t".join(text) for text in chunk)
        yield from zip(shown, classifier.predict(chunk), strict=True)


def columns_of(run: Path, pairs: bool) -> tuple[DataSection, str]:
    """The columns of a run's config, and where they are given; for a model without a run's config, the defaults."""
    for path in (run / "config.toml", run.parent / "config.toml")[: 2 if run.name == "model" else 1]:
        if path.is_file():
            return load_config(path).data, f" in {path}"
    return DataSection(text_pair="text_pair" if pairs else ""), f" by default, as {run} has no config.toml"


def predict_lines(
    classifier: Predictor, lines: Iterable[str], place: str = "text"
) -> Iterator[tuple[str, dict[str, float]]]:
    """Each line with its ``{label: probability}``, in order, some hundred lines at a time.

    For a classifier of pairs a line is two texts with a tab between. Raises UserError naming the line (``place`` and
    its number) if it is empty, as given or once cleaned, or no pair.
    """
    numbered = iter(enumerate(lines, 1))
    while chunk := list(itertools.islice(numbered, LINES)):
        texts = [text_of_line(line, f"{place} {number}", bool(classifier.reading.pairs)) for number, line in chunk]
        scores = classifier.predict(texts, place=place, first=chunk[0][0])
        yield from zip((line for _, line in chunk), scores, strict=True)


def text_of_line(line: str, place: str, as_pair: bool) -> Text:
    """A line as a text, or as a pair with a tab between. Raises UserError naming the place if it is none."""
    parts = [part.strip() for part in line.split("\t")] if as_pair else [line.strip()]
    is_text = line.isascii() or line == line.encode(errors="ignore").decode()  # no bytes of another encoding
    if not line.strip():
        raise UserError(f"{place} is empty")
    if not is_text or not all(parts) or len(parts) != 1 + as_pair:
        wanted = "two texts in UTF-8 with a tab between" if as_pair else "a text in UTF-8"
        raise UserError(f"{place} must be {wanted}, got {line!r}")
    return (parts[0], parts[1]) if as_pair else parts[0]
