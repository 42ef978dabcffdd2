"""Rows to write with the fixture ``data``, and what loading them gives or says."""

from __future__ import annotations

import pytest

from minilm.config import DataSection
from minilm.data.sources import Dataset, load_dataset
from minilm.errors import UserError

ROWS = [(f"text {i}", ("bad", "good", "so-so")[i % 3]) for i in range(30)]


def load(source: str, **section: object) -> Dataset:
    return load_dataset(DataSection(source=source, **section), "x.toml")


def refusal(source: str, **section: object) -> str:
    with pytest.raises(UserError) as error:
        load(source, **section)
    return str(error.value)
