"""Which label of a file is which class of a published classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.config import DataSection
from minilm.data.label_matching import match_labels
from minilm.data.other_files import load_rows_matched, load_scores
from minilm.errors import UserError

MOODS = ("negative", "neutral", "positive")
UNNAMED = ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize(
    ("written", "classes", "expected"),
    [
        (MOODS, MOODS, MOODS),
        (("POSITIVE", "Neutral"), MOODS, ("positive", "neutral")),
        (("not spam", "spam"), ("spam", "NOT_SPAM"), ("NOT_SPAM", "spam")),
        (("0", "2"), MOODS, ("negative", "positive")),
        (("LABEL_2", "label_1"), MOODS, ("positive", "neutral")),
        (("1.0", "0.0"), UNNAMED, ("LABEL_1", "LABEL_0")),
        (("label 1",), UNNAMED, ("LABEL_1",)),
        (("1", "0"), ("0", "1"), ("1", "0")),
        (("A", "a"), ("a", "A"), ("A", "a")),  # case tells them apart
    ],
)
def test_labels_are_matched_by_name_or_number(
    written: tuple[str, ...], classes: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert match_labels(written, classes) == dict(zip(written, expected, strict=True))


@pytest.mark.parametrize(
    ("written", "classes", "known"),
    [
        (("good", "neutral"), MOODS, {"neutral": "neutral"}),
        (("1", "neutral"), MOODS, {"neutral": "neutral"}),  # all by name, or all by number
        (("1", "2", "3"), MOODS, {}),
        (("1", "2"), ("1 star", "2 stars"), {}),
        (("1", "2"), ("2", "3"), {"2": "2"}),
        (("positive", "negative"), UNNAMED, {}),
        (("Good", "good"), ("good", "bad"), {"good": "good"}),
        (("Good",), ("good", "GOOD"), {}),
        (("-1",), MOODS, {}),
    ],
)
def test_what_could_be_two_things_is_not_matched(
    written: tuple[str, ...], classes: tuple[str, ...], known: dict[str, str]
) -> None:
    assert match_labels(written, classes) == known


@given(st.lists(st.text("abAB_ 01", min_size=1, max_size=4), unique=True, min_size=2), st.data())
def test_a_class_is_always_matched_with_itself_and_never_two_labels_with_one(names: list[str], data: st.DataObject):
    written = data.draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
    assert match_labels(written, names) == {label: label for label in written}
    others = data.draw(st.lists(st.text("abAB_ 01", min_size=1, max_size=4), unique=True, min_size=1))
    found = match_labels(others, names)
    assert len(set(found.values())) == len(found) and set(found.values()) <= set(names)


# --- Rows of a file ---


def write(folder: Path, *lines: str) -> Path:
    path = folder / "texts.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_have_the_numbers_of_the_models_classes(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label", "a,Positive", "b,NEGATIVE", "c,Positive")
    rows, taken = load_rows_matched(path, DataSection(), MOODS)
    assert rows.labels.tolist() == [2, 0, 2] and taken == {"Positive": "positive", "NEGATIVE": "negative"}
    rows, _ = load_rows_matched(path, DataSection(labels=["NEGATIVE", "?", "Positive"]), UNNAMED)
    assert rows.labels.tolist() == [2, 0, 2]
    renamed = DataSection(rename={"Positive": "LABEL_1", "NEGATIVE": "LABEL_0"})
    assert load_rows_matched(path, renamed, UNNAMED)[0].labels.tolist() == [1, 0, 1]
    assert load_rows_matched(path, DataSection(other="drop"), ("positive", "x"))[0].labels.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("section", "lines", "expected"),
    [
        (DataSection(label_separator=";"), ["text,label", "a,Joy;FEAR", "b,"], [[0, 1, 1], [0, 0, 0]]),
        (DataSection(label_separator=","), ["text,label", 'a,"[0, 1, 1]"', 'b,"[1, 0, 0]"'], [[0, 1, 1], [1, 0, 0]]),
        (DataSection(label_columns=["JOY", "anger", "fear"]), ["text,JOY,anger,fear", "a,1,0,1"], [[0, 1, 1]]),
    ],
)  # fmt: skip
def test_several_labels_a_text_are_put_in_the_models_order(
    section: DataSection, lines: list[str], expected: list[list[int]], tmp_path: Path
) -> None:
    rows, _ = load_rows_matched(write(tmp_path, *lines), section, ("anger", "fear", "joy"))
    assert rows.labels.tolist() == expected


@pytest.mark.parametrize(
    ("section", "lines", "message"),
    [
        (DataSection(), ["text,label", "a,good", "b,neutral"], "labels good are none of the model's: negative"),
        (DataSection(other="drop"), ["text,label", "a,good"], "its labels good are none of the model's"),
        (DataSection(labels=["bad"]), ["text,label", "a,bad"], "data.labels must name the model's labels in its order"),
        (DataSection(label_columns=["neutral", "positive"]), ["text,neutral,positive", "a,1,0"],
         "no column of data.label_columns is the model's label negative"),
        (DataSection(label_separator=","), ["text,label", 'a,"[0, 1]"'], "lists of 2 numbers, and the model has 3"),
        (DataSection(), ["text,stars", "a,3"], 'no column "label"'),
    ],
)  # fmt: skip
def test_what_cannot_be_matched_is_one_line(
    section: DataSection, lines: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_rows_matched(write(tmp_path, *lines), section, MOODS)
    assert len(str(error.value).splitlines()) == 1


def test_scores_are_read_as_numbers(tmp_path: Path) -> None:
    rows, values = load_scores(write(tmp_path, "text,label", "a,0.5", "b,-3"), DataSection())
    assert rows.texts == ["a", "b"] and values.tolist() == [0.5, -3.0] and np.array_equal(rows.labels, [0, 0])
    with pytest.raises(UserError, match='column "label" must be a number, got "high"'):
        load_scores(write(tmp_path, "text,label", "a,0.5", "b,high"), DataSection())
    with pytest.raises(UserError, match='column "label" must be a number, got "nan"'):
        load_scores(write(tmp_path, "text,label", "a,nan"), DataSection())
