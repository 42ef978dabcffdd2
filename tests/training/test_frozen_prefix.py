"""The frozen prefix: kept or computed each time, training is the same."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minilm.checkpoints.models import new_model
from minilm.config import TrainSection
from minilm.data.batching import collate, make_batches
from minilm.data.tokenization import Encoded
from minilm.devices import Runtime
from minilm.evaluation.predictor import predict_scores
from minilm.finetuning.freezing import freeze, shares_layers
from minilm.finetuning.lora import LoRAConfig, add_lora
from minilm.models.architecture import Backbone
from minilm.training.frozen_prefix import FrozenPrefix, cache_activations
from minilm.training.loop import Task, train
from minilm.training.objectives import Objective
from minilm.training.state import Checkpoints
from tests.families import ENCODER_DECODERS, FAMILIES, SMALL, small_config, small_model
from tests.records import measured

CPU = Runtime(torch.device("cpu"))
LENGTHS = np.random.default_rng(0).integers(2, 14, size=24)
LABELS = np.arange(24) % 3
MIB = 2**20


def texts(lengths: np.ndarray = LENGTHS) -> Encoded:
    ids = np.random.default_rng(1).integers(1, 50, size=lengths.sum()).astype(np.int32)
    return Encoded(ids, np.concatenate([[0], np.cumsum(lengths)]), None, lengths)


def classifier(family: str, seed: int = 1) -> Backbone:
    """Three layers (an encoder-decoder: three and three) with dropout, weights large enough for differences to show."""
    torch.manual_seed(seed)
    changes = {"depth": 3, "decoder_depth": 3} if family in ENCODER_DECODERS else {"depth": 3}
    model = new_model(family, small_config(family, **changes), "classify", labels=["a", "b", "c"])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(1 if family in ENCODER_DECODERS else 4)
    return model


def prepared(family: str, part: str, layers: int) -> Backbone:
    model = classifier(family)
    if part == "lora":
        add_lora(model, LoRAConfig(rank=2, layers=(layers,)))
    else:
        freeze(model, part, layers)
    return model


def fifty_epochs(model: Backbone, tmp_path: Path, runtime: Runtime = CPU, **how: Any) -> tuple[list[float], Any]:
    """The losses of 100 steps and the scores of all texts after them; ``how`` goes to ``cache_activations``."""
    encoded, losses = texts(), []

    class Noted(Objective):
        def sum(self, scores: Tensor, labels: Tensor) -> Tensor:
            loss = super().sum(scores, labels)
            losses.append(float(loss.detach()) / len(labels))
            return loss

    how = {"budget": MIB, **how}
    prefix = cache_activations(model, {"train": encoded}, runtime, pad=0, folder=tmp_path / "cache", **how)
    forward = prefix.forward("train", model)
    task = Task(
        batches=lambda epoch: make_batches(LENGTHS, 12, seed=1, epoch=epoch),
        collate=lambda rows, epoch: collate(encoded, rows, LABELS, 0),
        objective=Noted(),
        evaluate=lambda: {"validation": measured(loss=1.0)},
        record=lambda history: None,
        forward=forward,
    )
    torch.manual_seed(7)
    settings = TrainSection(epochs=50, lr=1e-3, best="loss", clip=0.0)
    train(model, task, settings, runtime, Checkpoints(tmp_path / "checkpoints"))
    shutil.rmtree(tmp_path / "checkpoints")
    return losses, (prefix, predict_scores(model, encoded, runtime, pad=0, forward=forward))


SHARED = [family for family in FAMILIES if shares_layers(small_model(family))]
CASES = [
    *((family, "backbone", 0) for family in FAMILIES),
    *((family, "all-but-last", 1) for family in FAMILIES if family not in SHARED),
    ("bert", "first", 2), ("distilbert", "first", 3), ("gpt2", "first", 3), ("llama", "all-but-last", 2),
    ("t5", "first", 2), ("t5", "first", 3), ("distilbert", "lora", 2), ("t5", "lora", 4),
]  # fmt: skip


@pytest.mark.parametrize(("family", "part", "layers"), CASES)
def test_100_losses_and_the_scores_are_the_same_with_and_without_it(
    tmp_path: Path, family: str, part: str, layers: int
) -> None:
    with_it, (prefix, scores) = fifty_epochs(prepared(family, part, layers), tmp_path)
    without, (none, expected) = fifty_epochs(prepared(family, part, layers), tmp_path, budget=0)
    assert prefix.splits and not none.splits
    assert len(with_it) == 100 and with_it[0] != with_it[-2]
    np.testing.assert_allclose(with_it, without, atol=1e-5)
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_in_bfloat16_what_is_kept_is_what_the_layers_give_there(tmp_path: Path) -> None:
    model, half = prepared("bert", "first", 2).eval(), Runtime(torch.device("cpu"), "bfloat16")
    prefix = cache_activations(model, {"train": texts()}, half, pad=0, budget=MIB, folder=tmp_path)
    there = prefix.splits["train"].tensors["x"]
    batch = collate(texts(), np.arange(len(LENGTHS)), None, 0)
    assert batch.mask is not None
    with torch.no_grad(), half.autocast():
        state = model.run(model.embed(batch), batch, 0, 2)
    torch.testing.assert_close(there[:-1], state.x[batch.mask], atol=0.05, rtol=0.05)
    in_full = kept(model, tmp_path).splits["train"].tensors["x"]
    assert there.dtype == state.x.dtype and not torch.equal(there, in_full)


def test_what_does_not_fit_into_memory_lies_in_a_file_with_the_same_losses(tmp_path: Path) -> None:
    in_memory, (prefix, _) = fifty_epochs(prepared("t5", "all-but-last", 1), tmp_path)
    in_files, (on_disk, _) = fifty_epochs(prepared("t5", "all-but-last", 1), tmp_path, budget=100)
    assert (prefix.disk == 0 and not (tmp_path / "cache").exists()) or on_disk.memory == 0
    assert on_disk.disk == prefix.memory == sum(f.stat().st_size for f in (tmp_path / "cache").iterdir())
    assert in_files == in_memory


def test_where_the_disk_has_no_room_all_layers_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(100, 90, 10))
    losses, (prefix, _) = fifty_epochs(prepared("bert", "first", 2), tmp_path, budget=100)
    expected, _ = fifty_epochs(prepared("bert", "first", 2), tmp_path, budget=0)
    assert losses == expected and not prefix.splits and str(prefix) == ""


@pytest.mark.parametrize(("spare", "is_kept"), [(0, True), (-1, False)])
def test_a_file_takes_half_of_what_is_free_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int, is_kept: bool
) -> None:
    model = prepared("bert", "first", 2)
    needed = kept(model, tmp_path).memory
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10 * needed, 0, 2 * needed + spare))
    prefix = kept(model, tmp_path, budget=1)
    assert prefix.disk == (needed if is_kept else 0) and bool(prefix.splits) == is_kept


def test_where_one_split_has_room_only_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": texts(), "validation": texts()}
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(100, 90, 10))
    model, folder = prepared("bert", "first", 2), tmp_path / "cache"
    whole = cache_activations(model, splits, CPU, pad=0, budget=MIB, folder=folder)
    half = cache_activations(model, splits, CPU, pad=0, budget=whole.memory // 2, folder=folder)
    assert str(whole).endswith(" MiB") and str(half).endswith(" MiB (train texts only)")


def test_nothing_is_kept_where_no_layer_is_fixed(tmp_path: Path) -> None:
    for part, layers in (("nothing", 0), ("first", 0), ("lora", 0)):
        assert not kept(prepared("bert", part, layers), tmp_path).splits


def test_of_a_frozen_backbone_one_vector_a_text_is_kept(tmp_path: Path) -> None:
    prefix = kept(prepared("bert", "backbone", 0), tmp_path)
    assert prefix.memory == len(LENGTHS) * SMALL["width"] * 4
    assert str(prefix) == "3 of 3 layers cached: 0 MiB"


def test_it_is_made_of_the_texts_and_weights_of_now_whatever_an_earlier_run_left(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    first = kept(prepared("bert", "first", 2), tmp_path, budget=1)
    stored = {name: tensor.clone() for name, tensor in first.splits["train"].tensors.items()}
    other = classifier("bert", seed=2)
    freeze(other, "first", 2)
    second = kept(other, tmp_path, budget=1)
    assert not torch.equal(second.splits["train"].tensors["x"], stored["x"])
    assert [path.name for path in folder.iterdir()] == ["train-x.bin"]
    kept(other, tmp_path)
    assert not folder.exists()


def kept(model: Backbone, tmp_path: Path, budget: int = MIB) -> FrozenPrefix:
    return cache_activations(model, {"train": texts()}, CPU, pad=0, budget=budget, folder=tmp_path / "cache")
