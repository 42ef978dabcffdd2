"""Runs shared out to processes, one at a time each.

A worker has a session of its own: Ctrl-C reaches the parent alone, which tells its workers once. It ends with its
parent, whatever ended that. With several GPUs each worker sees one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from minilm.runs.shared_cache import shared_cache
from minilm.studies.config import Planned
from minilm.studies.execution import failure_of
from minilm.training.console import Interrupted, recorded_signals

# A fork of this process would share its threads and CUDA. On Linux a server that has imported torch once forks them
# all; elsewhere what torch is built on does not survive a fork.
_PROCESSES: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
if sys.platform == "linux":
    _PROCESSES.set_forkserver_preload(["minilm.studies.execution"])


@dataclass
class Worker:
    """A process, and the run it is at."""

    process: BaseProcess
    connection: Connection
    run: Planned | None = None


def in_processes(
    number: int,
    folder: Path,
    next_run: Callable[[], Planned | None],
    done: Callable[[Planned, str], None],
    work: Callable[[Path, Planned], str],
) -> None:
    """Work at runs with so many processes until there is none left.

    Args:
        next_run: the next run that can start; None where there is none now.
        done: told of each run that has ended, and why it failed (nothing: it did not).
        work: what a worker does with a run; it returns why that failed. What it raises is a failure too.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the workers have kept their runs' states.
    """
    workers = [_start(i, folder, work) for i in range(number)]
    try:
        with recorded_signals() as noted:
            told = False
            while True:
                for worker in workers:
                    if worker.run is None and not noted and (run := next_run()) is not None:
                        worker.run = run
                        worker.connection.send(run)
                busy = [worker for worker in workers if worker.run is not None]
                if not busy:
                    break
                if noted and not told:
                    told = True
                    for worker in busy:
                        worker.process.terminate()
                for connection in wait([worker.connection for worker in busy], timeout=0.2):
                    i = next(i for i, worker in enumerate(workers) if worker.connection is connection)
                    run, failure = workers[i].run, _received(workers[i], told)
                    workers[i].run = None
                    if not workers[i].process.is_alive() and not noted:
                        workers[i] = _start(i, folder, work)
                    if run is not None and failure is not None:
                        done(run, failure)
            if noted:
                raise Interrupted(noted[0], folder)
    finally:
        for worker in workers:
            worker.connection.close()  # an idle one ends by itself
        for worker in workers:
            if worker.run is None:
                worker.process.join(timeout=5)
            worker.process.kill()
            worker.process.join()


def _received(worker: Worker, told: bool) -> str | None:
    """Why a worker's run failed; None where it was interrupted. ``told``: the workers were told to end."""
    try:
        answer = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        code = worker.process.exitcode or 0
        if told:  # it ended before there was anything to keep
            return None
        return f"its process ended ({signal.Signals(-code).name if code < 0 else code}); out of memory, perhaps"
    return None if answer is None else str(answer)


def _start(number: int, folder: Path, work: Callable[[Path, Planned], str]) -> Worker:
    ours, theirs = _PROCESSES.Pipe()
    process = _PROCESSES.Process(target=_serve, args=(theirs, number, folder, work), daemon=True)
    process.start()
    theirs.close()
    return Worker(process, ours)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _serve(connection: Connection, number: int, folder: Path, work: Callable[[Path, Planned], str]) -> None:
    """A worker's life: a run, its outcome, the next one."""
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if torch.cuda.device_count() > 1:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        gpus: list[Any] = seen if seen != [""] else list(range(torch.cuda.device_count()))
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpus[number % len(gpus)])
    with shared_cache():
        _work_off(connection, folder, work)


def _work_off(connection: Connection, folder: Path, work: Callable[[Path, Planned], str]) -> None:
    """Run after run, until there comes none."""
    while True:
        try:
            run: Planned = connection.recv()
        except EOFError:
            return
        try:
            connection.send(work(folder, run))
        except Interrupted:
            connection.send(None)
        except Exception as error:  # as text: not every exception can be sent
            connection.send(failure_of(error))
