"""How much of a difference is chance? Compare methods over the same seeds: box plots, times, paired tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import MaxNLocator

from minilm.evaluation.statistics import bounded_t_interval, mean
from minilm.measures import HIGHER_IS_BETTER
from minilm.reporting.compare import comparison
from minilm.reporting.groups import Group, costs_of
from minilm.reporting.page import Block, Picture, Section
from minilm.reporting.style import MARK, SMALL, TEST, TRAIN, legend, name_axes, new_figure, save, short, widen
from minilm.reporting.tables import duration, metric_name
from minilm.studies.finished import FinishedRun, groups_of
from minilm.studies.line_plots import axis_label
from minilm.studies.page_parts import at_a_glance
from minilm.studies.plan import Study
from minilm.studies.question import StudyAnswer, StudyQuestion


def _answer(study: Study, runs: Sequence[FinishedRun], figures: Path) -> StudyAnswer:
    """The comparison of all variants, and the distribution of their seeds: metric and time of each run."""
    metric, groups = study.config.metric, groups_of(runs)
    headline, sections = comparison(groups, metric, figures)
    measured = [group for group in groups if group.values(metric)]
    if not any(len(group.runs) > 1 for group in measured):
        return StudyAnswer(headline, [*at_a_glance(groups, metric, figures), *sections])
    picture = _box_plots(measured, metric, figures / "boxes.png")
    parts: list[Block] = [Picture(picture, f"{metric_name(metric)} and time of every seed")]
    parts += [text for group in measured[1:] if (text := _relative_to(measured[0], group, metric))]
    first = [*at_a_glance(groups, metric, figures), Section("The spread over seeds", parts)]
    return StudyAnswer(headline, [*first, *sections])


def _relative_to(first: Group, second: Group, metric: str) -> str:
    """What the second reaches, trains and takes, relative to the first."""
    own, base = second.by_seed(metric), first.by_seed(metric)
    ratios = [own[seed] / base[seed] for seed in own if base.get(seed)]
    if len(ratios) < 2 or not HIGHER_IS_BETTER[metric]:
        return ""
    found, over = bounded_t_interval(ratios, (0, math.inf)), f"{len(ratios)} seeds"
    spread = f"the same with all {over}"
    if found:
        method = f", {found.method}" if found.method else ""
        spread = f"95% interval {found.interval.low:.1%} to {found.interval.high:.1%} over {over}{method}"
    text = f"{second.name} reaches {mean(ratios):.1%} of {first.name}'s {metric_name(metric)} ({spread})"
    costs = [[costs_of(run) for run in group.runs] for group in (first, second)]
    trained = [mean([cost.trained for cost in group]) for group in costs]
    if trained[0]:
        text += f", with {trained[1] / trained[0]:.1%} of its trained parameters"
    seconds = [[cost.seconds for cost in group if cost.seconds is not None] for group in costs]
    if all(seconds):
        text += f", in {duration(mean(seconds[1]))} of training; {first.name} takes {duration(mean(seconds[0]))}"
    return f"{text}."


# --- The picture ---


def _box_plots(groups: Sequence[Group], metric: str, path: Path) -> Path:
    """Box plots of the metric and of the training time, with a dot for every run."""
    figure = new_figure(11, 2.6 + 0.7 * len(groups), "What every seed reached, and how long it took")
    panels = figure.subplots(1, 2, sharey=True)
    quality = [group.values(metric) for group in groups]
    times = [[s for run in group.runs if (s := costs_of(run).seconds) is not None] for group in groups]
    longest = max((s for group in times for s in group), default=1)
    scale, unit = (60, "minutes") if longest >= 180 else (1, "seconds")
    _draw_boxes(panels[0], quality, TEST)
    _draw_boxes(panels[1], [[s / scale for s in group] for group in times], TRAIN)
    places = range(1, len(groups) + 1)
    panels[0].set_yticks(places, [short(group.name, 30) for group in groups], fontsize=SMALL)
    panels[0].set_ylim(len(groups) + 0.6, 0.4)
    name_axes(panels[0], title="On the test texts", x=axis_label(metric), y="")
    name_axes(panels[1], title="Training", x=f"Time ({unit})", y="")
    panels[1].set_xlim(left=0)
    panels[1].tick_params(left=False)
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    widen(panels[0], metric, min(group.texts() for group in groups), which="x")
    legend(figure, [panels[0]])
    return save(figure, path, svg=True)


def _draw_boxes(axes: Axes, values: Sequence[Sequence[float]], colour: str) -> None:
    for place, found in enumerate(values, start=1):
        axes.boxplot(
            [found],
            positions=[place],
            orientation="horizontal",
            widths=0.5,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": to_rgba(colour, 0.4), "edgecolor": MARK},
            medianprops={"color": MARK, "linewidth": 2.5},
            manage_ticks=False,
        )
        heights = place + (np.linspace(-0.12, 0.12, len(found)) if len(found) > 1 else np.zeros(1))
        style: dict[str, Any] = {"color": "white", "markeredgecolor": MARK, "markeredgewidth": 1.3, "markersize": 7}
        axes.plot(
            found, heights, "o", label="one run; box: quartiles, thick line: median" if place == 1 else None, **style
        )


SEEDS = StudyQuestion("seeds", _answer, compares_language_models=True)
