"""Rows from Parquet files and from spreadsheets, each read with an optional package."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minilm.data.decoding import display_name, open_bytes
from minilm.data.delimited import Row, check_once, table_of_rows
from minilm.data.tables import HEAD, Defects, Table, TableFile
from minilm.errors import UserError

BATCH = 65_536  # rows of a Parquet file that are decoded at once


@contextmanager
def parquet_file(path: Path) -> Iterator[Any]:
    """Open a Parquet file with pyarrow. Raises UserError if it cannot be opened, or read inside the context."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: Parquet files need pyarrow: pip install 'minilm[data]'") from None
    try:
        with open_bytes(path) as binary:
            yield pyarrow.parquet.ParquetFile(binary)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {error}") from None


def read_parquet(path: Path, wanted: set[str]) -> Table:
    """The wanted columns of a Parquet file. Needs pyarrow, the extra ``data``."""
    with parquet_file(path) as file:
        names = file.schema_arrow.names
        check_once(display_name(path), names, wanted)
        columns: dict[str, list[Any]] = {name: [] for name in names if name in wanted}
        for batch in file.iter_batches(BATCH, columns=list(columns)) if columns else ():
            for name, cells in columns.items():
                cells.extend(batch.column(name).to_pylist())
        lines = array("q", range(1, file.metadata.num_rows + 1))
        first = next(file.iter_batches(HEAD), None) if len(set(names)) == len(names) else None
        head = [] if first is None else [list(row.values()) for row in first.to_pylist()]
    return Table([TableFile(display_name(path), "row", lines)], names, columns, head)


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
        raise UserError(f"{path}: spreadsheets need python-calamine: pip install 'minilm[excel]'") from None
    try:
        with open_bytes(path) as binary:
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
