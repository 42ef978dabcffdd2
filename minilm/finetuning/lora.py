"""LoRA: low-rank adaptation (Hu et al. 2021).

Hu et al. hypothesise that what fine-tuning adds to a matrix has a low "intrinsic rank" (section 4.1). A product B A
whose inner size is r has at most the rank r. So the pretrained W (out, in) stays frozen, and what is added to it is
learned as the product of two thin matrices, A (r, in) and B (out, r), with a small rank r such as 8:

    y = W x + b + s B A x                          s = alpha / r,  alpha a constant

        x (in)  ──►  W (out, in), frozen  ───────────────►  + b  ──►  (+)  ──►  y (out)
           │                                                           ▲
           └──►  dropout  ──►  A (r, in)  ──►  B (out, r)  ──►  * s  ──┘

        A:  ┌──────── in ────────┐        B:  ┌ r ┐
          r └────────────────────┘        out │   │
                                              └───┘

Training never forms B A, which is as large as W: it computes A x (r), then B (A x) (out). Dropout on the adapter's
input is not in the paper's equation but in its authors' code; b is the layer's own bias, frozen like W.

The start: B = 0 makes B A = 0, so training starts from the pretrained model. A is random. If A were zero too, both
gradients would stay zero, as the gradient of B contains A x, and that of A contains B. (The paper draws A from a
Gaussian; its authors' code, Hugging Face's PEFT and this file draw it from U(-1/sqrt(in), 1/sqrt(in)), the default of
``nn.Linear``.)

The scale: dividing by r means that the learning rate need not be tuned again if r changes (section 4.1). Kalajdzievski
(2023) shows that the update then shrinks as r grows, so that higher ranks stop helping, and divides by sqrt(r)
("rank-stabilized"). That changes s, from 2 to 5.7 for alpha = 16 and r = 8, so alpha must be chosen again.

What it saves: per matrix r (in + out) numbers are trained instead of in * out; for 768 x 768 and r = 8 these are 12,288
instead of 589,824, or 2%. Gradients, optimizer state and file shrink with them. Activations do not, as the gradient
passes through the frozen layers too. After training, W + s B A can replace W ("merge"): the model then runs as fast as
without an adapter.

    add_lora(model, LoRAConfig(rank=8))            # then train as usual
    merge(model)

PEFT moves the weight to ``base_layer.weight``. Here an adapted layer keeps its parameters ``weight`` and ``bias`` and
gets ``lora_a`` and ``lora_b`` in addition, so code that finds parameters by name still works. The classification head
is new and has no pretrained W, so all of it is trained. A language head stays frozen.

"Linear layer" means a module ``nn.Linear`` here, "layer" a layer of the transformer.
"""

from __future__ import annotations

import fnmatch
import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minilm.errors import UserError, nearest
from minilm.finetuning.freezing import shares_layers
from minilm.models.architecture import Backbone
from minilm.models.dropout import Dropout
from minilm.models.heads import ClassificationHead


class LoRALinear(nn.Module):
    """A linear layer with an adapter. ``weight`` and ``bias`` are the layer's own tensors, not copies."""

    def __init__(
        self, base: nn.Linear, rank: int, alpha: float, *, dropout: float = 0.0, rank_stabilized: bool = False
    ) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        out_features, in_features = base.weight.shape
        # The adapter trains in float32 even if the frozen weights are bfloat16, which has 8 significant bits: adding a
        # small step to a larger number would round it away.
        dtype, device = torch.promote_types(base.weight.dtype, torch.float32), base.weight.device
        self.lora_a = nn.Parameter(torch.empty(rank, in_features, dtype=dtype, device=device))  # A (r, in)
        self.lora_b = nn.Parameter(torch.zeros(out_features, rank, dtype=dtype, device=device))  # B (out, r)
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # as nn.Linear does: U(-1/sqrt(in), 1/sqrt(in))
        self.rank, self.alpha, self.rank_stabilized = rank, float(alpha), rank_stabilized
        self.dropout = Dropout(dropout)
        self.train(base.training)  # otherwise dropout would run in a model in evaluation mode

    @property
    def scale(self) -> float:
        """The factor s."""
        return lora_scale(self.alpha, self.rank, rank_stabilized=self.rank_stabilized)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        y = F.linear(x, self.weight, self.bias)
        if self.weight.dtype != self.lora_a.dtype and not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.lora_a.dtype)  # W may be bfloat16; autocast would do this cast
        down = F.linear(self.dropout(x), self.lora_a)  # (..., r)
        update = F.linear(down, self.lora_b)  # (..., out)
        return torch.add(y, update, alpha=self.scale).to(y.dtype)  # y + s * update; torch calls the factor alpha

    @torch.no_grad()
    def adapted_weight(self) -> Tensor:
        """What W becomes, W + s B A (out, in), in the adapter's precision and without gradients."""
        exact = nullcontext() if self.weight.is_meta else torch.autocast(self.weight.device.type, enabled=False)
        with exact:
            return torch.add(self.weight, self.lora_b @ self.lora_a, alpha=self.scale)

    def merged(self) -> nn.Linear:
        """One plain layer of the adapted weight. It has a weight of its own and shares the bias."""
        weight = self.adapted_weight().to(self.weight.dtype)
        out_features, in_features = weight.shape
        linear = nn.Linear(in_features, out_features, bias=self.bias is not None, device="meta")  # without memory
        linear.weight, linear.bias = nn.Parameter(weight, requires_grad=self.weight.requires_grad), self.bias
        return linear.train(self.training)


