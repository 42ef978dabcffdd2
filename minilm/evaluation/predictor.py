"""A trained classifier, as its user holds it: texts in, scores out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from minilm.checkpoints.models import card_of, load_model
from minilm.data.batching import collate, make_batches
from minilm.data.cleaning import cleaner
from minilm.data.tokenization import Encoded, encode, load_tokenizer, pad_id
from minilm.devices import Execution, execution
from minilm.errors import UserError
from minilm.evaluation.metrics import log_softmax, sigmoid

BATCH = 64  # texts scored at a time, at most ...
TOKENS = 16384  # ... and tokens, padding included
LINES = 512  # lines read before the first is answered

Text = str | tuple[str, str]  # a text, or a pair


def predict_scores(model: nn.Module, encoded: Encoded, run_on: Execution, *, pad: int, context: int) -> np.ndarray:
    """The model's scores (logits) of N texts: (N, C) float32, in the order of the texts.

    Texts of like length share a batch. The model is left in the mode it was in.
    """
    scores: list[torch.Tensor] = []
    order: list[np.ndarray] = []
    was_training = model.training
    model.eval()
    with torch.inference_mode(), run_on.autocast():
        for rows in _batches(encoded):
            batch = collate(encoded, rows, None, pad, longest=context).to(run_on.device)
            scores.append(model(batch).float())
            order.append(rows)
    model.train(was_training)
    together = torch.cat(scores).cpu().numpy()
    result = np.empty_like(together)
    result[np.concatenate(order)] = together
    return result


def _batches(encoded: Encoded) -> Iterator[np.ndarray]:
    """Rows by falling length, so many a batch that neither limit is passed."""
    for rows in make_batches(encoded.lengths, BATCH, seed=0, epoch=0, shuffle=False):
        fits = max(1, TOKENS // int(encoded.lengths[rows].max()))
        yield from (rows[i : i + fits] for i in range(0, len(rows), fits))


def context_of(model: nn.Module) -> int:
    """The longest text that the model can read, in tokens; 0: any length."""
    return int(getattr(model.config, "context", 0))


class Classifier:
    """A classification model with its tokenizer and what it was trained with.

    >>> classifier = Classifier.load("runs/scratch-sample")
    >>> classifier.predict(["ale sztos"])
    [{'negative': 0.07, 'neutral': 0.26, 'positive': 0.67}]
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, run_on: Execution) -> None:
        self.model, self.tokenizer, self.execution = model.to(run_on.device), tokenizer, run_on
        card = card_of(model)
        self.labels = card.labels
        self.multi_label = bool(
            card.extra.get("multi_label") or card.published.get("problem_type") == "multi_label_classification"
        )
        self.threshold = float(card.extra.get("threshold", 0.5))  # from which probability on a label is given
        self.pairs = bool(card.extra.get("pairs"))  # whether it was trained on pairs of texts
        self.clean = cleaner(card.extra.get("clean", []))
        context = context_of(model)
        self.max_tokens = int(card.extra.get("max_tokens", context or 512))

    @classmethod
    def load(cls, source: str | Path, device: str = "auto") -> Classifier:
        """Open a run's folder, a saved folder, a catalogue name or a Hub id.

        Raises UserError where there is no trained classifier.
        """
        folder = Path(source)
        if (folder / "config.toml").exists() and not (folder / "model").exists():
            raise UserError(
                f"{folder}: this run has not finished; go on with `minilm train {folder / 'config.toml'} --resume`"
            )
        chosen = str(folder / "model") if (folder / "model" / "config.json").exists() else str(source)
        model = load_model(chosen, "classify", dtype=torch.float32)
        run_on = execution(device, "float32")
        return cls(model, load_tokenizer(card_of(model).folder or chosen), run_on)

    def scores(self, texts: Sequence[Text]) -> np.ndarray:
        """The model's scores (logits), (N, C)."""
        if not texts:
            return np.zeros((0, len(self.labels)), np.float32)
        firsts, seconds = _split_pairs(texts)
        firsts = [self.clean(text.strip()) for text in firsts]
        if seconds is not None:
            seconds = [self.clean(text.strip()) for text in seconds]
        encoded = encode(self.tokenizer, firsts, seconds, self.max_tokens)
        return predict_scores(
            self.model, encoded, self.execution, pad=pad_id(self.tokenizer), context=context_of(self.model)
        )

    def predict(self, texts: Sequence[Text]) -> list[dict[str, float]]:
        """One ``{label: probability}`` a text; pairs are tuples.

        With one label a text the probabilities add up to 1; with several, each label has its own, and those of at least
        ``threshold`` count as given.
        """
        scores = self.scores(texts)
        probabilities = sigmoid(scores) if self.multi_label else np.exp(log_softmax(scores))
        return [dict(zip(self.labels, map(float, row), strict=True)) for row in probabilities]

    def parse(self, line: str, number: int) -> Text:
        """A line of a file as a text; for a classifier of pairs, two texts with a tab between.

        Raises UserError naming the line where it is empty, or no pair.
        """
        texts = [text.strip() for text in line.split("\t")] if self.pairs else [line.strip()]
        if not all(texts) or len(texts) != (2 if self.pairs else 1):
            wanted = "two texts with a tab between" if self.pairs else "a text"
            raise UserError(f"text {number} must be {wanted}, got {line!r}")
        return (texts[0], texts[1]) if self.pairs else texts[0]

    def decide(self, probabilities: dict[str, float]) -> list[str]:
        """The labels that a text is given: the likeliest; with several a text, all above the threshold."""
        if self.multi_label:
            return [label for label, p in probabilities.items() if p >= self.threshold]
        return [max(probabilities, key=lambda label: probabilities[label])]


def predict_lines(classifier: Classifier, lines: Iterable[str]) -> Iterator[tuple[str, dict[str, float]]]:
    """Each line with its ``{label: probability}``, in order, some hundred lines at a time."""
    numbered = iter(enumerate(lines, 1))
    while chunk := list(itertools.islice(numbered, LINES)):
        parsed = [classifier.parse(line, number) for number, line in chunk]
        yield from zip((line for _, line in chunk), classifier.predict(parsed), strict=True)


def _split_pairs(texts: Sequence[Text]) -> tuple[list[str], list[str] | None]:
    if all(isinstance(text, str) for text in texts):
        return [str(text) for text in texts], None
    pairs: list[Any] = list(texts)
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise UserError("give either single texts or pairs of two texts, not both")
    return [first for first, _ in pairs], [second for _, second in pairs]
