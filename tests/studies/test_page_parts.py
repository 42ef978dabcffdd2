"""The parts that pages share: what the data are, and everything in one picture."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minilm.evaluation.metrics import LabelMetrics, Metrics
from minilm.reporting import group_plots
from minilm.reporting.compare import cost_ratios
from minilm.reporting.page import Folded
from minilm.reporting.results import Evaluation, Parameters, Times
from minilm.studies.finished import groups_of
from minilm.studies.page_parts import at_a_glance, data_section
from tests.studies.made_up import finished, metrics, seeds_runs, with_results

ELSE = {"lr": 0.1, "train_loss": 0.5, "tokens_per_second": 1.0, "seconds": 1.0}


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The figures that are drawn, in place of their files."""
    figures = []
    monkeypatch.setattr(group_plots, "save", lambda figure, path, **how: figures.append(figure) or path)
    return figures


def learned(run, epochs, losses):
    """The run with evaluations at these epochs."""
    history = [
        Evaluation(step=i, epoch=epoch, validation=replace(metrics(0.9), loss=loss), **ELSE)
        for i, (epoch, loss) in enumerate(zip(epochs, losses, strict=True), 1)
    ]
    return replace(run, run=replace(run.run, history=history))


def test_the_data_section_has_sizes_shares_and_lengths():
    runs = seeds_runs()
    longer = replace(runs[0].run.results.lengths, mean=33.0)
    sizes, shares, lengths = data_section([*runs, with_results(runs[0], lengths=longer)]).blocks
    assert sizes.rows == [["x", "240", "40", "4,000"]]
    assert shares.header == ["label", "train", "validation", "test"]
    assert shares.rows[0] == ["a", "2,000 (50.0%)", "400 (50.0%)", "2,000 (50.0%)"]
    assert [row[1:4] for row in lengths.rows] == [
        ["characters", "80.2", "75"],
        ["tokens of bert", "21.5", "19"],
        ["tokens of bert", "33.0", "19"],
    ]
    assert lengths.rows[0][-1] == "-" and lengths.rows[1][-1] == "3 (at 64)"
    without = [with_results(run, lengths=None) for run in runs]
    assert len(data_section(without).blocks) == 2


def test_a_share_of_several_labels_is_of_the_texts():
    several = Metrics(0.4, subset_accuracy=0.5, label_accuracy=0.5, jaccard=0.5, micro_f1=0.5, macro_f1=0.5)
    several = replace(several, per_label=[LabelMetrics(0.5, 0.5, 0.5, 3000), LabelMetrics(0.5, 0.5, 0.5, 1000)])
    measured = {"train": several, "validation": several, "test": several, "baselines": {}}
    [*_, shares, _] = data_section([with_results(seeds_runs()[0], **measured)]).blocks
    assert [row[3] for row in shares.rows] == ["3,000 (75.0%)", "1,000 (25.0%)"]


def test_many_labels_are_folded():
    run, names = seeds_runs()[0], [f"label {i}" for i in range(21)]
    by_class = [LabelMetrics(0.5, 0.5, 0.5, 1)] * 21
    confusion = [[int(i == j) for j in range(21)] for i in range(21)]
    measured = replace(run.run.results.test, per_class=by_class, confusion=confusion)
    changed = with_results(
        run, labels=names, train=measured, validation=measured, test=measured, baselines={}
    )
    folded = data_section([changed]).blocks[1]
    assert isinstance(folded, Folded) and folded.title == "How often each of 21 labels occurs"


def test_costs_are_compared_with_the_first():
    first, second = finished("scratch", {"seed": 1}, 0.5), finished("bielik", {"seed": 1}, 0.6)
    first = with_results(first, parameters=Parameters(1000, 1000), times=Times(100.0, 0.5))
    second = with_results(second, parameters=Parameters(270_000, 25), times=Times(35.0, 80.0))
    [sentence] = cost_ratios(groups_of([first, second]))
    assert sentence == (
        "Relative to scratch, bielik has 270 times the parameters, 0.025 times the trained parameters, 0.35 times the "
        "training time and 160 times the time to predict 100 texts."
    )
    unknown = with_results(second, times=Times())
    assert cost_ratios(groups_of([first, unknown]))[0].endswith("parameters and 0.025 times the trained parameters.")
    assert cost_ratios(groups_of([first])) == []


def test_the_dashboard_has_quality_learning_time_and_size(tmp_path, drawn):
    runs = [learned(run, (1, 2), (0.5, 0.4)) for run in seeds_runs()]
    [section] = at_a_glance(groups_of(runs), "accuracy", tmp_path)
    assert section.title == "At a glance"
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles == [
        "Accuracy on the test texts, 95% interval",
        "Accuracy on the validation texts",
        "Training time",
        "Parameters that train",
    ]
    assert [text.get_text() for text in drawn[0].axes[2].texts] == ["2 min 40 s", "1 min 01 s"]
    at_a_glance(groups_of(seeds_runs()), "accuracy", tmp_path)  # without a history
    assert not drawn[1].axes[1].axison


@pytest.mark.parametrize(
    ("epochs", "losses", "scales"),
    [
        ((1, 2, 3), (0.6, 0.5, 0.4), ("linear", "linear")),
        ((1, 2, 19), (0.6, 0.5, 0.2), ("linear", "linear")),
        ((1, 2, 20), (0.6, 0.5, 0.4), ("log", "linear")),
        ((1, 2, 3), (0.61, 0.5, 0.2), ("linear", "log")),
    ],
)
def test_learning_curves_have_logarithmic_axes_if_they_range_far(tmp_path, drawn, epochs, losses, scales):
    groups = groups_of([learned(seeds_runs()[0], epochs, losses)])
    group_plots.curves(groups, ["loss", "accuracy"], tmp_path / "x.png")
    loss, accuracy = drawn[0].axes
    assert (loss.get_xscale(), loss.get_yscale()) == scales and accuracy.get_yscale() == "linear"
    assert ("logarithmic" in loss.get_xlabel()) == (scales[0] == "log")
    assert ("logarithmic" in loss.get_ylabel()) == (scales[1] == "log")
    low, high = accuracy.get_ylim()
    assert high - low == pytest.approx(8 / 40)  # of 40 validation texts
