"""One run, from a config to a finished folder: data, tokens, model, training, evaluation, report.

An interrupted run resumes from its last checkpoint, and has the same final weights as an uninterrupted run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import Any, TypeVar

import torch

from minilm import devices
from minilm.atomic import atomic
from minilm.checkpoints import files
from minilm.checkpoints.files import write_json
from minilm.config import SPLITS, KeepModel, RunConfig, TrainSection, ZeroShotSection
from minilm.data.checks import class_counts
from minilm.devices import Runtime, Stage, out_of_memory_explained
from minilm.errors import UserError, located
from minilm.loading import dump_config, load_config, path_of
from minilm.models.architecture import Backbone
from minilm.reporting.classes import counts_table
from minilm.reporting.record import resume_command
from minilm.runs.adapt import AdaptationData, adapt, prepare_adaptation
from minilm.runs.assembly import PreparedData, check_classifier, find_checkpoint, fresh_model, prepare
from minilm.runs.augment import hash_of_added
from minilm.runs.conclude import conclude, conclude_adaptation, finalize
from minilm.runs.fit import TrainRun, fit, save_trained
from minilm.runs.folders import (
    STARTED_FROM,
    Recorder,
    check_unchanged,
    describe_environment,
    find_folder,
    find_unfinished,
    new_folder,
    occupied,
    other_machine,
)
from minilm.runs.trackers.processes import Trackers, check_trackers, finish_again
from minilm.runs.zero_shot import ZeroShotClassifier, classify_and_report, open_classifier
from minilm.schema import as_table
from minilm.training.console import Interrupted, say, signal_of, terminable
from minilm.training.sharding import check_sharding, is_sharding, open_whole
from minilm.training.state import Checkpoints
from minilm.world import alone, check_same, from_first, is_first, joined, restarted, world

T = TypeVar("T")


def train_run(
    source: Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    runs: Path,
    resume: bool = False,
    keep_model: KeepModel = "all",
    pictures: bool = True,
    group: str = "",
) -> Path:
    """Train, or classify without training, as a config describes; return the run's folder.

    source: the config: a TOML file, or a table with the same keys.
    keep_model: what ``model/`` contains in the end: the whole model; the trained parameters and the name of their base
        checkpoint; or nothing.
    pictures: whether the report has pictures.
    group: the name under which trackers show the run together with others, such as a study's.

    Raises:
        UserError: an error that the user can fix.
        minilm.training.console.Interrupted: a signal stopped the run; ``resume=True`` resumes it.
    """
    with terminable(), joined():
        return _train_run(load_config(source, overrides), path_of(source), runs, resume, keep_model, pictures, group)


def _train_run(
    config: RunConfig,
    config_path: Path,
    runs: Path,
    resume: bool,
    keep_model: KeepModel,
    pictures: bool,
    group: str,
) -> Path:
    unfinished = from_first(lambda: find_unfinished(config_path, config, runs) if restarted() and not resume else None)
    if not resume and unfinished is None:
        start = _prepare_start(config, config_path)  # before the folder is made: a run that cannot start leaves none
        with _in_first(lambda: new_folder(runs, config.name, partial(_write_start, config, start))) as folder:
            _run_stages(config, start, folder, keep_model, pictures, group)
        return folder
    if unfinished is not None and is_first():
        say(f"{unfinished}: torchrun started the processes again, which resume this run")
    folder = unfinished or from_first(lambda: find_folder(config_path, config, runs))
    with _in_first(lambda: occupied(folder)):
        if from_first((folder / "results.json").exists):
            if is_first():
                say(f"{folder}: this run has already finished")
                finalize(folder)  # it may have been killed before this
                finish_again(config, folder, group)
            return folder
        start = _prepare_start(config, config_path)
        if is_first():
            check_unchanged(folder, start.prepared.data, start.fingerprints)
            if message := other_machine(folder, start.runtime):
                say(f"{folder}: {message}")
        _run_stages(config, start, folder, keep_model, pictures, group)
    return folder


@contextmanager
def _in_first(context: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """A context that only the first of several processes enters, such as a lock; all get its value."""
    with ExitStack() as stack:
        yield from_first(lambda: stack.enter_context(context()))


def _run_stages(
    config: RunConfig, start: Start, folder: Path, keep_model: KeepModel, pictures: bool, group: str
) -> None:
    """Run all stages in the folder. Raises UserError and Interrupted with the command that resumes the run."""
    try:
        explained = out_of_memory_explained(_last_stage(config), resume_command(folder))
        with explained, Trackers(config, folder, group) as trackers:
            _adapt_and_train(config, start, folder, keep_model, pictures, trackers.record)
            trackers.finish()
    except OSError as error:  # a full disk
        place, why = error.filename or folder, error.strerror or error
        raise UserError(f"{place}: {why}; once that is fixed, resume with: {resume_command(folder)}") from error
    except KeyboardInterrupt as stop:  # while results are written, or after a second signal
        raise Interrupted(signal_of(stop), folder) from None


def _adapt_and_train(
    config: RunConfig, start: Start, folder: Path, keep_model: KeepModel, pictures: bool, record: Recorder
) -> None:
    """Adapt, then train, or classify without training, as the config describes. ``record`` writes evaluations."""
    prepared, runtime = start.prepared, start.runtime
    adapted = None
    if start.adaptation is not None:
        with out_of_memory_explained("adapt", resume_command(folder)):
            adapted = adapt(config, start.adaptation, runtime, folder, record)
    if start.classifier is not None:
        classify_and_report(start.classifier, config, prepared, folder, pictures=pictures)
    elif prepared.settings is None:
        if is_first():
            conclude_adaptation(folder, prepared)
    else:
        model = start.model or fresh_model(config, prepared, runtime, adapted)
        run = TrainRun(folder, config, prepared.settings, prepared, model, runtime, keep_model, pictures, record)
        trained, sharded = fit(run), is_sharding(prepared.settings.shard)
        if is_first():
            with alone():
                run = _with_whole_model(run, adapted) if sharded else run
                save_trained(run, trained)
                conclude(run, trained)


def _last_stage(config: RunConfig) -> Stage:
    """The section of the config whose stage runs last."""
    return "train" if config.train else "zero_shot" if config.zero_shot else "adapt"


def _with_whole_model(run: TrainRun, adapted: Path | None) -> TrainRun:
    """A run with its trained model in one piece, on the CPU."""
    say(f"{run.folder}: the sharded model is put together on the CPU, where texts are also explained and timed")
    runtime = replace(run.runtime, device=torch.device("cpu"))
    best = Checkpoints(run.folder / "checkpoints").best
    model = open_whole(lambda: fresh_model(run.config, run.prepared, runtime, adapted), best)
    return replace(run, model=model, runtime=runtime)


@dataclass(frozen=True)
class Start:
    """The inputs of a run."""

    runtime: Runtime
    prepared: PreparedData
    fingerprints: dict[str, str]  # hashes of the inputs, from ``_fingerprints_of``
    adaptation: AdaptationData | None = None  # for [adapt]
    model: Backbone | None = None  # for [train], unless [train] starts from the adapted checkpoint
    classifier: ZeroShotClassifier | None = None  # for [zero_shot]


def _prepare_start(config: RunConfig, path: Path) -> Start:
    """Load the data and the model. Raises UserError if they do not match each other or the config."""
    with located(str(path)), out_of_memory_explained(_last_stage(config)):
        return _load_start(config)


def _load_start(config: RunConfig) -> Start:
    check_trackers(config)
    settings = _first_settings(config)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    runtime = devices.runtime(settings.device, settings.precision)
    check_sharding(config, runtime)
    _check_together(config, runtime)
    prepared = prepare(config)
    data = prepared.data
    counts = {split: class_counts(getattr(data, split).labels, len(data.label_names)) for split in SPLITS}
    for note in data.notes:
        say(note)
    if config.data.labelled:
        say(*counts_table(data.label_names, counts).split("\n"))
    else:
        say(f"{data.name}: {prepared.size('test')} texts without labels are classified; how well is not measured")
    for warning in data.warnings:
        say(f"warning: {warning}")
    if message := devices.advice(runtime):
        say(message)
    if config.augment is not None:
        say(f"{prepared.added:,} training texts added to {len(prepared.data.train):,} ({config.augment.method})")
    adaptation = None if config.adapt is None else prepare_adaptation(config, prepared)
    model = None if adaptation or config.train is None else fresh_model(config, prepared, runtime)
    if adaptation is not None and config.train is not None:
        check_classifier(config, prepared)
    classifier = None if config.zero_shot is None else open_classifier(config, config.zero_shot, prepared, runtime)
    fingerprints = _fingerprints_of(config, prepared, adaptation)
    check_same({STARTED_FROM[key]: value for key, value in {"data": data.fingerprint, **fingerprints}.items()})
    return Start(runtime, prepared, fingerprints, adaptation, model, classifier)


def _check_together(config: RunConfig, runtime: Runtime) -> None:
    """Raise UserError if several processes do not compute the same, and name the machine that writes the files."""
    if world().size == 1:
        return
    settings = hashlib.sha256(dump_config(config).encode()).hexdigest()
    check_same({"the config": settings}, "give the same command and the same file on every machine")
    device = {"the device": runtime.device.type, "the precision": runtime.precision}
    check_same(device, "set train.device and train.precision")
    check_same({"the version of torch": torch.__version__}, "install the same on all machines")
    if (machines := world().size // world().local_size) > 1:
        say(f"{world().size} processes on {machines} machines; the first, which writes files, is on {gethostname()}")


def _first_settings(config: RunConfig) -> TrainSection | ZeroShotSection:
    """The section with the device and threads of all stages: [train], or else [adapt.train] or [zero_shot]."""
    settings = config.train or (config.adapt.train if config.adapt else config.zero_shot)
    assert settings is not None  # a rule of the config
    return settings


def _fingerprints_of(config: RunConfig, prepared: PreparedData, adaptation: AdaptationData | None) -> dict[str, str]:
    """Hashes of a run's inputs besides its data. A resumed run reads frozen weights from the start checkpoint again, as
    its own checkpoints contain only parameters that train."""
    start = {}
    if config.model.source:
        start["checkpoint"] = files.fingerprint(find_checkpoint(config))
    if config.augment is not None:
        start["augmented_texts"] = hash_of_added(prepared.train, len(prepared.data.train))
    start["tokenizer"] = hashlib.sha256(prepared.tokenizer.to_str().encode()).hexdigest()
    if adaptation is not None:
        start["adaptation_texts"] = adaptation.fingerprint
    return start


def _write_start(config: RunConfig, start: Start, folder: Path) -> None:
    """Write the first files of a run's folder: its settings, and hashes of its inputs."""
    environment = describe_environment(start.prepared.data, start.runtime, start.fingerprints)
    write_json(folder / "environment.json", as_table(environment))
    with atomic(folder / "config.toml") as file:
        file.write(dump_config(config).encode())
