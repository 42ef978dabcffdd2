"""One run, from a config to a finished folder: data, tokens, model, training, evaluation, report.

An interrupted run resumes from its last checkpoint, and ends with the same weights as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from minilm import devices
from minilm.checkpoints import files
from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.atomic import atomic
from minilm.checkpoints.files import write_json
from minilm.checkpoints.models import card_of, save_model
from minilm.checkpoints.trained_part import Base, is_partly_frozen
from minilm.config import SPLITS, KeepModel, RunConfig, TrainSection, ZeroShotSection
from minilm.data.checks import class_counts
from minilm.data.rows import Rows
from minilm.data.tokenization import Cut, Encoded, count_cut, pad_id
from minilm.devices import Runtime, out_of_memory_explained
from minilm.errors import UserError, located
from minilm.evaluation.answers import same_answer
from minilm.evaluation.decisions import Decision, fit_decision
from minilm.evaluation.embeddings import mean_vectors
from minilm.evaluation.metrics import Metrics
from minilm.evaluation.predictor import Classifier, predict_scores, remember
from minilm.evaluation.validation_scores import ValidationScores, write_validation
from minilm.finetuning.freezing import frozen_layers
from minilm.hub import is_folder, published_name
from minilm.loading import dump_config, load_config
from minilm.models.architecture import Backbone
from minilm.reporting.classes import counts_table
from minilm.reporting.label_plots import class_distribution
from minilm.reporting.plots import draw_confusion, learning_curves, length_distribution
from minilm.reporting.predictions import write_predictions
from minilm.reporting.record import resume_command
from minilm.reporting.report import write_report
from minilm.reporting.results import (
    Adaptation,
    Augmentation,
    Baseline,
    Best,
    Parameters,
    Results,
    Times,
    read_record,
)
from minilm.reporting.summary import parameter_counts, summarize
from minilm.runs.adapt import AdaptationData, adapt, prepare_adaptation
from minilm.runs.assembly import (
    PreparedData,
    check_classifier,
    find_checkpoint,
    fresh_model,
    make_task,
    prepare,
)
from minilm.runs.augment import hash_of_added
from minilm.runs.confidence import draw_confidence, measure_calibration
from minilm.runs.folders import (
    check_unchanged,
    describe_data,
    describe_environment,
    find_folder,
    new_folder,
)
from minilm.runs.results import (
    MOST_LABELS,
    Embedded,
    choose_samples,
    fit_baselines,
    lengths_of,
    measure,
    stored_threshold,
    time_inference,
)
from minilm.runs.shared_cache import hash_of_tokens, memoize
from minilm.runs.zero_shot import ZeroShotClassifier, classify_and_report, open_classifier
from minilm.schema import as_table
from minilm.training.console import Interrupted, say, signal_of, terminable
from minilm.training.frozen_prefix import FrozenPrefix, cache_activations
from minilm.training.gradient_checkpointing import use_gradient_checkpointing
from minilm.training.loop import train
from minilm.training.state import Checkpoints, Progress


def train_run(
    config_path: Path,
    overrides: Sequence[str] = (),
    *,
    runs: Path,
    resume: bool = False,
    keep_model: KeepModel = "all",
) -> Path:
    """Train, or classify without training, as a config describes; return the run's folder.

    keep_model: what ``model/`` contains in the end: the whole model; what was trained, with the name of the checkpoint
        below it; or nothing.

    Raises:
        UserError: something that the user can fix.
        minilm.training.console.Interrupted: a signal ended the run; ``resume=True`` resumes it.
    """
    with terminable():
        return _train_run(config_path, overrides, runs, resume, keep_model)


def _train_run(
    config_path: Path, overrides: Sequence[str], runs: Path, resume: bool, keep_model: KeepModel
) -> Path:
    config = load_config(config_path, overrides)
    folder = find_folder(config_path, config, runs) if resume else None
    if folder is not None and (folder / "results.json").exists():
        say(f"{folder}: this run has finished already")
        finalize(folder)  # it may have been killed before that
        return folder
    # Before the folder is made: a run that cannot start leaves none.
    with located(str(config_path)), out_of_memory_explained():
        start = _prepare_start(config)
    if folder is None:
        folder = _start_folder(runs, config, start)
    else:
        check_unchanged(folder, start.prepared.data, start.fingerprints)
    try:
        with out_of_memory_explained(resume_command(folder)):
            _run_stages(config, start, folder, keep_model)
    except OSError as error:  # a full disk
        place, why = error.filename or folder, error.strerror or error
        raise UserError(f"{place}: {why}; once that is fixed, resume with: {resume_command(folder)}") from error
    except KeyboardInterrupt as stop:  # while results are written, or a second signal
        raise Interrupted(signal_of(stop), folder) from None
    return folder


def _run_stages(config: RunConfig, start: Start, folder: Path, keep_model: KeepModel) -> None:
    """Adapt, then train, or classify without training, as the config describes."""
    prepared, runtime = start.prepared, start.runtime
    adapted = None if start.adaptation is None else adapt(config, start.adaptation, runtime, folder)
    if start.classifier is not None:
        classify_and_report(start.classifier, config, prepared, folder)
    elif config.train is None:
        _write_adaptation(folder, prepared)
    else:
        model = start.model or fresh_model(config, prepared, runtime, adapted)
        train_and_report(TrainRun(folder, config, config.train, prepared, model, runtime, keep_model))


@dataclass(frozen=True)
class Start:
    """What a run starts from."""

    runtime: Runtime
    prepared: PreparedData
    fingerprints: dict[str, str]  # hashes of it, as ``_fingerprints_of`` computes them
    adaptation: AdaptationData | None = None  # for [adapt]
    model: Backbone | None = None  # for [train], unless [train] starts from the adapted checkpoint
    classifier: ZeroShotClassifier | None = None  # for [zero_shot]


def _prepare_start(config: RunConfig) -> Start:
    """Load the data and open the model. Raises UserError if they and the config do not fit together."""
    settings = _first_settings(config)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    runtime = devices.runtime(settings.device, settings.precision)
    prepared = prepare(config)
    data = prepared.data
    counts = {split: class_counts(getattr(data, split).labels, len(data.label_names)) for split in SPLITS}
    for note in data.notes:
        say(note)
    say(counts_table(data.label_names, counts))
    for warning in data.warnings:
        say(f"warning: {warning}")
    if config.augment is not None:
        say(f"{prepared.added:,} training texts added to {len(prepared.data.train):,} ({config.augment.method})")
    adaptation = None if config.adapt is None else prepare_adaptation(config, prepared)
    model = None if adaptation or config.train is None else fresh_model(config, prepared, runtime)
    if adaptation is not None and config.train is not None:
        check_classifier(config, prepared)
    classifier = None if config.zero_shot is None else open_classifier(config, config.zero_shot, prepared, runtime)
    return Start(runtime, prepared, _fingerprints_of(config, prepared, adaptation), adaptation, model, classifier)


def finalize(folder: Path) -> None:
    """Write the report of a run that has its results, and remove its checkpoints: nothing resumes from them."""
    write_report(folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _first_settings(config: RunConfig) -> TrainSection | ZeroShotSection:
    """The section with the device and threads of all stages: [train], else [adapt.train], else [zero_shot]."""
    settings = config.train or (config.adapt.train if config.adapt else config.zero_shot)
    assert settings is not None  # a rule of the config
    return settings


def _fingerprints_of(config: RunConfig, prepared: PreparedData, adaptation: AdaptationData | None) -> dict[str, str]:
    """Hashes of what a run starts from, beside its data. A resumed run reads frozen weights again: its own checkpoints
    have only what trains."""
    start = {}
    if config.model.source:
        start["checkpoint"] = files.fingerprint(find_checkpoint(config))
    if config.augment is not None:
        start["augmented_texts"] = hash_of_added(prepared.train, len(prepared.data.train))
    start["tokenizer"] = hashlib.sha256(prepared.tokenizer.to_str().encode()).hexdigest()
    if adaptation is not None:
        start["adaptation_texts"] = adaptation.fingerprint
    return start


def _start_folder(runs: Path, config: RunConfig, start: Start) -> Path:
    """A new run's folder, with its settings and what it starts from."""
    folder = new_folder(runs, config.name)
    environment = describe_environment(start.prepared.data, start.runtime, start.fingerprints)
    write_json(folder / "environment.json", as_table(environment))
    with atomic(folder / "config.toml") as file:
        file.write(dump_config(config).encode())
    return folder


