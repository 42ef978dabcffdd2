"""What a language model is asked about texts that have no labels.

Texts are joined and cut into blocks of one length, so that nothing is padded (``pack``). A part of each block is
hidden, and the model is to say what stood there. Of "the cat sat on the mat":

                    the model reads                          and is to say
    masked words    the [MASK] sat on the [MASK]             cat, mat              (Devlin et al. 2019, section 3.1)
    spans           the cat <extra_id_0> the                 <extra_id_0> sat on <extra_id_1> mat <extra_id_2> </s>
                      <extra_id_1> </s>                                            (Raffel et al. 2020, section 3.1.4)
    next tokens     the cat sat on the mat                   cat sat on the mat    (one position further left)

What is hidden is drawn anew in each epoch ("dynamic masking", Liu et al. 2019, section 4.1), from the seed, the epoch
and the block's number alone: so it does not matter which blocks share a batch, and a run can be resumed.
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

NOT_ASKED = -100  # the label where there is nothing to predict
MASK_NAMES = ("[MASK]", "<mask>")
LEAST = 8  # tokens of a last block that is worth keeping
FIXED = -1  # the "epoch" of texts that are measured: always the same is hidden, so that measurements compare


# --- Texts to blocks ---------------------------------------------------------------------------------------------


def pack(encoded: Encoded, block: int) -> Encoded:
    """All texts one after another, special tokens included, cut every ``block`` tokens.

    The rest is a block of its own if it has at least 8 tokens (``LEAST``), or is all there is; else it is dropped.
    Token i of the blocks is token i of the texts.
    """
    total = len(encoded.ids)
    rest = total % block
    kept = total - rest if rest < min(LEAST, total) else total
    offsets = np.append(np.arange(0, kept, block), kept)
    return Encoded(encoded.ids[:kept], offsets, None, np.diff(offsets))


def without_special(encoded: Encoded, special: np.ndarray) -> Encoded:
    """The texts without the ids that are ``special`` (V,): T5 learned from texts joined with nothing between."""
    kept = ~special[encoded.ids]
    offsets = np.concatenate([[0], np.cumsum(kept)])[encoded.offsets]
    return Encoded(encoded.ids[kept], offsets, None, np.diff(offsets))


def with_ends(encoded: Encoded, end: int) -> Encoded:
    """The texts with the token ``end`` after each: GPT-2 learned from such, but its tokenizer does not add it."""
    offsets = encoded.offsets + np.arange(len(encoded.offsets))
    return Encoded(np.insert(encoded.ids, encoded.offsets[1:], end), offsets, None, np.diff(offsets))


def special_ids(tokenizer: Tokenizer) -> np.ndarray:
    """(V,) True at the ids of special tokens: [CLS], [SEP], </s>, <unk> and their like, never hidden nor drawn."""
    special = np.zeros(max(tokenizer.get_vocab().values()) + 1, dtype=bool)
    special[[number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special]] = True
    return special


def word_numbers(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """Which word each token of ``encode(tokenizer, texts)`` is a piece of: (total,) int64; -1 for special tokens.

    Words are what the tokenizer splits before it looks for pieces: at spaces, and most of them at punctuation too.
    No two words of all the texts have one number. Raises UserError where it splits nothing.
    """
    if len({number for number in tokenizer.encode("a b", add_special_tokens=False).word_ids if number is not None}) < 2:
        raise UserError("the tokenizer does not tell words apart, so whole words cannot be hidden: whole_words = false")
    numbers, used = [np.zeros(0, np.int64)], 0
    for start in range(0, len(texts), CHUNK):
        for encoding in tokenizer.encode_batch(list(texts[start : start + CHUNK])):
            words = np.array([-1 if number is None else number for number in encoding.word_ids], dtype=np.int64)
            numbers.append(np.where(words < 0, -1, words + used))
            used += int(words.max(initial=-1)) + 1
    return np.concatenate(numbers)


# --- Blocks to questions -----------------------------------------------------------------------------------------


class Question(Protocol):
    """What is asked about a block."""

    def ask(
        self, ids: np.ndarray, words: np.ndarray | None, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids (T,) and their word numbers -> what the model reads, and the labels that it is to predict."""


