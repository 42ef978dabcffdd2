"""LoRA: low-rank adaptation (Hu et al. 2021).

Hu et al. hypothesise that what fine-tuning adds to a matrix has a low "intrinsic rank" (section 4.1). So the pretrained
W (out, in) stays frozen, and what is added to it is learned as a product of two thin matrices, A (r, in) and
B (out, r):

    y = W x + b + s B A dropout(x)

        x (in)  ──►  W (out, in), frozen  ───────────────►  + b  ──►  (+)  ──►  y (out)
           │                                                           ▲
           └──►  dropout  ──►  A (r, in)  ──►  B (out, r)  ──►  * s  ──┘

        A:  ┌──────── in ────────┐        B:  ┌ r ┐       B A (out, in), as large as W, is never
          r └────────────────────┘        out │   │       stored in training: x meets the two
                                              └───┘       thin matrices one after the other

    s = alpha / r             Hu et al., section 4.1
    s = alpha / sqrt(r)       rank-stabilised (Kalajdzievski 2023): with alpha / r the update shrinks as r grows, so
                              higher ranks stop helping

A starts random and B at zero: training starts from the pretrained model. (The paper draws A from a Gaussian; this code,
like PEFT, from Kaiming's uniform distribution.) Trained are r (in + out) numbers per matrix instead of in * out, so
gradients, optimizer and file are small. Once trained, W + s B A can take W's place ("merge"), and the adapter costs
nothing more.

Here an adapted layer keeps ``weight`` and ``bias`` under their own names and has ``lora_a`` and ``lora_b`` beside
them: whatever finds the model's parameters by name still works. The classification head is trained whole.
"""

from __future__ import annotations

import fnmatch
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minilm.errors import UserError, nearest
from minilm.finetuning.freezing import shares_layers
from minilm.models.architecture import Backbone
from minilm.models.dropout import Dropout
from minilm.models.heads import ClassificationHead


