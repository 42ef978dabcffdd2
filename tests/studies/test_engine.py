from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from minilm.studies.config import load_study
from minilm.studies.engine import shard_of
from minilm.training.loop import _Loop
from tests.browser import browser, find_browser
from tests.processes import killed_at
from tests.tiny import minilm, outcome, refused, write_config

STUDY = """
name = "rates"
question = "Does a higher rate help?"
base = "tiny.toml"
[axes]
seed = [1, 2]
[[runs]]
name = "low"
changes = ["train.lr=1e-4"]
[[runs]]
name = "high"
"""
NAMES = ["low_seed-1", "low_seed-2", "high_seed-1", "high_seed-2"]
STEPS = 18  # of one run


def write_study(folder: Path, text: str = STUDY) -> Path:
    write_config(folder)
    path = folder / "study.toml"
    path.write_text(text)
    return path


def draw(path: Path) -> Path:
    """A picture in place of one that takes a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    return path


@pytest.fixture(autouse=True, scope="module")
def undrawn():
    """The page's pictures are left out: they take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("bars", "curves"):
            patch.setattr(f"minilm.reporting.group_plots.{name}", lambda *arguments, **options: draw(arguments[2]))
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory, undrawn):
    """The folder of a study that ran in one go, its file, and what the command said."""
    path = write_study(tmp_path_factory.mktemp("study"))
    result = minilm("study", path, "--runs", path.parent / "runs")
    assert result.exit_code == 0, result.output
    return path.parent / "runs" / "rates", path, result


def tables(folder: Path) -> list[str]:
    """Answer and tables of a page, without times."""
    well, _, rest = (folder / "study.md").read_text().partition("## What each cost")
    every = rest.partition("## Every run")[2].partition("Training took")[0]
    return [well, *(line.rpartition("|")[0].rpartition("|")[0] for line in every.splitlines())]


def same(folder: Path, other: Path) -> bool:
    """Whether two studies' tables and runs are the same, bit for bit."""
    assert tables(folder) == tables(other)
    return all(outcome(folder / name) == outcome(other / name) for name in NAMES)


def test_a_study_runs_everything_and_answers(alone):
    folder, _, result = alone
    listed, *lines = result.stderr.split("4  high_seed-2")[0], *result.stderr.splitlines()[6:]
    assert all(name in listed for name in NAMES[:3]) and listed.count("to do") == 3
    assert re.fullmatch(r"1/4  low_seed-1  accuracy \d\.\d{4}  \d.*s", lines[0])
    assert re.fullmatch(r"about .*s for the other 3, at this rate", lines[1])
    assert [line.split()[1] for line in lines[2:5]] == NAMES[1:]
    assert result.stdout.endswith("rates/study.html\n")
    page = (folder / "study.md").read_text()
    assert "**high has the highest accuracy" in page or "**low has the highest accuracy" in page
    assert "## Compared with low" in page and "| low_seed-2 | 2 | accuracy" in page
    assert "epoch" in (folder / "logs" / "low_seed-1.log").read_text()
    assert json.loads((folder / "low_seed-1" / "environment.json").read_text())["threads"] == 1


def test_finished_runs_are_never_run_again(alone, monkeypatch):
    folder, path, _ = alone
    before = (folder / "study.md").read_text()
    (folder / "low_seed-2" / "report.md").unlink()
    monkeypatch.setattr(_Loop, "_step", None)
    result = minilm("study", path, "--runs", folder.parent)
    assert result.exit_code == 0 and result.stderr.count("finished") == 4 and "1/4" not in result.stderr
    assert (folder / "study.md").read_text() == before


