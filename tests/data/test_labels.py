"""Labels: names or numbers in one order, and no column that holds no labels."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.loading import ROWS, load, refusal


@pytest.mark.parametrize(
    ("cells", "labels", "names", "numbers"),
    [
        (["b", "a", " b "], [], ["a", "b"], [1, 0, 1]),
        (["10", "9", "10"], [], ["9", "10"], [1, 0, 1]),
        (["0", "2", "1"], ["no", "maybe", "yes"], ["no", "maybe", "yes"], [0, 2, 1]),
        (["yes", "no", "1"], ["no", "yes"], ["no", "yes"], [1, 0, 1]),
        (["1", "3", "1"], ["3", "1"], ["3", "1"], [1, 0, 1]),
    ],
)
def test_labels_are_names_or_numbers_in_one_order(data, cells, labels, names, numbers):
    data("train.csv", [(f"t{i}", cell) for i, cell in enumerate(cells)])
    data("dev.csv", [("d", cells[0])])
    found = load(data("test.csv", [("u", cells[1])]), labels=labels)
    assert found.label_names == names and found.train.labels.tolist() == numbers
    assert found.train.labels.dtype == np.int64
    assert (found.validation.labels.tolist(), found.test.labels.tolist()) == ([numbers[0]], [numbers[1]])


def test_numbers_of_every_type_are_one_label(data):
    data("train.jsonl", [("a", 1), ("b", 1.0), ("c", True), ("d", "1"), ("e", 0), ("f", "0")])
    data("dev.parquet", [("g", 1.0)])
    found = load(data("test.csv", [("h", 0)]))
    assert found.label_names == ["0", "1"] and found.train.labels.tolist() == [1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("train", "cells", "labels"),
    [
        (["False", "True"], [False, True, "true", "0", 1], []),
        (["false", "true"], [False, True, "True", "0", 1], []),
        (["0", "1"], [False, True, "True", "false", 1.0], []),
        ([False, True], ["False", "True", "true", False, 1], []),
        (["False", "True"], [False, True, "False"], ["True", "False"]),
    ],
)
def test_false_and_true_are_one_label_in_every_format(data, train, cells, labels):
    if isinstance(train[0], bool):
        data("train.jsonl", [(f"t{i}", cell) for i, cell in enumerate(train)])
    else:
        data("train.csv", [(f"t{i}", cell) for i, cell in enumerate(train)])
    data("dev.csv", [("d", str(train[0]))])
    found = load(data("test.jsonl", [(f"u{i}", cell) for i, cell in enumerate(cells)]), labels=labels)
    want = [str(cell).lower() in ("true", "1", "1.0") for cell in cells]
    true = [name.lower() in ("true", "1") for name in found.label_names]
    assert [true[number] for number in found.test.labels] == want


def test_among_other_names_false_and_true_are_names(data):
    data("train.csv", [("a", "true"), ("b", "false"), ("c", "half")])
    data("dev.csv", [("d", "half")])
    said = refusal(data("test.jsonl", [("e", True)]))
    assert 'unknown label "1": the training data has false, half, true' in said


def test_a_class_without_a_name_is_refused(data):
    said = refusal(data("train.csv", ROWS), labels=["", "a", "b"])
    assert "data.labels: '' is empty" in said


@pytest.mark.parametrize(
    ("train", "test", "names"),
    [
        (["1.0", "2.0", "3.0"], ["1", "2", "3"], ["1.0", "2.0", "3.0"]),
        (["1", "2", "3"], ["1.0", "2.00", "3"], ["1", "2", "3"]),
        (["1", "2.0", "10.0", "1.0"], ["1.0", "2", "10"], ["1", "2", "10"]),
    ],
)
@pytest.mark.parametrize("name", ["test.csv", "test.jsonl"])
def test_whole_numbers_with_and_without_decimals_are_one_label_in_text_too(data, train, test, names, name):
    data("train.csv", [(f"t{i}", label) for i, label in enumerate(train)])
    data("dev.csv", [("d", train[0])])
    found = load(data(name, [(f"u{i}", label) for i, label in enumerate(test)]))
    assert found.label_names == names and found.test.labels.tolist() == [0, 1, 2]
    assert found.train.labels.tolist()[:3] == [0, 1, 2] and set(found.train.labels.tolist()[3:]) <= {0}


def test_among_names_that_are_no_numbers_1_and_1_0_stay_two(data):
    data("train.csv", [("a", "1"), ("b", "1.0"), ("c", "1.10"), ("d", "beta")])
    data("dev.csv", [("e", "1.0")])
    found = load(data("test.csv", [("f", "1")]))
    assert found.label_names == ["1", "1.0", "1.10", "beta"]
    assert (found.validation.labels.tolist(), found.test.labels.tolist()) == ([1], [0])
    assert 'line 2: unknown label "1.00"' in refusal(data("test.csv", [("f", "1.00")]))  # of which of the two?


@pytest.mark.parametrize(
    ("names", "listed", "cell"),
    [
        (["01", "02", "03"], False, "1"),
        (["01", "02", "03"], True, "1"),
        (["1.5", "2.5"], True, "1"),
        (["bad", "good"], False, "1"),
        (["bad", "good"], False, "1.0"),
    ],
)
def test_a_number_is_no_place_among_numbers_or_in_an_order_that_nobody_gave(data, names, listed, cell):
    data("train.csv", [(f"t{i}", names[i % len(names)]) for i in range(12)])
    folder = data("test.csv", [("u", cell)])
    message = refusal(folder, labels=names if listed else [])
    assert f'test.csv, line 2: unknown label "{cell}"' in message
    assert ("list the labels in order in data.labels" in message) == (names[0] == "bad")


def test_a_place_may_be_written_with_decimals(data):
    folder = data("train.csv", [(f"t{i}", f"{i % 2}.0") for i in range(30)])
    assert sorted(set(load(folder, labels=["bad", "good"]).train.labels.tolist())) == [0, 1]


def test_a_label_of_thousands_of_digits_is_a_name(data):
    long = "1" * 5000  # more than Python turns into a number
    assert load(data("train.csv", [(f"t{i}", (long, "2")[i % 2]) for i in range(18)])).label_names == [long, "2"]


def test_a_label_only_in_the_test_split_is_an_error_with_its_line(data):
    data("train.csv", ROWS)
    message = refusal(data("test.csv", [("x", "good"), ("y", "goood")]))
    assert "test.csv, line 3" in message and 'unknown label "goood" (did you mean "good"?)' in message
    assert "the training data has bad, good, so-so" in message


def test_one_class_only_is_an_error(data):
    message = refusal(data("train.csv", [(f"t{i}", "a") for i in range(30)]))
    assert message.startswith("x.toml: ") and 'all 24 training rows have the label "a"' in message


def test_a_class_without_training_rows_is_a_warning(data):
    found = load(data("train.csv", ROWS), labels=["bad", "good", "so-so", "great"])
    assert found.warnings == ["no training row has the label great"]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (["joy", "love"], 'is a list; if a text has several labels, add: \'data.label_separator=","\''),
        ([], "is a list"),
        ({"a": 1}, "is an object, not a name or a number"),
        (float("inf"), "is inf, not a finite number"),
        (float("nan"), "is missing"),
        ("NaN", "is NaN, not a finite number"),
        (" -Infinity", "is  -Infinity, not a finite number"),
        ("a\ud83d", "contains an invalid Unicode surrogate"),
        ("a\nb", "contains a line break"),
        ("a\rb", "contains a line break"),
        ("a\u2028b", "contains a line break"),
    ],
)
def test_a_label_that_is_no_name_and_no_number_is_a_defect(data, cell, said):
    message = refusal(data("train.jsonl", [("a", cell), *ROWS]))
    assert message.startswith("x.toml: 1 defect") and f'line 1: the label (column "label") {said}' in message


def test_a_label_in_bytes_is_a_defect(data):
    message = refusal(data("train.parquet", [(f"t{i}", (b"x", b"y")[i % 2]) for i in range(30)]))
    assert "row 1: the label (column \"label\") is b'x', which is bytes; save it as text" in message


@pytest.mark.parametrize("key", ["labels", "label_columns"])
def test_a_listed_label_that_no_file_can_hold_is_refused_with_its_key(data, key):
    surrogate = "'go\\ud83d' contains an invalid Unicode surrogate"
    for name, said in [("go\nod", "'go\\nod' contains a line break"), ("go\ud83d", surrogate)]:
        folder = data("train.jsonl", [("a", 0, 1, "bad")] * 30, ("text", name, "bad", "label"))
        assert refusal(folder, **{key: [name, "bad"]}).startswith(f"x.toml: data.{key}: {said}")


def test_a_name_that_looks_like_no_number_may_be_listed(data):
    found = load(data("train.csv", [(f"t{i}", ("nan", "mum")[i % 2]) for i in range(30)]), labels=["mum", "nan"])
    assert found.label_names == ["mum", "nan"]


MEASURED = [f"{i / 7:.3f}" for i in range(60)]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (MEASURED, 'the labels (column "label") look like measured values, such as 0.143; minilm does classification'),
        ([f"a text of its own {i}" for i in range(60)], "60 different labels in 60 rows"),
        ([*range(55), 1, 1, 1, 2, 2], "55 different labels in 60 rows"),
        (MEASURED[:3] * 20, 'the labels (column "label") look like measured values, such as 0.143'),
        ([(1, 2.5)[i % 2] for i in range(60)], 'the labels (column "label") look like measured values, such as 2.5'),
    ],
)
def test_a_column_of_texts_or_of_measured_values_is_refused_unless_it_is_listed(data, tmp_path, cells, said):
    folder = data("train.jsonl", [(f"t{i}", cell) for i, cell in enumerate(cells)])
    message = refusal(folder)
    assert message.startswith(f"x.toml: {tmp_path / 'train.jsonl'}: {said}")
    assert message.endswith("list the labels in data.labels" if "different" in said else "list them in data.labels")
    names = list(dict.fromkeys(map(str, cells)))
    assert load(folder, labels=names).label_names == names


@pytest.mark.parametrize("cells", [["1.0", "2.0"], ["1", "high"], ["0.5", "high"], ["rare", *["a", "b"] * 3]])
def test_whole_numbers_and_rare_labels_are_labels(data, cells):
    rows = [(f"t{i}", cells[0] if i == 0 else cells[1 + i % (len(cells) - 1)]) for i in range(30)]
    data("dev.csv", rows[1:])
    data("test.csv", rows[1:])
    assert load(data("train.csv", rows)).label_names == sorted(set(cells))


def test_of_few_rows_each_may_have_a_label_of_its_own(data):
    data("train.csv", [(f"t{i}", f"label {i}") for i in range(19)])
    data("dev.csv", [("d", "label 1")])
    assert len(load(data("test.csv", [("u", "label 2")])).label_names) == 19
    many = [(f"t{i}", f"label {i // 10}") for i in range(190)]
    assert len(load(data("train.csv", many), shots=1).train) == 19


def test_several_labels_a_text_are_columns_of_0_and_1(data):
    rows = [(f"t{i}", i % 2, int(i % 3 == 0), True) for i in range(20)]
    columns = ("text", "joy", "fear", "trust")
    found = load(data("train.parquet", rows, columns), label_columns=["joy", "fear", "trust"])
    assert found.multi_label and found.label_names == ["joy", "fear", "trust"]
    assert found.train.labels.shape == (16, 3) and set(found.train.labels.ravel().tolist()) == {0, 1}
    i = int(found.train.texts[5].removeprefix("t"))
    assert found.train.labels[5].tolist() == [i % 2, int(i % 3 == 0), 1]


@pytest.mark.parametrize(("no", "yes"), [("False", "True"), ("false", "true"), ("FALSE", "TRUE"), ("0.0", "1.0")])
@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.jsonl"])
def test_0_and_1_may_be_written_as_programs_write_them(data, name, no, yes):
    rows = [(f"t{i}", (no, yes)[i % 2], yes) for i in range(20)]
    found = load(data(name, rows, ("text", "joy", "fear")), label_columns=["joy", "fear"])
    odd = [int(text[1:]) % 2 for text in found.train.texts]
    assert found.train.labels.tolist() == [[bit, 1] for bit in odd] and set(odd) == {0, 1}
