"""Check that a table has the columns that a config asks for; if not, guess the right ones for the error message."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from minilm.callers import changes
from minilm.data.tables import Defects, Table
from minilm.errors import UserError, nearest

LABEL_NAMES = (
    "label", "labels", "class", "category", "sentiment", "target", "stars", "rating", "score", "emotion", "intent",
    "topic", "tag", "polarity", "y",
)  # fmt: skip
LISTED = 30  # the most columns that a message names


def require_columns(table: Table, keys: Mapping[str, str], defects: Defects, instead: str = "") -> None:
    """Raise UserError if a column is missing; the message lists the table's columns and the changes that would work.

    keys: each column and the config's key that asks for it.
    instead: what to do, where no changes of a config can be given; empty: they can.
    defects: those of the table. They are reported first, as a file read in the wrong encoding has wrong column names.
    """
    missing = [(name, key) for name, key in keys.items() if name not in table.columns]
    if not missing:
        return
    defects.check()
    name, key = missing[0]
    text, label = guess_columns(table, taken=keys)
    wanted = {"data.text": text, "data.label": label}
    if table.header and has_no_header(table):
        if instead:
            raise UserError(
                f'{table.path}: no column "{name}" ({key}); the first line looks like data, not like a header: '
                f"{instead}, or write a first line with the names of the columns"
            )
        places = {k: str(table.names.index(column) + 1) for k, column in wanted.items() if column}
        raise UserError(
            f'{table.path}: no column "{name}" ({key}); the first line looks like data, not like a header; add: '
            f"{changes({'data.header': 'false', **places})}"
        )
    asked = {k for n, k in missing}
    known = {k: column for k, column in wanted.items() if k in asked and column and column not in keys}
    shown = ", ".join(_shown(table, i) for i in range(min(len(table.names), LISTED)))
    shown += ", ..." if len(table.names) > LISTED else ""
    near = nearest(name, table.names)
    hint = "" if key in known and f'"{known[key]}"' in near else near
    advice = f"; if these are the right columns, add: {changes(known)}" if known else ""
    if instead:
        advice = f"; {instead}"
    raise UserError(f'{table.path}: no column "{name}" ({key}){hint}; its columns are {shown}{advice}')


def _shown(table: Table, i: int) -> str:
    if table.header:
        return f'"{table.names[i]}"'
    cell = " ".join(str(table.head[0][i]).split()) if table.head else ""
    return f'{table.names[i]} ("{cell if len(cell) <= 20 else cell[:19] + "…"}")'


def has_no_header(table: Table) -> bool:
    """Whether the first line looks like data: a name is a sentence or a number, or also a cell of its column."""
    numbers = [name for name in table.names if _is_number(name)]
    if numbers == [str(i) for i in range(len(numbers))] and numbers:  # pandas names unnamed columns so
        return False
    for i, name in enumerate(table.names):
        cells = [row[i] for row in table.head]
        if name and (name in cells or len(name.split()) > 5 or _is_number(name)):
            return True
    return False


def guess_columns(table: Table, taken: Collection[str] = ()) -> tuple[str, str]:
    """The columns that probably hold the texts and the labels, except those ``taken``; "" if none is likely."""
    free = {name: i for i, name in enumerate(table.names) if name and name not in taken}
    cells = {name: [row[i] for row in table.head] for name, i in free.items()}
    texts = {name: _mean_length(column) for name, column in cells.items() if _reads_as_text(column)}
    text = max(texts, key=lambda name: texts[name], default="")
    labels = {name: _distinct(column) for name, column in cells.items() if name != text and _looks_like_labels(column)}
    named = [name for hint in LABEL_NAMES for name in labels if hint in name.lower().replace("-", "_").split("_")]
    if named:
        return text, named[0]
    return text, min(reversed(labels), key=lambda name: labels[name], default="")


def _reads_as_text(cells: Sequence[Any]) -> bool:
    texts = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    return 2 * len(texts) > len(cells) and sum(not _is_number(text) for text in texts) * 2 > len(texts)


def _looks_like_labels(cells: Sequence[Any]) -> bool:
    shown = [cell for cell in cells if cell not in (None, "")]
    return bool(shown) and _distinct(shown) <= max(2, len(shown) // 2) and _mean_length(shown) < 40


def _distinct(cells: Sequence[Any]) -> int:
    return len({str(cell) for cell in cells})


def _mean_length(cells: Sequence[Any]) -> float:
    return sum(len(str(cell)) for cell in cells) / max(1, len(cells))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
