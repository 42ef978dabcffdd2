"""The parts of a training step and of a run that are our own, each beside the usual one: CPU seconds, in turns.

Dropout, attention with dropout, attention in bfloat16 and AdamW beside torch's; the linear baseline beside
scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import Result, compare
from benchmarks.training_step import BATCH, our_steps, study_texts
from minilm.data.batching import make_batches
from minilm.devices import cpu_computes_bfloat16
from minilm.evaluation.baselines import MIN_TEXTS, linear
from minilm.models.attention import attend
from minilm.models.dropout import dropout
from minilm.training.optimizer import AdamW

P = 0.1


def run() -> Iterator[Result]:
    """Every part."""
    x = torch.randn(32, 128, 384, requires_grad=True)
    yield compare(
        "dropout of 1.6M numbers, with its gradient, against torch's",
        lambda: dropout(x, P).sum().backward(),
        lambda: F.dropout(x, P).sum().backward(),
        samples=(1, 1),
        aim=2.0,
    )
    yield from attention()
    yield step_with_dropout()
    yield adamw()
    yield baseline()


def attention() -> Iterator[Result]:
    """16 texts of 128 tokens, 12 heads, with gradients."""
    cases = [("float32, with dropout", torch.float32, P, 1.1)]
    if cpu_computes_bfloat16():
        cases += [("bfloat16, with dropout", torch.bfloat16, P, 1.8), ("bfloat16", torch.bfloat16, 0.0, 1.8)]
    for words, dtype, p, aim in cases:
        qkv = [torch.randn(16, 12, 128, 32, dtype=dtype, requires_grad=True) for _ in range(3)]

        def ours(qkv: list[Tensor] = qkv, p: float = p) -> None:
            query, key, value = qkv
            attend(query, key, value, None, causal=False, scale=None, p=p).sum().backward()

        def theirs(qkv: list[Tensor] = qkv, p: float = p) -> None:
            query, key, value = qkv
            F.scaled_dot_product_attention(query, key, value, dropout_p=p).sum().backward()

        yield compare(f"attention, {words}, against SDPA", ours, theirs, samples=(1, 1), aim=aim)


def step_with_dropout() -> Result:
    """Training steps of the 5.7M GPT-2, with our dropout and with torch's."""
    texts, labels = study_texts()
    steps = our_steps(texts, labels, make_batches(texts.lengths, BATCH, seed=1, epoch=0)[:12])

    def sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool, scale: float, p: float):
        return F.scaled_dot_product_attention(query, key, value, mask, p, is_causal=causal, scale=scale)

    def with_torchs() -> None:
        with patch("minilm.models.dropout.dropout", F.dropout), patch("minilm.models.layers.attend", sdpa):
            steps()

    return compare("training step, GPT-2, against torch's dropout", steps, with_torchs, samples=(12, 12), aim=1.1)


def adamw() -> Result:
    """Steps of 22M parameters of the shapes of all-MiniLM-L6-v2."""
    shapes = [(30522, 384), (512, 384), *6 * [*4 * [(384, 384)], (1536, 384), (384, 1536), *10 * [(384,)]]]
    parameters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    ours = AdamW([{"params": parameters, "weight_decay": 0.01}], lr=1e-5, eps=1e-8)
    theirs = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    return compare("AdamW, against torch's fused one", ours.step, theirs.step, samples=(1, 1), aim=0.95)


def baseline() -> Result:
    """The linear model on words of 4,000 texts in 100 classes."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    labels = np.arange(4000) % 100
    own, common = random.integers(0, 20_000, (100, 30)), 20_000 // np.arange(1, 20_001)
    odds = common / common.sum()
    texts = [
        " ".join(f"word{w}" for w in (*random.choice(own[label], 4), *random.choice(20_000, 8, p=odds)))
        for label in labels
    ]

    def theirs() -> None:
        features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=MIN_TEXTS).fit_transform(texts)
        LogisticRegression(C=10, max_iter=1000).fit(features, labels)

    def ours() -> None:
        linear(texts, labels, 100)

    words = "linear baseline, 100 classes, against scikit-learn"
    return compare(words, ours, theirs, samples=(1, 1), aim=1.0, rounds=3)
