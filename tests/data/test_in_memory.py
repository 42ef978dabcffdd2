"""Data in memory are columns with Python's simplest cells, wherever they come from."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pytest

from minilm.data.in_memory import columns_of_data, frame_columns, is_in_memory, plain
from minilm.errors import UserError


def test_missing_values_of_a_data_frame_are_empty_cells() -> None:
    frame = pandas.DataFrame(
        {
            "text": pandas.array(["a", None, "c"], dtype="string"),
            "whole": pandas.array([1, None, 3], dtype="Int64"),
            "number": [0.5, np.nan, 2.0],
            "day": pandas.to_datetime(["2024-01-01", None, "2024-01-03"]),
            "kind": pandas.Categorical(["x", None, "y"]),
            "labels": [["x", "y"], [], np.array([1, 2])],
            7: [np.int8(1), np.bool_(True), (1, {2})],
        },
        index=[5, 5, 9],
    )
    columns = frame_columns(frame)
    assert columns is not None and list(columns) == ["text", "whole", "number", "day", "kind", "labels", "7"]
    assert columns["text"] == ["a", None, "c"] and columns["whole"] == [1, None, 3]
    assert columns["number"] == [0.5, None, 2.0] and columns["kind"] == ["x", None, "y"]
    assert columns["day"][1] is None and columns["labels"] == [["x", "y"], [], [1, 2]]
    assert columns["7"] == [1, True, [1, [2]]] and type(columns["7"][0]) is int and columns["7"][1] is True
    own = polars.DataFrame({"text": ["a", None], "number": [float("nan"), 1.0], "labels": [["x"], []]})
    assert frame_columns(own) == {"text": ["a", None], "number": [None, 1.0], "labels": [["x"], []]}
    assert frame_columns([1]) is None and frame_columns(pandas.Series([1])) is None


def test_values_are_pythons_simplest() -> None:
    value = {"a": np.float32(0.5), "b": (Path("x") / "y", {"z", "y"}), "c": np.arange(2), 3: np.str_("s"), "d": None}
    assert plain(value) == {"a": 0.5, "b": [str(Path("x") / "y"), ["y", "z"]], "c": [0, 1], "3": "s", "d": None}
    day = datetime.date(2024, 1, 1)
    assert plain(day) is day and plain(float("nan")) is None and plain(True) is True


@pytest.mark.parametrize("texts", [("a", "b"), np.array(["a", "b"]), pandas.Series(["a", "b"], index=[3, 1])])
@pytest.mark.parametrize("labels", [[1, 0], np.array([1, 0]), polars.Series([1, 0]), range(1, -1, -1)])
def test_texts_and_labels_are_any_two_sequences(texts: Any, labels: Any) -> None:
    found = columns_of_data((texts, labels))
    assert found.columns == {"text": ["a", "b"], "label": [1, 0]} and len(found) == 2
    assert found.keys == {
        "text": "text", "text_pair": "", "label": "label", "label_columns": [], "label_separator": "",
    }  # fmt: skip


def test_a_table_of_them_counts_rows_from_one_and_is_a_copy() -> None:
    found = columns_of_data((["a", "b"], ["x", "y"]))
    table = found.table()
    table.columns["text"][0] = "changed"
    assert str(table.origin(1)) == "the data, row 2" and found.columns["text"][0] == "a"
    assert table.names == ["text", "label"] and table.head == [["a", "x"], ["b", "y"]]


@pytest.mark.parametrize("data", ["reviews.csv", Path("reviews.csv")])
def test_a_path_is_not_in_memory(data: Any) -> None:
    assert not is_in_memory(data) and is_in_memory((["a"], ["b"]))


@pytest.mark.parametrize("data", [3, ("a", "b"), (["a"],), {"text": ["a"]}, None])
def test_anything_else_is_refused_with_what_it_could_be(data: Any) -> None:
    with pytest.raises(UserError, match=r"^data: must be a path, .* or \(texts, labels\), got "):
        columns_of_data(data)


@pytest.mark.parametrize("labels", [[datetime.date(2024, 1, 1), "b"], pandas.cut([1, 9], [0, 5, 10]), ["a", pandas.NA]])
def test_a_label_may_be_whatever_has_a_text_of_its_own(labels: Any) -> None:
    cells = columns_of_data((["x", "y"], labels)).columns["label"]
    assert cells == list(labels) or cells == ["a", None]
