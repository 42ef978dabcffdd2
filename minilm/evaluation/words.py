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

from minilm.data.long_texts import CUT, LongTexts, pieces_of

NO_PART = NO_WORD = -1  # of the tokenizer's own tokens


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
    words: list[Word]  # in order, those of the text and then those of its pair; without those that are not read
    word_of: np.ndarray  # (T,) the number of each token's word, or NO_WORD

    def add_up(self, values: np.ndarray) -> np.ndarray:
        """Values of tokens (T,) -> of words (W,)."""
        of_words = self.word_of != NO_WORD
        return np.bincount(self.word_of[of_words], weights=values[of_words], minlength=len(self.words))


def read_words(
    tokenizer: Tokenizer, text: str, pair: str | None, max_tokens: int, long: LongTexts = CUT
) -> list[WordedText]:
    """Encode a text, or a pair, as ``data.tokenization.encode`` does, and find its words.

    One in a list; if the text is longer than ``max_tokens`` and is read in windows, one for each window.
    """
    encoding, parts = tokenizer.encode(text, pair), [text] if pair is None else [text, pair]
    of_part = np.array([NO_PART if number is None else number for number in encoding.sequence_ids])
    pieces = [np.arange(len(of_part))]
    if len(of_part) > max_tokens:
        special = tokenizer.num_special_tokens_to_add(pair is not None)
        pieces = pieces_of(of_part, len(parts), max_tokens - special, long)
    return [_words_of_piece(encoding, parts, piece, of_part[piece]) for piece in pieces]


def _words_of_piece(encoding: Encoding, parts: list[str], piece: np.ndarray, of_part: np.ndarray) -> WordedText:
    """piece (T,): the tokens that are read; of_part (T,): the text that each is of."""
    words: list[Word] = []
    word_of = np.full(len(piece), NO_WORD)
    for part, text in enumerate(parts):
        found, numbers = _words_of_part(encoding, piece[of_part == part], text, part)
        word_of[of_part == part] = numbers + len(words)
        words += found
    segments = None if len(parts) == 1 else np.array(encoding.type_ids)[piece]
    return WordedText(np.array(encoding.ids)[piece], segments, words, word_of)


def _words_of_part(encoding: Encoding, tokens: np.ndarray, text: str, part: int) -> tuple[list[Word], np.ndarray]:
    """The words that these tokens of a text make, and the number of each token's (tokens,).

    A token of nothing but white space is of the word that follows it; at the end, of the last one.
    """
    spans: list[tuple[int, int]] = []  # of words
    numbers = np.zeros(len(tokens), np.int64)
    before: int | None = None  # the last token with characters
    for position, token in enumerate(tokens.tolist()):
        start, end = _stripped(text, *encoding.offsets[token])
        if start == end:
            numbers[position] = len(spans)
            continue
        if before is not None and _continues(encoding, before, token, text[spans[-1][1] : start]):
            spans[-1] = (spans[-1][0], max(spans[-1][1], end))
        else:
            spans.append((start, end))
        before, numbers[position] = token, len(spans) - 1
    if len(tokens) and not spans:  # a text of nothing but white space
        spans = [(0, len(text))]
    words = [Word(text[start:end], start, end, part) for start, end in spans]
    return words, numbers.clip(max=len(words) - 1)


def _continues(encoding: Encoding, before: int, token: int, between: str) -> bool:
    """Whether a token is of the same word as the one before it; between: the characters between the two.

    What follows a gap, where tokens are left out, is a word of its own.
    """
    same = token == before + 1 and encoding.word_ids[before] == encoding.word_ids[token]
    return same and not any(character.isspace() for character in between)


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the white space at its ends."""
    inside = text[start:end]
    first = start + len(inside) - len(inside.lstrip())
    return first, max(first, start + len(inside.rstrip()))

