"""One run, from a config to a finished folder: data, tokens, model, training, evaluation, report.

A run that was interrupted goes on where it stopped, and ends where it would have ended.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minilm.checkpoints import files
from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.files import atomic, read_json, write_json
from minilm.checkpoints.models import card_of, save_model
from minilm.config import RunConfig, TrainSection, ZeroShotSection, dump_config, load_config
from minilm.data.sources import Dataset
from minilm.data.tokenization import Encoded, length_statistics, pad_id
from minilm.devices import Execution, execution, memory_told
from minilm.errors import UserError
from minilm.evaluation.embeddings import mean_vectors
from minilm.evaluation.predictor import Classifier, predict_scores
from minilm.finetuning.freezing import frozen_layers
from minilm.hub import is_folder, published_name
from minilm.models.architecture import Backbone
from minilm.reporting.plots import confusion, learning_curves, length_distribution
from minilm.reporting.predictions import write_predictions
from minilm.reporting.record import resume_command
from minilm.reporting.report import write_report
from minilm.reporting.summary import parameter_counts, summarize
from minilm.runs.adapt import Lesson, adapt, make_lesson
from minilm.runs.assembly import (
    SPLITS,
    Material,
    check_classifier,
    find_checkpoint,
    fresh_model,
    make_task,
    prepare,
)
from minilm.runs.augment import fingerprint
from minilm.runs.folders import (
    check_unchanged,
    describe_data,
    describe_environment,
    find_folder,
    new_folder,
)
from minilm.runs.results import Embedded, choose_samples, decide, fit_baselines, measure, time_inference
from minilm.runs.sharing import hash_of_tokens, once
from minilm.runs.zero_shot import answer, make_question
from minilm.training.console import say, signal_of, terminable
from minilm.training.frozen_prefix import FrozenPrefix, keep
from minilm.training.loop import Interrupted, train
from minilm.training.recompute import recompute
from minilm.training.state import Checkpoints, Progress


def train_run(config_path: Path, overrides: tuple[str, ...] = (), *, runs: Path, resume: bool = False) -> Path:
    """Train as a config says, or ask without training; return the run's folder.

    Raises:
        UserError: whatever the user can mend.
        minilm.training.loop.Interrupted: a signal ended it; ``resume=True`` goes on.
    """
    with terminable(), memory_told(str(config_path)):
        return _train_run(config_path, overrides, runs, resume)


def _train_run(config_path: Path, overrides: tuple[str, ...], runs: Path, resume: bool) -> Path:
    config, where = load_config(config_path, overrides), str(config_path)
    folder = find_folder(config_path, config, runs) if resume else None
    if folder is not None and (folder / "results.json").exists():
        say(f"{folder}: this run has finished already")
        close(folder)  # a kill may have come before that
        return folder
    settings = first_settings(config)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    run_on = execution(settings.device, settings.precision)
    material = prepare(config, where)
    for warning in material.data.warnings:
        say(f"warning: {warning}")
    if config.augment is not None:
        say(f"{material.added:,} training texts added to {len(material.data.train):,} ({config.augment.method})")
    # Before the folder: what does not go together is told without leaving one.
    lesson = None if config.adapt is None else make_lesson(config, material, where)
    model = None if lesson or config.train is None else fresh_model(config, material, run_on, where)
    if lesson is not None and config.train is not None:
        check_classifier(config, material, where)
    question = None if config.zero_shot is None else make_question(config, config.zero_shot, material, run_on, where)
    start = start_of(config, material, lesson, where)
    if folder is None:
        folder = start_folder(runs, config, material.data, run_on, start)
    else:
        check_unchanged(folder, material.data, start)
    try:
        with memory_told(str(folder), resume_command(folder)):
            source = None if lesson is None else adapt(config, lesson, run_on, folder)
            if question is not None:
                answer(question, config, material, folder)
            elif config.train is None:
                write_adaptation(folder, material)
            else:
                model = model or fresh_model(config, material, run_on, where, source)
                finish(Work(folder, config, config.train, material, model, run_on))
    except OSError as error:  # a full disk
        place, why = error.filename or folder, error.strerror or error
        raise UserError(f"{place}: {why}; once that is mended, go on with: {resume_command(folder)}") from error
    except KeyboardInterrupt as stop:  # while results were written, or a second time
        raise Interrupted(signal_of(stop), folder) from None
    return folder


def close(folder: Path) -> None:
    """What comes after the results: the report. Nothing will go on from the checkpoints, which take much room."""
    write_report(folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def first_settings(config: RunConfig) -> TrainSection | ZeroShotSection:
    """The settings that tell where all stages run: those of [train], of adaptation alone, or of [zero_shot]."""
    settings = config.train or (config.adapt.train if config.adapt else config.zero_shot)
    assert settings is not None  # a rule of the config
    return settings


def start_of(config: RunConfig, material: Material, lesson: Lesson | None, where: str) -> dict[str, str]:
    """Hashes of what a run starts from beside its data. What is frozen is in no checkpoint of it, but read anew."""
    start = {}
    if config.model.source:
        start["the checkpoint"] = files.fingerprint(find_checkpoint(config, where))
    if config.augment is not None:
        start["the text that [augment] makes"] = fingerprint(material.train, len(material.data.train))
    start["the tokenizer"] = hashlib.sha256(material.tokenizer.to_str().encode()).hexdigest()
    if lesson is not None:
        start["the text to adapt to"] = lesson.fingerprint
    return start


def start_folder(runs: Path, config: RunConfig, data: Dataset, run_on: Execution, start: dict[str, str]) -> Path:
    """A new run's folder, with what it was started with."""
    folder = new_folder(runs, config.name)
    write_json(folder / "environment.json", describe_environment(data, run_on) | {"start": start})
    with atomic(folder / "config.toml") as file:
        file.write(dump_config(config).encode())
    return folder


