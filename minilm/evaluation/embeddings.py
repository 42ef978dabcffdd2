"""Texts as vectors by a model that is not trained, and a logistic regression on them: a linear probe.

A backbone gives each of a text's T tokens a vector. Their mean is one vector for the text:

    e = 1/T sum_t x_t                                        (N, D) for N texts, special tokens included

Sentence models (Reimers and Gurevych 2019) are trained so that texts of like meaning have like means; of other
backbones the means are useful, too. A linear probe measures how useful (Alain and Bengio 2016): the regression
of ``baselines.py``, fitted to the training texts' vectors, moved and scaled so that they have mean 0 and length 1 on
average:

    f = (e - m) / s        m = mean(e),  s = sqrt(mean(|e - m|^2))        both of the training texts

So one penalty suits every backbone, whatever the length of its vectors. Nothing here is random: the same rows give the
same probe. Where it scores as well, fine-tuning does not pay.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from minilm.data.tokenization import Encoded, encode, pad_id
from minilm.devices import Runtime
from minilm.evaluation.baselines import Logistic, fit_classes
from minilm.evaluation.predictor import predict_scores
from minilm.evaluation.windows import vectors_of_texts
from minilm.models.architecture import Backbone
from minilm.models.batch import Batch
from minilm.models.heads import pool

CUT = 512  # tokens at which texts are cut for a model that reads any length, unless the caller says otherwise


# --- texts to vectors ---


def mean_vectors(model: Backbone, encoded: Encoded, runtime: Runtime, *, pad: int) -> np.ndarray:
    """The means of N texts' vectors: (N, D) float32, in the order of the texts.

    The model may have any head or none, and is left as it was. For T5, they are the encoder's vectors.
    """
    depth = model.config.depth

    def forward(batch: Batch, rows: np.ndarray) -> Tensor:
        x = model.finish(model.run(model.embed(batch), batch, 0, depth))  # (B, T, D)
        return pool(x.float(), batch, "mean")

    if not len(encoded):
        return np.zeros((0, model.config.width), np.float32)
    return predict_scores(model, encoded, runtime, pad=pad, forward=forward, combine=vectors_of_texts)


def embed_texts(
    model: Backbone,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    runtime: Runtime,
    *,
    pairs: Sequence[str] | None = None,
    max_tokens: int = 0,
) -> np.ndarray:
    """``mean_vectors`` of texts or pairs: (N, D). They are cut to ``max_tokens``; 0: to the model's context."""
    encoded = encode(tokenizer, texts, pairs, max_tokens or model.context or CUT)
    return mean_vectors(model.to(runtime.device), encoded, runtime, pad=pad_id(tokenizer))


# --- the probe ---


class Dense(NamedTuple):
    """A matrix with no zeros to leave out, for the fit."""

    values: np.ndarray  # (N, V) float64

    @property
    def rows(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        return self.values.shape[1]

    @property
    def stored(self) -> int:
        return self.values.size

    def slice(self, start: int, end: int) -> Dense:
        return Dense(self.values[start:end])

    def transposed(self) -> Dense:
        return Dense(self.values.T)

    def times(self, dense: Tensor) -> Tensor:
        """(N, V) @ (V, K) -> (N, K)."""
        return torch.from_numpy(self.values).to(dense.dtype) @ dense


@dataclass(frozen=True)
class Probe:
    """The fitted model. `seconds`: the time to fit, the vectors given."""

    mean: np.ndarray  # (D,)
    scale: float
    regression: Logistic
    seconds: float

    def predict(self, embeddings: np.ndarray) -> np.ndarray:
        """(N, D) -> (N, C) scores: log-probabilities; log-odds with several labels per text."""
        return self.regression.predict(Dense((embeddings.astype(np.float64) - self.mean) / self.scale))


def fit_probe(embeddings: np.ndarray, labels: np.ndarray, classes: int, tolerance: float = 1e-4) -> Probe:
    """Fit to vectors (N, D) with `labels`: (N,) of 0..classes-1, or (N, classes) of 0 and 1.

    The fit ends when no derivative is above `tolerance`.
    """
    start = time.perf_counter()
    x = embeddings.astype(np.float64)
    mean = x.mean(axis=0)
    scale = float(np.sqrt(np.square(x - mean).sum(axis=1).mean())) or 1.0  # 0: all vectors are equal
    regression = fit_classes(Dense((x - mean) / scale), labels, classes, tolerance)
    return Probe(mean, scale, regression, time.perf_counter() - start)
