import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.reporting.tables import (
    duration,
    escape,
    markdown_table,
    metric_columns,
    metric_name,
    short_count,
    text_table,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"),
        (0.0211, "21 ms"),
        (0.0996, "0.10 s"),
        (0.42, "0.42 s"),
        (9.996, "10.0 s"),
        (59.96, "1 min 00 s"),
        (252, "4 min 12 s"),
        (3599.7, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (None, "-"),
    ],
)
def test_durations_are_in_the_unit_a_person_would_choose(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00k"),
        (15321, "15.3k"),
        (5_728_003, "5.73M"),
        (999_999, "1.00M"),
        (141_247_491, "141M"),
        (1_548_145_155, "1.55B"),
        (None, "-"),
    ],
)
def test_large_numbers_keep_three_digits(number, text):
    assert short_count(number) == text


def test_metrics_have_the_names_people_use():
    assert [metric_name(key) for key in ("macro_f1", "mcc", "some_new_one")] == [
        "macro F1",
        "MCC",
        "some new one",
    ]
    assert metric_columns(False) == ("loss", "accuracy", "macro_f1", "mcc")
    assert "jaccard" in metric_columns(True)


def test_a_text_table_aligns_words_left_and_numbers_right():
    assert text_table(["run", "test\nloss"], [["a", "0.5"], ["longer", "10.25"]]) == (
        "         test\nrun      loss\n-------------\na         0.5\nlonger  10.25"
    )


def test_a_markdown_table_says_how_to_align():
    assert markdown_table(["a", "b\nc"], [["x", "1"]]) == "| a | b c |\n|---|---:|\n| x | 1 |"


cells = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=8)


@given(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=5))
def test_all_columns_of_a_text_table_end_at_one_place(rows):
    header, rule, *body = text_table(["one", "two", "three"], rows).splitlines()
    assert header.endswith("three")
    for row, line in zip(rows, body, strict=True):
        assert len(line) == len(rule) and line.startswith(row[0]) and line.endswith(row[2])


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("a | b\n  c", r"a \| b c"),
        ("*x* _y_ `z`", r"\*x\* \_y\_ \`z\`"),
        ("label_name", "label_name"),
        ("<b>&amp;", r"\<b\>\&amp;"),
        ("$1 and $2", r"\$1 and \$2"),
        ("[a](b)", r"\[a\](b)"),
    ],
)
def test_anybodys_text_shows_as_it_is_in_markdown(text, markdown):
    assert escape(text) == markdown


def test_names_are_shortened_until_the_table_fits_its_place():
    rows = [["a run with a name that is far too long for it", "gpt2, from scratch", "0.1234"], ["b", "bert", "0.5"]]
    wide = text_table(("run", "model", "accuracy"), rows, left=2)
    fitted = text_table(("run", "model", "accuracy"), rows, left=2, width=50)
    assert max(map(len, wide.splitlines())) > 50 and max(map(len, fitted.splitlines())) == 50
    assert "a run" in fitted and "…" in fitted and "0.1234" in fitted
    narrow = text_table(("run", "model", "accuracy"), rows, left=2, width=10)
    assert "0.1234" in narrow and max(map(len, narrow.splitlines())) == 12 + 12 + 8 + 4
