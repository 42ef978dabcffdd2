"""Several labels in one cell: read as such with the key, refused without it, whatever the format."""

from __future__ import annotations

import json

import pytest

from minilm.data.label_sets import are_multi_hot, as_list, looks_like_sets
from tests.data.loading import load, refusal

CELLS = ["late,refund", "late", "refund, late", "refund", "rude", ""]
NAMES = [["late", "refund"], ["late"], ["late", "refund"], ["refund"], ["rude"], []]


def rows(cells: list[object], times: int = 6) -> list[tuple[str, object]]:
    return [(f"text {i}", cells[i % len(cells)]) for i in range(times * len(cells))]


def given(found) -> dict[str, list[str]]:
    """The labels of each training text."""
    return {
        text: [name for name, bit in zip(found.label_names, bits, strict=True) if bit]
        for text, bits in zip(found.train.texts, found.train.labels, strict=True)
    }


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.jsonl", "train.parquet"])
@pytest.mark.parametrize("written", [str, json.dumps, repr])
def test_a_cell_of_names_or_of_a_written_list_gives_several_labels(data, name, written):
    cells = CELLS if written is str else [written(names) for names in NAMES]
    found = load(data(name, rows(cells)), label_separator=",")
    assert found.multi_label and found.label_names == ["late", "refund", "rude"]
    assert all(names == NAMES[int(text.split()[1]) % len(NAMES)] for text, names in given(found).items())


@pytest.mark.parametrize("name", ["train.jsonl", "train.parquet"])
def test_a_cell_that_is_a_list_gives_several_labels(data, name):
    found = load(data(name, rows(NAMES)), label_separator=",")
    assert all(names == NAMES[int(text.split()[1]) % len(NAMES)] for text, names in given(found).items())


@pytest.mark.parametrize("cells", [["[0, 1, 0]", "[1, 0, 1]", "[0, 0, 0]"], ["[0 1 0]", "[1. 0. 1.]", "[0 0 0]"]])
def test_a_list_of_0_and_1_is_one_for_each_label(data, cells):
    found = load(data("train.csv", rows(cells, 10)), label_separator=",", labels=["a", "b", "c"])
    assert found.label_names == ["a", "b", "c"]
    assert all(names == [["b"], ["a", "c"], []][int(text.split()[1]) % 3] for text, names in given(found).items())
    assert load(data("train.csv", rows(cells, 10)), label_separator=",").label_names == ["0", "1", "2"]
    data("test.csv", [("x", "[0, 1]")])
    message = refusal(data("train.csv", rows(cells, 10)), label_separator=",")
    assert 'test.csv, line 2: column "label" must be a list of 3 numbers, 0 or 1, got [0, 1]' in message


@pytest.mark.parametrize(
    ("cells", "separator", "shown"),
    [
        (["late,refund", "late", "refund"], ",", "late,refund"),
        (["8,20", "8", "20", "3"], ",", "8,20"),
        (["a|b", "b|c", "a|c"], "|", "a|b"),
        (["joy; fear", "joy", "fear"], ";", "joy; fear"),
        (["8 20", "8", "20"], " ", "8 20"),
    ],
)
@pytest.mark.parametrize("name", ["train.csv", "train.jsonl"])
def test_cells_that_look_like_several_labels_are_refused_with_the_key(data, cells, separator, shown, name):
    message = refusal(data(name, rows(cells, 10)))
    assert f'seem to be several labels per cell, such as "{shown}"' in message
    assert f'data.label_separator="{separator}"' in message
    assert load(data(name, rows(cells, 10)), labels=list(dict.fromkeys(cells))).multi_label is False


def test_cells_that_are_lists_are_refused_with_the_key(data, tmp_path):
    for name, cells in (("train.csv", ["[0, 1]", "[1, 0]"]), ("train.jsonl", [["a"], ["a", "b"]])):
        assert 'are lists, such as' in refusal(data(name, rows(cells, 20)))
        assert 'data.label_separator=","' in refusal(data(name, rows(cells, 20)))
        assert load(data(name, rows(cells, 20)), label_separator=",").multi_label
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    "names",
    [
        ["Sci/Tech", "World", "Business"], ["New York", "New", "York City"], ["a, b", "c"],
        ["Seattle, WA", "Tacoma, WA", "Boston, MA"], ["sports/football", "sports/tennis", "arts/film"], ["1.5", "2"],
    ],
)  # fmt: skip
def test_names_with_separators_in_them_are_names(names):
    assert looks_like_sets(names) == ("", "")


def test_what_is_a_list_and_what_is_none():
    assert as_list("{'a', 'b'}") is not None and as_list("[1, 2") is None and as_list("[") is None
    assert as_list('["a"]') == ["a"] and as_list("('a',)") is None and as_list(5) is None
    assert are_multi_hot([[0, 1], [True, False]])
    assert are_multi_hot([[0, 1, 0], [1]], 3) and are_multi_hot([[], [0, 1], [1, 1]], 2)  # no names are repeated
    assert not are_multi_hot([[0, 1], [1, 0]], 3) and not are_multi_hot([[0, 1], []], 2) and not are_multi_hot([], 2)
    assert not are_multi_hot([[0, 1], [1]]) and not are_multi_hot([[0, 2], [1, 0]]) and not are_multi_hot([["0", "1"]])


def test_an_unknown_label_in_a_set_is_a_defect_or_dropped(data):
    data("test.csv", [("x", "late, lost"), ("y", "lost")])
    folder = data("train.csv", rows(CELLS))
    message = refusal(folder, label_separator=",")
    assert message.startswith("x.toml: 2 defects") and 'test.csv, line 2: unknown label "lost"' in message
    found = load(folder, label_separator=",", labels=["late", "refund", "rude"], other="drop")
    assert found.test.labels.tolist() == [[1, 0, 0], [0, 0, 0]]


def test_labels_of_a_set_are_renamed_too(data):
    found = load(data("train.csv", rows(CELLS)), label_separator=",", rename={"rude": "refund"})
    assert found.label_names == ["late", "refund"]