@dataclass(frozen=True)
class TrainRun:
    """The last stage of a run: the model, its data, and where it trains."""

    folder: Path
    config: RunConfig
    settings: TrainSection
    prepared: PreparedData
    model: Backbone  # on its device, frozen as it trains
    runtime: Runtime
    keep_model: KeepModel = "all"
    embedded: Embedded | None = None  # for a baseline: the texts by the model before it trains

    @property
    def pad(self) -> int:
        """The padding id."""
        return pad_id(self.prepared.tokenizer)


def train_and_report(run: TrainRun) -> None:
    """Train to the end, from the start or the last checkpoint, then save, measure and report."""
    folder, prepared, model, limit = run.folder, run.prepared, run.model, run.config.data.max_tokens
    with atomic(folder / "summary.txt") as file, run.runtime.autocast():
        file.write((summarize(model) + "\n").encode())
    total, trained = parameter_counts(model)
    sizes = " / ".join(map(prepared.size, SPLITS))
    say(f"{folder}: {prepared.data.name}, {sizes} texts; {trained:,} of {total:,} parameters train on {run.runtime}")
    cut = sum((count_cut(encoded, limit) for encoded in prepared.encoded.values()), Cut())
    if message := cut.message("texts", limit, model.context):
        say(f"{folder}: {message}")
    if run.settings.embeddings_baseline:
        run = replace(run, embedded=_embed(run))
    if run.settings.gradient_checkpointing:
        use_gradient_checkpointing(model)
    try:
        progress, scores, cached = _fit(run)
    finally:
        shutil.rmtree(folder / "cache", ignore_errors=True)
    decision = fit_decision(run.settings, prepared.data.validation.labels, scores["validation"])
    remember(decision, model)
    _save(run, scores["validation"])
    _write_results(run, progress, scores, decision, cached)


