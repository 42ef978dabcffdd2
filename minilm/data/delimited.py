"""Tables in which a character separates the fields of a row: CSV, TSV and similar formats.

    commas, semicolons, pipes    RFC 4180: fields may be quoted; a quoted field may contain delimiters, doubled quote
                                 marks and line breaks
    tabs                         no quoting, unless every field that begins with a quote mark is quoted in this way

The delimiter is guessed from the first lines: it must occur in the first line, and must split as many rows as possible
into the same number of fields.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from minilm.callers import changes
from minilm.data.decoding import TextFile
from minilm.data.tables import HEAD, Defects, RowOrigin, Table, TableFile
from minilm.errors import UserError
from minilm.hints import quoted

DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "pipes"}
QUOTED = re.compile(r'"(?:[^"]|"")*"')  # a whole quoted field
DOUBLED = re.compile(r'"[^"]*""(?:[^"]|"")*"')  # with a doubled quote mark inside, which only programs write
LOOKED_AT = 100  # rows from which the delimiter is guessed
# Equal cells of at most SHORT characters share one string; at most REPEATED different strings per column are shared.
SHORT, REPEATED = 40, 10_000

Row = tuple[int, Sequence[Any]]  # the line on which a row starts, and its cells


@dataclass(frozen=True)
class Format:
    """A file's format. An empty value is guessed from the file."""

    delimiter: str = ""  # one character
    encoding: str = ""
    quoting: Literal["auto", "none", "all"] = "auto"
    header: bool = True  # whether the first row names the columns; if not, their names are numbers from 1


def read_delimited(text: TextFile, wanted: set[str], defects: Defects, how: Format, usual: str) -> Table:
    """Read the wanted columns. ``usual``: the delimiter that is usual for the file's ending."""
    delimiter = how.delimiter or find_delimiter(text.sample(), usual)
    notes = []
    if delimiter != (how.delimiter or usual):
        notes.append(f"its fields are separated by {DELIMITERS[delimiter]} (data.delimiter)")
    has_quotes = how.quoting == "all" or (how.quoting == "auto" and delimiter != "\t")
    if how.quoting == "auto" and delimiter == "\t":
        has_quotes, note = find_quoting(text)
        notes += [note] if note else []
    rows = _quoted_rows(text, delimiter, defects) if has_quotes else _plain_rows(text, delimiter, defects)
    table = table_of_rows(text.name, rows, wanted, defects, header=how.header, editable=text.is_plain)
    table.notes += notes
    return table


def table_of_rows(
    name: str,
    rows: Iterator[Row],
    wanted: set[str],
    defects: Defects,
    *,
    header: bool,
    unit: str = "line",
    editable: bool = False,
) -> Table:
    """The wanted columns of the rows. A row with more or fewer cells than the first row becomes a defect.

    editable: whether ``name`` is the path of a file whose lines the user can remove with a command.
    """
    first = next(rows, None)
    if first is None:
        return Table([TableFile(name, unit, array("q"))], [], {})
    cells = list(first[1])
    names = [str(i) for i in range(1, len(cells) + 1)]
    if header:
        names = ["" if cell is None else str(cell).strip() for cell in cells]
    check_once(name, names, wanted)
    columns: dict[str, list[Any]] = {n: [] for n in names if n in wanted}
    known: list[dict[str, str]] = [{} for _ in columns]  # the short cells of each column so far
    places = [names.index(n) for n in columns]
    table = Table([TableFile(name, unit, lines := array("q"))], names, columns, header=header)
    again: list[int] = []  # lines that repeat the header
    for line, row in rows if header else _with_first(first, rows):
        if len(row) != len(names):
            what = f"has {len(row)} fields, but the {'header' if header else 'first row'} has {len(names)}"
            defects.add(RowOrigin(name, line, unit), what)
            continue
        if header and columns and len(names) > 1 and row[0] == cells[0] and list(row) == cells:
            again.append(line)
            continue
        lines.append(line)
        if len(table.head) < HEAD:
            table.head.append(list(row))
        for i, column, cells_so_far in zip(places, columns.values(), known, strict=True):
            cell = row[i]
            if isinstance(cell, str) and len(cell) <= SHORT and len(cells_so_far) < REPEATED:
                cell = cells_so_far.setdefault(cell, cell)  # equal labels share one string in memory
            column.append(cell)
    if again:
        defects.add(RowOrigin(name, again[0], unit), _repeated_header(name, again, unit, editable))
    return table


