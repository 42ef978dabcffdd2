from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

import pytest

from minilm.errors import UserError
from minilm.studies.checks import check_study
from minilm.studies.engine import StudyProgress, run_study, shard_of
from minilm.studies.execution import train_run
from minilm.studies.plan import load_study
from minilm.studies.questions import QUESTIONS
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
        patch.setattr("minilm.studies.page_parts.dashboard", lambda *arguments, **options: draw(arguments[2]))
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


def test_finished_runs_are_never_run_again_but_closed_where_a_kill_kept_them_from_it(alone, monkeypatch):
    folder, path, _ = alone
    before = (folder / "study.md").read_text()
    (folder / "low_seed-2" / "report.html").unlink()
    (folder / "high_seed-1" / "checkpoints").mkdir()
    monkeypatch.setattr(_Loop, "_step", None)
    result = minilm("study", path, "--runs", folder.parent)
    assert result.exit_code == 0 and result.stderr.count("finished") == 4 and "1/4" not in result.stderr
    assert (folder / "study.md").read_text() == before
    assert (folder / "low_seed-2" / "report.html").exists() and not (folder / "high_seed-1" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("target", "call"),
    [
        ("minilm.training.loop._Loop._step", STEPS + 7),  # in the second run
        ("minilm.runs.train.dump_config", 2),  # the second run's folder is half made
        ("minilm.studies.study_page.html", 1),  # all has run
    ],
)
def test_a_study_killed_in_the_middle_ends_with_the_same_tables(alone, tmp_path, target, call):
    folder, path, _ = alone
    killed_at(target, call, ["study", path, "--runs", tmp_path / "runs"], tmp_path / "log")
    assert not (tmp_path / "runs" / "rates" / "study.html").exists()
    result = minilm("study", path, "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    assert same(folder, tmp_path / "runs" / "rates")


def test_a_run_of_a_study_has_a_report_but_no_pictures_of_its_own(alone):
    folder, _, _ = alone
    for name in NAMES:
        assert (folder / name / "report.html").exists() and not (folder / name / "figures").exists()


def test_the_shards_together_are_the_whole(alone, tmp_path):
    folder, path, _ = alone
    first = minilm("study", path, "--runs", tmp_path, "--shard", "1/2")
    assert first.exit_code == 0 and "2 of 4 runs have finished; the page is written after the last" in first.stdout
    assert {run.parent.name for run in tmp_path.glob("rates/*/results.json")} == {NAMES[0], NAMES[2]}
    second = minilm("study", path, "--runs", tmp_path, "--shard", "2/2")
    assert second.exit_code == 0 and "study.html" in second.stdout
    assert same(folder, tmp_path / "rates")


def test_shards_that_end_at_the_same_moment_write_one_page(alone, tmp_path, monkeypatch):
    folder, path, _ = alone
    shutil.copytree(folder, tmp_path / "rates")

    def slowly(*arguments, **options):
        time.sleep(0.1)
        return draw(arguments[2])

    for name in ("bars", "curves"):
        monkeypatch.setattr(f"minilm.reporting.group_plots.{name}", slowly)
    study = load_study(path, runs=tmp_path)
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda part: run_study(study, shard=(part, 2)), (1, 2)))
    assert same(folder, tmp_path / "rates") and not (tmp_path / "rates" / ".page").exists()
    assert {p.name for p in (tmp_path / "rates" / "figures").iterdir()} == {"bars.svg", "curves.svg", "dashboard.svg"}


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_a_run_that_fails_in_a_shard_is_on_the_page_that_the_last_one_writes(tmp_path, order):
    text = STUDY.replace("[1, 2]", "[1]").replace("lr=1e-4", 'lr=1e-4", "data.label=lable')
    shard = ["study", write_study(tmp_path, text), "--runs", tmp_path / "runs", "--shard"]
    first, last = (minilm(*shard, f"{part}/2") for part in order)
    assert (first.exit_code, last.exit_code) == ((1, 0) if order == (1, 2) else (0, 1))
    assert "the page is written after the last" in first.stdout and "study.html" in last.stdout
    failed = "failed in another shard; run that shard's command to try them again: low_seed-1"
    assert order == (2, 1) or failed in last.stdout
    page = tmp_path / "runs" / "rates" / "study.md"
    assert "## Runs that failed" in page.read_text() and "lable" in page.read_text().partition("## Settings")[0]
    mended = minilm(*shard, "1/2", "data.label=label")
    assert mended.exit_code == 0 and "study.html" in mended.stdout and "Runs that failed" not in page.read_text()


