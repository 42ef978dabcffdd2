"""Two baselines, with which to compare a transformer.

**The majority class** does not read the texts. Its score is the log-frequency of each class among the N training rows,
by Laplace's rule (one is added to each count, so that a class without rows gives a finite loss); with several labels
per text, it is the log-odds:

    s_c = log (n_c + 1) / (N + C)                    s_c = log (n_c + 1) / (N - n_c + 1)

**A linear model on TF-IDF.** The terms are the lower-cased words of two or more characters and the pairs of
neighbouring words that are found in at least two of the N training texts. A text d has one feature per term,
its row scaled to length 1 (Salton and Buckley 1988, "Term-weighting approaches in automatic text retrieval"):

    x_dt = (1 + ln count(t in d)) (1 + ln (1 + N) / (1 + texts with t)),        x_d <- x_d / |x_d|

The weights of the scores Z = X W + b are fitted by L-BFGS (`lbfgs.py`) to minimise the mean cross-entropy, with a
penalty on the weights but not on the intercepts, S = 10:

    P = softmax(Z)                        L = -1/N sum_dc Y_dc log P_dc + |W|^2 / (2 S N)
    dL/dZ = (P - Y) / N                   dL/dW = X^T dL/dZ + W / (S N)           dL/db = sum_d dL/dZ_d

With several labels per text, each label has a sigmoid instead of the softmax. So has the second of two classes (the
score of the first is 0). The gradients have the same form.

The model equals scikit-learn's `TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)` with
`LogisticRegression(C=10)`. Nothing here is random: the same rows give the same model.

The memory and the time are bounded. If terms times classes are more than `WEIGHTS`, only the most frequent terms are
used. The scores are computed in chunks of rows, so that rows times classes are at most `SCORES`. The fit of a large
model ends after `WORK` multiplications, but not before `LEAST_STEPS`.
"""

from __future__ import annotations

import math
import re
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from minilm.evaluation.metrics import log_softmax

if TYPE_CHECKING:
    import torch

INVERSE_PENALTY = 10.0  # S; scikit-learn's C
MIN_TEXTS = 2  # a term must occur in at least this many texts
WORD = re.compile(r"\b\w\w+\b")
WEIGHTS = 8_000_000  # the most weights of the regression; the fit needs about 20 times their memory, 0.7 GB
PRECISE = 1_000_000  # the most weights that are fitted in float64; more are fitted in float32
SCORES = 20_000_000  # the most scores computed at a time; this needs about 3 times their memory
WORK = 40_000_000_000  # multiplications, about half a minute on one core
LEAST_STEPS, MOST_STEPS = 30, 1000
COUNTED = 5_000_000  # if there are more terms than this while counting, those that occurred once are dropped


# --- the majority class ---


@dataclass(frozen=True)
class Majority:
    """Gives every text the same scores (C,). `seconds`: the fitting time."""

    scores: np.ndarray
    seconds: float

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """(N, C) scores: log-probabilities; log-odds with several labels per text."""
        return np.tile(self.scores, (len(texts), 1))


def majority(labels: np.ndarray, classes: int) -> Majority:
    """The frequencies of `labels`: (N,) of 0..classes-1, or (N, classes) of 0 and 1."""
    start = time.perf_counter()
    rows = len(labels)
    if labels.ndim == 2:
        ones = labels.sum(axis=0)
        scores = np.log(ones + 1) - np.log(rows - ones + 1)
    else:
        scores = np.log(np.bincount(labels, minlength=classes) + 1) - np.log(rows + classes)
    return Majority(scores, time.perf_counter() - start)


# --- TF-IDF ---


class Sparse(NamedTuple):
    """A sparse matrix by rows (CSR): row i has values[offsets[i]:offsets[i + 1]] in the columns of these indices."""

    columns: np.ndarray  # (stored,) int64
    values: np.ndarray  # (stored,) float64
    offsets: np.ndarray  # (rows + 1,) int64
    width: int

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def stored(self) -> int:
        return len(self.values)

    def slice(self, start: int, end: int) -> Sparse:
        """The rows from ``start`` to ``end``."""
        offsets = self.offsets[start : end + 1]
        stored = slice(offsets[0], offsets[-1])
        return Sparse(self.columns[stored], self.values[stored], offsets - offsets[0], self.width)

    def transposed(self) -> Sparse:
        rows = np.repeat(np.arange(self.rows), np.diff(self.offsets))
        order = np.argsort(self.columns, kind="stable")
        counts = np.bincount(self.columns, minlength=self.width)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return Sparse(rows[order], self.values[order], offsets, self.rows)

    def times(self, dense: torch.Tensor) -> torch.Tensor:
        """(rows, width) @ (width, K) -> (rows, K).

        ``embedding_bag`` computes this product: for each row, the sum of the rows of `dense` that its columns select,
        weighted by its values.
        """
        import torch
        from torch.nn.functional import embedding_bag

        columns, values, offsets = map(torch.from_numpy, (self.columns, self.values, self.offsets))
        values = values.to(dense.dtype)
        return embedding_bag(columns, dense, offsets, mode="sum", per_sample_weights=values, include_last_offset=True)


