"""Warnings: what is probably not meant is said before training, with counts and what to type."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data.splits import number_texts
from tests.data.loading import ROWS, load, refusal


def warned(found, words: str) -> str:
    """The one warning with these words."""
    warnings = [warning for warning in found.warnings if words in warning]
    assert len(warnings) == 1, found.warnings
    return warnings[0]


def test_labels_that_differ_in_case_alone_are_named_with_the_command_that_joins_them(data):
    cells = ["pos", "neg", "pos", "Pos", "neg ", "not-good", "not good"]
    folder = data("train.jsonl", [(f"t{i}", cells[i % 7]) for i in range(140)])
    warning = warned(load(folder), "differ only in spelling")
    assert '"pos" (32), "Pos" (16)' in warning and '"not good" (16), "not-good" (16)' in warning
    assert """'data.rename={ "Pos" = "pos", "not-good" = "not good" }'""" in warning
    joined = load(folder, rename={"Pos": "pos", "not-good": "not good"})
    assert joined.label_names == ["neg", "not good", "pos"]
    assert not any("spelling" in warning for warning in joined.warnings)


@pytest.mark.parametrize("dates", [[f"2024-03-{day:02d}" for day in range(1, 29)], ["1/2/24", "2/2/24"]])
def test_dates_as_labels_are_named(data, dates):
    found = load(data("train.csv", [(f"t{i}", dates[i % len(dates)]) for i in range(280)]))
    assert f"the labels look like dates, such as {found.label_names[0]}: is" in warned(found, "dates")


def test_a_class_with_one_row_is_named(data):
    assert "the label rare has only one training row" in warned(
        load(data("train.csv", [*ROWS * 3, ("odd", "rare")])), "only"
    )
    many = [*((f"t{i}", f"label {i % 20}") for i in range(400)), *((f"odd {i}", f"rare {i}") for i in range(14))]
    message = warned(load(data("train.csv", many)), "only one training row")
    assert message.startswith("14 labels have only one training row: rare 0") and "and 4 more" in message


def test_many_labels_with_few_rows_are_counted(data):
    rows = [(f"t{i}", f"label {i % 40}") for i in range(120)]
    warning = warned(load(data("train.csv", rows)), "are few for 40 labels")
    assert warning == "96 training rows are few for 40 labels: 2.4 rows per label"


def test_a_test_split_of_one_class_says_nothing(data):
    rows = [(f"t{i}", "ham" if i % 8 else "spam") for i in range(17)]
    warning = warned(load(data("train.csv", rows)), "test texts")
    assert warning == (
        "all 2 test texts have the label ham, so metrics on this split mean nothing: give more rows, "
        "or raise data.test_fraction"
    )


def test_a_class_that_a_split_lacks_is_named(data):
    data("test.csv", [("x", "good"), ("y", "bad")])
    found = load(data("train.csv", ROWS))
    assert "no test text has the label so-so, so it cannot be evaluated there" in found.warnings


# Empty rows, other labels, renaming


def test_empty_rows_are_skipped_and_counted_when_asked(data, tmp_path):
    rows = [*ROWS, ("", "good"), ("x", ""), (" ", "")]
    folder = data("train.csv", rows)
    assert "data.empty=skip drops such rows" in refusal(folder)
    found = load(folder, empty="skip")
    assert sum(map(len, (found.train, found.validation, found.test))) == 30
    assert found.notes == [
        f"{tmp_path / 'train.csv'}: 2 rows are dropped: the text is empty (data.empty=skip)",
        f"{tmp_path / 'train.csv'}: 1 row is dropped: the label is missing (data.empty=skip)",
    ]


def test_empty_cells_of_label_columns_are_skipped_when_asked(data):
    rows = [(f"t{i}", i % 2, "" if i == 3 else 1) for i in range(21)]
    folder = data("train.csv", rows, ("text", "joy", "fear"))
    assert 'column "fear" is missing' in refusal(folder, label_columns=["joy", "fear"])
    found = load(folder, label_columns=["joy", "fear"], empty="skip")
    assert sum(map(len, (found.train, found.validation, found.test))) == 20


def test_rows_with_other_labels_are_dropped_and_counted_when_asked(data, tmp_path):
    folder = data("train.csv", ROWS)
    message = refusal(folder, labels=["bad", "good"])
    assert "10 defects" in message and "data.other=drop drops all rows with other labels" in message
    found = load(folder, labels=["bad", "good"], other="drop")
    assert found.label_names == ["bad", "good"] and len(found.train) == 16
    path = tmp_path / "train.csv"
    assert found.notes == [f"{path}: 10 rows are dropped: the label is not in data.labels (data.other=drop)"]


def test_labels_are_renamed_by_a_table(data):
    rows = [(f"t{i}", i % 3) for i in range(30)]
    names = {"0": "ham", "1": "spam", "2": "spam"}
    found = load(data("train.csv", rows), rename=names)
    assert found.label_names == ["ham", "spam"] and np.bincount(found.train.labels).tolist() == [8, 16]
    floats = [(text, f"{label}.0") for text, label in rows]
    assert load(data("train.csv", floats), rename=names).label_names == ["ham", "spam"]
    listed = load(data("train.csv", rows), rename=names, labels=["spam", "ham"])
    assert np.bincount(listed.train.labels).tolist() == [16, 8]
    assert 'data.rename: no training row has the label "ham"' in refusal(data("train.csv", rows), rename={"ham": "x"})


def test_more_labels_than_the_limit_are_refused_before_anything_else(data):
    folder = data("train.csv", [(f"t{i}", f"label {i // 3}") for i in range(300)])
    message = refusal(folder, max_labels=99)
    assert message.startswith("x.toml: the data have 100 labels, more than 99: label 0, label 1, ")
    assert "and 90 more" in message and "data.max_labels=100" in message
    assert len(load(folder, max_labels=100).label_names) == 100


def test_a_text_above_a_megabyte_is_a_defect_unless_windows_are_asked_for(data):
    folder = data("train.jsonl", [*ROWS, ("x" * 1_000_001, "good")])
    message = refusal(folder)
    assert 'train.jsonl, line 31: the text (column "text") has 1,000,001 characters, more than 1,000,000' in message
    assert "data.long_texts=windows" in message
    assert len(load(folder, long_texts="windows").train) == 25


def test_a_test_file_without_labels_names_predict(data, tmp_path):
    data("train.csv", ROWS)
    message = refusal(data("test.csv", [("a",)], ("text",)))
    assert 'test.csv: has no column "label" (data.label)' in message
    assert f"data.source= data.train={tmp_path / 'train.csv'}; to classify the" in message
    assert f"minilm predict RUN --file {tmp_path / 'test.csv'}" in message
    assert len(load("", train=str(tmp_path / "train.csv")).test) == 3


# Equal texts


def test_equal_texts_stay_on_one_side_of_a_split_that_is_made(data):
    rows = [(f"text {i % 70}", ("bad", "good")[i % 2]) for i in range(140)]
    found = load(data("train.csv", rows))
    sides = [set(part.texts) for part in (found.train, found.validation, found.test)]
    assert sum(map(len, sides)) == 70 == len(set.union(*sides))
    assert 10 <= len(found.test) <= 16 and not any("also in" in warning for warning in found.warnings)


def test_equal_texts_and_groups_stay_together_at_once(data):
    rows = [(f"text {i % 50}", ("bad", "good")[i % 2], f"g{i // 2}") for i in range(200)]
    found = load(data("train.csv", rows, ("text", "label", "who")), group="who")
    sides = [set(part.texts) for part in (found.train, found.validation, found.test)]
    assert not any(" in both " in warning or "also in" in warning for warning in found.warnings)
    assert sum(map(len, sides)) == 50 == len(set.union(*sides))


def test_where_equal_texts_would_empty_a_split_rows_are_split_as_before_with_the_warning(data):
    rows = [("the same", ("bad", "good")[i % 2]) for i in range(40)]
    found = load(data("train.csv", rows))
    assert len(found.test) == 4 and any("also in the train split" in warning for warning in found.warnings)


@given(st.lists(st.sampled_from("abcdef"), min_size=1), st.booleans())
def test_texts_are_numbered_by_their_first_row(texts, paired):
    pairs = [text.upper() for text in texts] if paired else None
    assert number_texts(texts, pairs).tolist() == [texts.index(text) for text in texts]


def test_texts_of_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr("minilm.data.splits.hash", lambda text: 7, raising=False)
    assert number_texts(["a", "b", "a", "c", "b"]).tolist() == [0, 1, 0, 3, 1]


def test_all_rows_may_be_for_training(data):
    found = load(data("train.csv", ROWS), test_fraction=0.0)
    assert (len(found.train), len(found.validation), len(found.test)) == (27, 3, 0)


def test_each_row_is_tested_in_one_fold_with_its_equals(data):
    rows = [(f"text {i % 90}", ("bad", "good", "so-so")[i % 3]) for i in range(120)]
    folder, tested = data("train.csv", rows), []
    for fold in range(1, 5):
        found = load(folder, folds=4, fold=fold)
        assert len(found.test) + len(found.train) + len(found.validation) == 120 and 27 <= len(found.test) <= 33
        assert not set(found.test.texts) & {*found.train.texts, *found.validation.texts}
        tested += found.test.texts
    assert sorted(tested) == sorted(text for text, _ in rows)


@pytest.mark.parametrize("files", [["train.csv"], ["train.csv", "validation.csv", "test.csv"]])
@pytest.mark.parametrize("section", [{"labels": ["a", "b"], "other": "drop"}, {"empty": "skip"}])
def test_a_config_that_drops_every_training_row_is_refused(data, files, section):
    rows = [("", label) for _, label in ROWS] if "empty" in section else ROWS
    for file in files:
        path = data(file, rows)
    message = refusal(path, **section)
    assert "train.csv: no training row is left; see data.other and data.empty" in message
