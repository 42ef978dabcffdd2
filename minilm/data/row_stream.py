"""Read the rows of a file one after another, with all their cells, for files of any size.

``readers.py`` reads the columns that training needs, and rows that cannot be used are an error. Here every row is
returned with its position and its cells, and a row that cannot be used contains the reason:

    RowStream.rows()  ->  Row(origin, names, cells, defect)

A file is read from its start each time. Standard input can be read only once, and is not kept in memory.
"""

from __future__ import annotations

import csv
import io
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from minilm.data.columnar import BATCH, cells_of, parquet_file, spreadsheet_rows
from minilm.data.decoding import LONGEST, STDIN, TextFile, display_name, open_text, too_long
from minilm.data.delimited import Format, find_delimiter, find_quoting, long_fields
from minilm.data.json_rows import REPEATED, array_values, cell_of, decoder, has_value_a_line, json_reason, rows_within
from minilm.data.readers import SPREADSHEETS, ending, is_table
from minilm.data.tables import Defects, RowOrigin
from minilm.errors import UserError

MOST_LINES = 10_000  # if a quoted field has more lines than this, its quote mark is an error
TEXT, PAIR = "text", "text_pair"  # the columns of lines of text


class Row(NamedTuple):
    """A row of a file."""

    origin: RowOrigin
    names: Sequence[str]  # the columns of its cells; in a table the same for all rows
    cells: Sequence[Any]
    defect: str = ""  # why the row cannot be used; empty: it can

    def cell(self, name: str) -> Any:
        """The cell of a column, which may be in a nested JSON object; None if the row has no such cell."""
        if name in self.names:
            return self.cells[self.names.index(name)]
        return cell_of(dict(zip(self.names, self.cells, strict=True)), name)


@dataclass(frozen=True)
class RowStream:
    """The rows of a file."""

    path: Path
    kind: str  # "csv", "tsv", "jsonl", "parquet" or "lines"
    rows: Callable[[], Iterator[Row]]
    delimiter: str = ","  # for the kind "csv"
    header: bool = True  # for the kinds "csv" and "tsv"

    @property
    def name(self) -> str:
        """The file's name in messages."""
        return display_name(self.path)


@dataclass(frozen=True)
class Survey:
    """Facts about a file, from reading it once."""

    names: list[str]  # of all columns, in the order in which they occur
    rows: int
    nested: set[str]  # columns that are in a nested object, such as "review.body"


def survey(stream: RowStream, wanted: Sequence[str]) -> Survey:
    """Read all rows once. ``wanted``: columns that may be in a nested object."""
    names: dict[str, None] | list[str] = {}
    nested, number, before = set[str](), 0, None
    for row in stream.rows():
        number += 1
        if row.names is not before and row.names:
            before = row.names
            names = list(row.names) if stream.kind != "jsonl" else {**dict.fromkeys(names), **dict.fromkeys(row.names)}
        nested |= {name for name in wanted if name not in names and row.cell(name) is not None}
    return Survey(list(names), number, nested)


