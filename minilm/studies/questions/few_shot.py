"""How many labelled texts of each class does fine-tuning need?

The axis is ``data.shots``; 0 means all rows, the reference. A smaller number of rows is a subset of a larger number, so
that the line of a seed shows the effect of more rows, not of other rows. Baselines are fitted to the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from minilm.errors import UserError
from minilm.evaluation.statistics import ALPHA
from minilm.reporting.over_seeds import Tested, reached, significance, tested, versus_table
from minilm.reporting.page import Block, Picture, Section
from minilm.reporting.style import short
from minilm.reporting.tables import metric_name
from minilm.studies.finished import FinishedRun
from minilm.studies.line_plots import line_picture
from minilm.studies.lines import Line, best_line, gain, lines_of, lines_table, ratio, versus
from minilm.studies.plan import Study
from minilm.studies.question import StudyAnswer, StudyQuestion

SHOTS = "data.shots"
ALL_ROWS = 0.0  # the value of the axis that means all rows
_NEEDS = "runs with data.shots above 0, preferably as an axis ([axes] data.shots)"


def _answer(study: Study, runs: Sequence[FinishedRun], figures: Path) -> StudyAnswer:
    """What each number of texts reaches, relative to all rows and beside the baselines."""
    metric = study.config.metric
    lines, baselines = lines_of(runs, [SHOTS], lambda finished: float(finished.planned.config.data.shots), metric)
    points = sorted({x for line in lines for x in line.at} - {ALL_ROWS})
    if not points:
        raise UserError(f"the analysis few-shot needs {_NEEDS}")
    full = next((line for line in lines if ALL_ROWS in line.at), None)
    best = best_line(lines, points[-1])
    rivals = [line for line in best.baselines.values() if line.values(points[-1])]
    rival = best_line(rivals, points[-1]) if rivals else None
    found = versus(rival, best, points) if rival else {}
    parts: list[Block] = [
        Picture(_draw([*lines, *baselines], metric, figures / "few_shot.png"), f"{metric_name(metric)} over the texts"),
        lines_table([*lines, *baselines], "texts of each class", _label, last=ALL_ROWS),
    ]
    if full is not None:
        parts += [_relative_to_all(line, points, full) for line in lines if line.values(points[-1])]
    sections = [Section("What each number of texts reaches", parts)]
    if rival and found:
        title = f"{best.name} compared with the {rival.name}"
        sections.append(Section(title, [versus_table(found, ["texts of each class"], lambda x: [_label(x)])]))
    return StudyAnswer(f"{_lead(best, rival, found, points)} {_level(best, points[-1], full)}", sections)


def _label(x: float) -> str:
    return "all" if x == ALL_ROWS else f"{x:,.0f}"


def _draw(lines: Sequence[Line], metric: str, path: Path) -> Path:
    """The lines over the number of texts; what all rows reach is a horizontal line."""
    references = {
        f"{short(line.name, 40)}, all rows": line.mean(ALL_ROWS)
        for line in lines
        if ALL_ROWS in line.at and not line.baseline
    }
    few = [
        replace(line, at={x: values for x, values in line.at.items() if x != ALL_ROWS}) for line in lines
    ]
    return line_picture(
        [line for line in few if line.at],
        metric,
        path,
        title="What few labelled texts are worth",
        x="Training texts of each class",
        references=references,
    )


# --- In words ---


def _relative_to_all(line: Line, points: Sequence[float], full: Line) -> str:
    """What a line reaches relative to all rows."""
    whole = line if ALL_ROWS in line.at else full
    ratios = [(x, ratio(line, x, whole, ALL_ROWS)) for x in points]
    texts = [
        f"{found[0]:.1%} with {x:,.0f}" + (f" ({found[1].low:.1%} to {found[1].high:.1%})" if found[1] else "")
        for x, found in ratios
        if found
    ]
    return f"Relative to {whole.name} with all rows, {line.name} reaches {'; '.join(texts)} of each class."


def _level(best: Line, most: float, full: Line | None) -> str:
    """How far the largest number of texts of each class gets."""
    name = metric_name(best.metric)
    text = f"With {most:,.0f} of each class {best.name} has {name} {reached(best.values(most), best.metric)}"
    whole = best if ALL_ROWS in best.at else full
    found = ratio(best, most, whole, ALL_ROWS) if whole else None
    if whole is None or found is None:
        return f"{text}."
    interval = f" (95% interval {found[1].low:.1%} to {found[1].high:.1%})" if found[1] else ""
    return f"{text}, which is {found[0]:.1%}{interval} of what {whole.name} has with all rows."


def _lead(best: Line, rival: Line | None, found: Tested[float], points: Sequence[float]) -> str:
    """From how many texts of each class on fine-tuning is ahead of the best baseline."""
    if rival is None:
        return "No baseline was fitted, so it is unknown from how many texts on fine-tuning pays."
    points = [x for x in points if x in found]  # the others lack the line, the baseline, or a second seed
    if not points:
        return (
            f"With one seed it is undecided from how many texts of each class on {best.name} beats the {rival.name}."
        )
    wins = [x for x in points if gain(best.metric, found[x][0].difference) > 0 and found[x][1] < ALPHA]
    lasting = [x for x in points if all(y in wins for y in points if y >= x)]
    if lasting:
        pair, p = found[lasting[0]]
        return (
            f"{best.name} beats the {rival.name} from {lasting[0]:,.0f} texts of each class on, there by "
            f"{abs(pair.difference):.3f} ({tested(pair, p, len(found), unsigned=True)}), which {significance(pair, p)}."
        )
    pair, p = found[points[-1]]
    lead = "ahead of" if gain(best.metric, pair.difference) > 0 else "behind"
    return (
        f"It is undecided from how many texts on {best.name} beats the {rival.name}: with {points[-1]:,.0f} of each "
        f"class it is {abs(pair.difference):.3f} {lead} it ({tested(pair, p, len(found), unsigned=True)})."
    )


FEW_SHOT = StudyQuestion(
    "few-shot", _answer, fits=lambda study: any(run.config.data.shots for run in study.runs), needs=_NEEDS
)
