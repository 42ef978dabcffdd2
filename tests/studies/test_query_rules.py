"""Each rule chooses what it says, on cases whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from minilm.studies.query_rules import (
    UNCERTAINTY,
    entropy,
    k_centres,
    least_confidence,
    margin,
    most_uncertain,
    wrong_labels,
)

# Sure; torn between two; one ahead of many; between all.
P = np.array([[0.98, 0.01, 0.01, 0.0], [0.5, 0.5, 0.0, 0.0], [0.4, 0.2, 0.2, 0.2], [0.25, 0.25, 0.25, 0.25]])


def test_each_measure_has_its_known_value():
    assert least_confidence(P) == pytest.approx([0.02, 0.5, 0.6, 0.75])
    assert margin(P) == pytest.approx([-0.97, 0, -0.2, 0])
    assert margin(P[:, :3]) == pytest.approx([-0.97, 0, -0.2, 0])  # however many classes there are
    assert margin(np.array([[0.1, 0.6, 0.2, 0.05, 0.05]])) == pytest.approx([-0.4])
    assert entropy(P)[1:] == pytest.approx([math.log(2), 1.3322, math.log(4)], abs=1e-4)


@pytest.mark.parametrize(("rule", "first"), [("least-confidence", 3), ("margin", 1), ("entropy", 3)])
def test_each_rule_asks_for_what_it_is_least_sure_of(rule, first):
    chosen = most_uncertain(UNCERTAINTY[rule](P[:3] if rule == "margin" else P), 2, 0)
    assert chosen[0] == first and chosen[1] == 2


def test_equal_scores_are_drawn_by_the_seed():
    first, again, other = (most_uncertain(np.zeros(50), 10, seed) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any() and len(set(first)) == 10


def test_k_centres_finds_all_clusters_where_chance_does_not():
    chance = np.random.default_rng(0)
    sizes = [400, 30, 30, 20, 10, 5]  # most rows lie in one cluster
    middles = 10 * np.eye(6)
    x = np.concatenate([m + chance.normal(0, 0.5, (n, 6)) for m, n in zip(middles, sizes, strict=True)])
    cluster = np.repeat(np.arange(6), sizes)
    labelled = [0]
    found = set(cluster[k_centres(x, labelled, 5)]) | {0}
    by_chance = [len({0, *cluster[chance.choice(len(x), 5, replace=False)]}) for _ in range(50)]
    assert found == set(range(6)) and np.mean(by_chance) < 3


@given(arrays.arrays(np.float64, (20, 2), elements=st.integers(-3, 3)), st.integers(0, 20), st.integers(0, 30))
def test_k_centres_chooses_each_row_once_and_the_farthest_first(x, labelled, count):
    chosen = k_centres(x, range(labelled), count)
    assert len(chosen) == len(set(chosen)) == min(count, 20 - labelled) and (chosen >= labelled).all()
    for place, row in enumerate(chosen):
        centres = [*range(labelled), *chosen[:place]]
        if not centres:
            continue
        distance = np.square(x[:, None] - x[centres]).sum(axis=2).min(axis=1)
        assert distance[row] == np.delete(distance, centres).max()


def test_the_first_of_no_labelled_rows_is_the_one_nearest_to_the_mean():
    x = np.array([[5.0, 5.0], [6.0, 6.0], [9.0, 9.0], [0.0, 0.0]])  # mean 5, not the origin
    assert list(k_centres(x, [], 2)) == [0, 3]


def test_one_class_leaves_nothing_else_to_say():
    assert set(wrong_labels(np.zeros(4, np.int64), 1, 0.5, 0).values()) == {0}


@given(st.integers(2, 6), st.floats(0, 1), st.integers(0, 99))
def test_wrong_labels_are_wrong_as_many_as_asked_and_seeded(classes, share, seed):
    labels = np.arange(60) % classes
    found = wrong_labels(labels, classes, share, seed)
    assert len(found) == round(share * 60) and found == wrong_labels(labels, classes, share, seed)
    assert all(labels[row] != label and 0 <= label < classes for row, label in found.items())
    assert found.items() <= wrong_labels(labels, classes, 1, seed).items()
