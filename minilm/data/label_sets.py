"""Several labels in one cell: how to read them, and how to recognise a column that contains such cells.

    late, refund        names with a separator between them (data.label_separator)
    ["late", "refund"]  a list, as JSON or Python writes it
    [0, 1, 0]           a list of 0 and 1, one number per label

An empty cell or an empty list means that the text has none of the labels.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

SEPARATORS = (",", ";", "|", "/", " ")
ARRAY = re.compile(r"\[[\s\d.]*\]")  # as numpy writes one: [0 1 0]


def as_list(cell: Any) -> list[Any] | None:
    """The items of a cell that is a list, or text in the form of a list; None if it is not."""
    if isinstance(cell, list | tuple):
        return list(cell)
    if not isinstance(cell, str) or not (cell := cell.strip()).startswith(("[", "{'", '{"')) or cell[-1] not in "]}":
        return None
    if ARRAY.fullmatch(cell):
        return [float(number) for number in cell[1:-1].split()]
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return list(found) if isinstance(found, list | set | tuple) else None
    return None


def split_cell(cell: Any, separator: str) -> list[Any]:
    """The labels in a cell, as written there."""
    items = as_list(cell)
    if items is not None:
        return items
    if isinstance(cell, str):
        return [part for part in (part.strip() for part in cell.split(separator)) if part]
    return [] if cell is None or cell != cell else [cell]


def are_multi_hot(cells: Iterable[Sequence[Any]], labels: int = 0) -> bool:
    """Whether all lists consist of 0 and 1, one number per label: they have the same length, which is above 1.

    labels: the number of labels, if it is known: the length must be equal to it. Then one list of that length that
    repeats a number is enough, since a list of names does not: [0, 1, 0]. The other lists may be empty or wrong.
    """
    lengths, bits = set(), True
    for items in cells:
        if not all(isinstance(item, bool | int | float) and item in (0, 1) for item in items):
            bits = False
        elif labels > 1 and len(items) == labels > len(set(items)):
            return True
        if not (bits or labels):
            return False
        lengths.add(len(items))
    return bits and len(lengths) == 1 and (length := lengths.pop()) > 1 and labels in (0, length)


def guess_separator(cells: Iterable[Any], names: Sequence[str]) -> tuple[Any, str]:
    """A cell or a name that probably consists of several labels, and their separator; two empty strings if there is
    none. names: the different labels if each cell were one label."""
    lists = [cell for cell in cells if as_list(cell)]
    return (lists[0], ",") if len(lists) > 1 else looks_like_sets(names)


def looks_like_sets(names: Sequence[str]) -> tuple[str, str]:
    """A name that probably consists of several labels, and their separator; two empty strings if there is none.

    Either each part of the name is itself a name; or there are at least three names of which each part is a name or a
    part of another name.
    """
    known = set(names)
    for separator in SEPARATORS:
        together = {name: parts for name in names if len(parts := _parts(name, separator)) > 1}
        if separator == " ":  # a space usually separates the words of one name, unless they are numbers
            together = {n: parts for n, parts in together.items() if all(part.isdecimal() for part in parts)}
        for name, parts in together.items():
            if all(part in known for part in parts):
                return name, separator
        uses = Counter(part for parts in together.values() for part in set(parts))
        shared = [name for name, parts in together.items() if all(uses[part] > 1 or part in known for part in parts)]
        if len(shared) >= 3 and 2 * len(shared) > len(together):
            return shared[0], separator
    return "", ""


def _parts(name: str, separator: str) -> list[str]:
    return [part.strip() for part in name.split(separator) if part.strip()]
