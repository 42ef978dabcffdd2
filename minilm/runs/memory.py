"""How much memory a training step takes, from the shapes of its tensors: no weight is read, and nothing is computed.

AdamW keeps two moments of each trained parameter in float32, and the backward pass makes its gradient. The forward pass
keeps tensors for the backward pass ("activations"), which frees them while it makes the gradients:

    weights         all parameters, in the dtype in which they are stored
    moments         8 bytes for each trained parameter
    gradients       4 bytes for each trained parameter
    activations     the tensors that autograd keeps, for B texts of T tokens

    memory = weights + moments + max(activations, gradients)          or their sum, if gradients are accumulated

The activations are counted, not derived from a formula: the model's own forward pass runs on tensors that have a shape
and a dtype but no numbers (torch's compiler uses such "fake" tensors too), and all tensors that it keeps are added up.
So frozen layers, adapters, 16-bit products and every architecture count as they are. What is not counted: the program
itself (torch is about 300 MiB), temporary results inside a layer, and the cached outputs of frozen layers.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minilm.checkpoints.matching import parameter_names, set_parameter
from minilm.finetuning.freezing import training_mode
from minilm.models.architecture import Backbone
from minilm.models.batch import Batch
from minilm.models.rotary import rotary_frequencies

MOMENTS, GRADIENT = 8, 4  # bytes for a trained parameter
FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class StepMemory:
    """The memory of a training step, in bytes."""

    weights: int
    moments: int
    gradients: int
    activations: int
    accumulates: bool = False  # whether gradients of earlier batches are there during the forward pass

    @property
    def total(self) -> int:
        """The most that is needed at a time."""
        parts = self.activations, self.gradients
        return self.weights + self.moments + (sum(parts) if self.accumulates else max(parts))


def step_memory(
    model: Backbone,
    texts: int,
    tokens: int,
    *,
    bfloat16: bool = False,
    accumulate: int = 1,
    checkpointing: bool = False,
) -> StepMemory:
    """The memory of a training step on a CPU, for batches of so many texts of so many tokens.

    model: on the meta device, frozen as it will train; it is not changed. bfloat16: whether products are computed in
    it. checkpointing: whether ``train.gradient_checkpointing`` is on.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return StepMemory(
        weights=sum(p.numel() * p.element_size() for p in model.parameters()),
        moments=MOMENTS * trained,
        gradients=GRADIENT * trained,
        activations=_activations(model, texts, tokens, bfloat16=bfloat16, checkpointing=checkpointing),
        accumulates=accumulate > 1,
    )


def _activations(model: Backbone, texts: int, tokens: int, *, bfloat16: bool, checkpointing: bool) -> int:
    """The bytes of the tensors that a forward pass keeps."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):  # models compute constants (rotary angles) when they are built
        fake = _without_numbers(model)
        training_mode(fake)
        batch = Batch(torch.zeros(texts, tokens, dtype=torch.int64), torch.ones(texts, tokens, dtype=torch.bool))
        kept = KeptTensors(fake)
        products = torch.autocast("cpu", dtype=torch.bfloat16) if bfloat16 else contextlib.nullcontext()
        try:
            with kept.counting(), products:
                fake(batch)
        finally:
            rotary_frequencies.cache_clear()  # those of this mode have no numbers
    layers = kept.of_layers
    if not checkpointing or not layers:
        return kept.outside + sum(layers)
    # Each layer that keeps anything keeps only its input; one layer at a time computes the rest again.
    recomputed = sum(size > 0 for size in layers)
    return kept.outside + max(layers) + recomputed * texts * tokens * model.config.width * FLOAT32


def _without_numbers(model: Backbone) -> Backbone:
    """A copy of a model on the meta device with fake parameters on the CPU; those that modules share stay shared."""
    fake = copy.deepcopy(model)
    for first, *others in parameter_names(fake):
        given = fake.get_parameter(first)
        parameter = nn.Parameter(torch.empty(given.shape, dtype=given.dtype, device="cpu"), given.requires_grad)
        for name in (first, *others):
            set_parameter(fake, name, parameter)
    return fake


class KeptTensors:
    """Counts the bytes that autograd keeps in a forward pass, without the model's own weights."""

    def __init__(self, model: Backbone) -> None:
        self.model = model
        self.outside = 0  # outside of the layers
        self.of_layers: list[int] = []  # in each layer that ran
        self._inside = False
        self._seen = {p.untyped_storage()._cdata for p in model.parameters()}
        self._alive: list[Tensor] = []  # so that no two of them get the same address

    @contextlib.contextmanager
    def counting(self) -> Any:
        """The context of the forward pass."""
        blocks = list(dict.fromkeys(self.model.blocks))
        hooks = [block.register_forward_pre_hook(self._begin) for block in blocks]
        hooks += [block.register_forward_hook(self._end) for block in blocks]
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _begin(self, layer: nn.Module, inputs: Any) -> None:
        self._inside = True
        self.of_layers.append(0)

    def _end(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        self._inside = False

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self._alive.append(tensor)
            if self._inside:
                self.of_layers[-1] += storage.nbytes()
            else:
                self.outside += storage.nbytes()
        return tensor
