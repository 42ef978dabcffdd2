"""An explained answer, as files and pages have it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class WordWeight:
    """A word, and how much it counts, in nats of log-odds: above 0, it speaks for the label."""

    text: str
    part: int  # 0: of the text; 1: of its pair
    start: int  # of its characters
    end: int
    attribution: float  # by integrated gradients
    left_out: float  # by how much the score falls without it


@dataclass(frozen=True)
class ExplainedText:
    """An answer and its words. The score is the log-odds of the label, without a temperature."""

    texts: list[str]  # one, or the two of a pair
    label: str
    probability: float
    score: float
    baseline_score: float  # of the text with all its words replaced
    baseline: str  # by this token; "zero": by zeros
    completeness_error: float  # |sum of attributions - difference of scores|, as a fraction of the difference
    words: list[WordWeight]
    window: int = 1  # that is explained ...
    windows: int = 1  # ... of so many

    def pieces(self) -> Iterator[tuple[str, float | None]]:
        """The text in pieces, a pair's two with " / " between: words with their weight from -1 to 1, and what lies
        between words, with None."""
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
