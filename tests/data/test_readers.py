"""Readers: the formats give the same cells, a row knows the line it starts on, and every defect is named."""

import csv
import io
import json
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data.columns import require_columns
from minilm.data.readers import FORMATS, read_table
from minilm.data.tables import SHOWN, Defects, RowOrigin
from minilm.errors import UserError

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, *wanted: str, defects: int = 0) -> tuple[dict, list[int], list[str]]:
    found = Defects()
    table = read_table(path, set(wanted or ("text", "label")), found)
    assert len(found.found) == defects
    said = [f"{origin.line}: {what if isinstance(what, str) else what()}" for origin, what in found.found]
    return table.columns, list(table.files[0].lines), said


def test_all_formats_give_the_same_columns(tmp_path):
    rows = {"text": ["ale sztos", "żal, serio"], "label": ["1", "0"], "other": ["x", "y"]}
    lines = [json.dumps(dict(zip(rows, row, strict=True))) for row in zip(*rows.values(), strict=True)]
    write(tmp_path, "a.csv", '\ufefftext,label,other\r\nale sztos,1,x\r\n"żal, serio",0,y\r\n')
    write(tmp_path, "a.tsv", "text\tlabel\tother\nale sztos\t1\tx\nżal, serio\t0\ty")
    write(tmp_path, "a.jsonl", "\n".join(lines) + "\n\n")
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "a.parquet")
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        columns, _, _ = read(tmp_path / f"a.{suffix}")
        assert columns == {"text": rows["text"], "label": rows["label"]}, suffix


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8), st.sampled_from(["\r\n", "\n"]))
def test_csv_reads_what_the_csv_module_writes_and_numbers_the_lines(tmp_path_factory, rows, end):
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL)
    starts = []
    for row in [("text", "label"), *rows]:
        starts.append(1 + len(io.StringIO(out.getvalue(), newline="").readlines()))
        writer.writerow(row)
    columns, lines, _ = read(write(tmp_path_factory.mktemp("csv"), "a.csv", out.getvalue()))
    assert list(zip(columns["text"], columns["label"], strict=True)) == rows
    assert lines == starts[1:]


def test_a_tsv_has_no_quoting(tmp_path):
    columns, _, _ = read(write(tmp_path, "a.tsv", 'text\tlabel\n"a\t1\nb "c"\t2\r\n'))
    assert columns == {"text": ['"a', 'b "c"'], "label": ["1", "2"]}


def test_a_field_may_be_longer_than_the_csv_module_allows_by_itself(tmp_path):
    limit = csv.field_size_limit()
    columns, _, _ = read(write(tmp_path, "a.csv", f"text,label\n{'a' * 200_000},1\n"))
    assert len(columns["text"][0]) == 200_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_ragged_rows_are_defects_and_empty_lines_are_not(tmp_path, name):
    separator = "," if name == "a.csv" else "\t"
    content = "text,label\na,1\n\nb\nc,2,3\nd,4\n".replace(",", separator)
    columns, lines, defects = read(write(tmp_path, name, content), defects=2)
    assert columns["text"] == ["a", "d"] and lines == [2, 6]
    assert defects == ["4: has 1 fields, but the header has 2", "5: has 3 fields, but the header has 2"]


@pytest.mark.parametrize("bad", ['"a"b,1\nc,2\n', '"never closed,1\nc,2\n'])
def test_faulty_quoting_names_the_line_its_row_starts_on(tmp_path, bad):
    columns, _, defects = read(write(tmp_path, "a.csv", 'text,label\n"two\nlines",0\n' + bad), defects=1)
    assert columns["text"] == ["two\nlines"]
    assert defects[0].startswith("4: the row that starts here has an error in its quoting")


def test_lines_that_are_not_json_objects_are_defects(tmp_path):
    content = '{"text": "a", "label": 1}\n{"text": \n[1]\n{"text": "b"}\n' + "1" * 5000
    columns, lines, defects = read(write(tmp_path, "a.jsonl", content), defects=3)
    assert columns == {"text": ["a", "b"], "label": [1, None]} and lines == [1, 4]
    assert defects[:2] == ["2: is not JSON (Expecting value, column 10)", "3: is not a JSON object"]
    assert defects[2].startswith("5: is not JSON (Exceeds the limit")


def test_a_key_that_is_twice_in_a_json_object_is_a_defect_where_it_is_wanted(tmp_path):
    content = (
        '{"text": "a", "id": 1, "id": 2}\n{"text": "x", "text": "b"}\n{"text": "c", "label": {"text": 1, "text": 2}}'
    )
    columns, lines, defects = read(write(tmp_path, "a.jsonl", content), defects=1)
    assert columns["text"] == ["a", "c"] and lines == [1, 3]
    assert defects == ['2: has the key "text" more than once; keep one of them']


def test_a_parquet_file_with_a_column_twice_is_refused_where_it_is_wanted(tmp_path):
    table = pyarrow.table([["a"], ["b"], ["1"]], names=["text", "text", "label"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r'a\.parquet: the header names the column "text" 2 times; keep one of them'):
        read(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", "label")[0] == {"label": ["1"]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\ra,1\r\rb,2\r"),
        ("a.tsv", "text\tlabel\ra\t1\r\rb\t2\r"),
        ("a.jsonl", '{"text": "a", "label": "1"}\r{"text": "b", "label": "2"}\r'),
    ],
)
def test_lines_may_end_with_a_carriage_return_alone(tmp_path, name, content):
    columns, lines, _ = read(write(tmp_path, name, content))
    assert columns == {"text": ["a", "b"], "label": ["1", "2"]}
    assert lines == ([1, 2] if name == "a.jsonl" else [2, 4])


