"""The training stage of a run: cache the outputs of frozen layers, train the model, score all texts, save the model."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from minilm.atomic import atomic
from minilm.callers import changes
from minilm.checkpoints import files
from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.models import card_of, save_model
from minilm.checkpoints.sentence_models import read_sentence_model
from minilm.checkpoints.trained_part import Base, is_partly_frozen
from minilm.config import SPLITS, KeepModel, RunConfig, TrainSection
from minilm.data.tokenization import Cut, Encoded, count_cut, pad_id
from minilm.devices import Runtime
from minilm.evaluation.decisions import Decision, fit_decision
from minilm.evaluation.embeddings import prompt_tokens, text_vectors
from minilm.evaluation.predictor import predict_scores
from minilm.evaluation.reading import remember
from minilm.evaluation.validation_scores import ValidationScores, write_validation
from minilm.finetuning.freezing import frozen_layers
from minilm.hub import is_folder, published_name, resolve_model
from minilm.model_files import holds_adapter
from minilm.models.architecture import Backbone
from minilm.reporting.summary import parameter_counts, summarize
from minilm.runs.assembly import PreparedData, encoded_as
from minilm.runs.folders import Recorder, write_history
from minilm.runs.results import Embedded
from minilm.runs.shared_cache import hash_of_tokens, memoize
from minilm.runs.task import make_task
from minilm.training.console import say
from minilm.training.frozen_prefix import FrozenPrefix, cache_activations
from minilm.training.gradient_checkpointing import use_gradient_checkpointing
from minilm.training.loop import train
from minilm.training.sharding import is_sharding, shard
from minilm.training.state import Checkpoints, Progress
from minilm.world import world


@dataclass(frozen=True)
class TrainRun:
    """The training stage of a run: the model, its data, and its runtime."""

    folder: Path
    config: RunConfig
    settings: TrainSection
    prepared: PreparedData
    model: Backbone  # on its device, and frozen as it will train
    runtime: Runtime
    keep_model: KeepModel = "all"
    pictures: bool = True
    record: Recorder = write_history

    @property
    def pad(self) -> int:
        """The padding id."""
        return pad_id(self.prepared.tokenizer)


@dataclass(frozen=True)
class Trained:
    """The result of training."""

    progress: Progress
    scores: dict[str, np.ndarray]  # (N, C) of every split that has texts
    decision: Decision  # how scores become probabilities and labels
    cached: str  # a text about the layers whose outputs were cached
    embedded: Embedded | None  # for a baseline: text vectors of the model before training


def fit(run: TrainRun) -> Trained:
    """Train to the end, from the start or the last checkpoint, then score all texts.

    Several processes share the work, and return the same; the first then saves the model (``save_trained``).
    """
    folder, prepared, model, limit = run.folder, run.prepared, run.model, run.config.data.max_tokens
    with atomic(folder / "summary.txt") as file, run.runtime.autocast():
        file.write((summarize(model) + "\n").encode())
    total, trained = parameter_counts(model)
    sizes = " / ".join(map(prepared.size, SPLITS))
    training = f"{trained:,} of {total:,} parameters train on {run.runtime}{_processes(run)}"
    say(f"{folder}: {prepared.data.name}, {sizes} texts; {training}")
    cut = sum((count_cut(encoded, limit) for encoded in prepared.encoded.values()), Cut())
    if message := cut.message("texts", limit, model.context):
        say(f"{folder}: {message}")
    if run.config.train is not None and run.settings.epochs != run.config.train.epochs:
        say(f"{folder}: {_more_epochs(run.settings, run.config.train.epochs)}")
    if is_sharding(run.settings.shard):
        shard(model, run.runtime)
    embedded = _embed(run) if run.settings.embeddings_baseline else None
    if run.settings.gradient_checkpointing:
        use_gradient_checkpointing(model)
    try:
        progress, scores, cached = _train_and_score(run)
    finally:
        _remove_cache(run)
    decision = fit_decision(run.settings, prepared.data.validation.labels, scores["validation"])
    return Trained(progress, scores, decision, cached, embedded)


def _more_epochs(settings: TrainSection, given: int) -> str:
    """Why training has more epochs than the config gives, and how to have those."""
    epochs = f"{settings.epochs} epochs instead of {given}"
    why = f"as few texts make few steps (train.min_steps = {settings.min_steps})"
    return f"{epochs}, {why}; for {given}: {changes({'train.min_steps': '0'})}"


def save_trained(run: TrainRun, trained: Trained) -> None:
    """Save the model with its decision in ``model/``."""
    remember(trained.decision, run.model)
    _save(run, trained.scores["validation"])


def _processes(run: TrainRun) -> str:
    """A text about the processes that train the model."""
    if world().size == 1:
        return "; train.shard has no effect in one process" if run.settings.shard else ""
    return f", in {world().size} processes" + (", each with a part of the parameters" if run.settings.shard else "")


def _cache_folder(run: TrainRun) -> Path:
    """For the outputs of frozen layers: one on each machine, also if several machines share the run's folder."""
    first_here = world().rank - world().local_rank
    return run.folder / (f"cache-{first_here}" if first_here else "cache")


