import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import get_data_path
from matplotlib.colors import to_hex, to_rgb
from matplotlib.font_manager import fontManager

from minilm.evaluation.metrics import Metrics
from minilm.reporting import plots, style
from minilm.reporting.plots import confusion, learning_curves, length_distribution
from minilm.reporting.results import Evaluation
from minilm.reporting.style import TEST, TRAIN, VALIDATION, ink
from tests.records import numbers

NAMES = ["negative", "neutral or ambiguous", "positive"]
MATRIX = [[20, 10, 5], [9, 45, 7], [0, 0, 0]]


def line(step, epoch, loss, f1, train=None):
    """One evaluation."""
    measured = None if train is None else Metrics(**numbers(train, f1, f1 + 0.1))
    shared = {"lr": 0.1, "train_loss": loss - 0.1, "tokens_per_second": 1.0, "seconds": 1.0}
    validation = Metrics(**numbers(loss, f1, f1, f1 / 2))
    return Evaluation(step=step, epoch=epoch, validation=validation, train=measured, **shared)


HISTORY = [line(10, 1.0, 1.0, 0.2, 0.95), line(20, 2.0, 0.9, 0.4, 0.7), line(30, 3.0, 1.1, 0.3, 0.5)]


@pytest.fixture
def figure_of(tmp_path, monkeypatch):
    """Call a plot and return its figure, unwritten."""

    def call(plot, *arguments):
        figures = []
        monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure) or path)
        plot(*arguments, tmp_path / "x.png")
        return figures[0]

    return call


def curves(axes):
    return {artist.get_label(): artist for artist in axes.get_lines() if not artist.get_label().startswith("_")}


@pytest.mark.parametrize(
    ("plot", "arguments"),
    [
        (learning_curves, (HISTORY, 20, "macro_f1")),
        (learning_curves, (HISTORY[:1], 10, "loss")),
        (confusion, (MATRIX, NAMES, "Test texts")),
        (length_distribution, ([3, 5, 8, 13, 400], 16)),
    ],
)
def test_a_picture_is_a_png_of_150_dpi_at_its_path(plot, arguments, tmp_path):
    path = plot(*arguments, tmp_path / "new" / "picture.png")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    density = content.index(b"pHYs") + 4
    assert struct.unpack(">I", content[density : density + 4])[0] == round(150 / 0.0254)  # pixels a metre
    width, height = struct.unpack(">II", content[16:24])
    assert 900 < width < 2500 and 500 < height < 1500


def test_learning_curves_show_both_splits_and_mark_what_was_kept(figure_of):
    figure = figure_of(learning_curves, HISTORY, 20, "macro_f1")
    loss, f1 = figure.axes
    for axes, values in ((loss, [1.0, 0.9, 1.1]), (f1, [0.2, 0.4, 0.3])):
        drawn = curves(axes)
        assert drawn["validation"].get_ydata().tolist() == values
        assert drawn["validation"].get_color() == VALIDATION and drawn["training"].get_color() == TRAIN
        assert drawn["validation"].get_linestyle() != drawn["training"].get_linestyle()
        assert drawn["best (kept)"].get_xdata() == [2.0] and drawn["best (kept)"].get_ydata() == [values[1]]
        assert axes.get_xlabel() == "Epoch"
    assert f1.get_title() == "Macro F1: 0.4000 at epoch 2"
    assert loss.get_ylabel() == "Cross-entropy (nats)" and f1.get_ylabel() == "Macro F1 (0 to 1)"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "training",
        "validation",
        "best (kept)",
    ]


def test_the_loss_as_the_chosen_metric_leaves_the_second_panel_to_macro_f1(figure_of):
    assert figure_of(learning_curves, HISTORY, 20, "loss").axes[1].get_title().startswith("Macro F1")


def test_unmeasured_training_texts_are_shown_by_the_loss_of_the_steps_and_said_so(figure_of):
    loss, mcc = figure_of(learning_curves, [line(10, 1.0, 1.0, 0.2)], 10, "mcc").axes
    label = "training (mean over the steps, with dropout)"
    assert curves(loss)[label].get_ydata().tolist() == [0.9]
    assert "training" not in "".join(curves(mcc))
    assert mcc.get_ylabel() == "MCC (-1 to 1)"


def test_evaluations_that_share_an_epoch_are_drawn_over_the_steps(figure_of):
    history = [line(10, 1, 1.0, 0.2), line(1200, 1, 0.9, 0.3)]
    loss, _ = figure_of(learning_curves, history, 1200, "macro_f1").axes
    assert loss.get_xlabel() == "Step (optimizer updates)" and loss.get_title() == "Loss: 0.9000 at step 1,200"


def test_a_loss_that_is_not_finite_leaves_a_gap(figure_of):
    history = [*HISTORY, line(40, 4.0, float("nan"), 0.3, 0.4)]
    loss, _ = figure_of(learning_curves, history, 40, "macro_f1").axes
    assert len(curves(loss)["validation"].get_xdata()) == 3 and "best (kept)" not in curves(loss)


def test_a_perfect_metric_is_drawn_without_room_for_more_than_there_can_be(figure_of):
    _, perfect = figure_of(
        learning_curves, [line(10, 1, 1.0, 1.0, 1.0), line(20, 2, 0.9, 1.0, 1.0)], 20, "macro_f1"
    ).axes
    assert 1 < perfect.get_ylim()[1] <= 1.02


def test_no_evaluation_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least one evaluation"):
        learning_curves([], 0, "macro_f1", tmp_path / "x.png")


