"""Classes by entailment: the numbers of the reference's zero-shot-classification pipeline, for every family."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as hf

from minilm.devices import runtime
from minilm.errors import UserError
from minilm.evaluation.entailment import EntailmentOutputs, entailment, entailment_outputs
from minilm.evaluation.metrics import sigmoid
from minilm.evaluation.zero_shot import open_model
from minilm.models import ARCHITECTURES

REFERENCE = Path(__file__).parents[1] / "reference"
CPU = runtime("cpu", "float32")
NLI = ("contradiction", "neutral", "entailment")
TEXTS = ["rain", "a dog", "it was a dog and then it was rain"]  # a token a letter; the last one is too long
LABELS, TEMPLATE = ["sky", "cat", "ox"], "so {}."
HYPOTHESES = [TEMPLATE.format(label) for label in LABELS]


def nli(family: str, folder: Path, labels: tuple[str, ...] = ()) -> Path:
    """A reference classifier whose classes, three or two, are called so."""
    shutil.copytree(REFERENCE / f"{family}-classify", folder)
    config = json.loads((folder / "config.json").read_text())
    labels = labels or (NLI if len(config.get("id2label", "01")) == 3 else ("entailment", "not_entailment"))
    config |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def pipeline(folder: Path) -> Any:
    """Theirs. A segment is read by the families that have segments."""
    model = hf.AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32").eval()
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * (getattr(model.config, "type_vocab_size", 0) > 1)
    limit = {"model_max_length": model.config.max_position_embeddings} if model.config.model_type == "bert" else {}
    file = str(folder / "tokenizer.json")
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_file=file, pad_token="[PAD]", model_input_names=names, **limit)
    return hf.pipeline("zero-shot-classification", model=model, tokenizer=tokenizer, device="cpu")


def their_probabilities(theirs: Any, texts: list[str], *, multi_label: bool) -> np.ndarray:
    """(N, C)."""
    found = theirs(texts, candidate_labels=LABELS, hypothesis_template=TEMPLATE, multi_label=multi_label)
    by_label = [dict(zip(answer["labels"], answer["scores"], strict=True)) for answer in found]
    return np.array([[answer[label] for label in LABELS] for answer in by_label])


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_the_probabilities_are_those_of_the_references_pipeline(family: str, tmp_path: Path) -> None:
    texts = TEXTS if family == "bert" else TEXTS[:2]
    folder = nli(family, tmp_path / family)
    theirs = pipeline(folder)
    model, tokenizer = open_model(str(folder), "entailment", "cpu")
    one = np.exp(entailment(model, tokenizer, texts, HYPOTHESES, CPU))
    several = sigmoid(entailment(model, tokenizer, texts, HYPOTHESES, CPU, multi_label=True))
    assert one == pytest.approx(their_probabilities(theirs, texts, multi_label=False), abs=1e-5)
    assert several == pytest.approx(their_probabilities(theirs, texts, multi_label=True), abs=1e-5)
    assert one.sum(axis=1) == pytest.approx(np.ones(len(texts)))
    assert np.abs(several.sum(axis=1) - 1).max() > 1e-3


@cache
def opened(folder: Path) -> Any:
    return open_model(str(folder), "entailment", "cpu")


def test_a_long_text_is_cut_and_the_hypothesis_is_not(tmp_path: Path) -> None:
    model, tokenizer = opened(nli("bert", tmp_path / "nli"))
    room = 24 - 3 - len("so cat.")  # of the context: special tokens and the hypothesis
    long, cut = "abcdefghij" * 4, ("abcdefghij" * 4)[:room]
    assert len(tokenizer.encode(cut, "so cat.").ids) == 24
    found = entailment(model, tokenizer, [long], ["so cat.", "so dog."], CPU)
    assert found == pytest.approx(entailment(model, tokenizer, [cut], ["so cat.", "so dog."], CPU))
    short = entailment(model, tokenizer, [long], ["so cat.", "so dog."], CPU, max_tokens=12)
    assert short == pytest.approx(entailment(model, tokenizer, [long[: room - 12]], ["so cat.", "so dog."], CPU))
    with pytest.raises(UserError, match="7 tokens of the second text leave no room for the first; only 6 fit"):
        entailment(model, tokenizer, [long], ["so cat.", "so dog."], CPU, max_tokens=9)


def test_texts_are_read_in_parts_and_none_have_no_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = opened(nli("bert", tmp_path / "nli"))
    whole = entailment(model, tokenizer, TEXTS, HYPOTHESES, CPU)
    monkeypatch.setattr("minilm.evaluation.entailment.TOGETHER", 3)
    assert entailment(model, tokenizer, TEXTS, HYPOTHESES, CPU) == pytest.approx(whole)
    assert entailment(model, tokenizer, [], HYPOTHESES, CPU).shape == (0, 3)


# --- Which output is which ---


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("CONTRADICTION", "NEUTRAL", "ENTAILMENT"), (2, 0)),
        (("entailment", "neutral", "contradiction"), (0, 2)),
        (("contradiction", "entailment", "neutral"), (1, 0)),
        (("neutral", "entailment", "contradiction"), (1, 2)),
        (("entailment", "not_entailment"), (0, 1)),
        (("not_entailment", "entailment"), (1, 0)),
        (("no", "maybe", "Entails"), (2, None)),
    ],
)
def test_the_outputs_are_found_by_their_labels(labels: tuple[str, ...], expected: tuple[int, int | None]) -> None:
    assert entailment_outputs(labels, "m") == EntailmentOutputs(*expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("LABEL_0", "LABEL_1", "LABEL_2"), "m: has the labels LABEL_0, LABEL_1, LABEL_2, none of which means entail"),
        (("entails", "entailment"), "m: has the labels entails, entailment, two of which mean entailment; choose"),
        ((), "m: has no classification head, so nothing means entailment; choose a model that was trained on natural"),
    ],
)
def test_a_model_without_such_a_label_is_refused(labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        entailment_outputs(labels, "m")


def test_it_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    folder = nli("bert", tmp_path / "weather", labels=("cold", "mild", "hot"))
    with pytest.raises(UserError, match="none of which means entailment"):
        open_model(str(folder), "entailment", "cpu")
    with pytest.raises(UserError, match="has no classification head, so nothing means entailment"):
        open_model(str(REFERENCE / "bert-lm"), "entailment", "cpu")


def test_several_labels_a_text_need_a_contradiction(tmp_path: Path) -> None:
    model, tokenizer = opened(nli("bert", tmp_path / "nli", labels=("no", "maybe", "entails")))
    assert entailment(model, tokenizer, TEXTS, HYPOTHESES, CPU).shape == (3, 3)
    with pytest.raises(UserError, match="has the labels no, maybe, entails, none of which means contradiction"):
        entailment(model, tokenizer, TEXTS, HYPOTHESES, CPU, multi_label=True)
