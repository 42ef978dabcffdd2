"""Start the trackers of a run (``train.log_to``), and send them what ``metrics.jsonl`` gets.

Training only puts messages into a queue. A thread sends them to the tracker's process (``worker.py``) and waits for its
answers. So a tracker that hangs, fails or crashes costs training no time; a line on the terminal reports it once. Only
at the end of a run there is a wait, of at most ``FINISH_SECONDS``, for what is still being sent.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from minilm.config import RunConfig, TrackerName
from minilm.errors import UserError
from minilm.hints import install
from minilm.reporting.results import Evaluation, Results, read_history, read_record
from minilm.runs.folders import write_history
from minilm.runs.trackers.worker import read_state, state_path
from minilm.schema import as_table, flat
from minilm.training.console import say
from minilm.world import is_first

FINISH_SECONDS, STOP_SECONDS = 60.0, 10.0  # the longest wait after a run has finished, and after it was stopped
QUIET_SECONDS = 3.0  # a longer wait is announced
LONGEST_ERROR = 200  # characters of a tracker's error that are shown
# Unless the environment asks for them: no messages about their users to the makers of the trackers, and nothing of the
# machine that a run does not need (W&B's package collects its name, the command, and the address of git's remote).
PRIVATE = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_HOST": "",
    "WANDB_DISABLE_GIT": "true",
    "WANDB__DISABLE_META": "true",
}


def tracker_names(config: RunConfig) -> list[TrackerName]:
    """The trackers of a run."""
    settings = config.train or (config.adapt.train if config.adapt else None)
    return list(dict.fromkeys(settings.log_to)) if settings else []


def check_trackers(config: RunConfig) -> None:
    """Raise UserError if the package of a tracker is not installed."""
    for name in tracker_names(config):
        spec = sys.modules[name].__spec__ if name in sys.modules else importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # without an origin, it is only a folder of this name
            raise UserError(f'log_to: "{name}" needs a package; to install it: {install(name)}')


class Trackers:
    """The trackers of one run, for use in ``with``: leaving it before ``finish`` marks the run as stopped."""

    def __init__(self, config: RunConfig, folder: Path, group: str = "") -> None:
        start = {"name": folder.name, "folder": str(folder.resolve()), "group": group, "config": asdict(config)}
        self.folder = folder
        self.processes = [TrackerProcess(folder, name, start) for name in tracker_names(config) if is_first()]
        self.sent: dict[str, int] = {}  # stage -> how many evaluations were sent

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        until = time.monotonic() + (FINISH_SECONDS if kind is None else STOP_SECONDS)
        for process in self.processes:
            process.queue.put(None)
        for process in self.processes:
            process.end(until)

    def record(self, place: Path, history: Sequence[Evaluation]) -> None:
        """Write all evaluations so far to ``place/metrics.jsonl``, and send the new ones. ``place``: the run's folder,
        or ``adaptation`` in it."""
        write_history(place, list(history))
        stage = "" if place == self.folder else f"{place.name}/"
        entries = [values_of(entry) for entry in history[self.sent.get(stage, 0) :]]
        self.sent[stage] = len(history)
        if entries:
            self._send({"log": {"stage": stage, "entries": entries}})

    def finish(self) -> None:
        """Send the final metrics, in ``results.json``, and the figures."""
        if self.processes:
            results = read_record(Results, self.folder / "results.json")
            step = results.best.step if results.best else results.adaptation.steps if results.adaptation else 0
            figures = [str(path.resolve()) for path in sorted((self.folder / "figures").glob("*.png"))]
            self._send({"finish": {"step": step, "metrics": final_values(results), "figures": figures}})

    def _send(self, message: Mapping[str, Any]) -> None:
        for process in self.processes:
            process.queue.put(message)


def finish_again(config: RunConfig, folder: Path, group: str = "") -> None:
    """Send a finished run to the trackers that do not have all of it, as they failed or the run was killed.

    group: the study that the run belongs to; if empty, the one that it was first sent with.
    """
    names = tracker_names(config)
    if all(read_state(folder, name).finished for name in names):
        return
    with Trackers(config, folder, group) as trackers:
        for place in (folder / "adaptation", folder):
            if history := read_history(place):
                trackers.record(place, history)
        trackers.finish()


def values_of(entry: Evaluation) -> tuple[int, dict[str, float]]:
    """The step of an evaluation, and its numbers as trackers name them: "train_loss", "validation/macro_f1"."""
    values = {key.replace(".", "/"): value for key, value in flat(as_table(entry)).items()}
    return values.pop("step"), values


def final_values(results: Results) -> dict[str, float]:
    """The final metrics: "final/test/macro_f1", and "final/perplexity" after an adaptation."""
    found: dict[str, float] = {}
    for split in ("validation", "test"):
        metrics = results.metrics(split)
        table = {} if metrics is None else as_table(metrics.brief())
        found |= {f"final/{split}/{name}": value for name, value in table.items()}
    if results.adaptation is not None:
        found["final/perplexity"] = results.adaptation.perplexity.after
    return found


class TrackerProcess:
    """The process of one tracker, and the thread that talks to it."""

    def __init__(self, folder: Path, name: str, start: Mapping[str, Any]) -> None:
        self.folder, self.name = folder, name
        self.queue: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()  # None: the end
        self.process: subprocess.Popen[str] | None = None
        self.given_up = False
        self.queue.put({"start": start})
        self.thread = threading.Thread(target=self._serve, name=f"tracker {name}", daemon=True)
        self.thread.start()

    def end(self, until: float) -> None:
        """Wait until everything is sent, but not longer than ``until`` on the clock ``time.monotonic``."""
        self.thread.join(max(0.0, min(QUIET_SECONDS, until - time.monotonic())))
        seconds = until - time.monotonic()
        if self.thread.is_alive() and seconds > 1:
            say(f"{self.folder}: waits for {self.name}, at most {seconds:.0f} s")
        self.thread.join(max(0.0, seconds))
        if self.thread.is_alive():
            self._give_up("does not answer")
            if self.process is not None:
                self.process.kill()

    def _serve(self) -> None:
        output = state_path(self.folder, self.name).with_suffix(".log")
        try:
            output.parent.mkdir(exist_ok=True)
            with output.open("ab") as log:
                self.process = start_worker(self.name, log)
            with self.process:  # at the end, its input is closed, and it is waited for
                for message in iter(self.queue.get, None):
                    if not self._is_answered(message):
                        self.process.kill()
                        return
                assert self.process.stdin is not None
                self.process.stdin.close()
                self._is_answered(None)
            if self.process.returncode:  # it was killed while it closed the tracker
                self._give_up("its process has ended")
        except OSError as error:  # a full disk, or the process has ended
            self._give_up(error.strerror or str(error))

    def _is_answered(self, message: Mapping[str, Any] | None) -> bool:
        """Send a message, or none, and read the answer; report an error."""
        process = self.process
        assert process is not None and process.stdin is not None and process.stdout is not None
        if message is not None:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        if error := json.loads(answer).get("error") if answer else "its process has ended" if message else "":
            self._give_up(error)
        return not error

    def _give_up(self, error: str) -> None:
        """Report once that a tracker has failed."""
        if not self.given_up:
            self.given_up = True
            error = error if len(error) <= LONGEST_ERROR else error[:LONGEST_ERROR] + "..."
            log = state_path(self.folder, self.name).with_suffix(".log")
            say(f"{self.folder}: warning: {self.name}: {error}; the run continues without it (details: {log})")


def start_worker(name: str, log: Any) -> subprocess.Popen[str]:
    """Start a tracker's process, with its errors in ``log``. Ctrl-C does not reach it."""
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
    package = str(Path(__file__).parents[3])  # so that it imports this minilm
    # Nothing comes from the current folder, which ``python -m`` puts first: there, secrets.py may be the user's.
    inherited = sys.path[1:] if sys.path[:1] == [os.getcwd()] and not sys.flags.safe_path else sys.path
    paths = [package, *(path for path in inherited if path and path != package)]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "minilm.runs.trackers.worker", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        encoding="utf-8",
        env={**PRIVATE, **os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # ignored on Windows
        creationflags=flags,
    )
