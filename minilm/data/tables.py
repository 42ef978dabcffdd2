"""The result of reading a file: the wanted columns of its rows, each row's place in the file, and the defects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from minilm.errors import UserError

SHOWN = 5  # the most defects that a message shows; it counts the others
POSITION = "position"  # the unit of the rows of a data frame, as its ``iloc`` counts them
HEAD = 200  # the first rows, of which all columns are kept, so that a message can suggest columns


class RowOrigin(NamedTuple):
    """Where a row comes from."""

    path: str
    line: int  # where the row starts, from 1; a position counts from 0
    unit: str = "line"  # of ``line``: "line", "row" in Parquet files and spreadsheets, or POSITION

    def __str__(self) -> str:
        return f"{self.path}, {self.unit} {self.line}{' (from 0)' if self.unit == POSITION else ''}"


class Defects:
    """Collects the defects of the rows, so that one error reports them all."""

    def __init__(self) -> None:
        self.found: list[tuple[RowOrigin, str | Callable[[], str]]] = []

    def add(self, origin: RowOrigin, what: str | Callable[[], str]) -> None:
        """Add a defect. ``what`` may be a function that returns the text; it is called only if the defect is shown."""
        self.found.append((origin, what))

    def check(self) -> None:
        """Raise UserError with the first defects, file by file, and their number, if there are any."""
        if not self.found:
            return
        first = sorted(self.found, key=lambda defect: defect[0])[:SHOWN]
        shown = [f"{origin}: {what if isinstance(what, str) else what()}" for origin, what in first]
        if len(self.found) > SHOWN:
            shown.append(f"and {len(self.found) - SHOWN:,} more")
        count = "1 defect" if len(self.found) == 1 else f"{len(self.found):,} defects"
        raise UserError(f"{count} in the data; fix them first:", *shown)


class TableFile(NamedTuple):
    """A file of a table."""

    path: str
    unit: str
    lines: Sequence[int]  # (n,) the line or row on which each row starts


@dataclass
class Table:
    """The wanted columns of one file, or of several that belong together."""

    files: list[TableFile]
    names: list[str]  # of all columns
    columns: dict[str, list[Any]]  # name -> N cells, for each wanted column that exists; None: no cell
    head: list[list[Any]] = field(default_factory=list)  # the cells of the first rows, one for each name
    header: bool = True  # whether the names come from the file; otherwise they are numbers from 1
    notes: list[str] = field(default_factory=list)  # sentences about unusual guesses, such as the delimiter

    def __len__(self) -> int:
        return sum(len(file.lines) for file in self.files)

    @property
    def is_frame(self) -> bool:
        """Whether it is a data frame, or was one."""
        return self.files[0].unit == POSITION

    @property
    def path(self) -> str:
        """The table's name in messages: its file, or the first of several."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return self.files[0].path + more

    def origin(self, row: int) -> RowOrigin:
        """The file and line of a row, numbered from 0."""
        for file in self.files:
            if row < len(file.lines):
                return RowOrigin(file.path, file.lines[row], file.unit)
            row -= len(file.lines)
        raise IndexError(row)


def joined(tables: Sequence[Table]) -> Table:
    """Join the rows of several files, with the columns of all; cells that a file does not have are None."""
    if len(tables) == 1:
        return tables[0]
    whole = Table([], list(dict.fromkeys(name for table in tables for name in table.names)), {})
    for table in tables:  # their cells are moved, not copied
        before = len(whole)
        for name in table.columns.keys() - whole.columns.keys():
            whole.columns[name] = [None] * before
        for name, cells in whole.columns.items():
            cells.extend(table.columns.pop(name, [None] * len(table)))
        whole.files += table.files
        whole.notes += table.notes
    first = tables[0]
    places = [first.names.index(name) if name in first.names else -1 for name in whole.names]
    whole.head = [[row[i] if i >= 0 else None for i in places] for row in first.head]
    whole.header = first.header
    return whole
