"""Do texts made of the training texts help, made how, and how many of them?

The axis is ``augment.ratio``; runs without [augment] have the ratio 0, and are what all others are compared with, seed
by seed. As many are compared, p values are corrected for all of them at once: the best of many is ahead by luck too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minilm.errors import UserError
from minilm.reporting.compare import versus_table
from minilm.reporting.page import Part, Picture, Section
from minilm.reporting.tables import metric_name
from minilm.studies.questions.lines import (
    LEVEL,
    Line,
    Tested,
    ahead,
    compare_all,
    lines_of,
    lines_table,
    reached,
    tested,
)

if TYPE_CHECKING:
    from minilm.studies.analyses import Finished
    from minilm.studies.config import Study

KEY = "augment.ratio"


def augmentation(study: Study, runs: Sequence[Finished], figures: Path) -> tuple[str, list[Section]]:
    """What each method gives at each ratio, beside no new texts."""
    from minilm.studies.questions.line_pictures import line_picture

    metric = study.config.metric
    found, _ = lines_of(runs, [KEY], _ratio, metric)
    plain = next((line for line in found if line.values(0)), None)
    lines = [line for line in found if any(line.at)]
    if plain is None or not lines:
        raise UserError("the analysis augmentation needs runs with augment.ratio above 0, and runs without [augment]")
    for line in lines:
        line.at = {0.0: line.at.get(0.0, plain.at[0.0]), **line.at}
    compared = compare_all({(line.name, x): (line.at[0.0], line.at[x]) for line in lines for x in line.at if x})
    picture = line_picture(
        lines,
        metric,
        figures / "augmentation.png",
        title="What texts made of the training texts are worth",
        x="New texts for each training text",
        references={"no new texts": plain.mean(0)},
        even=True,
    )
    parts: list[Part] = [
        Picture(picture, f"{metric_name(metric)} over the share of new texts"),
        lines_table(lines, "new texts for each", metric, lambda x: f"{x:g}" if x else "none"),
    ]
    sections = [Section("What each method gives", parts)]
    if compared:
        table = versus_table(compared, ["", "new texts for each"], lambda key: [key[0], f"{key[1]:g}"])
        sections.append(Section("Compared with no new texts", [table]))
    return answer(lines, plain, compared, metric), sections


def _ratio(finished: Finished) -> float:
    section = finished.planned.config.augment
    return section.ratio if section else 0.0


def answer(lines: Sequence[Line], plain: Line, compared: Tested[tuple[str, float]], metric: str) -> str:
    """Two sentences: the best that was found beside none, and whether it is told from chance."""
    points = [(line, x) for line in lines for x in line.at if x]
    best, x = max(points, key=lambda point: ahead(metric, point[0].mean(point[1])))
    first = (
        f"Of {len(points)} ways to add texts {best.name} does best, with {x:g} new texts for each: "
        f"{metric_name(metric)} {reached(best.values(x))}, after {reached(plain.values(0))} with none"
    )
    if (best.name, x) not in compared:
        return f"{first}. Too few seeds were run to tell whether it helps."
    pair, p = compared[best.name, x]
    told = f"{pair.difference:+.3f} ({tested(pair, p, len(compared))})"
    if p >= LEVEL:
        return f"{first}. The difference, {told}, cannot be told from chance."
    verb = "helps" if ahead(metric, pair.difference) > 0 else "harms"
    return f"{first}. It {verb}: {told}, which is significant at 5%."
