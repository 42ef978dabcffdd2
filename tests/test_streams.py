"""The command with standard streams that are closed, or that nobody reads any more; and with names that are none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minilm.errors import UserError
from minilm.textfiles import read_json, read_text, read_toml
from tests.tiny import finished_run, minilm, refused, write_config

CLOSED = (
    "import os, sys\n"
    "for number in {closed}: os.close(number)\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'minilm', *{arguments}])\n"
)
DEEP, LONG = "[" * 3000 + "]" * 3000, "9" * 5000


def started(*arguments: object, closed: tuple[int, ...] = (), stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own that has some of its three streams closed."""
    code = CLOSED.format(closed=closed, arguments=[str(argument) for argument in arguments])
    return subprocess.run(
        [sys.executable, "-c", code], input=stdin, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2)])
def test_a_run_trains_to_its_end_without_standard_streams(tmp_path: Path, closed: tuple[int, ...]) -> None:
    done = started("train", write_config(tmp_path), "train.epochs=1", "--runs", tmp_path, closed=closed)
    assert done.returncode == 0 and (tmp_path / "tiny" / "report.html").exists()
    assert ("loss" in done.stdout) == (1 not in closed) and ("parameters train" in done.stderr) == (2 not in closed)
    for path in (tmp_path / "tiny").rglob("*.*"):  # none of its files took a stream's number
        assert b"parameters train" not in path.read_bytes(), path


def test_texts_are_wanted_if_standard_input_is_closed() -> None:
    done = started("predict", finished_run(), closed=(0,))
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_training_goes_on_if_nobody_reads_its_output_any_more(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "minilm", "train", write_config(tmp_path), "--runs", tmp_path]
    read, write = os.pipe()
    with subprocess.Popen([str(part) for part in command], stdout=write, stderr=write) as process:
        os.close(write)
        os.read(read, 1)  # as `head -1` does
        os.close(read)
        process.wait(timeout=300)
    assert (tmp_path / "tiny" / "report.html").exists()


# --- Names that are none, and values that are no settings -----------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", ""), ("train", "x.toml", "--runs", ""), ("finetune", ""), ("evaluate", ""), ("predict", "", "a text"),
        ("info", ""), ("export", "", "folder"), ("export", "run", ""), ("study", ""), ("compare", ""), ("data", ""),
        ("compare", "run", "--html", ""), ("download", ""), ("generate", "", "text"), ("fill", "", "text"),
        ("evaluate", "run", "--file", ""),
    ],
)  # fmt: skip
def test_an_empty_name_is_refused_by_every_command(arguments: tuple[str, ...]) -> None:
    assert refused(*arguments).endswith("must not be empty")


def test_a_folder_is_no_page() -> None:
    for folder in (".", str(finished_run())):
        assert refused("compare", finished_run(), "--html", folder) == f"Error: {folder}: Is a directory"
    assert refused("predict", finished_run(), "") == "Error: text 1 is empty"


def test_a_number_of_5000_digits_and_values_3000_deep_are_refused_wherever_they_stand(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    for value, why in ((LONG, "a whole number of more than 100 digits"), (DEEP, "nested more than 100 levels deep")):
        message = refused("train", config, f"train.lr={value}", "--runs", tmp_path)
        assert why in message and len(message) < 400
        (tmp_path / "a.toml").write_text(f"{config.read_text()}\nvalue = {value}\n")
        assert why in refused("train", tmp_path / "a.toml", "--runs", tmp_path)
        (tmp_path / "a.json").write_text(f'{{"a": {value}}}')
        with pytest.raises(UserError, match=r"a\.json: not valid JSON"):
            read_json(tmp_path / "a.json")
    assert refused("train", config, f"model.config.width=0x{LONG}", "--runs", tmp_path).endswith("100 digits")
    assert "100 nested tables" in refused("train", config, f"model.config.{'.'.join('a' * 3000)}=1", "--runs", tmp_path)
    tables = "".join(f'{{"a{i}": ' for i in range(99)) + "1" + "}" * 99
    (tmp_path / "a.json").write_text(tables)
    assert read_json(tmp_path / "a.json")


def test_no_path_has_a_nul_character(tmp_path: Path) -> None:
    for change in ('data.rows="a\\u0000b"', 'data.source="a\\u0000b.csv"', 'tokenizer.source="a\\u0000b"'):
        message = refused("train", write_config(tmp_path), change, "--runs", tmp_path)
        assert "contains a NUL character" in message and "\\x00" in message
    for read in (read_text, read_toml, read_json):
        with pytest.raises(UserError, match="contains a NUL character"):
            read(Path("a\0b"))
    assert minilm("train", write_config(tmp_path), "data.rows=~nosuch/x", "--runs", tmp_path).exit_code == 1
