"""Choose the rows of each batch, and turn them into padded tensors.

A batch is padded to its longest text. Batching texts of similar length saves padding, but sorting by length would
destroy the random order that SGD needs. So rows are shuffled, sorted by padded length only within chunks of ``CHUNK``
batches, and cut into batches; then the batches are shuffled. The order depends only on the seed and the epoch, so that
a run can be resumed in the middle of an epoch.

If labels depend on lengths, a batch of texts of one length is not a fair sample of the labels;
``group_by_length=False`` makes random batches.

Lengths are rounded up to a multiple of 8, which suits tensor cores; on a GPU to a larger one if texts are long, so that
batches have few different shapes, and memory and kernels that were chosen for a shape are used again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from minilm.data.tokenization import Encoded
from minilm.models.batch import Batch

MULTIPLE = 8  # tokens
CHUNK = 50  # batches sorted together


def make_batches(
    lengths: np.ndarray,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    group_by_length: bool = True,
    multiple: int = MULTIPLE,
) -> list[np.ndarray]:
    """The row numbers of each batch: every row once, ``batch_size`` rows per batch; one batch may have fewer.

    lengths: (N,) in tokens; ``collate`` pads them to a multiple of ``multiple``. Without ``group_by_length`` the
    batches are random. Without ``shuffle``, for evaluation, rows are ordered by length, the longest first, so that a
    batch that is too large for the memory fails at once.
    """
    if not shuffle:
        order = np.argsort(-lengths, kind="stable")
        return np.split(order, range(batch_size, len(order), batch_size)) if len(order) else []
    rng = np.random.default_rng(np.random.SeedSequence([seed, epoch]))
    order = rng.permutation(len(lengths))
    buckets = -(-lengths // multiple)  # rows with the same padded length stay in random order
    size = (CHUNK if group_by_length else 1) * batch_size
    chunks = [order[i : i + size] for i in range(0, len(order), size)]
    chunks = [chunk[np.argsort(buckets[chunk], kind="stable")] for chunk in chunks]
    batches = [chunk[i : i + batch_size] for chunk in chunks for i in range(0, len(chunk), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


EVALUATED = 64  # the most texts in an evaluation batch


def evaluation_batches(
    lengths: np.ndarray, tokens: int, overhead: int, multiple: int = MULTIPLE
) -> Iterator[np.ndarray]:
    """Batches of row numbers, the longest rows first, each of at most ``tokens`` tokens including padding.

    lengths: (N,) in tokens. A longer row is a batch of its own. overhead: the tokens that take as long as a batch
    itself does. A few texts of very different lengths are divided into several batches if that saves more padding.
    """
    for rows in make_batches(lengths, EVALUATED, seed=0, epoch=0, shuffle=False):
        widths = np.array([padded_length(int(length), multiple) for length in lengths[rows]])
        yield from np.split(rows, _cheapest_ends(widths, tokens, overhead)[:-1])


def _cheapest_ends(widths: np.ndarray, tokens: int, overhead: int) -> list[int]:
    """The ends of the batches of N rows that cost the fewest tokens, with padding and ``overhead`` for each batch.

    widths: (N,) padded lengths, in descending order. The batches are found by dynamic programming: cost[j] is the least
    for the first j rows, and the last batch of these begins at some i < j.
    """
    total = len(widths)
    if total * widths[0] <= tokens and total * (widths[0] - widths[-1]) <= overhead:  # the usual case
        return [total]
    cost, begin = np.full(total + 1, np.inf), np.zeros(total + 1, np.int64)
    cost[0] = 0
    for i, width in enumerate(widths.tolist()):
        most = max(1, min(total - i, tokens // width))  # rows of the batch
        found = cost[i] + overhead + width * np.arange(1, most + 1)
        better = found < cost[i + 1 : i + most + 1]
        cost[i + 1 : i + most + 1][better] = found[better]
        begin[i + 1 : i + most + 1][better] = i
    ends = [total]
    while begin[ends[-1]]:
        ends.append(int(begin[ends[-1]]))
    return ends[::-1]


def length_multiple(lengths: np.ndarray, most: int) -> int:
    """The multiple to pad to, so that batches of these texts have at most ``most`` lengths; 0: any number.

    It is ``MULTIPLE`` times a power of 2, so that splits whose longest texts differ share most of their lengths.
    """
    multiple = MULTIPLE
    while most and int(lengths.max(initial=0)) > most * multiple:
        multiple *= 2
    return multiple


def padded_length(longest: int, multiple: int = MULTIPLE, limit: int = 0) -> int:
    """``longest`` rounded up to a multiple of ``multiple``, but not above ``limit`` (0: no limit)."""
    rounded = -(-longest // multiple) * multiple
    return max(longest, min(rounded, limit)) if limit else rounded


def collate(
    encoded: Encoded,
    rows: np.ndarray,
    labels: np.ndarray | None,
    pad: int,
    *,
    multiple: int = MULTIPLE,
    limit: int = 0,
) -> Batch:
    """The rows (B,) as tensors on the CPU, padded on the right with the id ``pad`` to one length T.

    labels: of all N rows. T is rounded up to a multiple of ``multiple``, but not above ``limit``, the model's context
    (0: no limit).
    """
    lengths = encoded.lengths[rows]  # (B,)
    columns = np.arange(padded_length(int(lengths.max()), multiple, limit))  # (T,)
    real = columns < lengths[:, None]  # (B, T)
    places = (encoded.offsets[rows][:, None] + columns)[real]  # index of each real token in the flat arrays

    def pad_right(flat: np.ndarray, value: int) -> torch.Tensor:
        padded = np.full(real.shape, value, dtype=np.int64)
        padded[real] = flat[places]
        return torch.from_numpy(padded)

    return Batch(
        ids=pad_right(encoded.ids, pad),
        mask=None if real.all() else torch.from_numpy(real),
        segments=None if encoded.segments is None else pad_right(encoded.segments, 0),
        labels=None if labels is None else torch.from_numpy(labels[rows]),
    )
