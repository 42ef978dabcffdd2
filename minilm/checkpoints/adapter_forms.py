"""Convert adapters of minilm's modules to adapters of published modules, which may combine several of minilm's.

GPT-2's c_attn combines query, key and value, with one A and one B. In the *shared form*, which PEFT uses, all parts
share A, and each has its own rows of B. In the *block form*, which can represent any of minilm's adapters, each part
has its own rows of A and one diagonal block of B; r is the sum of the ranks, and alpha grows so that s is the same:

    A = [A_q; A_v]        B = [[B_q, 0], [0, 0], [0, B_v]]        "blocks": [0, 2]

With DoRA, the rows of a part without an adapter have the lengths of the base model's rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from minilm.checkpoints.adapter_configs import AdapterConfig
from minilm.checkpoints.files import Entry
from minilm.checkpoints.matching import check_dtype
from minilm.checkpoints.names import Layout, Place, places_of_ours, places_of_theirs
from minilm.errors import UserError
from minilm.finetuning.lora import DoRALinear, LoRALinear, adapted_layers, row_lengths
from minilm.models.architecture import Backbone


@dataclass(frozen=True)
class Adapter:
    """The adapter of one of minilm's modules."""

    a: Tensor  # (r, in)
    b: Tensor  # (out, r)
    alpha: float
    magnitude: Tensor | None = None  # (out,): with DoRA


@dataclass(frozen=True)
class PeftAdapter:
    """The adapter of one published module."""

    a: Tensor  # (r, in)
    b: Tensor  # (out, r)
    alpha: float
    blocks: list[int]  # the parts with blocks in b; none: the module is one of minilm's
    magnitude: Tensor | None = None  # (out,): with DoRA

    def tensors(self) -> dict[str, Tensor]:
        """The tensors to store, by the suffixes of their names."""
        found = {"lora_A.weight": self.a, "lora_B.weight": self.b}
        return found if self.magnitude is None else found | {"lora_magnitude_vector": self.magnitude}


def publish(model: Backbone, places: tuple[Place, ...]) -> dict[str, PeftAdapter]:
    """The adapters of the published modules, by name. Raises UserError if parts of one module differ in settings."""
    groups: dict[str, list[tuple[Place, LoRALinear]]] = {}
    for name, layer in adapted_layers(model).items():
        place = places_of_ours(f"{name}.weight", places)[0]
        groups.setdefault(place.their_module, []).append((place, layer))
    published = {}
    for module, group in groups.items():
        place, layer = group[0]
        if len(place.layout.sizes) == 1:
            magnitude = layer.lora_magnitude.detach() if isinstance(layer, DoRALinear) else None
            published[module] = PeftAdapter(layer.lora_a.detach(), layer.lora_b.detach(), layer.alpha, [], magnitude)
        elif len({(part.rank, part.alpha) for _, part in group}) == 1:
            published[module] = _in_blocks(sorted(group, key=lambda pair: pair[0].row.part), model, places)
        else:
            parts = ", ".join(place.module for place, _ in group)
            raise UserError(f"LoRA: {parts} are one module in PEFT's format; give them one rank and one alpha")
    return published


def _in_blocks(group: list[tuple[Place, LoRALinear]], model: Backbone, places: tuple[Place, ...]) -> PeftAdapter:
    place, layer = group[0]
    a = torch.cat([part.lora_a.detach() for _, part in group])
    b = diagonal({place.row.part: part.lora_b.detach() for place, part in group}, place.layout)
    alpha = scaled_alpha(layer.alpha, len(group), rank_stabilized=layer.rank_stabilized)
    magnitude = _magnitude_of_all(place, model, places) if isinstance(layer, DoRALinear) else None
    return PeftAdapter(a, b, alpha, [place.row.part for place, _ in group], magnitude)


def _magnitude_of_all(place: Place, model: Backbone, places: tuple[Place, ...]) -> Tensor:
    """The row lengths of a fused module, (out,): the trained ones, and the base model's for the other parts."""
    lengths = {}
    for part in places_of_theirs(place.theirs, places):
        layer = model.get_submodule(part.module)
        weight = model.get_parameter(part.ours).float()
        lengths[part.row.part] = layer.lora_magnitude if isinstance(layer, DoRALinear) else row_lengths(weight)
    return place.layout.join([lengths[number].detach() for number in sorted(lengths)])


def diagonal(blocks: Mapping[int, Tensor], layout: Layout) -> Tensor:
    """The B of a fused module, (out, r): each part has a block of columns, which is zero in the other parts' rows."""
    columns = []
    one, block = next(iter(blocks.items()))
    unit = len(block) // layout.sizes[one]
    for part, b in blocks.items():
        rows = [b if i == part else b.new_zeros(unit * size, b.shape[1]) for i, size in enumerate(layout.sizes)]
        columns.append(layout.join(rows))
    return torch.cat(columns, dim=1)


def scaled_alpha(alpha: float, times: float, *, rank_stabilized: bool) -> float:
    """The alpha that gives the same s if the rank is multiplied by ``times``, rounded to remove rounding errors."""
    return float(f"{alpha * (math.sqrt(times) if rank_stabilized else times):.12g}")


def check_shape(entry: Entry, asked: tuple[int, ...], config: AdapterConfig) -> None:
    """Raises UserError if a tensor has a wrong shape, or a dtype that is not a plain floating-point type."""
    if entry.shape != asked:
        shapes = f"has the shape {entry.shape}, but the model needs {asked}"
        raise UserError(f"{entry.file}: {entry.name} {shapes}{made_for(config)}")
    check_dtype(entry)


def made_for(config: AdapterConfig) -> str:
    """An addition to a message that names the adapter's base model, if it is known."""
    return f"; the adapter is for {config.base}" if config.base else ""
