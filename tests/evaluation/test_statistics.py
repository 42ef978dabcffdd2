import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from minilm.evaluation.statistics import (
    BoundedInterval,
    Paired,
    bootstrap_interval,
    bounded_t_interval,
    confusion_interval,
    deviation,
    folds_interval,
    holm,
    is_significant,
    mcnemar,
    mean,
    paired,
    permutation_test,
    t_interval,
    t_probability,
    t_quantile,
    wilson_interval,
)

numbers = st.floats(-1e3, 1e3, allow_subnormal=False)


@given(st.floats(1e-4, 1e4), st.integers(1, 60))
def test_students_distribution_is_scipys(t, k):
    assert t_probability(t, k) == pytest.approx(1 - 2 * stats.t.sf(t, k), abs=1e-12)


@given(st.floats(0, 1e-4), st.integers(1, 60))
def test_near_zero_students_distribution_is_its_density_times_the_width(t, k):  # SciPy's is off by 1e-9 there
    assert t_probability(t, k) == pytest.approx(2 * t * stats.t.pdf(0, k), rel=1e-7, abs=1e-300)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9, 30])
def test_students_quantiles_are_scipys(k):
    assert t_quantile(0.95, k) == pytest.approx(stats.t.ppf(0.975, k), rel=1e-9)


@given(st.lists(numbers, min_size=2, max_size=12))
def test_mean_deviation_and_interval_are_scipys(values):
    assert mean(values) == pytest.approx(np.mean(values), abs=1e-9)
    assert deviation(values) == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    found = t_interval(values)
    if found is not None:
        assert found == pytest.approx(stats.t.interval(0.95, len(values) - 1, np.mean(values), error), abs=1e-6)
    assert (found is None) == (np.std(values, ddof=1) <= 1e-9 * max(map(abs, values)))


@pytest.mark.parametrize("values", [[], [0.9], [0.9, 0.9], [0.1 + 0.2, 0.3, 0.3], [0.0, 0.0]])
def test_equal_values_are_no_certainty_and_have_no_interval(values):
    assert t_interval(values) is None


