"""Write rows with additional columns as CSV, TSV, JSON lines or Parquet, in such a way that writing can be resumed.

A writer turns rows into bytes, which are appended to a file. For CSV, TSV and JSON lines, this is the final file. A
Parquet file has its metadata at the end, so its rows are first stored as Arrow messages, and ``finish`` makes the
final file from them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from minilm.data.columnar import parquet_file
from minilm.data.row_stream import Row, RowStream
from minilm.errors import UserError
from minilm.hints import install

Kind = Literal["text", "number", "texts", "numbers"]  # the type of an added column
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet"}
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins with one of these may be run as a formula
GROUP = 65_536  # the least number of rows in a row group of a Parquet file


class RowWriter(ABC):
    """Writes rows. ``added``: the columns that are added after those of the rows, and their types."""

    def __init__(self, names: Sequence[str], added: Mapping[str, Kind]) -> None:
        self.names, self.added = list(names), dict(added)

    def begin(self) -> bytes:
        """The bytes before the first row."""
        return b""

    @abstractmethod
    def block(self, rows: Sequence[Row], added: Sequence[Sequence[Any]]) -> bytes:
        """The bytes of N rows and of their added cells."""

    def finish(self, written: Path) -> Path:
        """The final file, made from the file of the bytes: that file itself, or another one beside it."""
        return written


class DelimitedWriter(RowWriter):
    """CSV or TSV. Lists, objects and booleans are written as JSON, and None as an empty cell."""

    def __init__(
        self, names: Sequence[str], added: Mapping[str, Kind], delimiter: str, header: bool = True, safe: bool = False
    ) -> None:
        """safe: put an apostrophe before each cell that a spreadsheet would run as a formula."""
        super().__init__(names, added)
        self.delimiter, self.header, self.safe = delimiter, header, safe

    def begin(self) -> bytes:
        return self._lines([[*self.names, *self.added]]) if self.header else b""

    def block(self, rows: Sequence[Row], added: Sequence[Sequence[Any]]) -> bytes:
        return self._lines([*self._own(row), *more] for row, more in zip(rows, added, strict=True))

    def _own(self, row: Row) -> Sequence[Any]:
        if row.names == self.names:
            return row.cells
        found = dict(zip(row.names, row.cells, strict=True))
        return [found.get(name) for name in self.names]

    def _lines(self, rows: Iterable[Sequence[Any]]) -> bytes:
        text, shown = io.StringIO(newline=""), as_text if not self.safe else lambda cell: _safe(as_text(cell))
        csv.writer(text, delimiter=self.delimiter, lineterminator="\n").writerows(map(shown, row) for row in rows)
        return text.getvalue().encode(errors="replace")


def as_text(cell: Any) -> str:
    """A cell as text for a CSV file."""
    if isinstance(cell, str):
        return cell
    if cell is None:
        return ""
    return json.dumps(cell, ensure_ascii=False, default=str) if isinstance(cell, bool | list | dict) else str(cell)


def _valid(text: str) -> str:
    """The text with a question mark for each lone surrogate, which UTF-8 cannot encode."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _safe(cell: str) -> str:
    """The cell, changed if necessary so that a spreadsheet does not run it as a formula."""
    return f"'{cell}" if cell.startswith(FORMULAS) and not _is_number(cell) else cell


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


class JSONWriter(RowWriter):
    """JSON lines, one object per line; each row keeps its own keys."""

    def block(self, rows: Sequence[Row], added: Sequence[Sequence[Any]]) -> bytes:
        lines = []
        for row, more in zip(rows, added, strict=True):
            cells = dict(zip(row.names, row.cells, strict=True)) | dict(zip(self.added, more, strict=True))
            line = json.dumps(cells, ensure_ascii=False, default=str)
            try:
                lines.append(line.encode())
            except UnicodeEncodeError:  # a lone surrogate, which must be escaped
                lines.append(json.dumps(cells, default=str).encode())
        return b"\n".join(lines) + b"\n" if lines else b""


