from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import minilm
from minilm.checkpoints.models import load_model, save_model
from minilm.data import batching
from minilm.data.tokenization import encode, pad_id
from minilm.devices import Runtime
from minilm.errors import UserError
from minilm.evaluation.predictor import Classifier, predict_scores
from minilm.evaluation.reading import Reading
from tests.evaluation.classifiers import CPU, TEXTS, classifier
from tests.tiny import finished_run

# --- Scores ---


@pytest.mark.parametrize(("rows", "tokens"), [(64, 16384), (4, 16384), (64, 20)])
def test_scores_come_in_the_order_of_the_texts_whatever_the_batches(
    monkeypatch: pytest.MonkeyPatch, rows: int, tokens: int
) -> None:
    monkeypatch.setattr(batching, "EVALUATED", rows)
    monkeypatch.setattr(Runtime, "tokens_at_once", tokens)
    c = classifier()
    encoded = encode(c.tokenizer, TEXTS, None, 16)
    scores = predict_scores(c.model, encoded, CPU, pad=pad_id(c.tokenizer))
    c.model.eval()
    with torch.no_grad():
        alone = [c.model(torch.from_numpy(encoded.row(i).astype(np.int64))[None])[0] for i in range(len(TEXTS))]
    np.testing.assert_allclose(scores, torch.stack(alone), atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_the_mode_it_was_in_and_dropout_is_off(training: bool) -> None:
    c = classifier()
    c.model.train(training)
    encoded = encode(c.tokenizer, TEXTS, None, 16)
    first, second = (predict_scores(c.model, encoded, CPU, pad=0) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert c.model.training == training


def test_no_texts_have_no_scores() -> None:
    assert classifier().scores([]).shape == (0, 3)
    assert classifier().predict([]) == []


# --- Probabilities and labels ---


def test_with_one_label_a_text_probabilities_add_up_to_1_and_the_likeliest_is_given() -> None:
    c = classifier()
    [found] = c.predict(["it was good"])
    assert list(found) == ["no", "yes", "well"] and sum(found.values()) == pytest.approx(1)
    assert c.decide({"no": 0.2, "yes": 0.45, "well": 0.35}) == ["yes"]


def test_with_several_labels_each_has_a_probability_of_its_own() -> None:
    c = classifier(several=True, threshold=0.4)
    [found] = c.predict(["it was good"])
    assert list(found.values()) == pytest.approx(1 / (1 + np.exp(-c.scores(["it was good"])[0])))
    assert c.decide({"no": 0.39, "yes": 0.4, "well": 0.9}) == ["yes", "well"]
    assert c.decide({"no": 0.1, "yes": 0.1, "well": 0.1}) == []


def test_a_text_longer_than_the_model_reads_is_cut() -> None:
    c = classifier()
    long = "word " * 500
    assert np.isfinite(c.scores([long])).all()
    short = classifier(max_tokens=6)
    np.testing.assert_allclose(short.scores([long]), short.scores(["word " * 5 + "and what follows"]), atol=1e-6)


# --- As in training ---


def test_texts_are_cleaned_as_in_training_and_rows_that_are_clean_already_are_not() -> None:
    c = classifier(clean=["lower", "tags"])
    np.testing.assert_array_equal(c.scores(["  It <b>WAS</b> good "]), classifier().scores(["it  was  good"]))


@pytest.mark.parametrize(
    ("texts", "pairs", "said"),
    [
        (["a", " "], False, "text 2 is empty"),
        (["a", "b", "http://a.b"], False, "text 3 is empty after cleaning"),
        ([("a", "b"), ("a", "http://a.b")], True, "text 2 is empty after cleaning"),
    ],
)
def test_a_text_of_which_cleaning_leaves_nothing_is_refused_with_its_number(
    texts: list, pairs: bool, said: str
) -> None:
    c = classifier(clean=["urls", "lower"], pairs=pairs)
    for ask in (c.predict, c.scores):
        with pytest.raises(UserError) as caught:
            ask(texts)
        assert str(caught.value) == said


def test_a_classifier_of_pairs_reads_pairs() -> None:
    c = classifier(pairs=True)
    assert c.scores([("a good film", "it was dull")]).shape == (1, 3)
    with pytest.raises(UserError, match="was trained on pairs of texts"):
        c.scores(["a good film"])
    with pytest.raises(UserError, match="was trained on single texts"):
        classifier(pairs=False).scores([("a", "b")])
    assert classifier().scores([("a", "b")]).shape == (1, 3)  # a foreign checkpoint does not say what it reads


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ("not bad", r"give a list of texts, such as \['not bad'\], not a single text"),
        (["a", float("nan")], "text 2 must be a text or a pair of two texts, got nan"),
        ([("a", None)], r"text 1 must be a text or a pair of two texts, got \('a', None\)"),
        ([b"a"], "text 1 must be a text"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(texts: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        classifier().predict(texts)


def test_texts_may_come_one_by_one_and_in_an_array() -> None:
    c = classifier()
    want = c.scores(["a good film", "it was dull"])
    assert np.array_equal(c.scores(text for text in ("a good film", "it was dull")), want)
    assert np.array_equal(c.scores(np.array(["a good film", "it was dull"])), want)


@pytest.mark.parametrize("mixed", [["a", ("b", "c")], [("a", "b", "c")]])
def test_a_mixture_of_single_texts_and_pairs_is_refused(mixed: list) -> None:
    with pytest.raises(UserError, match="either single texts or pairs"):
        classifier().scores(mixed)


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ({"max_tokens": "many"}, "config.json: minilm.max_tokens must be a whole number"),
        ({"max_tokens": -1}, "config.json: minilm.max_tokens must be a whole number of at least 0, got -1"),
        ({"precision": "half"}, 'minilm.precision must be "auto"'),
        ({"threshold": "high"}, "minilm.threshold must be a number from 0 to 1 or a list"),
        ({"several": True, "threshold": [0.5]}, "minilm.threshold must contain 3 numbers, one for each label, got 1"),
        ({"temperature": [0]}, "minilm.temperature must be a list, each item a number above 0"),
        ({"clean": ["uper"]}, 'unknown step "uper"'),
    ],
)
def test_an_edited_config_is_told(reading: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        classifier(**reading)


def test_a_model_whose_weights_are_no_numbers_is_refused() -> None:
    broken = classifier()
    broken.model.head.output.bias.data[0] = float("nan")
    with pytest.raises(UserError, match="the scores are infinite or NaN"):
        broken.predict(TEXTS)


# --- From files ---


def test_a_run_and_the_folder_of_its_model_are_the_same_classifier() -> None:
    run = finished_run()
    a, b = minilm.Classifier.load(run, "cpu"), minilm.Classifier.load(str(run / "model"), "cpu")
    assert a.labels == ["bad", "good"]
    assert a.reading == Reading(32, [], False, precision="float32")  # no temperature, as it has 6 validation texts
    np.testing.assert_array_equal(a.scores(TEXTS), b.scores(TEXTS))


def test_a_saved_classifier_reads_as_the_one_that_was_saved(tmp_path: Path) -> None:
    c = classifier(several=True, threshold=0.3, clean=["lower"], max_tokens=9, pairs=False)
    save_model(c.model, tmp_path, tokenizer=c.tokenizer)
    again = Classifier.load(tmp_path, "cpu")
    assert again.reading == c.reading and again.multi_label
    np.testing.assert_array_equal(again.scores(TEXTS), c.scores(TEXTS))


def test_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    (tmp_path / "model").mkdir()  # saving had begun
    with pytest.raises(UserError, match=r"has not finished; resume it with `minilm train .*config\.toml --resume`"):
        Classifier.load(tmp_path)


def test_a_folder_without_a_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        Classifier.load(tmp_path)
    model = load_model(finished_run() / "model", "encode")
    save_model(model, tmp_path)
    with pytest.raises(UserError, match="no classification head"):
        Classifier.load(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "head.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("kept", [0, 100])
def test_a_truncated_model_is_named(tmp_path: Path, name: str, kept: int) -> None:
    folder = shutil.copytree(finished_run() / "model", tmp_path / "model")
    (folder / name).write_bytes((folder / name).read_bytes()[:kept])
    with pytest.raises(UserError) as caught:
        Classifier.load(folder)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_whose_config_was_edited_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(finished_run() / "model", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_embd": 32}))
    with pytest.raises(UserError, match=r"shape"):
        Classifier.load(folder)
