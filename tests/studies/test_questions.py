"""Each question's answer, from made-up runs whose answer is known."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from minilm.config import config_of
from minilm.errors import UserError
from minilm.reporting.record import Run
from minilm.studies.analyses import ANALYSES, Finished
from minilm.studies.config import Planned, Study, StudyConfig
from minilm.studies.questions.active import labels_needed
from minilm.studies.questions.lines import Line
from minilm.studies.rounds import Choice
from tests.studies.test_experiments import STUDIES, bert  # noqa: F401 (a fixture)
from tests.tiny import minilm, no_pictures

ROWS = 4000  # test texts


def metrics(accuracy: float, rows: int = ROWS) -> dict:
    """As of two classes that are mixed up alike."""
    right = round(accuracy * rows / 2)
    wrong = rows // 2 - right
    share = right / (rows // 2)
    confusion = [[right, wrong], [wrong, right]]
    return {"loss": 1 - share, "accuracy": share, "macro_f1": share, "mcc": 2 * share - 1, "confusion": confusion}


def finished(
    variant: str, point: dict, accuracy: float, *, baseline: float | None = None, rows: int = 240, trained: int = 10**6
) -> Finished:
    """A run at a point of the axes that reached so much, in a second a trained kilo-parameter."""
    name = "_".join([variant, *(f"{key}-{value}" for key, value in point.items())])
    table: dict = {"name": "x", "model": {"source": "bert"}, "data": {"source": "x.csv"}}
    table["train"] = {"epochs": 1, "lr": 0.1}
    for key, value in point.items():
        section, _, last = key.rpartition(".")
        (table.setdefault(section, {}) if section else table)[last] = value
    results = {
        "test": metrics(accuracy),
        "validation": metrics(accuracy, 800),
        "baselines": {"majority": {"test": metrics(0.5)}},
        "parameters": {"total": 10**8, "trained": trained},
        "times": {"train_seconds": 60 + trained / 1e5, "inference_seconds_per_100_texts": 0.1},
        "tokens_per_second": 1e9 / trained,
        "data": {"name": "x", "fingerprint": str(rows), "sizes": {"train": rows, "validation": 40, "test": ROWS}},
    }
    if baseline is not None:
        results["baselines"]["linear"] = {"test": metrics(baseline)}
    run = Run(Path(name), results, table, [], {})
    return Finished(Planned(name, variant, point, config_of(table, {}, "x.toml")), run)


def ask(analysis: str, runs: list[Finished], figures: Path, axes: tuple[str, ...] = ("seed",), drawn: bool = False):
    """The answer, and all else on the page as text; pictures are drawn where asked for."""
    config = StudyConfig("x", "How?", analysis=analysis, axes={key: [1] for key in axes})
    study = Study(config, figures, tuple(f.planned for f in runs), Path("x.toml"))
    if drawn:
        answer, sections = ANALYSES[analysis](study, runs, figures)
    else:
        with mock.patch("minilm.reporting.style.Figure.savefig"):
            answer, sections = ANALYSES[analysis](study, runs, figures)
    assert len(re.findall(r"[^.]\.(?: |$)", answer)) == 2, answer
    return answer, "\n".join(str(part) for section in sections for part in (section.title, *section.parts))


def wobble(*key: float, scale: float = 0.004) -> float:
    """A little luck, the same for the same key."""
    return float(np.random.default_rng([int(abs(k) * 1e3) for k in key]).normal(0, scale))


# --- Made-up studies ---


def shots_runs(seeds: int = 3) -> list[Finished]:
    """Fine-tuning is behind the linear baseline up to 5 of each class, and ahead from 10 on."""
    runs = []
    for shots, accuracy, linear in [(1, 0.4, 0.5), (5, 0.6, 0.65), (10, 0.8, 0.7), (50, 0.86, 0.8), (0, 0.9, 0.85)]:
        for seed in range(1, seeds + 1):
            luck = wobble(seed, shots)
            point = {"data.shots": shots, "seed": seed}
            runs.append(finished("full", point, accuracy + luck, baseline=linear + luck / 2, rows=4 * shots or 2400))
    return runs


def scaling_runs(seeds: int = 3, sizes=(20, 50, 100, 200, 500, 1000, 2000), b: float = 0.5) -> list[Finished]:
    """The error is 2 n^-b + 0.08, the baseline's 3 n^-0.4 + 0.1."""
    return [
        finished(
            "full",
            {"data.train_rows": n, "seed": seed},
            1 - 2 * n**-b - 0.08 + wobble(seed, n),
            baseline=max(0.3, 0.9 - 3 * n**-0.4),
            rows=n,
        )
        for n in sizes
        for seed in range(1, seeds + 1)
    ]


