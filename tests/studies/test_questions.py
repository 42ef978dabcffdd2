"""Each question's answer, from made-up runs whose answer is known."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from minilm.config import DataSection, FreezeBackbone, RunConfig, SimilaritySection, TrainSection
from minilm.errors import UserError
from minilm.evaluation.metrics import LabelMetrics, Metrics
from minilm.reporting.results import Baseline
from minilm.studies import line_plots
from minilm.studies.checks import check_study
from minilm.studies.config import StudyConfig
from minilm.studies.lines import Line, lines_of
from minilm.studies.plan import PlannedRun, Study
from minilm.studies.power_law import fit_power_law
from minilm.studies.questions import active, freezing, sweep
from minilm.studies.questions.active import labels_needed
from minilm.studies.questions.scaling import check_of, errors_of, forecast_of
from minilm.studies.questions.sweep import in_order
from tests import records
from tests.studies.made_up import (
    active_runs,
    ask,
    augmentation_runs,
    finished,
    freezing_runs,
    metrics,
    scaling_runs,
    seeds_runs,
    shots_runs,
    sweep_runs,
    with_results,
    wobble,
)
from tests.studies.test_experiments import STUDIES, bert  # noqa: F401 (a fixture)
from tests.tiny import minilm, no_pictures

# --- The answers ---


PICTURES = {
    "active": (active_runs, ["active"]),
    "augmentation": (augmentation_runs, ["augmentation"]),
    "few-shot": (shots_runs, ["few_shot"]),
    "scaling": (scaling_runs, ["scaling"]),
    "seeds": (seeds_runs, ["boxes", "bars", "dashboard"]),
    "freezing": (freezing_runs, ["freezing"]),
    "sweep": (sweep_runs, ["curves_lr", "curves_weight_decay", "heat_lr_weight_decay", "surface_lr_weight_decay"]),
}


@pytest.mark.parametrize("analysis", PICTURES)
def test_every_picture_is_written_twice(tmp_path, analysis):
    runs, names = PICTURES[analysis]
    ask(analysis, runs(), tmp_path, drawn=analysis == "few-shot")
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}


def test_few_shots_say_from_how_many_texts_on_fine_tuning_pays(tmp_path):
    answer, page = ask("few-shot", shots_runs(5), tmp_path)
    assert answer.startswith("full beats the linear baseline from 10 texts of each class on, there by 0.10")
    assert "which is significant at 5%. With 50 of each class full has accuracy 0.8" in answer
    assert "over 5 seeds), which is 95." in answer and "of what full has with all rows." in answer
    assert "which 3 seeds are too few to call significant" in ask("few-shot", shots_runs(3), tmp_path)[0]
    assert "full compared with the linear baseline" in page and "['all'," in page


def few_shot_runs(variant, levels, luck=0.0):
    """Runs with (shots, accuracy, linear baseline, baseline on vectors) for three seeds."""
    runs = []
    for shots, accuracy, linear, vectors in levels:
        for seed, sign in ((1, -1), (2, 0), (3, 1)):
            run = finished(variant, {"data.shots": shots, "seed": seed}, accuracy + sign * luck, rows=4 * shots or 2400)
            fitted = {name: metrics(value) for name, value in (("linear", linear), ("embeddings", vectors))}
            runs.append(with_results(run, baselines={name: Baseline(m, m) for name, m in fitted.items()}))
    return runs


def test_a_lead_within_chance_is_undecided_and_says_who_is_ahead(tmp_path):
    close = few_shot_runs("full", [(1, 0.5, 0.48, 0.4), (50, 0.80, 0.78, 0.4), (0, 0.9, 0.85, 0.4)], luck=0.06)
    answer, _ = ask("few-shot", close, tmp_path)
    assert "undecided from how many texts on full beats the linear baseline: with 50 of each class" in answer
    assert "it is 0.020 ahead of it" in answer
    behind = few_shot_runs("full", [(1, 0.5, 0.52, 0.4), (50, 0.80, 0.82, 0.4), (0, 0.9, 0.85, 0.4)], luck=0.06)
    assert "with 50 of each class it is 0.020 behind it" in ask("few-shot", behind, tmp_path)[0]


def test_few_shots_are_related_to_all_rows_of_the_same_variant_and_the_rival_is_best_with_most_texts(tmp_path):
    first = few_shot_runs("a", [(1, 0.3, 0.2, 0.1), (50, 0.60, 0.5, 0.6), (0, 0.96, 0.5, 0.6)])
    second = few_shot_runs("b", [(1, 0.5, 0.45, 0.2), (50, 0.81, 0.6, 0.7), (0, 0.90, 0.8, 0.8)], luck=0.002)
    answer, page = ask("few-shot", first + second, tmp_path)
    assert "which is 90.0%" in answer and "of what b has with all rows" in answer
    assert "b beats the embeddings baseline (b)" in answer and "b compared with the embeddings baseline" in page


def test_the_rival_is_the_baseline_of_the_best_ones_own_data(tmp_path):
    """The first variant is worse, on easier data: its baseline is beyond all that the second reaches."""
    easy = [finished("easy", run.planned.point, 0.3 + wobble(i), baseline=0.95) for i, run in enumerate(shots_runs())]
    answer, page = ask("few-shot", easy + shots_runs(), tmp_path)
    assert "full has accuracy 0.8" in answer and "linear baseline (full) from 10 texts of each class on" in answer
    assert "'linear baseline (easy)', 'linear baseline (full)'" in page
    assert "full compared with the linear baseline (full)" in page


def test_equal_baselines_are_one_and_fill_each_others_gaps(tmp_path):
    """Of the first variant only the runs of one shot have finished; one of the second's lacks its baseline."""
    runs = shots_runs()
    runs[1] = with_results(runs[1], baselines={})
    runs = [replace(run, planned=replace(run.planned, variant="lora")) for run in shots_runs()[:3]] + runs
    lines, baselines = lines_of(runs, ["data.shots"], lambda f: float(f.planned.config.data.shots), "accuracy")
    assert [line.name for line in baselines] == ["linear baseline"] and list(baselines[0].at) == [0, 1, 5, 10, 50]
    assert all(line.baselines["linear"] is baselines[0] for line in lines) and sorted(baselines[0].at[1]) == [1, 2, 3]
    answer, _ = ask("few-shot", runs, tmp_path)
    assert "full has accuracy 0.8" in answer and "beats the linear baseline from 10 texts of each class on" in answer