@pytest.mark.parametrize(
    ("target", "call"),
    [
        ("minilm.training.loop._Loop._step", STEPS + 7),  # in the second run
        ("minilm.runs.train.dump_config", 2),  # the second run's folder is half made
        ("minilm.studies.engine.html", 1),  # all has run
    ],
)
def test_a_study_killed_in_the_middle_ends_with_the_same_tables(alone, tmp_path, target, call):
    folder, path, _ = alone
    killed_at(target, call, ["study", path, "--runs", tmp_path / "runs"], tmp_path / "log")
    assert not (tmp_path / "runs" / "rates" / "study.html").exists()
    result = minilm("study", path, "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    assert same(folder, tmp_path / "runs" / "rates")


def test_the_shards_together_are_the_whole(alone, tmp_path):
    folder, path, _ = alone
    first = minilm("study", path, "--runs", tmp_path, "--shard", "1/2")
    assert first.exit_code == 0 and "2 of 4 runs have finished; the page comes with the last" in first.stdout
    assert {run.parent.name for run in tmp_path.glob("rates/*/results.json")} == {NAMES[0], NAMES[2]}
    second = minilm("study", path, "--runs", tmp_path, "--shard", "2/2")
    assert second.exit_code == 0 and "study.html" in second.stdout
    assert same(folder, tmp_path / "rates")


def test_two_jobs_give_what_one_gives(alone, tmp_path):
    folder, path, _ = alone
    result = minilm("study", path, "--runs", tmp_path, "--jobs", 2, "axes.seed=[2]")
    assert result.exit_code == 0, result.output
    for name in ("low_seed-2", "high_seed-2"):
        assert outcome(folder / name) == outcome(tmp_path / "rates" / name)


def test_what_goes_on_from_a_run_is_in_its_shard(tmp_path):
    text = STUDY.partition("[axes]")[0].replace("tiny.toml", "bert.toml") + "[axes]\nseed = [1, 2]\n"
    for name, more in (("a", ""), ("b", 'after = "a"'), ("c", ""), ("d", 'after = "b"')):
        text += f'[[runs]]\nname = "{name}"\nchanges = ["train.epochs={ord(name)}"]\n{more}\n'
    (tmp_path / "study.toml").write_text(text)
    (tmp_path / "bert.toml").write_text(
        'name = "b"\n[model]\nsource = "bert"\n[data]\nsource = "x.tsv"\n[train]\nepochs = 1\nlr = 0.1'
    )
    study = load_study(tmp_path / "study.toml")
    first, second = ([run.name for run in shard_of(study, part, 2)] for part in (1, 2))
    assert first == ["a_seed-1", "b_seed-1", "c_seed-1", "d_seed-1"]
    assert second == [name.replace("1", "2") for name in first]


def test_a_failed_run_is_reported_and_the_rest_goes_on(tmp_path):
    text = STUDY.replace("[1, 2]", "[1]").replace('["train.lr=1e-4"]', '["data.label=lable"]')
    text += '[[runs]]\nname = "after"\nafter = "low"\n'
    text += 'changes = ["model.architecture=", "model.config={}", "tokenizer.source="]\n'
    result = minilm("study", write_study(tmp_path, text), "--runs", tmp_path / "runs")
    assert result.exit_code == 1
    failed = next(line for line in result.stderr.splitlines() if line.startswith("1/3"))
    assert "low_seed-1  failed: " in failed and "lable" in failed
    assert "after_seed-1  failed: low_seed-1, which it goes on from, has failed" in result.stderr
    assert "2 of 3 runs failed; the same command tries them again" in result.stdout
    page = (tmp_path / "runs" / "rates" / "study.md").read_text()
    assert "high reaches" in page and "## Runs that failed" in page and "lable" in page


def test_a_run_with_other_settings_is_not_taken_for_ours(alone):
    folder, path, _ = alone
    said = refused("study", path, "--runs", folder.parent, "train.epochs=4")
    assert "low_seed-1: was run with train.epochs = 3, not 4; move that folder away" in said


def test_a_folder_in_the_way_is_left_alone(tmp_path):
    path = write_study(tmp_path)
    mine = tmp_path / "runs" / "rates" / "low_seed-1" / "diary.txt"
    mine.parent.mkdir(parents=True)
    mine.touch()
    assert "is in the way" in refused("study", path, "--runs", tmp_path / "runs")
    assert mine.exists()


def test_a_signal_stops_a_study_and_the_same_command_goes_on(alone, tmp_path, monkeypatch):
    folder, path, _ = alone
    calls, step = [], _Loop._step

    def disturbed(self, *arguments):
        calls.append(arguments)
        if len(calls) == STEPS + 5:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, *arguments)

    monkeypatch.setattr(_Loop, "_step", disturbed)
    result = minilm("study", path, "--runs", tmp_path)
    assert result.exit_code == 143 and "SIGTERM: the state is kept; the same command goes on" in result.stderr
    assert "interrupted" in minilm("study", path, "--runs", tmp_path, "--dry-run").stdout
    assert minilm("study", path, "--runs", tmp_path).exit_code == 0
    assert same(folder, tmp_path / "rates")


def test_a_dry_run_lists_the_runs_and_does_nothing(tmp_path):
    path = write_study(tmp_path)
    result = minilm("study", path, "--runs", tmp_path / "runs", "--dry-run", "axes.seed=[7]")
    assert [line.split()[1] for line in result.stdout.splitlines()[2:]] == ["low_seed-7", "high_seed-7"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("option", "value"), [("--shard", "3/2"), ("--shard", "0/1"), ("--shard", "x"), ("--jobs", 0)])
def test_impossible_options_are_refused(tmp_path, option, value):
    result = minilm("study", write_study(tmp_path), "--runs", tmp_path / "runs", option, value)
    assert result.exit_code in (1, 2) and str(value) in result.stderr


def test_an_unknown_analysis_is_told_with_those_there_are(tmp_path):
    said = refused("study", write_study(tmp_path), "--runs", tmp_path / "runs", "analysis=compere")
    assert 'no analysis "compere" (did you mean "compare"?)' in said


@pytest.mark.skipif(not find_browser(), reason="needs Chromium")
def test_a_browser_shows_the_page_and_asks_for_nothing_else(alone, tmp_path):
    with browser() as tab:
        tab.open(alone[0] / "study.html", width=390)
        assert tab.reported() == []
        assert all(url.startswith("data:") or url.endswith("study.html") for url in tab.requests())
        assert tab.value("[...document.images].filter(image => image.complete && image.naturalWidth).length") == 2
