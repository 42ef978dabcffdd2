"""Change the table of a section in place, so that it fits its dataclasses: drop keys of other choices, add defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any

from minilm.schema import choice_of, chosen, hints_of, sections_of


def drop_unchosen(kind: Any, table: dict[str, Any], may_drop: Callable[[str, str], bool], prefix: str = "") -> None:
    """Remove, in place, the keys that belong to other choices than the table's.

    ``may_drop(chooser, key)``: whether ``key`` ("freeze.layers") may be removed because of ``chooser`` ("freeze.part").
    """
    for name, hint in hints_of(kind).items():
        inner, choice = table.get(name), choice_of(hint)
        if not isinstance(inner, dict) or not sections_of(hint):
            continue
        section = chosen(hint, inner)
        if choice is not None and section is not None:
            for key in [key for key in inner if key in hints_of(hint) and key not in hints_of(section)]:
                if may_drop(f"{prefix}{name}.{choice.key}", f"{prefix}{name}.{key}"):
                    del inner[key]
        drop_unchosen(hint if section is None else section, inner, may_drop, f"{prefix}{name}.")


def fill_defaults(kind: Any, table: dict[str, Any]) -> None:
    """Add, in place, the missing keys of a table with their defaults, but not optional sections."""
    section = chosen(kind, table)
    for f in fields(section) if section is not None else ():
        hint = hints_of(section)[f.name]
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if f.name not in table and default is not MISSING and default is not None:
            table[f.name] = asdict(default) if is_dataclass(default) and not isinstance(default, type) else default
        if sections_of(hint) and isinstance(inner := table.get(f.name), dict):
            fill_defaults(hint, inner)
