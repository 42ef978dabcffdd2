"""A predictor for zero-shot classification: from texts to probabilities of labels that the user gives.

The kind of checkpoint determines the method:

    a classifier of natural language inference        entailment
    a masked-language model                           cloze
    a decoder or T5                                   likelihood
    a sentence model, or an encoder without a head    similarity

The methods are in ``zero_shot.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from minilm import devices, hub
from minilm.checkpoints.contents import read_contents
from minilm.checkpoints.merged import find_whole
from minilm.checkpoints.sentence_models import is_sentence_model
from minilm.config import EntailmentSection, PromptSection, SimilaritySection, ZeroShotSection
from minilm.data.cleaning import cleaner
from minilm.devices import Runtime
from minilm.errors import UserError, located, nearest
from minilm.evaluation.decisions import Decision
from minilm.evaluation.entailment import SLOT, entailment
from minilm.evaluation.predictor import Predictor
from minilm.evaluation.prompts import Prompt, cloze, likelihood
from minilm.evaluation.reading import Reading
from minilm.evaluation.validation_scores import ValidationScores, read_validation
from minilm.evaluation.zero_shot import METHODS, open_model, similarity
from minilm.loading import load_config
from minilm.models.architecture import Backbone
from minilm.textfiles import read_json

HYPOTHESIS = "This text is about {label}."


@dataclass(frozen=True)
class ZeroShotModel:
    """A model, a zero-shot method and C labels."""

    section: ZeroShotSection
    words: list[str]  # a word or a description for each label
    max_tokens: int  # the most tokens of a prompt or a text; 0: the model's context
    model: Backbone
    tokenizer: Tokenizer
    runtime: Runtime

    def scores(self, texts: Sequence[str], pairs: Sequence[str] | None, *, multi_label: bool = False) -> np.ndarray:
        """Log-probabilities (N, C); with several labels per text, logits."""
        model, tokenizer, runtime, section = self.model, self.tokenizer, self.runtime, self.section
        if isinstance(section, PromptSection):
            prompt = Prompt(section.pattern, self.words, section.content_free, self.max_tokens)
            method = cloze if section.method == "cloze" else likelihood
            return method(model, tokenizer, texts, prompt, runtime, pairs=pairs)
        if isinstance(section, SimilaritySection):
            return similarity(model, tokenizer, texts, self.words, runtime, pairs=pairs, max_tokens=self.max_tokens)
        hypotheses = [section.hypothesis_template.replace(SLOT, word) for word in self.words]
        return entailment(
            model, tokenizer, texts, hypotheses, runtime, multi_label=multi_label, max_tokens=self.max_tokens
        )


class ZeroShotPredictor(Predictor):
    """The predictor of a ``ZeroShotModel``."""

    def __init__(self, asked: ZeroShotModel, labels: list[str], reading: Reading, name: str, several: bool) -> None:
        """several: whether a text may get several labels."""
        self.asked, self.labels, self.reading, self.name = asked, labels, reading, name
        self.decision = Decision("multi" if several else "single")
        self.clean = cleaner(reading.clean)
        self.progress: Callable[[float], None] | None = None

    def scores_of_clean(self, texts: list[str], pairs: list[str] | None) -> np.ndarray:
        """See ``ZeroShotModel.scores``."""
        scores = self.asked.scores(texts, pairs, multi_label=self.multi_label)
        if self.progress is not None:
            self.progress(1.0)
        return scores

    def watch(self, progress: Callable[[float], None]) -> None:
        """See ``Predictor.watch``."""
        self.progress = progress

    def without_temperature(self) -> None:
        """See ``Predictor.without_temperature``; there is no temperature."""

    def identity(self) -> str:
        """See ``Predictor.identity``."""
        return repr((self.name, self.asked.section, self.asked.words, str(self.asked.runtime), self.decision))

    def validation(self) -> ValidationScores:
        """See ``Predictor.validation``; there are no validation texts."""
        return read_validation(None, self.name)


def zero_shot_predictor(
    source: str,
    labels: Sequence[str],
    *,
    method: str = "",
    pattern: str = "",
    several: bool = False,
    device: str = "auto",
) -> ZeroShotPredictor:
    """A predictor for these labels, from a folder, a catalogue name or a Hub id.

    method: empty: that of the checkpoint's kind. pattern: the prompt, or for entailment the hypothesis; empty: a
    default pattern. several: whether a text may get several labels. Raises UserError if labels, model, method and
    pattern do not match.
    """
    labels = [label.strip() for label in labels]
    if len(labels) < 2 or len(set(labels)) < len(labels) or not all(labels):
        raise UserError(f'--labels must be two labels or more, all different, such as "sports,politics"; got {labels}')
    folder = hub.resolve_model(source)
    method = method or method_of(folder)
    if several and method != "entailment":
        raise UserError(f'several labels per text need the method "entailment"; the method here is "{method}"')
    section = _section(method, pattern)
    runtime = devices.runtime(device, "float32")
    model, tokenizer = open_model(str(folder), method, str(runtime.device))
    asked = ZeroShotModel(section, list(labels), 0, model.to(runtime.device), tokenizer, runtime)
    return ZeroShotPredictor(asked, list(labels), Reading(pairs=False), str(source), several)


def _section(method: str, pattern: str) -> ZeroShotSection:
    """The config section for a method and a pattern. Raises UserError if one of them is invalid."""
    if pattern and method != "similarity" and SLOT not in pattern:
        raise UserError(f'--pattern must contain "{SLOT}", got {pattern!r}')
    match method:
        case "entailment":
            return EntailmentSection("entailment", pattern or HYPOTHESIS)
        case "similarity":
            if pattern:
                raise UserError('--pattern: the method "similarity" compares texts with labels, and has no pattern')
            return SimilaritySection("similarity")
        case "cloze":
            return PromptSection("cloze", pattern or "{text} It is about {label}.")
        case "likelihood":
            return PromptSection("likelihood", pattern or "{text}\nTopic: {label}")
    raise UserError(f'no method "{method}"{nearest(method, METHODS)}; the methods are {", ".join(METHODS)}')


def method_of(folder: Path) -> str:
    """The method for a checkpoint. Raises UserError for a classifier with its own labels."""
    stored = read_contents(folder)
    if any(label.lower().startswith("entail") for label in stored.labels):
        return "entailment"
    if stored.labels:
        raise UserError(
            f"{folder}: is a classifier with its own labels ({', '.join(stored.labels[:5])}); choose a language "
            "model, a sentence model, or a model of natural language inference"
        )
    if is_sentence_model(folder) or not (stored.task == "lm" or stored.has("head", "lm")):
        return "similarity"
    return "cloze" if stored.architecture.language_modeling == "masked" else "likelihood"


def holds_zero_shot(folder: Path) -> bool:
    """Whether a folder is that of a finished zero-shot run."""
    finished = (folder / "config.toml").is_file() and (folder / "results.json").is_file()
    return finished and not (folder / "model").is_dir() and load_config(folder / "config.toml").zero_shot is not None


def load_zero_shot(run: Path, device: str = "auto", precision: str = "") -> ZeroShotPredictor:
    """The predictor of a finished zero-shot run. Raises UserError if its files were changed."""
    config = load_config(run / "config.toml")
    section = config.zero_shot
    assert section is not None
    labels = read_json(run / "results.json").get("labels")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UserError(f"{run / 'results.json'}: labels must be a list of texts; run it again")
    words = words_of(section, labels)
    folder = find_whole(config.model.source, config.model.revision, config.model.base)
    runtime = devices.runtime(device, precision or section.precision)
    with located("[zero_shot]"):
        model, tokenizer = open_model(str(folder), section.method, str(runtime.device))
    asked = ZeroShotModel(section, words, config.data.max_tokens, model.to(runtime.device), tokenizer, runtime)
    reading = Reading(clean=config.data.clean, pairs=bool(config.data.text_pair))
    several = bool(config.data.label_columns or config.data.label_separator)
    return ZeroShotPredictor(asked, labels, reading, str(run), several)


def words_of(section: ZeroShotSection, labels: Sequence[str]) -> list[str]:
    """The word or description for each label. Raises UserError as ``one_each`` does."""
    if isinstance(section, SimilaritySection):
        return one_each(section.descriptions, labels, "zero_shot.descriptions")
    return one_each(section.words, labels, "zero_shot.words")


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
