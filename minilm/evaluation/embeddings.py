"""Linear probe: compute text vectors with a model that is not trained further, and fit a logistic regression to them.

A backbone gives each of a text's T tokens a vector. Their mean is one vector for the text:

    e = 1/T sum_t x_t                                        (N, D) for N texts, special tokens included

Sentence models (Reimers and Gurevych 2019) are trained so that texts of similar meaning have similar vectors. Files in
their folders specify how to compute a text's vector from those of its tokens (``checkpoints/sentence_models.py``): the
first token's vector, the mean followed by a linear layer, and so on. For other backbones the mean is useful too. A
linear probe measures how useful the vectors are (Alain and Bengio 2016). It is the regression of ``baselines.py``,
fitted to the training texts' vectors after they are shifted to mean 0 and scaled to length 1 on average:

    f = (e - m) / s        m = mean(e),  s = sqrt(mean(|e - m|^2))        both over the training texts

So one penalty suits every backbone, whatever the length of its vectors. Nothing here is random: the same rows give the
same probe. If the probe scores as well as fine-tuning, fine-tuning is not worth its cost.
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

from minilm.checkpoints.models import card_of
from minilm.checkpoints.sentence_models import SentenceModel, read_sentence_model
from minilm.data.tokenization import Encoded, encode, pad_id
from minilm.devices import Runtime
from minilm.evaluation.baselines import Logistic, fit_classes
from minilm.evaluation.predictor import predict_scores
from minilm.evaluation.windows import vectors_of_texts
from minilm.models.architecture import Backbone
from minilm.models.batch import Batch

CUT = 512  # the default limit in tokens for a model that can read texts of any length


# --- texts to vectors ---


MEAN = SentenceModel()


def text_vectors(
    model: Backbone, encoded: Encoded, runtime: Runtime, *, pad: int, how: SentenceModel = MEAN, skipped: int = 0
) -> np.ndarray:
    """The vectors of N texts: (N, D) float32, in the order of the texts.

    The model may have any head or none, and is not changed. For T5, the vectors are those of the encoder.

    how: how to compute a text's vector from those of its tokens.
    skipped: the number of tokens of a prompt at the beginning of each text that are not pooled (``prompt_tokens``).
    """
    depth = model.config.depth

    def forward(batch: Batch, rows: np.ndarray) -> Tensor:
        return how(model.vectors_after(batch, depth).float(), batch, skipped)  # from (B, T, D)

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
    """``text_vectors`` of texts or pairs: (N, D), computed as the model's folder specifies (``read_sentence_model``).

    Texts are cut to ``max_tokens``; 0: to the length that the folder specifies, or else to the model's context.
    """
    how = read_sentence_model(card_of(model).folder)
    limit = max_tokens or min(filter(None, (how.max_tokens, model.context)), default=CUT)
    encoded, skipped = encode(tokenizer, how.prompted(texts), pairs, limit), prompt_tokens(tokenizer, how)
    return text_vectors(model.to(runtime.device), encoded, runtime, pad=pad_id(tokenizer), how=how, skipped=skipped)


def prompt_tokens(tokenizer: Tokenizer, how: SentenceModel) -> int:
    """The number of tokens of the prompt, with the special tokens before it, that are not pooled."""
    if how.pools_prompt or not how.prompt:
        return 0
    encoding = tokenizer.encode(how.prompted([""])[0])
    return len(encoding.ids) - encoding.special_tokens_mask[-1]


# --- the probe ---


class Dense(NamedTuple):
    """A dense matrix, in the form that the fit needs."""

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
    """The fitted model. `seconds`: the fitting time, without the time to compute the vectors."""

    mean: np.ndarray  # (D,)
    scale: float
    regression: Logistic
    seconds: float

    def predict(self, embeddings: np.ndarray) -> np.ndarray:
        """(N, D) -> (N, C) scores: log-probabilities; log-odds with several labels per text."""
        return self.regression.predict(Dense((embeddings.astype(np.float64) - self.mean) / self.scale))


def fit_probe(embeddings: np.ndarray, labels: np.ndarray, classes: int, tolerance: float = 1e-4) -> Probe:
    """Fit to vectors (N, D) with `labels`: (N,) of 0..classes-1, or (N, classes) of 0 and 1.

    The fit stops when no derivative is above `tolerance`.
    """
    start = time.perf_counter()
    x = embeddings.astype(np.float64)
    mean = x.mean(axis=0)
    scale = float(np.sqrt(np.square(x - mean).sum(axis=1).mean())) or 1.0  # 0: all vectors are equal
    regression = fit_classes(Dense((x - mean) / scale), labels, classes, tolerance)
    return Probe(mean, scale, regression, time.perf_counter() - start)
