"""``minilm predict RUN TEXT ...``: predictions for the terminal, one line each."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from minilm.data.decoding import STDIN
from minilm.errors import UserError
from minilm.evaluation.predictor import Predictor
from minilm.evaluation.text_lines import Answer, answer_of, predict_file, predict_lines
from minilm.textfiles import read_lines
from minilm.training.console import say

# What a run's or a model's folder has.
MARKS = ("config.toml", "config.json", "adapter_config.json", "linear.json", "model")


def split_runs(run: str, others: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Divide the arguments into runs and texts: the runs are the first arguments, which are folders with a model.

    Raises UserError if the first argument is empty, or if the path of a folder without a model follows the runs.
    """
    if not run.strip():
        raise UserError("RUN is empty; give the folder of a run, such as runs/scratch-sample")
    folders = 0
    while folders < len(others) and _holds_model(Path(others[folders])):
        folders += 1
    for other in others[folders : folders + 1]:
        if "/" in other and _is_folder(Path(other)):  # a text that happens to name a folder is a word without a slash
            raise UserError(f"{other}: is a folder that contains no model; give a run's folder, or a text")
    return [run, *others[:folders]], tuple(others[folders:])


def _holds_model(path: Path) -> bool:
    return _is_folder(path) and any((path / mark).exists() for mark in MARKS)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # the text is too long for a path, or contains a zero byte
        return False


def answer_lines(
    predictor: Predictor, run: str, texts: Sequence[str], file: Path | None, column: str = ""
) -> Iterator[tuple[str, Answer]]:
    """Yield each text with its prediction: the given texts, or those of a file or of standard input.

    A given text that is empty is an error; an empty line or row has an empty answer, and a message counts them.
    Raises UserError for the first text that cannot be classified.

    column: of the texts in a file; empty: that of the run.
    """
    if column and (texts or file is None or file == STDIN):
        raise UserError("--column is for a table: give --file (or --format, for a table on standard input)")
    answers: Iterable[tuple[str, dict[str, float]]]
    if texts:
        answers = predict_lines(predictor, texts)
    elif file is not None and file != STDIN:
        answers = predict_file(predictor, file, run, column)
    else:
        answers = predict_lines(predictor, read_lines(sys.stdin.buffer), "line", gaps=True)
    number = empty = 0
    for text, scores in answers:
        number += 1
        empty += not scores
        yield text, answer_of(predictor, scores)
    if empty:
        say(f"{empty:,} of {number:,} texts are empty, and so are their answers")
