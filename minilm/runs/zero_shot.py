"""A run that asks instead of training: what a model makes of texts before it has seen a single label.

Beside it stands what it must beat: the majority class of the training texts, and the same checkpoint with a head as
training would start it, which knows nothing yet.

    RUN/  config.toml  environment.json  results.json  predictions.csv  report.md  figures/
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from minilm.checkpoints.contents import read_contents
from minilm.checkpoints.files import write_json
from minilm.config import RunConfig, ZeroShotSection
from minilm.data.locations import complete
from minilm.data.sources import Rows
from minilm.data.tokenization import pad_id
from minilm.devices import Execution
from minilm.errors import UserError, nearest
from minilm.evaluation.baselines import majority
from minilm.evaluation.predictor import predict_scores
from minilm.evaluation.zero_shot import cloze, likelihood, open_model, similarity
from minilm.models.architecture import Backbone
from minilm.reporting.plots import confusion
from minilm.reporting.predictions import write_predictions
from minilm.reporting.report import write_report
from minilm.reporting.summary import parameter_counts
from minilm.runs.assembly import Material, find_checkpoint, fresh_model
from minilm.runs.folders import describe_data
from minilm.runs.results import choose_samples, measure
from minilm.training.console import say

ASKED = ("validation", "test")  # splits
Scores = Mapping[str, np.ndarray]  # of each of them, (N, C)


@dataclass(frozen=True)
class Question:
    """A model, how it is asked, and what it would say with an untrained head."""

    section: ZeroShotSection
    words: list[str]  # a word or a description for each label
    max_tokens: int  # of a text in its pattern
    model: Backbone
    tokenizer: Tokenizer
    run_on: Execution
    untrained: Scores

    def ask(self, rows: Rows) -> np.ndarray:
        """Log-probabilities (N, C)."""
        said: dict[str, Any] = {"pairs": rows.pairs, "max_tokens": self.max_tokens}
        if self.section.way == "similarity":
            return similarity(self.model, self.tokenizer, rows.texts, self.words, self.run_on, **said)
        way = cloze if self.section.way == "cloze" else likelihood
        said["content_free"] = self.section.content_free
        return way(self.model, self.tokenizer, rows.texts, self.words, self.section.pattern, self.run_on, **said)


def make_question(
    config: RunConfig, section: ZeroShotSection, material: Material, run_on: Execution, where: str
) -> Question:
    """Open the model. Raises UserError, ``where`` naming the config, where it cannot be asked so about these data."""
    data, names = material.data, material.data.label_names
    if data.multi_label:
        raise UserError(
            f"{where}: [zero_shot] finds one label a text, and these data have several (data.label_columns)"
        )
    key = "descriptions" if section.way == "similarity" else "words"
    words = one_each(getattr(section, key), names, f"{where}: zero_shot.{key}")
    folder, limit = find_checkpoint(config, where), complete(config.data).max_tokens
    if sorted(read_contents(folder).labels) == sorted(names):
        seen = "is a classifier of these labels, which has seen them; choose the model that it was made from"
        raise UserError(f"{where}: [zero_shot]: {folder}: {seen}")
    untrained = _untrained(config, material, run_on, where)  # first: two models need more memory than one
    try:
        model, tokenizer = open_model(str(folder), section.way, str(run_on.device))
        model.to(run_on.device)
        question = Question(section, words, limit, model, tokenizer, run_on, untrained)
        question.ask(data.validation.take(np.arange(1)))  # a pattern or a word that is unfit is told
    except UserError as error:
        raise UserError(f"{where}: [zero_shot]: {error}") from None
    return question


def one_each(given: Mapping[str, str], names: Sequence[str], key: str) -> list[str]:
    """What stands for each label: what is given for it, else its name.

    Raises UserError for a label there is not, or one with nothing for it.
    """
    for label in given:
        if label not in names:
            raise UserError(f'{key}: no label "{label}"{nearest(label, names)}; the data have {", ".join(names)}')
        if not given[label].strip():
            raise UserError(f'{key}: "{label}" needs a text of its own; leave it out, and it is its name')
    return [given.get(name, name) for name in names]


def _untrained(config: RunConfig, material: Material, run_on: Execution, where: str) -> Scores:
    """The scores of the classifier that training would start from."""
    model, pad = fresh_model(config, material, run_on, where), pad_id(material.tokenizer)
    return {split: predict_scores(model, material.encoded[split], run_on, pad=pad) for split in ASKED}


def answer(question: Question, config: RunConfig, material: Material, folder: Path) -> None:
    """Ask about every validation and test text, and write the figures, predictions.csv, results.json and the report."""
    data, section = material.data, question.section
    total, _ = parameter_counts(question.model)
    sizes = " / ".join(material.size(split) for split in ASKED)
    say(
        f"{folder}: {data.name}, {sizes} texts; a model of {total:,} parameters is asked by {section.way} on "
        f"{question.run_on}, and not trained"
    )
    started = time.perf_counter()
    scores = {split: question.ask(material.rows(split)) for split in ASKED}
    seconds = time.perf_counter() - started
    most = majority(data.train.labels, len(data.label_names))
    baselines: dict[str, Scores] = {
        "majority": {split: most.predict(material.rows(split).texts) for split in ASKED},
        "untrained": question.untrained,
    }
    metrics = _measured(scores, material)
    results = {
        "name": folder.name,
        **metrics,
        "labels": data.label_names,
        "baselines": {name: _measured(found, material) for name, found in baselines.items()},
        "zero_shot": {
            "way": section.way,
            "pattern": section.pattern,
            "content_free": section.content_free,
            "words": dict(zip(data.label_names, question.words, strict=True)),
        },
        "parameters": {"total": total, "trained": 0},
        "times": {"inference_seconds_per_100_texts": 100 * seconds / sum(map(len, scores.values()))},
        "samples": choose_samples(data.test, scores["test"], data.label_names, config.seed),
        "data": describe_data(data),
    }
    for split in ASKED:
        path, title = folder / "figures" / f"confusion_{split}.png", f"Confusion on the {split} texts"
        confusion(metrics[split]["confusion"], data.label_names, title, path)
    write_predictions(folder, data.test, scores["test"], data.label_names)
    write_json(folder / "results.json", results)
    write_report(folder)


def _measured(scores: Scores, material: Material) -> dict[str, dict[str, Any]]:
    return {split: measure(material.rows(split).labels, found) for split, found in scores.items()}
