"""How to handle a text with more tokens than the model can read at once: ``data.long_texts``.

    cut          keep the beginning, or the end if the tokenizer's ``truncation_side`` is "left"
    head-tail    keep the beginning and the end, in the ratio 1 to 3 tokens, like 128 and 382 of 510 tokens in
                 Sun et al. 2019, "How to Fine-Tune BERT for Text Classification?"
    windows      read the whole text in windows. Each window starts ``stride`` tokens after the previous one; the last
                 window ends with the text

In a pair of texts, the shorter text is kept whole if it takes at most half of the tokens; then each window contains it.
Special tokens are always kept. In training each window has the label of its text. The probabilities of a text are the
mean of those of its windows, or the maximum for each class.

If the second text is a sentence about the first one, it stays whole ("cut-first", which no config says).

Texts become windows here, and nowhere else; windows' scores become texts' scores in ``minilm.evaluation.windows``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from minilm.errors import UserError

HEAD = 4  # head-tail takes 1/HEAD of its tokens from the beginning


@dataclass(frozen=True)
class LongTexts:
    """The config's settings for long texts."""

    how: Literal["cut", "head-tail", "windows", "cut-first"] = "cut"
    stride: int = 0  # tokens from the start of a window to that of the next; 0: half a window
    scores: Literal["mean", "max"] = "mean"  # how a text's probabilities come from its windows'


CUT = LongTexts()


@dataclass(frozen=True)
class Windows:
    """Which rows are the windows of each text."""

    starts: np.ndarray  # (N + 1,) int64: the windows of text i are the rows starts[i] to starts[i + 1] - 1
    scores: Literal["mean", "max"]

    @property
    def counts(self) -> np.ndarray:
        """(N,) the number of windows of each text."""
        return np.diff(self.starts)

    @property
    def texts(self) -> np.ndarray:
        """(M,) the text of each of the M windows."""
        return np.repeat(np.arange(len(self.starts) - 1), self.counts)

    def rows(self, texts: np.ndarray) -> np.ndarray:
        """The windows of these texts, in the order of ``texts``."""
        counts = self.counts[texts]
        ends = np.cumsum(counts)
        return np.repeat(self.starts[texts] - (ends - counts), counts) + np.arange(counts.sum())

    def take(self, texts: np.ndarray) -> Windows:
        return Windows(np.concatenate([[0], np.cumsum(self.counts[texts])]), self.scores)


def pieces_of(sequences: np.ndarray, texts: int, room: int, long: LongTexts, left: bool = False) -> list[np.ndarray]:
    """For a text or pair of T tokens that is too long: the indices of the tokens to read, one array per window.

    Args:
        sequences: (T,) the text that each token belongs to, from 0; -1 for special tokens.
        texts: 1, or 2 for a pair.
        room: how many tokens of text can be read at once.
        long: the config's settings.
        left: "cut" removes the beginnings instead of the ends.

    Raises UserError if "cut-first" would leave nothing of the first text.
    """
    places = [np.flatnonzero(sequences == number) for number in range(texts)]
    lengths = [room]
    if texts == 2:
        shorter = min(map(len, places))
        few = shorter if shorter <= room - shorter else room // 2
        lengths = [few, room - few] if len(places[0]) <= len(places[1]) else [room - few, few]
        if long.how == "cut-first":
            lengths = [room - len(places[1]), len(places[1])]
            if lengths[0] < 1:
                raise UserError(f"{lengths[1]} tokens of the second text leave no room for the first; only {room} fit")
    longer = int(texts == 2 and len(places[0]) <= len(places[1]))
    if long.how == "head-tail":
        kept = [_head_and_tail(tokens, length) for tokens, length in zip(places, lengths, strict=True)]
        return [_with_special(sequences, kept)]
    if long.how in ("cut", "cut-first") and left:
        kept = [tokens[max(0, len(tokens) - length) :] for tokens, length in zip(places, lengths, strict=True)]
        return [_with_special(sequences, kept)]
    kept = [tokens[:length] for tokens, length in zip(places, lengths, strict=True)]
    if long.how in ("cut", "cut-first"):
        return [_with_special(sequences, kept)]
    windows = []
    for start in _starts(len(places[longer]), lengths[longer], long.stride):
        kept[longer] = places[longer][start : start + lengths[longer]]
        windows.append(_with_special(sequences, kept))
    return windows


def _head_and_tail(tokens: np.ndarray, length: int) -> np.ndarray:
    if len(tokens) <= length:
        return tokens
    head = length // HEAD
    return np.concatenate([tokens[:head], tokens[len(tokens) - (length - head) :]])


def _starts(tokens: int, length: int, stride: int) -> list[int]:
    """The first token of each window of this length. Raises UserError if the stride would skip tokens."""
    if stride > length:
        raise UserError(f"data.window_stride must be at most {length}, the tokens of text per window, got {stride}")
    last = tokens - length
    return [*range(0, last, stride or max(1, length // 2)), last] if last > 0 else [0]


def _with_special(sequences: np.ndarray, kept: list[np.ndarray]) -> np.ndarray:
    """The indices of the tokens that are kept and of all special tokens, in ascending order."""
    return np.sort(np.concatenate([np.flatnonzero(sequences < 0), *kept]))