def test_the_best_variant_may_have_one_number_of_texts_only(tmp_path):
    points = [{"data.shots": 50, "seed": seed} for seed in range(1, 6)]
    one = [finished("full-50", point, 0.95 + wobble(point["seed"]), baseline=0.8) for point in points]
    answer, _ = ask("few-shot", [*shots_runs(5), *one], tmp_path)
    assert answer.startswith("full-50 beats the linear baseline") and "from 50 texts of each class on" in answer


def test_one_seed_tells_nothing_of_significance(tmp_path):
    for analysis, runs in (
        ("few-shot", shots_runs(1)),
        ("active", active_runs(1)),
        ("freezing", freezing_runs()[::3]),
        ("seeds", seeds_runs()[::5]),
    ):
        answer, _ = ask(analysis, runs, tmp_path)
        assert "significant" not in answer and ("seed" in answer)


def test_scaling_recovers_the_law_and_checks_it(tmp_path):
    answer, page = ask("scaling", scaling_runs(), tmp_path)
    exponent = float(re.search(r"n\^-(\S+)", answer)[1])
    assert exponent == pytest.approx(0.5, abs=0.05) and "is beyond what was measured" in answer
    assert "the prediction of the size held back was right: at 2,000 texts" in answer and "inside" in page


def test_scaling_says_what_is_undecided(tmp_path):
    answer, _ = ask("scaling", scaling_runs(sizes=(20, 50)), tmp_path)
    assert "is undecided: a curve with three parameters needs at least three sizes" in answer
    flat = [
        finished("full", {"data.train_rows": n, "seed": s}, 0.8 + wobble(n, s), rows=n)
        for n in (20, 50, 100, 200)
        for s in (1, 2, 3)
    ]
    assert "does not fall by more than chance explains" in ask("scaling", flat, tmp_path)[0]


def test_a_curve_flattens_within_or_beyond_only_if_all_of_the_interval_does(tmp_path):
    assert "which is within what was measured" in ask("scaling", scaling_runs(b=0.9), tmp_path)[0]
    assert "which is beyond what was measured" in ask("scaling", scaling_runs(b=0.3), tmp_path)[0]
    sizes = (20, 50, 100, 200, 500, 1000, 2000, 3500)  # twice 3,431 texts gain 0.01
    assert "which may be within or beyond what was measured" in ask("scaling", scaling_runs(sizes=sizes), tmp_path)[0]


