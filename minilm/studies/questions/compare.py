"""Which variant is best? Each compared with the first: bars, learning curves, paired tests over the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minilm.reporting.compare import comparison
from minilm.studies.finished import FinishedRun, groups_of
from minilm.studies.page_parts import at_a_glance
from minilm.studies.plan import Study
from minilm.studies.question import StudyAnswer, StudyQuestion


def _answer(study: Study, runs: Sequence[FinishedRun], figures: Path) -> StudyAnswer:
    groups, metric = groups_of(runs), study.config.metric
    headline, sections = comparison(groups, metric, figures)
    return StudyAnswer(headline, [*at_a_glance(groups, metric, figures), *sections])


COMPARE = StudyQuestion("compare", _answer, compares_language_models=True)
