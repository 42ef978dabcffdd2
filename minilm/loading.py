"""Load the config of a run: a TOML file with changes, completed from the catalogue of data sets, and checked.

    file -> table -> changes of the command line -> the data set's own keys -> dataclasses -> rules

The config in a run's folder contains every setting, so that the run can be repeated even if the catalogue changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from minilm.config import DataSection, RunConfig
from minilm.data.locations import catalogue_keys
from minilm.errors import UserError
from minilm.old_keys import old_keys_in, with_new_keys
from minilm.rules import RULES
from minilm.schema import belongs_elsewhere, override, read_table, write_table
from minilm.table_edits import drop_unchosen, fill_defaults
from minilm.textfiles import read_toml


@dataclass(frozen=True)
class Origin:
    """Where the keys of a config were set: in the file, or by changes."""

    file: str
    changes: Mapping[str, str] = field(default_factory=dict)  # key -> the change that set it, in order
    shared: Collection[str] = ()  # changed keys that were given for several runs; a run need not have them

    def place(self, key: str) -> str:
        """The last change of a key, of the table that contains it, or of a key inside it; otherwise the file."""
        related = [k for k in self.changes if is_within(k, key) or is_within(key, k)]
        return self.changes[related[-1]] if related else self.file

    def is_later(self, key: str, other: str) -> bool:
        """Whether a change sets a key, and the other is set before it: by an earlier change, or by the file."""
        keys = list(self.changes)
        return key in keys and (other not in keys or keys.index(other) < keys.index(key))

    def _level(self, key: str) -> int:
        """0: the file gives the key; 1: a change for this run does; 2: a change for several runs does."""
        related = [k for k in self.changes if is_within(k, key) or is_within(key, k)]
        return max((2 if k in self.shared else 1 for k in related), default=0)

    def may_drop(self, chooser: str, key: str) -> bool:
        """Whether a key may be dropped because ``chooser`` makes another choice: the choice was made after the key was
        set, or the key was set for several runs."""
        return self._level(key) == 2 or self._level(key) < self._level(chooser)


def load_config(source: Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Read a TOML file, or a table with the same keys, and apply ``section.key=value`` changes, in order.

    The values of changes are TOML (``3e-4``, ``true``, ``["a", "b"]``); for text, quotes are optional. If a change
    makes another choice, such as ``model.head.kind=family``, the file's keys of the old choice are dropped.

    Raises UserError if the file cannot be read, if a key is unknown, missing or belongs to another choice, or if a
    value is invalid.
    """
    path = path_of(source)
    if isinstance(source, Mapping):
        table = deepcopy(dict(source))
    else:
        table = stored_table(path) if is_of_a_run(path) else read_toml(path)
    changes: dict[str, str] = {}
    for text in overrides:
        keep_change(changes, override(RunConfig, table, text), text)
    return config_of(table, changes, str(path))


def keep_change(changes: dict[str, str], key: str, change: str) -> None:
    """Add what set a key, after all earlier changes, also if one of these set the key before."""
    changes.pop(key, None)
    changes[key] = change


def path_of(source: Path | Mapping[str, Any]) -> Path:
    """The path of a config's file; for a table, the words for it in messages."""
    return Path("the config") if isinstance(source, Mapping) else Path(source)


def config_of(
    table: dict[str, Any], changes: Mapping[str, str], file: str, shared: Collection[str] = ()
) -> RunConfig:
    """The config from a file's table, in which ``changes`` are already made: key -> the change that set it, in order.

    ``shared``: the changed keys that were set for several runs, so that this run need not have them. The keys that the
    catalogue has for the data set are added to the config. Raises UserError as ``load_config`` does.
    """
    origin = Origin(file, changes, shared)
    for old, new in old_keys_in(table, "config.toml").items():
        raise UserError(f"{origin.place(old)}: {old} is an old name; rename it to {new}")
    drop_unchosen(RunConfig, table, origin.may_drop)
    if isinstance(data := table.get("data"), dict):
        table["data"] = catalogue_keys(data.get("source"), data.get("sample") is True) | data
    if origin.is_later("train.epochs", "train.min_steps") and "min_steps" in table.get("train", {}):
        table["train"]["min_steps"] = 0  # a number of epochs that is asked for is that number
    config = read_table(RunConfig, table, origin.place)
    for rule in RULES:
        if not rule.holds(config):
            places = [place for key in rule.keys if (place := origin.place(key)) != file]
            raise UserError(f"{places[0] if places else file}: {rule.message(config)}")
    return replace(config, data=replace(config.data, split_seed=config.seed)) if config.data.redraw else config


def change_data(section: DataSection, changes: Sequence[str]) -> DataSection:
    """A data section with ``data.key=value`` changes, in order. Raises UserError for changes of other sections, and as
    ``load_config`` does."""
    table: dict[str, Any] = {"data": asdict(section)}
    origin = Origin("the model's own columns", {override(RunConfig, table, text): text for text in changes})
    for key, text in origin.changes.items():
        if not is_within(key, "data"):
            raise UserError(f"{text}: only keys of [data] can be changed here, such as data.text=review")
    return read_table(DataSection, table["data"], origin.place, "data.")


def is_of_a_run(path: Path) -> bool:
    """Whether a run wrote this config, when it was started."""
    return path.name == "config.toml" and (path.parent / "environment.json").is_file()


def stored_table(path: Path) -> dict[str, Any]:
    """The config that a run wrote, as a table. A config of an earlier version is converted: old keys get their new
    names, keys of other choices are dropped, and new keys get their defaults."""
    table = with_new_keys(read_toml(path), "config.toml")
    if isinstance(lora := table.get("lora"), dict) and "rank" not in lora:
        del table["lora"]
    drop_unchosen(RunConfig, table, lambda chooser, key: True)
    fill_defaults(RunConfig, table)
    return table


def dump_config(config: RunConfig) -> str:
    """The config as TOML, with all defaults. ``load_config`` reads it back equal."""
    return write_table(asdict(config))


def unread(config: RunConfig, key: str) -> str:
    """A message if a config does not use a key because it belongs to another choice; empty if it uses the key."""
    table = {section: value for section, value in asdict(config).items() if value is not None}
    return belongs_elsewhere(RunConfig, table, key)


def is_within(key: str, outer: str) -> bool:
    """Whether a key equals another or is in its table: "model.head.kind" is in "model.head"."""
    return f"{key}.".startswith(f"{outer}.")


def folder_name(text: str) -> str:
    """A name for a run's folder: the text, or if it is too long, its beginning and a hash."""
    return text if len(text) <= 100 else f"{text[:93]}-{short_hash(text)}"


def short_hash(text: str) -> str:
    """Six characters that depend on the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:6]
