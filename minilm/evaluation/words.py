"""Find the words of a text, and the tokens of each word.

A tokenizer divides a text into tokens, and many of them are parts of words: "unbelievable" may become "un", "believ",
"able". Values that are computed per token are summed over the tokens of each word before they are shown to the user.
Two neighbouring tokens belong to one word if the tokenizer's pre-tokenizer did not separate them (``word_ids``; BERT's
also splits at punctuation) and the text has no white space between them. Every token of the text belongs to exactly one
word; tokens that the tokenizer adds, such as [CLS], belong to none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding, Tokenizer

from minilm.data.long_texts import CUT, LongTexts, pieces_of
from minilm.data.tokenizer_settings import cuts_left

NO_PART = NO_WORD = -1  # for tokens that the tokenizer adds


@dataclass(frozen=True)
class Word:
    """A word and its position: ``text[start:end]``."""

    text: str
    start: int  # characters
    end: int
    part: int  # 0: in the text; 1: in its pair


@dataclass(frozen=True)
class WordedText:
    """A text, or a pair, as a model reads it: T tokens, W words."""

    ids: np.ndarray  # (T,) int64
    segments: np.ndarray | None  # (T,) 0 in the first text of a pair, 1 in the second; None for a single text
    words: list[Word]  # the words that the model reads, in order: first of the text, then of its pair
    word_of: np.ndarray  # (T,) the number of each token's word, or NO_WORD

    def add_up(self, values: np.ndarray) -> np.ndarray:
        """Sum the values of tokens (T,) over the tokens of each word: (W,)."""
        of_words = self.word_of != NO_WORD
        return np.bincount(self.word_of[of_words], weights=values[of_words], minlength=len(self.words))


def read_words(
    tokenizer: Tokenizer, text: str, pair: str | None, max_tokens: int, long: LongTexts = CUT
) -> list[WordedText]:
    """Encode a text, or a pair, as ``data.tokenization.encode`` does, and find its words.

    The list has one item; if the text is longer than ``max_tokens`` and is read in windows, one item per window.
    """
    encoding, parts = tokenizer.encode(text, pair), [text] if pair is None else [text, pair]
    of_part = np.array([NO_PART if number is None else number for number in encoding.sequence_ids])
    pieces = [np.arange(len(of_part))]
    if len(of_part) > max_tokens:
        special = tokenizer.num_special_tokens_to_add(pair is not None)
        pieces = pieces_of(of_part, len(parts), max_tokens - special, long, cuts_left(tokenizer))
    return [_words_of_piece(encoding, parts, piece, of_part[piece]) for piece in pieces]


def _words_of_piece(encoding: Encoding, parts: list[str], piece: np.ndarray, of_part: np.ndarray) -> WordedText:
    """piece (T,): the tokens that are read. of_part (T,): the text that each belongs to."""
    words: list[Word] = []
    word_of = np.full(len(piece), NO_WORD)
    for part, text in enumerate(parts):
        found, numbers = _words_of_part(encoding, piece[of_part == part], text, part)
        word_of[of_part == part] = numbers + len(words)
        words += found
    segments = None if len(parts) == 1 else np.array(encoding.type_ids)[piece]
    return WordedText(np.array(encoding.ids)[piece], segments, words, word_of)


def _words_of_part(encoding: Encoding, tokens: np.ndarray, text: str, part: int) -> tuple[list[Word], np.ndarray]:
    """The words of these tokens of a text, and (tokens,) the number of each token's word.

    A token that is only white space belongs to the word after it; at the end of the text, to the last word.
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
    if len(tokens) and not spans:  # the text is only white space
        spans = [(0, len(text))]
    words = [Word(text[start:end], start, end, part) for start, end in spans]
    return words, numbers.clip(max=len(words) - 1)


def _continues(encoding: Encoding, before: int, token: int, between: str) -> bool:
    """Whether a token belongs to the same word as the token before it. between: the characters between the two.

    If tokens between them were cut out, it begins a new word.
    """
    same = token == before + 1 and encoding.word_ids[before] == encoding.word_ids[token]
    return same and not any(character.isspace() for character in between)


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the white space at its ends."""
    inside = text[start:end]
    first = start + len(inside) - len(inside.lstrip())
    return first, max(first, start + len(inside.rstrip()))

