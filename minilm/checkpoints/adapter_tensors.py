"""What lies in ``adapter_model.safetensors``, by our names: settled by names and shapes before a model is touched.

Tensors are named after the published modules:

    base_model.model.<module>.lora_A.weight (r, in), .lora_B.weight (out, r)       A and B of an adapted module
    base_model.model.<module>.base_layer.bias                                      its bias, where that was trained
    base_model.model.<module>.weight, .bias                                        of a module that was trained whole

T5's classes keep a copy of the token table for each stack. An adapter can train them apart; ours is one, so it is read
where all copies are equal, and written as all of them.

A published module may be several of ours side by side (GPT-2's c_attn is query, key and value), with one A and one B.
In the *shared form*, PEFT's own, all parts have this A, and each has its own rows of B. In the *block form*, which can
hold any of our adapters, each part has its own rows of A, and of B one block on a diagonal; r is the sum of the ranks,
and alpha is so much larger that s stays the same:

    A = [A_q; A_v]        B = [[B_q, 0], [0, 0], [0, B_v]]        "blocks": [0, 2]
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from minilm.checkpoints.adapter_configs import CONFIG, INSTEAD, AdapterConfig
from minilm.checkpoints.contents import TOKENS
from minilm.checkpoints.files import Entry, Reader, read_folder, read_header, sample
from minilm.checkpoints.matching import equal
from minilm.checkpoints.models import card_of
from minilm.checkpoints.names import (
    Layout,
    Place,
    is_ignored,
    module_of,
    places_of_ours,
    places_of_theirs,
    plain_name,
    rows_of,
)
from minilm.errors import UserError
from minilm.finetuning.lora import LoRALinear
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Backbone
from minilm.models.heads import ClassificationHead

log = logging.getLogger("minilm")

STEM = "adapter_model"
PREFIX = "base_model.model."


@dataclass
class AdapterTensors:
    """What an adapter holds for a model, by our names."""

    adapters: dict[str, tuple[Tensor, Tensor, float]] = field(default_factory=dict)  # module -> A, B, alpha
    whole: dict[str, Tensor] = field(default_factory=dict)  # parameter -> its value


def places_for(model: Backbone, *, prefixed: bool = False) -> tuple[Place, ...]:
    """The name table for a model; its head is in it if it is the family's.

    ``prefixed``: with the names of the base's published class, which may be one that reads images too."""
    card = card_of(model)
    task, names = "encode" if card.own_head else card.task, ARCHITECTURES[card.model_type].names
    if card.nested:
        names = replace(names, prefix={task: prefix + names.nested for task, prefix in names.prefix.items()})
    return rows_of(names, model.config, task, prefixed=prefixed)


def copies_of(theirs: str, model: Backbone) -> list[str]:
    """The published names under which a tensor is read: of T5's token table, one a stack; of all others, its own.

    The table's own name, ``shared``, only ties these copies together, and what is trained under PEFT is not tied.
    """
    stacks = {name.partition(".")[0] for name, _ in model.named_parameters()}
    old = ARCHITECTURES[card_of(model).model_type].names.old
    copies = [theirs.replace(name, copy) for copy, name in old if name in theirs and copy.partition(".")[0] in stacks]
    return copies or [theirs]


# --- Reading -------------------------------------------------------------------------------------------------------


def read_adapter(model: Backbone, folder: Path, config: AdapterConfig) -> AdapterTensors:
    """Everything that the folder holds, as views. Raises UserError for what does not fit the model or the config."""
    reader, places, names = Reader(), places_for(model), ARCHITECTURES[card_of(model).model_type].names
    pairs, tensors = _sort(folder, config)
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    held, prefix = AdapterTensors(), ""
    for module, pair in pairs.items():
        plain = plain_name(f"{module}.weight", names)
        parts = [place for place in places_of_theirs(plain, places) if place.module in linear]
        if not parts:
            raise UserError(f"{pair['A'].file}: adapts {module}, which {_this(model)} does not have{_for(config)}")
        prefix = prefix or f"{module}.weight".removesuffix(plain)  # none before a head's module
        held.adapters |= _parts(model, module, parts, pair, config, reader)
    there = [
        module_of(_in_file(place, prefix)) for name in linear for place in places_of_ours(f"{name}.weight", places)
    ]
    _check_targets(config, there, pairs)
    held.whole = _whole(model, places, tensors, config, reader)
    _check_whole(model, config, places, prefix, held, folder)
    if config.head is not None:
        held.whole |= _own_head(model, folder, config, reader)
    if isinstance(model.head, ClassificationHead) and "head.output.weight" not in held.whole:
        log.warning("%s: holds no head; the model keeps the one that it has", folder)
    return held


