"""``minilm predict RUN TEXT ...``: predictions for the terminal, one line each."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm.data.decoding import STDIN
from minilm.data.readers import is_table
from minilm.errors import UserError
from minilm.evaluation.predictor import Predictor
from minilm.evaluation.text_lines import predict_lines, predict_table
from minilm.textfiles import read_lines

# What a run's or a model's folder has.
MARKS = ("config.toml", "config.json", "adapter_config.json", "linear.json", "model")


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


def split_runs(run: str, others: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Divide the arguments into runs and texts: the runs are the first arguments, which are folders with a model.

    Raises UserError if the first argument is empty.
    """
    if not run.strip():
        raise UserError("RUN is empty; give the folder of a run, such as runs/scratch-sample")
    folders = 0
    while folders < len(others) and _holds_model(Path(others[folders])):
        folders += 1
    return [run, *others[:folders]], tuple(others[folders:])


def _holds_model(path: Path) -> bool:
    try:
        return path.is_dir() and any((path / mark).exists() for mark in MARKS)
    except (OSError, ValueError):  # the text is too long for a path, or contains a zero byte
        return False


def answer_lines(
    predictor: Predictor, run: str, texts: Sequence[str], file: Path | None
) -> Iterator[tuple[str, Answer]]:
    """Yield each text with its prediction: the given texts, or those of a file or of standard input.

    Raises UserError for the first text that cannot be classified.
    """
    answers: Iterable[tuple[str, dict[str, float]]]
    if texts:
        answers = predict_lines(predictor, texts)
    elif file is not None and file != STDIN:
        answers = predict_table(predictor, file, run) if is_table(file) else _answer_file(predictor, file)
    else:
        answers = predict_lines(predictor, read_lines(sys.stdin.buffer), "line")
    has_labels = predictor.decision.kind != "score"
    for text, scores in answers:
        yield text, Answer(predictor.decide(scores) if has_labels else None, scores, predictor.is_unsure(scores))


def _answer_file(predictor: Predictor, file: Path) -> Iterator[tuple[str, dict[str, float]]]:
    place = f"{file}, line"
    with file.open("rb") as binary:
        yield from predict_lines(predictor, read_lines(binary, place), place)
