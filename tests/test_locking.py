"""A lock is one process's, names it, and ends with it."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import pytest

from minilm import locking
from minilm.locking import locked

FORK = multiprocessing.get_context("fork")


def _hold(path: Path, connection: Connection) -> None:
    with locked(path) as lock:
        connection.send(lock.holder)
        connection.recv()


def _count(path: Path, times: int) -> None:
    """Add to a number in a file, so often; two at once would lose some."""
    for _ in range(times):
        with locked(path.with_name(".lock"), wait=True) as lock:
            assert not lock.holder
            path.write_text(str(int(path.read_text()) + 1))


def in_process(work: Callable[..., None], *arguments: object) -> multiprocessing.process.BaseProcess:
    process = FORK.Process(target=work, args=arguments)
    process.start()
    return process


def test_the_second_process_learns_who_has_the_lock_and_a_crash_releases_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    ours, theirs = FORK.Pipe()
    process = in_process(_hold, path, theirs)
    assert ours.recv() == ""
    with locked(path) as lock:
        assert lock.holder.startswith(f"process {process.pid} on ")
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert path.exists()  # it was killed; the file alone keeps nobody out
    with locked(path) as lock:
        assert lock.holder == "" and str(os.getpid()) in path.read_text()
    assert not path.exists()


def test_processes_that_wait_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "number"
    path.write_text("0")
    processes = [in_process(_count, path, 50) for _ in range(4)]
    for process in processes:
        process.join()
    assert path.read_text() == "200" and [p.name for p in tmp_path.iterdir()] == ["number"]


# --- Windows, as far as other systems can play it ---


def _lock_byte(descriptor: int, mode: int, number: int) -> None:
    """What ``msvcrt.locking`` does, and raises."""
    assert (mode, number) == (2, 1) and os.lseek(descriptor, 0, os.SEEK_CUR) == 2**30
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, "Permission denied") from None


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_FCNTL", None)
    monkeypatch.setattr(locking, "_MSVCRT", SimpleNamespace(locking=_lock_byte, LK_NBLCK=2))
    monkeypatch.setattr(locking, "_PAUSE", 0.001)


def test_on_windows_the_second_process_learns_who_has_the_lock(tmp_path: Path, windows: None) -> None:
    test_the_second_process_learns_who_has_the_lock_and_a_crash_releases_it(tmp_path)


def test_on_windows_processes_take_turns_though_no_open_file_can_be_removed(
    tmp_path: Path, windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "in use by another process", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    path = tmp_path / "number"
    path.write_text("0")
    processes = [in_process(_count, path, 25) for _ in range(3)]
    for process in processes:
        process.join()
    assert path.read_text() == "75" and (tmp_path / ".lock").exists()
