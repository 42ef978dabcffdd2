"""Write the results of a finished run: figures, predictions, results.json and the report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from minilm.checkpoints.files import write_json
from minilm.checkpoints.models import card_of
from minilm.config import SPLITS
from minilm.data.checks import class_counts
from minilm.data.rows import Rows
from minilm.evaluation.answers import same_answer
from minilm.evaluation.decisions import fit_decision
from minilm.evaluation.measuring import MOST_LABELS, measure
from minilm.evaluation.metrics import Metrics
from minilm.evaluation.predictor import Classifier
from minilm.models import ARCHITECTURES
from minilm.reporting.confidence import no_temperature
from minilm.reporting.label_issues import LABEL_ISSUES, issues_of, write_label_issues
from minilm.reporting.label_plots import class_distribution, given_together, label_scores
from minilm.reporting.plots import draw_confusion, learning_curves, length_distribution
from minilm.reporting.predictions import write_predictions
from minilm.reporting.report import write_report
from minilm.reporting.results import Adaptation, Augmentation, Baseline, Best, Parameters, Results, Times, read_record
from minilm.reporting.summary import parameter_counts
from minilm.runs.assembly import PreparedData
from minilm.runs.confidence import draw_confidence, measure_calibration
from minilm.runs.explain import explain_samples
from minilm.runs.fit import Trained, TrainRun
from minilm.runs.folders import describe_data
from minilm.runs.mistakes import HeldOut, describe_mistakes
from minilm.runs.results import (
    Embedded,
    choose_samples,
    fit_baselines,
    lengths_of,
    stored_threshold,
    time_inference,
)
from minilm.schema import as_table
from minilm.training.console import say
from minilm.training.state import Progress


def conclude(run: TrainRun, trained: Trained) -> None:
    """Evaluate every split's scores (N, C), and write the figures, predictions.csv, results.json and the
    report."""
    folder, data = run.folder, run.prepared.data
    config, augment = run.config, run.config.augment
    scores, decision = trained.scores, trained.decision
    metrics = {split: measure(run.prepared.rows(split).labels, found, decision) for split, found in scores.items()}
    held_out = "test" if "test" in scores else "validation"
    shown: Rows = getattr(data, held_out)
    probabilities = decision.probabilities(scores[held_out])
    given = decision.choose(probabilities)
    same = same_answer(shown.labels, given, data.label_names, held_out) if data.multi_label else ""
    if same:
        say(f"warning: {same}")
    if decision.temperature is None:
        say(no_temperature(len(data.validation)))
    texts = HeldOut(held_out, shown, data.numbers[held_out], data.kept if held_out == "test" else {})
    issues = issues_of(shown.labels, probabilities, data.label_names)
    classifier = Classifier(run.model, run.prepared.tokenizer, run.runtime)
    results = Results(
        name=folder.name,
        architecture=ARCHITECTURES[card_of(run.model).model_type].title,
        train=metrics["train"],
        validation=metrics["validation"],
        test=metrics.get("test"),
        labels=data.label_names,
        baselines=_baselines(run, trained.embedded),
        adaptation=None if config.adapt is None else read_record(Adaptation, folder / "adaptation" / "results.json"),
        parameters=Parameters(*parameter_counts(run.model)),
        times=Times(trained.progress.seconds, time_inference(classifier, shown)),
        tokens_per_second=trained.progress.tokens / trained.progress.seconds,
        frozen_layers=trained.cached,
        best=_best(run, trained.progress),
        stopped=trained.progress.stopped,
        lengths=lengths_of(run.prepared.train, run.prepared.encoded["train"], config.data.max_tokens),
        samples=choose_samples(shown, scores[held_out], data.label_names, config.seed, decision),
        data=describe_data(data),
        decision_threshold=stored_threshold(decision),
        calibration=measure_calibration(decision, shown.labels, scores[held_out], held_out),
        mistakes=describe_mistakes(texts, scores[held_out], data.label_names, decision, issues),
        augmentation=None if augment is None else Augmentation(augment.method, augment.ratio, run.prepared.added),
        same_answer=same,
    )
    if run.pictures:
        _draw(run, trained.progress, metrics)
        if data.multi_label:
            figures = folder / "figures"
            label_scores(metrics[held_out], data.label_names, held_out, figures / "label_scores.png")
            given_together(shown.labels, given, data.label_names, held_out, figures / "given_together.png")
        draw_confidence(decision, shown.labels, scores[held_out], held_out, folder / "figures")
    if "test" in scores:
        write_predictions(
            folder, data.test, scores["test"], data.label_names, decision, data.numbers["test"], data.kept
        )
    if run.keep_model == "all":  # not for each run of a study
        explain_samples(classifier, results.samples, folder)
    if issues:
        write_label_issues(folder / LABEL_ISSUES, issues, texts.columns)
    write_json(folder / "results.json", as_table(results))
    finalize(folder)


def _baselines(run: TrainRun, embedded: Embedded | None) -> dict[str, Baseline]:
    """The metrics of the baselines, from the same texts and with the same rule for the threshold."""
    data, validation = run.prepared.data, run.prepared.data.validation
    learned_from = replace(data, train=run.prepared.train)
    wanted, many = run.settings.linear_baseline, len(data.label_names) > MOST_LABELS
    if wanted and many:
        say(f"{run.folder}: no linear baseline, as there are more than {MOST_LABELS:,} labels")
    choose = partial(fit_decision, run.settings, validation.labels, calibrate=False)
    return fit_baselines(learned_from, choose, embedded, with_linear=wanted and not many)


def _best(run: TrainRun, progress: Progress) -> Best:
    """The evaluation whose weights are kept."""
    entry = next(entry for entry in progress.history if entry.step == progress.best_step)
    assert progress.best_value is not None  # with best_step
    return Best(entry.epoch, entry.step, run.settings.best, progress.best_value)


def _draw(run: TrainRun, progress: Progress, metrics: Mapping[str, Metrics]) -> None:
    """Draw the figures of the report."""
    data, figures, limit = run.prepared.data, run.folder / "figures", run.config.data.max_tokens
    learning_curves(progress.history, progress.best_step, run.settings.best, figures / "learning_curves.png")
    length_distribution(run.prepared.encoded["train"].full_lengths, limit, figures / "lengths.png")
    counts = {split: class_counts(getattr(data, split).labels, len(data.label_names)) for split in SPLITS}
    class_distribution(data.label_names, counts, figures / "classes.png")
    for split in ("validation", "test"):
        if not data.multi_label and split in metrics:
            draw_confusion(metrics[split], data.label_names, split, figures)


def conclude_adaptation(folder: Path, prepared: PreparedData) -> None:
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


def finalize(folder: Path) -> None:
    """Write the report of a run that has results, and remove its checkpoints, which are no longer needed.

    Also removes the caches that killed processes have left; each machine has its own.
    """
    write_report(folder)
    for place in (folder / "checkpoints", folder / "cache", *folder.glob("cache-*")):
        shutil.rmtree(place, ignore_errors=True)