def _sort(folder: Path, config: AdapterConfig) -> tuple[dict[str, dict[str, Entry]], dict[str, Entry]]:
    """Pairs of A and B, by module; and the other tensors, by name."""
    pairs: dict[str, dict[str, Entry]] = {}
    tensors: dict[str, Entry] = {}
    for key, entry in read_folder(folder, STEM).items():
        name = key.removeprefix(PREFIX)
        if name == key:
            raise UserError(f"{entry.file}: unexpected tensor {key}; in PEFT's format every name begins with {PREFIX}")
        if match := re.fullmatch(r"(.+)\.lora_([AB])\.weight", name):
            pairs.setdefault(match[1], {})[match[2]] = entry
        elif match := re.search(r"\.(lora_\w+)", name):
            raise UserError(f"{entry.file}: {key} is no A or B of a linear layer; {match[1]} is not supported here")
        elif not re.search(r"\.(original_module|modules_to_save)\.", name):
            tensors[name] = entry
        elif config.bias != "all" or not name.endswith(".bias"):  # "all" lets in copies of the biases stored beside
            raise UserError(f"{entry.file}: {key} is of a module that was trained inside another; {INSTEAD}")
    for module, pair in pairs.items():
        for absent in {"A", "B"} - pair.keys():
            raise UserError(f"{folder}: lacks {PREFIX}{module}.lora_{absent}.weight; is {STEM}.safetensors whole?")
    if not pairs:
        raise UserError(f"{folder}: {STEM}.safetensors holds no LoRA adapter; is it whole?")
    return pairs, tensors


def _parts(
    model: Backbone, module: str, parts: list[Place], pair: dict[str, Entry], config: AdapterConfig, reader: Reader
) -> dict[str, tuple[Tensor, Tensor, float]]:
    """A, B and alpha of our modules that are parts of this published one; usually it has one part."""
    rank, alpha, layout = config.rank_of(module), config.alpha_of(module), parts[0].layout
    out_features, in_features = model.get_parameter(parts[0].ours).shape
    for entry, along in ((pair["A"], 0), (pair["B"], 1)):
        if len(entry.shape) == 2 and entry.shape[along] != rank:
            its = entry.shape[along]
            raise UserError(f"{entry.file}: {entry.name} is of rank {its}, but {config.where} says {rank}")
    _check_shape(pair["A"], (rank, in_features), config)
    _check_shape(pair["B"], (layout.rows_of_all(out_features, parts[0].row.part), rank), config)
    a, b = reader.view(pair["A"]), reader.view(pair["B"])
    if module not in config.blocks:
        return {place.module: (a, layout.cut(b, place.row.part), alpha) for place in parts}

    own = [place for place in parts if place.row.part in config.blocks[module]]
    if not own or len(own) != len(config.blocks[module]) or rank % len(own):
        raise UserError(f"{config.where}: minilm.blocks of {module} must name parts of it that share its rank, {rank}")
    alpha = _alpha(alpha, 1 / len(own), rank_stabilized=config.rank_stabilized)
    found = {
        place.module: (a_block, layout.cut(b_block, place.row.part), alpha)
        for place, a_block, b_block in zip(own, a.chunk(len(own)), b.chunk(len(own), dim=1), strict=True)
    }
    if not torch.equal(_diagonal({place.row.part: found[place.module][1] for place in own}, layout), b):
        raise UserError(f"{pair['B'].file}: {pair['B'].name} is not zero outside the blocks of minilm.blocks")
    return found


def _diagonal(blocks: Mapping[int, Tensor], layout: Layout) -> Tensor:
    """The B of a fused module, (out, r): for each of these parts a block of columns, zero in the rows of the others."""
    columns = []
    one, block = next(iter(blocks.items()))
    unit = len(block) // layout.sizes[one]
    for part, b in blocks.items():
        rows = [b if i == part else b.new_zeros(unit * size, b.shape[1]) for i, size in enumerate(layout.sizes)]
        columns.append(layout.join(rows))
    return torch.cat(columns, dim=1)


