"""The finished runs of a study: each planned run with its results, and groups of runs that differ only in seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minilm.reporting.groups import Group
from minilm.reporting.record import Run
from minilm.studies.plan import PlannedRun


@dataclass(frozen=True)
class FinishedRun:
    """A run of a study with its results."""

    planned: PlannedRun  # its variant, its point on the axes, its config
    run: Run  # what its folder contains

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.planned.config.seed

    def value(self, metric: str, split: str = "test") -> float | None:
        """A metric of the run on a split; None if it was not measured."""
        return self.run.metric(metric, split)

    def baselines(self, metric: str) -> dict[str, float]:
        """A metric of each baseline that was fitted to the run's training texts, on the test texts."""
        measured = {kind: baseline.tested(metric) for kind, baseline in self.run.results.baselines.items()}
        return {kind: value for kind, value in measured.items() if value is not None}

    def size(self, split: str) -> int:
        """How many texts of the data set a split has."""
        return self.run.results.data.sizes[split]

    def point_without(self, *keys: str) -> dict[str, object]:
        """The run's place on all axes but its seed and these."""
        return {key: value for key, value in self.planned.point.items() if key not in ("seed", *keys)}

    def name_without(self, *keys: str) -> str:
        """A name that identifies a run, apart from its seed and its values on these axes."""
        return self.planned.name_without(*keys) or "the model"


def groups_of(runs: Sequence[FinishedRun]) -> list[Group]:
    """Groups of runs that differ only in their seed, named after their variant and their values on the axes."""
    together: dict[str, list[Run]] = {}
    for finished in runs:
        together.setdefault(finished.planned.group, []).append(finished.run)
    return [Group(name, tuple(group)) for name, group in together.items()]
