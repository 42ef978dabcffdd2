"""The command in a process of its own, which dies at a chosen moment or has little disk."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from click.testing import CliRunner

from minilm.cli import main
from minilm.training.loop import _Loop
from tests.tiny import no_pictures

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["minilm.runs.train", "minilm.studies.engine", "tests.faults.running"])
LONGEST = 300  # seconds until an attempt counts as hung


@dataclass(frozen=True)
class Attempt:
    """How one process ended."""

    code: int | None  # its exit status; None: it was killed
    output: str = ""
    trace: str = ""  # of what escaped it
    events: int = 0  # changes of files and steps that it made
    seconds: float = 0.0


def _work(connection: Connection, arguments: list[str], kill_at: int, limit: int, wait_until: float) -> None:
    """Run the command, quietly; send how it ended. ``kill_at``: the event at which SIGKILL comes."""
    torch.set_num_threads(1)
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
    counter = count_events(kill_at)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    time.sleep(max(0.0, wait_until - time.time()))
    started = time.monotonic()
    with no_pictures():
        result = CliRunner().invoke(main, arguments)
    trace = ""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        trace = "".join(traceback.format_exception(*(result.exc_info or (None, None, None))))
    connection.send(Attempt(result.exit_code, result.output, trace, counter[0], time.monotonic() - started))


def count_events(kill_at: int) -> list[int]:
    """Count changes of files and steps from here on, and die just before or just after one of them."""
    counter = [0]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **options: Any) -> Any:
            counter[0] += 1
            if counter[0] == kill_at and kill_at % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            found = function(*given, **options)
            if counter[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return wrapped

    for name in ("fsync", "rename", "replace", "link", "unlink", "rmdir", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    _Loop._step = counted(_Loop._step)  # type: ignore[method-assign]
    return counter


class Running:
    """A command in a process."""

    def __init__(self, arguments: list[str], *, kill_at: int = 0, limit: int = 0, wait_until: float = 0.0) -> None:
        self.ours, theirs = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=_work, args=(theirs, arguments, kill_at, limit, wait_until))
        self.process.start()
        theirs.close()

    def end(self, kill_after: float = LONGEST) -> Attempt:
        """Wait for its end, and kill it after a time."""
        attempt = Attempt(None)
        try:
            if self.ours.poll(kill_after):
                attempt = self.ours.recv()
            elif kill_after >= LONGEST:
                attempt = Attempt(-1, trace=f"it hung for {LONGEST} seconds")
        except EOFError:
            pass
        if attempt.code is None or attempt.code == -1:
            self.process.kill()
        self.process.join()
        return attempt
