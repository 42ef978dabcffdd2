"""Rows from CSV, TSV, JSONL and Parquet files, each with the line it starts on, so that errors can name it.

    .csv             RFC 4180: fields may be quoted; a quoted one may hold commas, doubled quotes and line breaks
    .tsv             fields between tabs, no quoting
    .jsonl, .ndjson  one JSON object a line
    .parquet         columns; needs pyarrow, the extra ``data``

All text is UTF-8, with or without a byte order mark; the first line of a CSV or TSV file names the columns.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from minilm.errors import UserError, nearest

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
SHOWN = 5  # defects that a report spells out; the rest it counts

# Bytes that are not UTF-8 are read as lone surrogates, which no valid text holds, so that they can be found.
BROKEN = re.compile("[\ud800-\udfff]")
REPEATED: Any = object()  # the value of a JSON object's key that is there twice


class Defects:
    """What is wrong with the rows, gathered so that one report tells it all."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int, str, str]] = []  # file, line, "line" or "row", what is wrong

    def add(self, path: Path, line: int, what: str, unit: str = "line") -> None:
        self.found.append((str(path), line, unit, what))

    def check(self) -> None:
        """Raise UserError with the first defects, file by file, and their number. Without any, do nothing."""
        if not self.found:
            return
        shown = [f"{path}, {unit} {line}: {what}" for path, line, unit, what in sorted(self.found)[:SHOWN]]
        if len(self.found) > SHOWN:
            shown.append(f"and {len(self.found) - SHOWN:,} more")
        count = "1 defect" if len(self.found) == 1 else f"{len(self.found):,} defects"
        raise UserError(f"{count} in the data; fix them first:\n  " + "\n  ".join(shown))


@dataclass(frozen=True)
class Table:
    """The wanted columns of one file."""

    path: Path
    names: list[str]  # of all the file's columns
    columns: dict[str, list[Any]]  # name -> N cells, for the wanted columns that the file has; None: the row lacks it
    lines: list[int] = field(default_factory=list)  # (N,) where each row starts, from 1
    unit: str = "line"  # what is counted: "line", or "row" in a Parquet file

    def require(self, name: str, key: str) -> None:
        """Raise UserError, naming the columns there are, where the file has none of this name.

        ``key`` is the config's key that asks for it.
        """
        if name in self.columns:
            return
        names = ", ".join(f'"{n}"' for n in self.names)
        hint = nearest(name, self.names)
        raise UserError(f'{self.path}: no column "{name}" ({key}){hint}; its columns are {names}')


def read_table(path: Path, wanted: set[str], defects: Defects) -> Table:
    """Read the wanted columns, those that there are. Rows that cannot be read become defects.

    Raises UserError where the file as a whole cannot be read, or holds no rows.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"{path}: not a known format; the endings known are {', '.join(FORMATS)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file{like_it(path)}")
    before = len(defects.found)
    if suffix == ".parquet":
        table = _read_parquet(path, wanted)
    elif suffix in (".jsonl", ".ndjson"):
        table = _read_jsonl(path, wanted, defects)
    else:
        table = _read_delimited(path, wanted, defects, _csv_rows if suffix == ".csv" else _tsv_rows)
    if not table.lines and len(defects.found) == before:
        raise UserError(f"{path}: the file holds no rows")
    return table


def like_it(path: Path, endings: Collection[str] = FORMATS) -> str:
    """The file of its folder whose name is most like that of a file that is not there, as ``errors.nearest`` tells it.

    It has one of the endings, which do not count: all the files of a folder may be alike in them.
    """
    there = path.parent.glob("*") if path.parent.is_dir() else ()
    alike = [p.name for p in there if p.suffix.lower() in endings and nearest(path.stem, [p.stem])]
    return nearest(path.name, alike)


def _check_once(path: Path, names: list[str], wanted: set[str]) -> None:
    """Raises UserError where the file has two columns of a name that is wanted."""
    for name in sorted(wanted):
        if names.count(name) > 1:
            raise UserError(f'{path}: the header names the column "{name}" {names.count(name)} times; keep one of them')


def _lines(text: str) -> list[str]:
    """Lines that end with LF or CR LF (whose CR is left), or, in a file without any LF, with CR alone."""
    return text.split("\n" if "\n" in text else "\r")


def _read_text(path: Path, defects: Defects) -> str:
    """The file's text. A line that is not UTF-8 becomes a defect, and its bad bytes become U+FFFD."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{path}: is UTF-16; save the file as UTF-8")
    text = content.decode("utf-8-sig", errors="surrogateescape")
    if not BROKEN.search(text):
        return text
    for number, line in enumerate(_lines(text), 1):
        if bad := BROKEN.search(line):
            byte = ord(bad[0]) - 0xDC00
            defects.add(path, number, f"not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8")
    return BROKEN.sub("\ufffd", text)


