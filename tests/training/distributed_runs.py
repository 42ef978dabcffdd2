"""Runs that torchrun starts in several processes, and the same runs in one process, for ``test_distributed``.

    torchrun --nproc-per-node 2 -m tests.training.distributed_runs FOLDER CASE ...

Each process first does some of the runs by itself, in FOLDER/alone, unless they are there. Then all do all runs
together, in FOLDER/by-2.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from minilm.runs.train import train_run
from minilm.training.console import Interrupted
from minilm.world import World, from_first, gather, joined, largest, started
from tests.tiny import at_step, texts, write_data

REFERENCE = Path(__file__).parents[1] / "reference"
TRAIN = {"epochs": 2, "batch_size": 5, "lr": 3e-3, "eps": 1e-6, "clip": 0.5, "threads": 1}
TRAIN |= {"precision": "float32", "linear_baseline": False}
LORA = {"lora.rank": 3, "lora.targets": ["all-linear"]}
ADAPT = {
    "adapt.block": 16,
    **{f"adapt.train.{key}": value for key, value in {**TRAIN, "batch_size": 4, "accumulate": 3, "eps": 1e-4}.items()},
}
del ADAPT["adapt.train.linear_baseline"]
LAST = {"freeze.part": "all-but-last", "freeze.layers": 1}


@dataclass(frozen=True)
class Case:
    """A run: the model, and its settings besides those of ``TRAIN``."""

    model: str
    changes: dict[str, object]
    several_labels: bool = False


PLAIN = {
    "gpt2-full": Case("gpt2", {"train.evaluate_every": 4, "train.patience": 2, "train.class_weights": "balanced"}),
    "gpt2-accumulate": Case("gpt2", {"train.accumulate": 3, "train.label_smoothing": 0.1, "train.batch_size": 4}),
    "gpt2-last": Case("gpt2", LAST),
    "bert-full": Case("bert", {"train.gradient_checkpointing": True, "train.embeddings_baseline": True}),
    "bert-lora": Case("bert", LORA),
    "bert-head": Case("bert", {"freeze.part": "backbone", "train.accumulate": 2}),
    "bert-labels": Case("bert", {"train.accumulate": 2, "train.decision_threshold": "validation"}, several_labels=True),
    "t5-full": Case("t5", {"train.accumulate": 2}),
    "t5-last": Case("t5", LAST),
    "t5-lora": Case("t5", {"lora.rank": 3}),
    "llama-full": Case("llama", {"train.batch_size": 3}),
    "llama-lora": Case("llama", {**LORA, "lora.dora": True}, several_labels=True),
    "llama-last": Case("llama", {**LAST, "train.cache_mib": 0}),
    "albert-full": Case("albert", {}),
    "bert-adapt": Case("bert-lm", {**LAST, **ADAPT}),
}
# The frozen weights are in bfloat16, as in a large model. (Its sums are not those of one process within 1e-5.)
HALF = "llama16-lora-sharded"


def sharded_stages(case: Case) -> dict[str, object]:
    """Each stage of training with sharded parameters."""
    return {"train.shard": True, **({"adapt.train.shard": True} if "adapt.block" in case.changes else {})}


SHARDED = {
    f"{name}-sharded": Case(case.model, {**case.changes, **sharded_stages(case)}, case.several_labels)
    for name, case in PLAIN.items()
    if name not in ("gpt2-accumulate", "t5-lora", "llama-full")
}
CASES = {**PLAIN, **SHARDED, HALF: Case("llama16", {**LORA, "train.precision": "bfloat16", "train.shard": True})}
DROPOUT = "bert-dropout"  # stopped and resumed by as many processes, with dropout
RESUMED = "gpt2-accumulate"  # this one is begun in one process


def write_config(name: str, case: Case, folder: Path) -> None:
    """The config of a case, beside its inputs."""
    settings: dict[str, object] = {
        "model.source": str(folder / case.model),
        "model.head.dropout": 0.0,
        "data.source": str(folder / ("several.tsv" if case.several_labels else "one.tsv")),
        "data.max_tokens": 20,
        **({"data.label_separator": "|"} if case.several_labels else {}),
        **{f"train.{key}": value for key, value in TRAIN.items()},
        **case.changes,
    }
    path = folder / f"{name}.toml"
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in {"name": name, **settings}.items()))


def write_inputs(folder: Path) -> None:
    """The data, and models without dropout."""
    folder.mkdir(parents=True)
    rows = texts(70)
    write_data(folder / "one.tsv", rows)
    also = [(text, label if i % 3 else f"{label}|odd") for i, (text, label) in enumerate(rows)]
    write_data(folder / "several.tsv", also)
    for model in ("gpt2", "bert", "t5", "llama", "albert", "llama16", "bert-lm"):
        source = REFERENCE / (model if model == "bert-lm" else f"{model.removesuffix('16')}-classify")
        place = shutil.copytree(source, folder / model, ignore=shutil.ignore_patterns("expected*"))
        config = json.loads((place / "config.json").read_text())
        dropout = {key: 0.0 for key, value in config.items() if isinstance(value, float) and "drop" in key}
        (place / "config.json").write_text(json.dumps(config | dropout))
    weights = folder / "llama16" / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    tokenizer = Tokenizer.from_file(str(folder / "bert-lm" / "tokenizer.json"))
    tokenizer.add_special_tokens(["[MASK]"])
    tokenizer.save(str(folder / "bert-lm" / "tokenizer.json"))
    for name, case in CASES.items():
        write_config(name, case, folder)
    write_config(DROPOUT, Case("bert", {**LORA, "lora.dropout": 0.3, "model.head.dropout": 0.2}), folder)


def alone(name: str, folder: Path, runs: str, **options: bool) -> None:
    """A run in this process alone."""
    with mock.patch.dict(os.environ):
        os.environ.pop("RANK", None)
        train_run(folder / "inputs" / f"{name}.toml", runs=folder / runs, pictures=False, **options)


def interrupt() -> None:
    """A signal to this process, which stops a run after the step."""
    os.kill(os.getpid(), signal.SIGTERM)


def stop_and_resume(folder: Path, place: World) -> None:
    """A run with dropout, and the same run, which a signal to the last process stops in the middle."""
    config = folder / "inputs" / f"{DROPOUT}.toml"
    train_run(config, runs=folder / f"straight-{place.size}", pictures=False)
    last = place.rank == place.size - 1
    with at_step(6, interrupt if last else lambda: None), pytest.raises(Interrupted):
        train_run(config, runs=folder / f"stopped-{place.size}", pictures=False)
    train_run(config, runs=folder / f"stopped-{place.size}", pictures=False, resume=True)


def main(folder: Path, names: list[str]) -> None:
    place = started()
    runs, with_dropout = f"by-{place.size}", DROPOUT in names
    names = [name for name in names if name != DROPOUT]
    for name in names[place.rank :: place.size]:
        if not (folder / "alone" / name).exists():
            alone(name, folder, "alone")
    if place.rank == 0 and RESUMED in names:  # begun in one process, resumed in several
        with at_step(6, interrupt), pytest.raises(Interrupted):
            alone(RESUMED, folder, runs)
    with joined():
        for name in names:
            config = folder / "inputs" / f"{name}.toml"
            train_run(config, runs=folder / runs, pictures=False, resume=name == RESUMED)
        if with_dropout:
            stop_and_resume(folder, place)
    with joined():  # once more
        assert gather(place.rank) == list(range(place.size)) and largest(place.rank) == place.size - 1
        assert from_first(lambda: place.rank) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
