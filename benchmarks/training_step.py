"""Training steps of study 0's 5.7M GPT-2, on lengths like its data's.

Peers: the study's own recipe (the model built on ``nn.MultiheadAttention``, every text padded to 256 tokens), and our
model on random batches padded to their longest text, as most people's loops make them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import Result, compare
from minilm.checkpoints.models import new_model
from minilm.config import TrainSection
from minilm.data.batching import collate, make_batches
from minilm.data.tokenization import Encoded
from minilm.models.gpt2 import GPT2Config
from minilm.models.heads import mlp_head
from minilm.training.optimizer import make_optimizer

CONTEXT, BATCH, CLASSES, WIDTH, HEADS, DEPTH, VOCABULARY, DROPOUT = 256, 32, 3, 128, 4, 8, 32000, 0.4


def study_texts(rows: int = 4337) -> tuple[Encoded, np.ndarray]:
    """Random tokens in texts as long as the study's: median 21, mean 25, longest 216 tokens; and random labels."""
    random = np.random.default_rng(0)
    spread = math.sqrt(2 * math.log(25 / 21))  # of a log-normal with that median and mean
    lengths = np.clip(np.round(21 * np.exp(spread * random.standard_normal(rows))), 2, 216).astype(np.int64)
    lengths[np.argmax(lengths)] = 216
    ids = random.integers(3, VOCABULARY, int(lengths.sum())).astype(np.int32)
    return Encoded(ids, np.concatenate([[0], np.cumsum(lengths)]), None, lengths), random.integers(0, CLASSES, rows)


class StudyLayer(nn.Module):
    """The study's layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, dropout=DROPOUT, bias=False, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH), nn.Dropout(DROPOUT)
        )
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, causal: Tensor, padding: Tensor) -> Tensor:
        y = self.norm1(x)
        y, _ = self.attention(y, y, y, attn_mask=causal, key_padding_mask=padding, need_weights=False)
        x = x + self.dropout(y)
        return x + self.mlp(self.norm2(x))


class StudyModel(nn.Module):
    """The study's model: 5,728,003 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.dropout = nn.Dropout(DROPOUT)
        self.layers = nn.ModuleList(StudyLayer() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(WIDTH, CLASSES))

    def forward(self, ids: Tensor, real: Tensor) -> Tensor:
        length = ids.shape[1]
        x = self.dropout(self.token(ids) + self.position(torch.arange(length)))
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        for layer in self.layers:
            x = layer(x, causal, ~real)
        return self.head(self.norm(x)[torch.arange(len(ids)), real.sum(1) - 1])


def our_model() -> nn.Module:
    """The same model, ours."""
    config = GPT2Config(
        vocab_size=VOCABULARY, context=CONTEXT, width=WIDTH, depth=DEPTH, heads=HEADS,
        activation="gelu", attention_bias=False, dropout=DROPOUT, attention_dropout=DROPOUT,
    )  # fmt: skip
    head = mlp_head(WIDTH, dropout=DROPOUT)
    return new_model("gpt2", config, "classify", labels=["a", "b", "c"], head=head).train()


def steps_of_study(texts: Encoded, labels: np.ndarray, batches: Sequence[np.ndarray]) -> Callable[[], None]:
    """Steps as the study takes them."""
    model = StudyModel().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.35)

    def work() -> None:
        for rows in batches:
            ids = torch.zeros(len(rows), CONTEXT, dtype=torch.int64)
            real = torch.zeros(len(rows), CONTEXT, dtype=torch.bool)
            for i, row in enumerate(rows):
                text = torch.from_numpy(texts.row(row).astype(np.int64))
                ids[i, : len(text)], real[i, : len(text)] = text, True
            loss = F.cross_entropy(model(ids, real), torch.from_numpy(labels[rows]))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return work


def our_steps(
    texts: Encoded, labels: np.ndarray, batches: Sequence[np.ndarray], multiple: int = 8
) -> Callable[[], None]:
    """Our steps, on batches of anyone's making."""
    model = our_model()
    settings = TrainSection(epochs=1, lr=1e-5, weight_decay=0.35)
    optimizer = make_optimizer(model, settings)

    def work() -> None:
        for rows in batches:
            batch = collate(texts, rows, labels, 0, multiple=multiple, limit=CONTEXT)
            F.cross_entropy(model(batch), batch.labels).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return work


def run() -> Iterator[Result]:
    """Our steps beside both peers."""
    texts, labels = study_texts()
    bucketed = make_batches(texts.lengths, BATCH, seed=1, epoch=0)
    order = np.random.default_rng(1).permutation(len(texts))
    random = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    some = 24  # batches a go
    ours = our_steps(texts, labels, bucketed[:some])
    yield compare(
        "training step, against the study's (padded to 256)",
        ours,
        steps_of_study(texts, labels, random[:2]),
        samples=(some * BATCH, 2 * BATCH),
        aim=6.0,
        rounds=5,
    )
    yield compare(
        "training step, against random batches padded to the longest",
        ours,
        our_steps(texts, labels, random[:some], multiple=1),
        samples=(some * BATCH, some * BATCH),
        aim=1.15,
        rounds=5,
    )
