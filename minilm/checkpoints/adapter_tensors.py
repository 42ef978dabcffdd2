"""The tensors in ``adapter_model.safetensors``, by minilm's names. Names and shapes are checked before a model changes.

Tensors are named after the published modules:

    base_model.model.<module>.lora_A.weight (r, in), .lora_B.weight (out, r)       A and B of an adapted module
    base_model.model.<module>.lora_magnitude_vector (out,)                         DoRA: the lengths of its rows
    base_model.model.<module>.lora_B.bias (out,)                                   a bias of B, with "lora_bias"
    base_model.model.<module>.base_layer.bias                                      its bias, if it was trained
    base_model.model.<module>.weight, .bias                                        of a fully trained module
    base_model.model.<module>.lora_embedding_A (r, V), .lora_embedding_B (D, r)    of a table: ``adapter_tables``
    base_model.model.<module>.token_adapter.trainable_tokens_delta (n, D)          some of its rows

T5's published classes have a copy of the token table for each stack, and PEFT can train the copies separately. minilm
has one table, so such an adapter can be read only if all copies are equal; all copies are written.

A published module may be several of ours side by side: ``adapter_forms``.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from minilm.checkpoints.adapter_configs import CONFIG, INSTEAD, AdapterConfig
from minilm.checkpoints.adapter_forms import Adapter, check_shape, diagonal, made_for, scaled_alpha
from minilm.checkpoints.adapter_inits import plain_adapter
from minilm.checkpoints.adapter_tables import DELTA, changed_tables, may_untie
from minilm.checkpoints.contents import TOKENS
from minilm.checkpoints.files import Entry, Reader, read_folder, read_header, sample
from minilm.checkpoints.matching import equal
from minilm.checkpoints.models import card_of
from minilm.checkpoints.names import (
    Place,
    is_ignored,
    module_of,
    places_of_ours,
    places_of_theirs,
    plain_name,
    rows_of,
)
from minilm.errors import UserError
from minilm.finetuning.lora import lora_scale
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Backbone
from minilm.models.heads import ClassificationHead

log = logging.getLogger("minilm")

STEM = "adapter_model"
PREFIX = "base_model.model."


@dataclass
class AdapterTensors:
    """The tensors of an adapter for a model, by minilm's names."""

    adapters: dict[str, Adapter] = field(default_factory=dict)  # by module
    whole: dict[str, Tensor] = field(default_factory=dict)  # parameter -> its value


def places_for(model: Backbone, *, prefixed: bool = False) -> tuple[Place, ...]:
    """The name table for a model; its head is in it if it is the family's.

    ``prefixed``: with the names of the base's published class, which may be a vision-language model."""
    card = card_of(model)
    task, names = "encode" if card.own_head else card.task, ARCHITECTURES[card.model_type].names
    if card.nested:
        names = replace(names, prefix={task: prefix + names.nested for task, prefix in names.prefix.items()})
    return rows_of(names, model.config, task, prefixed=prefixed)


def copies_of(theirs: str, model: Backbone) -> list[str]:
    """The published names from which a tensor is read: for T5's token table one per stack, otherwise its own name.

    The table's own name, ``shared``, only ties these copies together, and parameters trained with PEFT are not tied.
    """
    stacks = {name.partition(".")[0] for name, _ in model.named_parameters()}
    old = ARCHITECTURES[card_of(model).model_type].names.old
    copies = [theirs.replace(name, copy) for copy, name in old if name in theirs and copy.partition(".")[0] in stacks]
    return copies or [theirs]


# --- Reading -------------------------------------------------------------------------------------------------------


