"""What a study's page says: one function for each kind of question.

An analysis gets the study and its finished runs, writes its pictures into a folder, and returns the answer (two
sentences that the numbers make) with the sections of the page below it. To add one, write such a function and name it
in ANALYSES; what its runs must have, as far as the plan tells, belongs into NEEDS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minilm.errors import UserError, nearest
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

# What an analysis needs of a plan, and how that is said where it is not so.
NEEDS: dict[str, tuple[Callable[[Study], bool], str]] = {
    "active": (lambda study: study.config.active is not None, "a section [active]"),
    "augmentation": (
        lambda study: {bool(run.config.augment and run.config.augment.ratio) for run in study.runs} == {True, False},
        "runs with augment.ratio above 0, and runs without [augment]",
    ),
    "few-shot": (
        lambda study: any(run.config.data.shots for run in study.runs),
        "runs with data.shots above 0, best as an axis: [axes] data.shots",
    ),
    "freezing": (
        lambda study: _trains_differently(study) and not any(run.config.zero_shot for run in study.runs),
        "runs with different [freeze] or [lora], and none with a section [zero_shot]",
    ),
    "scaling": (
        lambda study: study.config.metric not in ("mcc", "loss"),
        "a metric whose best is 1, such as metric=accuracy",
    ),
    "sweep": (
        lambda study: all(len(run.point.keys() - {"seed"}) in (1, 2) for run in study.runs),
        "one axis or two beside the seed for each of its runs",
    ),
    "zero-shot": (
        lambda study: any(run.config.zero_shot is not None for run in study.runs),
        "runs with a section [zero_shot]",
    ),
}
WITH_PERPLEXITY = ("compare", "seeds")  # analyses that also compare what language models have learned


def _trains_differently(study: Study) -> bool:
    """Whether the classifiers of a plan differ in which of their parameters train."""
    return len({(repr(run.config.freeze), repr(run.config.lora)) for run in study.runs if run.config.train}) > 1


def check_plan(study: Study) -> None:
    """Raises UserError where the runs to come cannot answer the question, whatever they reach."""
    analysis, metric = study.config.analysis, study.config.metric
    if analysis not in ANALYSES:
        raise UserError(f'no analysis "{analysis}"{nearest(analysis, ANALYSES)}; there are: {", ".join(ANALYSES)}')
    fits, needed = NEEDS.get(analysis, (lambda study: True, ""))
    if not fits(study):
        raise UserError(f"{study.path}: the analysis {analysis} needs {needed}")
    adapts = any(run.config.adapt is not None for run in study.runs)
    if metric == "perplexity" and not (adapts and analysis in WITH_PERPLEXITY):
        raise UserError(
            f"{study.path}: perplexity is of runs with a section [adapt], and compared by the analyses "
            f"{' and '.join(WITH_PERPLEXITY)}; name another metric, such as metric=accuracy"
        )
    if metric != "perplexity" and not any(run.config.train or run.config.zero_shot for run in study.runs):
        raise UserError(f"{study.path}: its runs only adapt, so no test texts are classified; use metric=perplexity")
