"""minilm: text classification with transformers, from first principles.

>>> import minilm
>>> model = minilm.load_model("bert")
>>> classifier = minilm.Classifier.load("runs/scratch-sample")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minilm.checkpoints.models import save_model
    from minilm.checkpoints.opening import load_model
    from minilm.data.tokenization import load_tokenizer
    from minilm.evaluation.predictor import Classifier

__all__ = ["Classifier", "load_model", "load_tokenizer", "save_model"]

_HOMES = {
    "Classifier": "minilm.evaluation.predictor",
    "load_model": "minilm.checkpoints.opening",
    "save_model": "minilm.checkpoints.models",
    "load_tokenizer": "minilm.data.tokenization",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import minilm`` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'minilm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
