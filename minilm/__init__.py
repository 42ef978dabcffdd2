"""minilm: text classification with transformers, from first principles.

>>> import minilm
>>> run = minilm.train("minilm", data="reviews.csv")
>>> run.classifier().predict(["not bad at all"])
>>> classifier = minilm.Classifier.load("runs/scratch-sample")
>>> model = minilm.load_model("bert")

``reviews.csv`` has columns ``text`` and ``label``. docs/python.md describes training from Python, and
``minilm.sklearn`` is a classifier for scikit-learn. The same is a command: ``minilm --help``, or
``python -m minilm --help``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minilm.api import FinishedStudy, study, train
    from minilm.checkpoints.models import save_model
    from minilm.checkpoints.opening import load_model
    from minilm.data.tokenization import load_tokenizer
    from minilm.errors import UserError
    from minilm.evaluation.predictor import Classifier
    from minilm.reporting.record import Run, read_run
    from minilm.training.console import Interrupted

__all__ = [
    "Classifier",
    "FinishedStudy",
    "Interrupted",
    "Run",
    "UserError",
    "load_model",
    "load_tokenizer",
    "read_run",
    "save_model",
    "study",
    "train",
]

_HOMES = {
    "Classifier": "minilm.evaluation.predictor",
    "FinishedStudy": "minilm.api",
    "Interrupted": "minilm.training.console",
    "Run": "minilm.reporting.record",
    "UserError": "minilm.errors",
    "load_model": "minilm.checkpoints.opening",
    "load_tokenizer": "minilm.data.tokenization",
    "read_run": "minilm.reporting.record",
    "save_model": "minilm.checkpoints.models",
    "study": "minilm.api",
    "train": "minilm.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import minilm`` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'minilm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, also before their first use."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
