"""The architectures, by the name that ``config.json`` gives them (``model_type``).

This is the one place where an architecture is registered; its file says everything else about it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from minilm.models import gpt2
from minilm.models.heads import (
    FAMILY_CLASSIFIERS,
    FAMILY_LANGUAGE,
    ClassificationHead,
    HeadConfig,
    LanguageHead,
)
from minilm.models.layers import Architecture

ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": gpt2.ARCHITECTURE,
}

TASKS = ("encode", "classify", "lm")


def build_model(
    model_type: str, config: Any, task: str = "encode", *, classes: int = 0, head: HeadConfig | None = None
) -> nn.Module:
    """A model with uninitialised weights: the backbone, and the head that the task needs.

    ``head`` is our own head's settings; None takes the family's. Under ``torch.device("meta")`` no memory is used.
    """
    architecture = ARCHITECTURES[model_type]
    model = architecture.model(config)
    if task == "classify":
        settings = head or FAMILY_CLASSIFIERS[model_type](config)
        model.head = ClassificationHead(config.width, classes, settings)
    elif task == "lm":
        embedding = model.embeddings.token if config.tied else None
        model.head = LanguageHead(config.width, config.vocab_size, FAMILY_LANGUAGE[model_type](config), embedding)
    return model
