"""Write ``docs/config.md``, every key of a config, from ``minilm/config.py``: ``python docs/make_config.py``.

A key's meaning is the comment behind its field, or the comment lines above it.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from minilm.config import RunConfig
from minilm.schema import choice_of, hints_of, sections_of, shown, wanted

PAGE = Path(__file__).parent / "config.md"
HEAD = """# The keys of a config

This page is made from `minilm/config.py` by `make docs`. A config is a TOML file; each section below is one of its
tables. Any key can be changed on the command line: `minilm train my-run.toml train.lr=1e-4 model.head.kind=family`.
`minilm/rules.py` has what keys of different sections must satisfy together.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_section(RunConfig, "")])


def _section(kind: type, name: str) -> list[str]:
    """A section's heading, its meaning, a table of its keys, and the sections within it."""
    lines = [f"## {f'`[{name}]`' if name else 'The file'}", "", _meaning(kind), "", *_table(kind)]
    for field in dataclasses.fields(kind):
        path = f"{name}.{field.name}" if name else field.name
        hint = hints_of(kind)[field.name]
        members, choice = sections_of(hint), choice_of(hint)
        if choice is not None:
            default = "" if choice.default is None else f" (default: `{shown(choice.default)}`)"
            lines += [f"## `[{path}]`", "", f"`{path}.{choice.key}`{default} chooses the other keys.", ""]
            for member in members:
                lines += [_meaning(member), "", *_table(member)]
        elif members and path != "adapt.train":  # which has the keys of [train]
            lines += _section(members[0], path)
    return lines


def _table(kind: type) -> list[str]:
    rows = ["| key | must be | default | meaning |", "|---|---|---|---|"]
    comments = _comments(kind)
    for field in dataclasses.fields(kind):
        hint = hints_of(kind)[field.name]
        if not sections_of(hint):
            comment = comments[field.name]
            cells = (f"`{field.name}`", wanted(hint), _default(field), _phrase(comment))
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*rows, ""]


def _phrase(comment: str) -> str:
    """A comment as a cell: the first letter is small, except in a name, such as CPU, LayerNorm or T5."""
    first = re.match(r"\w+", comment)
    is_name = first is not None and (first[0][1:].lower() != first[0][1:] or any(map(str.isdigit, first[0])))
    return _as_markdown(comment if is_name else comment[:1].lower() + comment[1:]).rstrip(".")


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{shown(field.default)}`"
    if field.default_factory is not dataclasses.MISSING:
        return f"`{shown(field.default_factory())}`"
    return "required"


def _meaning(kind: type) -> str:
    return _as_markdown(" ".join((inspect.getdoc(kind) or "").split()))


def _as_markdown(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text)


def _comments(kind: type) -> dict[str, str]:
    """Each field's comment, as it stands in the source."""
    source = inspect.getsource(kind)
    lines, [tree] = source.splitlines(), ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign):
            continue
        assert isinstance(node.target, ast.Name) and node.end_lineno is not None and node.end_col_offset is not None
        behind = lines[node.end_lineno - 1][node.end_col_offset :].strip().removeprefix("#").strip()
        above: list[str] = []
        for line in reversed(lines[: node.lineno - 1]):
            if not line.strip().startswith("#"):
                break
            above.insert(0, line.strip().removeprefix("#").strip())
        found[node.target.id] = " ".join([*above, "" if behind.startswith(("fmt:", "type:")) else behind]).strip()
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
