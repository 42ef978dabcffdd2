"""What a study's page says: one function for each kind of question.

An analysis gets the study and its finished runs, writes its pictures into a folder, and returns the answer (two
sentences that the numbers make) with the sections of the page below it. To add one, write such a function and name it
in ANALYSES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minilm.reporting.compare import comparison
from minilm.reporting.groups import Group
from minilm.reporting.page import Section
from minilm.reporting.record import Run
from minilm.studies.config import Planned, Study
from minilm.studies.questions import QUESTIONS


@dataclass(frozen=True)
class Finished:
    """A run of a study with what it has reached."""

    planned: Planned  # its variant, its point on the axes, its config
    run: Run  # its folder, read


Analysis = Callable[[Study, Sequence[Finished], Path], tuple[str, list[Section]]]


def groups_of(runs: Sequence[Finished]) -> list[Group]:
    """Runs at one point of the study but for their seed, together, by the name of that point."""
    together: dict[str, list[Run]] = {}
    for finished in runs:
        together.setdefault(finished.planned.group, []).append(finished.run)
    return [Group(name, tuple(group)) for name, group in together.items()]


def compare(study: Study, runs: Sequence[Finished], figures: Path) -> tuple[str, list[Section]]:
    """Which variant is best, each beside the first: bars, learning curves, tests over the same seeds."""
    return comparison(groups_of(runs), study.config.metric, figures)


ANALYSES: dict[str, Analysis] = {"compare": compare, **QUESTIONS}
