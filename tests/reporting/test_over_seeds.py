"""What is said of results over seeds: intervals with their method, and what may be called significant."""

from __future__ import annotations

import math

import pytest

from minilm.evaluation.statistics import Interval, Paired
from minilm.reporting.over_seeds import (
    compare_all,
    difference_bounds,
    interval_of,
    metric_bounds,
    reached,
    shown_p,
    significance,
    versus_table,
)
from minilm.reporting.over_seeds import (
    tested as words_of,
)


def test_every_metric_has_its_range():
    assert metric_bounds("accuracy") == metric_bounds("jaccard") == (0, 1)
    assert metric_bounds("mcc") == (-1, 1) and metric_bounds("loss") == (0, math.inf)
    assert metric_bounds("perplexity") == (1, math.inf)
    assert difference_bounds("accuracy") == (-1, 1) and difference_bounds("mcc") == (-2, 2)
    assert difference_bounds("loss") == (-math.inf, math.inf)


def test_what_was_reached_names_the_method_of_its_interval():
    assert reached([0.80, 0.82, 0.81], "accuracy") == "0.810 (95% interval 0.785 to 0.835 over 3 seeds)"
    text = reached([0.9, 0.99], "accuracy")
    assert text.startswith("0.945 (95% interval 0.0") and text.endswith(" over 2 seeds, on the logit scale)")
    assert reached([0.5], "accuracy") == "0.500 (one seed)" and reached([], "accuracy") == "-"
    assert reached([0.5, 0.5], "accuracy") == "0.500 (the same with all 2 seeds)"
    assert "on the log scale" in reached([0.1, 2.0], "loss") and "on the" not in reached([2.0, 2.1], "perplexity")


@pytest.mark.parametrize(
    ("pairs", "p", "permutation", "text"),
    [
        (5, 0.049, 0.0625, "is significant at 5%"),
        (4, 0.049, 0.125, "4 seeds are too few to call significant (at least 5 are needed)"),
        (3, 0.06, 0.25, "is not significant at 5%"),
        (9, 0.05, 0.01, "is not significant at 5%"),
    ],
)
def test_few_seeds_are_not_called_significant(pairs, p, permutation, text):
    assert significance(Paired(0.1, Interval(0.0, 0.2), p, permutation, pairs), p) == text


def test_the_text_of_a_test_has_its_interval_and_its_correction():
    pair = Paired(-0.02, Interval(-0.03, -0.01), 0.01, 0.25, 3)
    assert words_of(pair, 0.01, 1) == "95% interval -0.030 to -0.010 over 3 seeds; paired t test: p = 0.010"
    corrected = words_of(pair, 0.02, 2, unsigned=True)
    assert corrected.startswith("95% interval 0.010 to 0.030 over 3 seeds, of this comparison alone; paired t test, ")
    assert interval_of(pair._replace(difference=0.02, interval=Interval(0.01, 0.03)), unsigned=True).endswith(
        "0.010 to 0.030"
    )
    assert interval_of(pair._replace(method="on the logit scale")) == (
        "95% interval, on the logit scale, -0.030 to -0.010"
    )


def test_only_the_seeds_that_both_have_are_compared():
    pairs = {"x": ({1: 0.1, 2: 0.2, 3: 0.3}, {2: 0.3, 3: 0.5, 4: 0.9}), "y": ({1: 0.1}, {1: 0.2})}
    found = compare_all(pairs, "accuracy")
    assert list(found) == ["x"] and found["x"][0].difference == pytest.approx(0.15) and found["x"][0].pairs == 2


def test_the_table_names_the_method_of_intervals_that_would_leave_the_range():
    wide = compare_all({"x": ({1: 0.1, 2: 0.5}, {1: 0.2, 2: 0.9})}, "accuracy")
    table = versus_table(wide, ["run"], lambda key: [key])
    assert "Intervals that would leave the range of the metric are on the logit scale." in table.note
    low, _, high = table.rows[0][2].partition(" to ")
    assert -1 <= float(low) < float(high) <= 1
    narrow = compare_all({"x": ({1: 0.1, 2: 0.2}, {1: 0.2, 2: 0.31})}, "accuracy")
    assert "range" not in versus_table(narrow, ["run"], lambda key: [key]).note


def test_the_table_says_what_was_corrected_and_what_stands_in_for_students_t():
    def table(pairs):
        return versus_table(compare_all(pairs, "accuracy"), ["run"], lambda key: [key])

    apart, alike = ({1: 0.1, 2: 0.2}, {1: 0.2, 2: 0.31}), ({1: 0.1, 2: 0.2}, {1: 0.2, 2: 0.3})
    one = table({"x": apart})
    assert "Corrected" not in one.note and "-: all seeds" not in one.note and one.rows[0][3] != "-"
    assert one.note.endswith("With 2 seeds the permutation test cannot get below 0.5000.")
    two = table({"x": apart, "y": alike})
    assert "Corrected: for 2 comparisons at once, after Holm." in two.note
    assert "-: all seeds have the same difference" in two.note and two.rows[1][2:4] == ["-", "-"]


def test_small_p_values_are_not_written_out():
    assert [shown_p(p) for p in (1.0, 0.0123, 1e-4, 0.99e-4)] == ["1.0000", "0.0123", "0.0001", "below 0.0001"]


def test_no_difference_has_the_interval_as_it_is():
    pair = Paired(0.0, Interval(-0.1, 0.2), 1.0, 1.0, 5)
    assert interval_of(pair, unsigned=True) == "95% interval -0.100 to 0.200"