@given(st.integers(1, 2_000).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))))
def test_wilsons_interval_of_a_share_is_scipys(right_of_rows):
    right, rows = right_of_rows
    want = stats.binomtest(right, rows).proportion_ci(method="wilson")
    assert wilson_interval(right / rows, rows) == pytest.approx((want.low, want.high), abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_paired_tests_are_scipys(seed):
    chance = np.random.default_rng(seed)
    n = int(chance.integers(2, 9))
    first = chance.normal(size=n)
    second = first + chance.normal(0.4, 0.5, size=n)
    found = paired(list(first), list(second))
    t = stats.ttest_rel(second, first)
    assert found.t_test == pytest.approx(t.pvalue, abs=1e-12)
    assert found.interval == pytest.approx(tuple(t.confidence_interval()))
    want = stats.permutation_test((second, first), lambda a, b: np.mean(a - b), permutation_type="samples")
    assert found.permutation == pytest.approx(want.pvalue)
    assert (found.pairs, found.difference) == (n, pytest.approx((second - first).mean()))


def test_three_pairs_cannot_convince_the_permutation_test_and_many_are_drawn_at_random():
    assert permutation_test([0.1, 0.2, 0.3]) == 0.25
    assert permutation_test([0.3] * 20) == pytest.approx(1 / 10_001)
    assert permutation_test([0.3, -0.3] * 10) == 1
    assert permutation_test([0.1, 0.2, 0.05, -0.1] * 5) == permutation_test([0.1, 0.2, 0.05, -0.1] * 5)


def test_pairs_that_all_differ_alike_have_no_interval_and_the_permutation_tests_p():
    assert paired([1.0, 2.0], [1.0, 2.0])[:4] == (0, None, 1, 1)
    assert paired([1.0, 2.0], [2.0, 3.0])[:4] == (1, None, 0.5, 0.5)
    assert paired([0.1] * 6, [0.3] * 6).t_test == 2 / 2**6
    # 0.81 - 0.8 and 0.91 - 0.9 differ in the last bit only; 0.1 + 0.2 and 0.3 do not differ.
    assert paired([0.8, 0.9], [0.81, 0.91])[1:4] == (None, 0.5, 0.5)
    assert paired([0.3] * 6, [0.1 + 0.2] * 6)[:4] == (0, None, 1, 1)


def test_bootstrap_of_a_share_is_the_binomials_interval():
    right = np.arange(400) < 300
    low, high = bootstrap_interval(lambda rows: float(right[rows].mean()), 400)
    want = stats.binomtest(300, 400).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((want.low, want.high), abs=0.006)
    cells = confusion_interval(lambda m: float(np.trace(m) / m.sum()), [[200, 60], [40, 100]])
    assert cells == pytest.approx((low, high), abs=0.006)


def test_a_bootstrap_without_spread_has_no_interval():
    assert bootstrap_interval(lambda rows: 1.0, 6) is None
    assert confusion_interval(lambda m: float(np.trace(m) / m.sum()), [[3, 0], [0, 3]]) is None


def test_mcnemar_is_the_binomial_test_of_the_rows_that_differ():
    # The example of Agresti (2002, table 10.1) has 150 and 86 on the two sides.
    first = np.array([True] * 150 + [False] * 86 + [True] * 794)
    second = np.array([False] * 150 + [True] * 86 + [True] * 794)
    assert mcnemar(first, second) == pytest.approx(stats.binomtest(86, 236).pvalue) == mcnemar(second, first)
    assert mcnemar(first, first) == 1
    many = np.arange(9000) < 4600
    assert mcnemar(many, ~many) == pytest.approx(stats.binomtest(4600, 9000).pvalue)


def test_holm_on_a_worked_example():
    # Four p values by hand: 4 x 0.005, 3 x 0.01, then 2 x 0.03, which 1 x 0.04 may not undercut.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1] and holm([]) == []


def test_the_interval_over_folds_is_corrected_for_what_they_share():
    values = [0.8, 0.84, 0.79, 0.86, 0.81]
    low, high = folds_interval(values)
    spread, t = np.std(values, ddof=1), stats.t.ppf(0.975, 4)
    assert (low + high) / 2 == pytest.approx(0.82)
    assert high - 0.82 == pytest.approx(t * spread * np.sqrt(1 / 5 + 48 / 192))
    assert folds_interval([0.8, 0.8]) is None and folds_interval([0.8]) is None


# --- Intervals that stay inside a range ---


def test_an_interval_inside_its_range_is_students():
    values = [0.8, 0.82, 0.81]
    assert bounded_t_interval(values, (0, 1)) == BoundedInterval(t_interval(values))
    assert bounded_t_interval([0.5], (0, 1)) is None and bounded_t_interval([0.5, 0.5], (0, 1)) is None


@given(st.lists(st.floats(0.001, 0.999), min_size=2, max_size=6))
def test_an_interval_never_leaves_its_range_and_holds_the_middle(values):
    found = bounded_t_interval(values, (0, 1))
    if found is None:
        return
    (low, high), method = found
    assert 0 <= low <= high <= 1 and method in ("", "on the logit scale")
    assert low <= max(values) and high >= min(values)
    plain = t_interval(values)
    assert (method == "") == (plain.low >= 0 and plain.high <= 1)


def test_an_interval_on_the_logit_scale_is_students_of_the_logits():
    values = [0.9, 0.99]
    (low, high), method = bounded_t_interval(values, (0, 1))
    logits = t_interval([math.log(x / (1 - x)) for x in values])
    assert method == "on the logit scale"
    assert (low, high) == pytest.approx([1 / (1 + math.exp(-end)) for end in logits])
    # Of another range the same, stretched.
    wide = bounded_t_interval([2 * x - 1 for x in values], (-1, 1)).interval
    assert tuple(wide) == pytest.approx((2 * low - 1, 2 * high - 1))


def test_without_an_upper_end_it_is_of_the_logarithms():
    (low, high), method = bounded_t_interval([1.5, 4.0], (1, math.inf))
    logs = t_interval([math.log(0.5), math.log(3.0)])
    assert method == "on the log scale"
    assert (low, high) == pytest.approx([1 + math.exp(end) for end in logs])
    assert bounded_t_interval([-3.0, 9.0], (-math.inf, math.inf)).method == ""


def test_a_value_at_the_end_has_students_interval_cut_there():
    (low, high), method = bounded_t_interval([0.9, 1.0], (0, 1))
    assert (method, high) == ("cut at the range's end", 1) and low == max(0, t_interval([0.9, 1.0]).low)
    (low, high), method = bounded_t_interval([0.0, 0.1], (0, 1))
    assert (method, low) == ("cut at the range's end", 0) and high == t_interval([0.0, 0.1]).high


def test_a_difference_stays_inside_its_range_too():
    pair = paired([0.1, 0.5], [0.2, 0.9], (-1, 1))
    assert -1 <= pair.interval.low < 0.25 < pair.interval.high <= 1 and pair.method == "on the logit scale"
    assert paired([0.1, 0.5], [0.2, 0.9]).interval == t_interval([0.1, 0.4])
    assert paired([0.1, 0.5], [0.2, 0.9]).method == ""


@pytest.mark.parametrize(
    ("pairs", "p", "permutation", "significant"),
    [
        (5, 0.04, 0.06, True),
        (4, 0.04, 0.06, False),
        (4, 0.04, 0.04, True),
        (9, 0.05, 0.01, False),
        (2, 0.0, 0.5, False),
    ],
)
def test_a_t_test_of_few_pairs_needs_the_permutation_test(pairs, p, permutation, significant):
    assert is_significant(Paired(0.1, None, p, permutation, pairs), p) is significant
