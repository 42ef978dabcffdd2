"""One run, from a config to a finished folder: data, tokens, model, training, evaluation, report.

A run that was interrupted goes on where it stopped, and ends where it would have ended.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import torch
from torch import nn

from minilm.checkpoints.files import atomic, write_json
from minilm.checkpoints.models import save_model
from minilm.config import RunConfig, dump_config, load_config
from minilm.data.sources import Dataset
from minilm.data.tokenization import length_statistics, pad_id
from minilm.devices import Execution, execution
from minilm.errors import UserError
from minilm.evaluation.predictor import Classifier, predict_scores
from minilm.reporting.plots import confusion, learning_curves, length_distribution
from minilm.reporting.record import resume_command
from minilm.reporting.report import write_report
from minilm.reporting.summary import parameter_counts, summarize
from minilm.runs.assembly import SPLITS, Material, make_model, make_task, prepare
from minilm.runs.folders import describe_data, describe_environment, find_folder, new_folder, stored_fingerprint
from minilm.runs.results import choose_samples, fit_baselines, measure, time_inference
from minilm.training.loop import Interrupted, train
from minilm.training.state import Checkpoints, Progress


def train_run(config_path: Path, overrides: tuple[str, ...] = (), *, runs: Path, resume: bool = False) -> Path:
    """Train as a config says; return the run's folder.

    Raises:
        UserError: whatever the user can mend.
        minilm.training.loop.Interrupted: a signal ended it; ``resume=True`` goes on.
    """
    config, where = load_config(config_path, overrides), str(config_path)
    folder = find_folder(config_path, config, runs) if resume else None
    if folder is not None and (folder / "results.json").exists():
        say(f"{folder}: this run has finished already")
        write_report(folder)  # a kill may have come between the two
        return folder
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    run_on = execution(config.train.device, config.train.precision)
    material = prepare(config, where)
    for warning in material.data.warnings:
        say(f"warning: {warning}")
    torch.manual_seed(config.seed)
    model = make_model(config, material.data.label_names, material.tokenizer.get_vocab_size(), where)
    model.to(run_on.device)
    if folder is None:
        folder = start_folder(runs, config, material.data, run_on)
    elif stored_fingerprint(folder) != material.data.fingerprint:
        raise UserError(f"{folder}: the data have changed since this run was started; start a new one without --resume")
    total, trained = parameter_counts(model)
    sizes = " / ".join(f"{len(material.rows(split)):,}" for split in SPLITS)
    say(f"{folder}: {material.data.name}, {sizes} texts; {trained:,} of {total:,} parameters train on {run_on}")
    try:
        finish(folder, config, material, model, run_on)
    except OSError as error:  # a full disk
        place, why = error.filename or folder, error.strerror or error
        raise UserError(f"{place}: {why}; once that is mended, go on with: {resume_command(folder)}") from error
    except KeyboardInterrupt:  # while results were written, or a second time
        raise Interrupted(signal.SIGINT, folder) from None
    return folder


def say(line: str) -> None:
    """A line for the person at the terminal."""
    print(line, file=sys.stderr, flush=True)


def start_folder(runs: Path, config: RunConfig, data: Dataset, run_on: Execution) -> Path:
    """A new run's folder, with what it was started with."""
    folder = new_folder(runs, config.name)
    write_json(folder / "environment.json", describe_environment(data, run_on))
    with atomic(folder / "config.toml") as file:
        file.write(dump_config(config).encode())
    return folder


def finish(folder: Path, config: RunConfig, material: Material, model: nn.Module, run_on: Execution) -> None:
    """Train to the end, from the start or the last checkpoint, then save, measure and report."""
    with atomic(folder / "summary.txt") as file:
        file.write((summarize(model) + "\n").encode())
    torch.manual_seed(config.seed)
    task = make_task(config, material, model, run_on, folder)
    progress = train(model, task, config.train, run_on, Checkpoints(folder / "checkpoints"))
    task.record(progress.history)
    save_model(model, folder / "model", tokenizer=material.tokenizer)
    write_results(folder, config, material, model, progress, run_on)


def write_results(
    folder: Path, config: RunConfig, material: Material, model: nn.Module, progress: Progress, run_on: Execution
) -> None:
    """Measure the finished model on every split, and write the figures, results.json and the report."""
    data, encoded, pad = material.data, material.encoded, pad_id(material.tokenizer)
    scores = {split: predict_scores(model, encoded[split], run_on, pad=pad) for split in SPLITS}
    metrics = {split: measure(material.rows(split).labels, scores[split]) for split in SPLITS}
    best = next(entry for entry in progress.history if entry["step"] == progress.best_step)
    total, trained = parameter_counts(model)
    classifier = Classifier(model, material.tokenizer, run_on)
    results = {
        "name": folder.name,
        **metrics,
        "labels": data.label_names,
        "baselines": fit_baselines(data),
        "parameters": {"total": total, "trained": trained},
        "times": {
            "train_seconds": progress.seconds,
            "inference_seconds_per_100_texts": time_inference(classifier, data.test),
        },
        "tokens_per_second": progress.tokens / progress.seconds,
        "best": {
            "epoch": best["epoch"],
            "step": best["step"],
            "metric": config.train.best,
            "value": progress.best_value,
        },
        "stopped": progress.stopped,
        "lengths": length_statistics(encoded["train"], config.data.max_tokens),
        "samples": choose_samples(data.test, scores["test"], data.label_names, config.seed),
        "data": describe_data(data),
    }
    figures = folder / "figures"
    learning_curves(progress.history, progress.best_step, config.train.best, figures / "learning_curves.png")
    length_distribution(encoded["train"].full_lengths, config.data.max_tokens, figures / "lengths.png")
    for split in () if data.multi_label else ("validation", "test"):
        matrix = metrics[split]["confusion"]
        confusion(matrix, data.label_names, f"Confusion on the {split} texts", figures / f"confusion_{split}.png")
    write_json(folder / "results.json", results)
    write_report(folder)
