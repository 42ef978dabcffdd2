"""Labels that are probably wrong, as a file to check (``label_issues.csv``) and as a table.

    row   text                     label      suggested   score
    812   a masterpiece            negative   positive    0.013

The most suspicious come first (``minilm.evaluation.label_issues``). ``row`` is the row's number in its file, from 1.
With several labels per text, each row is one label of a text, and the suggestion is "add" or "remove".
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minilm.atomic import atomic
from minilm.evaluation.label_issues import find_label_issues, find_multilabel_issues
from minilm.reporting.page import Block, Span, Table
from minilm.reporting.tables import count

LABEL_ISSUES = "label_issues.csv"
SHOWN = 20  # the most labels on a page


@dataclass(frozen=True)
class Issue:
    """A label that is probably wrong."""

    index: int  # the row's index among those that were searched
    label: str
    suggested: str  # another label; with several labels per text, "add" or "remove"
    score: float  # from 0; the lower, the more suspicious


def issues_of(labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]) -> list[Issue]:
    """The suspicious labels, the most suspicious first. labels (N,), or (N, C) of 0 and 1; probabilities (N, C), out of
    sample."""
    if labels.ndim == 2:
        return [
            Issue(issue.row, names[issue.label], "remove" if issue.given else "add", issue.score)
            for issue in find_multilabel_issues(labels, probabilities)
        ]
    return [
        Issue(issue.row, names[issue.given], names[issue.suggested], issue.score)
        for issue in find_label_issues(labels, probabilities)
    ]


def write_label_issues(path: Path, issues: Sequence[Issue], columns: Mapping[str, Sequence[Any]]) -> None:
    """Write the file. ``columns``: values of the searched rows, such as their numbers and texts."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow([*columns, "label", "suggested", "score"])
    for issue in issues:
        own = (cells[issue.index] for cells in columns.values())
        writer.writerow([*own, issue.label, issue.suggested, f"{issue.score:.6g}"])
    with atomic(path) as file:
        file.write(table.getvalue().encode())


def issue_blocks(rows: Sequence[Sequence[str]], found: int, searched: int, where: str) -> list[Block]:
    """The blocks of a page about suspicious labels. rows: row, text, label, suggested, score of the first; where: a
    description of the texts."""
    if not found:
        return [f"Confident learning finds no label that is probably wrong among the {count(searched)} {where}."]
    labels = "1 label" if found == 1 else f"{count(found)} labels"  # a text with several labels may have several
    text = (
        f"By confident learning, {labels} of the {count(searched)} {where} {'is' if found == 1 else 'are'} probably "
        "wrong. The more mistakes the model makes, the more of these are its own. All of them: "
    )
    note = "The score is the model's probability of the given label: the lower, the more suspicious."
    table = Table(["row", "text", "label", "suggested", "score"], rows, left=4, note=note)
    return [[text, Span(LABEL_ISSUES, "", link=LABEL_ISSUES)], table]