class DoRALinear(LoRALinear):
    """The same with DoRA (Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", equation 5): the lengths of
    W's rows, which are the weights of one output each, are learned apart from their directions.

        V = W + s B A              |V| (out,): the length of each row
        y = m / |V| * V x + b      m (out,) starts as |W|, so that y is what it was

    B A changes the directions, m the lengths. In the backward pass |V| counts as a constant, which saves memory and
    costs no accuracy (section 4.3). As in PEFT, dropout is on all that the adapter adds; with g = m / |V|:

        y = W x + b + (g - 1) W dropout(x) + g s B A dropout(x)
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, **settings: Any) -> None:
        """The arguments are those of ``LoRALinear``."""
        super().__init__(base, rank, alpha, **settings)
        self.lora_magnitude = nn.Parameter(row_lengths(base.weight.detach().to(self.lora_a.dtype)))  # m

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        y = F.linear(x, self.weight, self.bias)
        if self.weight.dtype != self.lora_a.dtype and not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.lora_a.dtype)
        x = self.dropout(x)
        g = self.lora_magnitude / row_lengths(super().adapted_weight())
        update = F.linear(F.linear(x, self.lora_a), self.lora_b)
        return (y + (g - 1) * F.linear(x, self.weight.to(x.dtype)) + g * self.scale * update).to(y.dtype)

    @torch.no_grad()
    def adapted_weight(self) -> Tensor:
        """What W becomes, m / |V| * V (out, in), in the adapter's precision and without gradients."""
        v = super().adapted_weight()
        return v * (self.lora_magnitude / row_lengths(v))[:, None]


def lora_scale(alpha: float, rank: int, *, rank_stabilized: bool) -> float:
    """The factor s of the update: alpha / r, or alpha / sqrt(r)."""
    return alpha / (math.sqrt(rank) if rank_stabilized else rank)


def row_lengths(weight: Tensor) -> Tensor:
    """The Euclidean length of each row of a matrix, (out, in) -> (out,)."""
    return torch.linalg.vector_norm(weight, dim=1)


