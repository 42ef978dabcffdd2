"""Atomic writing of files: a file is written completely, or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Write a file under another name, flush it to the disk, and rename it, so that ``path`` is never incomplete.

    Raises OSError, with ``path`` as its ``filename``, if the disk is full or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_remains(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        if error.filename in (None, str(beside)):
            error.filename = str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


def flush_names(folder: Path) -> None:
    """Flush a folder's directory to the disk, so that new names survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_remains(path: Path) -> None:
    """Remove incomplete files that killed processes have left beside a file, as they may be large."""
    for begun in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        process = begun.name.split(".")[-2]
        if process.isdecimal() and not _is_alive(int(process)):
            begun.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if os.name != "posix":  # elsewhere os.kill would end the process
        return True
    try:
        os.kill(process, 0)  # sends no signal, but raises an error if there is no such process
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user
        return True
    return True
