"""Rows to write with the fixture ``data``, and what loading them gives or says."""

from __future__ import annotations

import pytest

from minilm.config import DataSection
from minilm.data.locations import catalogue_keys
from minilm.data.sources import Dataset, load_dataset
from minilm.errors import UserError, located

ROWS = [(f"text {i}", ("bad", "good", "so-so")[i % 3]) for i in range(30)]


def load(source: str, **section: object) -> Dataset:
    with located("x.toml"):
        return load_dataset(listed(source, **section))


def listed(source: str, **section: object) -> DataSection:
    """The section of a data set that the catalogue lists, as a config has it."""
    return DataSection(source=source, **catalogue_keys(source, bool(section.get("sample"))) | section)


def refusal(source: str, **section: object) -> str:
    with pytest.raises(UserError) as error:
        load(source, **section)
    return str(error.value)