def read_adapter(model: Backbone, folder: Path, config: AdapterConfig) -> AdapterTensors:
    """Read the adapter's tensors, as views. Raises UserError if a tensor does not match the model or the config."""
    reader, places, names = Reader(), places_for(model), ARCHITECTURES[card_of(model).model_type].names
    pairs, tables, tensors = _sort(folder, config)
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    held, prefix = AdapterTensors(), ""
    for module, pair in pairs.items():
        plain = plain_name(f"{module}.weight", names)
        parts = [place for place in places_of_theirs(plain, places) if place.module in linear]
        if not parts:
            file = pair["A.weight"].file
            raise UserError(f"{file}: adapts {module}, which {_this(model)} does not have{made_for(config)}")
        prefix = prefix or f"{module}.weight".removesuffix(plain)  # none before a head's module
        held.adapters |= _parts(model, module, parts, pair, config, reader)
    if config.init:
        why = f"its initial A and B were subtracted from the base model's weights ({config.init})"
        log.warning("%s: loaded as plain LoRA of twice the rank, as %s", config.where, why)
    there = [
        module_of(_in_file(place, prefix)) for name in linear for place in places_of_ours(f"{name}.weight", places)
    ]
    _check_targets(config, there, pairs)
    held.whole = _whole(model, places, tensors, config, reader)
    _check_whole(model, config, places, prefix, held, folder)
    if config.published["trainable_token_indices"] and not any(DELTA in changes for changes in tables.values()):
        raise UserError(f"{folder}: lacks the tokens of trainable_token_indices; download {STEM}.safetensors again")
    for module, changes in tables.items():
        held.whole |= changed_tables(model, places, module, changes, held.whole, config, reader)
    if config.lora_bias:
        held.whole |= _biases(model, places, pairs, held, config, reader)
    if config.head is not None:
        held.whole |= _own_head(model, folder, config, reader)
    if isinstance(model.head, ClassificationHead) and "head.output.weight" not in held.whole:
        log.warning("%s: contains no head; the model keeps its own head", folder)
    return held


_ByModule = dict[str, dict[str, Entry]]


def _sort(folder: Path, config: AdapterConfig) -> tuple[_ByModule, _ByModule, dict[str, Entry]]:
    """A, B and magnitude (DoRA) by module; partial changes of tables by module; all other tensors by name."""
    pairs, tables, tensors = _ByModule(), _ByModule(), dict[str, Entry]()
    for key, entry in read_folder(folder, STEM).items():
        name = key.removeprefix(PREFIX)
        if name == key:
            raise UserError(f"{entry.file}: unexpected tensor {key}; in PEFT's format all names begin with {PREFIX}")
        if match := re.fullmatch(r"(.+)\.lora_(A\.weight|B\.weight|B\.bias|magnitude_vector)", name):
            pairs.setdefault(match[1], {})[match[2]] = entry
        elif match := re.fullmatch(r"(.+)\.(lora_embedding_[AB]|token_adapter\.trainable_tokens_delta)", name):
            tables.setdefault(match[1], {})[match[2]] = entry
        elif match := re.search(r"\.(lora_\w+)", name):
            raise UserError(f"{entry.file}: {key} is not an A or B of a linear layer; {match[1]} is not supported")
        elif not re.search(r"\.(original_module|modules_to_save)\.", name):
            tensors[name] = entry
        elif config.bias != "all" or not name.endswith(".bias"):  # with "all", copies of biases may be stored too
            raise UserError(f"{entry.file}: {key} belongs to a module inside another trained module; {INSTEAD}")
    for module in pairs.keys() & tables.keys():  # DoRA of a table
        tables[module] |= pairs.pop(module)
    more = {"magnitude_vector": config.dora, "B.bias": config.lora_bias}
    wanted = {"A.weight", "B.weight", *(name for name, given in more.items() if given)}
    for module, pair in pairs.items():
        for absent in sorted(wanted - pair.keys()):
            raise UserError(f"{folder}: lacks {PREFIX}{module}.lora_{absent}; download {STEM}.safetensors again")
        for spare in pair.keys() - wanted:
            entry, key = pair[spare], "use_dora" if spare == "magnitude_vector" else "lora_bias"
            raise UserError(f"{entry.file}: has {entry.name}, but {config.where} says {key} = false")
    if not pairs:
        raise UserError(f"{folder}: {STEM}.safetensors contains no LoRA adapter; download it again")
    return pairs, tables, tensors


