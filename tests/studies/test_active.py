"""Rounds of active learning: each an ordinary run, chosen by the one before, the same after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minilm.config import load_config
from minilm.errors import UserError
from minilm.studies import active
from minilm.studies.active import choose_rows, embeddings, plan_rounds, rows_file, run_rounds, uncertainty
from minilm.studies.execution import bring_to_end
from minilm.studies.selection import RULES
from tests.tiny import no_pictures, outcome, write_config

LABELS = (12, 20)


def plan(folder: Path, rules=RULES, labels=LABELS, **more):
    config = load_config(folder / "tiny.toml", ["train.epochs=1", "train.evaluate_every=0"])
    return plan_rounds(config, rules, labels, [1], folder / "study", **more)


def chosen(folder: Path, run) -> list[str]:
    return rows_file(folder / "study", run.name).read_text().splitlines()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of every rule, run in one go."""
    folder = tmp_path_factory.mktemp("active")
    write_config(folder)
    with no_pictures():
        assert run_rounds(folder / "study", plan(folder)) == {}
    return folder


def test_all_rules_share_the_start_and_add_to_it(finished):
    start, *rounds = plan(finished)
    first = chosen(finished, start)
    assert len(set(first)) == LABELS[0] and [run.variant for run in rounds] == list(RULES)
    for run in rounds:
        rows = chosen(finished, run)
        assert rows[: LABELS[0]] == first and len(set(rows)) == LABELS[1]
        trained = outcome(finished / "study" / run.name)["results"]["data"]["sizes"]["train"]
        assert trained == LABELS[1] and run.after == start.name
    assert len({tuple(chosen(finished, run)) for run in rounds}) > 2


def test_the_least_sure_rows_are_chosen(finished):
    run = next(run for run in plan(finished) if run.variant == "entropy")
    data = active.load_dataset(replace(run.config.data, rows=""))
    classifier = active.load_classifier(finished / "study" / run.after, run.config)
    scores = uncertainty(classifier, data.train, "entropy")
    new = [int(row) for row in chosen(finished, run)][LABELS[0] :]
    rest = np.setdiff1d(np.arange(len(data.train)), [int(row) for row in chosen(finished, run)])
    assert scores[new].min() >= scores[rest].max()
    assert embeddings(classifier, data.train).shape == (len(data.train), 16)


@pytest.mark.parametrize("rule", ["margin", "k-centres", "random"])
def test_a_study_that_was_stopped_chooses_the_same_rows(finished, tmp_path, monkeypatch, rule):
    (tmp_path / "study").mkdir()
    write_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    runs, whole = plan(tmp_path, [rule]), {run.name: run for run in plan(finished)}

    def stop(*_):
        raise KeyboardInterrupt

    with no_pictures():
        monkeypatch.setattr(
            active, "bring_to_end", lambda *given: bring_to_end(*given) if not given[1].after else stop()
        )
        with pytest.raises(KeyboardInterrupt):  # the second round's rows are chosen, its run has not begun
            run_rounds(tmp_path / "study", runs)
        rows_file(tmp_path / "study", runs[1].name).unlink() if rule == "k-centres" else None
        monkeypatch.setattr(active, "bring_to_end", bring_to_end)
        assert run_rounds(tmp_path / "study", runs) == {}
    for run in runs:
        assert chosen(tmp_path, run) == chosen(finished, whole[run.name])
        assert outcome(tmp_path / "study" / run.name)["weights"] == outcome(finished / "study" / run.name)["weights"]


def test_finished_rounds_are_not_run_again(finished, monkeypatch):
    monkeypatch.setattr(active, "choose_rows", None)
    monkeypatch.setattr("minilm.studies.execution.train_run", None)
    assert run_rounds(finished / "study", plan(finished)) == {}


def test_a_round_whose_model_is_missing_has_failed_and_the_rest_goes_on(finished, monkeypatch):
    monkeypatch.setattr(active, "state_of", lambda *_: "finished")
    monkeypatch.setattr(active, "bring_to_end", lambda _, run: "no" if run.variant == "margin" else "")
    failed = run_rounds(finished / "study", plan(finished, labels=(12, 20, 24)))
    assert len(failed) == 2 and "margin_labels-20_seed-1, whose model" in failed["margin_labels-24_seed-1"]


def test_wrong_labels_are_in_the_file_and_the_same_for_every_round(finished):
    start, clean = plan(finished, ["random"], noise=0.5)[0], plan(finished)[0]
    choose_rows(finished / "study", start)
    lines = chosen(finished, start)
    assert [line.split("\t")[0] for line in lines] == chosen(finished, clean)
    data = active.load_dataset(start.config.data).train
    truth = active.load_dataset(clean.config.data).train
    assert data.texts == truth.texts and 0 < (data.labels != truth.labels).sum() == sum("\t" in line for line in lines)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rules": ["entropi"]}, 'no rule "entropi" (did you mean "entropy"?)'),
        ({"labels": (20, 20)}, "must grow from round to round"),
        ({"noise": 1.0}, "share of wrong labels"),
    ],
)
def test_what_cannot_be_planned_is_told(finished, settings, words):
    with pytest.raises(UserError) as error:
        plan(finished, **settings)
    assert words in str(error.value)


def test_a_pool_too_small_is_told(finished):
    with pytest.raises(UserError, match="the pool has 48 rows, 500 are to be labelled"):
        choose_rows(finished / "study", plan(finished, labels=(500,))[0])
