"""How much of a difference is luck? Several ways to train, each over the same seeds: box plots, times, paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minilm.evaluation.metrics import HIGHER_IS_BETTER
from minilm.evaluation.statistics import mean, t_interval
from minilm.reporting.compare import comparison
from minilm.reporting.groups import Group, costs_of
from minilm.reporting.page import Block, Picture, Section
from minilm.reporting.tables import duration, metric_name

if TYPE_CHECKING:
    from minilm.studies.analyses import Finished
    from minilm.studies.config import Study


def seeds(study: Study, runs: Sequence[Finished], figures: Path) -> tuple[str, list[Section]]:
    """The comparison of all variants, and how their seeds lie: metric and time of each run."""
    from minilm.studies.analyses import groups_of
    from minilm.studies.questions.pictures import boxes

    metric = study.config.metric
    groups = groups_of(runs)
    answer, sections = comparison(groups, metric, figures)
    measured = [group for group in groups if group.values(metric)]
    if not any(len(group.runs) > 1 for group in measured):
        return answer, sections
    parts: list[Block] = [
        Picture(boxes(measured, metric, figures / "boxes.png"), f"{metric_name(metric)} and time of every seed")
    ]
    parts += [said for group in measured[1:] if (said := share_of(measured[0], group, metric))]
    return answer, [Section("How the seeds lie", parts), *sections]


def share_of(first: Group, second: Group, metric: str) -> str:
    """What the second reaches, trains and takes, as shares of the first."""
    mine, base = second.by_seed(metric), first.by_seed(metric)
    shares = [mine[seed] / base[seed] for seed in mine if base.get(seed)]
    if len(shares) < 2 or not HIGHER_IS_BETTER[metric]:
        return ""
    interval, over = t_interval(shares), f"{len(shares)} seeds"
    told = f"95% interval {interval.low:.1%} to {interval.high:.1%} over" if interval else "the same with all"
    said = f"{second.name} reaches {mean(shares):.1%} of {first.name}'s {metric_name(metric)} ({told} {over})"
    costs = [[costs_of(run) for run in group.runs] for group in (first, second)]
    trained = [mean([cost.trained for cost in group]) for group in costs]
    if trained[0]:
        said += f", with {trained[1] / trained[0]:.1%} of its trained parameters"
    seconds = [[cost.seconds for cost in group if cost.seconds is not None] for group in costs]
    if all(seconds):
        said += f", in {duration(mean(seconds[1]))} of training, where {first.name} takes {duration(mean(seconds[0]))}"
    return f"{said}."
