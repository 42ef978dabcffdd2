"""The architectures, by the name that ``config.json`` gives them (``model_type``).

This is the one place where an architecture is registered; its file says everything else about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from minilm.errors import UserError
from minilm.models import (
    albert,
    bart,
    bert,
    deberta_family,
    distilbert,
    electra,
    gemma_family,
    gpt2,
    llama,
    llama_family,
    modernbert,
    mpnet,
    t5,
    t5_family,
)
from minilm.models.architecture import Architecture, Backbone, BackboneConfig
from minilm.models.heads import ClassificationHead, HeadConfig, LanguageHead

ARCHITECTURES: dict[str, Architecture[Any]] = {
    "albert": albert.ARCHITECTURE,
    "bart": bart.ARCHITECTURE,
    "bert": bert.ARCHITECTURE,
    "camembert": bert.CAMEMBERT,
    "deberta": deberta_family.VERSION_1,
    "deberta-v2": deberta_family.ARCHITECTURE,
    "distilbert": distilbert.ARCHITECTURE,
    "electra": electra.ARCHITECTURE,
    "gemma": gemma_family.GEMMA1,
    "gemma2": gemma_family.GEMMA2,
    "gemma3_text": gemma_family.GEMMA3,
    "gpt2": gpt2.ARCHITECTURE,
    "llama": llama.ARCHITECTURE,
    "mistral": llama_family.MISTRAL,
    "modernbert": modernbert.ARCHITECTURE,
    "mpnet": mpnet.ARCHITECTURE,
    "mt5": t5_family.MT5,
    "phi3": llama_family.PHI3,
    "qwen2": llama_family.QWEN2,
    "qwen3": llama_family.QWEN3,
    "roberta": bert.ROBERTA,
    "smollm3": llama_family.SMOLLM3,
    "t5": t5.ARCHITECTURE,
    "umt5": t5_family.UMT5,
    "xlm-roberta": bert.XLM_ROBERTA,
}

TASKS = ("encode", "classify", "lm")


def build_model(
    model_type: str, config: BackboneConfig, task: str = "encode", *, classes: int = 0, head: HeadConfig | None = None
) -> Backbone:
    """A model before ``Architecture.initialize``: the parts of the backbone that the task needs, and its head.

    ``head``: settings of minilm's own head; None: the family's head. In ``without_weights()`` this uses no memory.

    Raises UserError if the head needs a pooler that the family does not have, or if the model has no language head.
    """
    architecture = ARCHITECTURES[model_type]
    settings = None if task != "classify" else head or architecture.classification_head(config)
    config = fit_config(architecture, config, task, settings, family=head is None)
    model = architecture.model(config)
    if settings is not None:
        model.head = ClassificationHead(config.width, classes, settings)
    elif task == "lm":
        embedding = model.token_embedding if config.tied else None
        model.head = LanguageHead(config.width, config.vocab_size, architecture.language_head(config), embedding)
    return model


@contextmanager
def without_weights() -> Iterator[None]:
    """A context in which models are built with shapes but without weights, which needs no memory and no time."""
    with torch.device("meta"), _NoInitialisation():
        yield


class _NoInitialisation(TorchFunctionMode):
    """Leaves new parameters as they are. (To draw random numbers on the meta device, torch would load its compiler.)"""

    def __torch_function__(
        self, function: Callable[..., Any], _: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", "") == "torch.nn.init":
            return kwargs.get("tensor", args[0] if args else None)
        return function(*args, **kwargs)


def fit_config(
    architecture: Architecture[Any], config: Any, task: str, head: HeadConfig | None, *, family: bool
) -> Any:
    """The config with the parts that the task and its classification head need, and without unused parts.

    A pooler is removed if nothing uses it and the published class has none; T5's decoder is removed for encoding.
    Raises UserError if the head needs a pooler that the family does not have, or if the model has no language head.
    """
    pools = head is not None and head.pooling == "pooler"
    if "pooler" in architecture.switches:
        spare = config.pooler and (task == "encode" or not family)  # unused, but part of the backbone
        config = replace(config, pooler=task != "lm" and (pools or spare))
    elif pools:
        raise UserError('this family has no pooler; set head.pooling to "cls", "last" or "mean"')
    if "decoder" in architecture.switches:
        needed = task == "lm" or (task == "classify" and family)
        config = replace(config, decoder=needed or (task == "classify" and config.decoder))
    return config
