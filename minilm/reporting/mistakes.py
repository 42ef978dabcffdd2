"""The section of a run's report about its mistakes: those of the highest confidence, those between the most confused
labels, and labels that are probably wrong."""

from __future__ import annotations

from minilm.reporting.label_issues import issue_blocks
from minilm.reporting.page import Block, Prose, Section, Span, Table
from minilm.reporting.record import Run
from minilm.reporting.results import Mistake
from minilm.reporting.tables import count, joined_labels


def mistakes_section(run: Run) -> Section | None:
    """The section, or None if the run did not record its mistakes."""
    found = run.results.mistakes
    if found is None:
        return None
    blocks: list[Block] = []
    if found.surest:
        rows = [_row(mistake) for mistake in found.surest]
        blocks += [
            f"The wrong predictions on {found.split} texts with the highest confidence. Some labels may be wrong too:",
            Table(["row", "text", "label", "predicted", "probability"], rows, left=4),
        ]
    else:
        blocks.append(f"The model makes no mistakes on the {found.split} texts.")
    if found.confused:
        blocks.append("The pairs of labels that it confuses most, with the texts of the highest confidence:")
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
    label, predicted = joined_labels(mistake.label), joined_labels(mistake.predicted)
    return [str(mistake.row), mistake.text, label, predicted, f"{mistake.probability:.3f}"]
