"""A small file that decompresses to gigabytes is refused with a line, before it takes time or memory."""

from __future__ import annotations

import gzip
import io
import itertools
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minilm.data import compressed, decoding
from minilm.data.decoding import STDIN, open_bytes
from minilm.data.delimited import Format
from minilm.data.readers import read_table
from minilm.data.row_stream import open_stream, survey
from minilm.data.tables import Defects
from minilm.errors import UserError
from tests.data.test_columnar import write_xlsx

ROOM = 1 << 18


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """All limits are small, so that the tests are quick."""
    monkeypatch.setattr(compressed, "ROOM", ROOM)
    monkeypatch.setattr(compressed, "RATIO", 10)
    monkeypatch.setattr(compressed, "CELLS", 1000)


def refused(read: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read()
    assert "\n" not in str(caught.value)


@contextmanager
def little_memory() -> Iterator[None]:
    """At most 16 MiB at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


TOO_MANY = r"a\.[a-z.]+: [\d,]+ bytes decompress to more than 262,144, the limit; save the rows that you need"
BOMBS = {
    "one line": b"text,label\n" + b"a" * (1 << 24),
    "many lines": b"text,label\n" + b"a,b\n" * (1 << 22),
    "spaces": b" " * (1 << 24),
    "a quoted field": b'text,label\n"' + b"a\n" * (1 << 23),
    "NUL": bytes(1 << 24),
}


ENDINGS = ["csv", "tsv", "jsonl", "json", "parquet", "xlsx", "txt"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("bomb", ["one line", "many lines"])
def test_a_gzip_bomb_is_refused_by_every_reader(bomb: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}.gz"
    path.write_bytes(_zipped(bomb))
    other = "|not a readable" if "parquet" in ending or "xlsx" in ending else "|unknown format|is not JSON|longer than"
    refused(lambda: read_table(path, {"text"}, Defects()), TOO_MANY + other)
    refused(lambda: survey(open_stream(path, Format()), ["text"]), TOO_MANY + other)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_gzip_bomb_of_any_kind_is_refused(bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(_zipped(bomb))
    other = "|looks like UTF-16" if bomb == "NUL" else ""
    refused(lambda: read_table(path, {"text"}, Defects()), TOO_MANY + other)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(_zipped(bomb))))
    refused(lambda: read_table(STDIN, {"text"}, Defects()), TOO_MANY.replace(r"a\.[a-z.]+", "standard input") + other)


_made: dict[str, bytes] = {}


def _zipped(bomb: str) -> bytes:
    return _made.setdefault(bomb, gzip.compress(BOMBS[bomb], 9))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_damaged_gzip_file_is_refused_by_every_reader(ending: str, tmp_path: Path) -> None:
    path, content = tmp_path / f"a.{ending}.gz", bytearray(gzip.compress(b"".join(b"%d," % i for i in range(9999))))
    for at in (12, 2000):
        content[at] ^= 0xFF
        path.write_bytes(content)
        refused(lambda: read_table(path, {"text"}, Defects()), r"a\.\w+\.gz: not a complete gzip file: ")
        refused(lambda: survey(open_stream(path, Format()), ["text"]), r"a\.\w+\.gz: not a complete gzip file: ")


def test_a_gzip_file_of_the_usual_ratio_may_be_large(tmp_path: Path) -> None:
    rows = "".join(f"{i * 7919 % 1000003} {i * 104729 % 999983},a\n" for i in range(20_000))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(f"text,label\n{rows}".encode()))
    assert len(rows) > ROOM and len(read_table(tmp_path / "a.csv.gz", {"text"}, Defects())) == 20_000
    with open_bytes(tmp_path / "a.csv.gz") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        assert size == len(file.read()) > len(rows)


def test_a_spreadsheet_that_decompresses_to_too_much_is_refused(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [["text", "label"], ["a", "b"]])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("xl/sharedStrings.xml", b"a" * (1 << 24))
    refused(lambda: read_table(path, {"text"}, Defects()), TOO_MANY)
    content = path.read_bytes()
    stated = struct.pack("<L", 1 << 24)
    assert content.count(stated) == 2
    path.write_bytes(content.replace(stated, struct.pack("<L", 7)))  # an archive may state a wrong size
    refused(lambda: read_table(path, {"text"}, Defects()), TOO_MANY)


@pytest.mark.parametrize(("column", "row"), [("XFD", 1_048_576), ("B", 1000), ("ZZZ", 999_999_999)])
def test_a_spreadsheet_with_a_cell_far_from_the_others_is_refused(column: str, row: int, tmp_path: Path) -> None:
    path, far = write_xlsx(tmp_path / "a.xlsx", [["text", "label"], ["a", "b"]]), tmp_path / "far.xlsx"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(far, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            cell = f'<row r="{row}"><c s="1" r="{column}{row}"><v>1</v></c></row></sheetData>'
            new.writestr(name, old.read(name).replace(b"</sheetData>", cell.encode()))
    message = rf"sheet1.xml reaches to row {row:,} and column [\d,]+; delete"
    refused(lambda: read_table(far, {"text"}, Defects()), message)


def test_a_dense_spreadsheet_may_have_many_cells(tmp_path: Path) -> None:
    rows: list[list[object]] = [["text", "label"], *([f'r="ZZZ9{i}"', i] for i in range(2000))]
    assert len(read_table(write_xlsx(tmp_path / "a.xlsx", rows), {"text"}, Defects())) == 2000


# --- One giant line ---


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "txt"])
def test_a_row_stream_holds_no_giant_line(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"text\nfine\n" + b"a" * (1 << 24))
    for module in (decoding, sys.modules["minilm.data.row_stream"]):
        monkeypatch.setattr(module, "LONGEST", 1 << 20)
    with little_memory():
        refused(lambda: list(open_stream(path, Format()).rows()), r"a\.\w+, line 3: longer than 1,048,576 charac")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(path.open("rb")))
    kind = {"txt": "lines"}.get(ending, ending)
    refused(lambda: list(open_stream(STDIN, Format(), kind=kind).rows()), "standard input, line 3: longer than 1,048")


def test_a_quoted_field_of_a_row_stream_that_has_no_end_takes_no_more_than_a_line_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'text\n"never closed\n' + (b"a" * 999 + b"\n") * 50_000)
    monkeypatch.setattr(sys.modules["minilm.data.row_stream"], "LONGEST", 1 << 20)
    with little_memory():
        rows = list(itertools.islice(open_stream(path, Format()).rows(), 3))
    assert "has an error in its quoting" in rows[0].defect and not rows[1].defect and len(rows[1].cells[0]) == 999


def test_a_json_array_may_be_one_long_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "LONGEST", 1000)
    rows = ",".join(f'{{"text": "text {i} \u017c\u00f3\u0142", "label": 1}}' for i in range(5000))
    (tmp_path / "a.json").write_text(f"[{rows}]", encoding="utf-8")
    table = read_table(tmp_path / "a.json", {"text"}, Defects())
    assert table.columns["text"][4999] == "text 4999 \u017c\u00f3\u0142"
