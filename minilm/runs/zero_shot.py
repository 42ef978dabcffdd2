"""A zero-shot run: a model classifies texts without training.

It is compared with the majority class of the training texts, and with the same checkpoint with an untrained head, from
which training would start.

    RUN/  config.toml  environment.json  results.json  predictions.csv  report.md  report.html  figures/
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from minilm.checkpoints.contents import read_contents
from minilm.checkpoints.files import write_json
from minilm.config import EntailmentSection, PromptSection, RunConfig, SimilaritySection, ZeroShotSection
from minilm.data.rows import Rows
from minilm.data.tokenization import pad_id
from minilm.devices import Runtime
from minilm.errors import UserError, located, nearest
from minilm.evaluation.baselines import majority
from minilm.evaluation.entailment import SLOT, entailment
from minilm.evaluation.metrics import Metrics
from minilm.evaluation.predictor import predict_scores
from minilm.evaluation.prompts import Prompt, cloze, likelihood
from minilm.evaluation.zero_shot import open_model, similarity
from minilm.models.architecture import Backbone
from minilm.reporting.plots import draw_confusion
from minilm.reporting.predictions import write_predictions
from minilm.reporting.report import write_report
from minilm.reporting.results import Baseline, Parameters, Results, Times, ZeroShot
from minilm.reporting.summary import parameter_counts
from minilm.runs.assembly import PreparedData, find_checkpoint, fresh_model
from minilm.runs.folders import describe_data
from minilm.runs.results import choose_samples, measure
from minilm.schema import as_table
from minilm.training.console import say

MEASURED = ("validation", "test")  # splits
Scores = Mapping[str, np.ndarray]  # split -> (N, C)


@dataclass(frozen=True)
class ZeroShotClassifier:
    """A model that classifies without training, and the scores of the same checkpoint with an untrained head."""

    section: ZeroShotSection
    words: list[str]  # a word or a description for each label
    max_tokens: int  # the most tokens of a prompt or a text
    model: Backbone
    tokenizer: Tokenizer
    runtime: Runtime
    untrained: Scores

    def scores(self, rows: Rows) -> np.ndarray:
        """Log-probabilities (N, C); with several labels a text, logits."""
        model, tokenizer, runtime, section = self.model, self.tokenizer, self.runtime, self.section
        if isinstance(section, PromptSection):
            prompt = Prompt(section.pattern, self.words, section.content_free, self.max_tokens)
            method = cloze if section.method == "cloze" else likelihood
            return method(model, tokenizer, rows.texts, prompt, runtime, pairs=rows.pairs)
        if isinstance(section, SimilaritySection):
            return similarity(
                model, tokenizer, rows.texts, self.words, runtime, pairs=rows.pairs, max_tokens=self.max_tokens
            )
        hypotheses = [section.hypothesis_template.replace(SLOT, word) for word in self.words]
        several = rows.labels.ndim == 2
        return entailment(
            model, tokenizer, rows.texts, hypotheses, runtime, multi_label=several, max_tokens=self.max_tokens
        )

    @property
    def prompt(self) -> tuple[str, str]:
        """The pattern that asks for a label, and the text without content; empty: there is none."""
        match self.section:
            case PromptSection():
                return self.section.pattern, self.section.content_free
            case EntailmentSection():
                return self.section.hypothesis_template, ""
            case SimilaritySection():
                return "", ""


def open_classifier(
    config: RunConfig, section: ZeroShotSection, prepared: PreparedData, runtime: Runtime
) -> ZeroShotClassifier:
    """Load the model. Raises UserError if it cannot classify these data with the method."""
    data, names = prepared.data, prepared.data.label_names
    _check_data(section, prepared)
    if isinstance(section, SimilaritySection):
        words = one_each(section.descriptions, names, "zero_shot.descriptions")
    else:
        words = one_each(section.words, names, "zero_shot.words")
    folder, limit = find_checkpoint(config), config.data.max_tokens
    if sorted(read_contents(folder).labels) == sorted(names):
        seen = "is a classifier that was trained on these labels; use the model from which it was trained"
        raise UserError(f"[zero_shot]: {folder}: {seen}")
    untrained = _untrained(config, prepared, runtime)  # done first, so that there is only one model in memory
    with located("[zero_shot]"):
        model, tokenizer = open_model(str(folder), section.method, str(runtime.device))
        model.to(runtime.device)
        classifier = ZeroShotClassifier(section, words, limit, model, tokenizer, runtime, untrained)
        classifier.scores(data.validation.take(np.arange(1)))  # raises if the pattern or a word is not possible
    return classifier


def _check_data(section: ZeroShotSection, prepared: PreparedData) -> None:
    """Raises UserError if the method cannot classify texts or find labels of this kind."""
    if prepared.data.multi_label and not isinstance(section, EntailmentSection):
        raise UserError(
            f'[zero_shot]: the method "{section.method}" finds one label a text, and these data have several '
            '(data.label_columns); the method "entailment" finds several'
        )
    if prepared.data.test.pairs is not None and isinstance(section, EntailmentSection):
        raise UserError(
            '[zero_shot]: the method "entailment" reads a text and a sentence about it, so it cannot read pairs of '
            "texts (data.text_pair)"
        )


def one_each(given: Mapping[str, str], names: Sequence[str], key: str) -> list[str]:
    """The text for each label: the given one, or else the label's name.

    Raises UserError if a text is given for an unknown label, or if a text is empty.
    """
    for label in given:
        if label not in names:
            raise UserError(f'{key}: no label "{label}"{nearest(label, names)}; the labels are {", ".join(names)}')
        if not given[label].strip():
            raise UserError(f'{key}: "{label}" has an empty text; remove the key to use the label\'s name')
    return [given.get(name, name) for name in names]


def _untrained(config: RunConfig, prepared: PreparedData, runtime: Runtime) -> Scores:
    """The scores of the classifier with an untrained head, from which training would start."""
    model, pad = fresh_model(config, prepared, runtime), pad_id(prepared.tokenizer)
    return {split: predict_scores(model, prepared.encoded[split], runtime, pad=pad) for split in MEASURED}


def classify_and_report(
    classifier: ZeroShotClassifier, config: RunConfig, prepared: PreparedData, folder: Path, *, pictures: bool = True
) -> None:
    """Classify the validation and test texts, and write the figures, predictions.csv, results.json and the report."""
    data, section = prepared.data, classifier.section
    total, _ = parameter_counts(classifier.model)
    sizes = " / ".join(prepared.size(split) for split in MEASURED)
    say(
        f"{folder}: {data.name}, {sizes} texts; a model of {total:,} parameters classifies them by {section.method}, "
        f"without training, on {classifier.runtime}"
    )
    started = time.perf_counter()
    scores = {split: classifier.scores(prepared.rows(split)) for split in MEASURED}
    seconds = time.perf_counter() - started
    most = majority(data.train.labels, len(data.label_names))
    constant = {split: most.predict(prepared.rows(split).texts) for split in MEASURED}
    baselines = {"majority": _measured(constant, prepared), "untrained": _measured(classifier.untrained, prepared)}
    metrics, words = _measured(scores, prepared), dict(zip(data.label_names, classifier.words, strict=True))
    results = Results(
        name=folder.name,
        validation=metrics["validation"],
        test=metrics["test"],
        labels=data.label_names,
        baselines={name: Baseline(found["validation"], found["test"]) for name, found in baselines.items()},
        zero_shot=ZeroShot(section.method, *classifier.prompt, words),
        parameters=Parameters(total, 0),
        times=Times(inference_seconds_per_100_texts=100 * seconds / sum(map(len, scores.values()))),
        samples=choose_samples(data.test, scores["test"], data.label_names, config.seed),
        data=describe_data(data),
    )
    for split in MEASURED if pictures else ():
        if not data.multi_label:
            draw_confusion(metrics[split], data.label_names, split, folder / "figures")
    write_predictions(folder, data.test, scores["test"], data.label_names, None, data.numbers["test"], data.kept)
    write_json(folder / "results.json", as_table(results))
    write_report(folder)


def _measured(scores: Scores, prepared: PreparedData) -> dict[str, Metrics]:
    return {split: measure(prepared.rows(split).labels, found) for split, found in scores.items()}
