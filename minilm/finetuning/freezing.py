"""Freezing: exclude parameters of a pretrained model from training.

Lower layers tend to compute general features, and upper layers features of the pretraining task (Yosinski et al. 2014;
Howard and Ruder 2018). Tuning only the last quarter of BERT's layers keeps about 90% of the quality (Lee et al. 2019).
So it can be enough to train the upper layers only. This needs fewer gradients and less optimizer state, and the frozen
layers' outputs can be computed once (``minilm.training.frozen_prefix``).

    "nothing"         change nothing; in a new model, all parameters train
    "backbone"        freeze all but the head
    "all-but-last"    freeze all but the last k layers and the modules after them: final norm, pooler, head
    "first"           freeze the embeddings and the first k layers; k = 0: only the embeddings

T5's layers are numbered through the encoder, then through the decoder; the table of relative positions of each is
frozen with the embeddings. ALBERT uses one layer at every depth, so it is not possible to freeze single layers.
"""

from __future__ import annotations

from torch import nn

from minilm.errors import UserError
from minilm.models.architecture import Backbone
from minilm.models.heads import ClassificationHead

PARTS = ("nothing", "backbone", "all-but-last", "first")


def freeze(model: Backbone, part: str, layers: int = 0) -> None:
    """Freeze a part of the model, in place; see the table above. A token table that is tied to the head is not frozen.

    Raises UserError if the model has fewer layers, or one set of weights for all layers; ValueError for other parts.
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
    """Whether one layer runs at several depths, as in ALBERT; then it is not possible to choose a single depth."""
    return len(set(model.blocks)) < model.num_layers


def frozen_layers(model: Backbone) -> int:
    """The number of layers before the first parameter that trains; all layers if only parameters after them train.

    -1 if the embeddings train.
    """
    depth = model.num_layers
    norms = {norm: i for i in range(depth) for norm in model.norms_after(i)}  # norm -> the last layer before it
    later = {id(p) for part in (*model.blocks, *norms, model.pooler, model.head) if part for p in part.parameters()}
    later -= {id(p) for p in model.embeddings.parameters()}  # a tied head contains the token table
    if any(p.requires_grad and id(p) not in later for p in model.parameters()):
        return -1
    first = next((i for i, layer in enumerate(model.blocks) if _trains(layer)), depth)
    return min(first, *(layer + 1 for norm, layer in norms.items() if _trains(norm)), depth)


def training_mode(model: nn.Module) -> None:
    """Set modules that train to training mode, and wholly frozen modules to evaluation mode, without dropout.

    A layer that trains in part, such as one with adapters, is in training mode, but its frozen modules are not.
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
