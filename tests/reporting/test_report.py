import json
import re
import subprocess
import sys

import pytest

from minilm.errors import UserError
from minilm.reporting.plots import confusion, learning_curves, length_distribution
from minilm.reporting.record import read_run
from minilm.reporting.report import results_table, write_report
from minilm.reporting.story import verdict
from tests import records
from tests.browser import browser, find_browser
from tests.records import typed


def page(make_run, results, **options):
    return write_report(make_run(results, **options)).read_text(encoding="utf-8")


def test_the_first_paragraph_tells_the_whole_story(make_run, results):
    text = page(make_run, results)
    assert text.startswith("# slang\n\n")
    assert text.splitlines()[2] == (
        "**GPT-2** (5,728,003 parameters, all of them trained) was trained from scratch on **polish_slang**: "
        "960 texts with 3 labels. On the 120 test texts it is right in 58.3% of cases, with a macro F1 of 0.5120. "
        "Always giving the most frequent label would be right in 50.8% of cases, with a macro F1 of 0.2246. "
        "**It falls short of the linear baseline by 2.8 points of macro F1 (accuracy: 1.7 points below): on "
        "these data the linear model is the better choice.** With 120 test texts, its accuracy on "
        "more such texts is only known to be between 49.4% and 66.8% (95%, Wilson's interval)."
    )


def test_a_fine_tuned_model_is_told_with_what_it_trains(make_run, results):
    results["parameters"]["trained"] = 741_124
    text = page(make_run, results, config='[model]\nsource = "distilbert"\n')
    assert "**distilbert** (5,728,003 parameters, 741,124 of them trained) was fine-tuned on" in text
    assert "741,124 (12.9%)" in text


@pytest.mark.parametrize(
    ("macro_f1", "accuracy", "sentence"),
    [
        (0.571, 0.62, "It beats the linear baseline by 3.1 points of macro F1 (accuracy: 2.0 points above)."),
        (0.571, 0.59, "It beats the linear baseline by 3.1 points of macro F1 (accuracy: 1.0 points below)."),
        (0.5401, 0.6, "It has the same macro F1 as the linear baseline (accuracy: equal)."),
        (
            0.5,
            0.5,
            "It falls short of the linear baseline by 4.0 points of macro F1 (accuracy: 10.0 points below): "
            "on these data the linear model is the better choice.",
        ),
    ],
)
def test_the_verdict_says_plainly_whether_the_transformer_pays_off(results, macro_f1, accuracy, sentence):
    results["test"] |= {"macro_f1": macro_f1, "accuracy": accuracy}
    assert verdict(typed(results)) == sentence


def test_without_a_linear_baseline_there_is_no_verdict(make_run, results):
    del results["baselines"]["linear"]
    assert verdict(typed(results)) == ""
    assert "****" not in page(make_run, results)


def test_the_terminal_s_table_is_aligned(results):
    assert results_table(typed(results)) == (
        "                        loss  accuracy  macro F1     MCC\n"
        "--------------------------------------------------------\n"
        "train                 0.5000    0.8000    0.7900  0.6000\n"
        "validation            0.9700    0.5500    0.4800  0.2500\n"
        "test                  0.9800    0.5833    0.5120  0.2900\n"
        "majority, validation  1.0200    0.5080    0.2247  0.0000\n"
        "majority, test        1.0300    0.5083    0.2246  0.0000\n"
        "linear, validation    0.9500    0.5700    0.5000  0.2600\n"
        "linear, test          0.9400    0.6000    0.5400  0.3000"
    )


def test_the_page_has_the_same_table(make_run, results):
    text = page(make_run, results)
    assert "|  | loss | accuracy | macro F1 | MCC |\n|---|---:|---:|---:|---:|\n| train | 0.5000 |" in text
    assert "| **test** | **0.9800** | **0.5833** | **0.5120** | **0.2900** |" in text
    assert "| linear, test | 0.9400 | 0.6000 | 0.5400 | 0.3000 |" in text