def _remove_cache(run: TrainRun) -> None:
    if world().local_rank == 0:
        shutil.rmtree(_cache_folder(run), ignore_errors=True)
        with suppress(OSError):  # remove the run's folder on machines where nothing else is in it
            run.folder.rmdir()


def _embed(run: TrainRun) -> Embedded:
    """The vectors of every text, computed by the model before training."""
    vectors, seconds = {}, {}
    how = read_sentence_model(card_of(run.model).folder)
    if how.folder is not None:
        say(f"{run.folder}: the embeddings baseline: {how}")
    skipped = prompt_tokens(run.prepared.tokenizer, how)

    def of(encoded: Encoded) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        found = text_vectors(run.model, encoded, run.runtime, pad=run.pad, how=how, skipped=skipped)
        return found, time.perf_counter() - started

    for split, encoded in encoded_as(run.config, run.prepared, how).items():
        key = partial(_seen_by, run, encoded)
        vectors[split], seconds[split] = memoize("embeddings", key, partial(of, encoded))
    return Embedded(vectors, seconds["train"])


def _seen_by(run: TrainRun, *texts: Encoded) -> tuple[str, ...]:
    """A cache key for the outputs of the frozen part of an untrained model for some texts."""
    config = run.config
    parts = (config.model, config.freeze, config.lora, card_of(run.model).folder)
    machine = (str(run.runtime), torch.get_num_threads())
    return *map(repr, parts + machine), *map(hash_of_tokens, texts)


def _activations(run: TrainRun) -> FrozenPrefix:
    """The outputs of the frozen layers for the training and validation texts."""
    folder, budget, cache = run.folder, run.settings.cache_mib * 2**20, _cache_folder(run)
    seen = {split: run.prepared.encoded[split] for split in ("train", "validation")}

    def compute() -> FrozenPrefix:
        return cache_activations(run.model, seen, run.runtime, pad=run.pad, budget=budget, folder=cache)

    if not budget or frozen_layers(run.model) <= 0:
        return compute()
    say(f"{folder}: the outputs of frozen layers are computed once, for {len(seen['train']):,} training texts")
    key = partial(_seen_by, run, *seen.values())
    prefix = memoize("activations", lambda: (budget, *key()), compute, keep=lambda prefix: not prefix.disk)
    if str(prefix):
        say(f"{folder}: {prefix}")
    return prefix


def _train_and_score(run: TrainRun) -> tuple[Progress, dict[str, np.ndarray], str]:
    """Train; return the progress, the scores (N, C) of every split, and a text about cached layers."""
    folder, prepared, model = run.folder, run.prepared, run.model
    prefix = _activations(run)
    torch.manual_seed(run.config.seed)
    task = make_task(run.config, run.settings, prepared, model, run.runtime, partial(run.record, folder), prefix)
    progress = train(model, task, run.settings, run.runtime, Checkpoints(folder / "checkpoints"))
    task.record(progress.history)
    scores = {
        split: predict_scores(model, encoded, run.runtime, pad=run.pad, forward=prefix.forward(split, model))
        for split, encoded in prepared.encoded.items()
        if len(encoded)
    }
    return progress, scores, str(prefix)


def _save(run: TrainRun, scores: np.ndarray) -> None:
    """Save the model in ``model/``: the whole model, only the trained part, an adapter, or nothing.

    scores: of the validation texts, which are saved with the model.
    """
    config, model, tokenizer = run.config, run.model, run.prepared.tokenizer
    if run.keep_model == "none":
        return
    write_validation(run.folder / "model", ValidationScores(scores, run.prepared.data.validation.labels))
    source, revision = config.model.source, config.model.revision
    if is_folder(source) or holds_adapter(resolve_model(source, revision)):
        source, revision = "", ""
    base = published_name(source)  # "": the folder that it was loaded from
    if config.adapt is not None:
        base = "../adapted"  # relative to the model's folder
    if config.adapters is not None:
        save_adapter(model, run.folder / "model", base=base, revision=revision, tokenizer=tokenizer)
        return
    below, part_of = card_of(model).folder, None
    if run.keep_model == "trained" and below is not None and is_partly_frozen(model):
        part_of = Base(base or str(below.resolve()), revision, files.fingerprint(below))
    save_model(model, run.folder / "model", tokenizer=tokenizer, base=part_of)
