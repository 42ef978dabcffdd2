"""Language modelling, step by step beside ``transformers`` with torch's AdamW: the same weights, batches and losses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from minilm.checkpoints.models import load_model
from minilm.config import TrainSection
from minilm.data.masking import Corruption, MaskedWords, NextTokens, Spans, corrupted_batch, pack
from minilm.data.tokenization import Encoded
from minilm.devices import Runtime
from minilm.models.batch import Batch
from minilm.reporting.results import Evaluation
from minilm.training.loop import Task, train
from minilm.training.objectives import LanguageObjective
from minilm.training.state import Checkpoints
from tests.records import measured

REFERENCE = Path(__file__).parents[1] / "reference"
STEPS, WARMUP, BATCH = 50, 5, 4
SETTINGS = TrainSection(
    epochs=5, lr=3e-3, batch_size=BATCH, weight_decay=0.01, decay_all=True, schedule="linear", warmup=WARMUP,
    evaluate_every=1, best="loss",
)  # fmt: skip
MASKED = MaskedWords(0.15, 61, np.arange(64) < 4, np.arange(4, 61))
SPANS = Spans(0.15, 3.0, np.array([60, 61, 62]), 1)
FAMILIES: list[tuple[str, Corruption, Any]] = [
    ("bert-lm", MASKED, transformers.AutoModelForMaskedLM),
    ("roberta-lm", MASKED, transformers.AutoModelForMaskedLM),
    ("distilbert-lm", MASKED, transformers.AutoModelForMaskedLM),
    ("albert-lm", MASKED, transformers.AutoModelForMaskedLM),
    ("deberta-lm", MASKED, transformers.AutoModelForMaskedLM),
    ("deberta-v2-lm-conv", MASKED, transformers.AutoModelForMaskedLM),
    ("electra-lm", MASKED, transformers.AutoModelForMaskedLM),
    ("mpnet-lm", MASKED, transformers.AutoModelForMaskedLM),
    ("modernbert-lm", MASKED, transformers.AutoModelForMaskedLM),
    ("bart-lm", replace(SPANS, end=2), transformers.AutoModelForSeq2SeqLM),
    ("umt5-lm", SPANS, transformers.AutoModelForSeq2SeqLM),
    ("t5-lm", SPANS, transformers.AutoModelForSeq2SeqLM),
    ("t5-lm-flan", SPANS, transformers.AutoModelForSeq2SeqLM),
    ("gpt2-lm-old", NextTokens(), transformers.AutoModelForCausalLM),
    ("llama-lm-biases", NextTokens(), transformers.AutoModelForCausalLM),
    ("qwen3-lm", NextTokens(), transformers.AutoModelForCausalLM),
    ("smollm3-lm", NextTokens(), transformers.AutoModelForCausalLM),
    ("phi3-lm", NextTokens(), transformers.AutoModelForCausalLM),
    ("gemma2-lm", NextTokens(), transformers.AutoModelForCausalLM),
    ("gemma3_text-lm", NextTokens(), transformers.AutoModelForCausalLM),
]


def blocks() -> Encoded:
    """40 blocks of a text in which some tokens follow others, so that there is something to learn."""
    random = np.random.default_rng(0)
    ids = np.cumsum(random.integers(1, 4, 40 * 16)) % 56 + 4
    return pack(Encoded(ids.astype(np.int32), np.array([0, len(ids)]), None, np.array([len(ids)])), 16)


def batches(epoch: int) -> list[np.ndarray]:
    return np.split(np.random.default_rng(epoch).permutation(40), 10)


def collate(corruption: Corruption, rows: np.ndarray, epoch: int) -> Batch:
    return corrupted_batch(corruption, blocks(), rows, seed=3, epoch=epoch, pad=0)


def our_losses(folder: Path, corruption: Corruption, checkpoints: Path) -> list[float]:
    """Of the training loop itself, a step an evaluation."""
    model = load_model(folder, "lm", dtype=torch.float32)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    histories: list[list[Evaluation]] = []
    task = Task(
        batches, lambda rows, epoch: collate(corruption, rows, epoch), LanguageObjective(),
        evaluate=lambda: {"validation": measured(loss=1.0)}, record=histories.append,
    )  # fmt: skip
    train(model, task, SETTINGS, Runtime(torch.device("cpu")), Checkpoints(checkpoints))
    return [entry.train_loss for entry in histories[-1]]


def peers_losses(folder: Path, corruption: Corruption, kind: Any) -> list[float]:
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()  # no dropout
    optimizer = torch.optim.AdamW(model.parameters(), lr=SETTINGS.lr, weight_decay=SETTINGS.weight_decay)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    losses = []
    for epoch in range(SETTINGS.epochs):
        for rows in batches(epoch):
            batch = collate(corruption, rows, epoch)
            labels = batch.ids if isinstance(corruption, NextTokens) else batch.labels  # it moves them itself
            loss = model(input_ids=batch.ids, labels=labels).loss
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(("name", "corruption", "kind"), FAMILIES, ids=[name for name, *_ in FAMILIES])
def test_50_losses_are_those_of_transformers(tmp_path: Path, name: str, corruption: Corruption, kind: Any) -> None:
    ours, peers = our_losses(REFERENCE / name, corruption, tmp_path), peers_losses(REFERENCE / name, corruption, kind)
    assert len(ours) == len(peers) == STEPS
    np.testing.assert_allclose(ours, peers, rtol=0, atol=1e-4)
    assert np.mean(ours[-5:]) < 0.95 * np.mean(ours[:5])  # and there was something to learn
