"""The linear baseline as a separate classifier in a folder; on many small data sets it is the better model.

    linear.json            labels, terms, and settings of texts and decisions
    linear.safetensors     the fit (``baselines.py``): inverse_frequency (V,), weights (V, K), intercepts (K,),
                           fitted (K,), majority (C,)
    validation.safetensors its scores of the validation texts
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from minilm.atomic import atomic
from minilm.checkpoints.files import read_tensors, write_tensors
from minilm.data.cleaning import cleaner
from minilm.errors import UserError
from minilm.evaluation.baselines import Linear, Logistic, Majority, Terms
from minilm.evaluation.decisions import Decision
from minilm.evaluation.predictor import Predictor
from minilm.evaluation.reading import Reading
from minilm.evaluation.validation_scores import ValidationScores, read_validation
from minilm.model_files import LINEAR_FILES
from minilm.schema import JSON, read_table
from minilm.textfiles import read_json

DESCRIPTION, WEIGHTS = LINEAR_FILES


@dataclass(frozen=True)
class LinearDescription:
    """The contents of linear.json."""

    labels: list[str]
    multi_label: bool
    terms: list[str]
    reading: dict[str, Any] = field(default_factory=dict)  # as under "minilm" in a model's config


class LinearClassifier(Predictor):
    """A linear model on TF-IDF features, loaded from its folder."""

    def __init__(self, model: Linear, labels: list[str], reading: Reading, name: str, home: Path | None = None) -> None:
        self.model, self.labels, self.reading, self.name, self.home = model, labels, reading, name, home
        kind: Literal["single", "multi"] = "multi" if model.regression.multi_label else "single"
        self.decision: Decision = reading.decision(kind, len(labels), name)
        self.clean = cleaner(reading.clean)
        self.progress: Callable[[float], None] | None = None

    def scores_of_clean(self, texts: list[str], pairs: list[str] | None) -> np.ndarray:
        """Log-probabilities, or log-odds with several labels per text, (N, C)."""
        scores = self.model.predict(texts, pairs)
        if self.progress is not None:
            self.progress(1.0)
        return scores

    def watch(self, progress: Callable[[float], None]) -> None:
        """See ``Predictor.watch``: all texts are read at once."""
        self.progress = progress

    def without_temperature(self) -> None:
        """See ``Predictor.without_temperature``."""
        self.decision = self.decision.without_temperature()

    def identity(self) -> str:
        """See ``Predictor.identity``."""
        files = [] if self.home is None else [self.home / name for name in (DESCRIPTION, WEIGHTS)]
        return repr((self.name, [(path.stat().st_size, path.stat().st_mtime_ns) for path in files], self.decision))

    def validation(self) -> ValidationScores:
        """See ``Predictor.validation``."""
        return read_validation(self.home, self.name)


def save_linear(model: Linear, folder: Path, labels: list[str], reading: Reading) -> None:
    """Save a linear model in a folder. reading: with the threshold and the temperature from validation."""
    regression = model.regression
    tensors = {
        "inverse_frequency": model.terms.inverse_frequency,
        "weights": regression.weights,
        "intercepts": regression.intercepts,
        "fitted": regression.fitted.astype(np.int64),
        "majority": regression.majority.scores,
    }
    terms = sorted(model.terms.column, key=model.terms.column.__getitem__)
    known = {key: value for key, value in asdict(reading).items() if value is not None}
    description = LinearDescription(labels, regression.multi_label, terms, known)
    write_tensors(folder / WEIGHTS, {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in tensors.items()})
    with atomic(folder / DESCRIPTION) as file:
        file.write(json.dumps(asdict(description), ensure_ascii=False).encode())


def holds_linear(folder: Path) -> bool:
    """Whether a folder contains a linear model."""
    return (folder / DESCRIPTION).is_file()


def load_linear(folder: Path) -> LinearClassifier:
    """Load a folder that ``save_linear`` wrote. Raises UserError if its files were changed."""
    place = f"{folder / DESCRIPTION}"
    found = read_table(LinearDescription, read_json(folder / DESCRIPTION), lambda key: place, syntax=JSON)
    reading = Reading.from_table(found.reading, place)
    tensors = {name: tensor.numpy() for name, tensor in read_tensors(folder / WEIGHTS).items()}
    terms, classes = len(found.terms), len(found.labels)
    fitted = tensors["fitted"].shape if "fitted" in tensors else (0,)
    shapes = {
        "inverse_frequency": (terms,), "weights": (terms, *fitted), "intercepts": fitted, "fitted": fitted,
        "majority": (classes,),
    }  # fmt: skip
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        raise UserError(f"{folder / WEIGHTS}: does not belong to {DESCRIPTION} beside it; export the model again")
    columns = {term: i for i, term in enumerate(found.terms)}
    majority = Majority(tensors["majority"], 0.0)
    parts = (tensors["weights"], tensors["intercepts"], tensors["fitted"])
    regression = Logistic(*parts, majority, found.multi_label, finished=True)
    model = Linear(Terms(columns, tensors["inverse_frequency"]), regression, 0.0)
    return LinearClassifier(model, found.labels, reading, str(folder), folder)
