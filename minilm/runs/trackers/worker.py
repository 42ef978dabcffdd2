"""The process of one tracker: ``python -m minilm.runs.trackers.worker wandb``.

It reads messages, one JSON object per line, from standard input, and answers each with a line: ``{}``, or
``{"error": "..."}``, after which it ends. When the input ends, as it also does if the training process is killed, the
tracker is closed.

    {"start": {"name", "folder", "group", "config"}}
    {"log": {"stage": "" or "adaptation/", "entries": [[step, {name: value}], ...]}}
    {"finish": {"step": 18, "metrics": {name: value}, "figures": [path, ...]}}

``RUN/trackers/NAME.json`` stores the tracker's id of the run, and which steps were handed over to it. So a resumed run
continues there, and what it repeats is not logged twice. A step is stored after it was handed over, and ``finished``
after the tracker was closed: a kill in between repeats one of them, and loses none.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from minilm.atomic import atomic
from minilm.errors import UserError
from minilm.locking import locked
from minilm.runs.trackers.protocol import TrackedRun, Tracker
from minilm.schema import JSON, read_table
from minilm.textfiles import read_json

CLASSES = {"tensorboard": "TensorBoard", "wandb": "WeightsAndBiases", "mlflow": "MLflow"}  # module -> its class
# The longest wait for the process of an earlier attempt, and the time between two looks. A run that ends waits longer
# for its trackers (``processes.FINISH_SECONDS``), so the error is shown.
LOCK_SECONDS, LOCK_PAUSE = 45.0, 0.1


@dataclass(frozen=True)
class TrackerState:
    """What a tracker has of a run."""

    id: str = ""  # of the run, as the tracker calls it; "": it has not started
    steps: dict[str, int] = field(default_factory=dict)  # stage -> the last step that was logged
    finished: bool = False  # whether it was closed after the final metrics were logged
    group: str = ""  # the study that the run belongs to; "": none


def state_path(folder: Path, name: str) -> Path:
    """The file with the state of a tracker, in a run's folder."""
    return folder / "trackers" / f"{name}.json"


def read_state(folder: Path, name: str) -> TrackerState:
    """Read the state of a tracker. Raises UserError if its file was edited."""
    path = state_path(folder, name)
    if not path.exists():
        return TrackerState()
    return read_table(TrackerState, read_json(path), lambda key: str(path), syntax=JSON)


class Worker:
    """Carries out the messages, and stores the state after each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started = self.finished = False
        self.open = contextlib.ExitStack()

    def handle(self, message: dict[str, Any]) -> None:
        """Carry out one message."""
        [(verb, content)] = message.items()
        verbs: dict[str, Callable[..., None]] = {"start": self._start, "log": self._log, "finish": self._finish}
        verbs[verb](**content)

    def close(self) -> None:
        """Close the tracker, if it has started."""
        with self.open:
            if self.started:
                self.tracker.close(self.finished)
                if self.finished:
                    self._store(replace(self.state, finished=True))

    def _start(self, name: str, folder: str, group: str, config: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self._lock()
        before = read_state(self.folder, self.name)
        # Before anything can fail: a run that is sent later belongs to the same study.
        self._store(replace(before, group=group or before.group))
        module = importlib.import_module(f"minilm.runs.trackers.{self.name}")
        self.tracker: Tracker = getattr(module, CLASSES[self.name])()
        id = self.tracker.start(TrackedRun(name, self.folder, self.state.group, config), before.id)
        self._store(replace(self.state, id=id))
        self.started = True

    def _lock(self) -> None:
        """Exclude the process of an earlier attempt, which may still be sending.

        Raises UserError if it has not ended after ``LOCK_SECONDS``.
        """
        path, until = state_path(self.folder, self.name).with_suffix(".lock"), time.monotonic() + LOCK_SECONDS
        while True:
            with contextlib.ExitStack() as attempt:
                lock = attempt.enter_context(locked(path))
                if not lock.holder:
                    self.open.push(attempt.pop_all())
                    return
            if time.monotonic() > until:
                raise UserError(f"an earlier attempt is still sending; end it, then resume the run: {lock.holder}")
            time.sleep(LOCK_PAUSE)

    def _log(self, stage: str, entries: list[tuple[int, dict[str, float]]]) -> None:
        for step, values in entries:
            if step > self.state.steps.get(stage, -1):
                self.tracker.log(step, values, stage)
                self._store(replace(self.state, steps={**self.state.steps, stage: step}))

    def _finish(self, step: int, metrics: dict[str, float], figures: list[str]) -> None:
        if not self.state.finished:
            self.tracker.finish(step, metrics, [Path(figure) for figure in figures])
        self.finished = True

    def _store(self, state: TrackerState) -> None:
        self.state = state
        with atomic(state_path(self.folder, self.name)) as file:
            file.write(json.dumps(asdict(state)).encode())


def serve(name: str, messages: IO[str], answers: IO[str]) -> None:
    """Carry out all messages; stop at the first error."""
    worker = None
    try:
        for line in messages:
            worker = worker or Worker(name)
            worker.handle(json.loads(line))
            print("{}", file=answers, flush=True)
        if worker is not None:
            worker.close()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        text = " ".join(str(error).split()) or type(error).__name__
        print(json.dumps({"error": text}), file=answers, flush=True)


def main() -> None:
    """Serve with the answers on standard output; whatever the tracker prints is redirected to standard error."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        with open(sys.stdin.fileno(), encoding="utf-8", closefd=False) as messages:
            serve(sys.argv[1], messages, answers)


if __name__ == "__main__":
    main()
