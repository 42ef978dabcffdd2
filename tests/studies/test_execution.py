"""What a study records of its runs is read by its types."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilm.errors import UserError
from minilm.studies.execution import RunNote, read_note, write_note
from minilm.studies.plan import load_study
from tests.tiny import write_config


@pytest.mark.parametrize(
    "text",
    ['{"seconds": Infinity}', '{"jobs": -1}', '{"jobs": "2"}', '{"other": 1}', "[]", "{", "\xff", '{"failed": 1}'],
)
def test_a_note_comes_back_and_an_edited_one_is_named(tmp_path: Path, text: str) -> None:
    write_config(tmp_path)
    path = tmp_path / "study.toml"
    path.write_text('name = "s"\nquestion = "?"\nbase = "tiny.toml"\n[axes]\nseed = [1]\n')
    study = load_study(path, runs=tmp_path)
    [run] = study.runs
    write_note(study.folder, run, RunNote(2, "it failed", 1.5))
    assert read_note(study.folder, run) == RunNote(2, "it failed", 1.5)
    note = study.folder / "logs" / f"{run.name}.json"
    note.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=str(note)):
        read_note(study.folder, run)
