"""Several classifiers as one, and how answers are wished."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from minilm.checkpoints.models import card_of, save_model
from minilm.data.rows import Rows
from minilm.errors import UserError
from minilm.evaluation.ensemble import Ensemble, load_predictor
from minilm.evaluation.measuring import measure_rows
from minilm.evaluation.predictor import Classifier
from minilm.evaluation.selective import threshold_for_precision
from minilm.evaluation.validation_scores import ValidationScores, read_validation, write_validation
from minilm.evaluation.wishes import Wishes, apply_wishes
from tests.evaluation.classifiers import TEXTS, classifier
from tests.tiny import finished_run, minilm, refused


def others(number: int, **reading: object) -> list[Classifier]:
    """Classifiers that differ in their weights."""
    found = []
    for seed in range(number):
        one = classifier(**reading)
        torch.manual_seed(seed)
        for parameter in one.model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        found.append(one)
    return found


def as_array(answers: list[dict[str, float]]) -> np.ndarray:
    return np.array([list(row.values()) for row in answers])


@pytest.mark.parametrize("several", [False, True])
def test_the_probability_is_the_mean_of_those_with_each_ones_own_temperature(several: bool) -> None:
    members = others(3, several=several)
    members[0].decision = replace(members[0].decision, temperature=np.array([0.5] * (3 if several else 1)))
    together = as_array(Ensemble(members).predict(TEXTS))
    np.testing.assert_allclose(together, np.mean([as_array(m.predict(TEXTS)) for m in members], axis=0), atol=1e-12)


def test_labels_in_another_order_are_the_same_labels() -> None:
    first, second = others(2)
    before = as_array(Ensemble([first, second]).predict(TEXTS))
    second.labels = [second.labels[i] for i in (2, 0, 1)]
    head = second.model.get_parameter("head.output.weight")
    bias = second.model.get_parameter("head.output.bias")
    head.data, bias.data = head.data[[2, 0, 1]], bias.data[[2, 0, 1]]
    np.testing.assert_allclose(as_array(Ensemble([first, second]).predict(TEXTS)), before, atol=1e-6)


def test_a_threshold_is_that_of_the_same_label_in_every_member() -> None:
    first, second = others(2)
    for member, labels, threshold in ((first, ["a", "b"], 0.2), (second, ["b", "a"], 0.8)):
        member.labels = labels
        member.decision = replace(member.decision, threshold=threshold)
    together = Ensemble([first, second])  # both answer "b" from a probability of 0.2
    assert together.decision.threshold == pytest.approx(0.2)
    assert Ensemble([second, first]).decision.threshold == pytest.approx(0.8)
    together.without_temperature()
    assert together.decision.threshold == pytest.approx(0.2)


def test_without_temperatures_each_member_gives_its_raw_probabilities() -> None:
    members = others(2)
    raw = np.mean([as_array(m.predict(TEXTS)) for m in members], axis=0)
    for member in members:
        member.decision = replace(member.decision, temperature=np.array([3.0]))
    apply_wishes(ensemble := Ensemble(members), Wishes(raw=True))
    np.testing.assert_allclose(as_array(ensemble.predict(TEXTS)), raw, atol=1e-12)


def test_models_that_do_not_belong_together_are_refused_in_one_line(tmp_path: Path) -> None:
    first, second = others(2)
    second.labels = ["no", "yes", "perhaps"]
    with pytest.raises(UserError, match="has other labels than"):
        Ensemble([first, second])
    with pytest.raises(UserError, match=r"in data\.text_pair or data\.clean"):
        Ensemble([first, classifier(pairs=True)])
    one = classifier()
    save_model(one.model, tmp_path / "other", tokenizer=one.tokenizer)
    assert "has other labels than" in refused("predict", finished_run(), tmp_path / "other", "a text")


def test_runs_answer_together_and_are_measured_together() -> None:
    run = finished_run()
    assert minilm("predict", run, run, "it was good").stdout == minilm("predict", run, "it was good").stdout
    alone, twice = (minilm("evaluate", *runs, "--json").stdout for runs in ([run], [run, run]))
    assert alone.partition('"accuracy"')[2] == twice.partition('"accuracy"')[2]
    assert json.loads(twice)["loss"] == pytest.approx(json.loads(alone)["loss"])


@pytest.mark.parametrize("several", [False, True])
def test_the_loss_is_that_without_temperatures_of_one_model_and_of_an_ensemble(several: bool) -> None:
    alone = classifier(several=several)
    rows = Rows(TEXTS[:3], None, np.eye(3, dtype=int)[[0, 1, 2]] if several else np.array([0, 1, 2]))
    before = measure_rows(alone, rows).loss
    alone.decision = replace(alone.decision, temperature=np.array([0.1] * (3 if several else 1)))
    assert measure_rows(alone, rows).loss == before
    assert measure_rows(Ensemble([alone, alone]), rows).loss == pytest.approx(before)


# --- Wishes ---


def test_a_precision_that_is_wished_is_kept_on_validation() -> None:
    predictor = load_predictor([finished_run()], "cpu")
    found = predictor.validation()
    p = predictor.decision.probabilities(found.scores)
    point = threshold_for_precision(p.max(axis=1), p.argmax(axis=1) == found.labels, 0.9)
    [line] = apply_wishes(predictor, Wishes(min_precision=0.9))
    assert predictor.decision.unsure_below == point.threshold
    assert f"{point.coverage:.1%} of texts" in line


def test_a_precision_out_of_reach_names_the_highest() -> None:
    one = classifier()
    scores = np.array([[3.0, 0, 0], [2.0, 0, 0], [1.0, 0, 0]], np.float32)
    one.validation = lambda: ValidationScores(scores, np.array([1, 0, 1]))  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"no threshold has a precision of 0\.95 .*highest is 0\.500"):
        apply_wishes(one, Wishes(min_precision=0.95))
    with pytest.raises(UserError, match="the required precision must be a number above 0 and at most 1, got 2"):
        apply_wishes(one, Wishes(min_precision=2))
    with pytest.raises(UserError, match="or --threshold, not both"):
        apply_wishes(one, Wishes(min_precision=0.5, threshold=0.5))


def test_with_several_labels_each_has_a_threshold_of_its_own_or_is_never_given() -> None:
    one = classifier(several=True)
    scores = np.array([[3.0, 3, 1], [2.0, 2, 0], [1.0, 1, -1]], np.float32)
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 0]])
    one.validation = lambda: ValidationScores(scores, labels)  # type: ignore[method-assign]
    lines = apply_wishes(one, Wishes(min_precision=0.9))
    p = one.decision.probabilities(scores)
    assert one.decision.choose(p).tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert lines[0].startswith("on the validation texts, 2 of 3 labels reach") and '"yes"' in lines[1]


def test_validation_scores_are_kept_with_the_model_and_read_again(tmp_path: Path) -> None:
    for labels in (np.array([0, 2]), np.array([[0, 1, 1], [0, 0, 0]])):
        kept = ValidationScores(np.arange(6, dtype=np.float32).reshape(2, 3), labels)
        write_validation(tmp_path, kept)
        found = read_validation(tmp_path, "x")
        np.testing.assert_array_equal(found.scores, kept.scores)
        np.testing.assert_array_equal(found.labels, kept.labels)
    with pytest.raises(UserError, match=r"x: has no validation\.safetensors"):
        read_validation(tmp_path / "nowhere", "x")


def test_members_validated_on_other_texts_share_no_precision() -> None:
    members = others(2)
    scores = np.zeros((2, 3), np.float32)
    for member, labels in zip(members, ([0, 1], [0, 2]), strict=True):
        member.validation = lambda y=labels: ValidationScores(scores, np.array(y))  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"has other validation texts than"):
        apply_wishes(Ensemble(members), Wishes(min_precision=0.5))


def test_a_threshold_is_given_on_the_command_line() -> None:
    said = minilm("predict", finished_run(), "it was good", "--threshold", "0", "--raw").stdout
    assert said.startswith("good ")
    assert minilm("predict", finished_run(), "it was good", "--threshold", "1").stdout.startswith("bad ")
    assert "--threshold must be a number from 0 to 1" in refused("predict", finished_run(), "a", "--threshold", "2")
    assert card_of(load_predictor([finished_run()], "cpu").model).extra["threshold"] == 0.5  # type: ignore[attr-defined]


def test_an_unsure_answer_is_shown_as_such() -> None:
    result = minilm("predict", finished_run(), "it was good", "--unsure-below", "1")
    assert result.stdout.startswith("unsure (good ")
    assert '"labels": [], "unsure": true' in minilm(
        "predict", finished_run(), "it was good", "--unsure-below", "1", "--json"
    ).stdout


def test_what_a_terminal_would_obey_is_escaped_and_json_is_exact() -> None:
    shown = minilm("predict", finished_run(), "good\x1b[2J\u202e").stdout
    assert "good\\x1b[2J\\u202e" in shown
    assert '"good\\u001b[2J\u202e"' in minilm("predict", finished_run(), "good\x1b[2J\u202e", "--json").stdout
