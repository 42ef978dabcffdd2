"""JSON as people have it: arrays, lines, objects around rows, columns, rows within rows; and fastText's lines."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import decoding
from minilm.data.readers import read_table
from minilm.data.tables import Defects, Table
from minilm.errors import UserError

ROWS = [{"text": "a\nb", "label": 1}, {"text": "żółć", "label": 0}]


def read(path, content: object, *wanted: str, defects: int = 0) -> Table:
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    found = Defects()
    table = read_table(path, set(wanted or ("text", "label")), found)
    assert len(found.found) == defects, found.found
    return table


@pytest.mark.parametrize(
    "content",
    [
        ROWS, json.dumps(ROWS, indent=2), "\n".join(map(json.dumps, ROWS)), {"data": ROWS},
        {"version": "1", "tags": ["x"], "data": ROWS},
        {"text": [row["text"] for row in ROWS], "label": [1, 0]},
        {"text": {"0": "a\nb", "1": "żółć"}, "label": {"0": 1, "1": 0}},
    ],
)  # fmt: skip
def test_every_shape_of_a_json_file_gives_the_same_rows(tmp_path, content):
    table = read(tmp_path / "a.json", content)
    assert table.columns == {"text": ["a\nb", "żółć"], "label": [1, 0]} and len(table) == 2


def test_an_object_alone_is_one_row(tmp_path):
    assert read(tmp_path / "a.json", ROWS[0]).columns["text"] == ["a\nb"]


def test_the_items_of_an_array_know_their_lines(tmp_path):
    content = '[\n {"text": "a"},\n\n {"text":\n "b"}, 5,\n {"text": "c"}\n]'
    table = read(tmp_path / "a.json", content, "text", defects=1)
    assert list(table.files[0].lines) == [2, 4, 6] and table.columns["text"] == ["a", "b", "c"]


ROW = st.fixed_dictionaries({"text": st.text(st.characters(codec="utf-8"), max_size=30), "label": st.integers()})


@given(st.lists(ROW))
def test_an_array_that_is_read_in_pieces_is_as_json_reads_it_whole(tmp_path_factory, rows):
    path, piece = tmp_path_factory.mktemp("json") / "a.json", "minilm.data.json_rows.SAMPLE"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(piece, 1)
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        if rows:
            table = read_table(path, {"text", "label"}, Defects())
            assert table.columns == {key: [row[key] for row in rows] for key in ("text", "label")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"}', "the array has no end"), ('[{"text": }]', "not JSON"), ("{", "not JSON"),
        ("5", "no rows found"), ({"a": ROWS, "b": ROWS}, 'several lists of rows, "a", "b"'), ("[]", "contains no rows"),
    ],
)  # fmt: skip
def test_json_without_rows_is_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.json", content)


def test_a_column_within_an_object_is_named_with_a_dot(tmp_path):
    rows = [{"review": {"body": "a", "stars": 5}, "id": 1}, {"id": 2}]
    table = read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)), "review.body", "review.stars")
    assert table.columns == {"review.body": ["a", None], "review.stars": [5, None]}
    assert table.names == ["review", "review.body", "review.stars", "id"]


def test_fasttext_lines_have_a_label_or_several(tmp_path):
    table = read(tmp_path / "a.txt", "__label__spam win now\n__label__a __label__b two words\n\nnone\n", defects=1)
    assert table.columns == {"text": ["win now", "two words"], "label": ["spam", ["a", "b"]]}
    assert table.notes == ["its lines begin with fastText's labels"]


class Piped:
    """Standard input that is not a terminal."""

    def __init__(self, content: bytes) -> None:
        import io

        self.buffer = io.BytesIO(content)

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize(
    "content", [b"text,label\na,1\n", b"label\ttext\n1\ta\n", b'[{"text": "a", "label": "1"}]', b"__label__1 a\n"]
)
def test_standard_input_is_read_as_what_it_looks_like_and_more_than_once(monkeypatch, content):
    monkeypatch.setattr("sys.stdin", Piped(content))
    for _ in range(2):
        table = read_table(decoding.STDIN, {"text", "label"}, Defects())
        assert table.columns == {"text": ["a"], "label": ["1"]}
        assert str(table.origin(0)).startswith("standard input, line ")
