"""What a tracker is given, and what it must do.

A tracker may raise any exception: its worker then reports it, and the run continues without the tracker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PROJECT = "minilm"  # W&B's project and MLflow's experiment, unless the environment names another


@dataclass(frozen=True)
class TrackedRun:
    """A run, as a tracker shows it."""

    name: str
    folder: Path  # of the run, absolute
    group: str  # the study that the run belongs to; "": none
    config: dict[str, Any]  # all settings as nested tables

    @property
    def place(self) -> Path:
        """The folder for a tracker's own files."""
        return self.folder / "trackers"

    @property
    def link(self) -> str:
        """The address of the run's folder."""
        return self.folder.as_uri()


class Tracker(Protocol):
    """One run on one tracker. ``start`` is called first, then ``log`` any number of times, then ``finish`` if the run
    has finished, and ``close`` in any case."""

    def start(self, run: TrackedRun, id: str) -> str:
        """Open the tracker's run with this id, or a new one if it is empty; return the id."""

    def log(self, step: int, values: Mapping[str, float], stage: str) -> None:
        """Log one evaluation. ``stage``: a prefix of the names, with its own count of steps: "adaptation/" or ""."""

    def finish(self, step: int, metrics: Mapping[str, float], figures: Sequence[Path]) -> None:
        """Log the final metrics, which belong to the model of ``step``, and the figures (PNG)."""

    def close(self, finished: bool) -> None:
        """Send what is left, and end. ``finished``: false if the run was interrupted or has failed."""
