"""How pictures look: axes that do not magnify a text or two into a crash."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.image import imread

from minilm.reporting.style import legend, new_figure, save, short, widen


def limits(low: float, high: float, metric: str, texts: int, **how) -> tuple[float, float]:
    axes = new_figure(4, 3, "x").subplots()
    (axes.set_xlim if how.get("which") == "x" else axes.set_ylim)(low, high)
    widen(axes, metric, texts, **how)
    return axes.get_xlim() if how.get("which") == "x" else axes.get_ylim()


@pytest.mark.parametrize("which", ["x", "y"])
def test_one_text_of_forty_is_an_eighth_of_the_axis(which):
    low, high = limits(0.60, 0.625, "accuracy", 40, which=which)
    assert high - low == pytest.approx(8 / 40) and (low + high) / 2 == pytest.approx(0.6125)


def test_an_axis_that_shows_enough_stays_as_it_is():
    assert limits(0.2, 0.8, "accuracy", 40) == (0.2, 0.8)
    assert limits(0.8, 0.81, "loss", 40) == (0.8, 0.81) == limits(0.8, 0.81, "perplexity", 40)


def test_many_texts_and_unknown_ones_span_a_twentieth_of_the_metric():
    for texts in (0, 100_000):
        assert limits(0.500, 0.501, "accuracy", texts) == pytest.approx((0.4755, 0.5255))
    low, high = limits(0.500, 0.501, "mcc", 0)
    assert high - low == pytest.approx(0.1)  # twice as much: its range is


def test_the_axis_stays_where_the_metric_can_be():
    assert limits(0.95, 1.0, "accuracy", 40) == pytest.approx((0.82, 1.02))
    assert limits(0.0, 0.05, "accuracy", 40) == pytest.approx((-0.02, 0.18))
    assert limits(-1.0, -0.95, "mcc", 40) == pytest.approx((-1.02, -0.62))
    assert limits(0.4, 0.41, "accuracy", 2) == pytest.approx((-0.02, 1.02))  # never more than all of it


def test_differences_may_be_on_either_side_of_zero():
    assert limits(-0.01, 0.01, "accuracy", 40, difference=True) == pytest.approx((-0.1, 0.1))


def test_a_long_name_keeps_its_beginning_and_its_end():
    assert short("head", 8) == "head" and short("12345678", 8) == "12345678"
    assert short("123456789", 8) == "1234…789"
    names = [f"a variant whose name is sixty characters long, number {i:03d}" for i in range(20)]
    for length in (22, 24, 30, 40, 48):
        cut = [short(name, length) for name in names]
        assert len(set(cut)) == 20 and all(len(name) <= length and name.startswith("a variant") for name in cut)
    assert short("ab cdef gh", 6) == "ab…gh"  # no blanks beside the mark


@pytest.mark.parametrize(("letters", "fits"), [(3, True), (25, True), (45, True), (120, False)])
def test_a_legend_is_not_cut_off_however_long_its_names_are(letters: int, fits: bool, tmp_path: Path) -> None:
    figure = new_figure(6, 4, "Names")
    axes = figure.subplots()
    for letter in "abcd":
        axes.plot([0, 1], [0, 1], label=letter * letters)
    legend(figure, [axes])
    width = figure.legends[0].get_window_extent().width
    assert (width <= figure.bbox.width) == fits and len(figure.legends) == 1
    picture = imread(save(figure, tmp_path / "names.png"))
    assert picture.shape[1] == figure.bbox.width if fits else picture.shape[1] > width
