"""The plan of active learning: with ``[active]`` in a study's file each of its runs becomes a tree of rounds.

    [active]
    rules = ["random", "entropy"]
    labels = [20, 100, 500]           # by the end of each round
    noise = [0, 0.2]                  # share of the labels that are wrong; each is run

                    random 100 --- random 500
    start 20  <
                    entropy 100 --- entropy 500

A round is an ordinary run that waits for the one before, whose model chooses its rows (``minilm.studies.active``). The
pool is the run's training rows; which of them a round is trained on stands in a file that its ``data.rows`` names.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from minilm.config import Rate, Size
from minilm.errors import UserError, nearest
from minilm.loading import folder_name, short_hash
from minilm.schema import Place, shown
from minilm.studies.selection import RULES

if TYPE_CHECKING:
    from minilm.studies.config import Planned

START = "start"  # the rule of the first round, which all others share: at random


@dataclass(frozen=True)
class ActiveSection:
    """``[active]``: runs are trained in rounds, on rows that the model of the round before chose."""

    rules: list[str]  # who chooses (see ``minilm.studies.selection``); each starts from the same rows
    labels: list[Size]  # rows that are labelled by each round, more and more; the first are drawn at random
    noise: Rate | list[Rate] = 0.0  # share of the labels that are wrong; of several, each is run

    @property
    def noises(self) -> list[float]:
        """The shares, however many."""
        return self.noise if isinstance(self.noise, list) else [self.noise]


@dataclass(frozen=True)
class Choice:
    """How the rows of a round are chosen, just before it starts."""

    rule: str
    labels: int  # rows that are labelled by then
    noise: float = 0.0
    most: int = 0  # ... and by the last round


def check_active(section: ActiveSection, place: Place) -> None:
    """Raises UserError where a rule is unknown, or the numbers do not grow. ``place``: where a key was written."""
    there = f"there are: {', '.join(RULES)}"
    if unknown := next((rule for rule in section.rules if rule not in RULES), None):
        raise UserError(f'{place("active.rules")}: active.rules: no rule "{unknown}"{nearest(unknown, RULES)}; {there}')
    if not section.rules:
        raise UserError(f"{place('active.rules')}: active.rules must name at least one rule; {there}")
    if len(section.labels) < 2 or any(b <= a for a, b in itertools.pairwise(section.labels)):
        wanted = "two numbers or more that grow from round to round"
        raise UserError(f"{place('active.labels')}: active.labels must be {wanted}, got {shown(section.labels)}")
    if not section.noises:
        raise UserError(f"{place('active.noise')}: active.noise must hold at least one value")


def rounds_of(run: Planned, section: ActiveSection, folder: Path) -> Iterator[Planned]:
    """A run's rounds, each after the one whose model chooses its rows. ``folder``: of the study."""

    def planned(rule: str, labels: Sequence[int], noise: float, after: str) -> Planned:
        wrong = {"noise": noise} if noise else {}
        # With the numbers of all rounds till then: with others in between, other rows would have been chosen.
        name = f"{run.name}_{rule}_labels-{_joined(labels)}" + (f"_noise-{noise:g}" if wrong else "")
        name = folder_name(name)
        point = run.point | {"rule": rule, "labels": labels[-1]} | wrong
        data = replace(run.config.data, rows=str(rows_file(folder, name)))
        config = replace(run.config, name=name, data=data)
        choice = Choice(rule, labels[-1], noise, section.labels[-1])
        return replace(run, name=name, point=point, config=config, after=after, choice=choice)

    for noise in section.noises:
        start = planned(START, section.labels[:1], noise, run.after)
        yield start
        for rule in section.rules:
            before = start
            for rounds in range(2, len(section.labels) + 1):
                before = planned(rule, section.labels[:rounds], noise, before.name)
                yield before


def _joined(labels: Sequence[int]) -> str:
    """``20-100-500``; of very many rounds the last, and a hash."""
    text = "-".join(map(str, labels))
    return text if len(text) <= 60 else f"{labels[-1]}-{short_hash(text)}"


def rows_file(folder: Path, name: str) -> Path:
    """Where a round's rows are named, wherever the study is gone on with from."""
    return folder.resolve() / "configs" / f"{name}.rows.txt"
