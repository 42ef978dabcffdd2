"""What a study records of its runs is read by its types."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from minilm.errors import UserError
from minilm.studies import execution
from minilm.studies.execution import RunNote, read_note, run_to_end, write_note
from minilm.studies.plan import PlannedRun, load_study
from minilm.training.console import Interrupted
from tests.tiny import write_config


def one_run(folder: Path) -> tuple[Path, PlannedRun]:
    """The folder of a study, and its only run."""
    write_config(folder)
    path = folder / "study.toml"
    path.write_text('name = "s"\nquestion = "?"\nbase = "tiny.toml"\n[axes]\nseed = [1]\n')
    study = load_study(path, runs=folder)
    return study.folder, study.runs[0]


@pytest.mark.parametrize(
    "text",
    ['{"seconds": Infinity}', '{"jobs": -1}', '{"jobs": "2"}', '{"other": 1}', "[]", "{", "\xff", '{"failed": 1}'],
)
def test_a_note_comes_back_and_an_edited_one_is_named(tmp_path: Path, text: str) -> None:
    folder, run = one_run(tmp_path)
    write_note(folder, run, RunNote(2, "it failed", 1.5))
    assert read_note(folder, run) == RunNote(2, "it failed", 1.5)
    note = folder / "logs" / f"{run.name}.json"
    note.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=str(note)):
        read_note(folder, run)


def test_the_seconds_of_a_run_are_those_of_all_attempts_also_failed_and_interrupted_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = one_run(tmp_path)
    clock, ends = [0.0], iter([UserError("no"), Interrupted(signal.SIGTERM, tmp_path), None])

    def train_run(*arguments: object, **options: object) -> None:
        clock[0] += 10
        if (error := next(ends)) is not None:
            raise error

    monkeypatch.setattr(execution, "train_run", train_run)
    monkeypatch.setattr(execution, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    assert run_to_end(folder, run) == "no"
    with pytest.raises(Interrupted):
        run_to_end(folder, run)
    assert run_to_end(folder, run) == "" and read_note(folder, run).seconds == 30