@dataclass(frozen=True)
class MaskedWords:
    """BERT: some tokens are to be predicted. Of these, 80% become the mask token, 10% a random token, 10% stay: texts
    seen later have no mask tokens, so the model must not learn to predict only at them."""

    share: float  # of the ordinary tokens, to be predicted
    mask: int
    special: np.ndarray  # (V,) bool: never asked for
    random_ids: np.ndarray  # what a random token is drawn from

    @classmethod
    def of(cls, tokenizer: Tokenizer, share: float, vocab_size: int) -> MaskedWords:
        """For a model with ``vocab_size`` tokens. Raises UserError where there is no mask token."""
        found = [number for name in MASK_NAMES if (number := tokenizer.token_to_id(name)) is not None]
        if not found or found[0] >= vocab_size:
            whose = "model" if found else "tokenizer"
            raise UserError(f"the {whose} has no mask token, {' or '.join(MASK_NAMES)}: no words can be hidden from it")
        special = special_ids(tokenizer)
        known = np.array(sorted(tokenizer.get_vocab().values()))
        return cls(share, found[0], special, known[~special[known] & (known < vocab_size)])

    def ask(
        self, ids: np.ndarray, words: np.ndarray | None, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids (T,) -> ids with some hidden, labels (T,). With ``words``, all pieces of a word are asked, or none."""
        places = np.flatnonzero(~self.special[ids])
        number = max(1, round(self.share * len(places)))
        shuffled = random.permutation(places)
        asked = shuffled[:number] if words is None else _whole_words(places, words[places], number, random)
        labels = np.full(len(ids), NOT_ASKED)
        labels[asked] = ids[asked]
        chance = random.random(len(asked))
        read = ids.copy()
        read[asked[chance < 0.8]] = self.mask
        changed = asked[chance >= 0.9]
        read[changed] = self.random_ids[random.integers(len(self.random_ids), size=len(changed))]
        return read, labels


def _whole_words(places: np.ndarray, words: np.ndarray, number: int, random: np.random.Generator) -> np.ndarray:
    """The places of random words, ``number`` at most, but one word at least.

    places, words: (n,), the pieces of a word adjacent.
    """
    pieces = np.split(places, np.flatnonzero(np.diff(words)) + 1)
    asked: list[np.ndarray] = []
    order = random.permutation(len(pieces))
    for word in order:
        if len(pieces[word]) <= number:
            asked.append(pieces[word])
            number -= len(pieces[word])
    return np.concatenate(asked or [pieces[order[0]]])


@dataclass(frozen=True)
class Spans:
    """T5: spans of tokens are taken out and replaced by a sentinel each; the decoder writes sentinels and spans.

    One more sentinel ends what it writes, as in the paper (section 3.1.4); the paper's code, and Hugging Face's after
    it, leave that out and let </s> follow the last span.
    """

    share: float  # of the tokens, taken out
    mean: float  # tokens of a span
    sentinels: np.ndarray  # (S,) ids of <extra_id_0>, <extra_id_1>, ...
    end: int  # </s>

    @classmethod
    def of(cls, tokenizer: Tokenizer, share: float, mean: float, block: int) -> Spans:
        """For blocks of so many tokens. Raises UserError where there are not enough sentinels for them."""
        numbers = (tokenizer.token_to_id(f"<extra_id_{i}>") for i in count())
        sentinels = np.array(list(takewhile(lambda number: number is not None, numbers)), dtype=np.int64)
        end = tokenizer.token_to_id("</s>")
        if end is None or not len(sentinels):
            missing = "</s>" if end is None else "sentinels (<extra_id_0>, <extra_id_1>, ...)"
            raise UserError(f"the tokenizer has no {missing}: no spans can be taken out of a text")
        spans = cls(share, mean, sentinels, end)
        needed = spans.amounts(block)[1] + 1
        if needed > len(sentinels):
            raise UserError(
                f"a block of {block} tokens needs {needed} sentinels, but the tokenizer has {len(sentinels)}: "
                "choose a smaller block, a smaller share or longer spans"
            )
        return spans

    def amounts(self, length: int) -> tuple[int, int]:
        """How many of so many tokens are taken out, and in how many spans: no matter of chance."""
        taken = min(max(1, round(self.share * length)), length - 1)
        return taken, max(1, min(round(taken / self.mean), taken, length - taken))

    def ask(
        self, ids: np.ndarray, words: np.ndarray | None, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids (T,), none of them special -> what the encoder reads, what the decoder is to write."""
        taken, spans = self.amounts(len(ids))
        lengths = np.empty(2 * spans, dtype=np.int64)  # kept, taken, kept, taken, ...
        lengths[0::2] = _random_parts(len(ids) - taken, spans, random)
        lengths[1::2] = _random_parts(taken, spans, random)
        pieces = np.split(ids, np.cumsum(lengths)[:-1])
        end, last = np.array([self.end]), self.sentinels[spans : spans + 1]
        marks = np.split(self.sentinels[:spans], spans)
        read = [part for pair in zip(pieces[0::2], marks, strict=True) for part in pair]
        write = [part for pair in zip(marks, pieces[1::2], strict=True) for part in pair]
        return np.concatenate([*read, end]), np.concatenate([*write, last, end])


def _random_parts(items: int, parts: int, random: np.random.Generator) -> np.ndarray:
    """The sizes (parts,) of non-empty parts of a row of items; all ways to cut it are equally likely."""
    cuts = np.sort(random.permutation(max(0, items - 1))[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [items]]))


@dataclass(frozen=True)
class NextTokens:
    """A decoder: at each position, what comes next. The last has nothing next to it."""

    def ask(
        self, ids: np.ndarray, words: np.ndarray | None, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids (T,) -> the same, labels (T,)."""
        return ids, np.append(ids[1:], NOT_ASKED)


# --- Questions to batches ----------------------------------------------------------------------------------------


def ask_about(
    question: Question,
    blocks: Encoded,
    rows: np.ndarray,
    *,
    seed: int,
    epoch: int,
    pad: int,
    words: np.ndarray | None = None,
) -> Batch:
    """The question about these blocks (B,) in this epoch (from 0; ``FIXED``), as tensors on the CPU.

    words: the word number of each token of the blocks, to hide whole words. Only the last block, which is shorter, and
    what else is as long as chance makes it are padded: ids with ``pad``, labels (B, T) with ``NOT_ASKED``.
    """
    asked = []
    for row in rows:
        place = slice(blocks.offsets[row], blocks.offsets[row + 1])
        random = np.random.default_rng(np.random.SeedSequence([seed, epoch + 1, int(row)]))
        asked.append(question.ask(blocks.ids[place], None if words is None else words[place], random))
    ids, real = _stack([read for read, _ in asked], pad)
    labels, _ = _stack([labels for _, labels in asked], NOT_ASKED)
    return Batch(ids, mask=None if bool(real.all()) else real, labels=labels)


def _stack(rows: Sequence[np.ndarray], fill: int) -> tuple[Tensor, Tensor]:
    """B rows as one tensor (B, T), filled up on the right; and where they are (B, T)."""
    lengths = np.array([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, None]  # (B, T)
    stacked = np.full(real.shape, fill, dtype=np.int64)
    stacked[real] = np.concatenate(rows)
    return torch.from_numpy(stacked), torch.from_numpy(real)