def _alpha(alpha: float, times: float, *, rank_stabilized: bool) -> float:
    """The alpha with which s stays the same for so many times the rank; without the last digits, which are rounding."""
    return float(f"{alpha * (math.sqrt(times) if rank_stabilized else times):.12g}")


def _whole(
    model: Backbone, places: tuple[Place, ...], tensors: dict[str, Entry], config: AdapterConfig, reader: Reader
) -> dict[str, Tensor]:
    """The values of the parameters that are stored whole."""
    names = ARCHITECTURES[card_of(model).model_type].names
    parameters = dict(model.named_parameters(remove_duplicate=False))
    users = Counter(map(id, parameters.values()))
    stored: dict[str, dict[str, Entry]] = {}  # plain name -> its copies, by their names in the file
    for name, entry in tensors.items():
        stored.setdefault(plain_name(name.replace(".base_layer.", "."), names), {})[name] = entry
    whole = {}
    for plain, copies in stored.items():
        entry = next(iter(copies.values()))
        found = [place for place in places_of_theirs(plain, places) if place.ours in parameters]
        if not found and places_of_theirs(plain, rows_of(names, model.config, "classify")):
            raise UserError(
                f"{entry.file}: {entry.name} is of a part that {_this(model)} does not have{_for(config)}; "
                "open that one for the adapter's task, with its family's head"
            )
        if not found and not is_ignored(plain, names):
            raise UserError(f"{entry.file}: {entry.name} is no tensor of {_this(model)}{_for(config)}")
        for place in found:
            parameter = parameters[place.ours]
            for copy in copies.values():
                _check_shape(copy, place.shape_of_theirs(tuple(parameter.shape)), config)
            if users[id(parameter)] > 1:
                raise UserError(f"{entry.file}: {entry.name} was trained on its own; {_this(model)} ties it to another")
            _check_copies(model, place, copies, reader)
            if next(p.theirs for p in places_of_ours(place.ours, places) if p.theirs in stored) == plain:
                whole[place.ours] = place.take(reader.view(entry))
    return whole


def _check_copies(model: Backbone, place: Place, copies: dict[str, Entry], reader: Reader) -> None:
    """Raises UserError if copies of one table were trained apart. One that is not there is the base's still."""
    entry, *others = copies.values()
    same, needed = all(equal(entry, other) for other in others), copies_of(place.theirs, model)
    if needed != [place.theirs] and not all(any(name.endswith(copy) for name in copies) for copy in needed):
        value, of_base = place.take(reader.view(entry)), model.get_parameter(place.ours).detach()
        same = same and (of_base.is_meta or torch.equal(value.to(of_base.dtype), of_base.cpu()))
    if not same:
        raise UserError(
            f"{entry.file}: {entry.name} was trained apart from other copies of it, but {_this(model)} has one for "
            "all; leave it out of modules_to_save, and train the adapter again"
        )


def _own_head(model: Backbone, folder: Path, config: AdapterConfig, reader: Reader) -> dict[str, Tensor]:
    file = folder / "head.safetensors"
    stored = {f"head.{name}": entry for name, entry in read_header(file).items()}
    asked = {name: tuple(p.shape) for name, p in model.named_parameters() if name.startswith("head.")}
    for name in sorted(stored.keys() ^ asked.keys()):
        verb = "lacks the tensor" if name in asked else "has the unexpected tensor"
        raise UserError(f"{file}: {verb} {name.removeprefix('head.')}; is it the head of this adapter?")
    for name, entry in stored.items():
        _check_shape(entry, asked[name], config)
    return {name: reader.view(entry) for name, entry in stored.items()}


def _check_shape(entry: Entry, asked: tuple[int, ...], config: AdapterConfig) -> None:
    if entry.shape != asked:
        raise UserError(f"{entry.file}: {entry.name} has the shape {entry.shape}, the model's is {asked}{_for(config)}")
    if not entry.dtype.is_floating_point or entry.dtype.itemsize == 1:
        kind = str(entry.dtype).removeprefix("torch.")
        raise UserError(f"{entry.file}: {entry.name} holds {kind} numbers, which are not read here")


