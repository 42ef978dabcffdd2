"""Hints hold commands that can be pasted, and the first mistakes are answered with the command that was meant."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from minilm.errors import UserError
from minilm.hints import config_file, install, program, quoted


def script(folder: Path, name: str = "minilm") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_command_is_named_as_it_can_be_pasted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "argv", [str(script(tmp_path / ".venv" / "bin"))])
    assert program() == ".venv/bin/minilm"
    monkeypatch.setattr(sys, "argv", [str(script(tmp_path / "bin"))])
    assert program() == "minilm"
    monkeypatch.chdir(tmp_path / "bin")
    monkeypatch.setattr(sys, "argv", [str(script(tmp_path / "my env"))])
    assert program() == f"'{tmp_path / 'my env' / 'minilm'}'"
    monkeypatch.setattr(sys, "argv", [str(script(tmp_path / "minilm", "__main__.py"))])
    assert program() == "python -m minilm"
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert program() == "minilm"


def test_an_extra_is_installed_from_the_folder_of_minilm(tmp_path, monkeypatch):
    checkout = Path(__file__).parents[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert install("serve") == f".venv/bin/python -m pip install -e '{checkout}[serve]'"
    monkeypatch.chdir(checkout)
    assert install("serve") == f"{tmp_path}/.venv/bin/python -m pip install -e '.[serve]'"


def test_a_runs_folder_stands_for_its_config(tmp_path):
    (tmp_path / "config.toml").write_text("")
    assert config_file(tmp_path) == tmp_path / "config.toml"
    assert config_file(tmp_path / "other.toml") == tmp_path / "other.toml"
    assert config_file(tmp_path / "none") == tmp_path / "none"


@pytest.mark.parametrize("name", ["reviews.csv", "my reviews.csv.gz", "reviews.JSONL"])
def test_data_in_place_of_a_config_is_answered_with_the_commands(name):
    with pytest.raises(UserError) as error:
        config_file(Path(name))
    quoted = f"'{name}'" if " " in name else name
    assert f"minilm finetune minilm --data {quoted}" in str(error.value)
    assert f"minilm train CONFIG.toml data.source={quoted}" in str(error.value)


def test_commands_are_quoted_for_the_shell_of_the_system(monkeypatch):
    assert [quoted(text) for text in ("runs/a", "my runs", r"runs\a")] == ["runs/a", "'my runs'", r"'runs\a'"]
    monkeypatch.setattr("minilm.hints.WINDOWS", True)
    assert [quoted(text) for text in (r"D:\runs\a", "my runs", "a|b")] == [r"D:\runs\a", '"my runs"', '"a|b"']
