"""What a message asks the user to type, in the language in which the user called: a shell's, or Python's.

    data.text=review data.label=stars                                  after a command
    data={"source": "reviews.csv", "text": "review", "label": "stars"}  in a call of minilm.train or minilm.study

Messages name the changes that would help; ``changes`` writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from minilm.config import SPLITS, RunConfig
from minilm.hints import program, quoted
from minilm.schema import override, shown

# The data of the call from Python: keys of [data] and their values as expressions of Python, in which data in memory
# have a usual name, such as frame. None: a shell called.
_data: ContextVar[dict[str, str] | None] = ContextVar("data of the call", default=None)


@contextmanager
def from_python(data: Any) -> Iterator[None]:
    """A context in which messages show Python. data: the argument of ``minilm.train``."""
    given = {} if data is None else data if isinstance(data, Mapping) else {"source": data}
    token = _data.set({str(key): _given(value) for key, value in given.items() if value is not None})
    try:
        yield
    finally:
        _data.reset(token)


def in_python() -> bool:
    """Whether the user called a function of Python's, and not a command."""
    return _data.get() is not None


def option(name: str) -> str:
    """An option as the user types it: ``--unsure-below`` after a command, ``unsure_below`` in a call."""
    return name.removeprefix("--").replace("-", "_") if in_python() else name


def changes(values: Mapping[str, str]) -> str:
    """Changes of a config as the user types them. values: key -> value, as in TOML or as a plain text."""
    typed = [f"{key}={value}" for key, value in values.items()]
    given = _data.get()
    if given is None:
        return " ".join(map(quoted, typed))
    table: dict[str, Any] = {}
    for change in typed:
        override(RunConfig, table, change)
    sections = {key: _expression(value) for key, value in table.items()}
    if "data" in table:
        sections["data"] = _with_data(table["data"], given)
    return ", ".join(f"{key}={value}" for key, value in sections.items())


def training(recipe: str, values: Mapping[str, str], verb: str = "train") -> str:
    """A command, or a call, that trains by a recipe with these changes."""
    if in_python():
        return f'minilm.train("{recipe}", {changes(values)})'
    return f"{program()} {verb} {recipe} {changes(values)}"


def _with_data(table: Mapping[str, Any], given: Mapping[str, str]) -> str:
    """The keyword ``data`` of the call with these keys added: a call gives either "source" or "train"."""
    made, before = {key: _expression(value) for key, value in table.items()}, dict(given)
    if table.get("source") == "":
        del made["source"]
        made["train"] = before.pop("source", made.get("train", ""))
    found = before | made
    order = sorted(found, key=lambda key: key not in ("source", *SPLITS))  # the data first, then their columns
    return f"{{{', '.join(f'{shown(key)}: {found[key]}' for key in order)}}}"


def _given(value: Any) -> str:
    """A value of the call, as an expression; data in memory by a usual name."""
    if isinstance(value, Path):
        return shown(str(value))
    if isinstance(value, str | bool | int | float | list | dict):
        return _expression(value)
    return "(texts, labels)" if isinstance(value, tuple) else "frame"


def _expression(value: Any) -> str:
    """A value of TOML, as Python writes it. Texts have double quotes, as in docs/."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{shown(str(key))}: {_expression(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_expression, value))}]"
    return shown(value) if isinstance(value, str) else repr(value)