def test_confusion_shows_counts_and_shares_of_the_row(figure_of):
    counts, shares = figure_of(confusion, MATRIX, NAMES, "Validation texts").axes
    assert [t.get_text() for t in counts.texts] == ["20", "10", "5", "9", "45", "7", "0", "0", "0"]
    assert [t.get_text() for t in shares.texts] == [
        "57%",
        "29%",
        "14%",
        "15%",
        "74%",
        "11%",
        "–",
        "–",
        "–",
    ]
    assert [t.get_text() for t in counts.get_yticklabels()] == ["negative", "neutral or\nambiguous", "positive"]
    assert (counts.get_ylabel(), counts.get_xlabel()) == ("True label", "Predicted label")


def test_test_and_validation_differ_in_colour(figure_of):
    def middle(title):
        return to_hex(figure_of(confusion, MATRIX, NAMES, title).axes[0].images[0].get_cmap()(0.5))

    assert to_rgb(middle("Test texts")) == pytest.approx(to_rgb(TEST), abs=0.01)
    assert to_rgb(middle("Validation texts")) == pytest.approx(to_rgb(VALIDATION), abs=0.01)


def test_among_many_labels_names_slant_and_empty_cells_are_blank(figure_of):
    names = [f"some_long_label_name_{i}" for i in range(20)]
    figure = figure_of(confusion, np.eye(20, dtype=int), names, "Test texts")
    assert {t.get_text() for t in figure.axes[0].texts} == {"1", ""}
    labels = figure.axes[0].get_xticklabels()
    assert {t.get_rotation() for t in labels} == {45.0} and all(len(t.get_text()) <= 20 for t in labels)


def test_where_cells_are_too_small_for_text_there_is_a_scale(figure_of):
    figure = figure_of(confusion, np.eye(60, dtype=int), [str(i) for i in range(60)], "Test texts")
    assert len(figure.axes) == 4 and not figure.axes[0].texts


def test_a_label_with_dollar_signs_is_no_formula(tmp_path):
    names = ["$5 to $10", r"$\frac$", "x_y^z"]
    assert confusion(MATRIX, names, "Test of $a $b", tmp_path / "x.png").exists()


def test_a_label_with_letters_that_no_font_has_is_drawn_by_their_numbers_without_a_warning(
    figure_of, tmp_path, recwarn
):
    names = ["\u597d\U0001f642 good", "\U0001d51e", "plain"]  # the second is in another font of matplotlib's
    with pytest.MonkeyPatch.context() as patch:  # on a machine that has fonts for everything too
        patch.setattr(style, "fontManager", SimpleNamespace(ttflist=own_fonts()))
        style.family_of.cache_clear()
        assert confusion(MATRIX, names, "Test of \u597d", tmp_path / "x.png").exists()
        drawn = [text.get_text() for text in figure_of(confusion, MATRIX, names, "x").axes[0].get_yticklabels()]
    style.family_of.cache_clear()
    assert drawn == ["U+597D U+1F642\ngood", "\U0001d51e", "plain"] and not recwarn.list


def own_fonts():
    """The fonts that come with matplotlib."""
    return [entry for entry in fontManager.ttflist if Path(entry.fname).is_relative_to(get_data_path())]


def test_a_matrix_of_another_size_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="3 x 3"):
        confusion([[1, 2], [3, 4]], NAMES, "Test texts", tmp_path / "x.png")


@given(st.tuples(*[st.floats(0, 1)] * 3))
def test_the_ink_of_a_cell_has_the_contrast_that_wcag_asks_for(background):
    def luminance(colour):
        return sum(
            weight * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
            for weight, c in zip((0.2126, 0.7152, 0.0722), colour, strict=True)
        )

    low, high = sorted((luminance(background), luminance(to_rgb(ink(background)))))
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_lengths_name_median_p95_limit_and_how_many_are_cut(figure_of):
    figure = figure_of(length_distribution, list(range(1, 101)), 80)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(labels) == {
        "median: 50.5",
        "95% are no longer than 95",
        "limit: 80",
        "longest: 100",
        "cut: 20 (20.0%)",
    }
    assert "Tokens" in figure.axes[0].get_xlabel() and figure.axes[0].get_ylabel() == "Number of texts"


def test_a_limit_far_beyond_all_texts_is_told_but_not_drawn(figure_of):
    figure = figure_of(length_distribution, [5, 6, 7], 8192)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "limit: 8,192, none is cut" in labels and figure.axes[0].get_xlim()[1] < 20


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=50), st.integers(1, 9000))
def test_every_text_is_in_a_bar_and_those_cut_in_theirs(lengths, limit):
    figures = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "save", lambda figure, path: figures.append(figure))
        length_distribution(lengths, limit, None)
    bars = [container.datavalues.sum() for container in figures[0].axes[0].containers]
    cut = sum(length > limit for length in lengths)
    assert bars == ([len(lengths) - cut, cut] if cut else [len(lengths)])


def test_no_text_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least one text"):
        length_distribution([], 16, tmp_path / "x.png")


def test_very_many_labels_leave_room_for_the_cells(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    confusion([[i == j for j in range(60)] for i in range(60)], [f"label {i}" for i in range(60)], "", tmp_path)
    assert all(not axes.get_xticks().size and not axes.get_yticks().size for axes in drawn[0].axes[:2])


@pytest.mark.parametrize(("classes", "lines"), [(2, 3), (11, 1)])
def test_long_names_have_several_lines_only_where_the_cells_are_as_high(classes, lines, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    names = [f"label {i} with a long name about one of the many topics" for i in range(classes)]
    confusion([[i == j for j in range(classes)] for i in range(classes)], names, "", tmp_path)
    assert {len(tick.get_text().split("\n")) for tick in drawn[0].axes[0].get_yticklabels()} == {lines}
