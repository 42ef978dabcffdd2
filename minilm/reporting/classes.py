"""Tables of the number of texts per label and split, for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from minilm.errors import shortened
from minilm.reporting.tables import count, text_table

ROWS = 14  # the most rows of a table; with more labels, it shows the most frequent and the rarest
RAREST = 3


def count_rows(names: Sequence[str], counts: Mapping[str, np.ndarray]) -> tuple[list[str], list[list[str]]]:
    """The header and rows of a table of labels: the number of texts per split, and the fraction in the training split.

    counts: (C,) for each split. With many labels, the most frequent and the rarest are listed.
    """
    splits = [split for split in counts if counts[split].sum()]
    order = np.argsort(-counts["train"], kind="stable").tolist() if len(names) > ROWS else list(range(len(names)))
    total = max(1, int(counts["train"].sum()))

    def row(i: int) -> list[str]:
        share = counts["train"][i] / total
        return [shortened(names[i]), *(count(int(counts[split][i])) for split in splits), f"{share:.1%}"]

    shown = [row(i) for i in order]
    if len(order) > ROWS:
        hidden = order[ROWS - RAREST : -RAREST]
        sums = [count(int(counts[split][hidden].sum())) for split in splits]
        more = [f"({len(hidden):,} more labels)", *sums, f"{counts['train'][hidden].sum() / total:.1%}"]
        shown = [*shown[: ROWS - RAREST], more, *shown[-RAREST:]]
    return ["label", *splits, "of train"], shown


def counts_table(names: Sequence[str], counts: Mapping[str, np.ndarray]) -> str:
    """The table of ``count_rows`` as text for the terminal."""
    return text_table(*count_rows(names, counts))
