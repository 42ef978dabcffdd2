"""Which variant is best? Each compared with the first: bars, learning curves, paired tests over the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minilm.reporting.compare import comparison
from minilm.studies.finished import FinishedRun, groups_of
from minilm.studies.plan import Study
from minilm.studies.question import StudyAnswer, StudyQuestion


def _answer(study: Study, runs: Sequence[FinishedRun], figures: Path) -> StudyAnswer:
    return StudyAnswer(*comparison(groups_of(runs), study.config.metric, figures))


COMPARE = StudyQuestion("compare", _answer, compares_language_models=True)
