"""Tables with delimiters: which one, quoting and a header are found by looking, said in a note, and can be set."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data.delimited import Format, find_delimiter
from minilm.data.readers import read_table, read_tables
from minilm.data.tables import Defects, Table
from minilm.errors import UserError

CELL = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" "), min_size=1, max_size=12)


def read(path: Path, content: str | bytes, *wanted: str, defects: int = 0, **how: object) -> Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = Defects()
    table = read_table(path, set(wanted or ("text", "label")), found, Format(**how))
    assert len(found.found) == defects, found.found
    return table


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a"])
@pytest.mark.parametrize(("delimiter", "words"), [(",", "commas"), ("\t", "tabs"), (";", "semicolons"), ("|", "pipes")])
def test_the_delimiter_is_found_and_said_where_the_ending_promises_another(tmp_path, name, delimiter, words):
    if delimiter == "," and not name.endswith(("csv", "tsv")):
        pytest.skip("lines of text hold commas too")
    rows = [["text", "label"], ["good, really", "1"], ["so-so", "0"]]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows(rows)
    table = read(tmp_path / name, out.getvalue())
    assert table.columns == {"text": ["good, really", "so-so"], "label": ["1", "0"]}
    usual = (delimiter == "," and name == "a.csv") or (delimiter == "\t" and name == "a.tsv")
    assert all(words in note for note in table.notes) and len(table.notes) == (0 if usual else 1)


@given(st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=2, max_size=6), st.sampled_from(",;|\t"))
def test_the_delimiter_of_what_the_csv_module_writes_is_found(rows, delimiter):
    rows = [["one", "two", "three"], *rows]
    if delimiter == "\t":
        rows = [[cell.replace('"', "") for cell in row] for row in rows]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows(rows)
    assert find_delimiter(out.getvalue()) == delimiter


def test_a_comma_stays_the_delimiter_of_a_csv_with_ragged_rows(tmp_path):
    table = read(tmp_path / "a.csv", "text,label\na;b,1\nc,2,3\nd;e,4\n", defects=1)
    assert table.columns["text"] == ["a;b", "d;e"] and not table.notes


def test_the_delimiter_can_be_set(tmp_path):
    table = read(tmp_path / "a.csv", "text~label\na,b;c~1\n", delimiter="~")
    assert table.columns["text"] == ["a,b;c"] and not table.notes


# Quoting


PANDAS = 'text\tlabel\n"she said ""no"" twice"\t1\nplain\t0\n"two\nlines"\t1\n"a\ttab"\t0\n'


def test_a_tsv_that_is_quoted_throughout_loses_its_quote_marks_and_says_so(tmp_path):
    table = read(tmp_path / "a.tsv", PANDAS)
    assert table.columns["text"] == ['she said "no" twice', "plain", "two\nlines", "a\ttab"]
    assert list(table.files[0].lines) == [2, 3, 4, 6]
    assert len(table.notes) == 1 and "data.quoting=none keeps them" in table.notes[0]


@pytest.mark.parametrize(
    "lines",
    [
        ['ham\t"Hello there', "spam\tcall \"now\"", 'ham\tplain'],  # a lone mark
        ['ham\t"Hi" he said', 'spam\t"all of it"', "ham\tplain"],  # a quotation at the beginning
        ['ham\tHello"', "spam\tx", 'ham\t5" screen'],
    ],
)
def test_lone_quote_marks_of_a_tsv_stay_what_they_are(tmp_path, lines):
    table = read(tmp_path / "a.tsv", "label\ttext\n" + "\n".join(lines) + "\n")
    assert table.columns["text"] == [line.split("\t")[1] for line in lines] and not table.notes


def test_a_tsv_that_is_quoted_in_part_keeps_its_marks_and_says_so(tmp_path):
    table = read(tmp_path / "a.tsv", 'text\tlabel\n"a ""b"" c"\t1\n"lone\t0\nd\t1\n')
    assert table.columns["text"] == ['"a ""b"" c"', '"lone', "d"]
    assert "1 of 2 fields that begin with a quote mark" in table.notes[0] and "data.quoting=all" in table.notes[0]


def test_a_ragged_row_does_not_hide_that_a_tsv_is_quoted(tmp_path):
    table = read(tmp_path / "a.tsv", PANDAS + "one\ttwo\tthree\n", defects=1)
    assert table.columns["text"][0] == 'she said "no" twice'


def test_quoting_can_be_set(tmp_path):
    assert read(tmp_path / "a.tsv", 'text\tlabel\n"a"\t1\n', quoting="none").columns["text"] == ['"a"']
    assert read(tmp_path / "a.tsv", 'text\tlabel\n"a"\t1\n', quoting="all").columns["text"] == ["a"]
    table = read(tmp_path / "a.csv", 'text,label\n"a,1\nb"c",0\n', quoting="none")
    assert table.columns["text"] == ['"a', 'b"c"']


def test_faulty_quoting_of_a_csv_names_the_key(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"a"b,1\n')
    defects = Defects()
    read_table(tmp_path / "a.csv", {"text"}, defects)
    with pytest.raises(UserError, match=r"line 2: .* error in its quoting .*, add: data\.quoting=none"):
        defects.check()


# Headers


def test_without_a_header_columns_are_numbers(tmp_path):
    table = read(tmp_path / "a.tsv", "ham\tHello\nspam\tWin\n", "1", "2", header=False)
    assert table.columns == {"1": ["ham", "spam"], "2": ["Hello", "Win"]} and table.names == ["1", "2"]
    assert list(table.files[0].lines) == [1, 2]


def test_a_header_in_the_middle_is_a_defect_with_the_command_that_removes_it(tmp_path):
    path = tmp_path / "a b.csv"
    path.write_text("text,label\na,1\ntext,label\nb,0\ntext,label\nc,1\n")
    defects = Defects()
    table = read_table(path, {"text", "label"}, defects)
    assert table.columns["text"] == ["a", "b", "c"]
    with pytest.raises(UserError) as error:
        defects.check()
    assert f"{path}, line 3: repeats the header" in str(error.value)
    assert f"(and 1 more lines); remove it: sed -i '3d;5d' '{path}'" in str(error.value)


@pytest.mark.parametrize(
    "encode", [gzip.compress, lambda text: text.replace(b"\n", b"\r"), lambda text: text.decode().encode("utf-16")]
)
def test_no_command_is_given_that_would_damage_the_file(tmp_path, encode):
    path = tmp_path / "a.csv"
    path.write_bytes(encode(b"text,label\na,1\ntext,label\nb,0\n"))
    defects = Defects()
    read_table(path, {"text", "label"}, defects)
    with pytest.raises(UserError, match=r"line 3: repeats the header, .*; remove it$"):
        defects.check()


def test_a_text_that_is_the_name_of_its_column_is_no_header(tmp_path):
    assert read(tmp_path / "a.csv", "text\nb\ntext\n").columns["text"] == ["b", "text"]


# Encodings, gzip, several files


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path, encoding):
    table = read(tmp_path / "a.csv", "text,label\nżółć,1\n".encode(encoding))
    assert table.columns["text"] == ["żółć"]
    assert table.notes == ([] if encoding == "utf-8-sig" else [f"it is {encoding.upper()} (data.encoding)"])


def test_another_encoding_is_named_by_the_user(tmp_path):
    table = read(tmp_path / "a.csv", "text,label\nżółć,1\n".encode("cp1250"), encoding="cp1250")
    assert table.columns["text"] == ["żółć"] and not table.notes
    with pytest.raises(UserError, match=r'data\.encoding: unknown encoding "cp12500"'):
        read(tmp_path / "a.csv", "", encoding="cp12500")
    with pytest.raises(UserError, match="unknown encoding"):
        read(tmp_path / "a.csv", "", encoding="hex")
    with pytest.raises(UserError, match="not utf-16"):
        read(tmp_path / "a.csv", b"text,label\nabc,1\n", encoding="utf-16-le")


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv"])
def test_a_gzipped_file_is_read_whatever_its_name(tmp_path, name):
    assert read(tmp_path / name, gzip.compress(b"text,label\na,1\n")).columns["text"] == ["a"]


def test_several_files_are_one_table_and_each_row_knows_its_file(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,1\nb,0\n")
    (tmp_path / "b.tsv").write_text("label\ttext\tmore\n1\tc\tx\n")
    table = read_tables([tmp_path / "a.csv", tmp_path / "b.tsv"], {"text", "label", "more"}, Defects())
    assert table.columns == {"text": ["a", "b", "c"], "label": ["1", "0", "1"], "more": [None, None, "x"]}
    assert str(table.origin(1)) == f"{tmp_path / 'a.csv'}, line 3"
    assert str(table.origin(2)) == f"{tmp_path / 'b.tsv'}, line 2"
    assert table.path == f"{tmp_path / 'a.csv'} and 1 more"


def test_a_text_file_without_columns_is_refused_with_the_command_that_gives_it_labels(tmp_path):
    (tmp_path / "train_labels.txt").write_text("0\n1\n")
    with pytest.raises(UserError) as error:
        read(tmp_path / "train_text.txt", "so good\nso bad, really\n")
    command = f"paste {tmp_path / 'train_text.txt'} {tmp_path / 'train_labels.txt'} > joined.tsv"
    assert command in str(error.value) and "data.header=false data.text=1 data.label=2" in str(error.value)
