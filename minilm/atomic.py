"""Atomic writing of files: a file is written completely, or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from minilm.world import is_first

WINDOWS = os.name == "nt"
PATIENCE, PAUSE = 5.0, 0.05  # seconds: how long, and how often, renaming is tried on Windows


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Write a file under another name, flush it to the disk, and rename it, so that ``path`` is never incomplete.

    If several processes work on one run, they write the same; only the first process's file is kept.

    Raises OSError, whose ``filename`` is that of the file, if the disk is full, or there is a folder in its place.
    """
    if not is_first():
        with open(os.devnull, "wb") as nowhere:
            yield nowhere
        return
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_remains(path)
    beside = unfinished(path)
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        move(beside, path)
    except OSError as error:
        if error.filename in (None, str(beside)):
            error.filename = str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Rename a file or a folder; a file replaces the one in its place.

    On Windows this fails as long as another process, such as a virus scanner, has a file open: so it is tried again.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if not WINDOWS or time.monotonic() > until:
                raise
        time.sleep(PAUSE)


def flush_names(folder: Path) -> None:
    """Flush a folder's directory to the disk, so that new names survive a power failure. Windows does this itself."""
    if WINDOWS:  # where a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unfinished(path: Path) -> Path:
    """The name of a file or folder until this process has written it: ``.NAME.MACHINE-PROCESS.tmp``, beside it."""
    return path.with_name(f"{_begin(path)}{os.getpid()}.tmp")


def remove_remains(path: Path) -> None:
    """Remove what killed processes of this machine have left of a file or folder: it may be gigabytes."""
    begin = _begin(path)
    for begun in path.parent.glob(f"{glob.escape(begin)}*.tmp"):
        process = begun.name.removeprefix(begin).removesuffix(".tmp")
        if not process.isdecimal() or _is_alive(int(process)):
            continue
        if begun.is_dir() and not begun.is_symlink():
            shutil.rmtree(begun, ignore_errors=True)
        else:
            begun.unlink(missing_ok=True)


def _begin(path: Path) -> str:
    """The first part of an unfinished file's name. It has the machine, as several may share a folder."""
    return f".{path.name}.{re.sub(r'[^A-Za-z0-9-]', '-', socket.gethostname())}-"


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