def _check_targets(config: AdapterConfig, there: list[str], held: Mapping[str, object]) -> None:
    """Raises UserError where the config adapts other modules than the file does, of those that the model has."""
    if config.published["target_modules"] in (None, "all-linear"):  # which mean: what the file holds
        return
    for module in sorted(there):
        if config.targets(module) and module not in held:
            raise UserError(f"{config.where}: adapts {module}, but {STEM}.safetensors has nothing for it; is it whole?")
    for module in held:
        if not config.targets(module):
            raise UserError(f"{config.where}: leaves {module} out, but {STEM}.safetensors adapts it")


def _check_whole(
    model: Backbone, config: AdapterConfig, places: tuple[Place, ...], prefix: str, held: AdapterTensors, folder: Path
) -> None:
    """Raises UserError where a module that was trained whole is not there. Warns of biases that are not."""
    biases = []
    for name, _ in model.named_parameters():
        for place in places_of_ours(name, places)[:1] if name not in held.whole else ():
            theirs = _in_file(place, prefix)
            if config.saves(theirs):
                raise UserError(f"{folder}: {STEM}.safetensors lacks {PREFIX}{theirs}, which {CONFIG} says was trained")
            of_adapter = config.bias == "lora_only" and module_of(name) in held.adapters
            if theirs.endswith(".bias") and (config.bias == "all" or of_adapter):
                biases.append(theirs)
    if biases:
        log.warning("%s: lacks %d trained biases, such as %s; the base's are used", folder, len(biases), biases[0])


def _in_file(place: Place, prefix: str) -> str:
    """A published name as this adapter's class has it."""
    return place.theirs if place.ours.startswith("head.") else prefix + place.theirs


def _this(model: Backbone) -> str:
    return f"this {card_of(model).model_type} model"


def _for(config: AdapterConfig) -> str:
    return f"; the adapter is for {config.base}" if config.base else ""


def sample_of_base(model: Backbone, adapted: Collection[str], whole: Collection[str]) -> Tensor:
    """Some numbers of each adapted weight, in the model's order, and of the token table: they identify the base.

    ``whole``: the parameters that are trained themselves, and so are not the base's.
    """
    names = [f"{name}.weight" for name, _ in model.named_modules() if name in adapted]
    names += [TOKENS] if TOKENS not in whole else []
    return torch.cat([sample(model.get_parameter(name)).float() for name in names])


# --- Writing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PeftAdapter:
    """The adapter of one published module."""

    a: Tensor  # (r, in)
    b: Tensor  # (out, r)
    alpha: float
    blocks: list[int]  # the parts that b has blocks for; none: the module is one of ours


def publish(layers: Mapping[str, LoRALinear], places: tuple[Place, ...]) -> dict[str, PeftAdapter]:
    """Our adapters as those of the published modules, by name. Raises UserError if parts of one differ."""
    groups: dict[str, list[tuple[Place, LoRALinear]]] = {}
    for name, layer in layers.items():
        place = places_of_ours(f"{name}.weight", places)[0]
        groups.setdefault(place.their_module, []).append((place, layer))
    published = {}
    for module, group in groups.items():
        place, layer = group[0]
        if len(place.layout.sizes) == 1:
            published[module] = PeftAdapter(layer.lora_a.detach(), layer.lora_b.detach(), layer.alpha, [])
        elif len({(part.rank, part.alpha) for _, part in group}) == 1:
            published[module] = _in_blocks(sorted(group, key=lambda pair: pair[0].row.part))
        else:
            parts = ", ".join(place.module for place, _ in group)
            raise UserError(f"LoRA: {parts} are one module in PEFT's format; give them one rank and one alpha")
    return published


def _in_blocks(group: list[tuple[Place, LoRALinear]]) -> PeftAdapter:
    place, layer = group[0]
    a = torch.cat([part.lora_a.detach() for _, part in group])
    b = _diagonal({place.row.part: part.lora_b.detach() for place, part in group}, place.layout)
    alpha = _alpha(layer.alpha, len(group), rank_stabilized=layer.rank_stabilized)
    return PeftAdapter(a, b, alpha, [place.row.part for place, _ in group])
