"""A study that comes with minilm uses other data than its own completely, from the command line too."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilm.recipes import find_study, studies
from minilm.studies.other_data import load_with_data
from minilm.studies.plan import load_study


@pytest.mark.parametrize("name", studies())
def test_other_data_are_used_whole_and_a_studys_own_as_it_says(name: str, tmp_path: Path) -> None:
    path = find_study(name)
    own = load_study(path, runs=tmp_path)
    assert load_with_data(path, [], runs=tmp_path) == own
    assert load_with_data(path, ["data.sample=true"], runs=tmp_path) == load_study(
        path, ["data.sample=true"], runs=tmp_path
    )
    axes = {"data.train_rows", "data.clean"} & own.config.axes.keys()
    for change in ("data.source=reviews.csv", "data.train=reviews.csv"):
        changes = [change] if change.startswith("data.source") else [change, "data.source="]
        for run in load_with_data(path, changes, runs=tmp_path).runs:
            assert run.config.data.clean == [] and run.config.data.validation_rows == 0
            assert run.config.data.train_rows == 0 or axes


def test_changes_have_the_last_word_and_own_studies_are_as_they_say(tmp_path: Path) -> None:
    path = find_study("seeds")
    changes = ["data.source=reviews.csv", "data.train_rows=9"]
    assert {run.config.data.train_rows for run in load_with_data(path, changes, runs=tmp_path).runs} == {9}
    mine = tmp_path / "mine.toml"
    mine.write_text(path.read_text().replace("../finetune", str(path.parents[1] / "finetune")))
    rows = {run.config.data.train_rows for run in load_with_data(mine, changes[:1], runs=tmp_path).runs}
    assert rows == {2400}