# CSV and TSV ------------------------------------------------------------------------------------------------


Splitter = Callable[[Path, str, Defects], Iterator[tuple[int, list[str]]]]  # of a file's text: (line, fields) a row


def _read_delimited(path: Path, wanted: set[str], defects: Defects, split: Splitter) -> Table:
    """A header, and rows of as many fields."""
    rows = split(path, _read_text(path, defects), defects)
    names = [name.strip() for name in next(rows, (1, []))[1]]
    if len(names) == 1 and ";" in names[0]:  # as spreadsheets write where a comma divides digits
        raise UserError(f"{path}: fields must be separated by commas (a .tsv file: by tabs), not by semicolons")
    _check_once(path, names, wanted)
    lines, cells = [], []
    for line, fields in rows:
        if len(fields) == len(names):
            lines.append(line)
            cells.append(fields)
        else:
            defects.add(path, line, f"{len(fields)} fields where the header has {len(names)}")
    places = {name: i for i, name in enumerate(names) if name in wanted}
    return Table(path, names, {name: [row[i] for row in cells] for name, i in places.items()}, lines)


def _csv_rows(path: Path, text: str, defects: Defects) -> Iterator[tuple[int, list[str]]]:
    """Fields by RFC 4180. After a fault in the quoting, nothing that follows can be trusted: reading ends."""
    with _long_fields():
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        start = 1
        try:
            for fields in reader:
                if fields:  # an empty line is no row
                    yield start, fields
                start = reader.line_num + 1
        except csv.Error as error:
            defects.add(path, start, f"faulty quoting in the row that starts here ({error})")


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let CSV fields be longer than the csv module's 131,072 characters."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _tsv_rows(path: Path, text: str, defects: Defects) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(_lines(text), 1):
        if line := line.removesuffix("\r"):
            yield number, line.split("\t")


# JSONL ------------------------------------------------------------------------------------------------------


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; its keys that are there twice are ``REPEATED``, where Python would take the last value."""
    row = dict(pairs)
    if len(row) < len(pairs):
        row |= {key: REPEATED for key, times in Counter(key for key, _ in pairs).items() if times > 1}
    return row


def _read_jsonl(path: Path, wanted: set[str], defects: Defects) -> Table:
    lines, rows = [], []
    for number, line in enumerate(_lines(_read_text(path, defects)), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:  # also numbers too long, and brackets too deep
            told = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            defects.add(path, number, f"not JSON ({told})")
            continue
        if not isinstance(row, dict):
            defects.add(path, number, "not a JSON object")
        elif twice := [key for key in sorted(wanted) if row.get(key) is REPEATED]:
            defects.add(path, number, f'the key "{twice[0]}" is there more than once; keep one of them')
        else:
            lines.append(number)
            rows.append(row)
    names = list(dict.fromkeys(key for row in rows for key in row))
    columns = {name: [row.get(name) for row in rows] for name in names if name in wanted}
    return Table(path, names, columns, lines)


# Parquet ----------------------------------------------------------------------------------------------------


def _read_parquet(path: Path, wanted: set[str]) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: Parquet files need pyarrow: pip install 'minilm[data]'") from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        _check_once(path, names, wanted)
        table = file.read(columns=[name for name in names if name in wanted])
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {error}") from None
    return Table(path, names, columns, list(range(1, file.metadata.num_rows + 1)), unit="row")


# Lines of text ----------------------------------------------------------------------------------------------


def read_lines(file: BinaryIO, place: str = "line") -> Iterator[str]:
    """The lines of a file in UTF-8. Raises UserError naming the first that is not."""
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{place} {number}: not UTF-8 (byte 0x{line[error.start]:02x})") from None
