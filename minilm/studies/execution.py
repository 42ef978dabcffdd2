"""Execute one run of a study, from its start or from an interruption."""

from __future__ import annotations

import contextlib
import textwrap
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from minilm.atomic import atomic
from minilm.checkpoints.files import write_json
from minilm.errors import UserError
from minilm.loading import dump_config, load_config
from minilm.locking import locked
from minilm.measures import Measured, Number
from minilm.reporting.record import relative_path
from minilm.runs.conclude import finalize
from minilm.runs.folders import first_difference, is_run
from minilm.runs.train import train_run
from minilm.schema import JSON, read_table
from minilm.studies.labelling import choose_rows
from minilm.studies.plan import PlannedRun
from minilm.textfiles import read_json
from minilm.training.console import Interrupted

BUSY = "another process is running it"  # not a failure of the run


@dataclass(frozen=True)
class RunNote:
    """A study's note on a run, in ``logs/RUN.json``."""

    jobs: Number = 1  # runs that ran at the same time
    failed: str = ""  # why the last attempt failed
    seconds: Measured = 0.0  # from the start of the run to its end, all attempts together that were not killed


def state_of(folder: Path, run: PlannedRun) -> str:
    """ "finished", "interrupted" or "to do". Raises UserError if the folder contains a run with other settings."""
    place = folder / run.name
    if not is_run(place):
        return "to do"
    if other := first_difference(load_config(place / "config.toml"), run.config):
        raise UserError(
            f"{relative_path(place)}: this run was started with {other}; move the folder away to run it again, or "
            "rename the study"
        )
    return "finished" if (place / "results.json").exists() else "interrupted"


def is_closed(place: Path) -> bool:
    """Whether a finished run has its report and has removed its checkpoints. A kill may come before that."""
    return (place / "report.html").exists() and not (place / "checkpoints").exists()


def run_to_end(folder: Path, run: PlannedRun) -> str:
    """Train a run as planned. Return the reason if it failed, from ``failure_of``, or an empty string.

    If a run fails, the others continue. The run's output is appended to a file in ``logs/``.

    Raises minilm.training.console.Interrupted if a signal stopped the run; the next call resumes it.
    """
    log = folder / "logs" / f"{run.name}.log"
    with locked(folder / "logs" / f"{run.name}.lock") as lock:
        if lock.holder:
            return BUSY
        with output_in(log):
            try:
                _run(folder, run)
            except Interrupted:
                raise
            except Exception as error:
                failure = failure_of(error, f"; its traceback is in {relative_path(log)}")
                print(f"Error: {failure}")
                return failure
    return ""


def _run(folder: Path, run: PlannedRun) -> None:
    """The run itself. Unless only its report was missing, the time that it takes is added to its note."""
    state, started = state_of(folder, run), time.monotonic()
    if state == "finished":
        finalize(folder / run.name)
        return
    try:
        _train(folder, run, state)
    finally:
        note = read_note(folder, run)
        write_note(folder, run, replace(note, seconds=note.seconds + time.monotonic() - started))


def _train(folder: Path, run: PlannedRun, state: str) -> None:
    """Train a run, from its start or an interruption. In active learning, the rows of a round are chosen first."""
    place, config = folder / run.name, folder / "configs" / f"{run.name}.toml"
    if state == "to do":
        if place.exists():
            raise UserError(f"{relative_path(place)}: this folder is not a run's folder; move it away")
        with atomic(config) as file:
            file.write(dump_config(run.config).encode())
        if run.round is not None:
            choose_rows(folder, run)
    else:
        config = place / "config.toml"
    resume = state == "interrupted"  # a run has no pictures: the study's page shows those of all together
    train_run(config, runs=folder, resume=resume, keep_model=run.keep_model, pictures=False, group=folder.name)


def failure_of(error: Exception, hint: str = "") -> str:
    """The error in one line. Unless it is a user error or a lack of GPU memory, ``hint`` and the traceback follow."""
    if isinstance(error, UserError | torch.OutOfMemoryError):
        return " ".join(str(error).split())
    message = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
    return f"{message}{hint}\n{''.join(traceback.format_exception(error)).rstrip()}"


def write_note(folder: Path, run: PlannedRun, note: RunNote) -> None:
    """Write the study's note on a run, replacing the earlier note."""
    write_json(folder / "logs" / f"{run.name}.json", asdict(note))


def read_note(folder: Path, run: PlannedRun) -> RunNote:
    """Read the study's note on a run; the defaults if it was never started. Raises UserError if its file was edited."""
    path = folder / "logs" / f"{run.name}.json"
    if not path.exists():
        return RunNote()
    return read_table(RunNote, read_json(path), lambda key: str(path), syntax=JSON)


@contextlib.contextmanager
def output_in(log: Path) -> Iterator[None]:
    """Append everything that is printed to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a", encoding="utf-8", buffering=1) as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield
