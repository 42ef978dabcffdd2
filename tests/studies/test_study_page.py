"""The end of a study's page: what each model answers to new texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilm.errors import UserError
from minilm.reporting.compare import NEW_TEXTS
from minilm.reporting.record import read_run
from minilm.studies.checks import check_study
from minilm.studies.config import StudyConfig
from minilm.studies.plan import PlannedRun, Study
from minilm.studies.study_page import write_page
from tests.tiny import finished_run


def study(folder: Path, **settings: object) -> Study:
    """A study of one run, which has finished."""
    run = read_run(finished_run())
    config = StudyConfig("tiny-study", "Which?", axes={"seed": [1]}, **settings)
    planned = PlannedRun("tiny", "tiny", {"seed": 1}, run.config)
    return Study(config, folder, (planned,), Path("study.toml"))


def test_the_page_ends_with_the_answers_to_the_texts_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "tiny").symlink_to(finished_run())
    asked = study(tmp_path, texts=["it was good", "so dull"])
    page = write_page(asked, asked.runs, {}).with_suffix(".md").read_text()
    answers = page.partition(f"## {NEW_TEXTS}")[2].partition("\n## ")[0]
    assert answers.count("\n| it was good |") == 1 and answers.count("\n| so dull |") == 1
    plain = study(tmp_path)
    assert NEW_TEXTS not in write_page(plain, plain.runs, {}).with_suffix(".md").read_text()


def test_texts_need_models_and_must_not_be_empty(tmp_path: Path) -> None:
    check_study(study(tmp_path, texts=["a"]))
    with pytest.raises(UserError, match="texts: the models must be kept"):
        check_study(study(tmp_path, texts=["a"], keep_model="none"))
    with pytest.raises(UserError, match="texts: a text is empty"):
        check_study(study(tmp_path, texts=["a", " "]))
