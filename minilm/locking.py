"""A file by which processes exclude each other: one has the lock, the others learn who that is.

The operating system holds the lock (flock) as long as the process lives. So a crash releases it, and no file that a
killed process left can keep others out.
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

    path: Path  # of its file; whoever renames a folder around it changes it
    holder: str = ""  # the process that has it, in words; "": this one


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[Lock]:
    """Try to take a lock, or with ``wait`` take it once it is free. Its file is removed in the end.

    A system without such locks, as some network file systems are, gives the lock to everybody.
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
            file.close()  # whoever had it before has removed the file: lock the new one
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