def seeds_runs() -> list[Finished]:
    """LoRA is better by 0.02 with a hundredth of the parameters."""
    return [
        finished(name, {"seed": seed}, accuracy + wobble(seed) + wobble(seed, trained) / 4, trained=trained)
        for name, accuracy, trained in [("full", 0.87, 10**7), ("lora", 0.89, 10**5)]
        for seed in range(1, 6)
    ]


RATES, DECAYS = [1e-5, 5e-5, 1e-4, 2e-4, 5e-4], [0.0, 0.001, 0.01, 0.05, 0.1]


def sweep_runs() -> list[Finished]:
    """A hill about 1e-4 and 0.01, and a lucky cell in a corner."""
    runs = []
    for i, rate in enumerate(RATES):
        for j, decay in enumerate(DECAYS):
            accuracy = 0.9 - 0.03 * (i - 2) ** 2 - 0.005 * (j - 2) ** 2
            lucky = 0.91 if (i, j) == (4, 4) else accuracy
            runs.append(finished("full", {"train.lr": rate, "train.weight_decay": decay, "seed": 1}, lucky))
            runs.append(finished("lora", {"train.lr": rate, "train.weight_decay": decay, "seed": 1}, accuracy - 0.02))
        runs += [
            finished("full-rate", {"train.lr": rate, "seed": s}, 0.9 - 0.03 * (i - 2) ** 2 + wobble(s, i))
            for s in (1, 2, 3)
        ]
    for j, decay in enumerate(DECAYS):
        runs += [
            finished("full-decay", {"train.weight_decay": decay, "seed": s}, 0.9 - 0.01 * (j - 2) ** 2 + wobble(s, j))
            for s in (1, 2)
        ]
    return runs


def freezing_runs() -> list[Finished]:
    """Two layers can be frozen for nothing; six cost 0.05."""
    ways = [("nothing", 0.9, 66_000_000), ("first-1", 0.9, 36_000_000), ("first-2", 0.899, 29_000_000)]
    ways += [("first-4", 0.88, 15_000_000), ("first-6", 0.85, 600_000)]
    return [
        finished(name, {"seed": seed}, accuracy + wobble(seed) + wobble(seed, trained) / 3, trained=trained)
        for name, accuracy, trained in ways
        for seed in (1, 2, 3)
    ]


def augmentation_runs(seeds: int = 3, gain: float = 0.02) -> list[Finished]:
    """Swapping half as many texts gains; leaving words out does nothing."""
    runs = [finished("none", {"seed": seed}, 0.86 + wobble(seed)) for seed in range(1, seeds + 1)]
    for method, ratio, more in [("swap", 0.25, 0.0), ("swap", 0.5, gain), ("deletion", 0.25, 0.0), ("deletion", 1, 0)]:
        for seed in range(1, seeds + 1):
            luck = wobble(seed) + wobble(seed, len(method), ratio) / 8
            point = {"augment.method": method, "augment.ratio": ratio, "seed": seed}
            run = finished(method, point, 0.86 + more + luck)
            runs.append(replace(run, planned=replace(run.planned, point={k: point[k] for k in list(point)[1:]})))
    return runs


def active_runs(seeds: int = 3, rules: tuple[str, ...] = ("random", "margin", "k-centres"), noise=(0.0,)):
    """Margin is ahead of random choice with 100 labels and 500, k-centres nowhere; wrong labels cost 0.1."""
    reached = {"random": (0.7, 0.8, 0.85), "margin": (0.76, 0.84, 0.8501), "k-centres": (0.7, 0.8, 0.85)}
    runs = []
    for share, seed in itertools.product(noise, range(1, seeds + 1)):
        rounds = [("start", 20, 0.5)]
        rounds += [(rule, n, a) for rule in rules for n, a in zip((100, 500, 1000), reached[rule], strict=True)]
        for rule, labels, accuracy in rounds:
            luck = wobble(seed, labels) + wobble(seed, labels, len(rule)) / 8 - share / 2
            made = finished("lora", {"seed": seed}, accuracy + luck, baseline=accuracy - 0.05 + luck)
            point = {"seed": seed, "rule": rule, "labels": labels}
            runs.append(replace(made, planned=replace(made.planned, point=point, choice=Choice(rule, labels, share))))
    return runs


