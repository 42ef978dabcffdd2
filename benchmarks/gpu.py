"""The studies' training on a GPU beside ``transformers`` and PEFT: texts per second of wall time, and peak memory.

Random weights in the published shapes, texts as long as the studies' data, both sides in bfloat16 and one after the
other. The peer takes its users' usual random batches, padded to the longest text, and torch's fused AdamW. Ours trains
by ``minilm.training.loop``; its time includes what the frozen prefix takes to compute. Under eight minutes on one GPU.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.timing import Result
from benchmarks.training_step import study_texts
from minilm.checkpoints.models import load_model
from minilm.config import TrainSection
from minilm.data.batching import collate, length_multiple, make_batches
from minilm.data.tokenization import Encoded
from minilm.devices import Runtime
from minilm.evaluation.metrics import Metrics
from minilm.finetuning.freezing import freeze
from minilm.finetuning.lora import LoRAConfig, add_lora
from minilm.models.architecture import Backbone
from minilm.training.frozen_prefix import cache_activations
from minilm.training.loop import Task, train
from minilm.training.objectives import Objective
from minilm.training.state import Checkpoints

CLASSES, ROUNDS = 3, 3
METRICS = Metrics(loss=1.0, accuracy=0.0, macro_precision=0.0, macro_recall=0.0, macro_f1=0.0, mcc=0.0)


@dataclass(frozen=True)
class Work:
    """One study's training."""

    words: str
    config: Callable[[], Any]  # of transformers
    texts: int
    epochs: int  # of ours; an epoch costs the peer what every other does, so one is measured
    batch: int
    aim: float  # how many times as fast as the peer
    last: int = 0  # only the last layers and the head train; 0: all do
    rank: int = 0  # of LoRA on query and value; 0: none


def works() -> list[Work]:
    """The studies: Bielik's last three layers, the small GPT-2, DistilBERT by LoRA, and all of BERT."""
    import transformers as hf

    def bielik() -> Any:
        return hf.LlamaConfig(
            vocab_size=32000, hidden_size=1536, num_hidden_layers=32, num_attention_heads=12, num_key_value_heads=2,
            intermediate_size=8960, attention_bias=True, mlp_bias=True, pad_token_id=0,
        )  # fmt: skip

    def small() -> Any:
        return hf.GPT2Config(vocab_size=32000, n_positions=256, n_embd=128, n_layer=8, n_head=4, pad_token_id=0)

    return [
        Work("Bielik-1.5B's shape, last 3 layers", bielik, 4337, 3, 32, 2.0, last=3),
        Work("GPT-2 of 5.7M parameters", small, 4337, 1, 32, 1.15),
        Work("DistilBERT, LoRA r=8", hf.DistilBertConfig, 2400, 1, 16, 1.0, rank=8),
        Work("BERT-base, full", hf.BertConfig, 2400, 1, 16, 1.0),
    ]


def run() -> Iterator[Result]:
    """Every study's training, speed and memory."""
    if not torch.cuda.is_available():
        raise SystemExit("gpu: needs a CUDA GPU")
    for work in works():
        yield from measure(work, Runtime(torch.device("cuda"), "bfloat16"))


def measure(work: Work, place: Runtime) -> Iterator[Result]:
    """Both sides in turn, a first round not counted."""
    import transformers as hf

    texts, labels = study_texts(work.texts)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = work.config()
        config.num_labels = CLASSES
        model = hf.AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder / "model")
        del model
        sides = {"ours": ours, "peer": peer}
        rounds = [
            {side: timed(partial(go, work, place, folder, texts, labels), place) for side, go in sides.items()}
            for _ in range(ROUNDS + 1)
        ]
    rates = [(found["ours"][0], found["peer"][0]) for found in rounds[1:]]
    yield Result(
        work.words,
        ours=statistics.median(a for a, _ in rates),
        peer=statistics.median(b for _, b in rates),
        ratio=statistics.median(a / b for a, b in rates),
        aim=work.aim,
        unit="texts/s",
    )
    ours_peak, peer_peak = (max(found[side][1] for found in rounds) for side in sides)
    yield Result(
        f"{work.words}, peak memory: the peer's is", ours_peak, peer_peak, peer_peak / max(ours_peak, 1), 1.0, "MiB"
    )


def timed(go: Callable[[], tuple[int, float]], place: Runtime) -> tuple[float, float]:
    """Texts per second, and the peak of the GPU's memory in MiB."""
    gc.collect()
    if place.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    samples, seconds = go()
    return samples / seconds, torch.cuda.max_memory_allocated() / 2**20 if place.device.type == "cuda" else 0.0


def wait(place: Runtime) -> float:
    """The time when the device has done all its work."""
    if place.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def ours(work: Work, place: Runtime, folder: Path, texts: Encoded, labels: np.ndarray) -> tuple[int, float]:
    """The number of texts that were trained on, and the seconds."""
    torch.manual_seed(1)
    model: Backbone = load_model(folder / "model", "classify", dtype=None if work.last else torch.float32)
    if work.last:
        freeze(model, "all-but-last", work.last)
        for parameter in model.parameters():  # what trains, trains in float32
            parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    if work.rank:
        add_lora(model, LoRAConfig(rank=work.rank, dropout=0.1))
    model.to(place.device)
    settings = TrainSection(epochs=work.epochs, lr=5e-5, batch_size=work.batch, best="loss", schedule="linear")
    multiple = length_multiple(texts.lengths, place.most_lengths)
    started = wait(place)
    prefix = cache_activations(model, {"train": texts}, place, pad=0, budget=2**34, folder=folder / "cache")
    task = Task(
        batches=lambda epoch: make_batches(texts.lengths, work.batch, seed=1, epoch=epoch, multiple=multiple),
        collate=lambda rows, epoch: collate(texts, rows, labels, 0, multiple=multiple, limit=model.context),
        objective=Objective(),
        evaluate=lambda: {"validation": METRICS},
        record=lambda history: None,
        forward=prefix.forward("train", model),
    )
    with tempfile.TemporaryDirectory() as checkpoints:
        train(model, task, settings, place, Checkpoints(Path(checkpoints) / "state"))
    return work.epochs * work.texts, wait(place) - started


def peer(work: Work, place: Runtime, folder: Path, texts: Encoded, labels: np.ndarray) -> tuple[int, float]:
    """The same of the peer, one epoch."""
    import peft
    import transformers as hf

    torch.manual_seed(1)
    dtype = torch.bfloat16 if work.last else torch.float32
    model: Any = hf.AutoModelForSequenceClassification.from_pretrained(folder / "model", dtype=dtype)
    if work.last:
        model.requires_grad_(False)
        for part in (*model.base_model.layers[-work.last :], model.base_model.norm, model.score):
            part.requires_grad_(True).float()
    if work.rank:
        targets = ["q_lin", "v_lin"]
        model = peft.get_peft_model(
            model, peft.LoraConfig(task_type="SEQ_CLS", r=work.rank, lora_dropout=0.1, target_modules=targets)
        )
    model.to(place.device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-5, weight_decay=0.01, fused=True)
    order = np.random.default_rng(1).permutation(len(labels))
    started = wait(place)
    for start in range(0, len(order), work.batch):
        batch = collate(texts, order[start : start + work.batch], labels, 0, multiple=1).to(place.device)
        assert batch.labels is not None
        with place.autocast():
            scores = model(input_ids=batch.ids, attention_mask=None if batch.mask is None else batch.mask.long()).logits
        F.cross_entropy(scores.float(), batch.labels).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return len(labels), wait(place) - started
