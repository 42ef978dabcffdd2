"""Spreadsheets: the first sheet, its numbers and empty cells, and what is said without the package."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from minilm.data.delimited import Format
from minilm.data.readers import read_table
from minilm.data.tables import Defects
from minilm.errors import UserError

pytest.importorskip("python_calamine")


def write_xlsx(path: Path, *sheets: list[list[object]]) -> Path:
    """A spreadsheet as small as the format allows."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"

    def cell(place: str, value: object) -> str:
        if value is None:
            return ""
        if isinstance(value, str):
            return f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'
        return f'<c r="{place}"><v>{value}</v></c>'

    def sheet(rows: list[list[object]]) -> str:
        lines = [
            f'<row r="{i}">{"".join(cell(f"{chr(65 + j)}{i}", value) for j, value in enumerate(row))}</row>'
            for i, row in enumerate(rows, 1)
        ]
        return f'<worksheet xmlns="{main}"><sheetData>{"".join(lines)}</sheetData></worksheet>'

    numbers = range(1, len(sheets) + 1)
    names = "".join(f'<sheet name="Sheet{n}" sheetId="{n}" r:id="r{n}"/>' for n in numbers)
    targets = "".join(
        f'<Relationship Id="r{n}" Type="{relations}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n in numbers
    )
    types = "".join(
        f'<Override PartName="/xl/worksheets/sheet{n}.xml" '
        'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>'
        for n in numbers
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" '
        'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>' 
        f"{types}</Types>",
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
        f'Type="{relations}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{relations}"><sheets>{names}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">{targets}</Relationships>',
    }
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
        for n, rows in zip(numbers, sheets, strict=True):
            file.writestr(f"xl/worksheets/sheet{n}.xml", sheet(rows))
    return path


def test_the_first_sheet_of_a_spreadsheet_is_read_with_the_rows_numbers(tmp_path):
    rows = [["text", "label", "note"], ["good <b>", 1, None], [None, None, None], ["bad", 0, "x"]]
    table = read_table(write_xlsx(tmp_path / "a.xlsx", rows, [["other"]]), {"text", "label", "note"}, Defects())
    assert table.columns == {"text": ["good <b>", "bad"], "label": [1, 0], "note": [None, "x"]}
    assert str(table.origin(1)) == f"{tmp_path / 'a.xlsx'}, row 4"
    assert table.notes == ['only its sheet "Sheet1" was read, not "Sheet2"']


def test_a_spreadsheet_may_have_no_header(tmp_path):
    path = write_xlsx(tmp_path / "a.xlsx", [["good", 1], ["bad", 0]])
    assert read_table(path, {"1"}, Defects(), Format(header=False)).columns == {"1": ["good", "bad"]}


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(UserError, match=r"pip install -e .*\[excel\]"):
        read_table(write_xlsx(tmp_path / "a.xlsx", [["text"], ["a"]]), {"text"}, Defects())
