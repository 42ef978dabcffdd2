"""Texts' vectors equal those of the published implementation, and the probe equals scikit-learn's regression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from sklearn.linear_model import LogisticRegression

from minilm.checkpoints.models import load_model
from minilm.data.tokenization import load_tokenizer
from minilm.devices import runtime
from minilm.evaluation.embeddings import embed_texts, fit_probe
from minilm.evaluation.metrics import sigmoid

REFERENCE = Path(__file__).parents[1] / "reference"
CPU = runtime("cpu", "float32")
TEXTS = ["it was a good day", "no", "what is it?", "so much rain today 9"]


def points(rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors far from 0, around a centre for each class."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, rows - classes)])
    centres = np.random.default_rng(7).normal(size=(classes, 6))
    return 30 + 5 * (centres[labels] + random.normal(size=(rows, 6))), labels


# --- vectors ---


@pytest.mark.parametrize(
    ("name", "kind"),
    [("bert", hf.AutoModel), ("bert-lm", hf.AutoModel), ("llama", hf.AutoModel), ("t5-encoder", hf.T5EncoderModel)],
)
def test_a_texts_vector_is_the_mean_over_its_tokens_as_transformers_gives_them(name: str, kind: type) -> None:
    folder = REFERENCE / name
    tokenizer, theirs = load_tokenizer(folder), kind.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = [
            theirs(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0].mean(dim=0) for text in TEXTS
        ]
    found = embed_texts(load_model(folder, "encode"), tokenizer, TEXTS, CPU)
    np.testing.assert_allclose(found, torch.stack(expected), atol=2e-5)


@pytest.mark.parametrize("name", ["bert-classify", "bert-lm", "t5-classify"])
def test_a_head_changes_nothing(name: str) -> None:
    folder, tokenizer = REFERENCE / name, load_tokenizer(REFERENCE / name)
    bare, whole = load_model(folder, "encode"), load_model(folder)
    np.testing.assert_allclose(
        embed_texts(whole, tokenizer, TEXTS, CPU), embed_texts(bare, tokenizer, TEXTS, CPU), atol=1e-6
    )


def test_long_texts_are_cut_and_no_texts_have_no_vectors() -> None:
    model, tokenizer = load_model(REFERENCE / "bert"), load_tokenizer(REFERENCE / "bert")
    long, same = "abc " * 50, "abc " * 5 + "ab"  # 22 letters and two special tokens
    np.testing.assert_array_equal(*(embed_texts(model, tokenizer, [text], CPU) for text in (long, same)))
    shorter = embed_texts(model, tokenizer, [long], CPU, max_tokens=6)
    np.testing.assert_array_equal(shorter, embed_texts(model, tokenizer, ["abc "], CPU))
    assert embed_texts(model, tokenizer, [], CPU).shape == (0, 24)


# --- the probe ---


@pytest.mark.parametrize("classes", [2, 4])
def test_the_probe_is_scikit_learns_regression_on_vectors_of_mean_0_and_length_1(classes: int) -> None:
    x, labels = points(80, classes, seed=1)
    others, _ = points(30, classes, seed=2)
    mean = x.mean(axis=0)
    scale = np.sqrt(((x - mean) ** 2).sum(axis=1).mean())
    reference = LogisticRegression(C=10, tol=1e-9, max_iter=10_000).fit((x - mean) / scale, labels)
    expected = reference.predict_proba((others - mean) / scale)
    found = np.exp(fit_probe(x.astype(np.float32), labels, classes, tolerance=1e-8).predict(others))
    assert found == pytest.approx(expected, abs=2e-5)


def test_several_labels_have_a_regression_each() -> None:
    x, classes = points(80, 3, seed=3)
    labels = np.stack([classes == 0, classes > 0], axis=1).astype(np.int64)
    found = sigmoid(fit_probe(x, labels, 2, tolerance=1e-8).predict(x))
    assert found.sum(axis=1) == pytest.approx(np.ones(80), abs=1e-5)  # one label is there where the other is not
    assert ((found > 0.5) == labels).mean() > 0.8


def test_the_length_of_a_backbones_vectors_does_not_matter() -> None:
    x, labels = points(60, 3, seed=4)
    first, second = fit_probe(x, labels, 3), fit_probe(1000 * x, labels, 3)
    assert second.predict(1000 * x) == pytest.approx(first.predict(x), abs=1e-6)


def test_one_row_a_class_and_equal_rows_are_fitted() -> None:
    x, _ = points(3, 3, seed=5)
    assert fit_probe(x, np.arange(3), 3).predict(x).argmax(axis=1).tolist() == [0, 1, 2]
    assert np.isfinite(fit_probe(np.ones((4, 6)), np.array([0, 1, 1, 1]), 2).predict(x)).all()
