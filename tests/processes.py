"""The command in a process of its own, which may be killed. One server has torch imported and forks them all."""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from minilm.atomic import unfinished
from minilm.cli import main
from tests.tiny import no_pictures

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["minilm.runs.train", "tests.processes"])


def killed_at(target: str, call: int, arguments: list[object], log: Path) -> None:
    """Run ``minilm`` with these arguments; SIGKILL comes when ``target`` is called for the ``call``-th time."""
    process = _SERVER.Process(target=_work, args=(target, call, [str(a) for a in arguments], str(log)))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, log.read_text()


def left_by_killed(path: Path) -> Path:
    """The name under which a process that no longer runs began to write a file or folder."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    with mock.patch("os.getpid", lambda: gone.pid):
        return unfinished(path)


def _work(target: str, call: int, arguments: list[str], log: str) -> None:
    for number in (1, 2):
        os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    calls = []

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **options: Any) -> Any:
            calls.append(target)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given, **options)

        return wrapped

    place, _, name = target.rpartition(".")
    owner = pkgutil.resolve_name(place)
    float32 = mock.patch("minilm.devices.cpu_computes_bfloat16", lambda: False)  # as in the tests' own process
    with float32, no_pictures(), mock.patch.object(owner, name, deadly(getattr(owner, name))):
        main(arguments)