def test_a_forecast_below_what_was_measured_is_none(tmp_path):
    """The largest size is far above what the others promise, as a lucky test set may have it."""
    errors = {20: 0.5, 50: 0.38, 100: 0.31, 200: 0.27, 500: 0.24, 1000: 0.08}
    points = [(n, seed, error) for n, error in errors.items() for seed in (1, 2, 3)]
    runs = [
        finished("full", {"data.train_rows": n, "seed": s}, 1 - error + wobble(n, s), rows=n) for n, s, error in points
    ]
    line = lines_of(runs, ["data.train_rows"], lambda f: float(f.size("train")), "accuracy")[0][0]
    forecast = forecast_of(line, fit_power_law(errors_of(line)))
    assert forecast.texts == 2000 and forecast.value < forecast.measured and not forecast.is_plausible
    answer, page = ask("scaling", runs, tmp_path)
    assert "There is no forecast: with twice as many the law expects accuracy 0." in answer
    assert f"less than the {forecast.measured:.3f} already measured" in answer and "2,000: no forecast" in page
    planted = ask("scaling", scaling_runs(), tmp_path)
    assert "With twice as many it expects accuracy 0.88" in planted[0] and "no forecast'" not in planted[1]


def test_no_forecast_is_beyond_what_a_metric_can_be():
    accuracies = {10: (0.6, 0.7), 50: (0.75, 0.95), 100: (0.8, 0.99), 200: (0.9, 1.0), 400: (0.9, 1.0)}
    check = check_of(Line("x", "accuracy", {n: dict(enumerate(found)) for n, found in accuracies.items()}))
    assert check is not None and check.interval.high == 1 and check.interval.low > 0


def test_seeds_compare_with_what_it_cost(tmp_path):
    answer, page = ask("seeds", seeds_runs(), tmp_path)
    assert answer.startswith("lora has the highest accuracy") and "which is significant at 5%" in answer
    assert re.search(
        r"lora reaches 102\.\d% of full's accuracy .*with 1\.0% of its trained parameters, in 1 min 01 s", page
    )


def test_the_answer_compares_every_variant_and_not_only_the_two_best(tmp_path):
    third = [finished("third", {"seed": s}, 0.869 + wobble(s, 3), trained=10**7) for s in range(1, 6)]
    runs = seeds_runs()
    first, lora = runs[:5], [finished("lora", {"seed": s}, 0.85 + wobble(s), trained=10**5) for s in range(1, 6)]
    answer, _ = ask("seeds", [*first, *lora, *third], tmp_path)
    assert re.search(r"Over the same seeds third has .*; lora has 0\.02\d less than full .*significant at 5%\.", answer)


def test_a_lucky_setting_is_not_called_best(tmp_path):
    answer, page = ask("sweep", sweep_runs(), tmp_path)
    assert answer.startswith(
        "Best settings: for full lr 0.0001, weight_decay 0.01, with test accuracy 0.900 (95% interval"
    )
    assert "best single setting for full is another (lr 0.0005, weight_decay 0.1)" in answer
    assert "best single setting for lora is the same" in answer and "Over train.weight_decay" in page


def test_a_sweep_may_lack_settings_but_not_axes(tmp_path):
    runs = [run for run in sweep_runs() if run.planned.variant == "full"]
    answer, page = ask("sweep", runs[::2], tmp_path)  # the lucky setting in its corner has one neighbour of three
    assert answer.startswith("Best setting: for full lr 0.0001, weight_decay 0.01")
    assert "another (lr 0.0005, weight_decay 0.1), and 3 other settings are tied" in answer
    assert "'4 of 13 (±" in page and "by the mean of its neighbourhood" in page
    alone = [(0, 1), (1, 3), (2, 0), (3, 2)]  # no setting has a neighbour: the best single one is chosen
    settings = [runs[5 * i + j] for i, j in alone]
    assert "for full lr 0.0001, weight_decay 0.0," in ask("sweep", settings, tmp_path)[0]
    with pytest.raises(UserError, match=r'"full" has 0'):
        ask("sweep", [finished("full", {"seed": 1}, 0.9)], tmp_path)


