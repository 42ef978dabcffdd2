"""The page of every analysis, with its real pictures, in a real browser; of runs that are made up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from minilm.reporting.record import Run
from minilm.reporting.results import Evaluation
from minilm.studies.config import StudyConfig
from minilm.studies.finished import FinishedRun
from minilm.studies.plan import Study
from minilm.studies.questions import QUESTIONS
from minilm.studies.study_page import write_page
from tests.browser import Browser, browser, find_browser
from tests.studies import made_up
from tests.studies.test_zero_shot import asked


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser | None]:
    """A browser's; none where there is no browser, which CI may lack."""
    if not find_browser():
        yield None
        return
    with browser() as opened:
        yield opened


def learned(finished: FinishedRun) -> FinishedRun:
    """The run with two evaluations."""
    shared = {"lr": 0.1, "train_loss": 0.5, "tokens_per_second": 1.0, "seconds": 1.0}
    history = [
        Evaluation(step=step, epoch=step, validation=made_up.metrics(accuracy), **shared)
        for step, accuracy in ((1, 0.6), (2, 0.8))
    ]
    return replace(finished, run=replace(finished.run, history=history))


def made_runs(analysis: str, folder: Path) -> list[FinishedRun]:
    """A study whose page has all that the analysis can draw."""
    if analysis == "zero-shot":
        return [asked(folder, name, right) for name, right in (("cloze", 300), ("calibrated", 340))]
    if analysis == "compare":
        return [learned(run) for run in made_up.seeds_runs()]
    kinds = {
        "active": lambda: made_up.active_runs(noise=(0.0, 0.2)),
        "augmentation": made_up.augmentation_runs,
        "few-shot": made_up.shots_runs,
        "folds": made_up.folds_runs,
        "freezing": made_up.freezing_runs,
        "scaling": made_up.scaling_runs,
        "seeds": made_up.seeds_runs,
        "sweep": made_up.sweep_runs,
    }
    return kinds[analysis]()


PICTURES = {"compare": 3, "seeds": 3, "sweep": 4}  # on a page; one on the others


@pytest.mark.parametrize("analysis", QUESTIONS)
def test_every_page_shows_its_pictures_and_asks_for_nothing_else(analysis, tmp_path, monkeypatch, tab):
    runs = made_runs(analysis, tmp_path)
    read: dict[str, Run] = {finished.planned.name: finished.run for finished in runs}
    monkeypatch.setattr("minilm.studies.study_page.read_run", lambda folder: read[folder.name])
    planned = tuple(finished.planned for finished in runs)
    study = Study(StudyConfig("made-up", "How?", analysis=analysis), tmp_path, planned, Path("x.toml"))
    page, number = write_page(study, planned, {"lost": "why"}), PICTURES.get(analysis, 1)
    named = re.findall(r"\]\((.*?)\)", page.with_suffix(".md").read_text())
    assert len(named) == number and all((tmp_path / path).stat().st_size > 5000 for path in named)
    assert "<td class=text>lost</td>" in page.read_text()
    if tab is None:
        pytest.skip("needs Chromium")
    assert tab.pictures_of(page) == number
