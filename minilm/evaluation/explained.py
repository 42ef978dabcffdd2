"""An explained prediction, as stored in files and shown on pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class WordWeight:
    """A word and its contribution in nats of log-odds. Above 0: the word is evidence for the label."""

    text: str
    part: int  # 0: in the text; 1: in its pair
    start: int  # its first character
    end: int
    attribution: float  # by integrated gradients
    left_out: float  # how much the score falls without the word


@dataclass(frozen=True)
class ExplainedText:
    """A prediction and the contributions of the words.

    The score is the log-odds of the probability; if the text is read in windows, that of the explained window.
    """

    texts: list[str]  # one text, or the two texts of a pair
    label: str
    probability: float
    score: float
    baseline_score: float  # the score of the text with all words replaced
    baseline: str  # the token that replaces the words; "zero": zeros
    completeness_error: float  # |sum of attributions - difference of scores|, as a fraction of the difference
    words: list[WordWeight]
    window: int = 1  # the number of the explained window, from 1
    windows: int = 1  # the number of windows

    def pieces(self) -> Iterator[tuple[str, float | None]]:
        """The text in pieces: words with their weights from -1 to 1, and the characters between words with None. Two
        texts of a pair are joined by " / "."""
        largest = max((abs(word.attribution) for word in self.words), default=0.0) or 1.0
        for part, text in enumerate(self.texts):
            if part:
                yield " / ", None
            at = 0
            for word in (word for word in self.words if word.part == part):
                if word.start > at:
                    yield text[at : word.start], None
                yield text[word.start : word.end], word.attribution / largest
                at = word.end
            if at < len(text):
                yield text[at:], None
