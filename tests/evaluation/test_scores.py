"""Models that give a score and no label: regression, cross-encoders, rerankers, reward models, of every family."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from minilm.checkpoints.models import card_of, load_model, save_model
from minilm.data.long_texts import Windows
from minilm.data.tokenization import load_tokenizer
from minilm.devices import runtime
from minilm.errors import UserError
from minilm.evaluation.ensemble import load_predictor
from minilm.evaluation.explaining import explain_text
from minilm.evaluation.predictor import Classifier
from minilm.evaluation.windows import scores_of_texts
from minilm.models import ARCHITECTURES
from tests.tiny import minilm

REFERENCE = Path(__file__).parents[1] / "reference"
TEXTS = ["rain", "a dog", "no"]
IDENTITY = "torch.nn.modules.linear.Identity"


def published(folder: Path, family: str = "bert", outputs: int = 1, **keys: Any) -> Path:
    """A classifier of theirs with random weights."""
    source = REFERENCE / f"{family}-classify"
    config = hf.AutoConfig.from_pretrained(source, dtype="float32")
    config.problem_type, config.id2label = None, {i: f"LABEL_{i}" for i in range(outputs)}
    torch.manual_seed(0)
    hf.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    shutil.copy(source / "tokenizer.json", folder)
    stored = json.loads((folder / "config.json").read_text()) | keys
    (folder / "config.json").write_text(json.dumps(stored))
    return folder


def their_scores(folder: Path, texts: list[str], problem: str | None) -> np.ndarray:
    """(N, C), of their pipeline for a problem type."""
    model = hf.AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32").eval()
    model.config.problem_type = problem
    names = ["input_ids", "attention_mask"]
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", model_input_names=names
    )
    pipeline = hf.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu", top_k=None)
    by_label = [{answer["label"]: answer["score"] for answer in answers} for answers in pipeline(texts)]
    return np.array([[answers[label] for label in model.config.id2label.values()] for answers in by_label])


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_one_output_is_the_score_of_the_references_pipeline(family: str, tmp_path: Path) -> None:
    folder = published(tmp_path / "m", family)
    model = load_model(folder, dtype=torch.float32)
    for problem in (None, "regression"):
        card_of(model).published["problem_type"] = problem
        classifier = Classifier(model, load_tokenizer(folder), runtime("cpu", "float32"))
        found = classifier.predict(TEXTS)
        assert [list(answer) for answer in found] == [["score"]] * 3
        values = np.array([list(answer.values()) for answer in found])
        assert values == pytest.approx(their_scores(folder, TEXTS, problem), abs=1e-5)
        assert len({round(value, 6) for value in values.ravel()}) > 1  # not one number for all, as of a softmax
        with pytest.raises(UserError, match="gives a score, not a label"):
            classifier.decide(found[0])


def test_regression_of_several_values_is_raw_and_several_labels_of_one_output_are_labels(tmp_path: Path) -> None:
    folder = published(tmp_path / "three", outputs=3, problem_type="regression")
    found = Classifier.load(folder, "cpu").predict(TEXTS)
    assert list(found[0]) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    expected = their_scores(folder, TEXTS, "regression")
    assert np.array([list(answer.values()) for answer in found]) == pytest.approx(expected, abs=1e-5)
    folder = published(tmp_path / "one", problem_type="multi_label_classification", id2label={"0": "toxic"})
    classifier = Classifier.load(folder, "cpu")
    assert classifier.multi_label and set(classifier.predict(TEXTS)[0]) == {"toxic"}


def test_a_problem_type_with_which_the_reference_fails_is_refused(tmp_path: Path) -> None:
    for problem, message in (
        ("single_label_classification", "needs two labels or more"),
        ("ranking", "problem_type 'ranking' is none of single_label_classification, multi_label_classification, reg"),
    ):
        with pytest.raises(UserError, match=message):
            Classifier.load(published(tmp_path / problem, problem_type=problem), "cpu")


def test_a_cross_encoder_says_itself_whether_its_score_is_raw(tmp_path: Path) -> None:
    raw = Classifier.load(published(tmp_path / "plain"), "cpu").scores(TEXTS)
    squashed = 1 / (1 + np.exp(-raw))
    cases: list[tuple[dict[str, Any], np.ndarray]] = [
        ({"sentence_transformers": {"activation_fn": IDENTITY, "version": "5.0"}}, raw),
        ({"sbert_ce_default_activation_function": IDENTITY}, raw),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}, squashed),
        ({"sentence_transformers": {"version": "5.0"}}, squashed),
    ]
    for number, (keys, expected) in enumerate(cases):
        folder = published(tmp_path / str(number), **keys)
        found = [list(answer.values()) for answer in Classifier.load(folder, "cpu").predict(TEXTS)]
        assert np.array(found) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(UserError, match=r"activation_fn 'torch.nn.ReLU' is not supported"):
        Classifier.load(published(tmp_path / "other", sentence_transformers={"activation_fn": "torch.nn.ReLU"}))


def test_what_a_score_is_comes_back_from_a_saved_folder_and_not_with_another_head(tmp_path: Path) -> None:
    folder = published(tmp_path / "m", problem_type="regression", sbert_ce_default_activation_function=IDENTITY)
    save_model(load_model(folder), tmp_path / "again")
    again, before = (Classifier.load(place, "cpu").predict(TEXTS) for place in (tmp_path / "again", folder))
    assert again == before
    model = load_model(folder, "classify", labels=["a"])
    assert not card_of(model).published.keys() & {"problem_type", "sbert_ce_default_activation_function"}


def test_the_terminal_says_a_score_and_no_label(tmp_path: Path) -> None:
    folder = published(tmp_path / "m", problem_type="regression")
    [answer] = Classifier.load(folder, "cpu").predict(["rain"])
    assert minilm("predict", folder, "rain").stdout == f"score {answer['score']:.4g}\train\n"
    line = json.loads(minilm("predict", folder, "rain", "--json").stdout)
    assert line == {"text": "rain", "scores": {"score": pytest.approx(answer["score"])}}
    named = published(tmp_path / "named", id2label={"0": "toxicity"})
    assert minilm("predict", named, "rain").stdout.startswith("toxicity 0.")


@pytest.mark.parametrize("problem", ["regression", None])
def test_of_several_models_it_is_the_mean(problem: str | None, tmp_path: Path) -> None:
    one, two = (published(tmp_path / name, problem_type=problem) for name in ("one", "two"))
    tensors = load_model(two)
    torch.nn.init.normal_(tensors.head.output.weight)
    save_model(tensors, two)
    mean = np.mean([[a["score"] for a in Classifier.load(f, "cpu").predict(TEXTS)] for f in (one, two)], axis=0)
    both = load_predictor([one, two], "cpu").predict(TEXTS)
    assert [answer["score"] for answer in both] == pytest.approx(mean)


def test_of_windows_it_is_the_mean_or_the_highest() -> None:
    scores, starts = np.array([[1.0], [3.0], [-5.0]], np.float32), np.array([0, 2, 3])
    assert scores_of_texts(scores, Windows(starts, "mean"), "score").tolist() == [[2.0], [-5.0]]
    assert scores_of_texts(scores, Windows(starts, "max"), "score").tolist() == [[3.0], [-5.0]]


def test_an_explained_score_is_the_output_itself(tmp_path: Path) -> None:
    classifier = Classifier.load(published(tmp_path / "m", outputs=3, problem_type="regression"), "cpu")
    answer = classifier.predict(["rain a dog"])[0]
    for label, value in answer.items():
        found = explain_text(classifier, "rain a dog", label)
        assert (found.probability, found.score) == (pytest.approx(value, abs=1e-6), pytest.approx(value, abs=1e-6))
