"""The part of a run's report that is about its mistakes: the ones it is surest of, those between the labels that it
confuses most, and labels that are probably wrong themselves."""

from __future__ import annotations

from minilm.reporting.label_issues import issue_blocks
from minilm.reporting.page import Block, Prose, Section, Span, Table
from minilm.reporting.record import Run
from minilm.reporting.results import Mistake
from minilm.reporting.tables import count


def mistakes_section(run: Run) -> Section | None:
    """None: they were not recorded."""
    found = run.results.mistakes
    if found is None:
        return None
    blocks: list[Block] = []
    if found.surest:
        rows = [_row(mistake) for mistake in found.surest]
        blocks += [
            f"The {found.split} texts about which it is surest, and wrong. Some of their labels may be wrong instead:",
            Table(["row", "text", "label", "predicted", "probability"], rows, left=4),
        ]
    else:
        blocks.append(f"It makes no mistake on the {found.split} texts.")
    if found.confused:
        blocks.append("The pairs of labels that it confuses most, with the texts about which it is surest:")
        table: list[list[Prose]] = []
        for pair in found.confused:
            name: Prose = [Span(pair.label, "em"), " taken for ", Span(pair.predicted, "em"), f" ({count(pair.texts)})"]
            for i, mistake in enumerate(pair.mistakes):
                cells = [str(mistake.row), mistake.text, f"{mistake.probability:.3f}"]
                table.append([name if i == 0 else "", *cells])
        blocks.append(Table(["", "row", "text", "probability"], table, left=3))
    searched = run.results.data.sizes[found.split]
    issues = [[str(i.row), i.text, i.label, i.suggested, f"{i.score:.3f}"] for i in found.label_issues]
    blocks += issue_blocks(issues, found.all_label_issues, searched, f"{found.split} texts")
    return Section("Its mistakes", blocks)


def _row(mistake: Mistake) -> list[str]:
    label, predicted = _joined(mistake.label), _joined(mistake.predicted)
    return [str(mistake.row), mistake.text, label, predicted, f"{mistake.probability:.3f}"]


def _joined(label: str | list[str]) -> str:
    return label if isinstance(label, str) else ", ".join(label) or "none"
