"""The report of a run: one page about the model, its metrics, its costs, and how to use it.

Everything on the page is read from the run's files (``minilm.reporting.record``), so the report can be written again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from minilm.config import SPLITS
from minilm.evaluation.metrics import Metrics
from minilm.hints import program, quoted
from minilm.measures import RANKING_METRICS
from minilm.reporting.classes import count_rows
from minilm.reporting.confidence import confidence_section, threshold_sentence
from minilm.reporting.explanations import explanations_section
from minilm.reporting.mistakes import mistakes_section
from minilm.reporting.page import (
    Block,
    Bullets,
    Code,
    Folded,
    Page,
    Picture,
    Section,
    Span,
    Table,
    save_page,
    terminal_table,
)
from minilm.reporting.predictions import PREDICTIONS
from minilm.reporting.record import Run, prediction_command, read_run, reads_pairs, relative_path, resume_command
from minilm.reporting.results import Adaptation, Environment, Results, SampleText
from minilm.reporting.results_tables import given_table, metrics_table, perplexity_table
from minilm.reporting.story import SAME_LABELS, Sentence, added, of_whole, story, trained_on
from minilm.reporting.tables import clipped, count, decimal, duration, joined_labels, metric_name
from minilm.schema import flat
from minilm.textfiles import read_text

BASELINE_NAMES = {
    "majority": "always the most frequent label",
    "linear": "a linear model on TF-IDF words and pairs of words",
    "untrained": "the same checkpoint with an untrained head, as training would start it",
    "embeddings": "a linear model on the text vectors of the model before training",
}
CHOSEN = (  # a note on the patterns, words and descriptions
    "If a pattern, a word or a description is chosen by its score on labelled texts, this is training and not "
    "zero-shot, and the model must be evaluated on other texts."
)
LABEL_PICTURES = ("confusion_test", "confusion_validation", "label_scores", "given_together")
LISTED, IN_SENTENCE = 40, 10  # the most labels in a table, and in a sentence
STOPPED = {
    "finished": "Training ran to the last epoch.",
    "early stopping": "Training stopped early, because validation no longer improved.",
    "max_minutes": "Training stopped at its time limit (train.max_minutes).",
}


def write_report(folder: Path) -> Path:
    """Write ``report.md`` and ``report.html`` into a finished run's folder; return the former.

    Raises UserError if the folder is not that of a finished run.
    """
    run = read_run(folder)
    parts: tuple[Callable[[Run], Section | None], ...]
    parts = (_opening, _adaptation, _learning, _labels, mistakes_section, _confidence)
    parts = (*parts, _samples, explanations_section, _costs, _data, _settings, _usage)
    if run.results.zero_shot is not None:
        measured = () if run.results.zero_shot.given else (_labels,)
        parts = (_opening, _asked, *measured, _samples, _costs, _data, _settings)
    elif run.only_adapted:
        parts = (_adaptation, _costs, _data, _settings)
    sections = [section for part in parts if (section := part(run)) is not None]
    return save_page(Page(run.name, "", "", sections), run.folder, "report").with_suffix(".md")


# --- How well it does ---


def results_table(results: Results) -> str:
    """The metrics of every split and baseline, for the terminal; or how many texts without labels get each label."""
    asked = results.zero_shot
    return terminal_table(given_table(asked) if asked and asked.given else metrics_table(results))


def _opening(run: Run) -> Section:
    """A summary in one paragraph, and the table of results."""
    results = run.results
    if results.zero_shot is not None and results.zero_shot.given:
        return Section("", [story(run), given_table(results.zero_shot)])
    table = metrics_table(results)
    rows = [[Span(str(cell)) for cell in row] if row[0] == "test" else row for row in table.rows]
    what = BASELINE_NAMES | ({"majority": SAME_LABELS} if results.multi_label else {})
    legend: Sentence = []
    for name in (name for name in what if name in results.baselines):
        legend += ["; " if legend else "Baselines: ", Span(name, "em"), f", {what[name]}"]
    legend.append(f"{'. ' if legend else ''}Loss in nats, lower is better; everything else, higher is better.")
    if added(results):
        command = f"{program()} evaluate {quoted(relative_path(run.folder))} --split train"
        own = f" measures the {count(results.data.sizes['train'])} of the data."
        legend += [" Row ", Span("train", "em"), f": {trained_on(results)}; ", Span(command, "code"), own]
    return Section("", [story(run), replace(table, rows=rows), legend])


def adaptation_table(adaptation: Adaptation) -> str:
    """The loss and the perplexity on the validation texts before and after adaptation, for the terminal."""
    return terminal_table(perplexity_table(adaptation))


def _adaptation(run: Run) -> Section | None:
    """The texts without labels to which the model was adapted, and its perplexity."""
    adaptation = run.results.adaptation
    if adaptation is None:
        return None
    text = (
        f" continued to learn {adaptation.objective} from {count(adaptation.texts)} texts "
        f"({count(adaptation.tokens)} tokens, {count(adaptation.steps)} steps) without their labels. A perplexity of k "
        "on the validation texts means that the model is as uncertain as if it chose among k equally likely words. The "
        "result is a checkpoint ("
    )
    after = "), from which a classifier can start."
    if adaptation.new_head:
        after += (
            " The checkpoint had no language head, so a new head was trained too, which explains most of the fall in "
            "perplexity."
        )
    opening: Sentence = [Span(run.model), text, Span("adapted/", "code"), after]
    return Section("Adaptation", [opening, perplexity_table(adaptation)])


def _asked(run: Run) -> Section:
    """The pattern and the words of a zero-shot run."""
    asked = run.results.zero_shot
    assert asked is not None
    what = "description" if asked.method == "similarity" else "word"
    lines = [f"The pattern: {asked.pattern}"] if asked.pattern else []
    if asked.content_free:
        lines.append(f"Scores are calibrated so that the text {asked.content_free} has the same score for all labels.")
    table = Table(["label", what], [[label, word] for label, word in asked.words.items()], left=2)
    return Section("How it classifies", [*lines, table, CHOSEN])


def _learning(run: Run) -> Section:
    """The learning curves, and which weights were kept."""
    results, best, history = run.results, run.results.best, run.history
    assert best is not None and results.train is not None and results.validation is not None
    last = f" of {history[-1].epoch:.4g}" if history else ""
    text = (
        f"The weights kept are those of epoch {best.epoch:.4g}{last} (step {count(best.step)}), the "
        f"best by {metric_name(best.metric)} on validation: {decimal(best.value)}. "
    )
    seen, of = results.data.sizes["validation"], results.data.sizes["train"] + added(results)
    if seen < of and any(entry.train is not None for entry in history):
        text += f"The training curve is measured on {count(seen)} of the {trained_on(results)}. "
    text += STOPPED.get(results.stopped, f"It stopped: {results.stopped}.")
    if results.same_answer:
        text += f" {results.same_answer[0].upper()}{results.same_answer[1:]}."
    chosen = run.config.train is not None and isinstance(run.config.train.decision_threshold, str)
    text += threshold_sentence(results, chosen)
    train, validation = results.train["macro_f1"], results.validation["macro_f1"]
    gap = 100 * (train - validation)
    text += (
        f" Its macro F1 is {decimal(train)} on the texts it was trained on and {decimal(validation)} on validation: "
        + (f"a gap of {gap:.1f} points" if gap >= 0.05 else "no gap")
        + (", a sign of overfitting." if gap > 10 else ".")
    )
    return Section("How it learned", [text, *_pictures(run, "learning_curves")])


def _labels(run: Run) -> Section:
    """The metrics of each label, and the most common mistake."""
    split = "test" if run.results.test is not None else "validation"
    metrics, labels = run.results.metrics(split), run.results.labels
    assert metrics is not None
    table = label_table(metrics, labels, f"{split} set")
    if isinstance(thresholds := run.results.decision_threshold, list):
        rows = [[*row, f"{t:.2f}"] for row, t in zip(table.rows, thresholds, strict=True)]
        table = replace(table, header=[*table.header, "threshold"], rows=rows)
    blocks: list[Block] = [table]
    if len(labels) > LISTED:
        worst = sorted(range(len(labels)), key=lambda i: (not metrics.by_label[i].support, metrics.by_label[i].f1))
        few = replace(table, rows=[table.rows[i] for i in worst[:LISTED]])
        blocks = [f"The {LISTED} labels with the lowest F1, of {count(len(labels))}:", few, Folded("All", table)]
    blocks += filter(None, (_absent(metrics, labels, split), _common_mistake(metrics, labels)))
    blocks += _ranking(run.results, split)
    return Section("Label by label", [*blocks, *_pictures(run, *LABEL_PICTURES)])


def _confidence(run: Run) -> Section | None:
    """Whether its probabilities are calibrated, with pictures."""
    section = confidence_section(run)
    pictures = _pictures(run, "calibration", "coverage")
    return None if section is None else replace(section, blocks=[*section.blocks, *pictures])


def _ranking(results: Results, split: str) -> list[Block]:
    """The ranking metrics of the model and the baselines; empty if they were not computed."""
    found = {"the model": results.metrics(split)}
    found |= {name: baseline.metrics(split) for name, baseline in results.baselines.items()}
    rows = [
        [name, *(decimal(metrics.get(key)) for key in RANKING_METRICS)]
        for name, metrics in found.items()
        if metrics is not None and metrics.roc_auc is not None
    ]
    note = "Macro averages: of each label against the rest. They need no threshold; ROC AUC is 0.5 for guessing."
    return [Table([f"ranking, {split} set", *map(metric_name, RANKING_METRICS)], rows, note=note)] if rows else []


def label_table(metrics: Metrics, labels: Sequence[str], title: str = "label") -> Table:
    """The metrics of each label."""
    rows = [
        [label, decimal(row.precision), decimal(row.recall), decimal(row.f1), count(row.support)]
        for label, row in zip(labels, metrics.by_label, strict=True)
    ]
    return Table([title, "precision", "recall", "F1", "texts"], rows)


def _absent(metrics: Metrics, labels: Sequence[str], split: str) -> Sentence:
    """A sentence on the labels without texts in the split, whose metrics are undefined."""
    absent = [label for label, row in zip(labels, metrics.by_label, strict=True) if not row.support]
    sentence: Sentence = []
    for label in absent[:IN_SENTENCE]:
        sentence += [" or " if sentence else f"No {split} text has the label ", Span(label, "em")]
    if len(absent) > IN_SENTENCE:
        sentence.append(f" or one of {count(len(absent) - IN_SENTENCE)} more")
    counted = "; its F1 counts as 0 in macro F1" if metrics.multi_label else ""
    return [*sentence, f", so its metrics are not known{counted}."] if sentence else []


def _common_mistake(metrics: Metrics, labels: Sequence[str]) -> Sentence:
    if not (wrong := metrics.most_confused()):
        return []
    first = wrong[0]
    texts = sum(metrics.confusion[first.truth]) if metrics.confusion else metrics.by_label[first.truth].support
    names: Sentence = [Span(labels[first.truth], "em"), " taken for ", Span(labels[first.predicted], "em")]
    share = f"{count(first.texts)} of {count(texts)} texts ({first.texts / texts:.0%})"
    return ["The most common mistake: ", *names, f", {share}."]


def _samples(run: Run) -> Section | None:
    """A few texts with their predictions."""
    if not run.results.samples:
        return None
    samples = run.results.samples
    table = Table(["", "text", "label", "predicted", "scores"], [_sample(s) for s in samples], left=5)
    if not run.config.data.labelled:
        table = Table(["text", "given", "scores"], [[s[1], *s[3:]] for s in map(_sample, samples)], left=3)
    every: list[Block] = [Span("Every test text", "", link=PREDICTIONS)] if (run.folder / PREDICTIONS).is_file() else []
    return Section("Some texts", [table, *every])


def _sample(sample: SampleText) -> list[str | Span]:
    label, predicted = joined_labels(sample.label), joined_labels(sample.predicted)
    highest = sorted(sample.scores.items(), key=lambda pair: -pair[1])[:3]
    scores = ", ".join(f"{name} {score:.2f}" for name, score in highest)
    return ["right" if label == predicted else Span("wrong"), clipped(sample.text), label, predicted, scores]


# --- Costs, data, settings and usage ---


def _costs(run: Run) -> Section:
    results = run.results
    parameters, inference = results.parameters, results.times.inference_seconds_per_100_texts
    rows = [["training", duration(results.times.train_seconds)]]
    if results.tokens_per_second is not None:
        rows.append(["training speed", f"{count(results.tokens_per_second)} tokens/s"])
    if inference is not None:
        rows.append(["predicting 100 texts", duration(inference)])
    rows.append(["parameters", count(parameters.total)])
    rows.append(["of them trained", f"{count(parameters.trained)} ({parameters.trained / parameters.total:.1%})"])
    if results.frozen_layers:
        rows.append(["computed once", results.frozen_layers])
    for name, baseline in results.baselines.items():
        rows.append([f"fitting the {name} baseline", duration(baseline.seconds)])
    summary = run.folder / "summary.txt"
    more = [Folded("The model, layer by layer", Code(read_text(summary)))] if summary.is_file() else []
    return Section("What it cost", [Table(["", ""], rows), *more])


def _data(run: Run) -> Section:
    results, data = run.results, run.results.data
    sizes = ", ".join(f"{of_whole(data, split)} {split}" for split in SPLITS if data.sizes[split])
    rows: list[list[str | Span]] = [["name", data.name], ["texts", sizes]]
    if (made := results.augmentation) is not None:
        rows.append(["made of the train texts", f"{count(made.added)} ({made.method}, ratio {made.ratio:g})"])
    if (lengths := results.lengths) is not None:
        shape = (
            f"mean {lengths.mean:.1f}, median {lengths.median:.0f}, 95% up to {lengths.p95:.0f}, "
            f"longest {count(lengths.longest)}"
        )
        rows.append(["tokens a training text", shape])
        if (characters := lengths.characters) is not None:
            shape = (
                f"mean {characters.mean:.1f}, median {characters.median:.0f}, 95% up to {characters.p95:.0f}, "
                f"longest {count(characters.longest)}"
            )
            rows.append(["characters a training text", shape])
        whose = f"the {trained_on(results)}" if added(results) else "them"
        lost = f", {lengths.unread:.0%} of all tokens" if lengths.unread else ""
        if lengths.windows is not None:
            rows.append([f"windows of {lengths.max_tokens} tokens", f"{count(lengths.windows)}, with all of the text"])
        else:
            rows.append([f"cut at {lengths.max_tokens} tokens", f"{count(lengths.truncated)} of {whose}{lost}"])
    rows.append(["fingerprint", Span(data.fingerprint, "code")])
    blocks: list[Block] = [Table(["", ""], rows, left=2)]
    if data.classes and results.labels:
        header, counted = count_rows(results.labels, {s: np.array(found) for s, found in data.classes.items()})
        blocks += ["How many texts of each split have each label:", Table(header, counted)]
    blocks += ["Notes on reading:", Bullets(data.notes)] if data.notes else []
    blocks += ["Warnings:", Bullets(data.warnings)] if data.warnings else []
    return Section("The data", [*blocks, *_pictures(run, "classes", "lengths")])


def _settings(run: Run) -> Section:
    blocks = [Folded("config.toml, runnable again", Code(read_text(run.folder / "config.toml"), "toml"))]
    if run.environment is not None:
        rows = [[key, value] for key, value in environment_rows(run.environment)]
        blocks.append(Folded("Environment", Table(["", ""], rows, left=2)))
    return Section("Settings", blocks)


def environment_rows(environment: Environment) -> list[tuple[str, str]]:
    """Versions, device, and hashes of a run's inputs, by name."""
    found = flat(asdict(environment))
    return [(key, str(value)) for key, value in found.items() if value and not key.startswith("data.")]


