"""The named data sets of ``catalog.toml``, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from minilm.errors import UserError, nearest
from minilm.textfiles import read_toml

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """One data set. The fields are the keys of ``catalog.toml``, which describes them."""

    name: str
    about: str
    source: str
    licence: str
    origin: str
    sample: str = ""  # the small data set of the same kind that comes with minilm
    revision: str = ""
    files: dict[str, str] = field(default_factory=dict)  # split -> file
    rows: dict[str, int] = field(default_factory=dict)  # split -> number of rows
    data: dict[str, Any] = field(default_factory=dict)  # keys of DataSection
    configurations: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> fields that differ

    @property
    def file(self) -> Path:
        """The path of a data set without ``files``, which comes with minilm."""
        return FOLDER / self.source


@cache
def entries() -> dict[str, Entry]:
    """All data sets by name; a configuration's name is ``set:configuration``."""
    table = read_toml(FOLDER / "catalog.toml")
    found = {}
    for name, fields in table.items():
        found[name] = entry = Entry(name=name, **fields)
        for configuration, changes in entry.configurations.items():
            other = f"{name}:{configuration}"
            found[other] = replace(entry, name=other, configurations={}, **changes)
    return found


def find(source: str) -> Entry | None:
    """The entry of this name; None if ``source`` looks like a path or a Hub id instead.

    Raises UserError for a plain word that is neither the name of an entry nor of a file.
    """
    known = entries()
    if source in known or "/" in source or "\\" in source or Path(source).exists() or Path(source).suffix:
        return known.get(source)
    raise UserError(f"data.source: {_unknown(source)}; give one of these names, a path, or a Hub id such as user/set")


def _unknown(name: str) -> str:
    return f'no data set is named "{name}"{nearest(name, entries())}; the catalogue has {", ".join(entries())}'


def listing() -> str:
    """The data sets for the terminal, one per line."""
    width = max(map(len, entries()))
    return "\n".join(f"{name:<{width}}  {entry.about}" for name, entry in entries().items())


def describe(name: str) -> str:
    """The catalogue's entry for a data set, for the terminal. Raises UserError if it has no entry of this name."""
    if name not in entries():
        raise UserError(_unknown(name))
    entry = entries()[name]
    columns = {key: entry.data.get(key, "") for key in ("text", "text_pair", "label", "group")}
    columns |= {"text": columns["text"] or "text", "label": columns["label"] or "label"}
    labels = entry.data.get("label_columns") or entry.data.get("labels", [])
    if "label_columns" in entry.data:
        columns["label"] = "a column of 0 and 1 for each label"
    facts = {
        "from": f"https://huggingface.co/datasets/{entry.source}" if entry.files else str(entry.file),
        "rows": ", ".join(f"{split} {number:,}" for split, number in entry.rows.items()),
        "columns": ", ".join(f"{key}: {column}" for key, column in columns.items() if column),
        "labels": ", ".join(labels),
        "licence": entry.licence,
        "origin": entry.origin,
        "sample": entry.sample and f"{entry.sample} (data.sample=true), which comes with minilm",
        "configurations": ", ".join(f"{name}:{configuration}" for configuration in entry.configurations),
    }
    return "\n".join([entry.about, "", *(f"{key + ':':<15} {fact}" for key, fact in facts.items() if fact)])