class ParquetWriter(RowWriter):
    """Parquet. Columns that come from a Parquet file keep their types; all others are text. Needs pyarrow."""

    def __init__(self, names: Sequence[str], added: Mapping[str, Kind], stream: RowStream) -> None:
        try:
            import pyarrow
        except ImportError:
            raise UserError(f"Parquet files need pyarrow; to install it: {install('data')}") from None
        super().__init__(names, added)
        text, number = pyarrow.string(), pyarrow.float64()
        types = {"text": text, "number": number, "texts": pyarrow.list_(text), "numbers": pyarrow.list_(number)}
        fields = [pyarrow.field(_valid(name), text) for name in names]
        self.typed = stream.kind == "parquet"
        if self.typed:
            with parquet_file(stream.path) as file:
                fields = list(file.schema_arrow)
        self.schema = pyarrow.schema([*fields, *(pyarrow.field(name, types[kind]) for name, kind in added.items())])

    def block(self, rows: Sequence[Row], added: Sequence[Sequence[Any]]) -> bytes:
        import pyarrow

        if not rows:
            return b""
        own: Iterable[Sequence[Any]]
        if self.typed:
            own = zip(*(row.cells for row in rows), strict=True)
        else:
            found = [dict(zip(row.names, row.cells, strict=True)) for row in rows]
            own = ([None if cells.get(n) is None else _valid(as_text(cells[n])) for cells in found] for n in self.names)
        columns = [*own, *zip(*added, strict=True)]
        arrays = [_array(cells, field.type) for cells, field in zip(columns, self.schema, strict=True)]
        return bytes(pyarrow.record_batch(arrays, schema=self.schema).serialize())

    def finish(self, written: Path) -> Path:
        final = written.with_name(f"{written.name}.final")
        with written.open("rb") as messages, final.open("wb") as file:
            self._write(messages, file)
            file.flush()
            os.fsync(file.fileno())
        return final

    def _write(self, messages: IO[bytes], file: IO[bytes]) -> None:
        """Write the rows of Arrow messages as Parquet, in groups of ``GROUP`` rows or more."""
        import pyarrow
        import pyarrow.parquet

        with pyarrow.parquet.ParquetWriter(file, self.schema) as writer:
            waiting: list[Any] = []
            for batch in _batches(messages, self.schema):
                waiting.append(batch)
                if sum(each.num_rows for each in waiting) >= GROUP:
                    writer.write_table(pyarrow.Table.from_batches(waiting))
                    waiting = []
            if waiting:
                writer.write_table(pyarrow.Table.from_batches(waiting))


def _array(cells: Sequence[Any], kind: Any) -> Any:
    """An Arrow array of a type, from what ``cells_of`` makes of one: times finer than Python's are texts."""
    import pyarrow

    as_text = any(isinstance(cell, str) for cell in cells) and pyarrow.types.is_temporal(kind)
    return pyarrow.array(cells, pyarrow.string()).cast(kind) if as_text else pyarrow.array(cells, kind)


def _batches(written: IO[bytes], schema: Any) -> Iterator[Any]:
    """Read the Arrow messages one after another, as batches of rows."""
    import pyarrow

    with pyarrow.PythonFile(written, mode="r") as source:
        while True:
            try:
                message = pyarrow.ipc.read_message(source)
            except EOFError:
                return
            yield pyarrow.ipc.read_record_batch(message, schema)


def writer_for(
    form: str, stream: RowStream, names: Sequence[str], added: Mapping[str, Kind], *, safe: bool = False
) -> RowWriter:
    """The writer for a format of ``FORMATS``. A CSV file gets the delimiter of the CSV file that is read."""
    if form == "parquet":
        return ParquetWriter(names, added, stream)
    if form == "jsonl":
        return JSONWriter(names, added)
    own = stream.delimiter if stream.kind == "csv" and stream.delimiter != "\t" else ","
    return DelimitedWriter(names, added, "\t" if form == "tsv" else own, stream.header, safe)
