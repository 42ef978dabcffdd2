"""Splits: sizes are exact, classes keep their shares, groups stay together, and the seed decides all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from minilm.data.splits import hold_out, keep_rows, quotas, strata_of

LABELS = arrays.arrays(np.int64, st.integers(1, 200), elements=st.integers(0, 5))
SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.floats(0.02, 0.6)


@given(LABELS, SEEDS, st.data())
def test_kept_rows_are_as_many_as_asked_and_stratified(labels, seed, data):
    count = data.draw(st.integers(0, len(labels)))
    kept = keep_rows(labels, count, seed)
    assert len(kept) == count and (np.diff(kept) > 0).all()
    sizes, taken = np.bincount(labels, minlength=6), np.bincount(labels[kept], minlength=6)
    present = sizes > 0
    if count >= present.sum():
        assert (taken[present] >= 1).all()
    ideal = sizes * count / len(labels)
    slack = 1 + np.count_nonzero(present & (ideal < 1))  # rows given to classes too rare for one of their own
    assert (np.abs(taken - ideal) <= slack).all()
    assert (keep_rows(labels, count, seed) == kept).all()


@given(LABELS, SHARES, SEEDS)
def test_held_out_and_kept_rows_are_a_partition_of_the_asked_sizes(labels, share, seed):
    kept, out = hold_out(labels, share, seed)
    assert sorted([*kept, *out]) == list(range(len(labels)))
    assert len(out) == round(share * len(labels)) or len(kept) == len(labels) - round(share * len(labels))
    for mine, again in zip((kept, out), hold_out(labels, share, seed), strict=True):
        assert (mine == again).all()


@given(LABELS, SHARES, SEEDS, st.data())
def test_groups_stay_on_one_side(labels, share, seed, data):
    groups = data.draw(arrays.arrays(np.int64, len(labels), elements=st.integers(0, 60)))
    kept, out = hold_out(labels, share, seed, groups)
    assert sorted([*kept, *out]) == list(range(len(labels)))
    assert not set(groups[kept]) & set(groups[out])


def test_groups_are_held_out_near_the_share_and_with_the_shares_of_the_classes():
    random = np.random.default_rng(0)
    for groups in (np.repeat(np.arange(1000), random.integers(1, 5, 1000)), np.arange(5000) % 50):
        labels = (random.random(len(groups)) < 0.3).astype(np.int64)
        _, out = hold_out(labels, 0.1, 0, groups)
        assert abs(len(out) / len(labels) - 0.1) < 0.002
        assert abs(labels[out].mean() - labels.mean()) < 0.02


def test_another_seed_gives_another_split():
    labels = np.arange(300) % 3
    assert (hold_out(labels, 0.1, (0, 1))[1] != hold_out(labels, 0.1, (0, 2))[1]).any()


def test_quotas_follow_the_largest_remainder():
    assert quotas(np.array([50, 30, 20]), 10).tolist() == [5, 3, 2]
    assert quotas(np.array([5, 3, 2]), 5).tolist() in ([3, 1, 1], [2, 2, 1])
    assert quotas(np.array([98, 1, 1]), 10).tolist() == [8, 1, 1]
    with pytest.raises(ValueError):
        quotas(np.array([2, 2]), 5)


def test_several_labels_are_stratified_by_the_rarest():
    labels = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    assert strata_of(labels).tolist() == [0, 1, 0, -1, 2]
    assert strata_of(np.array([2, 0])).tolist() == [2, 0]
