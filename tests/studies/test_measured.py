"""The studies of experiments/results can be planned, and each has its file of results."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilm.studies.plan import load_study

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
STUDIES = sorted(RESULTS.glob("*.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_measured_study_can_be_planned_and_its_runs_are_those_of_its_file(path: Path) -> None:
    study = load_study(path)
    assert study.config.name == path.stem
    rows = path.with_suffix(".csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == [run.name for run in study.runs]
