"""Rows from Parquet files and from spreadsheets, each read with an optional package."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minilm.data.compressed import Room, check_archive
from minilm.data.decoding import display_name, open_bytes
from minilm.data.delimited import Row, check_once, table_of_rows
from minilm.data.tables import HEAD, Defects, Table, TableFile
from minilm.errors import UserError
from minilm.hints import install

BATCH = 256  # rows of a Parquet file that are decoded at once
PER_ROW = 16  # bytes of memory that a row takes, whatever is in it
HEAD_ROOM = 1 << 26  # bytes that a column may decompress to, to be among the columns of the first rows


@contextmanager
def parquet_file(path: Path) -> Iterator[Any]:
    """Open a Parquet file with pyarrow. Raises UserError if it cannot be opened, or read inside the context."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: Parquet files need pyarrow; to install it: {install('data')}") from None
    try:
        with open_bytes(path) as binary:
            yield pyarrow.parquet.ParquetFile(binary)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {' '.join(str(error).split())}") from None


def read_parquet(path: Path, wanted: set[str]) -> Table:
    """The wanted columns of a Parquet file. Needs pyarrow, the extra ``data``.

    Raises UserError if it cannot be read, or if it decompresses to too many bytes (``Room``).
    """
    with parquet_file(path) as file:
        room = Room(display_name(path), os.path.getsize(path))
        names, sizes = list(file.schema_arrow.names), _stated_sizes(file.metadata, file.schema_arrow.names)
        check_once(display_name(path), names, wanted)
        columns: dict[str, list[Any]] = {name: [] for name in names if name in wanted}
        room.check(PER_ROW * file.metadata.num_rows + sum(sizes[name] for name in columns))
        for batch in file.iter_batches(BATCH, columns=list(columns)) if columns else ():
            for name, cells in columns.items():
                column = batch.column(name)
                room.take(unfolded_size(column) + PER_ROW * len(column))
                cells.extend(cells_of(column))
        lines = array("q", range(1, file.metadata.num_rows + 1))
        head = _head(file, names, sizes) if len(set(names)) == len(names) else []
    return Table([TableFile(display_name(path), "row", lines)], names, columns, head)


def unfolded_size(column: Any) -> int:
    """The bytes of an Arrow array as Python objects, in which values of a dictionary are repeated."""
    import pyarrow

    return int((column.dictionary_decode() if isinstance(column, pyarrow.DictionaryArray) else column).nbytes)


def cells_of(column: Any) -> list[Any]:
    """The values of an Arrow array. Times without a Python type become texts, and such durations whole numbers."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_temporal(kind) and not pyarrow.types.is_date(kind) and kind.unit == "ns":
        column = column.cast(pyarrow.int64() if pyarrow.types.is_duration(kind) else pyarrow.string())
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):  # beyond the year 9999
        return list(column.cast(pyarrow.string()).to_pylist())


def _stated_sizes(metadata: Any, names: list[str]) -> dict[str, int]:
    """The decompressed size of each column of a Parquet file in bytes, as the file states it.

    A text that the file stores once and thousands of rows refer to counts once.
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
    """The cells of the first rows, by column; empty for columns with large values, such as pictures."""
    light = [name for name in names if sizes[name] <= HEAD_ROOM]
    first = next(file.iter_batches(HEAD, columns=light), None) if light else None
    if first is None:
        return []
    cells = {name: cells_of(first.column(name)) for name in light}
    return [[cells[name][row] if name in cells else None for name in names] for row in range(first.num_rows)]


def read_spreadsheet(path: Path, wanted: set[str], defects: Defects, *, header: bool) -> Table:
    """The first sheet of a spreadsheet. Needs python-calamine, the extra ``excel``."""
    rows, note = spreadsheet_rows(path)
    table = table_of_rows(display_name(path), rows, wanted, defects, header=header, unit="row")
    table.notes += [note] if note else []
    return table


def spreadsheet_rows(path: Path) -> tuple[Iterator[Row], str]:
    """The rows of a spreadsheet's first sheet, and a note about its other sheets ("": none)."""
    try:
        import python_calamine
    except ImportError:
        raise UserError(f"{path}: spreadsheets need python-calamine; to install it: {install('excel')}") from None
    try:
        with open_bytes(path) as binary:
            check_archive(binary, display_name(path))
            book = python_calamine.CalamineWorkbook.from_filelike(binary)
        cells = book.get_sheet_by_index(0).to_python(skip_empty_area=False)
    except (python_calamine.CalamineError, OSError, EOFError, IndexError, ValueError) as error:
        raise UserError(f"{display_name(path)}: not a readable spreadsheet: {error}") from None
    others = ", ".join(f'"{other}"' for other in book.sheet_names[1:])
    return _filled(cells), f'only its sheet "{book.sheet_names[0]}" was read, not {others}' if others else ""


def _filled(cells: list[list[Any]]) -> Iterator[Row]:
    """The rows that are not empty, with the spreadsheet's row numbers; cells right of the header's last are dropped."""
    width = 0
    for number, row in enumerate(cells, 1):
        if all(cell in ("", None) for cell in row):
            continue
        width = width or max(i for i, cell in enumerate(row, 1) if cell not in ("", None))
        yield number, [None if cell == "" else cell for cell in row[:width]]