# --- The answers ---


PICTURES = {
    "active": (active_runs, ["active"]),
    "augmentation": (augmentation_runs, ["augmentation"]),
    "few-shot": (shots_runs, ["few_shot"]),
    "scaling": (scaling_runs, ["scaling"]),
    "seeds": (seeds_runs, ["boxes", "bars"]),
    "freezing": (freezing_runs, ["freezing"]),
    "sweep": (sweep_runs, ["curves_lr", "curves_weight_decay", "heat_lr_weight_decay", "surface_lr_weight_decay"]),
}


@pytest.mark.parametrize("analysis", PICTURES)
def test_every_picture_is_written_twice(tmp_path, analysis):
    runs, names = PICTURES[analysis]
    ask(analysis, runs(), tmp_path, drawn=analysis == "few-shot")
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}


def test_few_shots_say_from_where_on_fine_tuning_pays(tmp_path):
    answer, page = ask("few-shot", shots_runs(), tmp_path)
    assert answer.startswith("With 50 texts of each class full has accuracy 0.8") and "over 3 seeds), 95." in answer
    assert "ahead of the linear baseline from 10 of each class on" in answer and "which is significant at 5%" in answer
    assert "full compared with the linear baseline" in page and "['all'," in page


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
    assert exponent == pytest.approx(0.5, abs=0.05) and "lies beyond what was measured" in answer
    assert "the forecast of the size held back was right: at 2,000 texts" in answer and "inside" in page


def test_scaling_says_what_cannot_be_told(tmp_path):
    answer, _ = ask("scaling", scaling_runs(sizes=(20, 50)), tmp_path)
    assert "cannot be told: a curve of three parameters needs three sizes" in answer
    flat = [
        finished("full", {"data.train_rows": n, "seed": s}, 0.8 + wobble(n, s), rows=n)
        for n in (20, 50, 100, 200)
        for s in (1, 2, 3)
    ]
    assert "does not fall by more than chance" in ask("scaling", flat, tmp_path)[0]


def test_seeds_compare_with_what_it_cost(tmp_path):
    answer, page = ask("seeds", seeds_runs(), tmp_path)
    assert answer.startswith("lora has the highest accuracy") and "which is significant at 5%" in answer
    assert re.search(
        r"lora reaches 102\.\d% of full's accuracy .*with 1\.0% of its trained parameters, in 1 min 01 s", page
    )


def test_a_lucky_cell_is_not_called_best(tmp_path):
    answer, page = ask("sweep", sweep_runs(), tmp_path)
    assert answer.startswith(
        "full does best about lr 0.0001, weight_decay 0.01, with test accuracy 0.900 (95% interval"
    )
    assert "best single cell of full is another (lr 0.0005, weight_decay 0.1)" in answer
    assert "best single cell of lora is the same" in answer and "Over train.weight_decay" in page


def test_a_sweep_may_lack_cells_but_not_axes(tmp_path):
    runs = [run for run in sweep_runs() if run.planned.variant == "full"][::2]
    assert "full does best about" in ask("sweep", runs, tmp_path)[0]
    with pytest.raises(UserError, match=r'"full" has 0'):
        ask("sweep", [finished("full", {"seed": 1}, 0.9)], tmp_path)


def test_freezing_names_the_most_frozen_that_loses_nothing(tmp_path):
    answer, _ = ask("freezing", freezing_runs(), tmp_path)
    assert answer.startswith("With 66.0M trained parameters nothing has accuracy 0.90")
    assert "first-2, with 43.9% of these parameters, in 49% of its time, is the most frozen" in answer
    bad = [run for run in freezing_runs() if run.planned.variant in ("nothing", "first-4", "first-6")]
    answer, _ = ask("freezing", bad, tmp_path)
    assert "Every other way loses: first-4" in answer and "significant" in answer


def test_augmentation_is_compared_with_none_and_corrected_for_all_ways(tmp_path):
    answer, page = ask("augmentation", augmentation_runs(5), tmp_path)
    assert answer.startswith("Of 4 ways to add texts swap does best, with 0.5 new texts for each: accuracy 0.88")
    assert (
        re.search(r"It helps: \+0\.0(19|20) ", answer) and "corrected for 4 comparisons" in answer and "'none'" in page
    )
    assert "cannot be told from chance" in ask("augmentation", augmentation_runs(5, gain=0.0), tmp_path)[0]
    assert "Too few seeds" in ask("augmentation", augmentation_runs(1), tmp_path)[0]
    with pytest.raises(UserError, match="runs without"):
        ask("augmentation", seeds_runs(), tmp_path)


