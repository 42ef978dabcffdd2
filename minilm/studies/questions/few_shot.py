"""How far do few labelled texts of each class go, and from how many on does fine-tuning pay?

The axis is ``data.shots``; 0 is all rows, and the reference. Few rows lie within more of them, so that a seed's line
shows what more rows do, not other ones. Beside the runs stand the baselines that were fitted to the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minilm.errors import UserError
from minilm.evaluation.statistics import ALPHA
from minilm.reporting.over_seeds import Tested, reached, tested, versus_table
from minilm.reporting.page import Block, Picture, Section
from minilm.reporting.tables import metric_name
from minilm.studies.questions.lines import Line, ahead, best_line, lines_of, lines_table, ratio, versus

if TYPE_CHECKING:
    from minilm.studies.analyses import Finished
    from minilm.studies.config import Study

KEY = "data.shots"
ALL = 0.0  # shots that stand for all rows


def few_shot(study: Study, runs: Sequence[Finished], figures: Path) -> tuple[str, list[Section]]:
    """What each number of shots reaches, as a share of all rows, and beside the baselines."""
    from minilm.studies.questions.line_pictures import line_picture

    metric = study.config.metric
    lines, baselines = lines_of(runs, [KEY], lambda finished: float(finished.planned.config.data.shots), metric)
    points = sorted({x for line in lines for x in line.at} - {ALL})
    if not points:
        raise UserError("the analysis few-shot needs runs with data.shots above 0, best as an axis: [axes] data.shots")
    full = next((line for line in lines if ALL in line.at), None)
    best = best_line(lines, points[-1], metric)
    rivals = [line for line in best.baselines.values() if line.values(points[-1])]
    rival = best_line(rivals, points[-1], metric) if rivals else None
    found = versus(rival, best, points) if rival else {}

    references = {f"{line.name}, all rows": line.mean(ALL) for line in lines if ALL in line.at}
    few = [Line(line.name, {x: line.at[x] for x in line.at if x != ALL}, line.baseline) for line in lines + baselines]
    picture = line_picture(
        [line for line in few if line.at],
        metric,
        figures / "few_shot.png",
        title="What few labelled texts are worth",
        x="Training texts of each class",
        references=references,
    )

    def shown(x: float) -> str:
        return f"{x:,.0f}" if x else "all"

    parts: list[Block] = [
        Picture(picture, f"{metric_name(metric)} over the number of training texts of each class"),
        lines_table([*lines, *baselines], "texts of each class", metric, shown, last=ALL),
    ]
    if full is not None:
        parts += [_share_text(line, points, full) for line in lines if line.values(points[-1])]
    sections = [Section("What each number reaches", parts)]
    if rival and found:
        title = f"{best.name} compared with the {rival.name}"
        sections.append(Section(title, [versus_table(found, ["texts of each class"], lambda x: [shown(x)])]))
    return f"{_first(best, points[-1], full, metric)} {_pays(best, rival, found, points, metric)}", sections


def _share_text(line: Line, points: Sequence[float], full: Line) -> str:
    """What a line reaches as a share of what all rows give."""
    whole = line if ALL in line.at else full
    shares = [(x, ratio(line, x, whole, ALL)) for x in points]
    said = [
        f"{share[0]:.1%} with {x:,.0f}" + (f" ({share[1].low:.1%} to {share[1].high:.1%})" if share[1] else "")
        for x, share in shares
        if share
    ]
    return f"Of what {whole.name} reaches with all rows, {line.name} reaches {'; '.join(said)} of each class."


def _first(best: Line, most: float, full: Line | None, metric: str) -> str:
    """How far the largest number of shots goes."""
    said = f"With {most:,.0f} texts of each class {best.name} has {metric_name(metric)} {reached(best.values(most))}"
    whole = best if ALL in best.at else full
    share = ratio(best, most, whole, ALL) if whole else None
    if whole is None or share is None:
        return f"{said}."
    between = f" (95% interval {share[1].low:.1%} to {share[1].high:.1%})" if share[1] else ""
    return f"{said}, {share[0]:.1%}{between} of what {whole.name} has with all rows."


def _pays(best: Line, rival: Line | None, found: Tested[float], points: Sequence[float], metric: str) -> str:
    """From how many shots on fine-tuning is ahead of the best baseline."""
    if rival is None:
        return "No baseline was fitted, so from where on fine-tuning pays is not known."
    if len(found) < len(points):
        return f"Too few seeds were run to tell from where on it is ahead of the {rival.name}."
    wins = [x for x in points if ahead(metric, found[x][0].difference) > 0 and found[x][1] < ALPHA]
    lasting = [x for x in points if all(y in wins for y in points if y >= x)]
    if lasting:
        pair, p = found[lasting[0]]
        return (
            f"It is ahead of the {rival.name} from {lasting[0]:,.0f} of each class on, there by "
            f"{abs(pair.difference):.3f} ({tested(pair, p, len(found), sized=True)}), which is significant at 5%."
        )
    pair, p = found[points[-1]]
    lead = "ahead of" if ahead(metric, pair.difference) > 0 else "behind"
    return (
        f"From where on it is ahead of the {rival.name} cannot be told: with {points[-1]:,.0f} of each class it is "
        f"{abs(pair.difference):.3f} {lead} it ({tested(pair, p, len(found), sized=True)})."
    )
