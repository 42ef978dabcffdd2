from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet
import pytest

from minilm.cli import main
from tests.tiny import finished_run, minilm, refused, write_config

REFERENCE = Path(__file__).parent / "reference"
VERBS = sorted(main.commands)
SLOW = ("torch", "numpy", "matplotlib", "tokenizers")


def python(code: str) -> str:
    """What a new Python prints that runs this."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_and_lists_answer_without_importing_anything_slow() -> None:
    commands = [["--help"], ["--version"], ["models"], ["data"], ["data", "ag-news"]]
    commands += [[verb, "--help"] for verb in VERBS]
    found = python(
        "import sys, json\n"
        "from minilm.cli import main\n"
        f"for command in {commands!r}:\n"
        "    main(command, standalone_mode=False)\n"
        f"print(json.dumps([name for name in {SLOW!r} if name in sys.modules]))\n"
    )
    assert json.loads(found.splitlines()[-1]) == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    assert re.search(rf"Example:\n +minilm {verb}", minilm(verb, "--help").stdout)


def test_predicting_needs_no_pictures_and_no_data_sets() -> None:
    found = python(
        "import sys\n"
        "from minilm.cli import main\n"
        f"main(['predict', {str(finished_run())!r}, 'it was good'], standalone_mode=False)\n"
        "print([name for name in ('matplotlib', 'pyarrow', 'huggingface_hub') if name in sys.modules])\n"
    )
    assert found.splitlines()[-1] == "[]"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_a_run_has_a_folder_ends_it_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    config = finished_run() / "config.toml"
    monkeypatch.setattr("minilm.runs.train.prepare", lambda *_: os.kill(os.getpid(), number))
    result = minilm("train", config, "--runs", tmp_path)
    assert result.exit_code == 128 + number and result.stderr == "interrupted\n"


# --- predict ---


def test_texts_come_from_the_command_line_a_file_or_standard_input(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("it was good\nżółw\n", encoding="utf-8")
    as_arguments = minilm("predict", finished_run(), "it was good", "żółw").stdout
    assert [line.split("\t")[1] for line in as_arguments.splitlines()] == ["it was good", "żółw"]
    assert minilm("predict", finished_run(), "--file", tmp_path / "texts.txt").stdout == as_arguments
    assert minilm("predict", finished_run(), stdin="it was good\nżółw\n").stdout == as_arguments


@pytest.mark.parametrize("name", ["texts.csv", "texts.TSV", "texts.jsonl", "texts.parquet"])
def test_the_texts_of_a_table_are_those_in_the_runs_column(tmp_path: Path, name: str) -> None:
    path, texts = tmp_path / name, ["it was good", "żółw"]
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2], "text": texts}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts), encoding="utf-8")
    else:
        separator = "," if path.suffix == ".csv" else "\t"
        path.write_text(
            "\n".join(separator.join(row) for row in [("id", "text"), *(("1", text) for text in texts)]),
            encoding="utf-8",
        )
    assert minilm("predict", finished_run(), "--file", path).stdout == minilm("predict", finished_run(), *texts).stdout


def test_an_answer_is_one_line_though_its_text_has_several(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text('text\n"it was\ngood"\n')
    [line] = minilm("predict", finished_run(), "--file", tmp_path / "texts.csv").stdout.splitlines()
    assert line.endswith("\tit was\\ngood")
    [line] = minilm("predict", finished_run(), "--file", tmp_path / "texts.csv", "--json").stdout.splitlines()
    assert json.loads(line)["text"] == "it was\ngood"


def test_a_table_without_the_runs_column_is_refused_with_the_name_of_its_config(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("comment\nit was good\n")
    said = refused("predict", finished_run(), "--file", tmp_path / "texts.csv")
    config = finished_run() / "config.toml"
    assert f'texts.csv: no column "text" (data.text in {config}); its columns are "comment"' in said
    assert said.endswith("; name the column of the texts: --column NAME")


def test_the_texts_of_another_table_are_in_a_column_that_is_named(tmp_path: Path) -> None:
    table, command = tmp_path / "t.csv", ("predict", finished_run(), "--file", tmp_path / "t.csv")
    table.write_text("id,comment\n1,it was good\n")
    alone = minilm("predict", finished_run(), "it was good").stdout
    assert minilm(*command, "--column", "comment").stdout == alone
    out = minilm(*command, "--column", "comment", "--out", tmp_path / "out.csv")
    assert out.exit_code == 0 and ",it was good," in (tmp_path / "out.csv").read_text()
    given = minilm("predict", finished_run(), "--format", "csv", "--column", "comment", stdin=table.read_text())
    assert given.stdout == (tmp_path / "out.csv").read_text()
    for more in ([], ["--out", tmp_path / "o.csv"]):
        said = refused(*command, "--column", "coment", *more)
        assert 't.csv: no column "coment" (--column) (did you mean "comment"?); its columns are' in said
        assert "--column NAME" not in said and refused(*command, *more).endswith("of the texts: --column NAME")
    table.write_text("it was good,1\nit was bad,2\n")
    assert "write a first line with the names of the columns" in refused(*command)
    (tmp_path / "t.txt").write_text("good\n")
    for more in ([], ["--out", tmp_path / "o.csv"]):
        said = refused("predict", finished_run(), "--file", tmp_path / "t.txt", "--column", "a", *more)
        assert "t.txt: is read as one text per line, so it has no columns" in said
    assert "--column is for a table: give --file" in refused("predict", finished_run(), "good", "--column", "a")


def test_an_empty_line_or_row_has_an_empty_answer_and_stops_no_other(tmp_path: Path) -> None:
    good, bad = (minilm("predict", finished_run(), text).stdout for text in ("good", "bad"))
    (tmp_path / "t.txt").write_text("good\n \nbad\n")
    (tmp_path / "t.csv").write_text("text,id\ngood,1\n ,2\nbad,3\n")
    for source in (["--file", tmp_path / "t.txt"], ["--file", tmp_path / "t.csv"], []):
        found = minilm("predict", finished_run(), *source, stdin="good\n \nbad\n")
        assert found.exit_code == 0 and found.stdout == f"{good}\t \n{bad}"
        assert found.stderr == "1 of 3 texts are empty, and so are their answers\n"
        lines = minilm("predict", finished_run(), *source, "--json", stdin="good\n \nbad\n").stdout.splitlines()
        assert json.loads(lines[1]) == {"text": " ", "labels": [], "scores": {}}


def test_json_lines_hold_all_scores() -> None:
    [line] = minilm("predict", finished_run(), "żółw", "--json").stdout.splitlines()
    found = json.loads(line)
    assert found["text"] == "żółw" and "żółw" in line and sum(found["scores"].values()) == pytest.approx(1)
    assert found["labels"] == [max(found["scores"], key=found["scores"].get)]


def test_a_text_that_cannot_be_classified_is_told(tmp_path: Path) -> None:
    assert "text 2 is empty" in refused("predict", finished_run(), "good", "  ")
    assert "line 1: not UTF-8" in refused("predict", finished_run(), stdin=b"\xff\n")
    (tmp_path / "texts.txt").touch()
    assert "give texts or --file, not both" in refused("predict", finished_run(), "a", "--file", tmp_path / "texts.txt")
    assert minilm("predict", finished_run(), "--file", tmp_path / "texts.txt").stdout == ""
    assert "nowhere.txt" in refused("predict", finished_run(), "--file", tmp_path / "nowhere.txt")


def test_what_is_no_classifier_is_told(tmp_path: Path) -> None:
    assert "config.json" in refused("predict", tmp_path, "a")
    assert "nonsense" in refused("predict", "nonsense", "a")
    (tmp_path / "config.toml").touch()
    assert "this run has not finished; resume it with" in refused("predict", tmp_path, "a")
    said = refused("predict", REFERENCE / "bert-lm", "a")
    assert "has no classification head; train one (minilm train), or in Python give the classes of a new head" in said
    (tmp_path / "empty").mkdir()
    said = refused("predict", finished_run(), tmp_path / "empty", "a")
    assert f"{tmp_path / 'empty'}: is a folder that contains no model; give a run's folder, or a text" in said
    assert 'device must be "auto"' in refused("predict", finished_run(), "a", "--device", "tpu")


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(SystemExit):
        main(["predict", "some-run"])
    assert capsys.readouterr().err.startswith("Error: nothing to classify: give texts, --file FILE, or lines")


# --- The others ---


def test_the_end_of_a_run_names_its_page(tmp_path: Path) -> None:
    shown = minilm("train", write_config(tmp_path), "train.epochs=1", "--runs", tmp_path / "runs").stdout
    assert f"Report:   {tmp_path / 'runs' / 'tiny' / 'report.html'}" in shown


def test_runs_are_compared() -> None:
    text = minilm("compare", finished_run(), finished_run()).stdout  # the same one twice is one
    assert text.count("\ntiny ") == 2 and "macro F1" in text and "seeds" not in text
    assert minilm("compare", finished_run(), "--markdown").stdout.startswith("| run | model |")


def test_a_metric_without_a_page_is_refused() -> None:
    said = refused("compare", finished_run(), "--metric", "accuracy")
    assert "--metric needs --html, as the tables always show all metrics" in said


def test_a_folder_that_is_no_run_cannot_be_compared(tmp_path: Path) -> None:
    assert "no such folder" in refused("compare", tmp_path / "none")
    assert "not a run's folder" in refused("compare", finished_run(), tmp_path)
    runs = finished_run().parent
    message = refused("compare", runs)
    assert message.startswith(f"Error: {runs}: not a run's folder") and message.endswith(f"or all of them: {runs}/*")


# --- Errors ---


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError(28, "No space left on device", "/tmp/x"), 1, "Error: /tmp/x: No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_the_user_can_mend_has_no_traceback(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, said: str
) -> None:
    def fails(model: str, changes: object) -> str:
        raise error

    monkeypatch.setattr("minilm.studies.sizes.describe", fails)
    result = minilm("info", "x")
    assert result.exit_code == status and result.stderr.strip() == said


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilm.studies.sizes.describe", lambda model, changes: {}["key"])
    with pytest.raises(KeyError):
        minilm("info", "x")


def test_a_wrong_command_line_ends_with_status_2() -> None:
    assert minilm("train").exit_code == 2 and minilm("trian").exit_code == 2


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("train mine.toml --epochs 3", "'--epochs'; write train.epochs=3"),
        ("train mine.toml --data a.csv", "'--data'; write data.source=a.csv"),
        ("finetune --model distilbert", "'--model'; write model.source=distilbert"),
        ("train mine.toml --epochs --resume", "'--epochs'; write train.epochs=VALUE"),
        ("train mine.toml --bf16 train.epochs=3", "'--bf16'; write train.precision=VALUE"),
        ("finetune --learning-rate=1e-4", "'--learning-rate'; write train.lr=1e-4"),
        ("finetune bert --seed 3 train.epochs=2", "'--seed'; write seed=3"),
        ("train mine.toml --train.lr 1", "'--train.lr'; write train.lr=1"),
        ("train mine.toml --name", "'--name'; write name=VALUE"),
        ("train mine.toml --zzz 3", "'--zzz'."),
        ("models --seed 3", "'--seed'."),  # a verb without changes
    ],
)
def test_a_key_as_an_option_is_answered_with_the_change(words: str, change: str) -> None:
    result = minilm(*words.split())
    assert result.exit_code == 2 and result.stderr.splitlines()[-1] == f"Error: No such option {change}"


def test_train_takes_a_method_and_changes_come_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr("minilm.cli._train", lambda recipe, changes, **_: seen.append(tuple(changes)))
    assert minilm("train", "distilbert", "lora.rank=4", "--method", "lora").exit_code == 0
    assert seen == [("freeze.part=nothing", "lora.rank=8", "train.lr=5e-4", "lora.rank=4")]
    assert "--method must be full, head" in refused("train", "distilbert", "--method", "lorra")


@pytest.mark.parametrize("place", ["--no{}", "models --{}", "{}", "models {}", "compare --markdown={}"])
def test_a_wrong_command_line_is_quoted_on_one_line_and_cut_in_its_middle(place: str) -> None:
    result = minilm(*place.format("start" + "x" * 5000 + "\x1b[2Jend").split(" "))
    line = result.stderr.splitlines()[-1]
    assert result.exit_code == 2 and line.startswith("Error: ") and len(line) < 700 and "\x1b" not in line
    assert "compare" in place or ("start" in line and "\\x1b[2Jend" in line)


def test_a_reader_that_has_had_enough_ends_the_command_quietly() -> None:
    command = [sys.executable, "-c", "from minilm.cli import main; main(['data'])"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
