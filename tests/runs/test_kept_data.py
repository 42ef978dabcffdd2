"""Data in memory come back from their file as they were, whatever they contain; equal data are one file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.config import DataSection
from minilm.data.in_memory import columns_of_data
from minilm.data.readers import read_table
from minilm.data.sources import load_dataset
from minilm.data.tables import Defects
from minilm.runs.kept_data import keep_data

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
CELLS = st.none() | st.booleans() | NUMBERS | TEXTS


@settings(max_examples=60)
@given(st.lists(st.tuples(TEXTS, CELLS | st.lists(TEXTS, max_size=3)), min_size=1, max_size=8))
def test_every_cell_comes_back(rows: list[tuple[str, Any]]) -> None:
    texts, labels = map(list, zip(*rows, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        data = columns_of_data((texts, labels))
        path = keep_data(data, Path(folder))
        assert keep_data(columns_of_data((tuple(texts), labels)), Path(folder)) == path
        assert path.is_absolute() and [file.name for file in path.parent.iterdir()] == [path.name]
        defects = Defects()
        table = read_table(path, {"text", "label"}, defects)
        assert table.columns == {"text": texts, "label": labels} and not defects.found
        assert keep_data(columns_of_data(([*texts, "more"], [*labels, None])), Path(folder)) != path


def test_many_rows_are_written_in_pieces(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(20_001)]
    path = keep_data(columns_of_data((texts, [i % 2 for i in range(20_001)])), tmp_path)
    data = load_dataset(DataSection(source=str(path), test_fraction=0.0))
    assert len(data.train) + len(data.validation) == 20_001 and data.name == path.stem
