import json
import re

import numpy as np
import pytest

from minilm.data.rows import Rows
from minilm.errors import UserError
from minilm.evaluation.metrics import classification_metrics, labels_above, multilabel_metrics
from minilm.reporting.compare import (
    compare_html,
    compare_markdown,
    compare_rows,
    compare_text,
    compare_with_first,
    comparison,
    load_groups,
)
from minilm.reporting.groups import OF_CONFUSION, OF_MEANS, common_name, parts_of, unique_names
from minilm.reporting.predictions import write_predictions
from minilm.reporting.record import Run
from tests import records
from tests.browser import browser, find_browser
from tests.tiny import minilm, refused

ADAPTED = records.adapted()


def two_runs(make_run, results):
    first = make_run(results, name="zwei")
    results["test"]["macro_f1"] = 0.63
    return load_groups([first, make_run(results, name="eins", config='[model]\nsource = "bielik"\n')])


@pytest.fixture
def seeds(make_run, results):
    """Runs of one config with so many seeds, whose test accuracy is given."""

    def make(name, accuracies, model="bert"):
        folders = []
        for seed, accuracy in enumerate(accuracies, start=1):
            results["test"]["accuracy"] = accuracy
            config = f'name = "{name}-{seed}"\nseed = {seed}\n[model]\nsource = "{model}"\n'
            folders.append(make_run(results, name=f"{name}_seed-{seed}", config=config))
        return folders

    return make


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures are left out: they take most of the time."""
    for plot in ("bars", "curves"):
        monkeypatch.setattr(f"minilm.reporting.group_plots.{plot}", lambda *arguments, **options: arguments[2])


# --- Single runs ---


def test_runs_stand_side_by_side_in_the_order_given(make_run, results):
    quality, cost = compare_text(two_runs(make_run, results)).split("\n\n")
    splits, names, _, *rows = [line.split() for line in quality.splitlines()]
    assert splits == ["test"] * 4 + ["validation"] * 4
    assert names == ["run", "model", *["loss", "accuracy", "macro", "F1", "MCC"] * 2]
    assert rows[0][:5] == ["zwei", "GPT-2,", "from", "scratch", "0.9800"]
    assert rows[0][5:] == ["0.5833", "0.5120", "0.2900", "0.9700", "0.5500", "0.4800", "0.2500"]
    assert rows[1][:5] == ["eins", "bielik", "0.9800", "0.5833", "0.6300"]
    assert cost.splitlines()[-1].split() == ["eins", "5.73M", "5.73M", "4", "min", "12", "s", "15.3k", "0.21", "s"]


def test_markdown_has_the_same_tables(make_run, results):
    text = compare_markdown(two_runs(make_run, results))
    assert "| run | model | test loss | test accuracy | test macro F1 | test MCC | validation loss |" in text
    assert "| eins | bielik | 0.9800 | 0.5833 | 0.6300 | 0.2900 |" in text
    assert "| eins | 5.73M | 5.73M | 4 min 12 s | 15.3k | 0.21 s |" in text


def test_runs_on_other_data_are_said_not_to_compare(make_run, results):
    first = make_run(results, name="one")
    results["data"]["fingerprint"] = "ff" * 32
    runs = load_groups([first, make_run(results, name="two", config='[model]\nsource = "b"\n')])
    sets = "one: polish_slang ab12ab12, two: polish_slang ffffffff"
    note = f"The runs have different data, so the metrics cannot be compared: {sets}."
    assert compare_text(runs).endswith(note) and compare_markdown(runs).endswith(note)


def test_where_each_seed_has_its_own_data_the_runs_of_a_seed_must_share_it(make_run, results):
    def run(name, seed, model, fingerprint):
        results["data"]["fingerprint"] = fingerprint * 64
        config = f'seed = {seed}\n[model]\nsource = "{model}"\n[data]\nredraw = true\nsplit_seed = {seed}\n'
        return make_run(results, name=name, config=config)

    runs = [run(f"{model}-{seed}", seed, model, str(seed)) for model in "ab" for seed in (1, 2)]
    assert "The runs have different data" not in compare_text(load_groups(runs))
    assert "The runs have different data" in compare_text(load_groups([*runs, run("c-2", 2, "c", "3")]))


def test_runs_of_equal_names_in_several_folders_are_kept_apart(make_run, results, tmp_path, undrawn):
    def run(study, seed, accuracy):
        results["test"]["accuracy"], results["data"]["fingerprint"] = accuracy, study * 64
        config = f'seed = {seed}\n[model]\nsource = "{study}"\n'
        return make_run(results, name=f"{study}/lora_seed-{seed}", config=config)

    reached = {"a": (0.50, 0.52, 0.51), "b": (0.50, 0.53, 0.51), "c": (0.80, 0.83, 0.81)}
    runs = {study: [run(study, s, x) for s, x in enumerate(values, 1)] for study, values in reached.items()}
    groups = load_groups([folder for folders in runs.values() for folder in folders])
    assert [group.name for group in groups] == ["a/lora", "b/lora", "c/lora"]
    found = compare_with_first(groups, "accuracy", "test")
    assert found["b/lora"][1] > 0.05 > found["c/lora"][1]
    singles = load_groups([folders[0] for folders in runs.values()])
    assert [group.name for group in singles] == ["a/lora_seed-1", "b/lora_seed-1", "c/lora_seed-1"]
    assert "a/lora_seed-1: polish_slang aaaaaaaa, b/lora_seed-1: polish_slang bbbbbbbb" in compare_text(singles)


def test_groups_that_nothing_tells_apart_are_numbered(tmp_path):
    def run(folder):
        return Run(tmp_path / folder, records.typed(ADAPTED), records.config(), [], None)

    runs = ["x/a/r_seed-1", "y/a/r_seed-1", "x/b/r_seed-1"]
    assert unique_names([[run(name)] for name in runs]) == ["a/r_seed-1", "a/r_seed-1 #2", "b/r_seed-1"]
    heads = [[run("a/head-1"), run("a/head-2")], [run("a/head-3"), run("a/head-4")]]
    assert unique_names(heads) == ["head-1", "head-3"]


def test_one_label_and_several_labels_a_text_share_a_table(make_run, results, several_results):
    several = make_run(several_results, name="several", config='[model]\nsource = "b"\n')
    runs = load_groups([make_run(results, name="one"), several])
    header, _, one, several = (line.split(" | ") for line in compare_markdown(runs).splitlines()[:4])
    assert "test MCC" in header and "test Jaccard" in header
    assert one[header.index("test Jaccard")] == several[header.index("test MCC")] == "-"
    assert (one[header.index("test MCC")], several[header.index("test Jaccard")]) == ("0.2900", "0.5000")


def test_what_a_run_did_not_measure_is_left_open(make_run, results):
    del results["times"]["train_seconds"]
    _, cost = compare_text(load_groups([make_run(results)])).split("\n\n")
    assert cost.split()[-4:] == ["-", "15.3k", "0.21", "s"]


def test_a_run_that_only_adapted_shows_its_perplexity_and_what_it_cost(make_run, results):
    config = '[model]\nsource = "bert"\n[adapt]\nblock = 64\n'
    groups = load_groups([make_run(results, name="full"), make_run(ADAPTED, name="adapt", config=config)])
    quality, cost = compare_text(groups).split("\n\n")
    assert quality.splitlines()[1].split()[-1] == "perplexity"
    assert quality.splitlines()[-1].split() == ["adapt", "bert", *"-" * 8, "9.0000"]
    assert cost.splitlines()[-1].split() == ["adapt", "1.00k", "1.00k", "12.0", "s", "-", "-"]


def test_a_folder_that_is_no_run_is_named_and_nothing_is_an_error(tmp_path):
    with pytest.raises(UserError, match="not a run's folder"):
        load_groups([tmp_path])
    with pytest.raises(UserError, match="nothing to compare"):
        load_groups([])


# --- Seeds ---


def test_runs_that_differ_only_in_their_seed_are_one_row(seeds):
    groups = load_groups(
        [*seeds("head", [0.5, 0.6]), *seeds("full", [0.8, 0.9], model="gpt2"), *seeds("x", [0.7], "b")]
    )
    assert [(group.name, len(group.runs)) for group in groups] == [("head", 2), ("full", 2), ("x_seed-1", 1)]
    test, _, _ = compare_text(groups).split("\n\n")
    head, _, single = (line.split() for line in test.splitlines()[-3:])
    assert head[:3] == ["head", "bert", "2"] and head[5:7] == ["0.5500", "±0.0707"]
    assert single[:5] == ["x_seed-1", "b", "1", "0.9800", "0.7000"]


def test_a_run_that_repeats_another_is_no_seed_more(make_run, results, tmp_path, undrawn):
    def run(name, seed, accuracy, data="a"):
        results["test"]["accuracy"], results["data"]["fingerprint"] = accuracy, data * 64
        return make_run(results, name=name, config=f'name = "x"\nseed = {seed}\n[model]\nsource = "bert"\n')

    first, second = run("x", 1, 0.5), run("y", 2, 0.6)
    alone = comparison(load_groups([first, second]), "accuracy", tmp_path / "figures")[0]
    groups = load_groups([first, second, run("x-2", 1, 0.5), run("x-3", 1, 0.5)])
    assert [group.values("accuracy") for group in groups] == [[0.5, 0.6]]
    assert comparison(groups, "accuracy", tmp_path / "figures")[0] == alone and "over 2 seeds" in alone
    note = "Excluded, as another run has the same settings, seed and data: x-2 (as x), x-3 (as x)."
    assert compare_text(groups).endswith(note)
    assert "The runs have different data" in compare_text(load_groups([first, run("x-4", 1, 0.5, data="b")]))


def test_seeds_that_all_reach_the_same_have_no_interval(seeds, tmp_path, undrawn):
    answer, _ = comparison(load_groups(seeds("head", [0.9, 0.9])), "accuracy", tmp_path / "figures")
    assert answer == "head reaches 0.900 in accuracy on the test texts."


def test_what_goes_on_from_the_same_adaptation_with_another_seed_is_one_row(make_run, results, tmp_path):
    folders = []
    for seed in (1, 2):
        earlier = f'seed = {seed}\n[model]\nsource = "bert"\n[adapt]\nblock = 64\n'
        adapted = make_run(ADAPTED, name=f"adapt-{seed}", config=earlier) / "adapted"
        config = f'seed = {seed}\n[model]\nsource = "{adapted}"\n'
        folders.append(make_run(results, name=f"after-{seed}", config=config))
    assert [group.name for group in load_groups(folders)] == ["after"]
    other = records.config_text('[model]\nsource = "bert"\n[adapt]\nblock = 65\n')
    (tmp_path / "adapt-2" / "config.toml").write_text(other)
    assert len(load_groups(folders)) == 2


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["tiny", "tiny-2"], "tiny"),
        (["head_seed-1", "head_seed-12"], "head"),
        (["a"], "a"),
        (["seed-1", "seed-2"], "seed-1"),
        (["x", "y"], "x"),
    ],
)
def test_a_group_is_called_what_its_names_begin_with(names, said):
    assert common_name(names) == said


@pytest.mark.parametrize("metric", OF_CONFUSION)
def test_metrics_of_a_confusion_matrix_are_those_of_its_rows(metric):
    chance = np.random.default_rng(0)
    labels, logits = chance.integers(0, 3, 50), chance.normal(size=(50, 4))
    logits[:, 3] = -9  # a class that never occurs
    found = classification_metrics(labels, logits)
    assert OF_CONFUSION[metric](np.array(found.confusion)) == pytest.approx(found[metric])


@pytest.mark.parametrize("metric", OF_MEANS)
def test_metrics_of_means_over_the_rows_are_those_of_the_rows(metric):
    chance = np.random.default_rng(0)
    labels, logits = chance.integers(0, 2, (50, 4)), chance.normal(size=(50, 4))
    labels[:9], logits[:6] = 0, -1  # some rows have no label, and some are given none
    labels[:, 3], logits[:, 3] = 0, -1  # a label that never occurs
    means = parts_of(labels, labels_above(logits)).mean(axis=0)
    assert OF_MEANS[metric](means) == pytest.approx(multilabel_metrics(labels, logits)[metric])


def test_the_answer_is_the_best_one_and_a_test_against_the_first(seeds, tmp_path, undrawn):
    groups = load_groups([*seeds("head", [0.50, 0.52, 0.51]), *seeds("full", [0.80, 0.81, 0.82], "gpt2")])
    answer, sections = comparison(groups, "accuracy", tmp_path)
    assert answer == (
        "full has the highest accuracy on the test texts: 0.810 (95% interval 0.785 to 0.835 over 3 seeds), "
        "ahead of head with 0.510 (95% interval 0.485 to 0.535 over 3 seeds). "
        "Over the same seeds full has 0.300 more than head (95% interval 0.275 to 0.325 over 3 seeds; paired t test: "
        "p below 0.001), which 3 seeds are too few to call significant (at least 5 are needed)."
    )
    many = [*seeds("a", [0.5, 0.52, 0.51, 0.5, 0.51], "x"), *seeds("b", [0.8, 0.81, 0.82, 0.8, 0.82], "y")]
    assert comparison(load_groups(many), "accuracy", tmp_path)[0].endswith("0.001), which is significant at 5%.")
    assert [section.title for section in sections] == [
        "How well each does",
        "Compared with head",
        "How each learned",
        "What each cost",
    ]
    table = sections[1].blocks[0]
    assert table.rows[0][:3] == ["full", "+0.3000", "+0.2752 to +0.3248"] and table.rows[0][-2:] == ["0.2500", "3"]


def test_significant_is_never_said_without_the_test(seeds, tmp_path, undrawn):
    close = load_groups([*seeds("head", [0.50, 0.60]), *seeds("full", [0.58, 0.57], "gpt2")])
    answer, _ = comparison(close, "accuracy", tmp_path)
    assert answer.endswith("which is not significant at 5%.")
    single = load_groups([*seeds("a", [0.5], "x"), *seeds("b", [0.6], "y")])
    answer, sections = comparison(single, "accuracy", tmp_path)
    assert "over 120 test rows" in answer and "one seed only" in answer and "significant" not in answer
    assert not any(section.title.startswith("Compared") for section in sections)
    alone, _ = comparison(single[:1], "accuracy", tmp_path)
    assert alone.startswith("a_seed-1 reaches 0.500")


def test_seeds_that_all_differ_alike_are_no_certainty(seeds, tmp_path, undrawn):
    groups = load_groups([*seeds("head", [0.8, 0.9]), *seeds("full", [0.81, 0.91], "gpt2")])
    answer, sections = comparison(groups, "accuracy", tmp_path)
    assert "full has 0.010 more than head (the same with all 2 seeds; permutation test: p = 0.500), which is" in answer
    table = sections[1].blocks[0]
    assert table.rows[0] == ["full", "+0.0100", "-", "-", "0.5000", "0.5000", "2"] and "-: all seeds" in table.note


def test_a_difference_is_told_by_its_size_and_each_interval_is_of_its_comparison_alone(seeds, tmp_path, undrawn):
    best = seeds("best", [0.90, 0.92, 0.91])
    groups = load_groups([*best, *seeds("x", [0.80, 0.81, 0.82], "x"), *seeds("y", [0.6, 0.62, 0.61], "y")])
    answer, sections = comparison(groups, "accuracy", tmp_path)
    said = re.search(r"x has 0.100 less than best \(95% interval (\S+) to (\S+) over 3 seeds, of this comp", answer)
    assert 0 < float(said[1]) < 0.1 < float(said[2]) and "alone; paired t test, corrected for 2 comparisons" in answer
    assert "Each interval refers to one comparison." in sections[1].blocks[0].note


def test_lower_is_better_of_a_loss(seeds, tmp_path, undrawn):
    answer, _ = comparison(load_groups([*seeds("a", [0.5], "x"), *seeds("b", [0.6], "y")]), "loss", tmp_path)
    assert "has the lowest loss on the test texts" in answer


def test_a_metric_that_no_run_has_is_told_with_those_there_are(several_results, make_run, tmp_path):
    with pytest.raises(UserError, match=r"no run has the metric accuracy; the metrics are: loss, .*jaccard"):
        comparison(load_groups([make_run(several_results)]), "accuracy", tmp_path)


# --- Test row by test row ---


def decided(run, labels, right):
    """Give a run its predictions: on which rows it is right."""
    labels, right = np.array(labels), np.array(right, dtype=bool)
    several = labels.ndim == 2
    wrong = ~right[:, None] if several else ~right
    chosen = np.where(wrong, 1 - labels, labels) if several else np.where(wrong, (labels + 1) % 3, labels)
    scores = 2.0 * chosen - 1 if several else np.eye(3)[chosen]
    names = ["negative", "neutral or ambiguous", "positive"]
    write_predictions(run, Rows([f"text {i}" for i in range(len(labels))], None, labels), scores, names)
    return run


def test_two_runs_on_the_same_rows_are_compared_by_mcnemars_test(seeds, tmp_path, undrawn):
    labels, right = [0, 1, 2] * 40, np.arange(120) < 60
    better, same = right | (np.arange(120) >= 108), right ^ np.isin(np.arange(120), [0, 119])
    runs = [*seeds("a", [0.5], "x"), *seeds("b", [0.6], "y"), *seeds("c", [0.5], "z")]
    assert "McNemar" not in compare_text(load_groups(runs))  # as long as they have not kept their predictions
    for run, rows in zip(runs, (right, better, same), strict=True):
        decided(run, labels, rows)
    groups = load_groups(runs)
    assert compare_rows(groups)["b_seed-1"] == (12, 0, 120, 2 / 2**12, 4 / 2**12, 2)  # 12 tosses, none the other way
    assert compare_rows(groups)["c_seed-1"] == (1, 1, 120, 1.0, 1.0, 2)
    lines = [line.split() for line in compare_text(groups).splitlines()]
    assert ["b_seed-1", "12", "0", "0.0005", "0.0010", "120"] in lines
    answer, sections = comparison(groups, "accuracy", tmp_path)
    assert "b_seed-1 has 12 right that a_seed-1 has wrong, and 0 the other way round (McNemar's test, corr" in answer
    assert "p below 0.001), which is significant at 5%; but each ran with one seed only" in answer
    assert "Compared with a_seed-1, test row by test row" in [section.title for section in sections]
    answer, _ = comparison([groups[2], groups[0]], "accuracy", tmp_path)
    assert "which may be chance; but each" in answer and "significant" not in answer


def test_where_the_first_was_chosen_for_its_score_all_pairs_are_corrected_for(seeds):
    right = np.arange(120) < 60
    runs = [*seeds("a", [0.5], "x"), *seeds("b", [0.6], "y"), *seeds("c", [0.5], "z")]
    for run, rows in zip(runs, (right | (np.arange(120) >= 108), right, right), strict=True):
        decided(run, [0, 1, 2] * 40, rows)
    found = compare_rows(load_groups(runs), best_first=True)
    assert list(found) == ["b_seed-1", "c_seed-1"]
    assert found["b_seed-1"] == (0, 12, 120, 2 / 2**12, 6 / 2**12, 3)


def test_rows_that_were_sorted_are_told(seeds):
    runs = [*seeds("a", [0.5], "x"), *seeds("b", [0.6], "y")]
    for run, labels in zip(runs, ([0, 1, 2] * 40, sorted([0, 1, 2] * 40)), strict=True):
        decided(run, labels, np.arange(120) < 60)
    with pytest.raises(UserError, match=r"predictions.csv \(or .*predictions.csv\): was changed after the run"):
        compare_rows(load_groups(runs))


def test_rows_of_other_data_are_not_compared(make_run, results):
    first = decided(make_run(results, name="one"), [0, 1, 2] * 40, [1, 1, 0] * 40)
    results["data"]["fingerprint"] = "ff" * 32
    second = decided(make_run(results, name="two", config='[model]\nsource = "b"\n'), [0, 1, 2] * 40, [1, 0, 0] * 40)
    assert compare_rows(load_groups([first, second])) == {}


def test_several_labels_have_an_interval_over_the_test_rows(make_run, several_results):
    several_results["data"]["sizes"]["test"] = 100
    run, right = make_run(several_results, name="several"), np.arange(100) < 50
    assert load_groups([run])[0].interval("subset_accuracy") is None
    decided(run, np.tile([[1, 0, 1], [0, 1, 0]], (50, 1)), right)
    group = load_groups([run])[0]
    (low, high), over = group.interval("subset_accuracy")
    assert over == "100 test rows" and (low, high) == pytest.approx((0.4, 0.6), abs=0.02)  # binomial: 0.5 +- 0.098
    # A row is wholly right or wholly wrong, so the bootstrap of this is that of a fraction.
    assert group.interval("jaccard")[0] == pytest.approx((low, high), abs=0.01)
    assert group.interval("loss") is None and group.interval("jaccard", "validation") is None


# --- The page ---


def test_the_page_holds_tables_and_pictures_and_nothing_from_elsewhere(make_run, results, several_results):
    config = '[model]\nsource = "bert"\n[adapt]\nblock = 64\n'
    adapted = make_run(ADAPTED, name="adapt", config=config)
    (adapted / "adaptation").mkdir()
    line = records.evaluation(1, 1.0, {"loss": 2.2, "perplexity": 9.0})
    (adapted / "adaptation" / "metrics.jsonl").write_text(json.dumps(line))
    (adapted / "metrics.jsonl").unlink()
    page = compare_html(load_groups([make_run(results, name="<b>one"), adapted]))
    assert page.count("data:image/svg+xml;base64,") == 3
    assert "<b>one" not in page and "&lt;b&gt;one" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "perplexity" in compare_html(load_groups([adapted]))
    several = compare_html(load_groups([make_run(several_results, name="several")]))
    assert "test subset accuracy" in several.replace("\n", " ")


@pytest.mark.skipif(not find_browser(), reason="needs Chromium")
@pytest.mark.parametrize(("width", "dark"), [(1000, False), (360, True)])
def test_a_browser_shows_the_whole_page_and_asks_for_nothing_else(make_run, results, tmp_path, width, dark):
    path = tmp_path / "page.html"
    name = "a run with a very long name that no telephone shows on one line " * 2
    path.write_text(compare_html(load_groups([make_run(results, name=name.strip())])))
    with browser() as tab:
        tab.open(path, width, dark)
        assert tab.reported() == []
        assert [url for url in tab.requests() if not url.startswith("data:")] == [path.as_uri()]
        assert tab.value("document.images.length") == 2
        assert tab.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert tab.value("document.documentElement.scrollWidth <= innerWidth")  # tables scroll by themselves


def test_the_command_writes_the_page_and_refuses_an_unknown_metric(make_run, results, tmp_path):
    run = make_run(results)
    result = minilm("compare", run, "--html", tmp_path / "page.html", "--metric", "mcc")
    assert result.exit_code == 0 and "slang" in result.output
    assert "slang reaches 0.290 (95% interval" in (tmp_path / "page.html").read_text()
    for wrong in ("f1", "confusion"):  # the second is in results.json, but no number
        said = refused("compare", run, "--html", tmp_path / "x.html", "--metric", wrong)
        assert f"no run has the metric {wrong}" in said


def test_no_run_is_called_the_best_of_two_data_sets(make_run, results, tmp_path, undrawn):
    other = results | {"data": results["data"] | {"name": "news", "fingerprint": "f" * 64}}
    groups = load_groups([make_run(results, name="one"), make_run(other, name="two")])
    answer, _ = comparison(groups, "accuracy", tmp_path / "figures")
    note = "The runs have different data, so the metrics cannot be compared"
    assert answer.startswith(f"{note}: one: polish_slang ab12ab12, two: news")
