"""Execute runs in several processes; each process works on one run at a time.

Each worker is in its own session, so Ctrl-C reaches only the parent, which terminates its workers. A worker ends when
its parent ends, for any reason. With several GPUs, each worker uses one.

On Windows there are no sessions, so workers ignore Ctrl-C; and a terminated process cannot save its state, so its run
resumes from the last checkpoint.
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
from minilm.studies.execution import failure_of
from minilm.studies.plan import PlannedRun
from minilm.training.console import Interrupted, recorded_signals

# A fork of this process would share its threads and CUDA. On Linux, a server process that has imported torch forks all
# workers; on other systems, the libraries that torch uses do not support fork.
_PROCESSES: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
if sys.platform == "linux":
    _PROCESSES.set_forkserver_preload(["minilm.studies.execution"])


@dataclass
class Worker:
    """A process, and the run that it is working on."""

    process: BaseProcess
    connection: Connection
    run: PlannedRun | None = None


def in_processes(
    number: int,
    folder: Path,
    next_run: Callable[[], PlannedRun | None],
    done: Callable[[PlannedRun, str], None],
    work: Callable[[Path, PlannedRun], str],
) -> None:
    """Work on runs with ``number`` processes until none is left.

    Args:
        next_run: returns the next run that can start; None if there is none at the moment.
        done: called for each run that has ended, with the reason if it failed, or an empty string.
        work: executes a run in a worker; it returns the reason if the run failed. An exception is a failure too.

    Raises:
        Interrupted: SIGINT or SIGTERM was received; the workers have saved the states of their runs.
    """
    workers = [_start(i, folder, work) for i in range(number)]
    try:
        with recorded_signals() as signals:
            stopping = False
            while True:
                for worker in workers:
                    if worker.run is None and not signals and (run := next_run()) is not None:
                        worker.run = run
                        worker.connection.send(run)
                busy = [worker for worker in workers if worker.run is not None]
                if not busy:
                    break
                if signals and not stopping:
                    stopping = True
                    for worker in busy:
                        worker.process.terminate()
                for connection in wait([worker.connection for worker in busy], timeout=0.2):
                    i = next(i for i, worker in enumerate(workers) if worker.connection is connection)
                    run, failure = workers[i].run, _received(workers[i], stopping)
                    workers[i].run = None
                    if not workers[i].process.is_alive() and not signals:
                        workers[i] = _start(i, folder, work)
                    if run is not None and failure is not None:
                        done(run, failure)
            if signals:
                raise Interrupted(signals[0], folder)
    finally:
        for worker in workers:
            worker.connection.close()  # an idle worker then ends
        for worker in workers:
            if worker.run is None:
                worker.process.join(timeout=5)
            worker.process.kill()
            worker.process.join()


def _received(worker: Worker, stopping: bool) -> str | None:
    """The reason why a worker's run failed; None if it was interrupted. ``stopping``: workers have been terminated."""
    try:
        answer = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        code = worker.process.exitcode or 0
        if stopping:  # it ended before there was anything to save
            return None
        return f"its process ended ({signal.Signals(-code).name if code < 0 else code}); perhaps it ran out of memory"
    return None if answer is None else str(answer)


def _start(number: int, folder: Path, work: Callable[[Path, PlannedRun], str]) -> Worker:
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


def _serve(connection: Connection, number: int, folder: Path, work: Callable[[Path, PlannedRun], str]) -> None:
    """The loop of a worker process: receive a run, execute it, send the outcome, until there are no more runs."""
    if hasattr(os, "setsid"):
        os.setsid()
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if torch.cuda.device_count() > 1:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        gpus: list[Any] = seen if seen != [""] else list(range(torch.cuda.device_count()))
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpus[number % len(gpus)])
    with shared_cache():
        _serve_runs(connection, folder, work)


def _serve_runs(connection: Connection, folder: Path, work: Callable[[Path, PlannedRun], str]) -> None:
    """Execute runs until the connection is closed."""
    while True:
        try:
            run: PlannedRun = connection.recv()
        except EOFError:
            return
        try:
            connection.send(work(folder, run))
        except Interrupted:
            connection.send(None)
        except Exception as error:  # as text: not every exception can be sent
            connection.send(failure_of(error))
