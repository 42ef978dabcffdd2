"""What several models answer to the same new texts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from minilm.reporting.groups import Group
from minilm.reporting.new_texts import answers_to_texts
from minilm.reporting.record import read_run
from tests.tiny import finished_run, minilm, refused

TEXTS = ["it was good", "a really | dull film"]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another run: its answers are the opposite ones."""
    copy = shutil.copytree(finished_run(), tmp_path / "other")
    for name in ("config.toml", "model/config.json"):
        text = (copy / name).read_text()
        assert "epochs = 3" in text or '"bad", "good"' in " ".join(text.split())
        swapped = re.sub(r'"bad",\s*"good"', '"good", "bad"', text)
        (copy / name).write_text(swapped.replace("epochs = 3", "epochs = 4"))
    return copy


def answers(run: Path) -> list[str]:
    """What ``minilm predict`` says."""
    return [line.split("\t")[0] for line in minilm("predict", run, *TEXTS).stdout.splitlines()]


def test_every_model_has_a_column_and_every_text_a_row_in_all_three_forms(other: Path, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("\n".join(TEXTS) + "\n")
    runs, page = (finished_run(), other), tmp_path / "page.html"
    shown = minilm("compare", *runs, "--texts", tmp_path / "new.txt", "--html", page)
    assert shown.exit_code == 0, shown.output
    expected = list(zip(TEXTS, *map(answers, runs), strict=True))
    assert expected[0][1] != expected[0][2]
    lines = [re.split(r" {2,}", line) for line in shown.stdout.splitlines()]
    assert all(list(row) in lines for row in expected) and ["text", "tiny", "other"] in lines
    table = minilm("compare", *runs, "--texts", tmp_path / "new.txt", "--markdown").stdout
    assert f"| {expected[0][0]} | {expected[0][1]} | {expected[0][2]} |" in table and "a really \\| dull film" in table
    text = page.read_text()
    assert "What each answers to new texts" in text and all(cell in text for row in expected for cell in row)


def test_the_texts_of_a_table_are_in_each_runs_column(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("id,text\n1,it was good\n")
    assert "it was good" in minilm("compare", finished_run(), "--texts", tmp_path / "new.csv").stdout


def test_runs_that_differ_in_their_seed_answer_together(tmp_path: Path) -> None:
    second = shutil.copytree(finished_run(), tmp_path / "second")
    config = (second / "config.toml").read_text()
    (second / "config.toml").write_text(config.replace("\nseed = 1\n", "\nseed = 2\n"))
    (tmp_path / "new.txt").write_text(f"{TEXTS[0]}\n")
    shown = minilm("compare", finished_run(), second, "--texts", tmp_path / "new.txt").stdout
    assert re.search(rf"{TEXTS[0]} +{answers(finished_run())[0]}$", shown, re.MULTILINE)


def test_what_cannot_be_answered_is_refused_in_one_line(tmp_path: Path) -> None:
    def said() -> str:
        return refused("compare", finished_run(), "--texts", tmp_path / "new.txt")

    assert "new.txt: no such file" in said()
    (tmp_path / "new.txt").write_text("")
    assert "new.txt: contains no texts" in said()
    (tmp_path / "new.txt").write_bytes(b"good\n\xff\n")
    assert "new.txt, line 2: not UTF-8" in said()
    assert "is a folder" in refused("compare", finished_run(), "--texts", tmp_path)


def test_a_model_that_is_gone_is_named_and_the_others_answer(tmp_path: Path) -> None:
    gone = shutil.copytree(finished_run(), tmp_path / "gone")
    shutil.rmtree(gone / "model")
    groups = [Group(folder.name, (read_run(folder),)) for folder in (gone, finished_run())]
    table, reasons = answers_to_texts(groups, TEXTS)
    assert table is not None and table.header == ["text", "tiny"] and [row[0] for row in table.rows] == TEXTS
    assert len(reasons) == 1 and reasons[0].startswith("gone has no answers to new texts: ")
    assert answers_to_texts(groups[:1], TEXTS) == (None, reasons)
