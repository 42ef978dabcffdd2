from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from minilm import atomic as module
from minilm.atomic import atomic, flush_names, move, remove_remains, unfinished


def refusing(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Renaming fails so often, as on Windows if another process has the file open."""
    rename, left = Path.replace, [times]

    def replace(source: Path, target: Path) -> Path:
        if left[0]:
            left[0] -= 1
            raise PermissionError(errno.EACCES, "in use by another process", str(source))
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(module, "PAUSE", 0.0)


def test_on_windows_a_file_that_is_open_elsewhere_is_replaced_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    refusing(monkeypatch, 3)
    monkeypatch.setattr(module, "WINDOWS", True)
    with atomic(path) as file:
        file.write(b"new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(("windows", "patience"), [(False, 5.0), (True, -1.0)])
def test_a_file_that_cannot_be_replaced_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, windows: bool, patience: float
) -> None:
    (tmp_path / "a").touch()
    refusing(monkeypatch, 1)
    monkeypatch.setattr(module, "WINDOWS", windows)
    monkeypatch.setattr(module, "PATIENCE", patience)
    with pytest.raises(PermissionError):
        move(tmp_path / "a", tmp_path / "b")


def test_on_windows_no_folder_is_opened_to_flush_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "a folder")

    monkeypatch.setattr(module.os, "open", refuse)
    with pytest.raises(PermissionError):
        flush_names(tmp_path)
    monkeypatch.setattr(module, "WINDOWS", True)
    flush_names(tmp_path)


def test_remains_are_removed_if_they_are_of_this_name_this_machine_and_a_process_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()

    def left(name: str, machine: str, process: int) -> Path:
        with monkeypatch.context() as patch:
            patch.setattr(module.socket, "gethostname", lambda: machine)
            patch.setattr(module.os, "getpid", lambda: process)
            return unfinished(tmp_path / name)

    ours = left("x", "one.example", gone.pid)
    kept = [
        left("x", "one.example", os.getppid()),
        left("x", "two.example", gone.pid),
        left("x", "one", gone.pid),
        left("x.1", "one.example", gone.pid),
    ]
    assert len({ours, *kept}) == 5
    for path in (ours, *kept):
        path.touch()
    monkeypatch.setattr(module.socket, "gethostname", lambda: "one.example")
    remove_remains(tmp_path / "x")
    assert set(tmp_path.iterdir()) == set(kept)