@dataclass(frozen=True)
class LoRAConfig:
    """An adapter's settings. Raises UserError for one that makes no sense."""

    rank: int = 8
    alpha: float = 16.0  # how much the adapter weighs: see s above
    dropout: float = 0.0  # on the adapter's input
    # What is adapted: "query", "key", "value", "output", "up", "gate", "down", in every attention and MLP;
    # "all-linear": all of these; or patterns of whole names, such as "encoder.*" or "layers.?.attention.query".
    targets: tuple[str, ...] = ("query", "value")
    rank_stabilized: bool = False
    layers: tuple[int, ...] = ()  # which layers, from 0 (T5: the encoder's, then the decoder's); empty: all

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"LoRA: rank must be at least 1, got {self.rank}")
        if not 0 < self.alpha < math.inf:
            raise UserError(f"LoRA: alpha must be a positive number, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"LoRA: dropout must be from 0 to 1, 1 excluded, got {self.dropout}")
        if not self.targets:
            raise UserError('LoRA: targets must name what to adapt, such as "query" and "value"')


class LoRALinear(nn.Module):
    """A linear layer with an adapter. ``weight`` and ``bias`` are the layer's own tensors, not copies."""

    def __init__(
        self, base: nn.Linear, rank: int, alpha: float, *, dropout: float = 0.0, rank_stabilized: bool = False
    ) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        out_features, in_features = base.weight.shape
        # The adapter trains in float32 even if the frozen weights are bfloat16: its steps are small.
        dtype, device = torch.promote_types(base.weight.dtype, torch.float32), base.weight.device
        self.lora_a = nn.Parameter(torch.empty(rank, in_features, dtype=dtype, device=device))
        self.lora_b = nn.Parameter(torch.zeros(out_features, rank, dtype=dtype, device=device))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # U(-1/sqrt(in), 1/sqrt(in))
        self.rank, self.alpha, self.rank_stabilized = rank, float(alpha), rank_stabilized
        self.dropout = Dropout(dropout)
        self.train(base.training)

    @property
    def scale(self) -> float:
        """s in the formula."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        y = F.linear(x, self.weight, self.bias)
        if self.weight.dtype != self.lora_a.dtype and not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.lora_a.dtype)
        update = F.linear(F.linear(self.dropout(x), self.lora_a), self.lora_b)
        return torch.add(y, update, alpha=self.scale).to(y.dtype)

    def merged(self) -> nn.Linear:
        """One plain layer of W + s B A. It has a weight of its own and shares the bias."""
        with torch.no_grad():
            weight = torch.add(self.weight, self.lora_b @ self.lora_a, alpha=self.scale).to(self.weight.dtype)
        out_features, in_features = weight.shape
        linear = nn.Linear(in_features, out_features, bias=self.bias is not None, device="meta")
        linear.weight, linear.bias = nn.Parameter(weight, requires_grad=self.weight.requires_grad), self.bias
        return linear.train(self.training)


def add_lora(model: Backbone, config: LoRAConfig) -> list[str]:
    """Adapt linear layers of the model, in place. Only adapters and the classification head are trained from now on.

    Returns the names of the adapted modules. Raises UserError for a target or a layer that the model does not have.
    """
    if adapted_layers(model):
        raise ValueError("this model has adapters already; merge them first")
    names = find_targets(model, config)
    for name in names:
        adapt_layer(
            model, name, config.rank, config.alpha, dropout=config.dropout, rank_stabilized=config.rank_stabilized
        )
    train_adapters_only(model)
    return names


def adapt_layer(
    model: Backbone, name: str, rank: int, alpha: float, *, dropout: float = 0.0, rank_stabilized: bool = False
) -> LoRALinear:
    """Put an adapted layer in the place of the linear layer of this name."""
    base = model.get_submodule(name)
    if not isinstance(base, nn.Linear):
        raise TypeError(f"{name} is no linear layer")
    model.unmerged = {}  # what was merged before is part of the weights now
    layer = LoRALinear(base, rank, alpha, dropout=dropout, rank_stabilized=rank_stabilized)
    model.set_submodule(name, layer)
    return layer


def train_adapters_only(model: Backbone) -> None:
    """Freeze all but the adapters and the classification head."""
    model.requires_grad_(False)
    for parameter in adapter_parameters(model).values():
        parameter.requires_grad_(True)
    if isinstance(model.head, ClassificationHead):
        model.head.requires_grad_(True)


def adapted_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapted layers, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All A and B, by name."""
    return {
        f"{name}.{matrix}": getattr(layer, matrix)
        for name, layer in adapted_layers(model).items()
        for matrix in ("lora_a", "lora_b")
    }


# --- Merging -------------------------------------------------------------------------------------------------------


def merge(model: Backbone) -> None:
    """Put plain layers of W + s B A in the place of the adapted ones, which are kept for ``unmerge``.

    The outputs stay the same, up to rounding (in the weights' own precision). Nothing happens to W itself.
    """
    layers = adapted_layers(model)
    for name, layer in layers.items():
        model.set_submodule(name, layer.merged())
    model.unmerged = model.unmerged | layers


def unmerge(model: Backbone) -> None:
    """Put the adapted layers back as they were before ``merge``, bit for bit.

    Raises ValueError where the model has another dtype by now: the layers that were kept have not.
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
    """The names of the modules that ``config`` wants adapted, in the model's order. Errors as ``add_lora``'s."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    linear = [name for name in linear if not name.startswith("head.")]  # the head is trained whole
    number_of = {module: number for number, layer in enumerate(model.blocks) for module in layer.modules()}
    in_layers = {name: number_of[module] for name in linear if (module := model.get_submodule(name)) in number_of}
    kinds = list(dict.fromkeys(name.rpartition(".")[2] for name in in_layers))
    wanted: dict[str, set[str]] = {}
    for target in config.targets:
        if target == "all-linear":
            found = set(in_layers)
        elif target in kinds:
            found = {name for name in in_layers if name.endswith(f".{target}")}
        else:
            found = {name for name in linear if fnmatch.fnmatchcase(name, target)}
        if not found:
            hint = nearest(target, [*kinds, "all-linear", *linear])
            raise UserError(
                f'LoRA: target "{target}" names no linear layer of this model{hint}; there are: {", ".join(kinds)}, '
                f'all-linear, and patterns of whole names such as "{linear[0]}"'
            )
        wanted[target] = found
    if config.layers:
        _check_layers(model, config)
        wanted = {target: {n for n in found if in_layers.get(n) in config.layers} for target, found in wanted.items()}
    for target, found in wanted.items():
        if not found:
            chosen = ", ".join(map(str, config.layers))
            raise UserError(
                f'LoRA: target "{target}" names nothing in the layers {chosen}; leave it out, or choose others'
            )
    return [name for name in linear if any(name in found for found in wanted.values())]


def _check_layers(model: Backbone, config: LoRAConfig) -> None:
    layers = model.num_layers
    if shares_layers(model):
        raise UserError(
            f"LoRA: layers cannot choose here: all {layers} layers of this model share one set of weights; "
            "leave it empty"
        )
    if unknown := sorted(set(config.layers) - set(range(layers))):
        raise UserError(f"LoRA: the model has no layer {unknown[0]}; its layers are 0 to {layers - 1}")