@dataclass(frozen=True)
class Work:
    """What the parts of a run's last stage share."""

    folder: Path
    config: RunConfig
    settings: TrainSection
    material: Material
    model: Backbone  # on its device, frozen as it trains
    run_on: Execution
    embedded: Embedded | None = None  # the texts by the model before it is trained, where a baseline needs them

    @property
    def pad(self) -> int:
        """The padding id."""
        return pad_id(self.material.tokenizer)


def finish(work: Work) -> None:
    """Train to the end, from the start or the last checkpoint, then save, measure and report."""
    folder, material, model = work.folder, work.material, work.model
    with atomic(folder / "summary.txt") as file, work.run_on.autocast():
        file.write((summarize(model) + "\n").encode())
    total, trained = parameter_counts(model)
    sizes = " / ".join(map(material.size, SPLITS))
    say(f"{folder}: {material.data.name}, {sizes} texts; {trained:,} of {total:,} parameters train on {work.run_on}")
    if work.settings.embeddings_baseline:
        work = replace(work, embedded=embed(work))
    if work.settings.recompute:
        recompute(model)
    try:
        progress, scores, cached = learn(work)
    finally:
        shutil.rmtree(folder / "cache", ignore_errors=True)
    if material.data.multi_label:
        threshold = decide(work.settings, material.data.validation.labels, scores["validation"])
        card_of(model).extra["threshold"] = threshold
    save(work)
    write_results(work, progress, scores, cached)


def embed(work: Work) -> Embedded:
    """The vectors of every text by the model as it is, before training."""
    vectors, seconds = {}, {}

    def of(encoded: Encoded) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        return mean_vectors(work.model, encoded, work.run_on, pad=work.pad), time.perf_counter() - started

    for split, encoded in work.material.encoded.items():
        key = partial(_seen_by, work, encoded)
        vectors[split], seconds[split] = once("embeddings", key, partial(of, encoded))
    return Embedded(vectors, seconds["train"])


def _seen_by(work: Work, *texts: Encoded) -> tuple[str, ...]:
    """What the frozen part of an untrained model gives for some texts depends on these."""
    config = work.config
    parts = (config.model, config.freeze, config.lora, card_of(work.model).folder)
    machine = (str(work.run_on), torch.get_num_threads())
    return *map(repr, parts + machine), *map(hash_of_tokens, texts)


def activations(work: Work) -> FrozenPrefix:
    """What the frozen layers give for the training and validation texts."""
    folder, budget = work.folder, work.settings.cache_mib * 2**20
    seen = {split: work.material.encoded[split] for split in ("train", "validation")}

    def compute() -> FrozenPrefix:
        return keep(work.model, seen, work.run_on, pad=work.pad, budget=budget, folder=folder / "cache")

    if not budget or frozen_layers(work.model) <= 0:
        return compute()
    say(f"{folder}: what frozen layers give is computed once, for {len(seen['train']):,} training texts")
    key = partial(_seen_by, work, *seen.values())
    prefix = once("activations", lambda: (budget, *key()), compute, keep=lambda prefix: not prefix.disk)
    if str(prefix):
        say(f"{folder}: {prefix}")
    return prefix


def learn(work: Work) -> tuple[Progress, dict[str, np.ndarray], str]:
    """Train; give the progress, the scores (N, C) of every split, and what was computed once."""
    folder, material, model = work.folder, work.material, work.model
    prefix = activations(work)
    torch.manual_seed(work.config.seed)
    task = make_task(work.config, work.settings, material, model, work.run_on, folder, prefix)
    progress = train(model, task, work.settings, work.run_on, Checkpoints(folder / "checkpoints"))
    task.record(progress.history)
    scores = {
        split: predict_scores(model, encoded, work.run_on, pad=work.pad, forward=prefix.forward(split, model))
        for split, encoded in material.encoded.items()
    }
    return progress, scores, str(prefix)


