"""The tasks by which language models learn from texts without labels.

Texts are joined and cut into blocks of equal length, so that no padding is needed (``pack``). Each block is corrupted:
a part of it is hidden, and the model learns to predict that part. For "the cat sat on the mat":

                    the model reads                          and predicts
    masked words    the [MASK] sat on the [MASK]             cat, mat              (Devlin et al. 2019, section 3.1)
    spans           the cat <extra_id_0> the                 <extra_id_0> sat on <extra_id_1> mat <extra_id_2> </s>
                      <extra_id_1> </s>                                            (Raffel et al. 2020, section 3.1.4)
    next tokens     the cat sat on the mat                   cat sat on the mat    (one position further left)

The hidden tokens are drawn anew in each epoch ("dynamic masking", Liu et al. 2019, section 4.1). They depend only on
the seed, the epoch and the block's number, not on the other blocks of the batch, so that a run can be resumed.
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
FIXED = -1  # the "epoch" of validation texts: the same tokens are hidden each time, so that losses can be compared


# --- Texts to blocks ---------------------------------------------------------------------------------------------


def pack(encoded: Encoded, block: int) -> Encoded:
    """Join all texts, including their special tokens, and cut them every ``block`` tokens.

    The remaining tokens form a shorter block if they are at least 8 (``LEAST``) or the only ones; otherwise they are
    dropped. Token i of the blocks is token i of the texts.
    """
    total = len(encoded.ids)
    rest = total % block
    kept = total - rest if rest < min(LEAST, total) else total
    offsets = np.append(np.arange(0, kept, block), kept)
    return Encoded(encoded.ids[:kept], offsets, None, np.diff(offsets))


def without_special(encoded: Encoded, special: np.ndarray) -> Encoded:
    """The texts without their special tokens (``special``: (V,)), as T5 was pretrained on texts joined without them."""
    kept = ~special[encoded.ids]
    offsets = np.concatenate([[0], np.cumsum(kept)])[encoded.offsets]
    return Encoded(encoded.ids[kept], offsets, None, np.diff(offsets))


def with_ends(encoded: Encoded, end: int) -> Encoded:
    """The texts with the token ``end`` after each: GPT-2 was pretrained with it, but its tokenizer does not add it."""
    offsets = encoded.offsets + np.arange(len(encoded.offsets))
    return Encoded(np.insert(encoded.ids, encoded.offsets[1:], end), offsets, None, np.diff(offsets))


def special_ids(tokenizer: Tokenizer) -> np.ndarray:
    """(V,) True for special tokens, such as [CLS], [SEP], </s> and <unk>, which are never hidden or inserted."""
    special = np.zeros(max(tokenizer.get_vocab().values()) + 1, dtype=bool)
    special[[number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special]] = True
    return special


def word_numbers(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """(total,) int64: the number of the word that each token of ``encode(tokenizer, texts)`` belongs to; -1 for special
    tokens.

    Words are the pieces into which the tokenizer splits a text first: at spaces, and usually at punctuation. They are
    numbered through all texts. Raises UserError if the tokenizer does not split texts into words.
    """
    if len({number for number in tokenizer.encode("a b", add_special_tokens=False).word_ids if number is not None}) < 2:
        raise UserError("the tokenizer does not split texts into words, which whole_words needs; remove whole_words")
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
    """BERT: some tokens are predicted. 80% of them are replaced by the mask token, 10% by a random token, and 10% are
    not replaced: later tasks have no mask tokens, so the model must learn to represent other tokens as well."""

    probability: float  # fraction of the tokens, special ones excluded, that is predicted
    mask: int
    special: np.ndarray  # (V,) bool: never predicted
    random_ids: np.ndarray  # the ids from which random tokens are drawn

    @classmethod
    def of(cls, tokenizer: Tokenizer, probability: float, vocab_size: int) -> MaskedWords:
        """The corruption for a model with ``vocab_size`` tokens. Raises UserError if there is no mask token."""
        found = [number for name in MASK_NAMES if (number := tokenizer.token_to_id(name)) is not None]
        if not found or found[0] >= vocab_size:
            whose = "model" if found else "tokenizer"
            raise UserError(f"the {whose} has no mask token ({' or '.join(MASK_NAMES)}), so no words can be masked")
        special = special_ids(tokenizer)
        known = np.array(sorted(tokenizer.get_vocab().values()))
        return cls(probability, found[0], special, known[~special[known] & (known < vocab_size)])

    def corrupt(
        self, ids: np.ndarray, words: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids (T,) -> corrupted ids, labels (T,). With ``words``, either all tokens of a word are predicted or none."""
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
    """The positions of the tokens of random words: at most ``number`` tokens, but at least one word.

    places, words: (n,) the position and the word of each token.
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
    """T5: spans of tokens are removed, and a sentinel replaces each; the decoder predicts the sentinels and the spans.

    One more sentinel follows the last span, as in the paper (section 3.1.4). The code of the paper and of Hugging Face
    omits this last sentinel.
    """

    probability: float  # fraction of the tokens that is removed
    mean: float  # mean length of a span in tokens
    sentinels: np.ndarray  # (S,) ids of <extra_id_0>, <extra_id_1>, ...
    end: int  # </s>

    @classmethod
    def of(cls, tokenizer: Tokenizer, probability: float, mean: float, block: int) -> Spans:
        """The corruption for blocks of ``block`` tokens. Raises UserError if the tokenizer has too few sentinels."""
        numbers = (tokenizer.token_to_id(f"<extra_id_{i}>") for i in count())
        sentinels = np.array(list(takewhile(lambda number: number is not None, numbers)), dtype=np.int64)
        end = tokenizer.token_to_id("</s>")
        if end is None or not len(sentinels):
            missing = "</s>" if end is None else "sentinels (<extra_id_0>, <extra_id_1>, ...)"
            raise UserError(f"the tokenizer has no {missing}, so no spans can be removed from a text")
        spans = cls(probability, mean, sentinels, end)
        needed = spans.amounts(block)[1] + 1
        if needed > len(sentinels):
            raise UserError(
                f"a block of {block} tokens needs {needed} sentinels, but the tokenizer has {len(sentinels)}: "
                "choose a smaller block, a lower mlm_probability or longer spans"
            )
        return spans

    def amounts(self, length: int) -> tuple[int, int]:
        """How many of ``length`` tokens are removed, and in how many spans; neither number is random."""
        taken = min(max(1, round(self.probability * length)), length - 1)
        return taken, max(1, min(round(taken / self.mean), taken, length - taken))

    def corrupt(
        self, ids: np.ndarray, words: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids (T,) without special tokens -> the encoder's input, the decoder's labels."""
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
    """(parts,) random sizes of non-empty parts of ``items`` items; each way to divide the items is equally likely."""
    cuts = np.sort(rng.permutation(max(0, items - 1))[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [items]]))


@dataclass(frozen=True)
class NextTokens:
    """Decoders such as GPT-2: at each position, predict the next token; at the last position, nothing."""

    def corrupt(
        self, ids: np.ndarray, words: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids (T,) -> the same ids, labels (T,)."""
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
    """The blocks with the numbers ``rows`` (B,), corrupted, as tensors on the CPU.

    epoch: from 0, or ``FIXED``. words: the word number of each token of the blocks, to mask whole words. Ids are padded
    with ``pad`` and labels (B, T) with ``IGNORED``, as lengths may differ: the last block may be shorter, and removing
    spans changes lengths.
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
    """B rows as one tensor (B, T), padded on the right with ``fill``; and a mask (B, T), False at the padding."""
    lengths = np.array([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, None]  # (B, T)
    stacked = np.full(real.shape, fill, dtype=np.int64)
    stacked[real] = np.concatenate(rows)
    return torch.from_numpy(stacked), torch.from_numpy(real)
