"""Rows from JSON files, and from files in fastText's format.

    .jsonl, .ndjson    one object per line
    .json              an array of objects; one object per line; an object that contains an array of objects:
                       {"data": [{...}, ...]}; or columns, as pandas and datasets write them:
                       {"text": [...], "label": [...]}
    fastText           __label__spam __label__urgent the text

A dot in a column's name selects a key of a nested object: ``data.text = "review.body"``.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from minilm.data.decoding import SAMPLE, TextFile
from minilm.data.tables import HEAD, Defects, RowOrigin, Table, TableFile
from minilm.errors import UserError

REPEATED: Any = object()  # the value of a key that a JSON object has twice
LABEL = re.compile(r"__label__(\S+)\s+")

Found = tuple[int, Any]  # the line on which a row starts, and its JSON value


def read_json_lines(text: TextFile, wanted: set[str], defects: Defects) -> Table:
    """Read a file with one JSON object per line."""
    return _table(text.name, _line_values(text, defects), wanted, defects)


def read_json(text: TextFile, wanted: set[str], defects: Defects) -> Table:
    """Read a ``.json`` file of any of the forms above."""
    start = text.sample().lstrip()
    if start.startswith("["):
        return _table(text.name, array_values(text, defects), wanted, defects)
    if has_value_a_line(start):
        return read_json_lines(text, wanted, defects)
    rows, note = rows_within("".join(text.lines(defects)), text.name)
    table = _table(text.name, enumerate(rows, 1), wanted, defects, unit="row")
    table.notes += [note] if note else []
    return table


def read_fasttext(text: TextFile, wanted: set[str], defects: Defects) -> Table:
    """Read lines that begin with labels. The columns are ``label``, a list if a line has several, and ``text``."""
    return _table(text.name, _fasttext_values(text, defects), wanted, defects)


def _table(
    name: str, values: Iterator[Found], wanted: set[str], defects: Defects, unit: str = "line"
) -> Table:
    """The wanted columns of rows that are JSON objects. Any other row becomes a defect."""
    lines, names = array("q"), dict[str, None]()
    columns: dict[str, list[Any]] = {column: [] for column in wanted}
    head: list[dict[str, Any]] = []
    for line, row in values:
        origin = RowOrigin(name, line, unit)
        if not isinstance(row, dict):
            defects.add(origin, "is not a JSON object")
            continue
        cells = {column: cell_of(row, column) for column in wanted}
        if twice := [column for column in sorted(wanted) if cells[column] is REPEATED]:
            defects.add(origin, f'has the key "{twice[0]}" more than once; keep one of them')
            continue
        lines.append(line)
        if not names.keys() >= row.keys() or any(isinstance(value, dict) for value in row.values()):
            names.update(dict.fromkeys(_names(row)))
        for column, cells_so_far in columns.items():
            cells_so_far.append(cells[column])
        if len(head) < HEAD:
            head.append(row)
    columns = {column: cells for column, cells in columns.items() if column in names}
    shown = [[None if (cell := cell_of(row, n)) is REPEATED else cell for n in names] for row in head]
    return Table([TableFile(name, unit, lines)], list(names), columns, shown)


def cell_of(row: Mapping[str, Any], column: str) -> Any:
    """A row's value for a column, which may be in a nested object: "review.body"."""
    if column in row or "." not in column:
        return row.get(column)
    outer, _, inner = column.partition(".")
    within = row.get(outer)
    return cell_of(within, inner) if isinstance(within, dict) else None


