import json

import pytest

from minilm.reporting import group_plots
from minilm.reporting.compare import load_groups
from minilm.reporting.group_plots import bars, curves
from minilm.reporting.style import SERIES
from tests.records import evaluation, numbers

PNG = b"\x89PNG"


@pytest.fixture
def groups(make_run, results):
    """Groups of runs by their accuracies; every run has three evaluations, the first of each group one more."""

    def make(**accuracies):
        folders = []
        for name, values in accuracies.items():
            for seed, accuracy in enumerate(values, start=1):
                results["test"]["accuracy"] = accuracy
                folder = make_run(
                    results, name=f"{name}_seed-{seed}", config=f'seed = {seed}\n[model]\nsource = "{name}"\n'
                )
                lines = [
                    evaluation(e, float(e), numbers(1 / e, accuracy - 0.1 / e))
                    for e in range(1, 4 + (seed == 1))
                ]
                (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
                folders.append(folder)
        return load_groups(folders)

    return make


@pytest.fixture
def figure_of(tmp_path, monkeypatch):
    """Draw and return the figure, unwritten."""

    def call(plot, *arguments, **options):
        figures = []
        monkeypatch.setattr(group_plots, "save", lambda figure, path, **how: figures.append(figure) or path)
        plot(*arguments, tmp_path / "x.png", **options)
        return figures[0]

    return call


def named(axes):
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def test_bars_start_at_zero_and_come_closer_beside_it(groups, figure_of):
    made = groups(a=[0.5, 0.6], b=[0.8, 0.9])
    whole, close = figure_of(bars, made, "accuracy", lines={"linear": 0.7}).axes
    assert whole.get_xlim()[0] == 0 and [round(bar.get_width(), 3) for bar in whole.patches] == [0.55, 0.85]
    assert [label.get_text() for label in whole.get_yticklabels()] == ["a", "b"]
    assert named(whole)["linear: 0.700"].get_xdata() == [0.7, 0.7]
    low, high = (group.interval("accuracy")[0] for group in made)
    assert close.get_xlim()[0] < low.low and high.high < close.get_xlim()[1]
    dots = [list(line.get_xdata()) for line in close.get_lines() if line.get_label() == "one run"]
    assert dots == [[0.5, 0.6], [0.8, 0.9]]
    assert whole.get_xlabel() == "Accuracy (0 to 1)"


def test_of_one_seed_the_interval_is_over_the_test_rows(groups, figure_of):
    figure = figure_of(bars, groups(a=[0.59]), "accuracy")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "95% interval over 120 test rows (Wilson)" in texts


def test_curves_show_every_run_thin_and_the_mean_of_the_seeds_thick(groups, figure_of):
    loss, accuracy = figure_of(curves, groups(a=[0.5, 0.6], b=[0.8]), ["loss", "accuracy"]).axes
    assert loss.get_ylabel() == "Loss (nats, logarithmic)" and accuracy.get_xlabel() == "Epoch"
    mean = named(accuracy)["a"]
    assert list(mean.get_xdata()) == [1, 2, 3]  # as far as both went
    assert mean.get_ydata() == pytest.approx([0.45, 0.5, 0.55 - 0.1 / 3])
    thin = [line for line in accuracy.get_lines() if line.get_linewidth() < 1]
    assert [len(line.get_xdata()) for line in thin] == [4, 3]
    assert len(named(accuracy)["b_seed-1"].get_xdata()) == 4


def test_of_many_groups_the_best_are_told_apart_and_the_others_are_grey(groups, figure_of):
    many = groups(**{f"g{i}x": [0.1 + 0.05 * i] for i in range(len(SERIES) + 3)})
    (axes,) = figure_of(curves, many, ["accuracy"]).axes
    told = [name for name in named(axes) if name != "the others"]
    assert sorted(told) == sorted(f"g{i}x_seed-1" for i in range(3, len(SERIES) + 3))
    assert len({(line.get_color(), line.get_marker()) for name, line in named(axes).items() if name in told}) == len(
        SERIES
    )


def test_names_are_drawn_as_they_are_and_none_is_left_out(groups, figure_of, tmp_path):
    made = groups(**{"_a": (0.5,), "cost$_$": (0.6,)})
    for plot, what in ((curves, ["accuracy"]), (bars, "accuracy")):  # matplotlib would read "$_$" as a broken formula
        assert plot(made, what, tmp_path / f"{plot.__name__}.png").exists()
    [legend] = figure_of(curves, made, ["accuracy"]).legends
    assert [text.get_text().strip() for text in legend.get_texts()][:2] == ["_a_seed-1", "cost$_$_seed-1"]


def test_pictures_are_written_as_png_and_svg_and_the_same_again(groups, tmp_path):
    made = groups(a=[0.5, 0.6])
    first, second = (bars(made, "accuracy", tmp_path / name / "bars.png") for name in ("one", "two"))
    assert first.read_bytes().startswith(PNG)
    assert first.with_suffix(".svg").read_bytes() == second.with_suffix(".svg").read_bytes()
    assert b"<svg" in first.with_suffix(".svg").read_bytes()
