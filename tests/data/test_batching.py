"""Batches: every row once, the order from seed and epoch alone, padding on the right and little of it."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from minilm.data.batching import EVALUATED, collate, evaluation_batches, length_multiple, make_batches, padded_length
from minilm.data.tokenization import Encoded

LENGTHS = arrays.arrays(np.int64, st.integers(1, 300), elements=st.integers(1, 40))
SIZES = st.integers(1, 33)


def encoded(lengths: np.ndarray, segments: bool = False) -> Encoded:
    """Texts of these lengths; no two tokens are equal, and none is 0, the padding."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    return Encoded(ids, offsets, (ids % 2).astype(np.uint8) if segments else None, lengths)


@given(LENGTHS, SIZES, st.integers(0, 2**32 - 1), st.integers(0, 1000), st.booleans(), st.booleans())
def test_every_row_is_in_one_batch_and_one_batch_is_short(lengths, size, seed, epoch, shuffle, group_by_length):
    how = {"seed": seed, "epoch": epoch, "shuffle": shuffle, "group_by_length": group_by_length}
    batches = make_batches(lengths, size, **how)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert sorted(map(len, batches), reverse=True)[:-1] == [size] * (len(batches) - 1)
    again = make_batches(lengths, size, **how)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_seed_and_epoch_each_change_the_order():
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    orders = [np.concatenate(make_batches(lengths, 16, seed=s, epoch=e)) for s, e in ((1, 1), (1, 2), (2, 1), (2, 2))]
    assert len({order.tobytes() for order in orders}) == 4


def test_random_batches_mix_all_lengths_and_those_by_length_do_not():
    lengths = np.random.default_rng(0).integers(1, 200, 1600)
    spread = {
        group_by_length: np.mean(
            [np.std(lengths[b]) for b in make_batches(lengths, 16, seed=1, epoch=0, group_by_length=group_by_length)]
        )
        for group_by_length in (True, False)
    }
    assert spread[False] > 0.9 * np.std(lengths) and spread[True] < 0.1 * np.std(lengths)


@given(LENGTHS, SIZES, st.integers(0, 2**32 - 1), st.integers(0, 9))
@example(np.random.default_rng(0).integers(1, 41, 300), 16, 0, 0)  # many: up to 16 are sorted stably anyhow
def test_texts_that_are_padded_alike_stay_in_random_order(lengths, size, seed, epoch):
    def batches(size: int, by_length: bool, of: np.ndarray = lengths) -> list[list[int]]:
        return [batch.tolist() for batch in make_batches(of, size, seed=seed, epoch=epoch, group_by_length=by_length)]

    alike = np.full(len(lengths), 9) + lengths % 8  # all are padded to 16 tokens
    [at_random], [ordered] = (batches(len(lengths), True, of) for of in (alike, lengths))
    assert ordered == sorted(at_random, key=lambda row: -(-lengths[row] // 8))
    assert batches(size, True, alike) == batches(size, False, alike)


def test_batches_of_all_lengths_come_in_random_order():
    lengths = np.random.default_rng(0).integers(1, 200, 50 * 16)  # one chunk, sorted
    means = [lengths[batch].mean() for batch in make_batches(lengths, 16, seed=1, epoch=0)]
    assert abs(np.corrcoef(means, np.arange(50))[0, 1]) < 0.3  # a sorted chunk: 1


def test_evaluation_takes_the_longest_first():
    lengths = np.array([3, 9, 1, 9, 5])
    batches = make_batches(lengths, 2, seed=0, epoch=0, shuffle=False)
    assert [batch.tolist() for batch in batches] == [[1, 3], [4, 0], [2]]
    assert make_batches(lengths[:0], 2, seed=0, epoch=0) == make_batches(lengths[:0], 2, seed=0, epoch=0, shuffle=False)


@given(LENGTHS, st.integers(1, 3000), st.integers(0, 100))
def test_evaluation_batches_keep_to_their_tokens_padding_included(lengths, tokens, overhead):
    batches = list(evaluation_batches(lengths, tokens, overhead))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for rows in batches:
        width = collate(encoded(lengths), rows, None, 0).ids.shape[1]
        assert len(rows) == 1 or (len(rows) <= EVALUATED and len(rows) * width <= tokens)


def test_a_few_texts_of_different_lengths_are_divided_if_that_saves_more_than_a_batch_costs():
    lengths = np.array([200] * 2 + [16] * 20)  # one batch: 22 * 200 tokens; two: 2 * 200 + 20 * 16
    assert [len(rows) for rows in evaluation_batches(lengths, 8192, 32)] == [2, 20]
    assert [len(rows) for rows in evaluation_batches(lengths, 8192, 3680)] == [22]  # all that it would save
    assert [len(rows) for rows in evaluation_batches(np.array([16, 9, 10, 12]), 8192, 32)] == [4]


@given(arrays.arrays(np.int64, st.integers(1, 7), elements=st.integers(1, 90)), st.integers(0, 100))
def test_no_other_division_costs_less(lengths, overhead):
    widths = sorted((padded_length(int(n)) for n in lengths), reverse=True)

    def cost(ends):
        parts = zip((0, *ends), (*ends, len(widths)), strict=True)
        return sum(overhead + (end - start) * widths[start] for start, end in parts)

    every = [c for k in range(len(widths)) for c in itertools.combinations(range(1, len(widths)), k)]
    found = [len(rows) for rows in evaluation_batches(lengths, 10**6, overhead)]
    assert cost(tuple(np.cumsum(found)[:-1].tolist())) == min(map(cost, every))


@given(LENGTHS, st.booleans(), st.data())
def test_padded_batches_hold_every_token_and_pad_on_the_right(lengths, segments, data):
    texts = encoded(lengths, segments)
    rows = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=9)))
    batch = collate(texts, rows, lengths, 0)
    assert batch.ids.dtype == torch.int64 and batch.ids.shape[1] % 8 == 0
    assert batch.ids.shape[1] - lengths[rows].max() < 8
    assert batch.labels is not None and batch.labels.tolist() == lengths[rows].tolist()
    mask = torch.ones_like(batch.ids, dtype=torch.bool) if batch.mask is None else batch.mask
    assert (batch.mask is None) == bool((lengths[rows] == batch.ids.shape[1]).all())
    assert mask.tolist() == (batch.ids != 0).tolist()
    for ids, row in zip(batch.ids.tolist(), rows, strict=True):
        assert ids[: lengths[row]] == texts.row(row).tolist() and set(ids[lengths[row] :]) <= {0}
    if segments:
        assert batch.segments is not None and batch.segments.tolist() == (batch.ids % 2).tolist()
    else:
        assert batch.segments is None


