"""The tasks on which language models learn from texts that have no labels.

Texts are joined and cut into blocks of one length, so that nothing is padded (``pack``). Each block is corrupted: a
part of it is hidden, and the model learns to predict that part. From "the cat sat on the mat":

                    the model reads                          and predicts
    masked words    the [MASK] sat on the [MASK]             cat, mat              (Devlin et al. 2019, section 3.1)
    spans           the cat <extra_id_0> the                 <extra_id_0> sat on <extra_id_1> mat <extra_id_2> </s>
                      <extra_id_1> </s>                                            (Raffel et al. 2020, section 3.1.4)
    next tokens     the cat sat on the mat                   cat sat on the mat    (one position further left)

What is hidden is drawn anew in each epoch ("dynamic masking", Liu et al. 2019, section 4.1). It depends on the seed,
the epoch and the block's number alone, so it does not matter which blocks share a batch, and a run can be resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Protocol

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from minilm.data.tokenization import CHUNK, Encoded
from minilm.errors import UserError
from minilm.models.batch import Batch

IGNORED = -100  # the label of a position where nothing is predicted
MASK_NAMES = ("[MASK]", "<mask>")
LEAST = 8  # tokens: a shorter last block is dropped
FIXED = -1  # the "epoch" of validation texts: the same tokens are always hidden, so that measurements compare


# --- Texts to blocks ---------------------------------------------------------------------------------------------


def pack(encoded: Encoded, block: int) -> Encoded:
    """All texts one after another, special tokens included, cut every ``block`` tokens.

    The rest is a block of its own if it has at least 8 tokens (``LEAST``) or is all there is; else it is dropped.
    Token i of the blocks is token i of the texts.
    """
    total = len(encoded.ids)
    rest = total % block
    kept = total - rest if rest < min(LEAST, total) else total
    offsets = np.append(np.arange(0, kept, block), kept)
    return Encoded(encoded.ids[:kept], offsets, None, np.diff(offsets))


def without_special(encoded: Encoded, special: np.ndarray) -> Encoded:
    """The texts without the ids that are ``special`` (V,): T5 was pretrained on texts joined with nothing between."""
    kept = ~special[encoded.ids]
    offsets = np.concatenate([[0], np.cumsum(kept)])[encoded.offsets]
    return Encoded(encoded.ids[kept], offsets, None, np.diff(offsets))


def with_ends(encoded: Encoded, end: int) -> Encoded:
    """The texts with the token ``end`` after each: GPT-2 was pretrained so, but its tokenizer does not add it."""
    offsets = encoded.offsets + np.arange(len(encoded.offsets))
    return Encoded(np.insert(encoded.ids, encoded.offsets[1:], end), offsets, None, np.diff(offsets))


def special_ids(tokenizer: Tokenizer) -> np.ndarray:
    """(V,) True at the ids of special tokens, such as [CLS], [SEP], </s> and <unk>: they are never hidden nor drawn."""
    special = np.zeros(max(tokenizer.get_vocab().values()) + 1, dtype=bool)
    special[[number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special]] = True
    return special


def word_numbers(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """The number of the word that each token of ``encode(tokenizer, texts)`` is part of: (total,) int64; special
    tokens have -1.

    Words are what the tokenizer splits before it looks for tokens: at spaces, and most tokenizers at punctuation too.
    Each word of all the texts has a number of its own. Raises UserError if the tokenizer does not split into words.
    """
    if len({number for number in tokenizer.encode("a b", add_special_tokens=False).word_ids if number is not None}) < 2:
        raise UserError("the tokenizer does not split texts into words, as whole_words needs; leave whole_words out")
    numbers, used = [np.zeros(0, np.int64)], 0
    for start in range(0, len(texts), CHUNK):
        for encoding in tokenizer.encode_batch(list(texts[start : start + CHUNK])):
            words = np.array([-1 if number is None else number for number in encoding.word_ids], dtype=np.int64)
            numbers.append(np.where(words < 0, -1, words + used))
            used += int(words.max(initial=-1)) + 1
    return np.concatenate(numbers)


# --- Corruptions -------------------------------------------------------------------------------------------------


class Corruption(Protocol):
    """A way to hide a part of a block."""

    def corrupt(
        self, ids: np.ndarray, words: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids (T,) and their word numbers -> what the model reads, and the labels that it predicts."""


