"""A study that comes with minilm, on other data than its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minilm.recipes import studies
from minilm.runs.finetune import OTHER_DATA
from minilm.studies.plan import Study, concerning, load_study


def load_with_data(source: Path | Mapping[str, Any], changes: Sequence[str], *, runs: Path) -> Study:
    """``load_study``; if a study that comes with minilm gets other data, all of their rows are used without cleaning.

    Its limits and cleaning were chosen for its own data. Its axes stay, and ``changes`` have the last word.
    """
    study = load_study(source, changes, runs=runs)
    if source not in studies().values() or _data_of(study) <= _data_of(load_study(source)):
        return study
    return load_study(source, [*concerning(study, OTHER_DATA), *changes], runs=runs)


def _data_of(study: Study) -> set[tuple[str, str]]:
    return {(run.config.data.source, run.config.data.train) for run in study.runs}
