"""One run of a study, brought to its end: from the start, or from where it stopped."""

from __future__ import annotations

import contextlib
import shutil
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from minilm.checkpoints.atomic import atomic
from minilm.checkpoints.files import write_json
from minilm.errors import UserError
from minilm.loading import dump_config, load_config
from minilm.reporting.record import relative_path
from minilm.runs.folders import first_difference, is_run
from minilm.runs.train import finalize, train_run
from minilm.studies.active import choose_rows
from minilm.studies.config import Planned
from minilm.textfiles import read_json
from minilm.training.console import Interrupted

BUSY = "another process is at it"  # no failure of the run's


def state_of(folder: Path, run: Planned) -> str:
    """ "finished", "interrupted" or "to do". Raises UserError where the folder holds a run with other settings."""
    place = folder / run.name
    if not is_run(place):
        return "to do"
    if other := first_difference(load_config(place / "config.toml"), run.config):
        raise UserError(
            f"{relative_path(place)}: was run with {other}; move that folder away to run it anew, or name this study "
            "otherwise"
        )
    return "finished" if (place / "results.json").exists() else "interrupted"


def is_closed(place: Path) -> bool:
    """Whether a finished run has its report, and has let its checkpoints go; a kill may come before that."""
    return (place / "report.md").exists() and not (place / "checkpoints").exists()


def bring_to_end(folder: Path, run: Planned) -> str:
    """Train a run as planned; return why it failed, as ``failure_of`` tells it, or nothing.

    Whatever goes wrong is the run's alone: others go on. What it says is kept in a file under ``logs/``.

    Raises minilm.training.loop.Interrupted where a signal ended it; the next call goes on.
    """
    log = folder / "logs" / f"{run.name}.log"
    with locked(folder / "logs" / f"{run.name}.lock") as mine:
        if not mine:
            return BUSY
        with kept_quiet(log):
            try:
                _work_at(folder, run)
            except Interrupted:
                raise
            except Exception as error:
                failure = failure_of(error, f"; its traceback is in {relative_path(log)}")
                print(f"Error: {failure}")
                return failure
    return ""


def _work_at(folder: Path, run: Planned) -> None:
    """The run itself. The rows of a round of active learning are chosen first."""
    place, config = folder / run.name, folder / "configs" / f"{run.name}.toml"
    state = state_of(folder, run)
    if state == "finished":
        finalize(place)
        return
    if state == "to do":
        remove_beginnings(place)
        with atomic(config) as file:
            file.write(dump_config(run.config).encode())
        if run.choice is not None:
            choose_rows(folder, run)
    else:
        config = place / "config.toml"
    train_run(config, runs=folder, resume=state == "interrupted")


def failure_of(error: Exception, more: str = "") -> str:
    """What went wrong in a line; where that is neither the user's nor for want of a GPU's memory, ``more``, and the
    traceback below."""
    if isinstance(error, UserError | torch.OutOfMemoryError):
        return " ".join(str(error).split())
    said = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
    return f"{said}{more}\n{''.join(traceback.format_exception(error)).rstrip()}"


def note(folder: Path, run: Planned, **said: Any) -> None:
    """Keep what a study knows of a run, in place of what it knew: ``jobs``, as many runs went on at once; ``failed``,
    why it did."""
    write_json(folder / "logs" / f"{run.name}.json", said)


def noted(folder: Path, run: Planned) -> dict[str, Any]:
    """What was kept of a run; nothing of one that was never begun."""
    path = folder / "logs" / f"{run.name}.json"
    return read_json(path) if path.exists() else {}


def remove_beginnings(place: Path) -> None:
    """Remove a folder whose run was killed before its config was written; what else it may hold is left alone."""
    if not place.exists():
        return
    if not all(entry.name == "environment.json" or entry.name.endswith(".tmp") for entry in place.iterdir()):
        raise UserError(f"{relative_path(place)}: is in the way, and no run's folder; move it away")
    shutil.rmtree(place)


@contextlib.contextmanager
def kept_quiet(log: Path) -> Iterator[None]:
    """What is printed goes to the end of a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a", encoding="utf-8", buffering=1) as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process alone works under the lock, which ends with the process at the latest.

    wait: until it does.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
