"""What several models answer to the same new texts, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from minilm.errors import UserError
from minilm.evaluation.ensemble import load_predictor
from minilm.evaluation.predictor import Predictor
from minilm.evaluation.text_lines import answer_of, predict_file, predict_lines
from minilm.reporting.groups import Group
from minilm.reporting.page import Table

Answers = list[tuple[str, str]]  # each text, and the answer
Ask = Callable[[Predictor, Path], Iterable[tuple[str, dict[str, float]]]]  # a predictor, and its run's folder


def answers_to_file(groups: Sequence[Group], path: Path) -> Table:
    """The answers of each group to the texts of a file: its lines, or those of a table in the columns of each run.

    Raises UserError if a text or a model cannot be read.
    """
    if not path.is_file():
        raise UserError(f"--texts: {path}: {'is a folder; give a file in it' if path.is_dir() else 'no such file'}")
    found = {group.name: _answers(group, lambda p, run: predict_file(p, path, run)) for group in _classifiers(groups)}
    if not found:
        raise UserError("--texts: none of these runs classifies texts; they only adapted a language model")
    if not next(iter(found.values())):
        raise UserError(f"--texts: {path}: contains no texts")
    return side_by_side(found)


def answers_to_texts(groups: Sequence[Group], texts: Sequence[str]) -> tuple[Table | None, list[str]]:
    """The answers of each group to these texts, and the reasons why some groups have none.

    A pair of texts has a tab between them. The table is None if no group has answers.
    """
    found, reasons = {}, []
    for group in _classifiers(groups):
        try:
            found[group.name] = _answers(group, lambda predictor, run: predict_lines(predictor, texts))
        except UserError as error:
            reasons.append(f"{group.name} has no answers to new texts: {error}")
    return side_by_side(found) if found else None, reasons


def side_by_side(found: Mapping[str, Answers]) -> Table:
    """A row for each text, a column for each model."""
    texts = [text for text, _ in next(iter(found.values()))]
    rows = [[text, *(answers[i][1] for answers in found.values())] for i, text in enumerate(texts)]
    note = "The label and its probability. Runs that differ only in their seed answer together, by their mean."
    return Table(["text", *found], rows, left=1 + len(found), note=note)


def _classifiers(groups: Sequence[Group]) -> list[Group]:
    return [group for group in groups if not group.runs[0].only_adapted]


def _answers(group: Group, ask: Ask) -> Answers:
    folders = [run.folder for run in group.runs]
    predictor = load_predictor(folders)
    return [(text, str(answer_of(predictor, scores))) for text, scores in ask(predictor, folders[0])]
