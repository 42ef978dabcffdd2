"""Labelled texts that a program has in memory, as columns: a data frame of pandas or polars, or texts and labels.

    frame              its columns, by name
    (texts, labels)    the columns "text" and "label"; for pairs of texts, "text" and "text_pair"

Labels are names or numbers, one for each text; or several for each text: lists of labels, rows of 0 and 1 (N, C), or a
data frame with a column of 0 and 1 for each label. A missing value (None, NaN, pandas.NA) becomes an empty cell.

pandas and polars are never imported here: whoever has a data frame has imported its library.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minilm.data.tables import HEAD, POSITION, Table, TableFile
from minilm.errors import UserError

TEXT, PAIR, LABEL = "text", "text_pair", "label"  # the columns of texts and labels
FRAME = "frame"  # the name of the columns of a data frame
KEPT_FOLDER = ".data"  # below the folder of all runs, for data in memory; the name of a run cannot begin with a dot
KEPT = re.compile(r"(frame|texts)-[0-9a-f]{10}\.jsonl")  # the files in it


@dataclass(frozen=True)
class Columns:
    """N labelled texts."""

    name: str  # FRAME or "texts"
    columns: dict[str, list[Any]]  # name -> N cells; None: an empty cell
    # The keys of [data] that follow from the form of the texts and labels. {} for a data frame, whose columns the
    # config names.
    keys: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def table(self) -> Table:
        """The columns as a table. Messages about its rows count from 1, or name the position in a data frame."""
        columns = {name: list(cells) for name, cells in self.columns.items()}
        head = [list(row) for row in itertools.islice(zip(*columns.values(), strict=True), HEAD)]
        return Table([_rows_as_given(self.name, "the data", len(self))], list(columns), columns, head)


def as_given(file: TableFile, split: str = "") -> TableFile:
    """A file into which data in memory were written, as they were given; any other file itself.

    So a message names the row of a data frame, not the line of a file that nobody has written. split: the split that
    was given alone.
    """
    path = Path(file.path)
    kept = KEPT.fullmatch(path.name) if path.parent.name == KEPT_FOLDER else None
    name = f"data.{split}" if split else "the data"
    return _rows_as_given(kept[1], name, len(file.lines)) if kept else file


def _rows_as_given(kind: str, name: str, rows: int) -> TableFile:
    return TableFile(name, POSITION, range(rows)) if kind == FRAME else TableFile(name, "row", range(1, rows + 1))


def is_in_memory(data: object) -> bool:
    """Whether data are a data frame or texts and labels, and not the name or the path of data."""
    return not isinstance(data, str | Path)


def columns_of_data(data: object) -> Columns:
    """The columns of a data frame, or of ``(texts, labels)``.

    Raises UserError for anything else, if there are not as many labels as texts, or if there are no rows.
    """
    frame = frame_columns(data)
    if frame is not None:
        found = Columns(FRAME, frame)
    elif isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], str):
        found = _texts_and_labels(*data)
    else:
        raise UserError(
            f"data: must be a path, the name of a data set, a data frame of pandas or polars, or (texts, labels), got "
            f"{_described(data)}"
        )
    if not found.columns or not len(found):
        raise UserError("data: has no rows")
    for name, cells in found.columns.items():
        check_cells(cells, f'data: row {{row:,}}, column "{name}"')
    return found


def check_cells(cells: Iterable[Any], where: str) -> None:
    """Raises UserError for the first cell that has no text of its own: bytes, or an object of an unknown kind.

    where: the place of a cell, with ``{row}`` for its number.
    """
    for row, cell in enumerate(cells, 1):
        for item in cell if isinstance(cell, list) else (cell,):
            if isinstance(item, bytes | bytearray | memoryview):
                what = f"is {item!r}, which is bytes; decode it to text"
            elif type(item).__str__ is object.__str__ and type(item).__repr__ is object.__repr__:
                what = f"is an object of the type {type(item).__name__}, not a text, a number, a date or a list"
            else:
                continue
            raise UserError(f"{where.format(row=row)}: {what}; if it is not needed, remove it from the data")


def _described(data: object) -> str:
    """The type of a value, with what to do if it is nearly right."""
    advice = {"LazyFrame": "; call its method collect() first", "list": "; a tuple of two lists is (texts, labels)"}
    if type(data).__module__.partition(".")[0] == "datasets":  # of Hugging Face
        advice["Dataset"] = "; call its method to_pandas() first"
        advice["DatasetDict"] = '; it has several splits: {"train": data["train"].to_pandas(), ...}'
    kind = type(data).__name__
    return f"{kind}{advice.get(kind, '')}"


# Data frames ------------------------------------------------------------------------------------------------


def frame_columns(data: object) -> dict[str, list[Any]] | None:
    """The columns of a data frame of pandas or polars, without its index; None for other objects.

    Raises UserError if two columns have the same name.
    """
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        names = [str(name) for name in data.columns]
        series = [data.iloc[:, i] for i in range(len(names))]
        cells = [[None if gone else cell for cell, gone in zip(s.tolist(), s.isna(), strict=True)] for s in series]
    elif polars is not None and isinstance(data, polars.DataFrame):
        names, cells = list(data.columns), [series.to_list() for series in data.get_columns()]
    else:
        return None
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f'data: has two columns "{twice[0]}"; rename one of them')
    return {name: [plain(cell) for cell in column] for name, column in zip(names, cells, strict=True)}


def plain(value: Any, nan: float | None = None) -> Any:
    """A value as JSON and TOML have it: numpy's numbers and arrays, tuples, sets and paths as Python's simplest types.

    NaN, which means a missing value in a column, becomes None; in a config, ``nan`` keeps it. Other objects stay as
    they are.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and math.isnan(value):
        return nan
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner, nan) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(inner, nan) for inner in value), key=str)
    return [plain(inner, nan) for inner in value] if isinstance(value, list | tuple) else value


