"""A run's folder: it appears whole, one process works in it, and a resumed run says what is different here."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minilm.errors import UserError
from minilm.loading import load_config
from minilm.runs.conclude import finalize
from minilm.runs.folders import describe_cpu, find_unfinished, new_folder, occupied
from tests.processes import killed_at
from tests.tiny import at_step, finished_run, minilm, outcome, refused


@pytest.fixture
def config() -> Path:
    return finished_run().parents[1] / "tiny.toml"


def test_processes_that_are_started_again_find_their_unfinished_run_and_no_other(config: Path, tmp_path: Path) -> None:
    same, other = load_config(config), load_config(config, ["seed=77"])
    for name in ("tiny", "tiny-2"):
        (tmp_path / name).mkdir()
        for file in ("config.toml", "environment.json", "results.json"):
            shutil.copy(finished_run() / file, tmp_path / name)
    assert find_unfinished(config, same, tmp_path) is None
    (tmp_path / "tiny" / "results.json").unlink()
    assert find_unfinished(config, same, tmp_path) == tmp_path / "tiny"
    assert find_unfinished(config, other, tmp_path) is None


def test_a_finished_run_keeps_no_cache_of_any_machine(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished_run(), tmp_path / "run"))
    before = sorted(path.name for path in folder.iterdir())
    for name in ("cache", "cache-2", "checkpoints"):  # of processes that were killed
        (folder / name).mkdir()
    finalize(folder)
    assert sorted(path.name for path in folder.iterdir()) == before


# --- It appears whole ---


@pytest.mark.parametrize(
    ("target", "call"),
    [
        ("minilm.locking._write_holder", 1),  # it has nothing in it
        ("minilm.runs.train.dump_config", 1),  # it lacks its config
        ("minilm.runs.folders._rename_new", 1),  # it lacks its name
    ],
)
def test_a_kill_while_the_folder_is_made_leaves_no_run_and_the_name_is_free(
    config: Path, tmp_path: Path, target: str, call: int
) -> None:
    runs = tmp_path / "runs"
    killed_at(target, call, ["train", config, "--runs", runs], tmp_path / "log")
    assert [path.name.startswith(".tiny.") for path in runs.iterdir()] == [True]
    assert "there is no such run to resume" in refused("train", config, "--runs", runs, "--resume")
    assert minilm("train", config, "--runs", runs).exit_code == 0
    assert [path.name for path in runs.iterdir()] == ["tiny"] and outcome(runs / "tiny") == outcome(finished_run())
    assert not [path.name for path in (runs / "tiny").iterdir() if path.name.startswith(".")]


def test_a_signal_while_the_folder_is_made_leaves_nothing(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minilm.runs.train.dump_config", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    result = minilm("train", config, "--runs", tmp_path / "runs")
    assert result.exit_code == 128 + signal.SIGTERM and result.stderr.endswith("interrupted\n")
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_is_there_is_never_overwritten(config: Path, tmp_path: Path) -> None:
    for name, content in (("tiny", None), ("tiny-2", "a file")):
        (tmp_path / name).mkdir() if content is None else (tmp_path / name).write_text(content)
    (tmp_path / "tiny-3").symlink_to(tmp_path / "nowhere")
    assert minilm("train", config, "train.epochs=1", "--runs", tmp_path).exit_code == 0
    assert list((tmp_path / "tiny").iterdir()) == [] and (tmp_path / "tiny-2").read_text() == "a file"
    assert (tmp_path / "tiny-4" / "results.json").exists()


# --- One process works in it ---


def test_a_second_process_is_told_who_is_at_work_and_changes_nothing(config: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def try_too() -> None:
        command = [sys.executable, "-m", "minilm", "train", str(config), "--runs", str(tmp_path), "--resume"]
        said.append(subprocess.run(command, capture_output=True, text=True, check=False).stderr)

    with at_step(7, try_too):
        assert minilm("train", config, "--runs", tmp_path).exit_code == 0
    who = rf"Error: {tmp_path}/tiny: process {os.getpid()} on \S+, since [\d-]+ [\d:]+, is working on this run; wait "
    assert len(said) == 1 and re.match(who, said[0].splitlines()[-1]), said
    assert outcome(tmp_path / "tiny") == outcome(finished_run())


def test_a_lock_that_a_killed_process_left_keeps_nobody_out(config: Path, tmp_path: Path) -> None:
    killed_at("minilm.training.loop._Loop._step", 9, ["train", config, "--runs", tmp_path], tmp_path / "log")
    assert (tmp_path / "tiny" / ".lock").exists()
    assert minilm("train", config, "--runs", tmp_path, "--resume").exit_code == 0
    assert outcome(tmp_path / "tiny") == outcome(finished_run()) and not (tmp_path / "tiny" / ".lock").exists()


def test_an_interrupted_run_is_not_locked(config: Path, tmp_path: Path) -> None:
    with at_step(7, lambda: os.kill(os.getpid(), signal.SIGINT)):
        assert minilm("train", config, "--runs", tmp_path).exit_code == 130
    with occupied(tmp_path / "tiny"):
        assert "is working on this run" in refused("train", config, "--runs", tmp_path, "--resume")
    assert not (tmp_path / "tiny" / ".lock").exists()


# --- Another machine ---


@pytest.fixture
def interrupted(config: Path, tmp_path: Path) -> Path:
    with at_step(7, lambda: os.kill(os.getpid(), signal.SIGINT)):
        assert minilm("train", config, "--runs", tmp_path).exit_code == 130
    return tmp_path / "tiny"


@pytest.mark.parametrize(
    ("key", "was", "said"),
    [
        ("threads", 7, "threads 1 (it was 7)"),
        ("cpu", "Z80, DEFAULT", f"CPU {describe_cpu()} (it was Z80, DEFAULT)"),
        ("packages", {"torch": "1.0"}, f"torch {torch.__version__} (it was 1.0)"),
        ("device", "MPS, float32", "device CPU, float32 (it was MPS, float32)"),
    ],
)
def test_resuming_elsewhere_is_said_in_a_line(interrupted: Path, key: str, was: object, said: str) -> None:
    path = interrupted / "environment.json"
    environment = json.loads(path.read_text())
    assert environment["cpu"] == describe_cpu()
    path.write_text(json.dumps(environment | {key: was}))
    result = minilm("train", interrupted / "config.toml", "--resume")
    [line] = [line for line in result.stderr.splitlines() if "last bits" in line]
    assert result.exit_code == 0 and line.startswith(f"{interrupted}: resumes with {said}: from now on")


def test_resuming_at_the_same_place_says_nothing_of_it_nor_does_a_run_of_an_earlier_version(interrupted: Path) -> None:
    path = interrupted / "environment.json"
    environment = json.loads(path.read_text())
    del environment["cpu"]
    path.write_text(json.dumps(environment))
    copy = shutil.copytree(interrupted, interrupted.with_name("copy"))
    for folder in (interrupted, copy):
        result = minilm("train", folder / "config.toml", "--resume")
        assert result.exit_code == 0 and "last bits" not in result.stderr


def test_on_windows_a_folder_is_locked_when_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, a folder that contains an open file cannot be renamed."""
    monkeypatch.setattr("minilm.runs.folders.FOLLOWS_RENAMES", False)
    with new_folder(tmp_path, "a", lambda beside: (beside / "config.toml").touch()) as folder:
        assert (folder.name, sorted(os.listdir(folder))) == ("a", [".lock", "config.toml"])
        with pytest.raises(UserError, match="is working on this run"), occupied(folder):
            pass
    assert os.listdir(tmp_path / "a") == ["config.toml"]
