"""Active learning as a study: each round an ordinary run, on rows that the one before chose, the same after a kill."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minilm.data.sources import load_dataset
from minilm.evaluation.predictor import Classifier
from minilm.studies.engine import shard_of
from minilm.studies.execution import state_of
from minilm.studies.labelling import pool_embeddings, pool_uncertainty
from minilm.studies.plan import Study, load_study, rows_file
from minilm.studies.query_rules import QUERY_RULES
from tests.browser import browser, find_browser
from tests.processes import killed_at
from tests.studies.test_engine import draw
from tests.tiny import minilm, outcome, write_config

STUDY = """
name = "rounds"
question = "Does it pay to choose?"
base = "tiny.toml"
analysis = "active"
[active]
rules = ["random", "least-confidence", "margin", "entropy", "k-centres"]
labels = [8, 12, 16]
[axes]
seed = [1, 2]
"""
LABELS = (8, 12, 16)
CHAIN = ["seed-1_start_labels-8", "seed-1_margin_labels-8-12", "seed-1_margin_labels-8-12-16"]
SMALL = ("train.epochs=1", "train.evaluate_every=0")


def study_file(folder: Path) -> Path:
    write_config(folder)
    path = folder / "study.toml"
    path.write_text(STUDY)
    return path


def run(path: Path, runs: Path, *more: object):
    """The command, for runs that are as short as can be."""
    return minilm("study", path, *SMALL, "--runs", runs, *more)


def chosen(folder: Path, name: str) -> list[str]:
    return rows_file(folder, name).read_text().splitlines()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, Study]:
    """The folder of a study of every rule that ran in one go, and its plan."""
    path = study_file(tmp_path_factory.mktemp("active"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minilm.runs.conclude.time_inference", lambda classifier, rows: 1.0)
        result = run(path, path.parent / "runs")
    assert result.exit_code == 0, result.output
    return path.parent / "runs" / "rounds", load_study(path, SMALL, runs=path.parent / "runs")


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """But for the whole study, which has run by then, nothing is drawn: that takes most of the time."""
    monkeypatch.setattr("minilm.studies.questions.active._draw", lambda *given: draw(given[2]))


def same(folder: Path, other: Path, names: list[str]) -> bool:
    """Whether these rounds have chosen and learned the same, bit for bit."""
    return all(
        chosen(folder, n) == chosen(other, n) and outcome(folder / n) == outcome(other / n) for n in names
    ) and bool(names)


def test_a_run_becomes_a_tree_of_rounds(whole):
    folder, study = whole
    assert [(run.name, run.after) for run in study.runs[:3]] == [
        (CHAIN[0], ""),
        ("seed-1_random_labels-8-12", CHAIN[0]),
        ("seed-1_random_labels-8-12-16", "seed-1_random_labels-8-12"),
    ]
    assert len(study.runs) == 2 * (1 + 2 * len(QUERY_RULES))
    assert study.runs[1].point == {"seed": 1, "rule": "random", "labels": 12}
    listed = run(study.path, folder.parent, "--dry-run", 'active.rules=["margin"]').stdout.partition("\n\n")[0]
    assert listed.count("finished") == 6 and listed.split()[:4] == ["run", "seed", "rule", "labels"]


def test_all_rules_share_the_start_and_each_round_adds_to_the_one_before(whole):
    folder, study = whole
    for planned in study.runs:
        rows = chosen(folder, planned.name)
        assert len(set(rows)) == planned.round.labels
        assert outcome(folder / planned.name)["results"]["data"]["sizes"]["train"] == planned.round.labels
        if planned.after:
            assert rows[: len(chosen(folder, planned.after))] == chosen(folder, planned.after)
    ends = {tuple(chosen(folder, planned.name)) for planned in study.runs if planned.round.labels == LABELS[-1]}
    assert len(ends) >= 2 * 3  # of two classes all measures of uncertainty choose alike


def test_the_least_sure_rows_are_chosen(whole):
    folder, study = whole
    planned = next(run for run in study.runs if run.round.rule == "entropy")
    rows = load_dataset(replace(planned.config.data, rows="")).train
    classifier = Classifier.load(folder / planned.after)
    scores = pool_uncertainty(classifier, rows, "entropy")
    labelled = [int(row) for row in chosen(folder, planned.name)]
    rest = np.setdiff1d(np.arange(len(rows)), labelled)
    assert scores[labelled[LABELS[0] :]].min() >= scores[rest].max()
    assert pool_embeddings(classifier, rows).shape == (len(rows), 16)


@pytest.mark.parametrize(
    ("target", "call"),
    [
        ("minilm.studies.labelling.atomic", 2),  # while a round's rows are written
        ("minilm.studies.execution.train_run", 2),  # they are chosen, the round has not begun
        ("minilm.runs.conclude.write_report", 2),  # the round is over, the next one's rows are not chosen
    ],
)
def test_a_chain_that_was_killed_goes_on_with_the_same_rows(whole, tmp_path, target, call):
    folder, study = whole
    changes = ["study", study.path, *SMALL, 'active.rules=["margin"]', "axes.seed=[1]", "--runs", tmp_path / "runs"]
    killed_at(target, call, changes, tmp_path / "log")
    assert not (tmp_path / "runs" / "rounds" / CHAIN[2]).exists()
    result = run(study.path, tmp_path / "runs", 'active.rules=["margin"]', "axes.seed=[1]")
    assert result.exit_code == 0, result.output
    assert same(folder, tmp_path / "runs" / "rounds", CHAIN)


def test_a_chain_stays_in_its_shard_and_the_shards_are_the_whole(whole, tmp_path):
    folder, study = whole
    first, second = ([run.name for run in shard_of(study, part, 2)] for part in (1, 2))
    assert first == [name.replace("seed-2", "seed-1") for name in second] and len(first) == 11
    for part in ("1/2", "2/2"):
        result = run(study.path, tmp_path, 'active.rules=["k-centres"]', "--shard", part)
        assert result.exit_code == 0, result.output
    ran = [path.parent.name for path in tmp_path.glob("rounds/*/results.json")]
    assert len(ran) == 6 and same(folder, tmp_path / "rounds", ran)


def test_two_jobs_give_what_one_gives(whole, tmp_path):
    folder, study = whole
    result = run(
        study.path, tmp_path, 'active.rules=["random", "margin"]', "axes.seed=[1]", "active.labels=[8, 12]", "--jobs", 2
    )
    assert result.exit_code == 0, result.output
    assert same(folder, tmp_path / "rounds", [*CHAIN[:2], "seed-1_random_labels-8-12"])


def test_finished_rounds_are_not_run_again_and_nothing_is_chosen(whole, monkeypatch):
    folder, study = whole
    for name in ("execution.choose_rows", "execution.train_run"):
        monkeypatch.setattr(f"minilm.studies.{name}", None)
    monkeypatch.setattr("minilm.studies.engine.write_page", lambda *given: folder / "study.html")
    assert run(study.path, folder.parent).exit_code == 0


def test_with_other_rounds_before_it_a_round_is_another_run(whole):
    folder, study = whole
    for labels, finished in (("[10, 12, 16]", 0), ("[8, 16]", 1), ("[8, 12, 14, 16]", 2), ("[8, 12, 16, 40]", 3)):
        changes = ("axes.seed=[1]", 'active.rules=["margin"]', f"active.labels={labels}")
        runs = load_study(study.path, (*SMALL, *changes), runs=folder.parent).runs
        assert [state_of(folder, run) for run in runs].count("finished") == finished
    many = load_study(study.path, (f"active.labels={list(range(1, 100))}",), runs=folder.parent).runs
    assert max(len(run.name) for run in many) < 120  # a file's name has no room for all of them


def test_where_a_round_fails_so_do_those_after_it_and_the_rest_goes_on(tmp_path):
    path, changes = study_file(tmp_path), ('active.rules=["random", "margin"]', "axes.seed=[1]")
    run(path, tmp_path, "active.labels=[8, 12]", 'active.rules=["random"]', "axes.seed=[1]")
    shutil.rmtree(tmp_path / "rounds" / "seed-1_start_labels-8" / "model")
    result = run(path, tmp_path, "active.labels=[8, 12, 16]", *changes)
    assert result.exit_code == 1 and "2 of 5 runs failed" in result.stdout
    assert "16  failed: seed-1_margin_labels-8-12, which it starts from, has failed" in result.stderr
    assert "## Runs that failed" in (tmp_path / "rounds" / "study.md").read_text()


def test_a_pool_that_is_too_small_in_the_end_is_told_before_the_first_round(tmp_path):
    result = run(study_file(tmp_path), tmp_path, "active.labels=[8, 12, 500]", "axes.seed=[1]")
    assert "seed-1_start_labels-8: the pool has 48 rows, but the study would label 500" in result.stderr
    assert not list(tmp_path.rglob("results.json"))


def test_a_round_whose_model_is_gone_is_told(whole, tmp_path):
    path = study_file(tmp_path)
    few = ('active.rules=["margin"]', "active.labels=[8, 12]", "axes.seed=[1]")
    assert run(path, tmp_path, *few).exit_code == 0
    (tmp_path / "rounds" / CHAIN[0] / "model").rename(tmp_path / "elsewhere")
    (tmp_path / "rounds" / CHAIN[1]).rename(tmp_path / "moved")
    result = run(path, tmp_path, *few)
    assert result.exit_code == 1 and f"{CHAIN[1]}  failed: {tmp_path / 'rounds' / CHAIN[0]}" in result.stderr


def test_wrong_labels_are_in_the_file_and_the_same_for_every_round(whole, tmp_path):
    folder, _ = whole
    path = study_file(tmp_path)
    few = ('active.rules=["random"]', "active.labels=[8, 12]", "axes.seed=[1]", "active.noise=[0, 0.5]")
    result = run(path, tmp_path, *few)
    assert result.exit_code == 0, result.output
    noisy = [chosen(tmp_path / "rounds", f"seed-1_{n}_noise-0.5") for n in ("start_labels-8", "random_labels-8-12")]
    assert [line.split("\t")[0] for line in noisy[0]] == chosen(folder, CHAIN[0]) and noisy[1][:8] == noisy[0]
    planned = load_study(path, few, runs=tmp_path).runs
    truth, told = (load_dataset(run.config.data).train for run in planned[1::2])
    assert truth.texts == told.texts and (truth.labels != told.labels).sum() == sum("\t" in line for line in noisy[1])
    page = (tmp_path / "rounds" / "study.md").read_text()
    assert "50% wrong labels:" in page and "the model, 50% wrong labels, random" in page


@pytest.mark.skipif(not find_browser(), reason="needs Chromium")
def test_a_browser_shows_the_page_and_asks_for_nothing_else(whole):
    with browser() as tab:
        assert tab.pictures_of(whole[0] / "study.html", width=390) == 1
