"""Changes of a config as Python's keywords: ``lora={"rank": 8}, seed=2`` for ``lora.rank=8 seed=2``.

They become the changes of the command line (``minilm.schema.override``), so that both are checked and reported alike.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, get_args, get_origin

from minilm.callers import changes, from_python
from minilm.config import RunConfig
from minilm.data.in_memory import plain
from minilm.errors import UserError, nearest
from minilm.foreign_names import FOREIGN_VALUES
from minilm.schema import accepts, choice_of, hints_of, meant_key, sections_of, shown

P = ParamSpec("P")
R = TypeVar("R")


def python_call(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, whose messages show Python, and for which an unknown keyword is a UserError.

    Its arguments are a config, ``data``, and keywords of which many are sections of a config.
    """
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*given: P.args, **keywords: P.kwargs) -> R:
        with from_python(keywords.get("data", given[1] if len(given) > 1 else None)):
            for name in keywords:
                if name not in known:
                    hint = _keyword_meant(name, keywords[name], known)
                    raise UserError(f"minilm.{function.__name__}: has no argument {name}{hint}")
            return function(*given, **keywords)

    return call


def _keyword_meant(name: str, value: Any, known: Collection[str]) -> str:
    """What to write in place of an unknown keyword: the key of a config that it names, in its section."""
    key = meant_key(RunConfig, name)
    if not key:
        return nearest(name, known) or f"; the arguments are: {', '.join(known)}"
    given = plain(value, nan=0.0)
    meant = [given, [given], *([FOREIGN_VALUES[name]] if given is True and name in FOREIGN_VALUES else ())]
    fits = [each for each in meant if accepts(_hint_of(RunConfig, key), each)]  # log_to=["wandb"] for report_to="wandb"
    if not fits:
        return f"; minilm's key is {key}"
    as_change = f"changes={[f'{key}={shown(fits[0])}']}"  # for a key outside all sections that have a keyword
    return f"; write {changes({key: shown(fits[0])}) if key.partition('.')[0] in known else as_change}"


def _hint_of(kind: Any, key: str) -> Any:
    """The type of a key such as "train.lr". Raises KeyError if there is none."""
    for name in key.split("."):
        kind = hints_of(kind)[name]
    return kind


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
        if value is not None and sections_of(hint) and not isinstance(value, Mapping):
            raise UserError(f"{name} must be a dict with keys of [{name}]{_as_section(name, hint, value)}")
        if isinstance(value, Mapping) and _is_changed_key_by_key(hint):
            yield from _changes(hint, value, f"{name}.")
        elif value is not None:
            yield f"{name}={shown(plain(value, nan=math.nan))}"


def _as_section(name: str, hint: Any, value: Any) -> str:
    """How to write a section of which only the value of one key was given: ``model={"source": "distilbert"}``."""
    hints, choice = hints_of(hint), choice_of(hint)
    order = sorted(hints, key=lambda key: choice is None or key != choice.key)  # the key that chooses others is first
    fits = [key for key in order if not isinstance(value, bool) and accepts(hints[key], plain(value, nan=math.nan))]
    if not fits:
        return f": {', '.join(order)}"
    return f"; write {changes({f'{name}.{fits[0]}': shown(plain(value, nan=math.nan))})}"


def _is_changed_key_by_key(hint: Any) -> bool:
    """Whether a key's value is a section, or a table whose keys are names of settings and not labels."""
    return bool(sections_of(hint)) or (get_origin(hint) is dict and get_args(hint)[1] is not str)
