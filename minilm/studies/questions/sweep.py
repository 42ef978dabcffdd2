"""Which setting is best, and is it a good region or a lucky cell?

The cells of a grid are compared on the validation texts, as the test texts choose nothing. A cell stands out by luck
now and then, its neighbours with it hardly ever: so the cell is taken whose **neighbourhood**, itself and the up to 8
cells about it, has the best mean. Where runs have failed a cell may have no neighbour left, and its mean is its own
luck: so at least half of those that the grid has about it must be measured. Only numbers have neighbours: what stands
next to "linear" in a list of schedules says nothing of it. What the cell then reaches on the test texts is told once.

How far two cells may differ by chance is told by the interval of the best one, over its seeds; times sqrt 2, as both of
them vary. With one seed the interval is over the validation texts, and holds nothing of what another seed would move.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minilm.errors import UserError
from minilm.evaluation.metrics import HIGHER_IS_BETTER
from minilm.evaluation.statistics import mean
from minilm.reporting.groups import Group
from minilm.reporting.over_seeds import between, with_spread
from minilm.reporting.page import Block, Picture, Section, Table
from minilm.reporting.tables import ABSENT, decimal, metric_name
from minilm.schema import shown as as_toml

if TYPE_CHECKING:
    from minilm.reporting.record import Run
    from minilm.studies.analyses import Finished
    from minilm.studies.config import Study

ENOUGH = 0.5  # of a cell's neighbours in the grid must be measured


@dataclass(frozen=True)
class Grid:
    """One variant at every point of its axes: two, or one (then there is one row)."""

    name: str
    keys: tuple[str, ...]  # of rows, if there are two, and of columns
    rows: list[Any]  # values of the first axis; [None] with one axis
    columns: list[Any]
    cells: dict[tuple[int, int], Group]
    metric: str

    def matrix(self, split: str) -> np.ndarray:
        """The metric at each cell, the mean over its seeds: (rows, columns), nan where nothing has run."""
        found = np.full((len(self.rows), len(self.columns)), np.nan)
        for place, group in self.cells.items():
            if values := group.values(self.metric, split):
                found[place] = mean(values)
        return found

    def neighbourhood(self, place: tuple[int, int]) -> tuple[slice, ...]:
        """A cell and those about it."""
        axes = zip(place, (self.rows, self.columns), strict=True)
        return tuple(slice(max(0, i - 1), i + 2) if numbers(values) else slice(i, i + 1) for i, values in axes)

    def where(self, place: tuple[int, int]) -> str:
        """``lr 0.0005, weight_decay 0.01``."""
        values = [self.columns[place[1]]] if len(self.keys) == 1 else [self.rows[place[0]], self.columns[place[1]]]
        return ", ".join(f"{k.rpartition('.')[2]} {as_toml(v)}" for k, v in zip(self.keys, values, strict=True))


@dataclass(frozen=True)
class Choice:
    """The cell that is taken, and what speaks for it."""

    place: tuple[int, int]
    around: np.ndarray  # the metric of it and its neighbours, on the validation texts
    highest: tuple[int, int]  # the best single cell
    reach: float | None  # cells that differ by less cannot be told apart; None: not known
    by_seeds: bool  # whether that is by what other seeds may move, or by what other validation texts may
    alike: int  # cells within that reach, itself included
    measured: int  # cells that have the metric


def sweep(study: Study, runs: Sequence[Finished], figures: Path) -> tuple[str, list[Section]]:
    """The best cell of each grid with its neighbourhood: curves over one axis, heat map and surface over two."""
    from minilm.studies.questions.pictures import heat_maps, surfaces, sweep_curves

    grids = grids_of(runs, study.config.metric)
    choices = {id(grid): choose(grid) for grid in grids}
    sections = []
    planes = [grid for grid in grids if len(grid.rows) > 1 and len(grid.columns) > 1]
    lines = [grid for grid in grids if grid not in planes]
    for key in dict.fromkeys(grid.keys[-1] for grid in lines):
        there = [grid for grid in lines if grid.keys[-1] == key]
        file = figures / f"curves_{key.rpartition('.')[2]}.png"
        parts: list[Block] = [Picture(sweep_curves(there, file), f"{metric_name(study.config.metric)} over {key}")]
        sections.append(Section(f"Over {key}", [*parts, _table(there, choices)]))
    for keys in dict.fromkeys(grid.keys for grid in planes):
        there, stem = [grid for grid in planes if grid.keys == keys], "_".join(k.rpartition(".")[2] for k in keys)
        parts = [
            Picture(heat_maps(there, choices, figures / f"heat_{stem}.png"), f"Each cell of {' and '.join(keys)}"),
            Picture(
                surfaces(there, figures / f"surface_{stem}.png"), f"The same as a surface over {' and '.join(keys)}"
            ),
            _table(there, choices),
        ]
        sections.append(Section(f"Over {' and '.join(keys)}", parts))
    told = planes or lines
    return answer(told, [choices[id(grid)] for grid in told]), sections


def grids_of(runs: Sequence[Finished], metric: str) -> list[Grid]:
    """A grid for each variant. Raises UserError where one has not one or two axes beside the seed."""
    together: dict[str, list[Finished]] = {}
    for finished in runs:
        together.setdefault(finished.planned.variant, []).append(finished)
    grids = []
    for name, members in together.items():
        keys = tuple(key for key in members[0].planned.point if key != "seed")
        if len(keys) not in (1, 2):
            raise UserError(f'the analysis sweep needs one axis or two beside the seed, "{name}" has {len(keys)}')
        axes = [in_order([f.planned.point[key] for f in members]) for key in keys]
        rows, columns = axes if len(keys) == 2 else ([None], axes[0])
        cells: dict[tuple[int, int], list[Run]] = {}
        for f in members:
            values = [f.planned.point[key] for key in keys]
            place = rows.index(values[0]) if len(keys) == 2 else 0, columns.index(values[-1])
            cells.setdefault(place, []).append(f.run)
        groups = {place: Group(name, tuple(found)) for place, found in cells.items()}
        grids.append(Grid(name or "all", keys, rows, columns, groups, metric))
    return grids


def numbers(values: Sequence[Any]) -> bool:
    """Whether these have a size, so that one lies next to another."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def in_order(values: Sequence[Any]) -> list[Any]:
    """Each value once: numbers by size, others in the order of the study."""
    once = [value for i, value in enumerate(values) if value not in values[:i]]  # lists have no hash for a set
    return sorted(once) if numbers(once) else once


