"""Classifiers, step by step beside ``transformers`` and PEFT with torch's AdamW: the same weights, batches and losses.

Ours trains as a run does: in the training loop, from what the frozen layers gave once.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from torch import Tensor, nn

from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.adapter_tensors import places_for
from minilm.checkpoints.contents import read_contents
from minilm.checkpoints.models import load_model
from minilm.checkpoints.names import places_of_ours
from minilm.config import TrainSection
from minilm.data.batching import collate
from minilm.data.tokenization import Encoded
from minilm.devices import Runtime
from minilm.finetuning.freezing import freeze
from minilm.finetuning.lora import LoRAConfig, adapter_parameters, add_lora
from minilm.models.architecture import Backbone
from minilm.textfiles import read_json
from minilm.training.frozen_prefix import cache_activations
from minilm.training.gradient_checkpointing import use_gradient_checkpointing
from minilm.training.loop import Task, train
from minilm.training.objectives import Objective
from minilm.training.state import Checkpoints
from tests.families import ENCODER_DECODERS, FAMILIES
from tests.records import measured

REFERENCE = Path(__file__).parents[1] / "reference"
CPU = Runtime(torch.device("cpu"))
STEPS, WARMUP, ROWS = 50, 5, 40
SETTINGS = TrainSection(
    epochs=5, lr=3e-3, batch_size=4, weight_decay=0.1, clip=0.5, schedule="linear", warmup=WARMUP, best="loss"
)
PUBLISHED = {family: read_json(REFERENCE / f"{family}-classify" / "config.json") for family in FAMILIES}
PAD = {family: published.get("pad_token_id") or 0 for family, published in PUBLISHED.items()}
PARTS = {
    "full": ("nothing", 0), "head": ("backbone", 0), "last": ("all-but-last", 1), "first": ("first", 1),
    "embeddings": ("first", 0),
}  # fmt: skip
LORA = ("lora", "lora-last")
CASES = [
    *((family, method) for family in FAMILIES for method in ("full", "head", "lora")),
    # ALBERT's one layer runs at every place: it cannot be half frozen.
    *((family, "embeddings" if family == "albert" else "last") for family in FAMILIES),
    *((family, method) for family in ("bert", "gpt2", "t5") for method in ("first", "lora-last")),
]


@functools.cache
def texts(family: str) -> Encoded:
    """40 texts of 2 to 14 tokens, whose first tells their class; an encoder-decoder's end with its own token."""
    random = np.random.default_rng(0)
    lengths = random.integers(2, 15, ROWS)
    ids = random.integers(4, 60, lengths.sum()).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if family in ENCODER_DECODERS:
        ids[offsets[1:] - 1] = PUBLISHED[family]["eos_token_id"]
    has_segments = PUBLISHED[family].get("type_vocab_size", 1) > 1
    segments = (np.arange(len(ids)) % 3 == 0).astype(np.uint8) if has_segments else None
    return Encoded(ids, offsets, segments, lengths)


def labels(family: str, several: bool) -> np.ndarray:
    """As many classes or labels as the family's reference classifier has."""
    encoded, classes = texts(family), len(read_contents(REFERENCE / f"{family}-classify").labels)
    first = encoded.ids[encoded.offsets[:-1]]
    bits = np.stack([first % 2, first % 3 == 0, first > 30], axis=1)[:, :classes]
    return (bits if several else first % classes).astype(np.int64)


def batches(epoch: int) -> list[np.ndarray]:
    return np.split(np.random.default_rng(epoch).permutation(ROWS), ROWS // SETTINGS.batch_size)


# --- Ours ----------------------------------------------------------------------------------------------------------


def our_model(family: str, method: str) -> Backbone:
    """The classifier without dropout, its trained part chosen; an adapter's B is no longer zero."""
    model = load_model(REFERENCE / f"{family}-classify", "classify", dtype=torch.float32)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    if method in LORA:
        torch.manual_seed(1)
        last = () if method == "lora" else (3 if family == "t5" else 1,)
        add_lora(model, LoRAConfig(rank=3, alpha=5.0, layers=last))
        for parameter in adapter_parameters(model).values():
            nn.init.normal_(parameter, std=0.1)
    else:
        freeze(model, *PARTS[method])
    return model


def our_losses(family: str, model: Backbone, several: bool, settings: TrainSection, folder: Path) -> list[float]:
    """Of the training loop itself, from the kept states of the frozen layers."""
    encoded, targets, sums, amounts = texts(family), labels(family, several), [], []

    class Noted(Objective):
        def sum(self, scores: Tensor, labels: Tensor) -> Tensor:
            loss = super().sum(scores, labels)
            sums.append(float(loss.detach()))
            amounts.append(labels.numel())
            return loss

    prefix = cache_activations(
        model, {"train": encoded}, CPU, pad=PAD[family], budget=2**20, folder=folder / "cache"
    )
    task = Task(
        batches,
        lambda rows, epoch: collate(encoded, rows, targets, PAD[family]),
        Noted(multi_label=several),
        evaluate=lambda: {"validation": measured(loss=1.0)},
        record=lambda history: None,
        forward=prefix.forward("train", model),
    )
    train(model, task, settings, CPU, Checkpoints(folder / "checkpoints"))
    size = settings.accumulate
    return list(np.reshape(sums, (-1, size)).sum(1) / np.reshape(amounts, (-1, size)).sum(1))


# --- Theirs --------------------------------------------------------------------------------------------------------


def their_model(family: str, method: str, several: bool, ours: Backbone, folder: Path) -> Any:
    """The published class in evaluation mode, which is without dropout, frozen by its own modules' names."""
    kind = "multi_label_classification" if several else "single_label_classification"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        REFERENCE / f"{family}-classify", problem_type=kind, dtype=torch.float32
    )
    if method in LORA:
        model = peft.PeftModel.from_pretrained(model, save_adapter(ours, folder / "adapter"), is_trainable=True)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                # Two parts of GPT-2's one matrix are adapted by a B of two blocks. Its zeros are to stay.
                parameter.register_hook(functools.partial(torch.mul, parameter.detach() != 0))
    elif method != "full":
        freeze_theirs(model, ours)
    return model.eval()


