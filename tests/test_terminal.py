"""What a file contains cannot write over the terminal: its control characters are escaped wherever it is shown."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.errors import UserError, located, shortened
from minilm.reporting.classes import counts_table
from minilm.reporting.page import Bullets, Code, Page, Section, Span, html, markdown
from minilm.reporting.page import Table as PageTable
from minilm.reporting.tables import text_table
from minilm.terminal import printable, write_utf8
from minilm.training.console import say
from tests.tiny import minilm, texts, write_config, write_data

FORGED = "good\nError: \x1b[2J\x9b2J\r\x07\x7f\u202eevil\u2066\u2028\udc80"
ESCAPED = "good\\nError: \\x1b[2J\\x9b2J\\r\\x07\\x7f\\u202eevil\\u2066\\u2028\\udc80"


def is_harmless(text: str) -> bool:
    return not any(character in text for character in FORGED if not character.isascii() or not character.isprintable())


def test_what_a_terminal_obeys_is_escaped_and_all_else_stays() -> None:
    assert printable(FORGED) == ESCAPED
    assert printable("a\tb\nc", keep="\t\n") == "a\tb\nc"
    harmless = "żółć 好 👩‍👩‍👧 e\u0301 \u200f\\n שלום"
    assert printable(harmless) == harmless


@given(st.text(st.characters(codec=None)))
def test_every_text_becomes_one_line_that_can_be_encoded_and_stays_so(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()
    assert printable(shown) == shown


def test_an_error_is_one_line_whatever_it_quotes_and_its_details_are_lines_of_their_own() -> None:
    error = UserError(f'no label "{FORGED}"', f'line 2: "{FORGED}"')
    assert str(error).split("\n") == [f'no label "{ESCAPED}"', f'  line 2: "{ESCAPED}"']
    with pytest.raises(UserError) as raised, located("x.toml"):
        raise error
    assert str(raised.value).split("\n") == [f'x.toml: no label "{ESCAPED}"', f'  line 2: "{ESCAPED}"']


def test_lines_tables_and_names_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"warning: {FORGED}")
    assert capsys.readouterr().err == f"warning: {ESCAPED}\n"
    assert len(text_table((FORGED[5:], "b"), [[FORGED, "1"]]).split("\n")) == 3
    for shown in (
        text_table(("a", "b"), [[FORGED, "1"]]),
        shortened(FORGED, 100),
        counts_table([FORGED, "other"], {"train": np.array([1, 2])}).replace("\n", ""),
    ):
        assert is_harmless(shown.replace("\n", ""))


def test_pages_are_escaped(tmp_path: Path) -> None:
    blocks = [FORGED, Span(FORGED, "code"), PageTable([FORGED], [[FORGED]]), Code(FORGED), Bullets([FORGED])]
    page = Page(FORGED, FORGED, FORGED, [Section(FORGED, blocks)])
    for shown in (markdown(page, tmp_path), html(page)):
        assert is_harmless(shown.replace("\n", ""))


def test_a_run_shows_the_labels_and_texts_of_a_hostile_file_escaped_and_json_has_them_exactly(tmp_path: Path) -> None:
    label, column = "bad\x08\x1b[2JError: forged", "text\x1b[8m"
    rows = [{column: f"{text}\x07\u202e", "label": label if name == "bad" else name} for text, name in texts()]
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    changes = (f"data.source={data}", f"data.text={column}", "train.epochs=1")
    trained = minilm("train", write_config(tmp_path), *changes, "--runs", tmp_path)
    assert trained.exit_code == 0, trained.output
    run, text = tmp_path / "tiny", "it was dull\n\x1b[2J"
    (tmp_path / "more.jsonl").write_text(json.dumps({column: text}))
    shown = {
        "trained": trained.output,
        "predicted": minilm("predict", run, "--file", tmp_path / "more.jsonl").output,
        "measured": minilm("evaluate", run).output,
        "compared": minilm("compare", run).output + minilm("compare", run, "--markdown").output,
        "reported": (run / "report.md").read_text() + (run / "report.html").read_text(),
        "unlabelled": minilm("evaluate", run, "--file", tmp_path / "more.jsonl").output,
        "without a column": minilm("evaluate", run, "--file", write_data(tmp_path / "other.tsv")).output,
    }
    for place, output in shown.items():
        assert output.strip() and is_harmless(output.replace("\n", "").replace("\t", "")), place
        assert not any(line.startswith(("Error: forged", "\\x1b[2JError")) for line in output.splitlines()), place
    [answer] = minilm("predict", run, "--file", tmp_path / "more.jsonl", "--json").stdout.splitlines()
    assert json.loads(answer)["text"] == text and set(json.loads(answer)["scores"]) == {label, "good"}


def test_on_windows_pipes_get_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", pipe)
    monkeypatch.setattr("minilm.terminal.WINDOWS", True)
    write_utf8()
    pipe.write("żółw")
    pipe.flush()
    assert pipe.buffer.getvalue() == "żółw".encode()  # type: ignore[attr-defined]
