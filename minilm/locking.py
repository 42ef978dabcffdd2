"""A lock file, by which processes exclude each other: one process has the lock, and the file names this process.

The operating system keeps the lock (flock) as long as the process runs. So a crash releases it, and a file left by a
killed process does not block others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


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
    if fcntl is None:
        yield Lock(path)
        return
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
            lock.path.unlink(missing_ok=True)


def _take(file: IO[str], wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


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
