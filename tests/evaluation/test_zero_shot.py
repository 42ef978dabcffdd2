"""Classes without training: which model each method opens, and similarity, which equals its equation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from minilm.devices import runtime
from minilm.errors import UserError
from minilm.evaluation.embeddings import embed_texts
from minilm.evaluation.zero_shot import open_model, similarity

REFERENCE = Path(__file__).parents[1] / "reference"
CPU = runtime("cpu", "float32")
TEXTS = ["rain", "a dog", "no"]
WORDS = ["sky", "cat", "ox", "ants"]


# --- Models ---


def test_a_model_without_a_trained_language_head_or_of_the_other_kind_is_refused() -> None:
    for name, method, message in (
        ("bert", "cloze", "an encoder without a head"),
        ("bert-classify", "cloze", "a classifier"),
        ("t5-lm", "cloze", "is a decoder"),
        ("bert-lm", "likelihood", "is an encoder"),
        ("bert", "closure", 'unknown zero-shot method "closure"'),
    ):
        with pytest.raises(UserError, match=message):
            open_model(str(REFERENCE / name), method, "cpu")


def test_a_models_folder_is_opened_for_each_method() -> None:
    for name, method in (("bert-lm", "cloze"), ("t5-lm", "likelihood"), ("bert", "similarity")):
        model, tokenizer = open_model(str(REFERENCE / name), method, "cpu")
        assert (model.head is None) == (method == "similarity") and tokenizer.get_vocab_size() == 61


# --- Similarity ---


def test_a_text_that_is_a_description_is_of_its_class() -> None:
    model, tokenizer = open_model(str(REFERENCE / "bert"), "similarity", "cpu")
    descriptions = ["rain and snow", "a goal was shot", "9 new chips"]
    scores = similarity(
        model, tokenizer, ["9 new chips", "rain and snow", "a goal was shot", "snow"], descriptions, CPU
    )
    assert scores[:3].argmax(axis=1).tolist() == [2, 0, 1]
    assert np.exp(scores).sum(axis=1) == pytest.approx(np.ones(4))


def test_similarity_is_the_cosine_over_the_temperature() -> None:
    model, tokenizer = open_model(str(REFERENCE / "bert"), "similarity", "cpu")
    x, d = (torch.from_numpy(embed_texts(model, tokenizer, texts, CPU)) for texts in (TEXTS, WORDS))
    cosines = torch.nn.functional.cosine_similarity(x[:, None], d[None], dim=-1)
    expected = (cosines / 0.05).log_softmax(-1).numpy()
    assert similarity(model, tokenizer, TEXTS, WORDS, CPU) == pytest.approx(expected, abs=1e-4)


def test_no_texts_have_no_scores() -> None:
    assert similarity(*open_model(str(REFERENCE / "bert"), "similarity", "cpu"), [], WORDS, CPU).shape == (0, 4)