def open_stream(path: Path, how: Format, *, kind: str = "", pairs: bool = False) -> RowStream:
    """Open a file as a stream of rows. Raises UserError if it does not exist, or as a whole cannot be read as rows.

    kind: the format of standard input, "csv", "tsv", "jsonl" or "lines"; for files, the ending decides. pairs: whether
    a line of text consists of two texts with a tab between them.
    """
    if path == STDIN:
        source: TextFile | Piped = Piped()
    elif not path.is_file():
        raise UserError(f"{path}: {'is a folder; name a file in it' if path.is_dir() else 'no such file'}")
    else:
        kind = _kind_of(path)
        if kind == "parquet":
            return RowStream(path, kind, lambda: _parquet_rows(path))
        if kind == "spreadsheet":
            name = display_name(path)
            return RowStream(path, "csv", lambda: _table_rows(name, spreadsheet_rows(path)[0], how, Defects(), "row"))
        source = open_text(path, how.encoding if kind != "lines" else "")
    if kind == "lines":
        return RowStream(path, kind, lambda: _lines(source, pairs))
    if kind == "jsonl":
        return RowStream(path, kind, lambda: _json_rows(source))
    sample = source.sample()
    delimiter = how.delimiter or find_delimiter(sample, "\t" if kind == "tsv" else ",")
    quoted = how.quoting == "all" or (how.quoting == "auto" and delimiter != "\t")
    if how.quoting == "auto" and delimiter == "\t":
        quoted, _ = find_quoting(Piped(sample) if isinstance(source, Piped) else source)

    def rows() -> Iterator[Row]:
        defects = Defects()
        lines = source.lines(defects, "" if quoted and delimiter != "\t" else None)
        found = _quoted(lines, delimiter) if quoted else _plain(lines, delimiter)
        return _table_rows(source.name, found, how, defects)

    return RowStream(path, kind, rows, delimiter, how.header)


def _kind_of(path: Path) -> str:
    suffix = ending(path)
    if not is_table(path):
        return "lines"
    if suffix in SPREADSHEETS:
        return "spreadsheet"
    kinds = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv"}
    return kinds.get(suffix, "jsonl")


class Piped:
    """Standard input, or a text, with the methods of ``TextFile``; it is read once and not kept in memory."""

    name = display_name(STDIN)

    def __init__(self, text: str | None = None) -> None:
        """text: the text to read instead of standard input."""
        if text is None:
            if sys.stdin.isatty():
                raise UserError("nothing to classify: give --file FILE, or rows on standard input")
            binary: Any = sys.stdin.buffer
            self.binary = binary if isinstance(binary, io.BufferedReader) else io.BufferedReader(binary)
        else:
            self.binary = io.BufferedReader(io.BytesIO(text.encode(errors="replace")))

    def sample(self) -> str:
        """The first characters that are available, up to the end of the last whole line."""
        text = self.binary.peek(2**16).decode("utf-8-sig", errors="ignore")
        return text[: text.rfind("\n") + 1] or text

    def lines(self, defects: Defects | None = None, newline: str | None = None) -> Iterator[str]:
        """See ``TextFile.lines``."""
        for number, line in enumerate(iter(lambda: self.binary.readline(LONGEST + 1), b""), 1):
            if len(line) > LONGEST:
                raise too_long(RowOrigin(self.name, number))
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                if defects is not None:
                    defects.add(RowOrigin(self.name, number), f"not UTF-8 (byte 0x{line[error.start]:02x})")
                yield line.decode(errors="replace")


def _reason(defects: Defects) -> str:
    """The defects since the last row, as a text; they are removed from ``defects``."""
    what = defects.found[0][1] if defects.found else ""
    defects.found.clear()
    return what if isinstance(what, str) else what()


# --- Tables ---

Fields = tuple[int, Sequence[Any], str]  # the line on which a row starts, its cells, its defect


def _table_rows(
    name: str, rows: Iterable[Fields | tuple[int, Sequence[Any]]], how: Format, defects: Defects, unit: str = "line"
) -> Iterator[Row]:
    """Rows with as many cells as the header. A row with more or fewer cells is cut or filled, and gets a defect.

    defects: those of the text from which the rows are read; new defects belong to the row that was read last.
    """
    names: list[str] = []
    for line, cells, *wrong in rows:
        defect = _reason(defects) or "".join(wrong)
        if not names:
            names = [str(i) for i in range(1, len(cells) + 1)]
            if how.header:
                names = ["" if cell is None else str(cell).strip() for cell in cells]
                continue
        if len(cells) != len(names):
            what = "the header" if how.header else "the first row"
            defect = defect or f"has {len(cells)} fields, but {what} has {len(names)}"
            cells = [*cells, *[""] * len(names)][: len(names)]
        yield Row(RowOrigin(name, line, unit), names, cells, defect)