def test_a_sweep_says_what_its_interval_is_over(tmp_path):
    def runs(seeds):
        rates = {"train.lr": 1e-4}, {"train.lr": 2e-4}
        return [finished("x", {**r, "seed": s}, 0.8 + wobble(s)) for r in rates for s in range(1, seeds + 1)]

    one, three = (ask("sweep", runs(seeds), tmp_path)[0] for seeds in (1, 3))
    tie = "1 other setting is tied with it within the 95% interval over"
    assert f"{tie} validation texts (±" in one and f"{tie} seeds (±" in three
    right = [replace(f, run=finished("x", f.planned.point, 1.0).run) for f in runs(1)]
    assert f"{tie} validation texts (±" in ask("sweep", right, tmp_path)[0]  # Wilson's interval, which has a width
    right = [replace(f, run=finished("x", f.planned.point, 1.0).run) for f in runs(3)]
    answer, page = ask("sweep", right, tmp_path)  # no spread over seeds, which is no certainty
    assert answer.endswith("the best single setting for x is the same.") and " of 2 (±" not in page
    lacking = runs(1)
    lacking[1] = replace(lacking[1], run=replace(lacking[1].run, results=records.typed(records.adapted())))
    assert "'1 of 1 (±" in ask("sweep", lacking, tmp_path)[1]
    apart = [finished("x", {"train.lr": rate, "seed": 1}, accuracy) for rate, accuracy in ((1e-4, 0.5), (2e-4, 0.9))]
    assert "it is ahead of all others by more than the 95% interval over" in ask("sweep", apart, tmp_path)[0]


def test_a_sweep_over_one_axis_may_name_a_second_of_one_value(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(sweep, "save", lambda figure, path, **how: figures.append(figure) or path)
    points = [{"train.lr": rate, "train.weight_decay": 0.01, "seed": 1} for rate in (1e-5, 1e-4, 1e-3)]
    answer, page = ask("sweep", [finished("x", p, 0.8 + 0.01 * i) for i, p in enumerate(points)], tmp_path)
    assert "for x weight_decay 0.01, lr 0.001" in answer and "Over train.lr" in page
    [line, *_] = figures[0].axes[0].get_lines()
    assert len(line.get_xdata()) == 3


def test_the_better_of_settings_with_the_same_neighbourhood_is_chosen(tmp_path):
    runs = [finished("x", {"train.lr": rate, "seed": 1}, accuracy) for rate, accuracy in ((1e-4, 0.8), (2e-4, 0.9))]
    assert "for x lr 0.0002, with test accuracy 0.900" in ask("sweep", runs, tmp_path)[0]


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        ("train.schedule", ["linear", "cosine", "constant"], 'schedule "cosine"'),
        ("train.class_weights", [[1.0, 1.0], [1.0, 2.0]], "class_weights [1.0, 2.0]"),
    ],
)
def test_a_sweep_may_be_over_texts_and_lists(tmp_path, key, values, said):
    runs = [finished("x", {key: value, "seed": 1}, 0.8 + 0.1 * (i == 1)) for i, value in enumerate(values)]
    assert ask("sweep", runs, tmp_path)[0].startswith(f"Best setting: for x {said}")
    assert in_order([values[1], values[0], values[1]]) == values[1::-1]  # of others than numbers the study's order
    plane = [
        finished("x", {key: v, "train.lr": rate, "seed": 1}, 0.8 + 0.1 * (i == 1))
        for i, v in enumerate(values)
        for rate in (1e-4, 1e-5)
    ]
    assert f"{said}, lr 1e-05" in ask("sweep", plane, tmp_path)[0]


@pytest.mark.parametrize(("rows", "columns", "has_surface"), [(3, 3, True), (2, 5, False), (5, 2, False), (3, 4, True)])
def test_a_surface_needs_three_values_on_both_axes(tmp_path, rows, columns, has_surface):
    runs = [
        finished("x", {"train.lr": (i + 1) * 1e-5, "train.weight_decay": j / 10, "seed": 1}, 0.8 + 0.01 * i + 0.001 * j)
        for i in range(rows)
        for j in range(columns)
    ]
    ask("sweep", runs, tmp_path)
    assert (tmp_path / "heat_lr_weight_decay.png").exists()
    assert (tmp_path / "surface_lr_weight_decay.png").exists() == has_surface


