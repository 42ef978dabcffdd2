"""Explain a prediction: how much each word contributes to the score of a class.

**The score** that is explained is the log-odds of a class c, in nats. It is 0 if the probability is 0.5; a score that
is 0.7 higher means that the odds are twice as high. From the logits z:

    one label      F = z_c - log sum_{j != c} e^{z_j} = log p_c / (1 - p_c)
    several        F = z_c                            = log p_c / (1 - p_c)

A classifier's probabilities may have a temperature (``calibration.py``). Then z are the logits divided by it, so that F
is the log-odds of the probability that ``minilm predict`` shows.

**Integrated gradients** (Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks"). Let x (T, D) be the
vectors of a text's tokens, and x' those of a baseline, a text without content. On the straight path from x' to x the
score changes from F(x') to F(x). The part of each component in this change is its distance times the mean of its
derivative along the path:

    A_td = (x_td - x'_td) * integral_0^1  dF/dx_td (x' + a (x - x'))  da

    sum_td A_td = F(x) - F(x')                                                                      (completeness)

A word's attribution is the sum over its tokens and their D components. If it is above 0, the word is evidence for the
class; if it is below 0, against the class.

x are the rows of the token table, before positions are added. So the path changes the words and not their positions.
In the baseline, every token of the text is replaced by the mask token, as masked-language models have learned that it
stands for an unknown word. Without a mask token, the padding token, the unknown token or zeros are used, in this order.
The tokens that the tokenizer adds, such as [CLS], do not change, so their attribution is 0.

The integral is computed by Gauss-Legendre quadrature on pieces of the path. Completeness also holds on each piece, so
the scores at its ends show the error of its sum. The pieces with the largest errors are halved until the total error is
within 1%. This is needed, for example, if the path starts at zeros: the model's first norm rescales short vectors, so
that most of the change happens on the first hundredth of the path, where the pieces then become small.

**Leaving words out** (occlusion; Zeiler and Fergus 2014, Li et al. 2016) measures by how much the score falls if a word
is removed. It needs no derivatives and is easier to interpret, so it serves as a check. Its values differ from the
attributions and do not add up to the score: if two words have the same meaning, removing one of them may change
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from minilm.data.long_texts import CUT, LongTexts
from minilm.evaluation.words import NO_WORD, Word, WordedText, read_words
from minilm.models.architecture import Backbone, evaluation_mode
from minilm.models.batch import Batch

TOKENS = "embeddings.token"  # the token table, in every architecture
BASELINES = ("[MASK]", "<mask>", "<pad>", "[PAD]", "<|pad|>", "<|padding|>", "[UNK]", "<unk>")  # the first found
POINTS = 8  # points of the quadrature on each piece of the path
MOST_STEPS = 2048  # the most points on the whole path
TOLERANCE = 0.01  # the largest error, as a fraction of the difference of scores
CANCELLED = 10  # the absolute errors of the pieces may add up to this many times the tolerance
LEAST_DIFFERENCE = 0.01  # nats; if the difference of scores is smaller, the error is a fraction of this
AT_ONCE = 4096  # the most tokens in a batch


@dataclass(frozen=True)
class Explanation:
    """The contributions of the W words of a text to the score of a class, in nats of log-odds."""

    words: list[Word]
    label: int  # the class that is explained
    attributions: np.ndarray  # (W,) by integrated gradients
    left_out: np.ndarray  # (W,) how much the score falls without each word
    score: float
    baseline_score: float
    baseline: str  # the token that replaces words in the baseline; "zero": a vector of zeros
    steps: int  # the number of points of the final quadrature on the path

    @property
    def completeness_error(self) -> float:
        """|sum of attributions - difference of scores|, as a fraction of the difference (of 0.01 nats at least)."""
        difference = self.score - self.baseline_score
        return abs(float(self.attributions.sum()) - difference) / max(abs(difference), LEAST_DIFFERENCE)


def explain(
    model: Backbone,
    tokenizer: Tokenizer,
    text: str,
    pair: str | None = None,
    *,
    max_tokens: int,
    long: LongTexts = CUT,
    window: int = 0,
    label: int | None = None,
    multi_label: bool = False,
    temperature: np.ndarray | None = None,
) -> Explanation:
    """Explain a classifier's score of a text or a pair for the class ``label``; None: the class with the highest score.

    A text of more than ``max_tokens`` is cut as ``long`` specifies. If it is read in windows, each has its own scores,
    and those of window number ``window`` are explained. ``temperature``: (1,) or (C,), by which logits are divided. The
    model must be in float32, and is not changed. The result is
    deterministic. If the error is above 1% after 2,048 steps, no exception is raised: check ``completeness_error``.
    Raises ValueError for a model in a narrower type, and for a text without words.
    """
    table = model.token_embedding.weight
    narrow = {parameter.dtype for parameter in model.parameters()} - {torch.float32, torch.float64}
    if narrow:
        raise ValueError(f"explanations need a model in float32, got {narrow.pop()}, which is not precise enough")
    worded = read_words(tokenizer, text, pair, max_tokens, long)[window]
    if not worded.words:
        raise ValueError("a text without words cannot be explained")
    name, baseline = baseline_token(tokenizer, len(table))
    with evaluation_mode(model), torch.inference_mode(False):
        path = StraightPath.of(model, worded, baseline, multi_label, temperature)
        if label is None:
            label = int(path.logits(path.text[None])[0].argmax())
        gradients = integrated_gradients(path, label)
        return Explanation(
            words=worded.words,
            label=label,
            attributions=worded.add_up(gradients.attributions),
            left_out=leave_out(path, label),
            score=gradients.score,
            baseline_score=gradients.baseline_score,
            baseline=name,
            steps=gradients.steps,
        )


def baseline_token(tokenizer: Tokenizer, vocabulary: int) -> tuple[str, int | None]:
    """The name and id of the token that replaces words in the baseline; "zero" and None if the model has none."""
    for name in BASELINES:
        token = tokenizer.token_to_id(name)
        if token is not None and token < vocabulary:
            return name, token
    return "zero", None


# --- The score, as a function of the tokens' vectors ---


class OwnVectors(nn.Module):
    """A token table with additional rows, for vectors that belong to no token.

    It temporarily replaces the model's table. So a model that takes ids can read any vectors, at every place where it
    looks up tokens (T5's decoder reads the text too).
    """

    def __init__(self, table: nn.Embedding, own: Tensor) -> None:
        super().__init__()
        self.table = table
        self.own = own  # (R, E) the vectors for the ids V, V + 1, ...

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, T, E)."""
        row = ids - self.table.num_embeddings
        known = self.table(ids.masked_fill(row >= 0, 0))
        return torch.where((row >= 0).unsqueeze(-1), F.embedding(row.clamp(min=0), self.own), known)


@contextmanager
def own_vectors(model: Backbone, own: Tensor) -> Iterator[int]:
    """A context in which the model has additional token vectors ``own`` (R, E). Yields the id of the first one."""
    table = model.token_embedding
    model.set_submodule(TOKENS, OwnVectors(table, own))
    try:
        yield table.num_embeddings
    finally:
        model.set_submodule(TOKENS, table)


@dataclass(frozen=True)
class StraightPath:
    """The straight path between two texts as vectors, and the model that scores its points. E: the token table's width.
    """

    model: Backbone
    worded: WordedText
    text: Tensor  # x, (T, E)
    baseline: Tensor  # x', (T, E)
    multi_label: bool
    temperature: Tensor  # (1,) or (C,)

    @staticmethod
    def of(
        model: Backbone,
        worded: WordedText,
        baseline: int | None,
        multi_label: bool,
        temperature: np.ndarray | None = None,
    ) -> StraightPath:
        """baseline: the id of the token that replaces words; None: zeros. temperature: (1,) or (C,); None: 1."""
        table = model.token_embedding.weight.detach()  # (V, E)
        text = table[torch.from_numpy(worded.ids).to(table.device)]
        nothing = torch.zeros_like(table[0]) if baseline is None else table[baseline]
        of_words = torch.from_numpy(worded.word_of != NO_WORD).to(table.device)
        divisor = torch.from_numpy(np.ones(1) if temperature is None else temperature).to(text)
        return StraightPath(model, worded, text, torch.where(of_words[:, None], nothing, text), multi_label, divisor)

    def logits(self, vectors: Tensor) -> Tensor:
        """vectors (B, T, E), in place of those of the tokens -> logits (B, C)."""
        rows, tokens, _ = vectors.shape
        with own_vectors(self.model, vectors.flatten(0, 1)) as first:
            ids = first + torch.arange(rows * tokens, device=vectors.device).view(rows, tokens)
            result: Tensor = self.model(Batch(ids, segments=self._segments(rows, ids.device)))
        return result

    def _segments(self, rows: int, device: torch.device) -> Tensor | None:
        segments = self.worded.segments
        return None if segments is None else torch.from_numpy(segments).to(device).expand(rows, -1)

    def log_odds(self, logits: Tensor, label: int) -> Tensor:
        """F of each text: (B, C) -> (B,)."""
        logits = logits / self.temperature
        score = logits[:, label]
        if self.multi_label or logits.shape[1] == 1:
            return score
        others = torch.arange(logits.shape[1], device=logits.device) != label
        return score - logits[:, others].logsumexp(dim=1)

    def batches(self, rows: int) -> Iterator[slice]:
        """Divide ``rows`` texts of T tokens into batches."""
        at_once = max(1, AT_ONCE // len(self.worded.ids))
        return (slice(first, first + at_once) for first in range(0, rows, at_once))

    def between(self, a: np.ndarray) -> Tensor:
        """The points x' + a (x - x') of the path, a (B,) -> (B, T, E)."""
        return self.baseline + torch.from_numpy(a).to(self.text)[:, None, None] * (self.text - self.baseline)

    def scores(self, a: np.ndarray, label: int) -> np.ndarray:
        """F at these points of the path, (A,) -> (A,)."""
        with torch.no_grad():
            parts = [self.log_odds(self.logits(self.between(a[part])), label) for part in self.batches(len(a))]
        return torch.cat(parts).double().cpu().numpy()

    def slopes(self, a: np.ndarray, label: int) -> np.ndarray:
        """The part of each token in dF/da at these points: (A,) -> (A, T). dF/da is the sum over tokens."""
        slopes = []
        for part in self.batches(len(a)):
            with torch.enable_grad():
                vectors = self.between(a[part]).requires_grad_()  # (B, T, E)
                score = self.log_odds(self.logits(vectors), label).sum()  # gives each text's gradient
                [derivative] = torch.autograd.grad(score, vectors)
            slopes.append((derivative.double() * (self.text - self.baseline)).sum(dim=-1))
        return torch.cat(slopes).cpu().numpy()


# --- Integrated gradients ---


@dataclass(frozen=True)
class Gradients:
    """The result of ``integrated_gradients``."""

    attributions: np.ndarray  # (T,) one per token
    score: float
    baseline_score: float
    steps: int


def integrated_gradients(
    path: StraightPath, label: int, *, tolerance: float = TOLERANCE, most_steps: int = MOST_STEPS
) -> Gradients:
    """The attributions of the tokens for a class, complete within the tolerance if ``most_steps`` is enough."""
    baseline_score, score = path.scores(np.array([0.0, 1.0]), label).tolist()
    pieces, steps = np.array([[0.0, 0.5], [0.5, 1.0]]), 2 * POINTS  # (P, 2) start and end of each piece
    integrals, missing = _integrate(path, label, pieces)
    allowed = tolerance * max(abs(score - baseline_score), LEAST_DIFFERENCE)
    while abs(missing.sum()) > allowed or np.abs(missing).sum() > CANCELLED * allowed:
        coarse = np.abs(missing) > np.abs(missing).mean() / 2
        steps += 2 * POINTS * int(coarse.sum())
        if steps > most_steps:
            break
        (begin, end), middle = pieces[coarse].T, pieces[coarse].mean(axis=1)
        halves = np.concatenate([np.stack([begin, middle], axis=1), np.stack([middle, end], axis=1)])
        finer, still_missing = _integrate(path, label, halves)
        pieces = np.concatenate([pieces[~coarse], halves])
        integrals = np.concatenate([integrals[~coarse], finer])
        missing = np.concatenate([missing[~coarse], still_missing])
    return Gradients(integrals.sum(axis=0), score, baseline_score, POINTS * len(pieces))


def _integrate(path: StraightPath, label: int, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, T) each token's attribution on each piece of the path (P, 2), from ``POINTS`` points; and (P,) how much is
    missing in each piece's sum."""
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)  # on [-1, 1]
    half = (pieces[:, 1:] - pieces[:, :1]) / 2  # (P, 1)
    slopes = path.slopes((pieces.mean(axis=1, keepdims=True) + half * nodes).ravel(), label)  # (P * POINTS, T)
    integrals = np.einsum("pk,pkt->pt", half * weights, slopes.reshape(len(pieces), POINTS, -1))
    begin, end = path.scores(pieces.T.ravel(), label).reshape(2, -1)
    return integrals, end - begin - integrals.sum(axis=1)


# --- Leaving words out ---


def leave_out(path: StraightPath, label: int, how: Literal["remove", "replace"] = "remove") -> np.ndarray:
    """(W,) how much the score of a class falls without each word. Above 0: the word is evidence for the class.

    The tokens of the word are removed, or replaced by those of the baseline. They are also replaced if no token would
    remain.
    """
    worded = path.worded
    kept = worded.word_of != np.arange(len(worded.words))[:, None]  # (W, T)
    replaced = np.full(len(kept), how == "replace") | ~kept.any(axis=1)
    scores = np.zeros(len(kept))
    with torch.no_grad():
        whole = path.log_odds(path.logits(path.text[None]), label).item()
        for part in path.batches(len(kept)):
            for chosen, score in ((replaced[part], _replaced), (~replaced[part], _removed)):
                if chosen.any():
                    scores[part][chosen] = path.log_odds(score(path, kept[part][chosen]), label).cpu().numpy()
    return whole - scores


def _replaced(path: StraightPath, kept: np.ndarray) -> Tensor:
    """kept (B, T): logits (B, C) of the text with the baseline's vectors at the other tokens."""
    as_they_are = torch.from_numpy(kept).to(path.text.device)[:, :, None]
    return path.logits(torch.where(as_they_are, path.text, path.baseline))


def _removed(path: StraightPath, kept: np.ndarray) -> Tensor:
    """kept (B, T): logits (B, C) of the text without the other tokens."""
    lengths = kept.sum(axis=1)
    real = np.arange(lengths.max()) < lengths[:, None]  # (B, T')

    def close_up(values: np.ndarray) -> Tensor:
        result = np.zeros(real.shape, np.int64)
        result[real] = np.broadcast_to(values, kept.shape)[kept]
        return torch.from_numpy(result).to(path.text.device)

    segments = path.worded.segments
    mask = torch.from_numpy(real).to(path.text.device)
    ids, kinds = close_up(path.worded.ids), None if segments is None else close_up(segments)
    logits: Tensor = path.model(Batch.of(ids, mask, kinds))
    return logits