@dataclass(frozen=True)
class LoRAConfig:
    """An adapter's settings. Raises UserError for an invalid value."""

    rank: int = 8  # r
    alpha: float = 16.0  # the update is scaled by s = alpha / rank
    dropout: float = 0.0  # on the adapter's input
    # What is adapted: "query", "key", "value", "output", "up", "gate" or "down" of every attention and MLP;
    # "all-linear": all of these; or shell patterns of whole dotted names, such as "layers.*.attention.query".
    # Query and value serve best for a given number of parameters (table 5 of the paper, which freezes all MLPs).
    targets: tuple[str, ...] = ("query", "value")
    rank_stabilized: bool = False
    layers: tuple[int, ...] = ()  # layers to adapt, from 0 (T5: the encoder's, then the decoder's); empty: all
    dora: bool = False  # the lengths of the matrices' rows are learned apart

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"LoRA: rank must be at least 1, got {self.rank}")
        if not 0 < self.alpha < math.inf:
            raise UserError(f"LoRA: alpha must be a positive number, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"LoRA: dropout must be from 0 to 1, 1 excluded, got {self.dropout}")
        if not self.targets:
            raise UserError('LoRA: targets must name the layers to adapt, such as "query" and "value"')


def add_lora(model: Backbone, config: LoRAConfig) -> list[str]:
    """Add adapters to linear layers of the model, in place. Only they and the classification head will be trained.

    An earlier ``merge`` becomes permanent: ``unmerge`` can no longer undo it.

    Returns the names of the adapted modules.

    Raises:
        UserError: the model does not have a target or a layer of the config.
        ValueError: the model already has adapters.
    """
    if adapted_layers(model):
        raise ValueError("this model already has adapters; merge them first")
    names = find_targets(model, config)
    for name in names:
        adapt_layer(
            model, name, config.rank, config.alpha,
            dropout=config.dropout, rank_stabilized=config.rank_stabilized, dora=config.dora,
        )  # fmt: skip
    train_adapters_only(model)
    return names


def adapt_layer(
    model: Backbone, name: str, rank: int, alpha: float, *, dora: bool = False, **settings: Any
) -> LoRALinear:
    """Replace the linear layer of this name by an adapted one. Its settings are its own: in a published adapter, each
    may have another rank and alpha. ``settings``: dropout and rank_stabilized, as ``LoRALinear`` takes them. Raises
    TypeError if the module is not a linear layer."""
    base = model.get_submodule(name)
    if not isinstance(base, nn.Linear):
        raise TypeError(f"{name} is not a linear layer")
    model.unmerged = {}  # what was merged before is now part of the weights
    layer = (DoRALinear if dora else LoRALinear)(base, rank, alpha, **settings)
    model.set_submodule(name, layer)
    return layer


def train_adapters_only(model: Backbone) -> None:
    """Freeze all parameters except the adapters and the classification head."""
    model.requires_grad_(False)
    for parameter in adapter_parameters(model).values():
        parameter.requires_grad_(True)
    if isinstance(model.head, ClassificationHead):
        model.head.requires_grad_(True)


def adapted_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapted layers, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All A and B, and with DoRA all m, by name."""
    return {
        f"{name}.{own}": parameter
        for name, layer in adapted_layers(model).items()
        for own, parameter in layer.named_parameters()
        if own.startswith("lora_")
    }


# --- Merging -------------------------------------------------------------------------------------------------------


def merge(model: Backbone) -> None:
    """Replace the adapted layers by plain ones of what W becomes, without DoRA W + s B A.

    The outputs stay the same, up to rounding (in the weights' own precision). W itself does not change: the adapted
    layers stay in memory for ``unmerge``, until ``model.unmerged = {}`` frees them.
    """
    layers = adapted_layers(model)
    for name, layer in layers.items():
        model.set_submodule(name, layer.merged())
    model.unmerged = model.unmerged | layers


def unmerge(model: Backbone) -> None:
    """Undo ``merge``: put the adapted layers back, bit for bit. Changes to the merged weights are lost.

    The kept layers are not submodules, so ``model.to(dtype)`` does not change them. Raises ValueError if it was called.
    """
    for name, layer in model.unmerged.items():
        now = model.get_parameter(f"{name}.weight").dtype
        if now != layer.weight.dtype:
            was = layer.weight.dtype
            raise ValueError(f"{name} was {was} when it was merged and is {now}; cast it back before unmerging")
    kept, model.unmerged = model.unmerged, {}
    for name, layer in kept.items():
        merged = model.get_submodule(name)
        model.set_submodule(name, layer.to(merged.weight.device).train(merged.training))


# --- What is adapted -----------------------------------------------------------------------------------------------


def find_targets(model: Backbone, config: LoRAConfig) -> list[str]:
    """The names of the modules to adapt, in the model's order. Raises UserError as ``add_lora`` does."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    linear = [name for name in linear if not name.startswith("head.")]  # all of the head is trained
    layer_of = _layer_of(model, linear)
    kinds = list(dict.fromkeys(name.rpartition(".")[2] for name in layer_of))  # last parts of names: "query", "up", ...
    if config.layers:
        _check_layers(model, config)
    wanted: set[str] = set()
    for target in config.targets:
        if target == "all-linear":
            found = set(layer_of)
        elif target in kinds:
            found = {name for name in layer_of if name.endswith(f".{target}")}
        else:
            found = {name for name in linear if fnmatch.fnmatchcase(name, target)}
        if not found:
            hint = nearest(target, [*kinds, "all-linear", *linear])
            raise UserError(
                f'LoRA: target "{target}" names no linear layer of this model{hint}; targets are {", ".join(kinds)}, '
                f'all-linear, and patterns of whole names such as "{linear[0]}"'
            )
        if config.layers:
            found = {name for name in found if layer_of.get(name) in config.layers}
        if not found:
            chosen = ", ".join(map(str, config.layers))
            raise UserError(
                f'LoRA: target "{target}" names nothing in layers {chosen}; remove this target, or choose other layers'
            )
        wanted |= found
    return [name for name in linear if name in wanted]


def _layer_of(model: Backbone, names: list[str]) -> dict[str, int]:
    """The layer number of each of these modules, by name, without modules outside the layers."""
    number = {module: i for i, layer in enumerate(model.blocks) for module in layer.modules()}
    modules = {name: model.get_submodule(name) for name in names}
    return {name: number[module] for name, module in modules.items() if module in number}


def _check_layers(model: Backbone, config: LoRAConfig) -> None:
    depth = model.num_layers
    if shares_layers(model):
        raise UserError(
            f'LoRA: remove the setting "layers": all {depth} layers of this model share one set of weights'
        )
    if unknown := sorted(set(config.layers) - set(range(depth))):
        raise UserError(f"LoRA: the model has no layer {unknown[0]}; its layers are 0 to {depth - 1}")
