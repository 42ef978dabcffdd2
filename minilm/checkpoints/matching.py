"""Match stored tensors with parameters, by names and shapes, before memory is allocated.

Every parameter must be found, and every stored tensor must be accounted for:

    a parameter is        read from a stored tensor of its shape; or part of a new head, which starts untrained
    a stored tensor is    read; or a copy of one that is read (it must be equal); or a bias that the config lacks
                          (it must be zero); or in a part that this task does not use; or one that no model needs

Anything else is an error that names the tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from minilm.checkpoints.files import Entry, view_once
from minilm.checkpoints.names import Place, places_of_ours, places_of_theirs
from minilm.errors import UserError, nearest

Stored = Mapping[str, Sequence[Entry]]  # plain name -> the tensors of that name; more than one: copies


@dataclass
class Match:
    """The result of matching."""

    read: dict[str, tuple[Place, Entry]] = field(default_factory=dict)  # by minilm's name
    untrained: list[str] = field(default_factory=list)  # minilm's names
    copies: list[tuple[Entry, Entry]] = field(default_factory=list)  # a tensor that is read, and its copy
    zeros: list[Entry] = field(default_factory=list)


def parameter_names(model: nn.Module) -> list[list[str]]:
    """All names of each parameter: two if a head shares the token embedding."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return list(names.values())


def set_parameter(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Replace the parameter of this name."""
    module, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(module), leaf, parameter)


def match(
    model: nn.Module,
    stored: Stored,
    places: Sequence[Place],
    *,
    all_places: Sequence[Place],
    new: tuple[str, ...],
    where: Path,
) -> Match:
    """Find every parameter, and account for every stored tensor.

    Args:
        model: a model with its parameters on the meta device.
        stored: the tensors in the files.
        places: the name table for this model.
        all_places: the family's name table, including the heads of all tasks.
        new: the prefixes of the names of parameters that need not be stored.
        where: the folder, for error messages.

    Raises:
        UserError: a tensor is missing, unexpected, or has a wrong shape or dtype.
    """
    result = Match()
    missing: list[str] = []
    accounted: set[str] = set()
    for names in parameter_names(model):
        found = [places_of_ours(name, places) for name in names]
        accounted.update(place.theirs for of_name in found for place in of_name)
        used = [next((place for place in of_name if place.theirs in stored), None) for of_name in found]
        held = [(place, entry) for place in used if place is not None for entry in stored[place.theirs]]
        if not held and names[0].startswith(new):
            result.untrained.append(names[0])
        elif not held:
            missing.append(found[0][0].theirs if found[0] else names[0])
        else:
            for place, entry in held:
                _check_shape(place, entry, names[0], model.get_parameter(names[0]))
            result.read[names[0]] = held[0]
            result.copies += [(held[0][1], entry) for _, entry in held[1:]]
    unexpected: list[str] = []
    parts = {name.partition(".")[0] for name, _ in model.named_parameters()} - {"head"}
    for plain in stored.keys() - accounted:
        of_ours = places_of_theirs(plain, all_places)
        if any(place.may_be_zero for place in of_ours):
            result.zeros += stored[plain]
        elif not of_ours or any(place.ours.partition(".")[0] in parts for place in of_ours):
            unexpected.append(plain)
    if missing:
        hint = nearest(missing[0], unexpected)
        raise UserError(f"{where}: lacks the tensor {missing[0]}{hint}{_more(missing)}, which config.json requires")
    if unexpected:
        first = stored[min(unexpected)][0]
        known = (place.theirs for name in result.read for place in places_of_ours(name, places))
        hint = nearest(min(unexpected), known)
        raise UserError(
            f"{first.file}: unexpected tensor {first.name}{hint}{_more(unexpected)}; "
            "the model in config.json does not have it"
        )
    return result


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _check_shape(place: Place, entry: Entry, name: str, parameter: Tensor) -> None:
    asked = place.shape_of_theirs(tuple(parameter.shape))
    if entry.shape != asked:
        raise UserError(
            f"{entry.file}: {entry.name} ({name}) has the shape {entry.shape}, but config.json requires {asked}"
        )
    check_dtype(entry)


def check_dtype(entry: Entry) -> None:
    """Raises UserError if a tensor's dtype is not a plain floating-point type."""
    if not entry.dtype.is_floating_point or entry.dtype.itemsize == 1:
        kind = str(entry.dtype).removeprefix("torch.")
        raise UserError(f"{entry.file}: {entry.name} has the dtype {kind}; quantised weights are not supported")


def verify(found: Match) -> None:
    """Check the tensors that must be equal or zero. Raises UserError for the first that is not."""
    for entry in found.zeros:
        if bool(view_once(entry).count_nonzero()):
            raise UserError(f"{entry.file}: {entry.name} is not zero, but the model in config.json does not have it")
    for original, copy in found.copies:
        if not equal(original, copy):
            raise UserError(
                f"{copy.file}: {copy.name} differs from {original.name}, but config.json ties them; "
                "check tie_word_embeddings in config.json"
            )


def equal(one: Entry, other: Entry, block: int = 1 << 24) -> bool:
    """Whether two tensors have equal values, compared block by block."""
    pairs = zip(view_once(one).reshape(-1).split(block), view_once(other).reshape(-1).split(block), strict=True)
    return all(bool((a == b).all()) for a, b in pairs)
