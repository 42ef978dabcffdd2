"""A zero-shot run: a model classifies texts without training.

It is compared with the majority class of the training texts, and with the same checkpoint with an untrained head, from
which training would start. Texts without labels (``data.label = ""``) are only classified.

    RUN/  config.toml  environment.json  results.json  predictions.csv  report.md  report.html  figures/
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from minilm.checkpoints.contents import read_contents
from minilm.checkpoints.files import write_json
from minilm.config import EntailmentSection, PromptSection, RunConfig, SimilaritySection, ZeroShotSection
from minilm.data.rows import Rows
from minilm.data.sources import Dataset
from minilm.data.tokenization import pad_id
from minilm.devices import Runtime
from minilm.errors import UserError, located
from minilm.evaluation.baselines import majority
from minilm.evaluation.decisions import plain_decision
from minilm.evaluation.measuring import measure
from minilm.evaluation.metrics import Metrics
from minilm.evaluation.predictor import predict_scores
from minilm.evaluation.zero_shot import open_model
from minilm.evaluation.zero_shot_model import ZeroShotModel, words_of
from minilm.reporting.plots import draw_confusion
from minilm.reporting.predictions import write_predictions
from minilm.reporting.report import write_report
from minilm.reporting.results import Baseline, Parameters, Results, Times, ZeroShot
from minilm.reporting.summary import parameter_counts
from minilm.runs.assembly import PreparedData, find_checkpoint, fresh_model
from minilm.runs.folders import describe_data
from minilm.runs.results import choose_samples
from minilm.schema import as_table
from minilm.training.console import say
from minilm.world import is_first

MEASURED = ("validation", "test")  # splits
Scores = Mapping[str, np.ndarray]  # split -> (N, C)


@dataclass(frozen=True)
class ZeroShotClassifier(ZeroShotModel):
    """A model that classifies without training, and the scores of the same checkpoint with an untrained head."""

    untrained: Scores

    def scores_of(self, rows: Rows) -> np.ndarray:
        """Log-probabilities (N, C); with several labels per text, logits."""
        return self.scores(rows.texts, rows.pairs, multi_label=rows.labels.ndim == 2)

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
    words = words_of(section, names)
    folder, limit = find_checkpoint(config), config.data.max_tokens
    if sorted(read_contents(folder).labels) == sorted(names):
        seen = "is a classifier that was trained on these labels; use the model from which it was trained"
        raise UserError(f"[zero_shot]: {folder}: {seen}")
    # Done first, so that there is only one model in memory; without labels there is nothing to compare.
    untrained = _untrained(config, prepared, runtime) if config.data.labelled else {}
    with located("[zero_shot]"):
        model, tokenizer = open_model(str(folder), section.method, str(runtime.device))
        model.to(runtime.device)
        classifier = ZeroShotClassifier(section, words, limit, model, tokenizer, runtime, untrained)
        classifier.scores_of(data.test.take(np.arange(1)))  # raises if the pattern or a word is not possible
    return classifier


def _check_data(section: ZeroShotSection, prepared: PreparedData) -> None:
    """Raises UserError if the method cannot classify texts or find labels of this kind."""
    if prepared.data.multi_label and not isinstance(section, EntailmentSection):
        raise UserError(
            f'[zero_shot]: the method "{section.method}" finds one label per text, but these data have several '
            '(data.label_columns); the method "entailment" finds several'
        )
    if prepared.data.test.pairs is not None and isinstance(section, EntailmentSection):
        raise UserError(
            '[zero_shot]: the method "entailment" reads a text and a sentence about it, so it cannot read pairs of '
            "texts (data.text_pair)"
        )


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
    splits = MEASURED if config.data.labelled else ("test",)
    sizes = " / ".join(prepared.size(split) for split in splits)
    say(
        f"{folder}: {data.name}, {sizes} texts; a model of {total:,} parameters classifies them by {section.method}, "
        f"without training, on {classifier.runtime}"
    )
    started = time.perf_counter()
    scores = {split: classifier.scores_of(prepared.rows(split)) for split in splits}
    seconds = time.perf_counter() - started
    words, labelled = dict(zip(data.label_names, classifier.words, strict=True)), config.data.labelled
    metrics = _measured(scores, prepared) if labelled else {}
    results = Results(
        name=folder.name,
        validation=metrics.get("validation"),
        test=metrics.get("test"),
        labels=data.label_names,
        baselines=_baselines(classifier, prepared) if labelled else {},
        zero_shot=ZeroShot(
            section.method, *classifier.prompt, words, {} if labelled else _given(scores["test"], data)
        ),
        parameters=Parameters(total, 0),
        times=Times(inference_seconds_per_100_texts=100 * seconds / sum(map(len, scores.values()))),
        samples=choose_samples(data.test, scores["test"], data.label_names, config.seed, labelled=labelled),
        data=describe_data(data) if labelled else replace(describe_data(data), classes={}),
    )
    for split, of_split in metrics.items() if pictures and not data.multi_label else ():
        draw_confusion(of_split, data.label_names, split, folder / "figures")
    write_predictions(
        folder, data.test, scores["test"], data.label_names, None, data.numbers["test"], data.kept,
        labelled=labelled,
    )  # fmt: skip
    write_json(folder / "results.json", as_table(results))
    if is_first():
        write_report(folder)


def _given(scores: np.ndarray, data: Dataset) -> dict[str, int]:
    """How many texts get each label."""
    decision = plain_decision(data.test.labels)
    chosen = decision.choose(decision.probabilities(scores))
    counts = chosen.sum(axis=0) if data.multi_label else np.bincount(chosen, minlength=len(data.label_names))
    return dict(zip(data.label_names, counts.tolist(), strict=True))


def _baselines(classifier: ZeroShotClassifier, prepared: PreparedData) -> dict[str, Baseline]:
    """The metrics of the majority class and of the untrained head."""
    data = prepared.data
    most = majority(data.train.labels, len(data.label_names))
    constant = {split: most.predict(prepared.rows(split).texts) for split in MEASURED}
    found = {"majority": _measured(constant, prepared), "untrained": _measured(classifier.untrained, prepared)}
    return {name: Baseline(metrics["validation"], metrics["test"]) for name, metrics in found.items()}


def _measured(scores: Scores, prepared: PreparedData) -> dict[str, Metrics]:
    return {split: measure(prepared.rows(split).labels, found) for split, found in scores.items()}
