"""One run, from a config to a finished folder: data, tokens, model, training, evaluation, report.

A run that was interrupted goes on where it stopped, and ends where it would have ended.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minilm.checkpoints.files import atomic, read_json, write_json
from minilm.checkpoints.models import card_of, save_model
from minilm.config import RunConfig, dump_config, load_config
from minilm.data.tokenization import length_statistics, pad_id
from minilm.devices import Execution, execution
from minilm.errors import UserError
from minilm.evaluation.metrics import check_metric
from minilm.evaluation.predictor import Classifier, context_of, predict_scores
from minilm.reporting.plots import confusion, learning_curves, length_distribution
from minilm.reporting.report import write_report
from minilm.reporting.summary import parameter_counts, summarize
from minilm.runs.assembly import SPLITS, Material, make_model, make_task, prepare
from minilm.runs.folders import describe_environment, find_folder, new_folder, write_history
from minilm.runs.results import choose_samples, fit_baselines, measure, time_inference
from minilm.training.loop import train
from minilm.training.state import Checkpoints, Progress


def train_run(config_path: Path, overrides: tuple[str, ...] = (), *, runs: Path, resume: bool = False) -> Path:
    """Train as a config says; return the run's folder.

    Raises:
        UserError: whatever the user can mend.
        minilm.training.loop.Interrupted: a signal ended it; ``resume=True`` goes on.
    """
    config = load_config(config_path, overrides)
    where = str(config_path)
    folder = find_folder(config_path, config, runs) if resume else None
    if folder is not None and (folder / "results.json").exists():
        say(f"{folder}: this run has finished already")
        return folder
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    run_on = execution(config.train.device, config.train.precision)
    material = prepare(config, where)
    check_metric(config.train.best, material.data.multi_label)
    for warning in material.data.warnings:
        say(f"warning: {warning}")
    torch.manual_seed(config.seed)
    model = make_model(config, material.data.label_names, material.tokenizer.get_vocab_size(), where)
    context = context_of(model)
    if context and material.max_tokens > context:
        raise UserError(f"{where}: data.max_tokens is {material.max_tokens}, but the model reads at most {context} tokens")
    card_of(model).extra |= {"max_tokens": material.max_tokens, "clean": config.data.clean, "pairs": material.data.train.pairs is not None}
    environment = describe_environment(material.data, run_on)
    if folder is None:
        folder = new_folder(runs, config.name)
        with atomic(folder / "config.toml") as file:
            file.write(dump_config(config).encode())
        write_json(folder / "environment.json", environment)
    elif read_json(folder / "environment.json")["data"]["fingerprint"] != material.data.fingerprint:
        raise UserError(f"{folder}: the data has changed since this run was started; start a new one without --resume")
    model.to(run_on.device)
    total, trained = parameter_counts(model)
    sizes = " / ".join(f"{len(material.rows(split)):,}" for split in SPLITS)
    say(f"{folder}: {material.data.name}, {sizes} texts; {trained:,} of {total:,} parameters train on {run_on}")
    with atomic(folder / "summary.txt") as file:
        file.write((summarize(model) + "\n").encode())
    torch.manual_seed(config.seed)
    checkpoints = Checkpoints(folder / "checkpoints")
    task = make_task(config, material, model, run_on, folder)
    progress = train(model, task, config.train, run_on, checkpoints)
    write_history(folder, progress.history)
    save_model(model, folder / "model", tokenizer=material.tokenizer)
    write_results(folder, config, material, model, progress, run_on)
    return folder


def say(line: str) -> None:
    """A line for the person at the terminal."""
    print(line, file=sys.stderr, flush=True)


def write_results(
    folder: Path, config: RunConfig, material: Material, model: nn.Module, progress: Progress, run_on: Execution
) -> dict[str, Any]:
    """Measure the finished model on every split, and write results.json, the figures and the report."""
    data, pad, context = material.data, pad_id(material.tokenizer), context_of(model)
    scores = {
        split: predict_scores(model, material.encoded[split], run_on, pad=pad, context=context) for split in SPLITS
    }
    metrics = {split: measure(material.rows(split).labels, scores[split]) for split in SPLITS}
    best = next(entry for entry in progress.history if entry["step"] == progress.best_step)
    classifier = Classifier(model, material.tokenizer, run_on)
    total, trained = parameter_counts(model)
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
        "tokens_per_second": progress.tokens / max(1e-9, progress.seconds),
        "best": {
            "epoch": best["epoch"],
            "step": best["step"],
            "metric": config.train.best,
            "value": progress.best_value,
        },
        "stopped": progress.stopped,
        "lengths": length_statistics(material.encoded["train"], material.max_tokens),
        "samples": choose_samples(data.test, scores["test"], data.label_names, config.seed),
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "sizes": {split: len(material.rows(split)) for split in SPLITS},
            "warnings": data.warnings,
        },
    }
    figures = folder / "figures"
    learning_curves(progress.history, progress.best_step, config.train.best, figures / "learning_curves.png")
    length_distribution(
        material.encoded["train"].full_lengths, material.max_tokens, figures / "lengths.png"
    )
    for split in () if data.multi_label else ("validation", "test"):
        matrix = metrics[split]["confusion"]
        confusion(matrix, data.label_names, f"{split.capitalize()} texts", figures / f"confusion_{split}.png")
    write_json(folder / "results.json", results)
    write_report(folder)
    return results