def _with_first(first: Row, rows: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rows


def _repeated_header(name: str, lines: list[int], unit: str, editable: bool) -> str:
    what = "repeats the header, as if several files had been joined"
    if len(lines) > 1:
        what += f" (and {len(lines) - 1:,} more {unit}s)"
    if not editable or len(lines) > 20:
        return f"{what}; remove it"
    return f"{what}; remove it: sed -i '{';'.join(f'{line}d' for line in lines)}' {quoted(name)}"


def check_once(name: str, names: Sequence[str], wanted: set[str]) -> None:
    """Raises UserError if two columns of the file have the same wanted name."""
    for column in sorted(wanted):
        if names.count(column) > 1:
            times = names.count(column)
            raise UserError(f'{name}: the header names the column "{column}" {times} times; keep one of them')


# Guessing a file's format ------------------------------------------------------------------------------------


def find_delimiter(sample: str, usual: str = ",") -> str:
    """The delimiter of a file, guessed from its beginning; ``usual`` if its first line contains none."""
    shares: dict[str, float] = {}
    for delimiter in DELIMITERS:
        counts = _field_counts(sample, delimiter)
        if counts and counts[0] > 1:
            shares[delimiter] = counts.count(counts[0]) / len(counts)
    return max(shares, key=lambda delimiter: (shares[delimiter], delimiter == usual), default=usual)


def _field_counts(sample: str, delimiter: str) -> list[int]:
    """The number of fields in each of the first rows."""
    lines = [line for line in sample.splitlines(keepends=True) if line.strip()]
    if delimiter == "\t":  # its fields may be unquoted
        return [line.count("\t") + 1 for line in lines[:LOOKED_AT]]
    with long_fields():
        rows = csv.reader(lines, delimiter=delimiter)
        return [len(row) for row, _ in zip(rows, range(LOOKED_AT), strict=False)]


class Lines(Protocol):
    """Anything that yields lines of text, such as a ``TextFile``."""

    def lines(self) -> Iterator[str]: ...


def find_quoting(text: Lines) -> tuple[bool, str]:
    """Whether the fields of a tab-separated file are quoted, and a note for the user ("": none).

    They are if a field begins with a quote mark, and reading them as quoted gives no error and no more rows of a
    different number of fields.
    """
    # Fields that begin with a quote mark, are quoted as a whole, and contain a doubled quote mark; rows of another
    # number of fields if quote marks are text.
    begins, whole, doubled, plain_ragged = 0, 0, 0, 0
    width = 0

    def watched() -> Iterator[str]:
        nonlocal begins, whole, doubled, plain_ragged, width
        for line in text.lines():
            width = width or line.count("\t") + 1
            plain_ragged += bool(line.strip("\r\n")) and line.count("\t") + 1 != width
            if line.startswith('"') or '\t"' in line:
                for field in line.rstrip("\r\n").split("\t"):
                    if field.startswith('"'):
                        begins += 1
                        whole += QUOTED.fullmatch(field) is not None
                        doubled += DOUBLED.fullmatch(field) is not None
            yield line

    ragged, readable = 0, True
    with long_fields():
        lines = watched()
        try:
            for row in csv.reader(lines, delimiter="\t", strict=True):
                ragged += bool(row) and len(row) != width
        except csv.Error:
            readable = False
            for _ in lines:  # ``watched`` counts the remaining lines
                pass
    if not begins:
        return False, ""
    if readable and ragged <= plain_ragged:
        return True, "its fields are quoted; the quote marks around them are removed (data.quoting=none keeps them)"
    if not doubled:
        return False, ""
    return False, (
        f"{whole:,} of {begins:,} fields that begin with a quote mark are quoted correctly and the others are not, so "
        "all quote marks are kept as text (data.quoting=all removes those around fields)"
    )


# Rows --------------------------------------------------------------------------------------------------------


def _quoted_rows(text: TextFile, delimiter: str, defects: Defects) -> Iterator[Row]:
    """Rows of fields quoted as in RFC 4180. Reading stops at an error in the quoting, as later rows may be wrong."""
    with long_fields():
        newline = None if delimiter == "\t" else ""
        reader = csv.reader(text.lines(defects, newline), delimiter=delimiter, strict=True)
        start = 1
        try:
            for fields in reader:
                if fields:  # an empty line is no row
                    yield start, fields
                start = reader.line_num + 1
        except csv.Error as error:
            what = f"the row that starts here has an error in its quoting ({error})"
            what += f"; if quote marks are text in this file, add: {changes({'data.quoting': 'none'})}"
            defects.add(RowOrigin(text.name, start), what)


@contextmanager
def long_fields() -> Iterator[None]:
    """Let CSV fields be longer than the csv module's 131,072 characters."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _plain_rows(text: TextFile, delimiter: str, defects: Defects) -> Iterator[Row]:
    """Rows without quoting: lines, split at each delimiter."""
    for number, line in enumerate(text.lines(defects), 1):
        if line := line.removesuffix(text.newline).removesuffix("\r"):
            yield number, line.split(delimiter)
