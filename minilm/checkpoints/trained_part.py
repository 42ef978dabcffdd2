"""A model's folder that contains only the trained parameters, and names the checkpoint that they belong to.

A frozen backbone is the same in every run. So such a folder contains trained.safetensors instead of model.safetensors:
the trained tensors, under their published names. config.json names their base checkpoint under "minilm":

    "base": {"source": "distilbert-base-uncased", "revision": "", "fingerprint": "5d41..."}

The weights are those of the base, of which the tensors in trained.safetensors replace some. If the base changes, its
fingerprint changes too, and loading is an error, as the trained part would be wrong with other weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from minilm import hub
from minilm.checkpoints.files import Entry, fingerprint, read_folder
from minilm.errors import UserError

TRAINED_STEM = "trained"  # the file's name without .safetensors


class Base(NamedTuple):
    """The base checkpoint of a trained part."""

    source: str  # a folder, which may be relative to the part's folder, a catalogue name or a Hub id
    revision: str = ""
    fingerprint: str = ""


def base_of_part(own: dict[str, Any], where: str) -> Base | None:
    """The base that a config names under "minilm"; None if the folder contains a whole model."""
    match own.get("base"):
        case None:
            return None
        case {"source": str(source), "revision": str(revision), "fingerprint": str(mark)} if source:
            return Base(source, revision, mark)
    raise UserError(f'{where}: minilm.base must contain "source", "revision" and "fingerprint", each a text')


def read_weights(folder: Path, base: Base | None) -> tuple[dict[str, Entry], ...]:
    """The headers of all tensors by their published names: those of the folder; or, for a trained part, those of the
    base and those of the part, which replace them.

    Raises UserError if the base is missing or has changed.
    """
    if base is None:
        return (read_folder(folder),)
    below = folder / base.source
    if not (base.source.startswith(".") and below.is_dir()):
        try:
            below = hub.resolve_model(base.source, "" if hub.is_folder(base.source) else base.revision)
        except UserError as error:
            raise UserError(f"{folder}: its base checkpoint cannot be loaded: {error}") from None
    if fingerprint(below) != base.fingerprint:
        raise UserError(
            f"{folder}: contains only trained parameters, and its base checkpoint {below} has changed; restore that "
            'checkpoint, or train again (a study with keep_model = "all" keeps whole models)'
        )
    return read_folder(below), read_folder(folder, TRAINED_STEM)


def is_partly_frozen(model: nn.Module) -> bool:
    """Whether some of a model's parameters are frozen."""
    return not all(parameter.requires_grad for parameter in model.parameters())
