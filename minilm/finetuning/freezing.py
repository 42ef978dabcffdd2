"""Freezing: which parameters of a pretrained model training leaves as they are.

Lower layers tend to hold general features and upper ones those of the pretraining task (Yosinski et al. 2014; Howard
and Ruder 2018). Tuning only the last quarter of BERT's layers keeps about 90% of the quality (Lee et al. 2019). So a
model may keep its lower layers and learn only the upper ones: fewer gradients, less optimizer state, and the frozen
layers' outputs can be computed once (``minilm.training.frozen_prefix``).

    "nothing"         the model is left as it is: of a new one, all parameters train
    "backbone"        the head alone trains
    "all-but-last"    the last k layers train, with what follows them: final norm, pooler, head
    "first"           the embeddings and the first k layers are frozen; k = 0: the embeddings alone

T5's layers are numbered through the encoder, then the decoder; a stack's table of relative positions is frozen with the
embeddings. ALBERT reuses one layer at every depth, so single layers cannot be frozen.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from minilm.errors import UserError
from minilm.models.layers import stages_of

PARTS = ("nothing", "backbone", "all-but-last", "first")


def freeze(model: nn.Module, part: str, layers: int = 0) -> None:
    """Choose what trains, in place: see the table above. A head tied to the token table lets that train as well.

    Raises UserError where the model has fewer layers, or has one for all places; ValueError for another part.
    """
    if part not in PARTS or layers < 0:
        raise ValueError(f"part must be one of {', '.join(PARTS)} and layers at least 0, got {part!r} and {layers}")
    if part == "nothing":
        return
    model.requires_grad_(False)
    stack, depth = layers_of(model), stages_of(model)
    if part != "backbone" and layers:
        if shares_layers(model):
            raise UserError(
                f"freeze.part: all {depth} layers of this model share one set of weights, so none can be frozen "
                'without the others; use "nothing", "backbone", or "first" with freeze.layers = 0 (the embeddings)'
            )
        if layers > depth:
            raise UserError(f"freeze.layers is {layers}, but the model has {depth} layers")
    head = getattr(model, "head", None)
    if head is not None:
        head.requires_grad_(True)
    if part == "backbone":
        return
    first = layers if part == "first" else depth - layers
    for layer in stack[first:]:
        layer.requires_grad_(True)
    for norm in _norms_after(model, first):
        norm.requires_grad_(True)
    pooler = getattr(model, "pooler", None)
    if pooler is not None and (head is None or head.config.pooling == "pooler"):
        pooler.requires_grad_(True)


def layers_of(model: Any) -> list[nn.Module]:
    """The layers in the order in which they are numbered and run: the encoder's, then the decoder's."""
    if hasattr(model, "encoder"):
        return [*model.encoder.layers, *(model.decoder.layers if hasattr(model, "decoder") else ())]
    return list(model.layers)


def shares_layers(model: nn.Module) -> bool:
    """Whether one layer runs at several depths, as ALBERT's does: then no single depth can be chosen."""
    return len(layers_of(model)) < stages_of(model)


def _norms_after(model: Any, first: int) -> list[nn.Module]:
    """The final norms that the output of layer ``first`` passes through."""
    if hasattr(model, "encoder"):
        stacks = [model.encoder] if first < model.config.depth or not hasattr(model, "decoder") else []
        return [stack.norm for stack in (*stacks, *([model.decoder] if hasattr(model, "decoder") else ()))]
    return [model.norm] if hasattr(model, "norm") else []


def frozen_layers(model: nn.Module) -> int:
    """How many layers come before the first parameter that trains; all, where only what follows them trains.

    -1: the embeddings train, so nothing before the first layer is fixed.
    """
    stack, depth = layers_of(model), stages_of(model)
    tables = [getattr(model, name) for name in ("encoder", "decoder") if hasattr(model, name)]
    first_parts = [model.get_submodule("embeddings"), *(table.relative_bias for table in tables)]
    if any(_trains(part) for part in first_parts):
        return -1
    number = next((i for i, layer in enumerate(stack) if _trains(layer)), depth)
    if hasattr(model, "encoder") and _trains(tables[0].norm):
        number = min(number, len(tables[0].layers))  # it comes before the decoder's first layer
    return number


def training_mode(model: nn.Module) -> None:
    """Training mode for what trains; evaluation mode, without dropout, for whatever is wholly frozen.

    A layer that trains in part, such as one with adapters, has its own dropout, but not that of its frozen parts.
    """
    has_parameters = next(model.parameters(), None) is not None
    if has_parameters and not _trains(model):
        model.eval()
        return
    model.training = True
    for child in model.children():
        training_mode(child)


def _trains(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())
