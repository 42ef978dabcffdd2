"""Changes of a config as Python's keywords: ``lora={"rank": 8}, seed=2`` for ``lora.rank=8 seed=2``.

They become the changes of the command line (``minilm.schema.override``), so that both are checked and reported alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from minilm.data.in_memory import plain
from minilm.errors import UserError
from minilm.schema import hints_of, sections_of, shown


def changes_from(kind: Any, table: Mapping[str, Any]) -> list[str]:
    """The changes that keywords make, such as ``["lora.rank=8", "seed=2"]``.

    kind: the dataclass of the config, or a union of such. None means that a key is not given. A section's keys are
    changed one by one, and its other keys stay; a table of labels, such as ``class_weights``, is replaced as a whole.

    Raises UserError for a key that no config can have.
    """
    return list(_changes(kind, table, ""))


def listed_changes(changes: Sequence[str]) -> list[str]:
    """Changes as typed on the command line. Raises UserError for anything but a list of texts."""
    if isinstance(changes, str):
        raise UserError(f"changes must be a list, such as [{changes!r}], not a single text")
    if not isinstance(changes, Sequence) or not all(isinstance(change, str) for change in changes):
        raise UserError(f"changes must be a list of texts, such as ['train.lr=1e-4'], got {changes!r}")
    return list(changes)


def _changes(kind: Any, table: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in table.items():
        name, hint = f"{prefix}{key}", hints_of(kind).get(key)
        if not isinstance(key, str) or not re.fullmatch(r"[\w.-]+", key):
            raise UserError(f"{name!r}: not a key of a config")
        if isinstance(value, Mapping) and _is_changed_key_by_key(hint):
            yield from _changes(hint, value, f"{name}.")
        elif value is not None:
            yield f"{name}={shown(plain(value, nan=math.nan))}"


def _is_changed_key_by_key(hint: Any) -> bool:
    """Whether a key's value is a section, or a table whose keys are names of settings and not labels."""
    return bool(sections_of(hint)) or (get_origin(hint) is dict and get_args(hint)[1] is not str)