@given(st.integers(1, 300), st.integers(1, 16), st.integers(0, 300))
def test_lengths_are_rounded_up_within_the_limit(longest, multiple, limit):
    padded = padded_length(longest, multiple, limit)
    assert longest <= padded < longest + multiple
    assert padded % multiple == 0 or padded in (limit, longest)
    assert not limit or padded <= max(limit, longest)


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=300), st.sampled_from([1, 4, 16]))
def test_batches_have_few_lengths_if_asked(lengths, most):
    lengths = np.array(lengths)
    multiple = length_multiple(lengths, most)
    batches = make_batches(lengths, 4, seed=1, epoch=1, multiple=multiple)
    assert len({padded_length(int(lengths[rows].max()), multiple) for rows in batches}) <= most
    assert multiple == 8 or lengths.max() > most * multiple / 2  # and no longer than that needs
    assert length_multiple(lengths, 0) == 8


def test_collate_stays_within_a_models_context():
    texts = encoded(np.array([9, 10]))
    assert collate(texts, np.array([0, 1]), None, 0, limit=12).ids.shape == (2, 12)
    assert collate(texts, np.array([0, 1]), None, 0, multiple=1).ids.shape == (2, 10)


def test_labels_of_several_classes_are_batched_as_rows():
    labels = np.array([[0, 1], [1, 1], [0, 0]])
    batch = collate(encoded(np.array([8, 8, 8])), np.array([2, 0]), labels, 0)
    assert batch.labels is not None and batch.labels.tolist() == [[0, 0], [0, 1]] and batch.mask is None


@pytest.mark.parametrize("size", [8, 32])
def test_a_third_of_the_padding_of_random_batches_is_left(size):
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(np.log(21), 0.58, 4337), 3, 216).astype(np.int64)
    order = random.permutation(len(lengths))
    usual = [order[i : i + size] for i in range(0, len(order), size)]
    ours = make_batches(lengths, size, seed=1, epoch=1)

    def padding(batches, multiple):
        positions = sum(len(rows) * padded_length(int(lengths[rows].max()), multiple) for rows in batches)
        return 1 - lengths.sum() / positions

    assert padding(ours, 8) < padding(usual, 1) / 3
    unsorted = np.mean([np.ptp(batch) for batch in ours]) / len(lengths)
    assert unsorted > 0.7  # a batch's rows come from everywhere
