"""The question of a study: what its plan must contain, and the function that answers it from the finished runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from minilm.reporting.page import Section
from minilm.studies.finished import FinishedRun
from minilm.studies.plan import Study


class StudyAnswer(NamedTuple):
    """A page's answer: a headline of a few sentences, and the sections below it."""

    headline: str
    sections: list[Section]


@dataclass(frozen=True)
class StudyQuestion:
    """One value of ``analysis`` in a study's file. Each is implemented in a module of ``minilm.studies.questions``."""

    name: str
    answer: Callable[[Study, Sequence[FinishedRun], Path], StudyAnswer]  # the path: a folder for its pictures
    fits: Callable[[Study], bool] = lambda study: True  # whether a plan can answer the question
    needs: str = ""  # what a plan must contain, as the end of a message after "needs"
    compares_language_models: bool = False  # whether it also compares runs that only adapt, by their perplexity
