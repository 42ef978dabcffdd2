"""A model's folder that holds only what was trained, and names the checkpoint below it.

A frozen backbone is the same in every run. So such a folder holds trained.safetensors in place of model.safetensors:
the tensors that were trained, under their published names. config.json names their base under "minilm":

    "base": {"source": "distilbert-base-uncased", "revision": "", "fingerprint": "5d41..."}

The weights are those of the base, with the tensors of trained.safetensors in their places. If the base changes, its
fingerprint changes too, and the folder is refused: the trained part would be wrong above other weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from minilm import hub
from minilm.checkpoints.files import Entry, fingerprint, read_folder
from minilm.errors import UserError

TRAINED_STEM = "trained"  # of the file's name


class Base(NamedTuple):
    """The checkpoint that a trained part belongs to."""

    source: str  # a folder, relative to the part's folder perhaps, a catalogue name or a Hub id
    revision: str = ""
    fingerprint: str = ""


def base_of_part(own: dict[str, Any], where: str) -> Base | None:
    """The base that a config names under "minilm"; None if the folder holds a whole model."""
    match own.get("base"):
        case None:
            return None
        case {"source": str(source), "revision": str(revision), "fingerprint": str(mark)} if source:
            return Base(source, revision, mark)
    raise UserError(f'{where}: minilm.base must hold "source", "revision" and "fingerprint", each a text')


def read_weights(folder: Path, base: Base | None) -> tuple[dict[str, Entry], ...]:
    """The headers of all tensors by their published names: those of the folder; or those of the base, then those of the
    part, which replace them.

    Raises UserError if the base is missing or has changed.
    """
    if base is None:
        return (read_folder(folder),)
    below = folder / base.source
    if not (base.source.startswith(".") and below.is_dir()):
        try:
            below = hub.resolve_model(base.source, "" if hub.is_folder(base.source) else base.revision)
        except UserError as error:
            raise UserError(f"{folder}: the checkpoint that it was trained from cannot be opened: {error}") from None
    if fingerprint(below) != base.fingerprint:
        raise UserError(
            f"{folder}: holds only what was trained, and the checkpoint below it, {below}, has changed since; restore "
            'that checkpoint, or train again (a study with keep_model = "all" keeps whole models)'
        )
    return read_folder(below), read_folder(folder, TRAINED_STEM)


def is_partly_frozen(model: nn.Module) -> bool:
    """Whether some of a model's parameters do not train."""
    return not all(parameter.requires_grad for parameter in model.parameters())