def _plain(lines: Iterator[str], delimiter: str) -> Iterator[Fields]:
    """Rows without quoting: lines, split at each delimiter."""
    for number, line in enumerate(lines, 1):
        if line := line.rstrip("\r\n"):
            yield number, line.split(delimiter), ""


def _quoted(lines: Iterator[str], delimiter: str) -> Iterator[Fields]:
    """Rows of fields quoted as in RFC 4180. After an error in a row's quoting, reading continues at its second line."""
    again: deque[str] = deque()  # lines to read again
    line = 1

    def next_lines(read: list[str]) -> Iterator[str]:
        while len(read) < MOST_LINES and sum(map(len, read[:-1])) <= LONGEST:
            text = again.popleft() if again else next(lines, None)
            if text is None:
                return
            read.append(text)
            yield text

    while True:
        read: list[str] = []
        with long_fields():
            try:
                cells = next(csv.reader(next_lines(read), delimiter=delimiter, strict=True), None)
            except csv.Error as error:
                cells = next(csv.reader(read[:1], delimiter=delimiter), [])
                yield line, cells, f"the row that starts here has an error in its quoting ({error})"
                again.extendleft(reversed(read[1:]))
                line += 1
                continue
        if cells is None:
            return
        if cells:  # an empty line is no row
            yield line, cells, ""
        line += len(read)


# --- Other files ---


def _lines(source: TextFile | Piped, pairs: bool) -> Iterator[Row]:
    defects, names = Defects(), [TEXT, PAIR] if pairs else [TEXT]
    for number, line in enumerate(source.lines(defects), 1):
        cells, defect = line.rstrip("\r\n").split("\t") if pairs else [line.rstrip("\r\n")], _reason(defects)
        if len(cells) != len(names) and "".join(cells).strip():
            defect = defect or "must be two texts with a tab between them"
        yield Row(RowOrigin(source.name, number), names, [*cells, ""][: len(names)], defect)


def _json_rows(source: TextFile | Piped) -> Iterator[Row]:
    start = source.sample().lstrip()
    if start.startswith("[") and isinstance(source, TextFile):
        for line, value in array_values(source):
            yield _json_row(RowOrigin(source.name, line), value)
        return
    if isinstance(source, TextFile) and ending(source.path) == ".json" and not has_value_a_line(start):
        values, _ = rows_within("".join(source.pieces()), source.name)  # all in memory
        for number, value in enumerate(values, 1):
            yield _json_row(RowOrigin(source.name, number, "row"), value)
        return
    defects = Defects()
    for number, text in enumerate(source.lines(defects), 1):
        if not text.strip():
            continue
        origin, defect = RowOrigin(source.name, number), _reason(defects)
        try:
            yield _json_row(origin, decoder.decode(text.strip()), defect)
        except (ValueError, RecursionError) as error:  # also for too long numbers and too deep nesting
            yield Row(origin, (), (), defect or f"is not JSON ({json_reason(error)})")


def _json_row(origin: RowOrigin, value: Any, defect: str = "") -> Row:
    if not isinstance(value, dict):
        return Row(origin, (), (), defect or "is not a JSON object")
    if twice := [key for key, cell in value.items() if cell is REPEATED]:
        value = {key: None if cell is REPEATED else cell for key, cell in value.items()}
        defect = defect or f'has the key "{twice[0]}" more than once'
    return Row(origin, tuple(value), tuple(value.values()), defect)


def _parquet_rows(path: Path) -> Iterator[Row]:
    with parquet_file(path) as file:
        names, number = list(file.schema_arrow.names), 0
        for batch in file.iter_batches(BATCH):
            columns = [cells_of(column) for column in batch.columns]
            for cells in zip(*columns, strict=True):
                number += 1
                yield Row(RowOrigin(display_name(path), number, "row"), names, cells)