def _parts(
    model: Backbone, module: str, parts: list[Place], pair: dict[str, Entry], config: AdapterConfig, reader: Reader
) -> dict[str, Adapter]:
    """The adapters of minilm's modules that are parts of this published module, usually one."""
    rank, alpha, layout = config.rank_of(module), config.alpha_of(module), parts[0].layout
    out_features, in_features = model.get_parameter(parts[0].ours).shape
    rows = layout.rows_of_all(out_features, parts[0].row.part)
    for entry, along in ((pair["A.weight"], 0), (pair["B.weight"], 1)):
        if len(entry.shape) == 2 and entry.shape[along] != rank:
            its = entry.shape[along]
            raise UserError(f"{entry.file}: {entry.name} has the rank {its}, but {config.where} says {rank}")
    check_shape(pair["A.weight"], (rank, in_features), config)
    check_shape(pair["B.weight"], (rows, rank), config)
    a, b, magnitude = reader.view(pair["A.weight"]), reader.view(pair["B.weight"]), None
    if config.init:
        a, b, alpha = _plain(model, parts, a, b, alpha, config)
    if config.dora:
        check_shape(pair["magnitude_vector"], (rows,), config)
        magnitude = reader.view(pair["magnitude_vector"])

    def adapter(place: Place, a: Tensor, b: Tensor, alpha: float) -> Adapter:
        part = place.row.part
        return Adapter(a, layout.cut(b, part), alpha, None if magnitude is None else layout.cut(magnitude, part))

    if module not in config.blocks:
        return {place.module: adapter(place, a, b, alpha) for place in parts}

    own = [place for place in parts if place.row.part in config.blocks[module]]
    if not own or len(own) != len(config.blocks[module]) or rank % len(own):
        raise UserError(f"{config.where}: minilm.blocks of {module} must list parts that divide its rank, {rank}")
    alpha = scaled_alpha(alpha, 1 / len(own), rank_stabilized=config.rank_stabilized)
    found = {
        place.module: adapter(place, a_block, b_block, alpha)
        for place, a_block, b_block in zip(own, a.chunk(len(own)), b.chunk(len(own), dim=1), strict=True)
    }
    if not torch.equal(diagonal({place.row.part: found[place.module].b for place in own}, layout), b):
        name = pair["B.weight"].name
        raise UserError(f"{pair['B.weight'].file}: {name} is not zero outside the blocks of minilm.blocks")
    return found


def _biases(
    model: Backbone,
    places: tuple[Place, ...],
    pairs: dict[str, dict[str, Entry]],
    held: AdapterTensors,
    config: AdapterConfig,
    reader: Reader,
) -> dict[str, Tensor]:
    """The biases of adapted modules with a bias c of B: as B A x + c adds s c to every output, b becomes b + s c.

    Raises UserError for a module without a bias.
    """
    names, biases = ARCHITECTURES[card_of(model).model_type].names, {}
    for module, pair in pairs.items():
        entry, rank = pair["B.bias"], config.rank_of(module)
        scale = lora_scale(config.alpha_of(module), rank, rank_stabilized=config.rank_stabilized)
        for place in places_of_theirs(plain_name(f"{module}.bias", names), places):
            if place.module not in held.adapters:
                continue
            own = model.get_submodule(place.module).get_parameter("bias") if _has_bias(model, place.module) else None
            if own is None:
                raise UserError(
                    f"{entry.file}: {entry.name} is for a module without a bias, which no merged model has either; "
                    "train the adapter with lora_bias = false"
                )
            check_shape(entry, (place.layout.rows_of_all(len(own), place.row.part),), config)
            before = held.whole.get(place.ours, own.detach())
            biases[place.ours] = before + scale * place.layout.cut(reader.view(entry), place.row.part).to(before)
    return biases


def _has_bias(model: Backbone, module: str) -> bool:
    layer = model.get_submodule(module)
    return isinstance(layer, nn.Linear) and layer.bias is not None


def _plain(
    model: Backbone, parts: list[Place], a: Tensor, b: Tensor, alpha: float, config: AdapterConfig
) -> tuple[Tensor, Tensor, float]:
    """A, B and alpha of the equivalent plain adapter, if the initial A and B were subtracted from W."""
    layout, rank = parts[0].layout, len(a)
    by_part = sorted(parts, key=lambda place: place.row.part)
    weight = layout.join([model.get_parameter(place.ours) for place in by_part])
    scale = lora_scale(alpha, rank, rank_stabilized=config.rank_stabilized)
    a, b = plain_adapter(config.init, a, b, weight, scale, transposed=layout.transposed)
    return a, b, scaled_alpha(alpha, 2, rank_stabilized=config.rank_stabilized)


def _whole(
    model: Backbone, places: tuple[Place, ...], tensors: dict[str, Entry], config: AdapterConfig, reader: Reader
) -> dict[str, Tensor]:
    """The values of the fully trained parameters."""
    names = ARCHITECTURES[card_of(model).model_type].names
    parameters = dict(model.named_parameters(remove_duplicate=False))
    users = Counter(map(id, parameters.values()))
    stored: dict[str, dict[str, Entry]] = {}  # plain name -> name in the file -> copy
    for name, entry in tensors.items():
        stored.setdefault(plain_name(name.replace(".base_layer.", "."), names), {})[name] = entry
    whole = {}
    for plain, copies in stored.items():
        entry = next(iter(copies.values()))
        found = [place for place in places_of_theirs(plain, places) if place.ours in parameters]
        if not found and places_of_theirs(plain, rows_of(names, model.config, "classify")):
            raise UserError(
                f"{entry.file}: {entry.name} belongs to a part that {_this(model)} does not have{made_for(config)}; "
                "load the model for the adapter's task, with its family's head"
            )
        if not found and not is_ignored(plain, names):
            raise UserError(f"{entry.file}: {entry.name} is not a tensor of {_this(model)}{made_for(config)}")
        for place in found:
            parameter = parameters[place.ours]
            for copy in copies.values():
                check_shape(copy, place.shape_of_theirs(tuple(parameter.shape)), config)
            if users[id(parameter)] > 1 and not may_untie(model):
                raise UserError(f"{entry.file}: {entry.name} was trained separately; {_this(model)} ties it to another")
            _check_copies(model, place, copies, reader)
            if next(p.theirs for p in places_of_ours(place.ours, places) if p.theirs in stored) == plain:
                whole[place.ours] = place.take(reader.view(entry))
    return whole


