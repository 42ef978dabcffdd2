"""Rows from Parquet files and from spreadsheets, each through a package that is an extra."""

from __future__ import annotations

import os
from array import array as numbers
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm.data.decoding import display_name, open_bytes
from minilm.data.delimited import Row, check_once, table_of_rows
from minilm.data.tables import HEAD, Defects, Table, TableFile
from minilm.errors import UserError

BATCH = 256  # rows of a Parquet file that are unpacked at once
ROOM, RATIO = 1 << 28, 100  # a Parquet file may unfold to so many bytes, or to so many times its own size
PER_ROW = 16  # bytes of memory that a row takes, whatever is in it
HEAD_ROOM = 1 << 26  # bytes that a column may unfold to, to be among the columns of the first rows


def read_parquet(path: Path, wanted: set[str]) -> Table:
    """The wanted columns of a Parquet file. Needs pyarrow, the extra ``data``.

    Raises UserError if it cannot be read, or if a small file unfolds to more than ``ROOM``: a few bytes may say that a
    text comes a million times.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: Parquet files need pyarrow: pip install 'minilm[data]'") from None
    try:
        with open_bytes(path) as binary:
            room = _Room(path, max(ROOM, RATIO * binary.seek(0, os.SEEK_END)))
            file = pyarrow.parquet.ParquetFile(binary)
            names, sizes = file.schema_arrow.names, _stated_sizes(file.metadata, file.schema_arrow.names)
            check_once(display_name(path), names, wanted)
            columns: dict[str, list[Any]] = {name: [] for name in names if name in wanted}
            room.check(PER_ROW * file.metadata.num_rows + sum(sizes[name] for name in columns))
            for batch in file.iter_batches(BATCH, columns=list(columns)) if columns else ():
                for name, cells in columns.items():
                    array = _plain(batch.column(name))
                    room.take(array.nbytes + PER_ROW * len(array))
                    cells.extend(array.to_pylist())
            lines = numbers("q", range(1, file.metadata.num_rows + 1))
            head = _head(file, names, sizes) if len(set(names)) == len(names) else []
    except (pyarrow.ArrowException, ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {' '.join(str(error).split())}") from None
    return Table([TableFile(display_name(path), "row", lines)], names, columns, head)


@dataclass
class _Room:
    """How much a file may still unfold to."""

    path: Path
    left: int  # bytes

    def check(self, size: int) -> None:
        """Raise UserError if so many bytes do not fit."""
        if size > self.left:
            much = f"{self.path.stat().st_size:,} bytes unfold to more than {max(size, ROOM):,}"
            raise UserError(f"{self.path}: {much}, which is not read; write the rows that you need into another file")

    def take(self, size: int) -> None:
        """The same; they are gone then."""
        self.check(size)
        self.left -= size


def _stated_sizes(metadata: Any, names: list[str]) -> dict[str, int]:
    """How many bytes each column of a Parquet file is once it is decompressed, as the file states it.

    A text that the file has once, and thousands of rows refer to, is counted once.
    """
    sizes = dict.fromkeys(names, 0)
    for group in range(metadata.num_row_groups):
        chunks = metadata.row_group(group)
        for chunk in map(chunks.column, range(chunks.num_columns)):
            for name in names:
                if f"{chunk.path_in_schema}.".startswith(f"{name}."):  # a column in a column has a path
                    sizes[name] += chunk.total_uncompressed_size
    return sizes


def _head(file: Any, names: list[str], sizes: dict[str, int]) -> list[list[Any]]:
    """The cells of the first rows, one for each name; of columns that are pictures or the like, nothing."""
    light = [name for name in names if sizes[name] <= HEAD_ROOM]
    first = next(file.iter_batches(HEAD, columns=light), None) if light else None
    if first is None:
        return []
    cells = {name: _plain(first.column(name)).to_pylist() for name in light}
    return [[cells[name][row] if name in cells else None for name in names] for row in range(first.num_rows)]


def _plain(column: Any) -> Any:
    """An Arrow array without a dictionary; times that are finer than Python's become text."""
    import pyarrow

    column = column.dictionary_decode() if isinstance(column, pyarrow.DictionaryArray) else column
    kind = column.type
    if pyarrow.types.is_temporal(kind) and not pyarrow.types.is_date(kind) and kind.unit == "ns":
        column = column.cast(pyarrow.int64() if pyarrow.types.is_duration(kind) else pyarrow.string())
    return column


def read_spreadsheet(path: Path, wanted: set[str], defects: Defects, *, header: bool) -> Table:
    """The first sheet of a spreadsheet. Needs python-calamine, the extra ``excel``."""
    try:
        import python_calamine
    except ImportError:
        raise UserError(f"{path}: spreadsheets need python-calamine: pip install 'minilm[excel]'") from None
    name = display_name(path)
    try:
        with open_bytes(path) as binary:
            book = python_calamine.CalamineWorkbook.from_filelike(binary)
        cells = book.get_sheet_by_index(0).to_python(skip_empty_area=False)
    except (python_calamine.CalamineError, OSError, EOFError, IndexError, ValueError) as error:
        raise UserError(f"{name}: not a readable spreadsheet: {error}") from None
    table = table_of_rows(name, _filled(cells), wanted, defects, header=header, unit="row")
    if len(book.sheet_names) > 1:
        others = ", ".join(f'"{other}"' for other in book.sheet_names[1:])
        table.notes.append(f'its sheet "{book.sheet_names[0]}" was read, and not {others}')
    return table


def _filled(cells: list[list[Any]]) -> Iterator[Row]:
    """The rows that are not empty, numbered as the spreadsheet numbers them; what is after the header's end is left."""
    width = 0
    for number, row in enumerate(cells, 1):
        if all(cell in ("", None) for cell in row):
            continue
        width = width or max(i for i, cell in enumerate(row, 1) if cell not in ("", None))
        yield number, [None if cell == "" else cell for cell in row[:width]]
