"""What only a GPU can show; skipped without one. ``pytest -m cuda`` runs these alone.

The families are compared with the CPU in float32; TF32, which rounds the factors of products, is off by default in
torch.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from minilm.checkpoints.models import new_model
from minilm.config import TrainSection
from minilm.data.batching import collate
from minilm.data.tokenization import Encoded
from minilm.devices import Runtime, runtime
from minilm.finetuning.freezing import freeze
from minilm.finetuning.lora import LoRAConfig, add_lora
from minilm.models.architecture import Backbone
from minilm.models.batch import Batch
from minilm.models.llama import LlamaConfig
from minilm.training.frozen_prefix import cache_activations
from minilm.training.loop import Task, train
from minilm.training.objectives import Objective
from minilm.training.state import Checkpoints
from tests import tiny
from tests.families import FAMILIES, draw_batch, small_model
from tests.records import measured

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
GPU = torch.device("cuda")
LENGTHS = [5, 3, 7, 1]
LABELS = torch.tensor([0, 1, 2, 1])


def gradients(model: Backbone, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The scores (B, C), and the gradient of the loss for each parameter, on the CPU."""
    model.zero_grad()
    scores = model(batch)
    assert batch.labels is not None
    torch.nn.functional.cross_entropy(scores.float(), batch.labels).backward()
    found = {name: p.grad.detach().cpu() for name, p in model.named_parameters() if p.grad is not None}
    return scores.detach().float().cpu(), found


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_the_cpu(family: str) -> None:
    model, batch = small_model(family), replace(draw_batch(LENGTHS), labels=LABELS)
    scores, expected = gradients(model, batch)
    on_gpu, found = gradients(model.to(GPU), batch.to(GPU))
    torch.testing.assert_close(on_gpu, scores, rtol=1e-4, atol=1e-4)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        close = 1e-3 * float(gradient.abs().max()) + 1e-5
        assert (found[name] - gradient).abs().max() < close, name


def texts(number: int = 48) -> tuple[Encoded, np.ndarray]:
    """Texts of 3 to 12 tokens whose first token gives their label away."""
    rng = np.random.default_rng(0)
    lengths, labels = rng.integers(3, 13, number), rng.integers(0, 3, number)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(10, 50, offsets[-1])
    ids[offsets[:-1]] = 4 + labels
    return Encoded(ids.astype(np.int32), offsets, None, lengths), labels


def trained(model: Backbone, place: Runtime, folder: Path, *, epochs: int, **prefix: object) -> list[float]:
    """The mean training loss of each epoch."""
    encoded, labels = texts()
    losses: list[float] = []
    task = Task(
        batches=lambda epoch: np.array_split(np.random.default_rng(epoch).permutation(len(labels)), 6),
        collate=lambda rows, epoch: collate(encoded, rows, labels, 0),
        objective=Objective(),
        evaluate=lambda: {"validation": measured(loss=1.0)},
        record=lambda history: losses.__setitem__(slice(None), [entry.train_loss for entry in history]),
        **prefix,  # type: ignore[arg-type]
    )
    settings = TrainSection(epochs=epochs, lr=3e-3, batch_size=8, clip=1.0, schedule="constant", best="loss")
    train(model.to(place.device), task, settings, place, Checkpoints(folder))
    return losses


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("lora", [False, True])
def test_training_in_16_bits_follows_float32(precision: str, lora: bool, tmp_path: Path) -> None:
    def start() -> Backbone:
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=50, width=32, depth=2, heads=4, kv_heads=2, mlp_width=48)
        model = new_model("llama", config, "classify", labels=["a", "b", "c"])
        if lora:
            add_lora(model, LoRAConfig(rank=8))
        return model

    expected = trained(start(), Runtime(GPU), tmp_path / "32", epochs=8)
    found = trained(start(), Runtime(GPU, precision), tmp_path / "16", epochs=8)
    assert found[-1] < found[0]
    assert np.abs(np.subtract(found, expected)).max() < 0.1


def test_grouped_heads_with_a_mask_use_a_fused_kernel() -> None:
    """8 query heads share 2 key-value heads: with and without padding no (T, T) matrix of scores is kept."""
    config = LlamaConfig(vocab_size=50, width=512, depth=1, heads=8, kv_heads=2, mlp_width=64)
    torch.manual_seed(0)
    model = new_model("llama", config, "encode").to(GPU, torch.bfloat16)
    length = 2048
    for lengths in ([length, length], [length, length // 2]):
        ids = torch.randint(50, (2, length), device=GPU)
        mask = torch.arange(length, device=GPU) < torch.tensor(lengths, device=GPU)[:, None]
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.no_grad():
            model(ids, mask)
        assert torch.cuda.max_memory_allocated() - before < 2 * 8 * length * length * 2 / 2  # bytes of half the scores


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_the_frozen_prefix_gives_the_losses_of_the_whole_model(family: str, tmp_path: Path) -> None:
    def start() -> Backbone:
        model = small_model(family)
        freeze(model, "all-but-last", 1)
        return model.to(GPU)

    expected = trained(start(), Runtime(GPU), tmp_path / "whole", epochs=3)
    model, (encoded, _) = start(), texts()
    prefix = cache_activations(
        model, {"train": encoded}, Runtime(GPU), pad=0, budget=2**24, folder=tmp_path / "cache"
    )
    found = trained(model, Runtime(GPU), tmp_path / "kept", epochs=3, forward=prefix.forward("train", model))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_run_is_resumed_on_the_gpu(tmp_path: Path) -> None:
    """After a signal the run goes on from its checkpoint, with the losses of a run that nothing stopped."""
    config = tiny.write_config(tmp_path)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = ("train.device=cuda", "train.precision=float32", "model.config.dropout=0.0")
    tiny.minilm("train", config, *changes, "--runs", whole)
    with tiny.at_step(7, partial(os.kill, os.getpid(), signal.SIGINT)):
        assert tiny.minilm("train", config, *changes, "--runs", parts).exit_code == 130
    assert tiny.minilm("train", config, *changes, "--runs", parts, "--resume").exit_code == 0
    expected, found = (
        [json.loads(line)["train_loss"] for line in (folder / "tiny" / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole, parts)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_frozen_layers_need_no_memory_for_gradients() -> None:
    def peak(change: Callable[[Backbone], object]) -> int:
        config = LlamaConfig(vocab_size=1000, width=256, depth=8, heads=8, kv_heads=2, mlp_width=1024)
        torch.manual_seed(0)
        model = new_model("llama", config, "classify", labels=["a", "b", "c"])
        change(model)
        model.to(GPU).train()
        batch = Batch(torch.randint(1000, (16, 256), device=GPU), labels=torch.zeros(16, dtype=torch.int64, device=GPU))
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.nn.functional.cross_entropy(model(batch), torch.zeros(16, dtype=torch.int64, device=GPU)).backward()
        return torch.cuda.max_memory_allocated()

    assert peak(lambda model: freeze(model, "all-but-last", 1)) < 0.5 * peak(lambda model: None)


def test_the_precision_that_is_chosen_here_is_16_bits() -> None:
    assert runtime("auto", "auto").precision in ("bfloat16", "float16")
