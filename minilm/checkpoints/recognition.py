"""Recognise a checkpoint's family by its tensors, if its ``config.json`` names none (as in prajjwal1/bert-tiny).

A family fits if the files contain every tensor of the backbone that ``config.json`` describes for this family, with the
right shape. If several families fit, the one that knows most names in the files (prefix, pooler, heads) is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minilm.checkpoints.configs import class_of, read_config
from minilm.checkpoints.files import Entry
from minilm.checkpoints.matching import match
from minilm.checkpoints.names import is_needed, is_of_head, places_of_theirs, plain_name, rows_of, todays_spelling
from minilm.errors import UserError
from minilm.models import ARCHITECTURES, build_model, without_weights


def recognise(published: dict[str, Any], entries: Mapping[str, Entry], folder: Path) -> str:
    """The ``model_type`` that is missing in a ``config.json``. Raises UserError if no family, or several, fit best."""
    by_class = [name for name, family in ARCHITECTURES.items() if class_of(published) in family.classes.values()]
    known = {name: _names_known(name, published, entries, folder) for name in by_class or ARCHITECTURES}
    most = max(known.values())
    found = [name for name, number in known.items() if number == most]
    networks = [(f.model, f.names, f.settings, f.read) for f in map(ARCHITECTURES.__getitem__, found)]
    alike = all(network == networks[0] for network in networks)  # RoBERTa's model_types compute the same
    if not most or not alike:
        why = f"fit {' and '.join(found)} equally well" if most else "fit no supported family"
        add = 'add one, such as "model_type": "bert"'
        raise UserError(f"{folder / 'config.json'}: names no model_type, and its tensors {why}; {add}")
    return min(found, key=len)


def _names_known(model_type: str, published: dict[str, Any], entries: Mapping[str, Entry], folder: Path) -> int:
    """The most names in the files that a published class of the family has; 0 if the family does not fit."""
    names = ARCHITECTURES[model_type].names
    backbone = {plain_name(name, names): [entry] for name, entry in entries.items() if not is_of_head(name, names)}
    try:
        config = read_config({**published, "model_type": model_type})
        with without_weights():
            model = build_model(model_type, config, "encode")
        places = rows_of(names, model.config, "encode")
        backbone = {plain: held for plain, held in backbone.items() if is_needed(plain, names, places)}
        match(model, backbone, places, all_places=places, new=("pooler.",), where=folder)
    except UserError:  # another family's settings or tensors
        return 0

    def known(task: str) -> int:
        places = rows_of(names, config, task, prefixed=True)
        return sum(bool(places_of_theirs(todays_spelling(name, names), places)) for name in entries)

    return max(map(known, names.prefix))
