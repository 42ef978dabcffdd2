"""Rows that are written with more columns are as they were, and the added cells follow them."""

from __future__ import annotations

import csv
import datetime
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from minilm.data.delimited import Format
from minilm.data.row_stream import RowStream, open_stream, survey
from minilm.data.row_writers import Kind, writer_for

ADDED: dict[str, Kind] = {"predicted": "text", "probability": "number"}


def written(stream: RowStream, form: str, added: Sequence[Sequence[Any]], kinds: dict[str, Kind] = ADDED, **how: Any):
    """The file's bytes, written in two blocks."""
    rows = list(stream.rows())
    writer = writer_for(form, stream, survey(stream, []).names, kinds, **how)
    blocks = writer.begin() + writer.block(rows[:1], added[:1]) + writer.block(rows[1:], added[1:])
    with tempfile.TemporaryDirectory() as folder:
        (begun := Path(folder, "begun")).write_bytes(blocks)
        return writer.finish(begun).read_bytes()


def table(path: Path, text: str) -> RowStream:
    path.write_text(text)
    return open_stream(path, Format())


@pytest.mark.parametrize(("form", "delimiter"), [("csv", ";"), ("tsv", "\t")])
def test_tables_of_text_keep_every_cell(tmp_path: Path, form: str, delimiter: str) -> None:
    stream = table(tmp_path / "a.csv", 'id;text\n007;"a ""b"";\nc"\n1.50;\n')
    text = written(stream, form, [["x", 0.5], [None, None]]).decode()
    found = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    assert found == [
        ["id", "text", "predicted", "probability"], ["007", 'a "b";\nc', "x", "0.5"], ["1.50", "", "", ""]
    ]  # fmt: skip


def test_json_lines_keep_values_and_half_characters(tmp_path: Path) -> None:
    stream = table(tmp_path / "a.jsonl", '{"a": [1, null], "b": "\\ud800"}\n{"c": "ż"}\n')
    lines = written(stream, "jsonl", [["x", 0.5], [None, None]]).decode().splitlines()
    assert json.loads(lines[0]) == {"a": [1, None], "b": "\ud800", "predicted": "x", "probability": 0.5}
    assert lines[1] == '{"c": "ż", "predicted": null, "probability": null}'


def test_json_rows_become_a_table_with_the_columns_of_all(tmp_path: Path) -> None:
    stream = table(tmp_path / "a.jsonl", '{"a": {"b": 1}, "t": true}\n{"c": 2.5}\n')
    found = list(csv.reader(io.StringIO(written(stream, "csv", [["x", 0.5], ["y", 1.0]]).decode())))
    assert found == [
        ["a", "t", "c", "predicted", "probability"], ['{"b": 1}', "true", "", "x", "0.5"], ["", "", "2.5", "y", "1.0"]
    ]  # fmt: skip


def test_parquet_keeps_the_types_of_parquet(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
    own = pyarrow.table({"when": [day, None], "ids": [[1], []], "text": ["a", "b"]})
    pyarrow.parquet.write_table(own, tmp_path / "a.parquet")
    stream = open_stream(tmp_path / "a.parquet", Format())
    kinds: dict[str, Kind] = {"predicted": "texts", "probability": "numbers"}
    found = pyarrow.parquet.read_table(io.BytesIO(written(stream, "parquet", [[["x"], [0.5]], [[], []]], kinds)))
    assert found.select(["when", "ids", "text"]).equals(own)
    assert found["predicted"].to_pylist() == [["x"], []] and found["probability"].to_pylist() == [[0.5], []]
    as_csv = written(stream, "csv", [["x", 0.5], [None, None]]).decode().splitlines()
    assert as_csv[1:] == ["2024-05-01 00:00:00+00:00,[1],a,x,0.5", ",[],b,,"]


def test_parquet_of_other_files_is_text(tmp_path: Path) -> None:
    stream = table(tmp_path / "a.jsonl", '{"a": 1}\n{"b": [true]}\n')
    found = pyarrow.parquet.read_table(io.BytesIO(written(stream, "parquet", [["x", 0.5], [None, None]])))
    assert found.to_pylist() == [
        {"a": "1", "b": None, "predicted": "x", "probability": 0.5},
        {"a": None, "b": "[true]", "predicted": None, "probability": None},
    ]


def test_parquet_has_a_question_mark_for_half_a_character(tmp_path: Path) -> None:
    stream = table(tmp_path / "a.jsonl", '{"a\\ud800": "\\ud800ż"}\n')
    found = pyarrow.parquet.read_table(io.BytesIO(written(stream, "parquet", [["x", 0.5]])))
    assert found.select(["a?"]).to_pylist() == [{"a?": "?ż"}]


def test_a_spreadsheet_runs_no_cell_if_that_is_asked(tmp_path: Path) -> None:
    stream = table(tmp_path / "a.csv", "text,=n\n=1+1,-5\n@x,+48 1\n")
    lines = written(stream, "csv", [["-x", -0.5], ["y", 1.0]], safe=True).decode().splitlines()
    assert lines == ["text,'=n,predicted,probability", "'=1+1,-5,'-x,-0.5", "'@x,'+48 1,y,1.0"]
    assert written(stream, "csv", [["-x", -0.5], ["y", 1.0]]).decode().splitlines()[1] == "=1+1,-5,-x,-0.5"