# Texts and labels -------------------------------------------------------------------------------------------


def _texts_and_labels(texts: Any, labels: Any) -> Columns:
    columns, pairs = text_columns(texts)
    found, keys = _label_columns(labels)
    for cells in found.values():
        if len(cells) != len(columns[TEXT]):
            raise UserError(f"data: has {len(columns[TEXT]):,} texts, but {len(cells):,} labels")
    return Columns("texts", columns | found, {"text": TEXT, "text_pair": PAIR if pairs else "", **keys})


def text_columns(texts: Iterable[Any]) -> tuple[dict[str, list[Any]], bool]:
    """The column of texts, or the two columns of pairs of texts; and whether they are pairs.

    Raises UserError if only some are pairs.
    """
    rows = listed(texts, "texts")
    lists = [isinstance(row, list) for row in rows]
    if not any(lists):
        return {TEXT: rows}, False
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) != 2:
            raise UserError(f"data: text {number:,} must be a pair of two texts, as text {lists.index(True) + 1:,} is")
    return {TEXT: [first for first, _ in rows], PAIR: [second for _, second in rows]}, True


def _label_columns(labels: Any) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The columns of labels, and the keys of [data] that say so."""
    frame = frame_columns(labels)
    if frame is not None:
        return frame, {"label_columns": list(frame), "label_separator": ""}
    cells = listed(labels, "labels")
    several = any(isinstance(cell, list) for cell in cells)
    separator = "," if several else ""  # lists are read as lists; the key says that there may be several labels
    return {LABEL: cells}, {"label": LABEL, "label_columns": [], "label_separator": separator}


def listed(values: Any, what: str) -> list[Any]:
    """The values of a list, an array or a series, one for each text. Raises UserError for other types."""
    if isinstance(values, np.ndarray) and values.ndim == 0:
        raise UserError(f"data: the {what} must be a list, an array or a series, got a single value, {values}")
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise UserError(f"data: the {what} must be a list, an array or a series, got {type(values).__name__}")
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(values, pandas.Series):
        values = [None if gone else cell for cell, gone in zip(values.tolist(), values.isna(), strict=True)]
    found: Sequence[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    missing = None if pandas is None else pandas.NA
    return [None if value is missing else plain(value) for value in found]