def choose(grid: Grid) -> Choice:
    """The cell whose neighbourhood is best on the validation texts, of those with enough of it measured."""
    measured = grid.matrix("validation")
    values = measured * (1 if HIGHER_IS_BETTER[grid.metric] else -1)
    if np.isnan(values).all():
        raise UserError(f"no run of {grid.name} has the metric {grid.metric} on the validation texts")
    around, known = np.full(values.shape, -np.inf), np.zeros(values.shape)
    for cell in zip(*np.nonzero(~np.isnan(values)), strict=True):
        about = values[grid.neighbourhood(cell)]
        around[cell] = np.nanmean(about).round(9)  # so that equal means are equal, and the better cell is taken
        known[cell] = (np.isfinite(about).sum() - 1) / max(about.size - 1, 1)
    enough = known >= min(ENOUGH, known.max())  # where no cell has so many, those with the most
    around[~enough] = -np.inf
    place = _highest(np.where(around == around.max(), values, np.nan))
    found = grid.cells[place].interval(grid.metric, "validation")
    reach = (math.sqrt(2) * (found[0].high - found[0].low) / 2 if found else 0.0) or None  # 0 is no certainty
    alike = int((np.abs(values - values[place]) <= (reach or 0)).sum())
    cells, by_seeds = measured[grid.neighbourhood(place)], len(grid.cells[place].values(grid.metric, "validation")) > 1
    return Choice(
        place,
        cells[~np.isnan(cells)],
        highest=_highest(values),
        reach=reach,
        by_seeds=by_seeds,
        alike=alike,
        measured=int(np.isfinite(values).sum()),
    )


def _highest(values: np.ndarray) -> tuple[int, int]:
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    return int(row), int(column)


def _table(grids: Sequence[Grid], choices: dict[int, Choice]) -> Table:
    metric = metric_name(grids[0].metric)
    header = ["", "best region's cell", f"validation {metric}", "with its neighbours", "their spread"]
    header += ["not told apart from it", f"test {metric}", "best single cell", f"its validation {metric}"]
    note = (
        "The cell is chosen on the validation texts, by the mean of it and its neighbours, among cells of whose "
        "neighbours at least half were measured, or as many as of any cell. ±: over the seeds."
    )
    return Table(header, [_row(grid, choices[id(grid)]) for grid in grids], left=2, note=note)


def _row(grid: Grid, choice: Choice) -> list[str]:
    at, top = grid.cells[choice.place], grid.cells[choice.highest]
    spread = float(choice.around.std(ddof=1)) if len(choice.around) > 1 else None
    return [
        grid.name,
        grid.where(choice.place),
        with_spread(at.values(grid.metric, "validation")),
        decimal(float(choice.around.mean())),
        decimal(spread),
        f"{choice.alike} of {choice.measured} (within {choice.reach:.4f})" if choice.reach else ABSENT,
        with_spread(at.values(grid.metric)),
        grid.where(choice.highest),
        with_spread(top.values(grid.metric, "validation")),
    ]


def answer(grids: Sequence[Grid], choices: Sequence[Choice]) -> str:
    """Two sentences: the best region of each, and what of it could be luck."""
    both = list(zip(grids, choices, strict=True))
    best, luck = [_does_best(*pair) for pair in both], [_may_be_luck(*pair) for pair in both]
    return f"{'; '.join(best)}. On the validation texts {'; '.join(luck)}."


def _does_best(grid: Grid, choice: Choice) -> str:
    at = grid.cells[choice.place]
    values, found = at.values(grid.metric), at.interval(grid.metric)
    test = f"{mean(values):.3f}" + (f" ({between(*found)})" if found else "") if values else "not measured"
    return f"{grid.name} does best about {grid.where(choice.place)}, with test {metric_name(grid.metric)} {test}"


def _may_be_luck(grid: Grid, choice: Choice) -> str:
    other = f"another ({grid.where(choice.highest)})" if choice.highest != choice.place else "the same"
    said = f"the best single cell of {grid.name} is {other}"
    if choice.reach is None:
        return said
    mover = "chance" if choice.by_seeds else "other validation texts"
    return (
        f"{said}, and {choice.alike} of its {choice.measured} cells lie within {choice.reach:.3f} of the one chosen, "
        f"as far as {mover} may move them"
    )
