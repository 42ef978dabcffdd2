"""The words of a text, and which tokens each is made of.

A tokenizer cuts a text into tokens, many of them parts of words: "unbelievable" may be "un", "believ", "able". Whatever
is computed per token and shown to a person is added up over the tokens of each word. Two neighbouring tokens are of one
word if the tokenizer's first, coarse cut (``word_ids``; in BERT's also at punctuation) left them together and the text
has no white space between them. Every token of the text is of exactly one word; those that the tokenizer adds, such as
[CLS], are of none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding, Tokenizer

NO_WORD = -1  # of the tokenizer's own tokens


@dataclass(frozen=True)
class Word:
    """A word, and where it stands: ``text[start:end]``."""

    text: str
    start: int  # characters
    end: int
    part: int  # 0: of the text; 1: of its pair


@dataclass(frozen=True)
class WordedText:
    """A text, or a pair, as a model reads it: T tokens, W words."""

    ids: np.ndarray  # (T,) int64
    segments: np.ndarray | None  # (T,) 0 in the first text of a pair, 1 in the second; None for a single text
    words: list[Word]  # in order, those of the text and then those of its pair; without what was cut off
    word_of: np.ndarray  # (T,) the number of each token's word, or NO_WORD

    def add_up(self, values: np.ndarray) -> np.ndarray:
        """Values of tokens (T,) -> of words (W,)."""
        of_words = self.word_of != NO_WORD
        return np.bincount(self.word_of[of_words], weights=values[of_words], minlength=len(self.words))


def read_words(tokenizer: Tokenizer, text: str, pair: str | None, max_tokens: int) -> WordedText:
    """Encode a text, cut to ``max_tokens`` as ``data.tokenization.encode`` cuts it, and find its words."""
    tokenizer.enable_truncation(max_tokens)  # the longer text of a pair first
    try:
        encoding = tokenizer.encode(text, pair)
    finally:
        tokenizer.no_truncation()
    words: list[Word] = []
    word_of = np.full(len(encoding.ids), NO_WORD)
    for part, whole in enumerate([text] if pair is None else [text, pair]):
        tokens = [i for i, sequence in enumerate(encoding.sequence_ids) if sequence == part]
        found, numbers = _words_of(encoding, tokens, whole, part)
        word_of[tokens] = numbers + len(words)
        words += found
    segments = None if pair is None else np.array(encoding.type_ids)
    return WordedText(np.array(encoding.ids), segments, words, word_of)


def _words_of(encoding: Encoding, tokens: list[int], text: str, part: int) -> tuple[list[Word], np.ndarray]:
    """The words that these tokens of a text make, and the number of each token's (tokens,).

    A token of nothing but white space is of the word that follows it; at the end, of the last one.
    """
    spans: list[tuple[int, int]] = []  # of words
    numbers = np.zeros(len(tokens), np.int64)
    before: int | None = None  # the tokenizer's word of the last token with characters
    for position, token in enumerate(tokens):
        start, end = _stripped(text, *encoding.offsets[token])
        if start == end:
            numbers[position] = len(spans)
            continue
        if spans and encoding.word_ids[token] == before and not _has_space(text[spans[-1][1] : start]):
            spans[-1] = (spans[-1][0], max(spans[-1][1], end))
        else:
            spans.append((start, end))
        before, numbers[position] = encoding.word_ids[token], len(spans) - 1
    if tokens and not spans:  # a text of nothing but white space
        spans = [(0, len(text))]
    words = [Word(text[start:end], start, end, part) for start, end in spans]
    return words, numbers.clip(max=len(words) - 1)


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the white space at its ends."""
    inside = text[start:end]
    first = start + len(inside) - len(inside.lstrip())
    return first, max(first, start + len(inside.rstrip()))


def _has_space(between: str) -> bool:
    return any(character.isspace() for character in between)
