"""Suggest a model instead of one whose family is not supported, by similarity of the models, not of their names.

``relatives.toml`` lists the families: a longformer is a RoBERTa for long texts, and an mbart is not a BERT.
"""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from minilm.models import ARCHITECTURES
from minilm.textfiles import read_toml

SLIP = 0.88  # a name that is at least so similar to a supported family is probably a typing error
USUAL = ("modernbert", "mmbert", "minilm")  # for English, for other languages, and small


class Relatives(NamedTuple):
    """Families that are not supported, and models to use instead."""

    what: str  # a description of the families
    instead: list[str]  # names in the catalogue
    families: list[str]  # their model_types


@cache
def relatives() -> list[Relatives]:
    """The rows of ``relatives.toml``."""
    return [Relatives(**row) for row in read_toml(Path(__file__).with_suffix(".toml"))["relatives"]]


def instead_of(model_type: str) -> str:
    """The part of the message about an unsupported family that says what it is, and which model to use instead."""
    kin = next((row for row in relatives() if model_type in row.families), None)
    if kin is None and (slip := difflib.get_close_matches(model_type, ARCHITECTURES, n=1, cutoff=SLIP)):
        return f' (did you mean "{slip[0]}"?)'
    what, names = (f"; it is {kin.what}", kin.instead) if kin else ("", USUAL)
    return f"{what}; use {' or '.join(names)} instead (`minilm models` lists more)"
