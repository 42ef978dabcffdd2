"""Keys of an earlier version are read as the new ones in a run's own files."""

from __future__ import annotations

from typing import Any

import pytest

from minilm.config import RunConfig
from minilm.old_keys import OLD_KEYS, old_keys_in, with_new_keys
from minilm.schema import hints_of

TABLE = [(file, old, new) for file, keys in OLD_KEYS.items() for old, new in keys.items()]


def nested(key: str, value: object) -> dict[str, Any]:
    """{"a": {"b": value}} of "a.b"; a key with spaces is one name."""
    *sections, last = key.split(".")
    table: dict[str, Any] = {last: value}
    for section in reversed(sections):
        table = {section: table}
    return table


@pytest.mark.parametrize(("file", "old", "new"), TABLE)
def test_every_old_key_becomes_the_new_one_in_its_place(file: str, old: str, new: str) -> None:
    table = nested(old, [1]) | {"other": {"x.y": 2}}
    assert old_keys_in(table, file) == {old: new}
    assert with_new_keys(table, file) == nested(new, [1]) | {"other": {"x.y": 2}}
    assert old_keys_in(with_new_keys(table, file), file) == {}


def test_nothing_else_changes_and_the_order_stays() -> None:
    table = {"train": {"lr": 1, "threshold": 2, "epochs": 3}, "data": {"labels": {"train.threshold": 4}}}
    found = with_new_keys(table, "config.toml")
    assert list(found["train"].items()) == [("lr", 1), ("min_delta", 2), ("epochs", 3)]
    assert found["data"] == table["data"] and table["train"]["threshold"] == 2


@pytest.mark.parametrize(("old", "new"), OLD_KEYS["config.toml"].items())
def test_the_new_key_is_a_key_and_the_old_one_is_none(old: str, new: str) -> None:
    hint: Any = RunConfig
    *sections, last = new.split(".")
    for section in sections:
        hint = hints_of(hint)[section]
    assert last in hints_of(hint) and old.rpartition(".")[2] not in hints_of(hint)
