"""Gradient checkpointing (Chen et al. 2016): less memory, but about a third more time.

The backward pass needs the activations of the forward pass, about twenty tensors of (B, T, D) per layer. With gradient
checkpointing, only the input of each layer is kept; the backward pass computes the others again, layer by layer.
"""

from __future__ import annotations

from functools import partial

from torch.utils.checkpoint import checkpoint

from minilm.models.architecture import Backbone


def use_gradient_checkpointing(model: Backbone) -> None:
    """Make every layer that trains recompute its activations in the backward pass, with the same dropout."""
    for layer in dict.fromkeys(model.blocks):
        if any(p.requires_grad for p in layer.parameters()):
            # The call is wrapped, not the module, so that its parameters keep their names.
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
