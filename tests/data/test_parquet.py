"""Parquet files: what their columns may hold, and small files that unfold to gigabytes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from minilm.data.readers import read_table
from minilm.data.tables import Defects
from minilm.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

MANY, LONG = 20_000, 200_000  # rows, characters: 4 GB as Python's texts


def written(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.timestamp("ns", "UTC"), pa.duration("ns"), pa.time64("ns")])
def test_times_finer_than_pythons_are_read_whether_they_are_wanted_or_not(tmp_path: Path, kind: Any) -> None:
    path = written(tmp_path / "a.parquet", text=["good", "bad"], when=pa.array([1, 2_000_000_001], kind))
    table = read_table(path, {"text"}, Defects())
    assert table.columns == {"text": ["good", "bad"]} and table.head[0][0] == "good"
    wanted = read_table(path, {"when"}, Defects()).columns["when"]
    assert len(set(wanted)) == 2 and all(isinstance(value, str | int) for value in wanted)


def test_a_column_of_other_values_is_read_as_they_are(tmp_path: Path) -> None:
    columns = {
        "text": pa.array(["a", None]).dictionary_encode(),
        "label": pa.array([["x"], ["y", "z"]]),
        "inner": pa.array([{"text": "hidden"}, None]),
        "data": pa.array([b"\xff", b""]),
    }
    table = read_table(written(tmp_path / "a.parquet", **columns), {"text", "label"}, Defects())
    assert table.columns == {"text": ["a", None], "label": [["x"], ["y", "z"]]}
    assert table.head == [["a", ["x"], {"text": "hidden"}, b"\xff"], [None, ["y", "z"], None, b""]]


def once_for_all_rows(path: Path) -> None:
    """One text, to which all rows refer."""
    array = pa.DictionaryArray.from_arrays(pa.array([0] * MANY, pa.int32()), pa.array(["a" * LONG]))
    pq.write_table(pa.table({"text": array, "label": ["x"] * MANY}), path, store_schema=False)


def as_a_dictionary(path: Path) -> None:
    """The same, in a column whose type is a dictionary."""
    array = pa.DictionaryArray.from_arrays(pa.array([0] * MANY, pa.int32()), pa.array(["a" * LONG]))
    pq.write_table(pa.table({"text": array, "label": ["x"] * MANY}), path)


def beginnings_shared(path: Path) -> None:
    """Each text says how much it shares with the one before it."""
    table = pa.table({"text": [f"{'a' * LONG}{i}" for i in range(2000)]})
    pq.write_table(table, path, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})


def compressed(path: Path) -> None:
    """Texts that compress well."""
    table = pa.table({"text": ["a" * LONG] * 2000})
    pq.write_table(table, path, use_dictionary=False, compression="zstd")


def nothing(path: Path) -> None:
    """Rows without anything in them."""
    empty = pa.table({"text": pa.nulls(10_000_000, pa.string())})
    with pq.ParquetWriter(path, empty.schema) as writer:
        for _ in range(5):
            writer.write_table(empty)


@pytest.mark.parametrize("make", [once_for_all_rows, as_a_dictionary, beginnings_shared, compressed, nothing])
def test_a_small_file_that_unfolds_to_gigabytes_is_refused_before_it_does(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "a.parquet"
    make(path)
    assert path.stat().st_size < 1_500_000
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    with pytest.raises(UserError, match=r"a\.parquet: [\d,]+ bytes decompress to more than [\d,]+, the limit"):
        read_table(path, {"text", "label"}, Defects())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 400e6 and pa.total_allocated_bytes() - before < 400e6


def test_a_heavy_column_that_nobody_wants_is_not_unfolded(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["good"] * 500, "picture": [b"\0" * LONG] * 500})
    pq.write_table(table, path, use_dictionary=False, compression="zstd")
    table = read_table(path, {"text"}, Defects())
    assert table.columns == {"text": ["good"] * 500} and table.names == ["text", "picture"]
    assert table.head[0] == ["good", None]