@dataclass(frozen=True)
class MaskedWords:
    """BERT: some tokens are predicted. 80% of them become the mask token, 10% a random token, and 10% stay: other texts
    have no mask tokens, so the model must not learn to predict only at them."""

    probability: float  # fraction of the ordinary tokens that is predicted
    mask: int
    special: np.ndarray  # (V,) bool: never predicted
    random_ids: np.ndarray  # what a random token is drawn from

    @classmethod
    def of(cls, tokenizer: Tokenizer, probability: float, vocab_size: int) -> MaskedWords:
        """For a model with ``vocab_size`` tokens. Raises UserError if there is no mask token."""
        found = [number for name in MASK_NAMES if (number := tokenizer.token_to_id(name)) is not None]
        if not found or found[0] >= vocab_size:
            whose = "model" if found else "tokenizer"
            raise UserError(f"the {whose} has no mask token, {' or '.join(MASK_NAMES)}: no words can be masked")
        special = special_ids(tokenizer)
        known = np.array(sorted(tokenizer.get_vocab().values()))
        return cls(probability, found[0], special, known[~special[known] & (known < vocab_size)])

    def corrupt(
        self, ids: np.ndarray, words: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids (T,) -> corrupted ids, labels (T,). With ``words``, all tokens of a word are predicted, or none."""
        places = np.flatnonzero(~self.special[ids])
        number = max(1, round(self.probability * len(places)))
        shuffled = rng.permutation(places)
        predicted = shuffled[:number] if words is None else _whole_words(places, words[places], number, rng)
        labels = np.full(len(ids), IGNORED)
        labels[predicted] = ids[predicted]
        draw = rng.random(len(predicted))
        read = ids.copy()
        read[predicted[draw < 0.8]] = self.mask
        changed = predicted[draw >= 0.9]
        read[changed] = self.random_ids[rng.integers(len(self.random_ids), size=len(changed))]
        return read, labels


def _whole_words(places: np.ndarray, words: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """The places of the tokens of random words: at most ``number`` tokens, but at least one word.

    places, words: (n,), the tokens of a word next to each other.
    """
    pieces = np.split(places, np.flatnonzero(np.diff(words)) + 1)
    predicted: list[np.ndarray] = []
    order = rng.permutation(len(pieces))
    for word in order:
        if len(pieces[word]) <= number:
            predicted.append(pieces[word])
            number -= len(pieces[word])
    return np.concatenate(predicted or [pieces[order[0]]])


@dataclass(frozen=True)
class Spans:
    """T5: spans of tokens are removed, each replaced by a sentinel; the decoder writes the sentinels and the spans.

    One more sentinel ends what it writes, as in the paper (section 3.1.4). The paper's code, and Hugging Face's after
    it, leave that sentinel out: </s> follows the last span.
    """

    probability: float  # fraction of the tokens that is removed
    mean: float  # tokens of a span
    sentinels: np.ndarray  # (S,) ids of <extra_id_0>, <extra_id_1>, ...
    end: int  # </s>

    @classmethod
    def of(cls, tokenizer: Tokenizer, probability: float, mean: float, block: int) -> Spans:
        """For blocks of ``block`` tokens. Raises UserError if the tokenizer has too few sentinels for them."""
        numbers = (tokenizer.token_to_id(f"<extra_id_{i}>") for i in count())
        sentinels = np.array(list(takewhile(lambda number: number is not None, numbers)), dtype=np.int64)
        end = tokenizer.token_to_id("</s>")
        if end is None or not len(sentinels):
            missing = "</s>" if end is None else "sentinels (<extra_id_0>, <extra_id_1>, ...)"
            raise UserError(f"the tokenizer has no {missing}: no spans can be removed from a text")
        spans = cls(probability, mean, sentinels, end)
        needed = spans.amounts(block)[1] + 1
        if needed > len(sentinels):
            raise UserError(
                f"a block of {block} tokens needs {needed} sentinels, but the tokenizer has {len(sentinels)}: "
                "choose a smaller block, a lower mlm_probability or longer spans"
            )
        return spans

    def amounts(self, length: int) -> tuple[int, int]:
        """How many of ``length`` tokens are removed, and in how many spans: neither is random."""
        taken = min(max(1, round(self.probability * length)), length - 1)
        return taken, max(1, min(round(taken / self.mean), taken, length - taken))

    def corrupt(
        self, ids: np.ndarray, words: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids (T,), none of them special -> what the encoder reads, what the decoder writes."""
        taken, spans = self.amounts(len(ids))
        lengths = np.empty(2 * spans, dtype=np.int64)  # kept, taken, kept, taken, ...
        lengths[0::2] = _random_parts(len(ids) - taken, spans, rng)
        lengths[1::2] = _random_parts(taken, spans, rng)
        pieces = np.split(ids, np.cumsum(lengths)[:-1])
        end, last = np.array([self.end]), self.sentinels[spans : spans + 1]
        marks = np.split(self.sentinels[:spans], spans)
        read = [part for pair in zip(pieces[0::2], marks, strict=True) for part in pair]
        write = [part for pair in zip(marks, pieces[1::2], strict=True) for part in pair]
        return np.concatenate([*read, end]), np.concatenate([*write, last, end])


def _random_parts(items: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """The sizes (parts,) of non-empty parts of a row of items; each way to cut it is equally likely."""
    cuts = np.sort(rng.permutation(max(0, items - 1))[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [items]]))


@dataclass(frozen=True)
class NextTokens:
    """A decoder: at each position, the next token. Nothing comes after the last one."""

    def corrupt(
        self, ids: np.ndarray, words: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids (T,) -> the same, labels (T,)."""
        return ids, np.append(ids[1:], IGNORED)


# --- Batches -----------------------------------------------------------------------------------------------------


def corrupted_batch(
    corruption: Corruption,
    blocks: Encoded,
    rows: np.ndarray,
    *,
    seed: int,
    epoch: int,
    pad: int,
    words: np.ndarray | None = None,
) -> Batch:
    """The blocks of these numbers (B,), corrupted for an epoch (from 0; ``FIXED``), as tensors on the CPU.

    words: the word number of each token of the blocks, to mask whole words. Rows of different lengths are padded, ids
    with ``pad`` and labels (B, T) with ``IGNORED``: the last block is shorter, and spans have random lengths.
    """
    corrupted = []
    for row in rows:
        place = slice(blocks.offsets[row], blocks.offsets[row + 1])
        rng = np.random.default_rng(np.random.SeedSequence([seed, epoch + 1, int(row)]))
        corrupted.append(corruption.corrupt(blocks.ids[place], None if words is None else words[place], rng))
    ids, real = _stack([read for read, _ in corrupted], pad)
    labels, _ = _stack([labels for _, labels in corrupted], IGNORED)
    return Batch(ids, mask=None if bool(real.all()) else real, labels=labels)


def _stack(rows: Sequence[np.ndarray], fill: int) -> tuple[Tensor, Tensor]:
    """B rows as one tensor (B, T), padded on the right with ``fill``; and a mask (B, T), True where a row is."""
    lengths = np.array([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, None]  # (B, T)
    stacked = np.full(real.shape, fill, dtype=np.int64)
    stacked[real] = np.concatenate(rows)
    return torch.from_numpy(stacked), torch.from_numpy(real)