def test_heat_maps_have_a_scale_over_what_they_show(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(sweep, "save", lambda figure, path, **how: figures.append(figure) or path)
    ask("sweep", [run for run in sweep_runs() if run.planned.variant in ("full", "lora")], tmp_path)
    scales = [axes for axes in figures[0].axes if axes.get_label() == "<colorbar>"]
    assert len(scales) == 2 and all(axes.get_ylabel() == "Accuracy (0 to 1)" for axes in scales)
    assert scales[0].get_ylim() == pytest.approx((0.74, 0.91))


def test_a_row_below_the_first_is_drawn_whole(tmp_path, monkeypatch):
    """With wrong labels the lines lie lower; the panels share their axes."""
    figures = []
    monkeypatch.setattr(active, "save", lambda figure, path, **how: figures.append(figure) or path)
    ask("active", active_runs(noise=(0.0, 0.4)), tmp_path)
    low, high = figures[0].axes[0].get_ylim()
    assert low < 0.25 and high > 0.85  # 0.5 - 0.05 for the baseline - 0.2 for the noise


def test_pictures_leave_out_no_variant_and_no_reference(tmp_path, monkeypatch):
    figures = []
    for module in (sweep, line_plots):
        monkeypatch.setattr(module, "save", lambda figure, path, **how: figures.append(figure) or path)
    names = [f"way-{i}" for i in range(9)]
    ask("sweep", [finished(n, {"train.lr": rate, "seed": 1}, 0.8) for n in names for rate in (1e-4, 1e-5)], tmp_path)
    line = Line("x", "accuracy", {1.0: {1: 0.5}, 2.0: {1: 0.6}})
    levels = {f"level {i}": 0.1 * i for i in range(4)}
    line_plots.line_picture([line], "accuracy", tmp_path, title="", x="", references=levels)
    drawn, levelled = (figure.axes[0].get_legend_handles_labels()[1] for figure in figures)
    assert drawn == names and [name.partition(":")[0] for name in levelled if "level" in name] == list(levels)


def test_a_plan_that_trains_the_same_parameters_in_every_run_is_no_question_of_freezing(tmp_path):
    def check(*configs):
        runs = tuple(PlannedRun(config.name, config.name, {"seed": 1}, config) for config in configs)
        check_study(Study(StudyConfig("x", "How?", analysis="freezing"), tmp_path, runs, Path("x.toml")))

    full = RunConfig("full", DataSection(), train=TrainSection(epochs=1, lr=0.1))
    head = replace(full, name="head", freeze=FreezeBackbone())
    check(full, head)
    for wrong in ([full, replace(full, name="other", seed=2)], [full, head, _asks(full)]):
        with pytest.raises(UserError, match=r"the analysis freezing needs .* none with a section \[zero_shot\]"):
            check(*wrong)


def _asks(config):
    return replace(config, name="asks", train=None, zero_shot=SimilaritySection("similarity"))


def test_axis_values_with_dollar_signs_are_drawn_as_they_are(tmp_path):
    values = [(file, column) for file in ("cost$_$.csv", "$x_$.csv") for column in ("$_$", "plain")]
    for keys in (["data.source"], ["data.source", "data.text"]):
        points = [dict(zip(keys, value, strict=False)) | {"seed": 1} for value in values[:: 3 - len(keys)]]
        folder = tmp_path / str(len(keys))
        folder.mkdir()
        runs = [finished("a$_$", point, 0.8 + 0.01 * n) for n, point in enumerate(points)]
        ask("sweep", runs, folder, drawn=True)
        assert list(folder.glob("*.png"))


def test_freezing_names_the_most_frozen_that_loses_nothing(tmp_path):
    answer, _ = ask("freezing", freezing_runs(), tmp_path)
    assert answer.startswith("It is undecided what freezing costs: 3 seeds are too few to show a loss (at least 5 are")
    assert "first-2, the most frozen of those whose loss the t test does not find, trains 43.9% of the par" in answer
    many = ask("freezing", freezing_runs(5), tmp_path)[0]
    assert many.startswith("first-2 freezes the most without a significant loss: it trains 43.9% of the parameters")
    assert "takes 49% of the time" in answer and "nothing, which trains the most parameters (66.0M), has acc" in answer
    bad = [run for run in freezing_runs() if run.planned.variant in ("nothing", "first-4", "first-6")]
    answer, _ = ask("freezing", bad, tmp_path)
    assert answer.startswith("Every degree of freezing lowers the accuracy: first-4, which freezes least, by 0.020")
    assert "which 3 seeds are too few to call significant" in answer
    low, high = re.search(r"by 0\.020 \(95% interval (\S+) to (\S+) over 3 seeds, of this comparison", answer).groups()
    assert 0 < float(low) < 0.02 < float(high)
    few = [*bad, finished("first-2", {"seed": 1}, 0.9, trained=29_000_000)]
    answer, _ = ask("freezing", few, tmp_path)
    assert answer.startswith("Every degree of freezing that was tested lowers the accuracy: first-4")
    assert answer.endswith(" first-2 ran with too few seeds for a test.")


def test_more_degrees_of_freezing_than_names_fit_are_numbered_and_the_legend_names_them(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(freezing, "save", lambda figure, path, **how: figures.append(figure) or path)
    for count in (6, 7):
        ways = [finished(f"way-{i}", {"seed": 1}, 0.9, trained=10**8 >> i) for i in range(count)]
        ask("freezing", ways, tmp_path)
    named, numbered = ([text.get_text() for text in figure.axes[0].texts] for figure in figures)
    assert named == [f"way-{i}" for i in range(6)] and numbered == [str(i) for i in range(1, 8)]
    legends = [figure.axes[0].get_legend_handles_labels()[1] for figure in figures]
    assert [len(labels) for labels in legends] == [1, 8] and {"1  way-0", "7  way-6"} <= set(legends[1])
    assert len(figures[1].axes[0].get_xticks()) > 2  # as many as there is room for


def test_freezing_needs_the_metric_and_shows_small_p_values(tmp_path):
    several = Metrics(**records.several(0.4, 0.5, 0.5) | {"per_label": [LabelMetrics(0.5, 0.5, 0.5, 9)] * 2})
    measured = {"train": several, "validation": several, "test": several, "baselines": {}}
    runs = [with_results(run, **measured) for run in freezing_runs()]
    with pytest.raises(UserError, match="freezing needs runs that have the metric accuracy on test texts"):
        ask("freezing", runs, tmp_path)
    steep = [
        finished(name, {"seed": seed}, accuracy + wobble(seed) + wobble(seed, trained) / 9, trained=trained)
        for name, accuracy, trained in [("nothing", 0.9, 10**7), ("all", 0.5, 10**5)]
        for seed in range(1, 7)
    ]
    assert "'below 0.0001'" in ask("freezing", steep, tmp_path)[1]


def test_augmentation_is_compared_with_none_and_corrected_for_all_ways(tmp_path):
    answer, page = ask("augmentation", augmentation_runs(5), tmp_path)
    opening = "New texts help: the best of 4 ways to add texts, swap at a ratio of 0.5, changes accuracy by +0.0"
    assert answer.startswith(opening) and "corrected for 4 comparisons" in answer and "'none'" in page
    assert "which is significant at 5%. It has accuracy 0.88" in answer and "and without new texts 0.86" in answer
    flat = ask("augmentation", augmentation_runs(5, gain=0.0), tmp_path)[0]
    assert flat.startswith(("It is undecided whether new texts help", "New texts do not help"))
    assert "is not significant" in flat
    assert ask("augmentation", augmentation_runs(1), tmp_path)[0].startswith("With one seed it is undecided")
    runs = augmentation_runs(5, gain=-0.1)
    harmful = [run for run in runs if run.planned.point.get("augment.ratio") in (None, 0.5)]
    answer, _ = ask("augmentation", harmful, tmp_path)
    assert answer.startswith("New texts do not help: the only way to add texts, swap at a ratio of 0.5, changes")
    assert "by -0.1" in answer and "which is significant at 5%" in answer
    with pytest.raises(UserError, match="runs without"):
        ask("augmentation", seeds_runs(), tmp_path)


def test_augmentation_is_compared_at_the_same_place_on_the_other_axes(tmp_path):
    """Swapping gains nothing; at 5e-4 all is better than at 1e-4."""
    runs = []
    for rate, seed in itertools.product((1e-4, 5e-4), range(1, 6)):
        luck = 0.8 + 200 * rate + wobble(seed)
        runs.append(finished("none", {"train.lr": rate, "seed": seed}, luck))
        point = {"augment.method": "swap", "augment.ratio": 0.5, "train.lr": rate, "seed": seed}
        runs.append(finished("swap", point, luck + wobble(seed, rate * 1e4) / 8))
    answer, _ = ask("augmentation", runs, tmp_path)
    assert "is not significant" in answer and "lr 0.0005 at a ratio" in answer and "without new texts 0.9" in answer
    lacking = [r for r in runs if r.planned.variant != "none" or r.planned.point["train.lr"] != 5e-4]
    with pytest.raises(UserError, match=r'"swap, method swap, lr 0.0005".*there are none among none, lr 0.0001'):
        ask("augmentation", lacking, tmp_path)
    others = [replace(r, planned=replace(r.planned, variant="bare")) for r in augmentation_runs(4)[:4]]
    with pytest.raises(UserError, match=r"there are several among none, bare\. Cross a variant"):
        ask("augmentation", [*augmentation_runs(5), *others], tmp_path)


def test_active_learning_is_compared_with_random_choice_and_corrected_for_all(tmp_path):
    answer, page = ask("active", active_runs(5), tmp_path)
    assert answer.startswith("It pays: these rules beat random choice significantly: margin with 100 and 500 labels. ")
    assert "The largest lead is that of margin with 100 labels: accuracy 0.76" in answer
    needed = re.search(r"random choice needs about (\d+) labels \(95% interval \d+ to \d+\) for as much", answer)
    assert int(needed[1]) == pytest.approx(100 * 5**0.6, rel=0.1)
    assert "corrected for 6 comparisons: p below 0.001" in answer
    few = ask("active", active_runs(3), tmp_path)[0]
    assert few.startswith("It seems to pay, but 3 seeds are too few to call it significant")
    assert "Compared with random choice" in page and "'linear baseline (random)'" in page
    # The start, which all share, is not compared.
    assert page.count("'20', '0.") == 1 + 1 and "'20', '+" not in page


def test_seeds_that_all_differ_alike_are_no_certainty_of_a_rule(tmp_path):
    runs = active_runs(3, ("random", "margin"))
    for i, run in enumerate(runs):
        accuracy = 0.5 + run.planned.round.labels / 4000 + 0.1 * (run.planned.round.rule == "margin")
        runs[i] = with_results(run, test=replace(run.run.results.test, accuracy=accuracy))
    answer, page = ask("active", runs, tmp_path)
    assert answer.startswith("No: margin did not beat random choice. With 1,000 labels margin has accuracy 0.850")
    assert "+0.100, of margin with 100 labels (the same with all 3 seeds, p = 0.750, corrected for 3" in answer
    assert "'+0.1000', '-', '-', '0.7500', '0.2500', '3'" in page


def test_what_a_rule_saves_is_known_if_random_choice_gets_as_far():
    random = Line("random", "accuracy", {100: {1: 0.6, 2: 0.6}, 1000: {1: 0.8, 2: 0.8}})
    rule = Line("margin", "accuracy", {100: {1: 0.7, 2: 0.7}, 200: {1: 0.8, 2: 0.81}, 300: {1: 0.7, 2: 0.6}})
    assert labels_needed(random, rule, 100) == (pytest.approx(100 * 10**0.5), None)  # seeds do not differ
    other = Line("margin", "accuracy", {100: {1: 0.65, 2: 0.75}})
    needed, interval = labels_needed(random, other, 100)
    assert needed == pytest.approx(100 * 10**0.5) and interval.low < needed < interval.high
    same = Line("x", "accuracy", {200: {1: 0.8, 2: 0.8}})
    assert labels_needed(random, same, 200) == (pytest.approx(1000), None)  # the last round has exactly as much
    assert labels_needed(random, rule, 200) is None  # a seed's random choice does not get there
    assert labels_needed(random, rule, 300) is None  # or is there from the start
    dips = Line("random", "accuracy", {20: {1: 0.8}, 100: {1: 0.7}, 500: {1: 0.9}})
    assert labels_needed(dips, Line("x", "accuracy", {100: {1: 0.78}}), 100) is None  # though it rises to it once more
    falls = Line("random", "loss", {100: {1: 0.8}, 400: {1: 0.4}})
    assert labels_needed(falls, Line("x", "loss", {50: {1: 0.6}}), 50) == (pytest.approx(200), None)


def test_active_learning_says_plainly_if_no_rule_beat_random_choice(tmp_path):
    answer, page = ask("active", active_runs(5, ("random", "k-centres")), tmp_path)
    assert answer.startswith("No: k-centres did not beat random choice. With 1,000 labels k-centres has accuracy")
    assert "which is not significant" in answer and "['k-centres', '1,000'" in page and "-: unknown" in page
    behind = active_runs(5, ("random", "k-centres"))
    for i, run in enumerate(behind):
        if run.planned.round.rule == "k-centres":
            behind[i] = with_results(run, test=metrics(run.run.results.test.accuracy - 0.1))
    assert "which is significant at 5%; behind random choice in 3 of 3" in ask("active", behind, tmp_path)[0]
    assert "whether choosing texts pays is unknown" in ask("active", active_runs(3, ("margin",)), tmp_path)[0]
    assert ask("active", active_runs(3, ("random",)), tmp_path)[0].startswith("Texts were drawn at random only.")
    with pytest.raises(UserError, match="needs rounds of a section"):
        ask("active", seeds_runs(), tmp_path)


def test_wrong_labels_are_lines_of_their_own(tmp_path):
    answer, page = ask("active", active_runs(noise=(0.0, 0.2)), tmp_path)
    assert "ahead of random choice are margin (lora) with 100 and 500 labels; margin (lora, 20% wrong" in answer
    assert "12 comparisons" in answer
    assert "lora, 20% wrong labels:" in page and "'lora, 20% wrong labels, margin', '500'" in page


def test_fractions_of_wrong_labels_that_are_almost_alike_stay_apart(tmp_path):
    _, page = ask("active", active_runs(noise=(0.01, 0.012, 0.004)), tmp_path)
    for share in ("1%", "1.2%", "0.4%"):
        assert f"lora, {share} wrong labels:" in page


def test_few_shot_needs_its_axis(tmp_path):
    with pytest.raises(UserError, match="needs runs with data"):
        ask("few-shot", seeds_runs(), tmp_path)


# --- The files ---


@pytest.mark.parametrize(
    ("file", "few"),
    [
        ("seeds", ["axes.seed=[1]"]),
        ("sweep", ["axes.train.lr=[1e-4]", "axes.train.weight_decay=[0, 0.01]"]),
        ("few_shot", ["axes.data.shots=[2, 0]", "axes.seed=[1]"]),
        ("scaling", ["axes.data.train_rows=[8, 16, 32]", "axes.seed=[1]"]),
        ("freezing", ["axes.seed=[1]"]),
        ("mrpc_freezing", ["axes.seed=[1]", "data.max_tokens=120"]),
        ("augmentation", ["axes.augment.ratio=[0.5]", "axes.seed=[1]"]),
        ("active_learning", ["axes.seed=[1]", 'active.rules=["margin"]', "active.labels=[8, 16]"]),
    ],
)
def test_each_file_runs_from_end_to_end(file, few, tmp_path, bert, monkeypatch):  # noqa: F811
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("minilm.reporting.style.Figure.savefig", lambda *arguments, **options: None)
    monkeypatch.setattr("minilm.runs.conclude.time_inference", lambda classifier, rows: 1.0)
    monkeypatch.setattr("minilm.studies.study_page.html", lambda page: page.answer)
    rows = ["data.validation_rows=12", "data.test_rows=12"] + ["data.train_rows=32"] * (file != "scaling")
    small = [f"model.source={bert}", "data.sample=true", "data.max_tokens=12", *rows]
    small += ["train.epochs=1"] * (file != "sweep")
    with no_pictures():
        result = minilm("study", STUDIES / f"{file}.toml", *small, *few, "--runs", tmp_path)
    failed = {line.split()[1] for line in result.stderr.splitlines() if "  failed: " in line}
    # These need a word list and models that this machine may lack.
    able_to_fail = {"synonyms", "masked-words", "back-translation"}
    assert {name.partition("_")[0] for name in failed} <= able_to_fail, result.output
    assert file == "augmentation" or not failed
    answer = next(tmp_path.glob("*/study.html")).read_text()
    assert answer.endswith(".") and "accuracy" in answer
