"""One run of a study, brought to its end: from the start, or from where it stopped."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from minilm.checkpoints.atomic import atomic
from minilm.config import dump_config, load_config
from minilm.errors import UserError
from minilm.reporting.record import shown
from minilm.reporting.report import write_report
from minilm.runs.folders import first_difference, is_run
from minilm.runs.train import train_run
from minilm.studies.active import choose_rows
from minilm.studies.config import Planned


def state_of(folder: Path, run: Planned) -> str:
    """ "finished", "interrupted" or "to do". Raises UserError where the folder holds a run with other settings."""
    place = folder / run.name
    if not is_run(place):
        return "to do"
    if other := first_difference(load_config(place / "config.toml"), run.config):
        raise UserError(
            f"{shown(place)}: was run with {other}; move that folder away to run it anew, or name this study otherwise"
        )
    return "finished" if (place / "results.json").exists() else "interrupted"


def bring_to_end(folder: Path, run: Planned) -> str:
    """Train a run as planned; return why it failed, or nothing. What it says is kept in a file under ``logs/``.

    The rows of a round of active learning are chosen first.

    Raises minilm.training.loop.Interrupted where a signal ended it; the next call goes on.
    """
    place, config = folder / run.name, folder / "configs" / f"{run.name}.toml"
    with locked(folder / "logs" / f"{run.name}.lock") as mine:
        if not mine:
            return "another process is at it"
        state = state_of(folder, run)
        if state == "finished":
            if not (place / "report.md").exists():  # a kill came between the two
                write_report(place)
            return ""
        if state == "to do":
            remove_beginnings(place)
            with atomic(config) as file:
                file.write(dump_config(run.config).encode())
        else:
            config = place / "config.toml"
        with kept_quiet(folder / "logs" / f"{run.name}.log"):
            try:
                if state == "to do" and run.choice is not None:
                    choose_rows(folder, run)
                train_run(config, runs=folder, resume=state == "interrupted")
            except (UserError, torch.OutOfMemoryError) as error:
                print(f"Error: {error}")
                return " ".join(str(error).split())
    return ""


def remove_beginnings(place: Path) -> None:
    """Remove a folder whose run was killed before its config was written; what else it may hold is left alone."""
    if not place.exists():
        return
    if not all(entry.name == "environment.json" or entry.name.endswith(".tmp") for entry in place.iterdir()):
        raise UserError(f"{shown(place)}: is in the way, and no run's folder; move it away")
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
def locked(path: Path) -> Iterator[bool]:
    """Whether this process alone works under the lock, which ends with the process at the latest."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
