"""Splits: sizes are exact, classes keep their shares, groups stay together, and the seed decides all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from minilm.data.splits import deal_folds, hold_out, join_groups, keep_rows, keep_shots, strata_of

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
    # Each class may be rounded by 1/2, which the largest makes up for; a class too rare for a row of its own gets one.
    slack = 1 + np.count_nonzero(present & (ideal < 1)) + present.sum() / 2 * sizes / len(labels)
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


def hold_out_densely(strata, share, seed, groups):
    """Groups are held out as the module's docstring says it, by a table of all groups and classes."""
    _, classes = np.unique(strata, return_inverse=True)
    _, members = np.unique(groups, return_inverse=True)
    counts = np.zeros((members.max() + 1, classes.max() + 1))
    np.add.at(counts, (members, classes), 1)
    wanted = share * counts.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(counts))
    out = np.zeros(len(counts), dtype=bool)
    for must_fit in (True, False):
        for group in order[~out[order]]:
            rows = counts[group]
            if (rows <= wanted + 0.5).all() if must_fit else 2 * wanted @ rows > rows @ rows:
                out[group] = True
                wanted = wanted - rows
    return np.flatnonzero(~out[members]), np.flatnonzero(out[members])


@given(LABELS, SHARES, SEEDS, st.data())
def test_groups_are_held_out_as_by_a_table_of_all_groups_and_classes(labels, share, seed, data):
    groups = data.draw(arrays.arrays(np.int64, len(labels), elements=st.integers(0, 40)))
    for mine, dense in zip(
        hold_out(labels, share, seed, groups), hold_out_densely(labels, share, seed, groups), strict=True
    ):
        assert mine.tolist() == dense.tolist()


@given(st.integers(1, 40), st.data())
def test_joined_groups_share_a_value_of_either_directly_or_through_others(rows, data):
    first, second = (data.draw(arrays.arrays(np.int64, rows, elements=st.integers(0, 15))) for _ in range(2))
    joined = join_groups(first, second)
    reach = (first[:, None] == first) | (second[:, None] == second)
    for _ in range(6):
        reach = reach @ reach
    assert ((joined[:, None] == joined) == reach).all()


@given(LABELS, st.integers(2, 6), SEEDS)
def test_folds_have_about_as_many_rows_of_each_class(labels, folds, seed):
    dealt = deal_folds(labels, folds, seed)
    for rows in (np.ones(len(labels), bool), *(labels == c for c in np.unique(labels))):
        sizes = np.bincount(dealt[rows], minlength=folds)
        assert len(sizes) == folds and sizes.max() - sizes.min() <= 1
    assert (deal_folds(labels, folds, seed) == dealt).all()


@given(LABELS, st.integers(2, 6), SEEDS, st.data())
def test_groups_are_in_one_fold(labels, folds, seed, data):
    groups = data.draw(arrays.arrays(np.int64, len(labels), elements=st.integers(0, 60)))
    dealt = deal_folds(labels, folds, seed, groups)
    assert all(len(set(dealt[groups == group])) == 1 for group in groups) and set(dealt) <= set(range(folds))


def test_folds_of_groups_are_even():
    groups = np.arange(600) // 3
    labels = np.random.default_rng(0).integers(3, size=200)[groups]
    dealt = deal_folds(labels, 5, 0, groups)
    for label in range(3):
        sizes = np.bincount(dealt[labels == label], minlength=5)
        assert sizes.max() - sizes.min() <= 3
    assert np.ptp(np.bincount(dealt)) <= 6


def test_groups_are_held_out_near_the_share_and_with_the_shares_of_the_classes():
    random = np.random.default_rng(0)
    for groups in (np.repeat(np.arange(1000), random.integers(1, 5, 1000)), np.arange(5000) % 50):
        labels = (random.random(len(groups)) < 0.3).astype(np.int64)
        _, out = hold_out(labels, 0.1, 0, groups)
        assert abs(len(out) / len(labels) - 0.1) < 0.002
        assert abs(labels[out].mean() - labels.mean()) < 0.02


@given(LABELS, st.integers(1, 7), SEEDS)
def test_groups_of_one_row_are_held_out_to_the_nearest_whole_number_of_each_class(labels, eighths, seed):
    _, out = hold_out(labels, eighths / 8, seed, np.arange(len(labels)))
    wanted = np.bincount(labels, minlength=6) * eighths / 8
    assert np.bincount(labels[out], minlength=6).tolist() == np.floor(wanted + 0.5).tolist()


@pytest.mark.parametrize(("share", "held_out"), [(0.10, 0), (0.11, 3), (0.29, 3), (0.31, 6)])
def test_a_group_larger_than_what_is_wanted_is_held_out_where_that_is_nearer(share, held_out):
    labels, groups = np.zeros(15, np.int64), np.arange(15) // 3  # 1.5, 1.65, 4.35 and 4.65 rows are wanted
    assert len(hold_out(labels, share, 0, groups)[1]) == held_out


def test_a_group_must_fit_in_every_class():
    labels, groups = np.array([0] * 10 + [1, 1, 1, 1]), np.array([*range(7), 7, 8, 9, 7, 8, 9, 10])
    for seed in range(20):  # 5 and 2 rows are wanted; groups 7 to 9 have a row of each class
        _, out = hold_out(labels, 0.5, seed, groups)
        of_first, of_second = np.bincount(labels[out], minlength=2)
        assert of_first <= 5 and of_second <= 2 and of_first + of_second >= 6


def test_another_seed_gives_another_split():
    labels = np.arange(300) % 3
    assert (hold_out(labels, 0.1, (0, 1))[1] != hold_out(labels, 0.1, (0, 2))[1]).any()


@given(LABELS, SEEDS, st.data())
def test_fewer_rows_are_among_more_rows_of_the_same_seed(labels, seed, data):
    few, many = sorted(data.draw(st.tuples(*[st.integers(0, len(labels))] * 2)))
    assert set(keep_rows(labels, few, seed)) <= set(keep_rows(labels, many, seed))
    assert set(keep_shots(labels, few, seed)) <= set(keep_shots(labels, many, seed))


@given(LABELS, SEEDS, st.integers(0, 40))
def test_shots_are_so_many_of_each_class_or_all_it_has(labels, seed, shots):
    kept = keep_shots(labels, shots, seed)
    assert (np.diff(kept) > 0).all()
    sizes = np.bincount(labels, minlength=6)
    assert np.bincount(labels[kept], minlength=6).tolist() == np.minimum(sizes, shots).tolist()
    assert (kept == keep_shots(labels, shots, seed)).all()


def test_known_subsets():
    def taken(sizes, count):
        labels = np.repeat(np.arange(len(sizes)), sizes)
        return np.bincount(labels[keep_rows(labels, count, 0)], minlength=len(sizes)).tolist()

    assert taken([50, 30, 20], 10) == [5, 3, 2]
    assert taken([98, 1, 1], 10) == [8, 1, 1]
    assert taken([1, 98, 2], 2) == [0, 1, 1]
    with pytest.raises(ValueError):
        keep_rows(np.array([0, 1]), 5, 0)


def test_several_labels_are_stratified_by_the_rarest():
    labels = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    assert strata_of(labels).tolist() == [0, 1, 0, -1, 2]
    assert strata_of(np.array([2, 0])).tolist() == [2, 0]
