"""Explain a classifier's prediction for one text, word by word, with ``attribution.py``.

The text is prepared as for a prediction: cleaned, and cut or divided into windows. If it is read in windows, the window
with the highest score for the label is explained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from tokenizers import Tokenizer

from minilm.data.long_texts import LongTexts
from minilm.devices import Runtime
from minilm.errors import UserError, nearest
from minilm.evaluation.attribution import explain
from minilm.evaluation.decisions import Decision
from minilm.evaluation.explained import ExplainedText, WordWeight
from minilm.evaluation.reading import Reading, Text
from minilm.evaluation.words import read_words
from minilm.models.architecture import Backbone


class Explainable(Protocol):
    """What an explanation needs of a classifier; ``Classifier`` has it."""

    name: str
    labels: list[str]
    reading: Reading
    decision: Decision
    clean: Callable[[str], str]
    model: Backbone
    tokenizer: Tokenizer
    runtime: Runtime

    def scores(self, texts: Iterable[Text]) -> np.ndarray: ...

    def scores_of_clean_texts(self, texts: list[str], pairs: list[str] | None) -> np.ndarray: ...


def explain_text(classifier: Explainable, text: Text, label: str = "") -> ExplainedText:
    """Explain a prediction: why the text gets its label, or the score of another label.

    text: as written; a pair is a tuple. Raises UserError as ``Classifier.scores`` does, for a label that the model does
    not have, for a text without words, and for a model that does not compute in float32.
    """
    scores = classifier.scores([text])
    return _explained(classifier, [classifier.clean(part) for part in _parts(text)], scores, label)


def explain_clean(classifier: Explainable, text: str, pair: str | None, label: str = "") -> ExplainedText:
    """The same for a text that is already cleaned."""
    scores = classifier.scores_of_clean_texts([text], None if pair is None else [pair])
    return _explained(classifier, [text] if pair is None else [text, pair], scores, label)


def _parts(text: Text) -> Sequence[str]:
    return [text] if isinstance(text, str) else text


def _explained(classifier: Explainable, parts: list[str], scores: np.ndarray, label: str) -> ExplainedText:
    p = classifier.decision.probabilities(scores)[0]  # (C,)
    number = _number_of(classifier, p, label)
    reading, pair = classifier.reading, parts[1] if len(parts) > 1 else None
    long = LongTexts(reading.long_texts, reading.window_stride, reading.window_scores)
    limit = reading.max_tokens or classifier.model.context or 512
    if classifier.runtime.precision != "float32":
        raise UserError(f"{classifier.name}: explanations need float32, as other types are not precise enough")
    windows = read_words(classifier.tokenizer, parts[0], pair, limit, long)
    if not all(window.words for window in windows):
        raise UserError(f"{classifier.name}: finds no words in {' / '.join(parts)!r}, so it cannot explain the label")
    found = [
        explain(
            classifier.model, classifier.tokenizer, parts[0], pair, max_tokens=limit, long=long, window=window,
            label=number, multi_label=classifier.decision.kind != "single",
            temperature=classifier.decision.temperature,
        )
        for window in range(len(windows))
    ]  # fmt: skip
    chosen = max(range(len(windows)), key=lambda i: found[i].score)
    best = found[chosen]
    words = [
        WordWeight(word.text, word.part, word.start, word.end, float(a), float(left))
        for word, a, left in zip(best.words, best.attributions, best.left_out, strict=True)
    ]
    return ExplainedText(
        parts, classifier.labels[number], float(p[number]), best.score, best.baseline_score, best.baseline,
        best.completeness_error, words, chosen + 1, len(windows),
    )  # fmt: skip


def _number_of(classifier: Explainable, p: np.ndarray, label: str) -> int:
    """The class to explain: that of the label, or without a label the predicted (most probable) class."""
    if not label:
        single = classifier.decision.kind == "single"
        return int(classifier.decision.choose(p[None])[0]) if single else int(p.argmax())
    if label not in classifier.labels:
        there = ", ".join(f'"{name}"' for name in classifier.labels[:20])
        hint = nearest(label, classifier.labels)
        raise UserError(f'{classifier.name}: has no label "{label}"{hint}; its labels are {there}')
    return classifier.labels.index(label)
