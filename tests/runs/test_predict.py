"""Tables with answers beside their rows: ``minilm predict RUN --file in.csv --out out.csv``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from minilm.evaluation.ensemble import load_predictor
from minilm.evaluation.row_answers import RowAnswers
from minilm.runs import predict
from minilm.runs.predict import TableJob, predict_file
from tests.tiny import finished_run, minilm, refused, texts

TEXTS = [text for text, _ in texts(30)]


def table(folder: Path, rows: list[str] = TEXTS) -> Path:
    path = folder / "in.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text", "note"), *((f"{i:03}", text, "=x") for i, text in enumerate(rows))])
    return path


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(newline="")))


def test_every_row_keeps_its_cells_and_gets_the_answer_that_its_text_has_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "WINDOW", 4)
    result = minilm("predict", finished_run(), "--file", table(tmp_path), "--out", tmp_path / "out.csv", "--all")
    assert result.exit_code == 0 and result.stdout == "" and result.stderr == "30 rows\n"
    found = read(tmp_path / "out.csv")
    assert list(found[0]) == ["id", "text", "note", "predicted", "probability", "P(bad)", "P(good)"]
    assert [(row["id"], row["text"]) for row in found] == [(f"{i:03}", text) for i, text in enumerate(TEXTS)]
    alone = load_predictor([finished_run()], "cpu").predict(TEXTS)
    for row, scores in zip(found, alone, strict=True):
        assert row["predicted"] == max(scores, key=lambda label: scores[label])
        assert row["probability"] == row[f"P({row['predicted']})"]
        assert float(row["P(good)"]) == pytest.approx(scores["good"], abs=1e-4)
    assert not list(tmp_path.glob(".*"))


def test_a_row_without_a_text_or_with_a_defect_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('id,text\n1,it was good\n2, \n3,a,b\n4,"x" y\n5,dull\n')
    result = minilm("predict", finished_run(), "--file", tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    assert [bool(row["predicted"]) for row in read(tmp_path / "out.csv")] == [True, False, False, False, True]
    assert result.exit_code == 0 and result.stderr.splitlines()[-1] == "5 rows: 2 cannot be used, 1 without a text"
    assert "in.csv, line 4: has 3 fields, but the header has 2" in result.stderr
    for text, said in (("id,text\n1, \n", "line 2: the text is empty"), ("id,text\n1,a,b\n", "line 2: has 3 fields")):
        (tmp_path / "in.csv").write_text(text)
        assert said in refused("predict", finished_run(), "--file", tmp_path / "in.csv", "--out",
                               tmp_path / "strict.csv", "--strict")  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", "out.csv"}


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.parquet"])
def test_a_killed_table_that_is_resumed_has_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(predict, "WINDOW", 4)
    rows = [*TEXTS[:9], "", *TEXTS[9:]]
    command = ("predict", finished_run(), "--file", table(tmp_path, rows), "--out")
    whole = minilm(*command, tmp_path / f"whole-{name}")
    with monkeypatch.context() as patch:
        patch.setattr(RowAnswers, "of", interrupted_after(3, RowAnswers.of))
        stopped = minilm(*command, tmp_path / name)
    assert stopped.exit_code == 130 and "with --resume to continue" in stopped.stderr
    with (tmp_path / f".{name}.begun").open("ab") as begun:
        begun.write(b"half a row")  # a kill may come while a window is written
    assert not (tmp_path / name).exists()
    assert "was started before; continue with --resume" in refused(*command, tmp_path / name)
    assert "was started with other options" in refused(*command, tmp_path / name, "--resume", "--all")
    resumed = minilm(*command, tmp_path / name, "--resume")
    assert "continues after 12 rows" in resumed.stderr and whole.stderr.splitlines()[-1] in resumed.stderr
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
    assert "is already finished" in minilm(*command, tmp_path / name, "--resume").stderr
    assert not list(tmp_path.glob(".*"))


def interrupted_after(windows: int, of: Callable[..., Any]) -> Callable[..., Any]:
    seen: list[object] = []

    def answer(self: RowAnswers, window: Any) -> Any:
        seen.append(window)
        if len(seen) > windows:
            raise KeyboardInterrupt
        return of(self, window)

    return answer


def test_shards_one_after_another_are_the_whole(tmp_path: Path) -> None:
    command = ("predict", finished_run(), "--file", table(tmp_path), "--out")
    minilm(*command, tmp_path / "whole.jsonl")
    parts = []
    for i in (1, 2, 3):
        minilm(*command, tmp_path / f"{i}.jsonl", "--shard", f"{i}/3")
        parts += [json.loads(line)["id"] for line in (tmp_path / f"{i}.jsonl").open()]
    assert parts == [json.loads(line)["id"] for line in (tmp_path / "whole.jsonl").open()]
    assert "--shard must be the number of a part" in refused(*command, tmp_path / "x.csv", "--shard", "4/3")


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_standard_input_is_answered_as_it_comes(tmp_path: Path, form: str) -> None:
    separator = {"csv": ",", "tsv": "\t"}.get(form, "")
    rows = [("id", "text"), ("7", "it was good"), ("8", ""), ("9", "dull")]
    given = "".join(separator.join(row) + "\n" for row in rows)
    if form == "jsonl":
        given = "".join(json.dumps(dict(zip(rows[0], row, strict=True))) + "\n" for row in rows[1:])
    found = minilm("predict", finished_run(), "--format", form, stdin=given)
    path = tmp_path / f"in.{form}"
    path.write_text(given)
    assert found.exit_code == 0 and "3 rows: 1 without a text" in found.stderr
    minilm("predict", finished_run(), "--file", path, "--out", tmp_path / f"out.{form}")
    assert found.stdout == (tmp_path / f"out.{form}").read_text()
    empty = minilm("predict", finished_run(), "--format", form, stdin="")
    assert empty.exit_code == (0 if form == "jsonl" else 1)


def test_lines_of_text_become_a_table_too(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("it was good\n\ndull\n")
    minilm("predict", finished_run(), "--file", tmp_path / "in.txt", "--out", tmp_path / "out.parquet")
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["text"] for row in found] == ["it was good", "", "dull"] and found[1]["predicted"] is None


def test_what_would_be_lost_or_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    path, run, out = table(tmp_path), finished_run(), tmp_path / "out.csv"
    out.write_text("precious")
    for said, *command in (
        ("already exists; give another file, or replace it with --overwrite", "--file", path, "--out", out),
        ("is the input file", "--file", path, "--out", path, "--overwrite"),
        ("must end in .csv, .tsv, .jsonl, .parquet", "--file", path, "--out", tmp_path / "out.doc"),
        ("no such folder", "--file", path, "--out", tmp_path / "nowhere" / "out.csv"),
        ("is a folder; give a file in it", "--file", tmp_path, "--out", tmp_path / "o.csv"),
        ("no such file", "--file", tmp_path / "nothing.csv", "--out", tmp_path / "o.csv"),
        ("--out and --format need a table as input", "a text", "--out", tmp_path / "o.csv"),
        ("--resume ", "a text", "--resume"),
        ("standard input can be read only once", "--format", "csv", "--out", tmp_path / "o.csv", "--resume"),
        ("--spreadsheet-safe is only for", "--file", path, "--out", tmp_path / "o.jsonl", "--spreadsheet-safe"),
    ):  # fmt: skip
        assert said in refused("predict", run, *command)
    assert out.read_text() == "precious"
    assert minilm("predict", run, "--file", path, "--out", out, "--overwrite").exit_code == 0
    assert "already has a column" in refused("predict", run, "--file", out, "--out", tmp_path / "again.csv")
    path.write_text("id,comment\n1,a\n")
    assert 'no column "text" (data.text in' in refused("predict", run, "--file", path, "--out", tmp_path / "o.csv")


def test_unsure_answers_are_counted(tmp_path: Path) -> None:
    command = ("predict", finished_run(), "--file", table(tmp_path), "--out", tmp_path / "out.csv")
    result = minilm(*command, "--unsure-below", "1")
    found = read(tmp_path / "out.csv")
    unsure = sum(row["predicted"] == "unsure" for row in found)
    assert unsure and f"{unsure} unsure, below a probability of 1" in result.stderr
    assert all(row["probability"] for row in found)


def test_memory_does_not_hold_more_than_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "WINDOW", 5)
    sizes = []
    of = RowAnswers.of
    monkeypatch.setattr(RowAnswers, "of", lambda self, window: (sizes.append(len(window)), of(self, window))[1])
    monkeypatch.setattr(predict, "CHARACTERS", 100)
    predictor = load_predictor([finished_run()], "cpu")
    done = predict_file(predictor, finished_run(), TableJob(table(tmp_path), tmp_path / "out.csv"))
    assert sum(sizes) == done.rows == 30 and max(sizes) <= 5 and min(sizes) < 5
