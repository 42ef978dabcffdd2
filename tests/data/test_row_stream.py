"""Rows of files of any size: each keeps its place and its cells, and says what is wrong with it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.data import row_stream
from minilm.data.delimited import Format
from minilm.data.row_stream import Row, open_stream, survey
from minilm.errors import UserError

CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12)


def rows(path: Path, text: str | bytes, **how: object) -> list[Row]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(open_stream(path, Format(**how)).rows())  # type: ignore[arg-type]


@given(table=st.lists(st.tuples(CELL, CELL, CELL), max_size=8))
@settings(max_examples=60, deadline=None)
def test_what_the_csv_module_writes_is_read_again(table: list[tuple[str, str, str]], tmp_path_factory) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("a", "b", "c"), *table])
    found = rows(tmp_path_factory.mktemp("rows") / "a.csv", text.getvalue())
    assert [tuple(row.cells) for row in found] == table and not any(row.defect for row in found)


def test_a_faulty_row_keeps_its_place_and_the_rows_after_it_are_read(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.csv", 'id,text\n1,a\n2,"b" c\n3,"d\ne"\n4\n5,x,y\n6,"open\n7,z\n')
    assert [(row.cells[0], row.origin.line) for row in found] == [
        ("1", 2), ("2", 3), ("3", 4), ("4", 6), ("5", 7), ("6", 8), ("7", 9),
    ]  # fmt: skip
    assert [row.defect.split(" (")[0] for row in found] == [
        "", "the row that starts here has an error in its quoting", "", "has 1 fields, but the header has 2",
        "has 3 fields, but the header has 2", "the row that starts here has an error in its quoting", "",
    ]  # fmt: skip
    assert found[2].cells[1] == "d\ne" and all(len(row.cells) == 2 for row in found)


def test_a_quote_mark_that_is_never_closed_does_not_swallow_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_stream, "MOST_LINES", 3)
    found = rows(tmp_path / "a.csv", "text,id\n" + '"open,0\n' + "".join(f"a,{i}\n" for i in range(1, 9)))
    assert [row.cells[-1] for row in found[1:]] == [str(i) for i in range(1, 9)]
    assert found[0].defect and not any(row.defect for row in found[1:])


def test_bytes_that_are_no_text_are_a_defect_of_their_row_alone(tmp_path: Path) -> None:
    for name in ("a.csv", "a.tsv"):
        found = rows(tmp_path / name, b"text\na\n\xff\nb\n")
        assert [bool(row.defect) for row in found] == [False, True, False]
        assert "not UTF-8 (byte 0xff)" in found[1].defect


@pytest.mark.parametrize("around", [(b"[", b"]"), (b'{"data": [', b"]}")])
def test_bytes_of_a_json_file_that_are_no_text_remain_in_their_row(tmp_path: Path, around: tuple[bytes, bytes]) -> None:
    inside = b',\n'.join([b'{"a": "x"}', b'{"a": "\xff"}', b'{"a": "y"}'])
    found = rows(tmp_path / "a.json", around[0] + inside + around[1])
    assert [row.cell("a") for row in found] == ["x", "\udcff", "y"] and not any(row.defect for row in found)


def test_a_json_file_that_is_nested_too_deep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: not JSON \("):
        rows(tmp_path / "a.json", '{"a": ' * 100_000)


def test_without_a_header_the_columns_are_numbers(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.tsv", "a\tb\nc\td\n", header=False)
    assert [list(row.cells) for row in found] == [["a", "b"], ["c", "d"]] and found[0].cell("2") == "b"


def test_json_lines_keep_their_own_keys_and_values_within_are_found(tmp_path: Path) -> None:
    lines = ['{"review": {"body": "a"}, "id": 1}', "", "nonsense", "[1]", '{"id": 2, "id": 3}', '{"x": null}']
    found = rows(tmp_path / "a.jsonl", "\n".join(lines))
    assert [row.origin.line for row in found] == [1, 3, 4, 5, 6]
    assert found[0].cell("review.body") == "a" and found[0].names == ("review", "id")
    assert [row.defect.split(" (")[0] for row in found] == [
        "", "is not JSON", "is not a JSON object", 'has the key "id" more than once', "",
    ]  # fmt: skip
    seen = survey(open_stream(tmp_path / "a.jsonl", Format()), ["review.body"])
    assert seen.names == ["review", "id", "x"] and seen.rows == 5 and seen.nested == {"review.body"}


@pytest.mark.parametrize("whole", ['[{"a": 1}, {"a": 2}]', '{"data": [{"a": 1}, {"a": 2}]}', '{"a": 1}\n{"a": 2}\n'])
def test_json_files_of_any_shape_are_read(tmp_path: Path, whole: str) -> None:
    assert [row.cell("a") for row in rows(tmp_path / "a.json", whole)] == [1, 2]


def test_parquet_cells_keep_their_types(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, None], "text": ["a", "b"]}), tmp_path / "a.parquet")
    found = list(open_stream(tmp_path / "a.parquet", Format()).rows())
    assert [tuple(row.cells) for row in found] == [(1, "a"), (None, "b")] and found[1].origin.unit == "row"


def test_lines_of_text_are_rows_also_empty_ones(tmp_path: Path) -> None:
    assert [row.cell("text") for row in rows(tmp_path / "a.txt", "a\n\n b\tc\n")] == ["a", "", " b\tc"]
    found = list(open_stream(tmp_path / "a.txt", Format(), pairs=True).rows())
    assert [bool(row.defect) for row in found] == [True, False, False] and found[2].cell("text_pair") == "c"


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        open_stream(tmp_path, Format())
    with pytest.raises(UserError, match="no such file"):
        open_stream(tmp_path / "a.csv", Format())


def test_an_object_with_a_key_twice_is_still_written_as_json(tmp_path: Path) -> None:
    [row] = rows(tmp_path / "a.jsonl", '{"id": 2, "id": 3}\n')
    json.dumps(dict(zip(row.names, row.cells, strict=True)))