def test_two_jobs_give_what_one_gives(alone, tmp_path):
    folder, path, _ = alone
    result = minilm("study", path, "--runs", tmp_path, "--jobs", 2)
    assert result.exit_code == 0, result.output
    assert same(folder, tmp_path / "rates")
    one, two = (
        (place / "study.md").read_text().rpartition("| runs at the same time | ")[2]
        for place in (folder, tmp_path / "rates")
    )
    assert one == "1 |\n" and two.startswith("2 |\n") and "their times are upper bounds" in two


def test_the_time_left_is_that_of_whole_runs(alone, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("minilm.studies.engine.print_line", said.append)
    study = load_study(alone[1], ("axes.seed=[1]",), runs=tmp_path)
    progress, ticks = StudyProgress(study, study.runs, 8), chain((0, 0), repeat(600))
    monkeypatch.setattr("minilm.studies.engine.time.monotonic", lambda: next(ticks))
    first, _ = progress.next_run(), progress.next_run()
    shutil.copytree(alone[0] / first.name, tmp_path / "rates" / first.name)
    progress.done(first, "")
    assert said[1] == "about 10 min 00 s for the other 1, at this rate"


def test_fewer_runs_may_have_a_page_of_their_own(alone, tmp_path):
    folder, path, _ = alone
    shutil.copytree(folder, tmp_path / "rates")
    before = {file: file.read_bytes() for file in tmp_path.glob("rates/study.*")}
    result = minilm("study", path, "--runs", tmp_path, "axes.seed=[1]", "page=first")
    assert result.exit_code == 0 and result.stdout.endswith("rates/first.html\n")
    assert len(before) == 3 and all(file.read_bytes() == data for file, data in before.items())
    page = (tmp_path / "rates" / "first.md").read_text()
    assert "seed-2" not in page and "(figures-first/bars.png)" in page
    assert len(list(tmp_path.glob("rates/figures*/*.svg"))) == 6
    again = minilm("study", tmp_path / "rates" / "first.toml", "--runs", tmp_path)
    assert again.exit_code == 0 and again.stderr.count("finished") == 2


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
    assert "after_seed-1  failed: low_seed-1, which it starts from, has failed" in result.stderr
    assert "2 of 3 runs failed; run the same command to try them again" in result.stdout
    page = (tmp_path / "runs" / "rates" / "study.md").read_text()
    assert "high reaches" in page and "## Runs that failed" in page and "lable" in page


def test_a_run_with_other_settings_is_not_taken_for_ours(alone):
    folder, path, _ = alone
    said = refused("study", path, "--runs", folder.parent, "train.epochs=4")
    assert "low_seed-1: this run was started with train.epochs = 3, not 4; move the folder away" in said


def test_a_folder_in_the_way_is_left_alone_and_the_rest_goes_on(tmp_path):
    path = write_study(tmp_path, STUDY.replace("[1, 2]", "[1]"))
    mine = tmp_path / "runs" / "rates" / "low_seed-1" / "diary.txt"
    mine.parent.mkdir(parents=True)
    mine.touch()
    result = minilm("study", path, "--runs", tmp_path / "runs")
    assert result.exit_code == 1 and "this folder is not a run's folder; move it away" in result.stderr
    assert mine.exists() and (tmp_path / "runs" / "rates" / "high_seed-1" / "results.json").exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 8 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        KeyError("a fault of ours"),
    ],
)
def test_whatever_goes_wrong_is_of_one_run_alone(tmp_path, monkeypatch, error):
    def fails(config, **options):
        if "low" in config.name:
            raise type(error)(*error.args)
        return train_run(config, **options)

    monkeypatch.setattr("minilm.studies.execution.train_run", fails)
    path = write_study(tmp_path)
    result = minilm("study", path, "--runs", tmp_path / "runs", "train.epochs=1")
    assert result.exit_code == 1 and result.stderr.count("Traceback") == 1  # of two runs
    logs, said = tmp_path / "runs" / "rates" / "logs", f"{type(error).__name__}: {error}"
    for number, name in ((1, "low_seed-1"), (2, "low_seed-2")):
        line = next(line for line in result.stderr.splitlines() if line.startswith(f"{number}/4"))
        assert line == f"{number}/4  {name}  failed: {said}; its traceback is in {logs / name}.log"
        assert "in fails" in (logs / f"{name}.log").read_text()
    page = (tmp_path / "runs" / "rates" / "study.md").read_text()
    assert "high reaches" in page and "## Runs that failed" in page and "Traceback" not in page


