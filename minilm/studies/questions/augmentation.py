"""Does augmentation with new texts made from the training texts help, by which method, and with how many texts?

The axis is ``augment.ratio``; runs without [augment] have the ratio 0. Each line is compared with the runs without new
texts at the same point of the other axes, seed by seed. p values are corrected for all comparisons at once, because
the best of many is ahead by luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minilm.errors import UserError
from minilm.evaluation.statistics import is_significant
from minilm.reporting.over_seeds import Tested, compare_all, reached, significance, tested, versus_table
from minilm.reporting.page import Block, Picture, Section
from minilm.reporting.tables import metric_name
from minilm.studies.finished import FinishedRun
from minilm.studies.line_plots import line_picture
from minilm.studies.lines import Line, gain, lines_of, lines_table
from minilm.studies.plan import Study
from minilm.studies.question import StudyAnswer, StudyQuestion

RATIO = "augment.ratio"
_NEEDS = "runs with augment.ratio above 0, and runs without [augment]"


def _answer(study: Study, runs: Sequence[FinishedRun], figures: Path) -> StudyAnswer:
    """What each method gives at each ratio, compared with no new texts."""
    metric = study.config.metric
    found, _ = lines_of(runs, [RATIO], _ratio, metric)
    plain = [line for line in found if line.values(0)]
    lines = [line for line in found if any(line.at)]
    if not plain or not lines:
        raise UserError(f"the analysis augmentation needs {_NEEDS}")
    references = {line.name: line if line in plain else _plain_of(line, plain) for line in lines}
    for line in lines:
        line.at = {0.0: references[line.name].at[0.0], **line.at}
    compared = compare_all(
        {(line.name, x): (line.at[0.0], line.at[x]) for line in lines for x in line.at if x}, metric
    )
    picture = line_picture(
        lines,
        metric,
        figures / "augmentation.png",
        title="What texts made of the training texts are worth",
        x="New texts for each training text",
        references=_levels(list(references.values())),
        linear=True,
    )
    parts: list[Block] = [
        Picture(picture, f"{metric_name(metric)} over the number of new texts for each training text"),
        lines_table(lines, "new texts for each", lambda x: f"{x:g}" if x else "none"),
    ]
    sections = [Section("What each method gives", parts)]
    if compared:
        table = versus_table(compared, ["", "new texts for each"], lambda key: [key[0], f"{key[1]:g}"])
        sections.append(Section("Compared with no new texts", [table]))
    return StudyAnswer(_headline(lines, compared, metric), sections)


def _plain_of(line: Line, plain: Sequence[Line]) -> Line:
    """The runs without new texts that a line is compared with: at its place on all axes that those have."""
    there = [
        other
        for other in plain
        if all(line.point.get(k) == v for k, v in other.point.items() if not k.startswith("augment."))
    ]
    if there and all(other.at[0.0] == there[0].at[0.0] for other in there):
        return there[0]
    names = ", ".join(other.name for other in there or plain)
    raise UserError(
        f'the analysis augmentation compares "{line.name}" with runs without [augment] at the same place on the other '
        f"axes: there are {'several' if there else 'none'} among {names}. Cross a variant without [augment] with these "
        "axes, and make an axis of whatever else distinguishes variants"
    )


def _levels(plain: Sequence[Line]) -> dict[str, float]:
    """The horizontal lines of the picture: what the runs without new texts reach."""
    names = {line.mean(0): line.name for line in plain}
    return {f"no new texts, {name}" if len(names) > 1 else "no new texts": value for value, name in names.items()}


def _ratio(finished: FinishedRun) -> float:
    section = finished.planned.config.augment
    return section.ratio if section else 0.0


def _headline(lines: Sequence[Line], compared: Tested[tuple[str, float]], metric: str) -> str:
    """Whether the best way to add texts helps, and what it reaches."""
    points = [(line, x) for line in lines for x in line.at if x]
    best, x = max(points, key=lambda point: gain(metric, point[0].mean(point[1])))
    place = f"{best.name} at a ratio of {x:g}"
    name = metric_name(metric)
    levels = (
        f"{name} {reached(best.values(x), metric)}, and without new texts "
        f"{reached(best.values(0), metric)}"
    )
    first = f"the best of {len(points)} ways to add texts" if len(points) > 1 else "the only way to add texts"
    if (best.name, x) not in compared:
        best_way = first[0].upper() + first[1:]
        return f"With one seed it is undecided whether new texts help. {best_way} is {place}: {levels}."
    pair, p = compared[best.name, x]
    test = f"{pair.difference:+.3f} ({tested(pair, p, len(compared))}), which {significance(pair, p)}"
    better = gain(metric, pair.difference) > 0
    if not better:
        opening = f"New texts do not help: {first}, {place}, changes {name} by {test}."
    elif is_significant(pair, p):
        opening = f"New texts help: {first}, {place}, changes {name} by {test}."
    else:
        opening = f"It is undecided whether new texts help: {first}, {place}, changes {name} by {test}."
    return f"{opening} It has {levels}."


AUGMENTATION = StudyQuestion(
    "augmentation",
    _answer,
    fits=lambda study: {bool(run.config.augment and run.config.augment.ratio) for run in study.runs} == {True, False},
    needs=_NEEDS,
)
