"""Do texts made of the training texts help, made how, and how many of them?

The axis is ``augment.ratio``; runs without [augment] have the ratio 0. Each line is compared with those at its own
place on the other axes, seed by seed. As many are compared, p values are corrected for all of them at once: the best of
many is ahead by luck too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minilm.errors import UserError
from minilm.evaluation.statistics import ALPHA
from minilm.reporting.over_seeds import Tested, compare_all, reached, tested, versus_table
from minilm.reporting.page import Block, Picture, Section
from minilm.reporting.tables import metric_name
from minilm.studies.questions.lines import Line, ahead, lines_of, lines_table

if TYPE_CHECKING:
    from minilm.studies.analyses import Finished
    from minilm.studies.config import Study

KEY = "augment.ratio"


def augmentation(study: Study, runs: Sequence[Finished], figures: Path) -> tuple[str, list[Section]]:
    """What each method gives at each ratio, beside no new texts."""
    from minilm.studies.questions.line_pictures import line_picture

    metric = study.config.metric
    found, _ = lines_of(runs, [KEY], _ratio, metric)
    plain = [line for line in found if line.values(0)]
    lines = [line for line in found if any(line.at)]
    if not plain or not lines:
        raise UserError("the analysis augmentation needs runs with augment.ratio above 0, and runs without [augment]")
    beside = {line.name: line if line in plain else _plain_of(line, plain) for line in lines}
    for line in lines:
        line.at = {0.0: beside[line.name].at[0.0], **line.at}
    compared = compare_all({(line.name, x): (line.at[0.0], line.at[x]) for line in lines for x in line.at if x})
    picture = line_picture(
        lines,
        metric,
        figures / "augmentation.png",
        title="What texts made of the training texts are worth",
        x="New texts for each training text",
        references=_references(list(beside.values())),
        even=True,
    )
    parts: list[Block] = [
        Picture(picture, f"{metric_name(metric)} over the share of new texts"),
        lines_table(lines, "new texts for each", metric, lambda x: f"{x:g}" if x else "none"),
    ]
    sections = [Section("What each method gives", parts)]
    if compared:
        table = versus_table(compared, ["", "new texts for each"], lambda key: [key[0], f"{key[1]:g}"])
        sections.append(Section("Compared with no new texts", [table]))
    return answer(lines, compared, metric), sections


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
        f"axes: there are {'several' if there else 'none'}, of {names}. Cross a variant without [augment] with these "
        "axes, and make an axis of what else variants differ in"
    )


def _references(plain: Sequence[Line]) -> dict[str, float]:
    """The level lines of what the others are compared with."""
    names = {line.mean(0): line.name for line in plain}
    return {f"no new texts, {name}" if len(names) > 1 else "no new texts": value for value, name in names.items()}


def _ratio(finished: Finished) -> float:
    section = finished.planned.config.augment
    return section.ratio if section else 0.0


def answer(lines: Sequence[Line], compared: Tested[tuple[str, float]], metric: str) -> str:
    """Two sentences: the best that was found beside none, and whether it is told from chance."""
    points = [(line, x) for line in lines for x in line.at if x]
    best, x = max(points, key=lambda point: ahead(metric, point[0].mean(point[1])))
    first = (
        f"Of {len(points)} ways to add texts {best.name} does best, at a ratio of {x:g}: "
        f"{metric_name(metric)} {reached(best.values(x))}, after {reached(best.values(0))} with none"
    )
    if (best.name, x) not in compared:
        return f"{first}. Too few seeds were run to tell whether it helps."
    pair, p = compared[best.name, x]
    told = f"{pair.difference:+.3f} ({tested(pair, p, len(compared))})"
    if p >= ALPHA:
        return f"{first}. The difference, {told}, cannot be told from chance."
    verb = "helps" if ahead(metric, pair.difference) > 0 else "harms"
    return f"{first}. It {verb}: {told}, which is significant at 5%."