def _names(row: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in row.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict. A key that occurs twice gets the value ``REPEATED``; Python would take the last one."""
    row = dict(pairs)
    if len(row) < len(pairs):
        row |= {key: REPEATED for key, times in Counter(key for key, _ in pairs).items() if times > 1}
    return row


decoder = json.JSONDecoder(object_pairs_hook=_object)


def json_reason(error: Exception) -> str:
    return f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def has_value_a_line(start: str) -> bool:
    """Whether a ``.json`` file with this beginning has one value per line, instead of one value as a whole."""
    first, _, rest = start.partition("\n")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return bool(rest.strip())


# Values, one after another -----------------------------------------------------------------------------------


def _line_values(text: TextFile, defects: Defects) -> Iterator[Found]:
    for number, line in enumerate(text.lines(defects), 1):
        if not line.strip():
            continue
        try:
            yield number, decoder.decode(line.removesuffix("\n"))
        except (ValueError, RecursionError) as error:  # also for too long numbers and too deep nesting
            defects.add(RowOrigin(text.name, number), f"is not JSON ({json_reason(error)})")


def array_values(text: TextFile, defects: Defects | None = None) -> Iterator[Found]:
    """Yield the items of an array, each with its line. The file is read piece by piece, to save memory.

    defects: collects bytes that cannot be decoded; None: they remain in the items, as lone surrogates.
    """
    lines = text.pieces(defects)  # often all of it is one line
    buffer, at, line = "", 0, 1

    def more(least: int = SAMPLE) -> bool:
        """Read the next piece; return whether there was one."""
        nonlocal buffer, at
        pieces, size = [buffer[at:]], 0
        for piece in lines:
            pieces.append(piece)
            size += len(piece)
            if size >= least:
                break
        buffer, at = "".join(pieces), 0
        return size > 0

    def skip(characters: str) -> str:
        """Skip these characters; return the next one, or "" at the end."""
        nonlocal at, line
        while True:
            while at < len(buffer) and buffer[at] in characters:
                line += buffer[at] == "\n"
                at += 1
            if at < len(buffer):
                return buffer[at]
            if not more():
                return ""

    skip(" \t\r\n\ufeff")
    at += 1  # the bracket
    while True:
        end = skip(" \t\r\n,")
        if end in ("]", ""):
            if not end:
                raise UserError(f"{text.name}, line {line}: not JSON (the array has no end)")
            return
        while True:
            try:
                value, stop = decoder.raw_decode(buffer, at)
                if stop < len(buffer):  # otherwise a number may continue in the next piece
                    break
                reason: Exception = ValueError("the array has no end")
            except (ValueError, RecursionError) as error:
                reason = error
            if not more(max(SAMPLE, len(buffer) - at)):  # doubling keeps the number of attempts small
                raise UserError(f"{text.name}, line {line}: not JSON ({json_reason(reason)})") from None
        yield line, value
        line += buffer.count("\n", at, stop)
        at = stop


def _fasttext_values(text: TextFile, defects: Defects) -> Iterator[Found]:
    for number, line in enumerate(text.lines(defects), 1):
        rest, labels = line.strip(), list[str]()
        if not rest:
            continue
        while match := LABEL.match(rest + " "):
            labels.append(match[1])
            rest = rest[match.end() :]
        if labels:
            yield number, {"label": labels[0] if len(labels) == 1 else labels, "text": rest}
        else:
            defects.add(RowOrigin(text.name, number), "does not begin with __label__")


# Objects around rows -----------------------------------------------------------------------------------------


def rows_within(text: str, name: str) -> tuple[list[Any], str]:
    """The rows in the text of one JSON value, and a note on where they were found.

    name: the file's name in messages. Raises UserError if the text is not JSON, or contains no rows.
    """
    try:
        whole = decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: not JSON ({json_reason(error)})") from None
    if isinstance(whole, dict):
        lists = {key: value for key, value in whole.items() if isinstance(value, list)}
        rows = {key: value for key, value in lists.items() if value and all(isinstance(row, dict) for row in value)}
        if len(rows) == 1:
            key, found = next(iter(rows.items()))
            return found, f'its rows are read from the list "{key}"'
        if len(rows) > 1:
            some = ", ".join(f'"{key}"' for key in rows)
            raise UserError(f"{name}: has several lists of rows, {some}; save one of them in a separate file")
        columns: dict[str, Callable[[], list[Any]]] = {}
        for key, value in whole.items():
            if isinstance(value, list):
                columns[key] = value.copy
            elif isinstance(value, dict) and value:
                columns[key] = lambda value=value: list(value.values())  # type: ignore[misc]
        values = {key: column() for key, column in columns.items()}
        if len(values) > 1 and len({len(column) for column in values.values()}) == 1 and len(values) == len(whole):
            cells = zip(*values.values(), strict=True)
            return [dict(zip(values, row, strict=True)) for row in cells], "its values are columns"
        if not lists:
            return [whole], ""
    raise UserError(f"{name}: no rows found; a .json file must be an array of objects, or have one object per line")