def test_a_carriage_return_within_lines_that_end_otherwise_is_text(tmp_path):
    assert read(write(tmp_path, "a.tsv", "text\tlabel\na\rb\t1\n"))[0]["text"] == ["a\rb"]


def test_lines_that_are_not_utf8_are_defects(tmp_path):
    content = "text,label\nok,1\nżal,0\n".encode() + "żółć,1\n".encode("cp1250")
    _, _, defects = read(write(tmp_path, "a.csv", content), defects=1)
    reads = 'data.encoding=cp1252 reads it as "¿ó³æ", data.encoding=cp1250 reads it as "żółć"'
    assert defects == [f"4: not UTF-8 (byte 0xbf); save the file as UTF-8, or name its encoding: {reads}"]


def test_a_missing_column_is_named_with_the_columns_there_are(tmp_path):
    table = read_table(write(tmp_path, "a.csv", "tekst,label\na,1\n"), {"text", "label"}, Defects())
    require_columns(table, {"label": "data.label"}, Defects())
    with pytest.raises(UserError) as error:
        require_columns(table, {"text": "data.text"}, Defects())
    assert "a.csv" in str(error.value)
    assert 'no column "text" (data.text); its columns are "tekst", "label"; ' in str(error.value)
    assert str(error.value).endswith("if these are the right columns, add: data.text=tekst")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\na,1\n".encode("utf-16-le"), "looks like UTF-16 without a .*: data.encoding=utf-16-le"),
        ("a.csv.gz", b"\x1f\x8bbroken", "not a complete gzip file"),
        ("a.csv", "", "the file contains no rows"),
        ("a.csv", "text,label\n", "the file contains no rows"),
        ("a.jsonl", "\n", "the file contains no rows"),
        ("a.csv", "text,text\na,b\n", 'names the column "text" 2 times'),
        ("a.parquet", "text,label\n", "not a readable Parquet file"),
        ("a.xlsx", "", "not a readable spreadsheet"),
        ("a.rds", "", "unknown format"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message) as error:
        read(write(tmp_path, name, content))
    assert name in str(error.value)


def test_a_file_that_is_not_there_is_named_with_one_like_it(tmp_path):
    write(tmp_path, "train.csv", "text\n")
    with pytest.raises(UserError, match=r'trian.csv: no such file \(did you mean ".*train.csv"'):
        read(tmp_path / "trian.csv")
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "no" / "train.csv")


def test_a_hint_is_near_in_name_and_can_be_read(tmp_path):
    for name in ("t.sh", "nothin.sh", "other.csv", "reviews.txt", "reviews.tsv"):
        write(tmp_path, name, "text\n")
    for name, hint in [("nothing.csv", ""), ("one.csv", ""), ("reviews.csv", ' (did you mean "reviews.tsv"?)')]:
        with pytest.raises(UserError) as error:
            read(tmp_path / name)
        assert str(error.value) == f"{tmp_path / name}: no such file{hint}"


def test_a_parquet_file_with_broken_text_is_told(tmp_path):
    broken = pyarrow.array([b"\xff"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": broken}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read(tmp_path / "a.parquet")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install -e .*\[data\]"):
        read(write(tmp_path, "a.parquet", b""))


def test_a_report_shows_the_first_defects_in_order_and_counts_the_rest():
    defects = Defects()
    defects.check()
    for line in (10, 9, 2, 4, 3, 8, 7):
        defects.add(RowOrigin("b.csv", line), "bad")
    defects.add(RowOrigin("a.parquet", 1, "row"), lambda: "worse")
    with pytest.raises(UserError) as error:
        defects.check()
    head, *shown, rest = str(error.value).split("\n")
    assert head.startswith("8 defects")
    assert [s.strip() for s in shown] == ["a.parquet, row 1: worse"] + [f"b.csv, line {n}: bad" for n in (2, 3, 4, 7)]
    assert len(shown) == SHOWN and rest.strip() == "and 3 more"


WRITTEN = (
    b'text,label\n"a ""b""\n",1\nc,2\n',
    b"text\tlabel\na\t1\n",
    b'{"text": "a", "label": 1}\n[{"text": null}]\n',
    b'[{"text": "a", "label": 1},\n {"text": "b"}]',
    b"__label__a b\n",
)


@given(st.sampled_from(sorted({*FORMATS, ".txt", ".csv.gz"})), st.sampled_from(WRITTEN), st.data())
def test_no_content_breaks_a_reader(tmp_path_factory, suffix, content, data):
    at = data.draw(st.integers(0, len(content)))
    content = content[:at] + data.draw(st.binary(max_size=8)) + content[at + data.draw(st.integers(0, 8)) :]
    path, defects = write(tmp_path_factory.mktemp("fuzz"), "a" + suffix, content), Defects()
    try:
        table = read_table(path, {"text", "label"}, defects)
    except UserError:
        return
    lines = list(table.files[0].lines)
    assert {len(table)} >= {len(cells) for cells in table.columns.values()}
    assert lines == sorted(lines) and all(line >= 1 for line in lines)