def test_active_learning_is_compared_with_random_choice_and_corrected_for_all(tmp_path):
    answer, page = ask("active", active_runs(5), tmp_path)
    assert answer.startswith("With 1,000 labels of 2 ways to choose texts margin does best: accuracy 0.85")
    needed = re.search(
        r"which needs about (\d+) labels \(95% interval \d+ to \d+\) for what margin reaches with 500", answer
    )
    assert int(needed[1]) == pytest.approx(500 * 2**0.8, rel=0.1)
    assert "corrected for 6 comparisons: it is ahead with 100 and 500, which is significant at 5%" in answer
    assert "Compared with random choice" in page and "'linear baseline (random)'" in page
    # The start, which all share, is not compared.
    assert page.count("'20', '0.") == 1 + 1 and "'20', '+" not in page


def test_what_a_rule_saves_is_told_where_random_choice_gets_as_far():
    random = Line("random", {100: {1: 0.6, 2: 0.6}, 1000: {1: 0.8, 2: 0.8}})
    rule = Line("margin", {100: {1: 0.7, 2: 0.7}, 200: {1: 0.8, 2: 0.81}, 300: {1: 0.7, 2: 0.6}})
    needed, interval = labels_needed(random, rule, 100, "accuracy")
    assert needed == pytest.approx(100 * 10**0.5) and interval == pytest.approx((needed, needed))
    assert labels_needed(random, rule, 200, "accuracy") is None  # a seed's random choice does not get there
    assert labels_needed(random, rule, 300, "accuracy") is None  # or is there from the start
    falls = Line("random", {100: {1: 0.8}, 400: {1: 0.4}})
    assert labels_needed(falls, Line("x", {50: {1: 0.6}}), 50, "loss") == (pytest.approx(200), None)


def test_active_learning_says_what_cannot_be_told(tmp_path):
    answer, page = ask("active", active_runs(5, ("random", "k-centres")), tmp_path)
    assert "With 1,000 labels k-centres has accuracy" in answer and "none can be told from chance" in answer
    assert "['k-centres', '1,000'" in page and "-: not told" in page
    assert "whether choosing texts pays is not known" in ask("active", active_runs(3, ("margin",)), tmp_path)[0]
    assert ask("active", active_runs(3, ("random",)), tmp_path)[0].startswith("Texts were drawn at random only.")
    with pytest.raises(UserError, match="needs rounds of a section"):
        ask("active", seeds_runs(), tmp_path)


def test_wrong_labels_are_lines_of_their_own(tmp_path):
    answer, page = ask("active", active_runs(noise=(0.0, 0.2)), tmp_path)
    assert "of 4 ways to choose texts margin (lora) does best" in answer and "12 comparisons" in answer
    assert "lora, 20% wrong labels:" in page and "'lora, 20% wrong labels, margin', '500'" in page


def test_what_the_axes_lack_is_told(tmp_path):
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
        ("augmentation", ["axes.augment.ratio=[0.5]", "axes.seed=[1]"]),
        ("active_learning", ["axes.seed=[1]", 'active.rules=["margin"]', "active.labels=[8, 16]"]),
    ],
)
def test_each_file_runs_from_end_to_end(file, few, tmp_path, bert, monkeypatch):  # noqa: F811
    monkeypatch.setattr("minilm.reporting.style.Figure.savefig", lambda *arguments, **options: None)
    monkeypatch.setattr("minilm.runs.train.time_inference", lambda classifier, rows: 1.0)
    monkeypatch.setattr("minilm.studies.engine.html", lambda page: page.answer)
    rows = ["data.validation_rows=12", "data.test_rows=12"] + ["data.train_rows=32"] * (file != "scaling")
    small = [f"model.source={bert}", "data.sample=true", "data.max_tokens=12", *rows]
    small += ["train.epochs=1"] * (file != "sweep")
    with no_pictures():
        result = minilm("study", STUDIES / f"{file}.toml", *small, *few, "--runs", tmp_path)
    assert result.exit_code == 0, result.output
    answer = next(tmp_path.glob("*/study.html")).read_text()
    assert answer.endswith(".") and "accuracy" in answer
