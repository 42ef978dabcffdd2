"""Files of labelled rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest


@pytest.fixture
def data(tmp_path) -> Callable[..., str]:
    """Write a file of rows in the format that its name tells; return the folder."""

    def write(name: str, rows: list, columns: tuple[str, ...] = ("text", "label")) -> str:
        path: Path = tmp_path / name
        if path.suffix == ".jsonl":
            path.write_text("\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows))
        elif path.suffix == ".parquet":
            table = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
            pyarrow.parquet.write_table(pyarrow.table(table), path)
        elif path.suffix == ".csv":
            with path.open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([map(str, row) for row in [columns, *rows]])
        else:
            path.write_text("\n".join("\t".join(map(str, row)) for row in [columns, *rows]))
        return str(tmp_path)

    return write