def test_several_labels_a_text_have_their_own_metrics_and_no_confusion(make_run, several_results):
    text = page(make_run, several_results)
    assert "|  | loss | subset accuracy | label accuracy | Jaccard | micro F1 | macro F1 |" in text
    assert "it gets all labels right in 25.0% of cases" in text
    assert "beats the linear baseline by 6.0 points of macro F1 (subset accuracy: 5.0 points above)" in text
    assert "| **wrong** | I am sad | negative, positive | none |" in text
    assert "common mistake" not in text


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (
            {"decision_threshold": 0.5, "labels": []},
            "Giving no text any label (by frequency alone, none has a probability of 0.50",
        ),
        (
            {"decision_threshold": 0.12, "labels": ["negative", "positive"]},
            "Giving every text *negative*, *positive* (by frequency alone, a probability of at least 0.12) would get",
        ),
        ({}, "Giving the same labels for every text, those that are frequent enough, would get all labels right in"),
    ],
)
def test_with_several_labels_it_is_told_what_the_majority_baseline_gives(make_run, several_results, told, sentence):
    several_results["baselines"]["majority"] |= told
    text = page(make_run, several_results)
    assert sentence in text and "most frequent label" not in text


@pytest.mark.parametrize(("accuracy", "between"), [(1.0, "79.6% and 100.0%"), (0.0, "0.0% and 20.4%")])
def test_none_or_all_right_of_few_texts_is_not_told_as_certain(make_run, results, accuracy, between):
    results["test"]["accuracy"], results["data"]["sizes"]["test"] = accuracy, 15
    assert f"is only known to be between {between} (95%" in page(make_run, results)


def test_how_it_learned_names_the_weights_kept_and_the_gap(make_run, results):
    text = page(make_run, results)
    assert "those of epoch 23 of 28 (step 690), the best by macro F1 on validation: 0.4800." in text
    assert "Training stopped early, because validation no longer improved." in text
    assert "a gap of 31.0 points, a sign of overfitting." in text


def test_a_model_as_good_on_validation_as_in_training_has_no_gap(make_run, results):
    results["train"]["macro_f1"] = 0.47
    assert "0.4700 on the texts it was trained on and 0.4800 on validation: no gap." in page(make_run, results)


def test_an_adaptation_whose_head_was_new_says_what_its_perplexity_means(make_run, results):
    adaptation = records.adapted()["adaptation"]
    said = "The checkpoint had no language head, so a new head was trained"
    assert said not in page(make_run, results | {"adaptation": adaptation})
    assert said in page(make_run, results | {"adaptation": adaptation | {"new_head": True}}, name="new")


def test_it_is_told_where_the_training_curve_is_of_some_texts_only(make_run, results):
    folder = make_run(results)
    line = records.evaluation(30, 1.0, records.numbers(), train=records.numbers())
    (folder / "metrics.jsonl").write_text(json.dumps(line))
    text = write_report(folder).read_text()
    assert "The training curve is measured on 120 of the 960 training texts." in text
    assert "The training curve" not in page(make_run, results, name="not-measured")


@pytest.mark.parametrize(
    ("stopped", "words"),
    [
        ("finished", "to the last epoch"),
        ("max_minutes", "at its time limit"),
        ("a new reason", "stopped: a new reason."),
    ],
)
def test_why_it_stopped_is_told(make_run, results, stopped, words):
    assert words in page(make_run, results | {"stopped": stopped})


def test_labels_are_told_one_by_one_with_the_most_common_mistake(make_run, results):
    text = page(make_run, results)
    assert "| negative | 0.4000 | 0.5000 | 0.4444 | 35 |" in text
    assert "The most common mistake: *positive* taken for *negative*, 12 of 24 texts (50%)." in text


def test_labels_that_no_text_has_are_named(make_run, results, several_results):
    assert "No test text" not in page(make_run, results)
    results["test"]["per_class"][2] = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    text = page(make_run, results, name="one")
    assert "No test text has the label *positive*, so its metrics are not known." in text
    several_results["test"]["per_label"] = results["test"]["per_class"]
    assert "its F1 counts as 0 in macro F1" in page(make_run, several_results, name="several")


def test_a_model_without_mistakes_has_no_common_one(make_run, results):
    results["test"]["confusion"] = [[35, 0, 0], [0, 61, 0], [0, 0, 24]]
    assert "common mistake" not in page(make_run, results)


def test_sample_texts_cannot_break_the_table(make_run, results):
    rows = [line for line in page(make_run, results).splitlines() if line.startswith(("| right", "| **wrong**"))]
    assert rows[0] == (
        "| right | ale sztos | positive | positive | positive 0.70, neutral or ambiguous 0.20, negative 0.10 |"
    )
    assert rows[1].startswith(r"| **wrong** | a \| b \*c\* \<d\> \$e xxx") and "x… | negative | positive |" in rows[1]


