"""The table of labels fits the terminal, whatever their number and their names' length."""

from __future__ import annotations

import numpy as np
import pytest

from minilm.errors import shortened
from minilm.reporting.classes import counts_table


@pytest.mark.parametrize("classes", [2, 3, 14, 15, 40, 500])
def test_the_table_has_few_rows_and_all_texts(classes):
    train, none = np.arange(classes)[::-1] + 1, np.zeros(classes, int)
    counts = {"train": train, "validation": np.ones(classes, int), "test": none}
    names = [f"label {i} {'long ' * 30}" for i in range(classes)]
    lines = counts_table(names, counts).splitlines()
    assert len(lines) <= 18 and max(map(len, lines)) <= 80 and "test" not in lines[0]
    totals = [int(line.replace(",", "").split()[-3]) for line in lines[2:]]
    assert sum(totals) == counts["train"].sum()
    assert (f"({classes - 14:,} more labels)" in counts_table(names, counts)) == (classes > 14)


def test_names_keep_both_ends():
    assert shortened("short") == "short" and shortened("a\nb") == "a b"
    assert shortened("abcdefghij", 7) == "abcd…ij"