@dataclass(frozen=True)
class Terms:
    """The V terms: each term's column, and its inverse document frequency (V,)."""

    column: dict[str, int]
    inverse_frequency: np.ndarray

    def features(self, texts: Sequence[str]) -> Sparse:
        """(N, V) features. The row of a text with no known term is zero."""
        columns, weights, offsets = array("q"), array("d"), array("q", [0])
        idf = self.inverse_frequency.tolist()
        for text in texts:
            counts = Counter(self.column[term] for term in terms_of(text) if term in self.column)
            row = [(1 + math.log(count)) * idf[column] for column, count in counts.items()]
            length = math.hypot(*row)
            columns.extend(counts)
            weights.extend(weight / length for weight in row)
            offsets.append(len(columns))
        values = np.frombuffer(weights) if weights else np.zeros(0)
        return Sparse(np.array(columns, np.int64), values, np.array(offsets, np.int64), len(idf))


def terms_of(text: str) -> list[str]:
    """The words of a text, then its pairs of neighbouring words."""
    words = WORD.findall(text.lower())
    return words + [f"{first} {second}" for first, second in pairwise(words)]


def find_terms(texts: Sequence[str], most: int = 0) -> Terms:
    """The terms that occur in at least `MIN_TEXTS` texts, in alphabetical order; if too many, the `most` frequent."""
    found: Counter[str] = Counter()
    for text in texts:
        found.update(set(terms_of(text)))
        if len(found) > COUNTED:
            found = Counter({term: count for term, count in found.items() if count > 1})
    terms = sorted(term for term, count in found.items() if count >= MIN_TEXTS)
    if 0 < most < len(terms):
        terms = sorted(sorted(terms, key=lambda term: -found[term])[:most])
    counts = np.array([found[term] for term in terms], dtype=np.float64)
    return Terms({term: i for i, term in enumerate(terms)}, 1 + np.log((1 + len(texts)) / (1 + counts)))


def join_pairs(texts: Sequence[str], pairs: Sequence[str] | None) -> Sequence[str]:
    """Join each text with its pair into one text, as the features do not depend on which of the two has a word."""
    return texts if pairs is None else [f"{a}\n{b}" for a, b in zip(texts, pairs, strict=True)]


# --- logistic regression ---


class Matrix(Protocol):
    """A matrix of N rows of V features, as the fit needs it: `Sparse`, or another class with these methods."""

    @property
    def rows(self) -> int: ...  # N

    @property
    def width(self) -> int: ...  # V

    @property
    def stored(self) -> int: ...  # numbers that are not zero

    def slice(self, start: int, end: int) -> Matrix: ...  # some of its rows

    def transposed(self) -> Matrix: ...

    def times(self, dense: torch.Tensor) -> torch.Tensor: ...  # (V, K) -> (N, K)


@dataclass(frozen=True)
class Logistic:
    """The fitted regression.

    K of the C classes are `fitted`. The others keep the score of `Majority`, as the training rows contain no
    information about them: a class without rows, or, with several labels per text, a label that all or no rows have.
    """

    weights: np.ndarray  # (V, K)
    intercepts: np.ndarray  # (K,)
    fitted: np.ndarray  # (K,) class numbers
    majority: Majority
    multi_label: bool
    finished: bool  # whether the fit reached its tolerance

    def predict(self, features: Matrix) -> np.ndarray:
        """(N, V) -> (N, C) scores: log-probabilities; log-odds with several labels per text."""
        import torch

        fitted = features.times(torch.from_numpy(self.weights)).numpy() + self.intercepts  # (N, K)
        scores = np.tile(self.majority.scores, (len(fitted), 1))
        scores[:, self.fitted] = fitted if self.multi_label else log_softmax(fitted)
        return scores if self.multi_label else log_softmax(scores)


@dataclass(frozen=True)
class Linear:
    """The fitted model. `seconds`: the fitting time, including the search for the terms."""

    terms: Terms
    regression: Logistic
    seconds: float

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """(N, C) scores: log-probabilities; log-odds with several labels per text."""
        return self.regression.predict(self.terms.features(join_pairs(texts, pairs)))