def test_costs_data_settings_and_environment_are_on_the_page(make_run, results):
    text = page(make_run, results)
    for row in (
        "| training | 4 min 12 s |",
        "| training speed | 15,321 tokens/s |",
        "| predicting 100 texts | 0.21 s |",
        "| fitting the linear baseline | 0.40 s |",
        "| texts | 960 train, 120 validation, 120 test |",
        "| tokens a training text | mean 25.2, median 21, 95% up to 60, longest 216 |",
        "| cut at 128 tokens | 3 of them, 1% of all tokens |",
        f"| fingerprint | `{'ab12' * 16}` |",
        "- 2 texts of test are in train too",
        '```toml\nname = "x"\n',
        "| packages.torch | 2.13 |",
    ):
        assert row in text
    assert "data.name" not in text  # the page has a section of its own for the data


def test_only_pictures_that_exist_are_linked_and_by_relative_paths(make_run, results):
    folder = make_run(results)
    assert "![" not in write_report(folder).read_text()
    names = ("learning_curves", "confusion_test", "confusion_validation", "lengths")
    for name in names:
        (folder / "figures" / f"{name}.png").touch()
    (folder / "predictions.csv").touch()
    links = re.findall(r"\]\((.*?)\)", write_report(folder).read_text())
    assert sorted(links) == sorted([*(f"figures/{name}.png" for name in names), "predictions.csv"])
    assert all((folder / link).exists() for link in links)


def test_the_commands_can_be_copied_from_the_page(make_run, results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page(make_run, results, name="my run")
    assert re.search(r"^minilm predict 'my run' \"some text\"  ", text, re.MULTILINE)
    pairs = page(make_run, results, name="pairs", config='[data]\ntext_pair = "second"\n')
    assert "\nminilm predict pairs $'first text\\tsecond text'  " in pairs and "a tab between the two texts" in pairs
    assert "minilm evaluate 'my run'" in text
    assert "minilm train 'my run/config.toml' --resume" in text


def test_a_run_without_samples_and_lengths_still_has_a_page(make_run, results):
    del results["samples"], results["lengths"]
    text = page(make_run, results)
    assert "Some texts" not in text and "tokens a training text" not in text


def test_a_report_that_cannot_be_written_leaves_the_old_one(make_run, results, monkeypatch):
    folder = make_run(results)
    page = write_report(folder).read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError) as raised:
        write_report(folder)
    assert raised.value.filename == str(folder / "report.md")
    assert (folder / "report.md").read_bytes() == page and not list(folder.glob(".*"))


@pytest.mark.skipif(not find_browser(), reason="needs Chromium")
@pytest.mark.parametrize(("width", "dark"), [(1000, False), (360, True)])
def test_a_browser_shows_the_whole_report_and_asks_for_nothing_else(make_run, results, width, dark):
    results["labels"] = ["a label with a name that no telephone shows on one line, " * 2, "b", "c"]
    folder = make_run(results, name="r" * 80)
    history = read_run(folder).history
    figures, matrix = folder / "figures", results["test"]["confusion"]
    learning_curves(history, 30, "macro_f1", figures / "learning_curves.png")
    confusion(matrix, results["labels"], "Confusion on the test texts", figures / "confusion_test.png")
    length_distribution([3, 5, 8, 13, 400], 16, figures / "lengths.png")
    (folder / "summary.txt").write_text("a line that is wider than a telephone " * 9)
    page = write_report(folder).with_suffix(".html")
    with browser() as tab:
        assert tab.pictures_of(page, width) == 3
        tab.open(page, width, dark)
        tab.value("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert tab.value("document.documentElement.scrollWidth <= innerWidth")  # tables and code scroll by themselves
        assert "b" in tab.value("document.body.innerText") and tab.reported() == []


def test_an_unfinished_run_has_no_report(tmp_path):
    with pytest.raises(UserError, match="not a run's folder"):
        write_report(tmp_path)


def test_report_and_comparison_need_neither_torch_nor_matplotlib():
    code = (
        "import sys, minilm.reporting.report, minilm.reporting.compare\n"
        "print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