def freeze_theirs(model: Any, ours: Backbone) -> None:
    """What trains in ours trains in theirs, by the published names."""
    trained = {name for name, p in ours.named_parameters() if p.requires_grad}
    places = places_for(ours, prefixed=True)
    theirs = {place.theirs for name in trained for place in places_of_ours(name, places)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in theirs)


def their_losses(family: str, model: Any, several: bool, settings: TrainSection) -> list[float]:
    """A loop as its users write it; decay is for matrices that are no embeddings."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1 and id(p) not in tables]
    plain = [p for p in trained if not (p.ndim > 1 and id(p) not in tables)]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.lr)
    schedules = {
        "linear": transformers.get_linear_schedule_with_warmup,
        "cosine": transformers.get_cosine_schedule_with_warmup,
    }
    schedule = schedules[settings.schedule](optimizer, WARMUP, STEPS // settings.accumulate)
    targets = torch.from_numpy(labels(family, several))
    losses = []
    for epoch in range(settings.epochs):
        for rows in np.array(batches(epoch)).reshape(-1, settings.accumulate * settings.batch_size):
            wanted = targets[rows]
            loss = model(**their_batch(family, rows), labels=wanted.float() if several else wanted).loss
            loss.backward()
            nn.utils.clip_grad_norm_(trained, settings.clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
    return losses


@functools.cache
def their_texts(family: str) -> tuple[list[Tensor], list[Tensor] | None]:
    """Ids and segments of each text."""
    encoded = texts(family)
    ids, parts = torch.from_numpy(encoded.ids).long(), encoded.segments
    lengths = encoded.lengths.tolist()
    return list(ids.split(lengths)), None if parts is None else list(torch.from_numpy(parts).long().split(lengths))


def their_batch(family: str, rows: np.ndarray) -> dict[str, Tensor]:
    ids, segments = their_texts(family)
    batch = {
        "input_ids": padded(ids, rows, PAD[family]),
        "attention_mask": padded([torch.ones_like(text) for text in ids], rows),
    }
    return batch if segments is None else batch | {"token_type_ids": padded(segments, rows)}


def padded(texts: list[Tensor], rows: np.ndarray, value: int = 0) -> Tensor:
    return nn.utils.rnn.pad_sequence([texts[row] for row in rows], batch_first=True, padding_value=value)


# --- Side by side --------------------------------------------------------------------------------------------------


def check(
    tmp_path: Path, family: str, method: str, several: bool = False, settings: TrainSection = SETTINGS
) -> list[float]:
    model = our_model(family, method)
    peer = their_model(family, method, several, model, tmp_path)
    if settings.gradient_checkpointing:
        use_gradient_checkpointing(model)
    theirs = their_losses(family, peer, several, settings)
    ours = our_losses(family, model, several, settings, tmp_path)
    assert len(ours) == len(theirs) == STEPS // settings.accumulate
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    return ours


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments:UserWarning")  # what PEFT has no key for
@pytest.mark.parametrize(("family", "method"), CASES)
def test_50_losses_are_those_of_transformers_and_peft(tmp_path: Path, family: str, method: str) -> None:
    losses = check(tmp_path, family, method)
    assert np.mean(losses[-10:]) < 0.98 * np.mean(losses[:10])  # and there was something to learn


@pytest.mark.parametrize("family", FAMILIES)
def test_so_are_those_of_several_labels(tmp_path: Path, family: str) -> None:
    losses = check(tmp_path, family, "full", several=True)
    assert np.mean(losses[-10:]) < 0.98 * np.mean(losses[:10])


def test_so_are_those_of_accumulated_gradients_a_cosine_and_recomputed_layers(tmp_path: Path) -> None:
    check(tmp_path, "bert", "last", settings=dataclasses.replace(SETTINGS, schedule="cosine", accumulate=2))
    (tmp_path / "again").mkdir()
    check(tmp_path / "again", "gpt2", "full", settings=dataclasses.replace(SETTINGS, gradient_checkpointing=True))