# --- What cannot be answered ---


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["analysis=compere"], 'unknown analysis "compere" (did you mean "compare"?)'),
        (["analysis=sweep"], "study.toml: the analysis sweep needs one or two axes besides the seed"),
        (["analysis=scaling", "metric=loss"], "the analysis scaling needs a metric whose best value is 1"),
        (["analysis=active"], "the analysis active needs a section [active]"),
        (["analysis=few-shot"], "needs runs with data.shots above 0"),
        (["analysis=augmentation"], "needs runs with augment.ratio above 0, and runs without"),
        (["analysis=zero-shot"], "needs runs with a section [zero_shot]"),
        (["metric=perplexity"], "only runs with a section [adapt] have a perplexity"),
    ],
)
def test_what_the_plan_cannot_answer_is_told_before_the_first_run(tmp_path, changes, said):
    for how in ([], ["--dry-run"]):
        assert said in refused("study", write_study(tmp_path), "--runs", tmp_path / "runs", *changes, *how)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["metric=jaccard"], 'study.toml: metric: no metric "jaccard" with one label per text; the metrics are: '),
        (['data.label_columns=["a", "b"]'], 'study.toml: metric: no metric "accuracy" with several labels per text'),
    ],
)
@pytest.mark.parametrize("how", [[], ["--dry-run"]])
def test_a_metric_that_the_data_cannot_have_is_told_before_the_first_run(tmp_path, changes, said, how):
    assert said in refused("study", write_study(tmp_path), "--runs", tmp_path / "runs", *changes, *how)
    assert not (tmp_path / "runs").exists()


def test_a_metric_of_some_of_the_data_is_no_mistake(tmp_path):
    text = STUDY.replace('["train.lr=1e-4"]', "[\"data.label_columns=['a', 'b']\"]")
    check_study(load_study(write_study(tmp_path, text), ("metric=jaccard",)))


def test_a_page_that_cannot_be_written_leaves_the_one_before(alone, tmp_path, monkeypatch):
    folder, path, _ = alone
    shutil.copytree(folder, tmp_path / "rates")

    def fails(study, runs, figures):
        draw(figures / "half.png")
        raise UserError("it has no answer")

    monkeypatch.setitem(QUESTIONS, "compare", replace(QUESTIONS["compare"], answer=fails))
    assert "it has no answer" in refused("study", path, "--runs", tmp_path)
    assert {p.name for p in (tmp_path / "rates" / "figures").iterdir()} == {"bars.svg", "curves.svg", "dashboard.svg"}
    assert (tmp_path / "rates" / "study.md").exists() and not (tmp_path / "rates" / ".page").exists()


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
    assert result.exit_code == 143 and "SIGTERM: the state is saved; run the same command to resume" in result.stderr
    assert "interrupted" in minilm("study", path, "--runs", tmp_path, "--dry-run").stdout
    assert minilm("study", path, "--runs", tmp_path).exit_code == 0
    assert same(folder, tmp_path / "rates")




@pytest.mark.parametrize(
    ("option", "value"),
    [("--shard", "3/2"), ("--shard", "0/1"), ("--shard", "x"), ("--shard", "1/2/3"), ("--jobs", 0)],
)
def test_impossible_options_are_refused(tmp_path, option, value):
    result = minilm("study", write_study(tmp_path), "--runs", tmp_path / "runs", option, value)
    assert result.exit_code in (1, 2) and str(value) in result.stderr


@pytest.mark.skipif(not find_browser(), reason="needs Chromium")
def test_a_browser_shows_the_page_and_asks_for_nothing_else(alone, tmp_path):
    with browser() as tab:
        assert tab.pictures_of(alone[0] / "study.html", width=390) == 3
