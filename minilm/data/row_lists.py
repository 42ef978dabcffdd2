"""Files that list training rows: ``data.rows`` reads them, and active learning writes them.

    17
    4    Sports

Each line is one row: its number, from 0, among the training rows that the config gives without ``data.rows``; and, if
an annotator gave it another label than the data have, a tab and that label.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minilm.errors import UserError, located, nearest
from minilm.textfiles import read_text


def read_row_list(path: Path, labels: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The row numbers (n,) that a file lists, in its order, and their labels: from the file, otherwise from ``labels``.

    Raises UserError if the file cannot be read, a row does not exist or is repeated, or a label is unknown.
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
            raise UserError(f'{place}: must be {wanted}, got "{text}"; was the file written for other data?')
        row = int(text)
        if row in found:
            raise UserError(f"{place}: row {row} is already in line {found[row]}; remove one of them")
        found[row] = number
        if tab and labels.ndim == 2:
            raise UserError(f"{place}: remove the label; only data with one label per text may have labels here")
        if tab and label not in names:
            raise UserError(f'{place}: unknown label "{label}"{nearest(label, names)}; labels are {", ".join(names)}')
        if tab:
            given[row] = list(names).index(label)
    if not found:
        raise UserError(f"{path}: lists no rows")
    rows = np.array(list(found))
    return rows, given[rows]
