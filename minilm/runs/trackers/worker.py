"""The process of one tracker: ``python -m minilm.runs.trackers.worker wandb``.

It reads messages, one JSON object per line, from standard input, and answers each with a line: ``{}``, or
``{"error": "..."}``, after which it ends. When the input ends, as it also does if the training process is killed, the
tracker is closed.

    {"start": {"name", "folder", "group", "config"}}
    {"log": {"stage": "" or "adaptation/", "entries": [[step, {name: value}], ...]}}
    {"finish": {"step": 18, "metrics": {name: value}, "figures": [path, ...]}}

``RUN/trackers/NAME.json`` stores the tracker's id of the run, and which steps it has. So a resumed run continues there,
and what it repeats is not logged twice.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from minilm.checkpoints.atomic import atomic
from minilm.locking import locked
from minilm.runs.trackers.protocol import TrackedRun, Tracker
from minilm.schema import JSON, read_table
from minilm.textfiles import read_json

CLASSES = {"tensorboard": "TensorBoard", "wandb": "WeightsAndBiases", "mlflow": "MLflow"}  # module -> its class


@dataclass(frozen=True)
class TrackerState:
    """What a tracker has of a run."""

    id: str = ""  # of the run, as the tracker calls it; "": it has not started
    steps: dict[str, int] = field(default_factory=dict)  # stage -> the last step that was logged
    finished: bool = False  # whether the final metrics were logged


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
        self.tracker: Tracker = getattr(importlib.import_module(f"minilm.runs.trackers.{name}"), CLASSES[name])()
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

    def _start(self, name: str, folder: str, group: str, config: dict[str, Any]) -> None:
        self.folder = Path(folder)
        # The worker of an interrupted run may still be sending.
        self.open.enter_context(locked(state_path(self.folder, self.name).with_suffix(".lock"), wait=True))
        before = read_state(self.folder, self.name)
        self.state = replace(before, id=self.tracker.start(TrackedRun(name, self.folder, group, config), before.id))
        self.started = True
        self._store()

    def _log(self, stage: str, entries: list[tuple[int, dict[str, float]]]) -> None:
        for step, values in entries:
            if step > self.state.steps.get(stage, -1):
                with self._stored_before(replace(self.state, steps={**self.state.steps, stage: step})):
                    self.tracker.log(step, values, stage)

    def _finish(self, step: int, metrics: dict[str, float], figures: list[str]) -> None:
        if not self.state.finished:
            with self._stored_before(replace(self.state, finished=True)):
                self.tracker.finish(step, metrics, [Path(figure) for figure in figures])
        self.finished = True

    @contextlib.contextmanager
    def _stored_before(self, state: TrackerState) -> Iterator[None]:
        """Store a state before it is reached, so that a kill in between cannot cause something to be logged twice. If
        the tracker fails, the state before is stored again."""
        before, self.state = self.state, state
        self._store()
        try:
            yield
        except BaseException:
            self.state = before
            self._store()
            raise

    def _store(self) -> None:
        with atomic(state_path(self.folder, self.name)) as file:
            file.write(json.dumps(asdict(self.state)).encode())


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
