"""What a finished run reports of single texts, and of the lengths of all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data.sources import Rows
from minilm.data.tokenization import Encoded
from minilm.evaluation.decisions import Decision
from minilm.runs.results import choose_samples, lengths_of

NAMES = ["a", "b", "c"]


def rows(number: int, pairs: bool = False) -> Rows:
    """Texts "0", "1", ..., whose classes follow one another."""
    texts = [str(i) for i in range(number)]
    return Rows(texts, [f"pair of {text}" for text in texts] if pairs else None, np.arange(number) % 3)


def scores(labels: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Scores (N, 3) whose highest is right for these rows only, by a margin that says which row it is."""
    chosen = np.where(right, labels, (labels + 1) % 3)
    return np.eye(3)[chosen] * (1 + np.arange(len(labels))[:, None] / 100)


def kinds(number: int, wrong: int, seed: int = 0) -> list[bool]:
    """Of each sample, whether it is right; so many of the texts are wrong."""
    data = rows(number)
    right = np.arange(number) >= wrong
    samples = choose_samples(data, scores(data.labels, right), NAMES, seed)
    assert all((sample.label == sample.predicted) == right[int(sample.text)] for sample in samples)
    assert len({sample.text for sample in samples}) == len(samples)
    return [sample.label == sample.predicted for sample in samples]


@pytest.mark.parametrize(
    ("number", "wrong", "right_shown", "wrong_shown"),
    [
        (20, 10, 3, 2),  # three right ones, then two wrong ones
        (20, 0, 5, 0),  # none is wrong
        (20, 1, 4, 1),
        (20, 2, 3, 2),
        (20, 20, 0, 5),  # all are wrong
        (20, 19, 1, 4),
        (20, 18, 2, 3),
        (20, 17, 3, 2),
        (4, 2, 2, 2),  # of fewer texts than five, all
        (1, 1, 0, 1),
    ],
)
def test_five_samples_are_right_but_two(number, wrong, right_shown, wrong_shown):
    assert kinds(number, wrong) == [True] * right_shown + [False] * wrong_shown


@given(st.integers(1, 30), st.data())
def test_there_are_five_samples_or_all_texts(number, data):
    wrong = data.draw(st.integers(0, number))
    found = kinds(number, wrong, data.draw(st.integers(0, 9)))
    assert len(found) == min(5, number) and found == sorted(found, reverse=True)
    assert found.count(False) >= min(2, wrong)


def test_the_seed_draws_them():
    data = rows(60)
    found = scores(data.labels, np.ones(60, dtype=bool))
    one, again, other = ([s.text for s in choose_samples(data, found, NAMES, seed)] for seed in (1, 1, 2))
    assert one == again != other


def test_a_sample_has_its_own_scores_and_both_texts_of_a_pair():
    data = rows(12, pairs=True)
    found = scores(data.labels, np.arange(12) % 2 == 0)
    for sample in choose_samples(data, found, NAMES, 3):
        i = int(sample.text.partition(" / ")[0])
        assert sample.text == f"{i} / pair of {i}" and sample.label == NAMES[i % 3]
        exponents = np.exp(found[i])
        assert list(sample.scores) == NAMES
        assert list(sample.scores.values()) == pytest.approx(exponents / exponents.sum())


def test_several_labels_are_lists_and_wholly_right_or_wrong():
    truth = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])
    logits = np.array([[3.0, -3, 3], [-3, -3, -3], [-3, 3, 0.5], [3, 3, -0.5]])
    data = Rows(["0", "1", "2", "3"], None, truth)
    samples = {sample.text: sample for sample in choose_samples(data, logits, NAMES, 0)}
    assert [samples[i].label for i in "0123"] == [["a", "c"], [], ["b"], ["a", "b", "c"]]
    assert [samples[i].predicted for i in "0123"] == [["a", "c"], [], ["b", "c"], ["a", "b"]]
    assert samples["0"].scores["b"] == pytest.approx(1 / (1 + np.exp(3)))
    order = [sample.text for sample in choose_samples(data, logits, NAMES, 0)]
    assert set(order[:2]) == {"0", "1"} and set(order[2:]) == {"2", "3"}
    strict = {sample.text: sample for sample in choose_samples(data, logits, NAMES, 0, Decision("multi", 0.7))}
    assert strict["2"].predicted == ["b"]  # sigmoid(0.5) = 0.62


def test_lengths_are_of_tokens_and_of_characters():
    texts, pairs = ["ab", "abcd", "abcdefgh"], ["", "x", "yz"]
    encoded = Encoded(
        ids=np.arange(6), offsets=np.array([0, 1, 3, 6]), full_lengths=np.array([1, 2, 9]), segments=None
    )
    found = lengths_of(Rows(texts, None, np.zeros(3, np.int64)), encoded, 3)
    assert (found.mean, found.median, found.longest, found.truncated, found.max_tokens) == (4, 2, 9, 1, 3)
    characters = found.characters
    assert characters is not None
    assert (characters.mean, characters.median, characters.longest) == (pytest.approx(14 / 3), 4, 8)
    assert characters.p95 == pytest.approx(np.percentile([2, 4, 8], 95))
    both = lengths_of(Rows(texts, pairs, np.zeros(3, np.int64)), encoded, 3).characters
    assert both is not None and (both.mean, both.median, both.longest) == (pytest.approx(17 / 3), 5, 10)
