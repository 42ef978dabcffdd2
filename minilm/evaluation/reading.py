"""How a classifier reads texts, and how its scores become answers: what its config.json holds besides the model."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from minilm.checkpoints.models import card_of
from minilm.config import DataSection, Fraction, Positive
from minilm.errors import UserError
from minilm.evaluation.decisions import Decision, Kind
from minilm.loading import load_config
from minilm.models.architecture import Backbone, Card
from minilm.schema import Limit, read_table

Text = str | tuple[str, str]  # a text, or a pair
PROBLEMS = (None, "single_label_classification", "multi_label_classification", "regression")  # problem_type
# Activations of a cross-encoder's score.
IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"


def kind_of(card: Card) -> Kind:
    """The kind of a model's outputs, from its problem type and their number, as in the pipeline of ``transformers``."""
    problem = card.published.get("problem_type")
    if problem == "multi_label_classification":
        return "multi"
    return "score" if problem == "regression" or len(card.labels) == 1 else "single"


@dataclass(frozen=True)
class Reading:
    """How texts are prepared, in prediction as in training. Saved as "minilm" in the model's config.json."""

    # The most tokens that the model reads at once; 0: the model's context.
    max_tokens: Annotated[int, Limit("a whole number of at least 0", lambda n: n >= 0)] = 0
    clean: list[str] = field(default_factory=list)  # cleaning steps
    pairs: bool | None = None  # whether it reads pairs of texts; None: unknown
    # The probability from which a label is assigned: with several labels per text, one number for all labels or one per
    # label; with one label per text and two classes, that of the second class.
    threshold: Fraction | list[Fraction] = 0.5
    temperature: list[Positive] = field(default_factory=list)  # one number; with several labels, one each
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"  # train.precision
    long_texts: Literal["cut", "head-tail", "windows"] = "cut"  # how to handle longer texts, as data.long_texts
    window_stride: Annotated[int, Limit("a whole number of at least 0", lambda n: n >= 0)] = 0
    window_scores: Literal["mean", "max"] = "mean"

    @classmethod
    def of(cls, card: Card) -> Reading:
        """The settings in a model's config. Raises UserError for an invalid value."""
        place = f"{card.folder}/config.json" if card.adapter is None else f"{card.adapter}/adapter_config.json"
        return cls.from_table(card.extra, place)

    @classmethod
    def from_table(cls, table: dict[str, Any], place: str) -> Reading:
        """The settings in a table, which may have other keys too. Raises UserError for an invalid value."""
        names = {f.name for f in fields(cls)}
        stored = {key: value for key, value in table.items() if key in names}
        return read_table(cls, stored, lambda key: place, "minilm.")

    def decision(self, kind: Literal["single", "multi"], classes: int, name: str) -> Decision:
        """How scores of C classes become labels. ``name``: the model's name in messages. Raises UserError for a wrong
        number of thresholds or temperatures."""
        wanted = classes if kind == "multi" else 1
        for key, values in (("threshold", self.threshold), ("temperature", self.temperature or [1.0] * wanted)):
            if isinstance(values, list) and len(values) != wanted:
                count = f"{wanted} numbers, one for each label," if wanted > 1 else "one number,"
                raise UserError(f"{name}: minilm.{key} must contain {count} got {len(values)}")
        threshold = np.array(self.threshold) if isinstance(self.threshold, list) else self.threshold
        return Decision(kind, threshold, np.array(self.temperature) if self.temperature else None)


def decided(decision: Decision) -> dict[str, Any]:
    """A decision in the form of a ``Reading``."""
    found: dict[str, Any] = {}
    if decision.kind == "multi" or decision.has_threshold:
        many = isinstance(decision.threshold, np.ndarray)
        found["threshold"] = np.asarray(decision.threshold).tolist() if many else decision.threshold
    if decision.temperature is not None:
        found["temperature"] = decision.temperature.tolist()
    return found


def remember(decision: Decision, model: Backbone) -> None:
    """Store a decision in the model's config, under "minilm"."""
    card_of(model).extra |= decided(decision)


def decision_of(card: Card, reading: Reading) -> Decision:
    """The decision of a model. Raises UserError for an unsupported problem type or activation."""
    kind, problem = kind_of(card), card.published.get("problem_type")
    if problem not in PROBLEMS or (problem == PROBLEMS[1] and len(card.labels) == 1):
        known = ", ".join(map(str, PROBLEMS[1:]))
        what = "is none of" if problem not in PROBLEMS else "needs two labels or more; there are"
        raise UserError(f"{card.folder}/config.json: problem_type {problem!r} {what} {known}")
    if kind != "score":
        return reading.decision(kind, len(card.labels), str(card.adapter or card.folder or "the model"))
    return Decision("score", raw=problem == "regression" or _is_raw(card))


def _is_raw(card: Card) -> bool:
    """Whether the output of a cross-encoder is the raw score, and not its sigmoid, according to its config.json.

    It names the activation in one of two places, as ``sentence_transformers.CrossEncoder`` reads and writes it.
    """
    section = card.published.get("sentence_transformers")
    named = section.get("activation_fn") if isinstance(section, dict) else None
    activation = named or card.published.get("sbert_ce_default_activation_function")
    known = {None: False, SIGMOID: False, IDENTITY: True}
    if activation not in known:
        where = f"{card.folder}/config.json"
        raise UserError(f"{where}: activation_fn {activation!r} is not supported, only {IDENTITY} and {SIGMOID}")
    return known[activation]


def names_of(card: Card) -> list[str]:
    """The names of the outputs, (C,): the labels; a single output without a name is "score"."""
    return ["score"] if card.labels == ["LABEL_0"] else card.labels


def columns_of(run: Path, pairs: bool) -> tuple[DataSection, str]:
    """The columns of a run's config, and where they are given; the default columns if there is no config."""
    path = config_of_run(run)
    if path is not None:
        return load_config(path).data, f" in {path}"
    return DataSection(text_pair="text_pair" if pairs else ""), f" by default, as {run} has no config.toml"


def config_of_run(folder: Path) -> Path | None:
    """The config of a run, from its folder or the folder of its model; None if the folder is not that of a run."""
    places = (folder / "config.toml", folder.parent / "config.toml")[: 2 if folder.name == "model" else 1]
    return next((path for path in places if path.is_file()), None)
