"""What to take instead of a model whose family we do not have: by kinship, not by spelling.

A longformer is a RoBERTa for long texts, a bloom writes as GPT-2 does, and an mbart is no BERT: ``relatives.toml``.
"""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from minilm.models import ARCHITECTURES
from minilm.textfiles import read_toml

SLIP = 0.88  # how alike a name must be to one of ours to be a slip of the pen
USUAL = ("modernbert", "mmbert", "minilm")  # for English, for other languages, and small


class Relatives(NamedTuple):
    """Families that are not read here, and what is."""

    what: str  # what they are
    instead: list[str]  # names of the catalogue
    families: list[str]  # by their model_type


@cache
def relatives() -> list[Relatives]:
    """The rows of ``relatives.toml``."""
    return [Relatives(**row) for row in read_toml(Path(__file__).with_suffix(".toml"))["relatives"]]


def instead_of(model_type: str) -> str:
    """What to say of a family that is not read here: what it is, and what to take."""
    kin = next((row for row in relatives() if model_type in row.families), None)
    if kin is None and (slip := difflib.get_close_matches(model_type, ARCHITECTURES, n=1, cutoff=SLIP)):
        return f' (did you mean "{slip[0]}"?)'
    what, names = (f"; it is {kin.what}", kin.instead) if kin else ("", USUAL)
    return f"{what}; take {' or '.join(names)} (`minilm models` lists more)"