def save(work: Work) -> None:
    """Keep what was trained in ``model/``: a whole model, or an adapter."""
    config, model, tokenizer = work.config, work.model, work.material.tokenizer
    if not config.lora.rank:
        save_model(model, work.folder / "model", tokenizer=tokenizer)
        return
    source, revision = config.model.source, config.model.revision
    base = "" if is_folder(source) else published_name(source)  # "": the folder that it was opened from
    if config.adapt is not None:
        base = "../adapted"  # from the adapter's own folder
    save_adapter(model, work.folder / "model", base=base, revision=revision, tokenizer=tokenizer)


def write_results(work: Work, progress: Progress, scores: dict[str, np.ndarray], cached: str) -> None:
    """Measure every split's scores (N, C), and write the figures, predictions.csv, results.json and the report."""
    folder, data = work.folder, work.material.data
    threshold = card_of(work.model).extra["threshold"] if data.multi_label else 0.5
    metrics = {split: measure(work.material.rows(split).labels, scores[split], threshold) for split in SPLITS}
    results: dict[str, Any] = {
        "name": folder.name,
        **metrics,
        "labels": data.label_names,
        "baselines": baselines(work),
        **costs(work, progress, cached),
        "best": best(work, progress),
        "stopped": progress.stopped,
        "lengths": length_statistics(work.material.encoded["train"], work.config.data.max_tokens),
        "samples": choose_samples(data.test, scores["test"], data.label_names, work.config.seed, threshold),
        "data": describe_data(work.material.data),
        **({"threshold": threshold} if data.multi_label else {}),
        **other_stages(work),
    }
    draw(work, progress, metrics)
    write_predictions(folder, data.test, scores["test"], data.label_names, threshold)
    write_json(folder / "results.json", results)
    close(folder)


def baselines(work: Work) -> dict[str, Any]:
    """What is reached without the model, from the same texts and by the same rule for the threshold."""
    data, validation = work.material.data, work.material.data.validation
    learned_from = replace(data, train=work.material.train)
    return fit_baselines(learned_from, partial(decide, work.settings, validation.labels), work.embedded)


def costs(work: Work, progress: Progress, cached: str) -> dict[str, Any]:
    """How large the model is, and how long it takes to train and to use."""
    total, trained = parameter_counts(work.model)
    classifier = Classifier(work.model, work.material.tokenizer, work.run_on)
    return {
        "parameters": {"total": total, "trained": trained},
        "times": {
            "train_seconds": progress.seconds,
            "inference_seconds_per_100_texts": time_inference(classifier, work.material.data.test),
        },
        "tokens_per_second": progress.tokens / progress.seconds,
        "frozen_layers": cached,
    }


def best(work: Work, progress: Progress) -> dict[str, Any]:
    """Which weights were kept, and why."""
    entry = next(entry for entry in progress.history if entry["step"] == progress.best_step)
    place = {"epoch": entry["epoch"], "step": entry["step"]}
    return place | {"metric": work.settings.best, "value": progress.best_value}


def other_stages(work: Work) -> dict[str, Any]:
    """What came before training, if the config says so: more texts, a checkpoint that was adapted."""
    told: dict[str, Any] = {}
    if (kind := work.config.augment) is not None:
        told["augmentation"] = {"method": kind.method, "ratio": kind.ratio, "added": work.material.added}
    if work.config.adapt is not None:
        told["adaptation"] = read_json(work.folder / "adaptation" / "results.json")
    return told


def draw(work: Work, progress: Progress, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """The pictures of the report."""
    data, figures, limit = work.material.data, work.folder / "figures", work.config.data.max_tokens
    learning_curves(progress.history, progress.best_step, work.settings.best, figures / "learning_curves.png")
    length_distribution(work.material.encoded["train"].full_lengths, limit, figures / "lengths.png")
    for split in () if data.multi_label else ("validation", "test"):
        matrix, title = metrics[split]["confusion"], f"Confusion on the {split} texts"
        confusion(matrix, data.label_names, title, figures / f"confusion_{split}.png")


def write_adaptation(folder: Path, material: Material) -> None:
    """The results and the report of a run that only adapts."""
    adaptation = read_json(folder / "adaptation" / "results.json")
    results = {
        "name": folder.name,
        "labels": [],
        "adaptation": adaptation,
        "parameters": adaptation["parameters"],
        "times": {"train_seconds": adaptation["seconds"]},
        "stopped": adaptation["stopped"],
        "data": describe_data(material.data),
    }
    write_json(folder / "results.json", results)
    close(folder)
