"""Files that name training rows: what ``data.rows`` reads, and what active learning writes.

    17
    4    Sports

A line a row: its number, from 0, among the training rows as the config has them without ``data.rows``; and after a tab
the label that an annotator gave it, if that is not the data's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minilm.errors import UserError, located, nearest
from minilm.textfiles import read_text


def read_row_list(path: Path, labels: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of n of the N rows in the file's order, (n,), and their labels: the annotator's, else ``labels``'.

    Raises UserError if the file cannot be read, a row is not there or there twice, or a label is unknown.
    """
    with located("data.rows"):
        lines = read_text(path).splitlines()
    found: dict[int, int] = {}  # row -> line
    given = labels.copy()
    for number, line in enumerate(lines, start=1):
        place = f"{path}, line {number}"
        text, tab, label = line.partition("\t")
        if not text.isdecimal() or len(text) > 20 or int(text) >= len(labels):
            wanted = f"the number of a training row, 0 to {len(labels) - 1}"
            raise UserError(f'{place}: must be {wanted}, got "{text}"; was it written for other data?')
        row = int(text)
        if row in found:
            raise UserError(f"{place}: row {row} is in line {found[row]} already")
        found[row] = number
        if tab and labels.ndim == 2:
            raise UserError(f"{place}: gives a label, which is only for data with one label a text")
        if tab and label not in names:
            raise UserError(f'{place}: unknown label "{label}"{nearest(label, names)}: there are {", ".join(names)}')
        if tab:
            given[row] = list(names).index(label)
    if not found:
        raise UserError(f"{path}: names no row")
    rows = np.array(list(found))
    return rows, given[rows]