def _embed(run: TrainRun) -> Embedded:
    """The vectors of every text by the model as it is, before training."""
    vectors, seconds = {}, {}

    def of(encoded: Encoded) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        return mean_vectors(run.model, encoded, run.runtime, pad=run.pad), time.perf_counter() - started

    for split, encoded in run.prepared.encoded.items():
        key = partial(_seen_by, run, encoded)
        vectors[split], seconds[split] = memoize("embeddings", key, partial(of, encoded))
    return Embedded(vectors, seconds["train"])


def _seen_by(run: TrainRun, *texts: Encoded) -> tuple[str, ...]:
    """A key of what the frozen part of an untrained model computes for some texts."""
    config = run.config
    parts = (config.model, config.freeze, config.lora, card_of(run.model).folder)
    machine = (str(run.runtime), torch.get_num_threads())
    return *map(repr, parts + machine), *map(hash_of_tokens, texts)


def _activations(run: TrainRun) -> FrozenPrefix:
    """The outputs of the frozen layers for the training and validation texts."""
    folder, budget = run.folder, run.settings.cache_mib * 2**20
    seen = {split: run.prepared.encoded[split] for split in ("train", "validation")}

    def compute() -> FrozenPrefix:
        return cache_activations(run.model, seen, run.runtime, pad=run.pad, budget=budget, folder=folder / "cache")

    if not budget or frozen_layers(run.model) <= 0:
        return compute()
    say(f"{folder}: the outputs of frozen layers are computed once, for {len(seen['train']):,} training texts")
    key = partial(_seen_by, run, *seen.values())
    prefix = memoize("activations", lambda: (budget, *key()), compute, keep=lambda prefix: not prefix.disk)
    if str(prefix):
        say(f"{folder}: {prefix}")
    return prefix


def _fit(run: TrainRun) -> tuple[Progress, dict[str, np.ndarray], str]:
    """Train. Returns the progress, the scores (N, C) of every split, and a text about what was computed once."""
    folder, prepared, model = run.folder, run.prepared, run.model
    prefix = _activations(run)
    torch.manual_seed(run.config.seed)
    task = make_task(run.config, run.settings, prepared, model, run.runtime, folder, prefix)
    progress = train(model, task, run.settings, run.runtime, Checkpoints(folder / "checkpoints"))
    task.record(progress.history)
    scores = {
        split: predict_scores(model, encoded, run.runtime, pad=run.pad, forward=prefix.forward(split, model))
        for split, encoded in prepared.encoded.items()
        if len(encoded)
    }
    return progress, scores, str(prefix)


def _save(run: TrainRun, scores: np.ndarray) -> None:
    """Write the model into ``model/``: whole, the part that was trained, or an adapter; or do not keep it.

    scores: of the validation texts, which are kept beside it.
    """
    config, model, tokenizer = run.config, run.model, run.prepared.tokenizer
    if run.keep_model == "none":
        return
    write_validation(run.folder / "model", ValidationScores(scores, run.prepared.data.validation.labels))
    source, revision = config.model.source, config.model.revision
    base = "" if is_folder(source) else published_name(source)  # "": the folder that it was opened from
    if config.adapt is not None:
        base = "../adapted"  # from the model's own folder
    if config.adapters is not None:
        save_adapter(model, run.folder / "model", base=base, revision=revision, tokenizer=tokenizer)
        return
    below, part_of = card_of(model).folder, None
    if run.keep_model == "trained" and below is not None and is_partly_frozen(model):
        part_of = Base(base or str(below.resolve()), revision, files.fingerprint(below))
    save_model(model, run.folder / "model", tokenizer=tokenizer, base=part_of)