def _usage(run: Run) -> Section:
    folder = quoted(relative_path(run.folder))
    config = quoted(relative_path(run.folder / "config.toml"))
    with_tab = ", a tab between the two texts" if reads_pairs(run) else ""
    commands = [
        (prediction_command(run), "predicts the label of a text"),
        (f"{program()} predict {folder} --file texts.txt --json", f"predicts each line{with_tab}, with all scores"),
        (f"{program()} predict {folder} --file in.csv --out out.csv", "a table with an answer beside each row"),
        (f"{program()} explain {folder}", "the words on which its answers to the sample texts depend"),
        (f"{program()} evaluate {folder}", "computes the test metrics again"),
        (f"{program()} train {config} seed=2", "trains again, with one setting changed"),
        (resume_command(run.folder), "resumes the run if it was interrupted"),
    ]
    width = max(len(command) for command, _ in commands)
    lines = "\n".join(f"{command.ljust(width)}  # {what}" for command, what in commands)
    return Section("Use it", [Code(lines, "sh")])


def _pictures(run: Run, *names: str) -> list[Picture]:
    """The pictures of these names that the run has."""
    paths = {name: run.folder / "figures" / f"{name}.png" for name in names}
    return [Picture(path, name.replace("_", " ").capitalize()) for name, path in paths.items() if path.is_file()]
