"""A lock file, by which processes exclude each other: one process has the lock, and the file names this process.

The operating system keeps the lock (flock; on Windows, a lock on one byte) as long as the process runs. So a crash
releases it, and a file left by a killed process does not block others.

On Windows a folder cannot be renamed while a file in it is open (``FOLLOWS_RENAMES``), and an open file cannot be
removed.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


def _module(name: str) -> Any:
    """A module of the operating system's; None on systems without it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_FCNTL, _MSVCRT = _module("fcntl"), _module("msvcrt")
FOLLOWS_RENAMES = _MSVCRT is None  # whether a locked file's folder can be renamed
_FAR_BYTE = 2**30  # the byte that is locked on Windows: others cannot read a locked byte, but must read the file
_PAUSE = 0.05  # seconds between attempts on Windows


@dataclass
class Lock:
    """The outcome of an attempt to take a lock."""

    path: Path  # the lock file; change it if a folder that contains it is renamed
    holder: str = ""  # a description of the process that has the lock; "": this process


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[Lock]:
    """Try to take a lock, or with ``wait``, wait until it is free. The lock file is removed at the end.

    On systems without such locks, such as some network file systems, every process gets the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        while True:
            file = stack.enter_context(path.open("a+"))
            if not _take(file, wait):
                yield Lock(path, _holder(file))
                return
            if _is_at(path, file):
                break
            file.close()  # the previous process has removed the file, so lock the new one
        _write_holder(file)
        lock = Lock(path)
        try:
            yield lock
        finally:
            _remove(lock.path, file)


def _take(file: IO[str], wait: bool) -> bool:
    if _MSVCRT is not None:
        while not (taken := _take_byte(file)) and wait:
            time.sleep(_PAUSE)
        return taken
    try:
        _FCNTL.flock(file, _FCNTL.LOCK_EX | (0 if wait else _FCNTL.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


def _take_byte(file: IO[str]) -> bool:
    os.lseek(file.fileno(), _FAR_BYTE, os.SEEK_SET)
    try:
        _MSVCRT.locking(file.fileno(), _MSVCRT.LK_NBLCK, 1)
    except PermissionError:
        return False
    return True


def _remove(path: Path, file: IO[str]) -> None:
    """Remove the lock file, and with it the lock."""
    if _MSVCRT is None:
        path.unlink(missing_ok=True)
        return
    file.close()
    with contextlib.suppress(PermissionError):  # another process has it open, to lock it or to read it
        path.unlink(missing_ok=True)


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _write_holder(file: IO[str]) -> None:
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    file.flush()


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read(200).strip() or "another process"