def linear(
    texts: Sequence[str],
    labels: np.ndarray,
    classes: int,
    pairs: Sequence[str] | None = None,
    tolerance: float = 1e-4,
) -> Linear:
    """Fit to N texts (or pairs) with `labels`: (N,) of 0..classes-1, or (N, classes) of 0 and 1.

    The fit stops when no derivative is above `tolerance`; the default is that of scikit-learn.
    """
    start = time.perf_counter()
    texts = join_pairs(texts, pairs)
    fitted = classes if labels.ndim == 2 else len(np.unique(labels))
    terms = find_terms(texts, most=max(1, WEIGHTS // max(1, fitted)))
    regression = fit_classes(terms.features(texts), labels, classes, tolerance)
    return Linear(terms, regression, time.perf_counter() - start)


def fit_classes(features: Matrix, labels: np.ndarray, classes: int, tolerance: float = 1e-4) -> Logistic:
    """Fit to features (N, V) with `labels`: (N,) of 0..classes-1, or (N, classes) of 0 and 1."""
    multi_label = labels.ndim == 2
    if multi_label:
        fitted = np.flatnonzero((labels.min(axis=0) == 0) & (labels.max(axis=0) == 1))
        weights, intercepts, finished = fit_logistic(features, Sigmoids(labels, fitted), tolerance)
    else:
        fitted, positions = np.unique(labels, return_inverse=True)
        if len(fitted) == 2:  # the scores of the first class are 0, those of the second are the log-odds
            second = Sigmoids(positions[:, None], np.array([0]))
            weights, intercepts, finished = fit_logistic(features, second, tolerance)
            weights, intercepts = np.pad(weights, ((0, 0), (1, 0))), np.pad(intercepts, (1, 0))
        else:
            every = Softmax(positions, len(fitted))
            weights, intercepts, finished = fit_logistic(features, every, tolerance)
    return Logistic(weights, intercepts, fitted, majority(labels, classes), multi_label, finished)


class Targets(Protocol):
    """The targets of K scores of N rows."""

    @property
    def width(self) -> int: ...  # K

    def compare(self, z: torch.Tensor, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Compare the scores z (n, K) of the rows from ``start`` to ``end`` with their targets.

        Returns the sum of the log-likelihoods, and P - Y (n, K), which may be in z's memory.
        """
        ...


class Softmax(NamedTuple):
    """One class of K for each row."""

    positions: np.ndarray  # (N,), from 0 to K-1
    width: int  # K

    def compare(self, z: torch.Tensor, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        right = torch.from_numpy(self.positions[start:end])[:, None]
        log_p = z.log_softmax(dim=1)
        log_likelihood = log_p.gather(1, right).sum(dtype=torch.float64)
        return log_likelihood, log_p.exp_().scatter_add_(1, right, z.new_full(right.shape, -1))


class Sigmoids(NamedTuple):
    """K independent regressions, which are fitted together by minimising the sum of their losses."""

    labels: np.ndarray  # (N, C) of 0 and 1
    columns: np.ndarray  # (K,) which of them

    @property
    def width(self) -> int:
        return len(self.columns)

    def compare(self, z: torch.Tensor, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        import torch
        from torch.nn.functional import softplus

        y = torch.from_numpy(self.labels[start:end, self.columns]).to(z.dtype)
        log_likelihood = (y * z - softplus(z)).sum(dtype=torch.float64)  # log P = z - softplus(z)
        return log_likelihood, z.sigmoid_().sub_(y)


def fit_logistic(features: Matrix, targets: Targets, tolerance: float) -> tuple[np.ndarray, np.ndarray, bool]:
    """Weights (V, K) and intercepts (K,) for features (N, V), and whether the fit reached its tolerance."""
    import torch

    from minilm.evaluation.lbfgs import minimize

    terms, rows, columns = features.width, features.rows, targets.width
    if columns == 0:
        return np.zeros((terms, 0)), np.zeros(0), True
    dtype = torch.float64 if terms * columns <= PRECISE else torch.float32
    size = max(1, SCORES // columns)  # rows at a time
    spans = [(start, min(rows, start + size)) for start in range(0, rows, size)]
    parts = [features.slice(*span) if len(spans) > 1 else features for span in spans]
    by_term = [part.transposed() for part in parts]  # X^T

    def loss_and_gradient(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        weights, intercepts = x[:-columns].view(terms, columns), x[-columns:]
        gradient = x / (INVERSE_PENALTY * rows)
        gradient[-columns:] = 0
        of_weights, of_intercepts = gradient[:-columns].view(terms, columns), gradient[-columns:]
        log_likelihood = torch.zeros((), dtype=torch.float64)
        for part, part_by_term, (start, end) in zip(parts, by_term, spans, strict=True):
            likelihood, error = targets.compare(part.times(weights).add_(intercepts), start, end)
            error /= rows  # dL/dZ
            of_weights += part_by_term.times(error)
            of_intercepts += error.sum(dim=0)
            log_likelihood += likelihood
        penalty = float(weights.square().sum(dtype=torch.float64)) / (2 * INVERSE_PENALTY)
        return (penalty - float(log_likelihood)) / rows, gradient

    start = torch.zeros(columns * (terms + 1), dtype=dtype)
    in_a_step = columns * (2 * features.stored + 10 * rows)  # multiplications, roughly
    max_steps = max(LEAST_STEPS, min(MOST_STEPS, WORK // max(1, in_a_step)))
    found, finished = minimize(loss_and_gradient, start, tolerance=tolerance, max_steps=max_steps)
    best = found.double().numpy()
    return best[:-columns].reshape(terms, columns), best[-columns:], finished
