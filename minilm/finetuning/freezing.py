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

from torch import nn

from minilm.errors import UserError
from minilm.models.architecture import Backbone
from minilm.models.heads import ClassificationHead

PARTS = ("nothing", "backbone", "all-but-last", "first")


def freeze(model: Backbone, part: str, layers: int = 0) -> None:
    """Choose what trains, in place: see the table above. A head tied to the token table lets that train as well.

    Raises UserError if the model has fewer layers, or one set of weights for all of them; ValueError for another part.
    """
    if part not in PARTS or layers < 0:
        raise ValueError(f"part must be one of {', '.join(PARTS)} and layers at least 0, got {part!r} and {layers}")
    if part == "nothing":
        return
    model.requires_grad_(False)
    depth = model.num_layers
    if part != "backbone" and layers:
        if shares_layers(model):
            raise UserError(
                f"freeze.part: all {depth} layers of this model share one set of weights, so none can be frozen "
                'without the others; use "nothing", "backbone", or "first" with freeze.layers = 0 (the embeddings)'
            )
        if layers > depth:
            raise UserError(f"freeze.layers is {layers}, but the model has {depth} layers")
    if model.head is not None:
        model.head.requires_grad_(True)
    if part == "backbone":
        return
    first = layers if part == "first" else depth - layers
    for layer in model.blocks[first:]:
        layer.requires_grad_(True)
    for norm in model.norms_after(first):
        norm.requires_grad_(True)
    if model.pooler is not None and (model.head is None or reads_pooler(model)):
        model.pooler.requires_grad_(True)


def reads_pooler(model: Backbone) -> bool:
    """Whether the head reads the pooler's output."""
    return isinstance(model.head, ClassificationHead) and model.head.config.pooling == "pooler"


def shares_layers(model: Backbone) -> bool:
    """Whether one layer runs at several depths, as ALBERT's does: then no single depth can be chosen."""
    return len(set(model.blocks)) < model.num_layers


def frozen_layers(model: Backbone) -> int:
    """How many layers come before the first parameter that trains; all, if only what follows them trains.

    -1: the embeddings train, so nothing before the first layer is fixed.
    """
    depth = model.num_layers
    norms = {norm: i for i in range(depth) for norm in model.norms_after(i)}  # -> the last layer before the norm
    later = {id(p) for part in (*model.blocks, *norms, model.pooler, model.head) if part for p in part.parameters()}
    later -= {id(p) for p in model.embeddings.parameters()}  # a tied head has the token table
    if any(p.requires_grad and id(p) not in later for p in model.parameters()):
        return -1
    first = next((i for i, layer in enumerate(model.blocks) if _trains(layer)), depth)
    return min(first, *(layer + 1 for norm, layer in norms.items() if _trains(norm)), depth)


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