def _write_results(
    run: TrainRun, progress: Progress, scores: dict[str, np.ndarray], decision: Decision, cached: str
) -> None:
    """Measure every split's scores (N, C), and write the figures, predictions.csv, results.json and the report."""
    folder, data = run.folder, run.prepared.data
    config, augment = run.config, run.config.augment
    metrics = {split: measure(run.prepared.rows(split).labels, found, decision) for split, found in scores.items()}
    held_out = "test" if "test" in scores else "validation"
    shown: Rows = getattr(data, held_out)
    same = ""
    if data.multi_label:
        given = decision.choose(decision.probabilities(scores[held_out]))
        same = same_answer(shown.labels, given, data.label_names, held_out)
    if same:
        say(f"warning: {same}")
    classifier = Classifier(run.model, run.prepared.tokenizer, run.runtime)
    results = Results(
        name=folder.name,
        train=metrics["train"],
        validation=metrics["validation"],
        test=metrics.get("test"),
        labels=data.label_names,
        baselines=_baselines(run),
        adaptation=None if config.adapt is None else read_record(Adaptation, folder / "adaptation" / "results.json"),
        parameters=Parameters(*parameter_counts(run.model)),
        times=Times(progress.seconds, time_inference(classifier, shown)),
        tokens_per_second=progress.tokens / progress.seconds,
        frozen_layers=cached,
        best=_best(run, progress),
        stopped=progress.stopped,
        lengths=lengths_of(run.prepared.train, run.prepared.encoded["train"], config.data.max_tokens),
        samples=choose_samples(shown, scores[held_out], data.label_names, config.seed, decision),
        data=describe_data(data),
        decision_threshold=stored_threshold(decision),
        calibration=measure_calibration(decision, shown.labels, scores[held_out], held_out),
        augmentation=None if augment is None else Augmentation(augment.method, augment.ratio, run.prepared.added),
        same_answer=same,
    )
    _draw(run, progress, metrics)
    draw_confidence(decision, shown.labels, scores[held_out], held_out, folder / "figures")
    if "test" in scores:
        write_predictions(
            folder, data.test, scores["test"], data.label_names, decision, data.numbers["test"], data.kept
        )
    write_json(folder / "results.json", as_table(results))
    finalize(folder)


def _baselines(run: TrainRun) -> dict[str, Baseline]:
    """The metrics of the baselines, from the same texts and with the same rule for the threshold."""
    data, validation = run.prepared.data, run.prepared.data.validation
    learned_from = replace(data, train=run.prepared.train)
    wanted, many = run.settings.linear_baseline, len(data.label_names) > MOST_LABELS
    if wanted and many:
        say(f"{run.folder}: no linear baseline, as there are more than {MOST_LABELS:,} labels")
    choose = partial(fit_decision, run.settings, validation.labels, calibrate=False)
    return fit_baselines(learned_from, choose, run.embedded, with_linear=wanted and not many)


def _best(run: TrainRun, progress: Progress) -> Best:
    """The evaluation whose weights are kept."""
    entry = next(entry for entry in progress.history if entry.step == progress.best_step)
    assert progress.best_value is not None  # with best_step
    return Best(entry.epoch, entry.step, run.settings.best, progress.best_value)


def _draw(run: TrainRun, progress: Progress, metrics: Mapping[str, Metrics]) -> None:
    """The pictures of the report."""
    data, figures, limit = run.prepared.data, run.folder / "figures", run.config.data.max_tokens
    learning_curves(progress.history, progress.best_step, run.settings.best, figures / "learning_curves.png")
    length_distribution(run.prepared.encoded["train"].full_lengths, limit, figures / "lengths.png")
    counts = {split: class_counts(getattr(data, split).labels, len(data.label_names)) for split in SPLITS}
    class_distribution(data.label_names, counts, figures / "classes.png")
    for split in ("validation", "test"):
        if not data.multi_label and split in metrics:
            draw_confusion(metrics[split], data.label_names, split, figures)


def _write_adaptation(folder: Path, prepared: PreparedData) -> None:
    """The results and the report of a run that only adapts."""
    adaptation = read_record(Adaptation, folder / "adaptation" / "results.json")
    results = Results(
        name=folder.name,
        labels=[],
        adaptation=adaptation,
        parameters=adaptation.parameters,
        times=Times(adaptation.seconds),
        stopped=adaptation.stopped,
        data=describe_data(prepared.data),
    )
    write_json(folder / "results.json", as_table(results))
    finalize(folder)