def _check_copies(model: Backbone, place: Place, copies: dict[str, Entry], reader: Reader) -> None:
    """Raises UserError if copies of one table have different values. A copy that is not stored has the base's values.
    """
    entry, *others = copies.values()
    same, needed = all(equal(entry, other) for other in others), copies_of(place.theirs, model)
    if needed != [place.theirs] and not all(any(name.endswith(copy) for name in copies) for copy in needed):
        value, of_base = place.take(reader.view(entry)), model.get_parameter(place.ours).detach()
        same = same and (of_base.is_meta or torch.equal(value.to(of_base.dtype), of_base.cpu()))
    if not same:
        raise UserError(
            f"{entry.file}: {entry.name} differs from other copies of the same table, but {_this(model)} has only one "
            "table; remove it from modules_to_save, and train the adapter again"
        )


def _own_head(model: Backbone, folder: Path, config: AdapterConfig, reader: Reader) -> dict[str, Tensor]:
    file = folder / "head.safetensors"
    stored = {f"head.{name}": entry for name, entry in read_header(file).items()}
    asked = {name: tuple(p.shape) for name, p in model.named_parameters() if name.startswith("head.")}
    for name in sorted(stored.keys() ^ asked.keys()):
        verb = "lacks the tensor" if name in asked else "has the unexpected tensor"
        raise UserError(f"{file}: {verb} {name.removeprefix('head.')}; is it the head of this adapter?")
    for name, entry in stored.items():
        check_shape(entry, asked[name], config)
    return {name: reader.view(entry) for name, entry in stored.items()}


def _check_targets(config: AdapterConfig, there: list[str], held: Mapping[str, object]) -> None:
    """Raises UserError if the config and the file adapt different modules of the model."""
    if config.published["target_modules"] in (None, "all-linear"):  # these mean: the modules in the file
        return
    for module in sorted(there):
        if config.targets(module) and module not in held:
            raise UserError(f"{config.where}: adapts {module}, but {STEM}.safetensors has no tensors for it")
    for module in held:
        if not config.targets(module):
            raise UserError(f"{config.where}: does not adapt {module}, but {STEM}.safetensors does; download both")


def _check_whole(
    model: Backbone, config: AdapterConfig, places: tuple[Place, ...], prefix: str, held: AdapterTensors, folder: Path
) -> None:
    """Raises UserError if a fully trained module is missing in the file. Warns if biases are missing."""
    biases = []
    for name, _ in model.named_parameters():
        for place in places_of_ours(name, places)[:1] if name not in held.whole else ():
            theirs = _in_file(place, prefix)
            if config.saves(theirs):
                raise UserError(
                    f"{folder}: {STEM}.safetensors lacks {PREFIX}{theirs}, which {CONFIG} says was trained; download "
                    "it again"
                )
            of_adapter = config.bias == "lora_only" and module_of(name) in held.adapters
            if theirs.endswith(".bias") and (config.bias == "all" or of_adapter):
                biases.append(theirs)
    if biases:
        log.warning("%s: lacks %d trained biases, such as %s; uses the base model's", folder, len(biases), biases[0])


def _in_file(place: Place, prefix: str) -> str:
    """A published name with the prefix that this adapter's class uses."""
    return place.theirs if place.ours.startswith("head.") else prefix + place.theirs


def _this(model: Backbone) -> str:
    return f"this {card_of(model).model_type} model"


def sample_of_base(model: Backbone, adapted: Collection[str], whole: Collection[str]) -> Tensor:
    """Some values of each adapted weight, in the model's order, and of the token table, which identify the base model.

    ``whole``: the fully trained parameters, whose values differ from the base's.
    """
    names = [f"{name}.weight" for name, _ in model.named_modules() if name in adapted]
    names += [TOKENS] if TOKENS not in whole else []
    return torch.cat([sample(model.get_parameter(name)).float() for name in names])
