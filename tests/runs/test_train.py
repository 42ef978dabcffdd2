from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minilm.checkpoints.files import read_tensors
from minilm.loading import load_config
from minilm.models import ARCHITECTURES
from minilm.reporting.record import read_run
from minilm.reporting.results import read_history
from tests.tiny import finished_run, minilm, outcome, refused, texts, write_config, write_data

# --- A run's folder ---


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_reports_call_an_architecture_by_its_title(model_type: str) -> None:
    """Its title comes from the registry, through results.json; a run without a title shows the config's name."""
    run = read_run(finished_run())
    config = replace(run.config, model=replace(run.config.model, architecture=model_type))
    assert run.results.architecture == run.model == "GPT-2"
    assert replace(run, results=replace(run.results, architecture=ARCHITECTURES[model_type].title)).model != model_type
    assert replace(run, config=config, results=replace(run.results, architecture="")).model == model_type


def test_a_run_leaves_a_folder_that_tells_all_about_it(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    many = ("train.epochs=1", "data.validation_fraction=0.5")  # enough texts for a temperature
    result = minilm("train", config, *many, "--runs", tmp_path / "runs", pictures=True)
    assert result.exit_code == 0, result.output
    run = tmp_path / "runs" / "tiny"
    names = {
        "config.toml", "environment.json", "metrics.jsonl", "results.json", "predictions.csv", "summary.txt",
        "report.md", "report.html", "model", "figures", "explanations.json",
    }  # fmt: skip
    assert {path.name for path in run.iterdir()} - {"label_issues.csv"} == names  # if it finds any
    pictures = {"classes.png", "learning_curves.png", "lengths.png", "confusion_validation.png", "confusion_test.png"}
    pictures |= {"calibration.png", "coverage.png"}
    assert {path.name for path in (run / "figures").iterdir()} == pictures
    assert load_config(run / "config.toml") == load_config(config, [*many])
    assert "GPT2Layer" in (run / "summary.txt").read_text()
    # Piped, standard output has a line an evaluation and the table, no trace of a bar; all else stands beside it.
    assert "\r" not in result.output and "%|" not in result.output
    assert len(re.findall(r"^epoch .*step", result.stdout, re.MULTILINE)) == 1
    assert re.search(r"^test( +-?\d\.\d{4}){4}$", result.stdout, re.MULTILINE)
    assert re.search(r"^majority, test ", result.stdout, re.MULTILINE)
    for shown in ("report.html", *pictures):
        assert f"{run / 'figures' / shown if shown in pictures else run / shown}\n" in result.stdout
    assert "24 / 30 / 6 texts; 8,930 of 8,930 parameters train on CPU, float32" in result.stderr


def test_results_and_evaluations_agree() -> None:
    run = finished_run()
    results, history = json.loads((run / "results.json").read_text()), read_history(run)
    assert [entry.step for entry in history] == [4, 8, 12, 16, 18]
    best = next(entry for entry in history if entry.step == results["best"]["step"])
    assert best.validation.macro_f1 == max(entry.validation.macro_f1 for entry in history)
    for metric in ("loss", "accuracy", "macro_f1", "mcc"):  # the weights left in the model are the best ones
        assert results["validation"][metric] == best.validation[metric]
    assert results["best"]["metric"] == "macro_f1" and results["best"]["value"] == best.validation.macro_f1
    assert results["stopped"] == "finished" and results["labels"] == ["bad", "good"]
    assert results["parameters"] == {"total": 8930, "trained": 8930}
    assert results["data"]["sizes"] == {"train": 48, "validation": 6, "test": 6}
    assert len(results["samples"]) == 5 and set(results["samples"][0]["scores"]) == {"bad", "good"}
    assert results["times"]["train_seconds"] == pytest.approx(history[-1].seconds, rel=0.5)
    assert set(results["baselines"]) == {"majority", "linear"}


def test_the_environment_says_what_a_result_depends_on() -> None:
    environment = json.loads((finished_run() / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["device"] == "CPU, float32" and environment["threads"] == 1
    assert re.fullmatch("[0-9a-f]{64}", environment["data"]["fingerprint"])
    assert environment["commit"] is None or re.fullmatch("[0-9a-f]{40}", environment["commit"])


def test_a_run_never_overwrites_another_and_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    config = finished_run().parents[1] / "tiny.toml"
    before = {path: path.stat().st_mtime_ns for path in finished_run().rglob("*")}
    (tmp_path / "tiny").mkdir()
    for seed in (1, 2):
        result = minilm("train", config, f"seed={seed}", "--runs", tmp_path)
        assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", "tiny-2", "tiny-3"}
    assert outcome(tmp_path / "tiny-2") == outcome(finished_run())
    assert outcome(tmp_path / "tiny-3")["weights"] != outcome(finished_run())["weights"]
    assert before == {path: path.stat().st_mtime_ns for path in finished_run().rglob("*")}


def test_a_run_learns(tmp_path: Path) -> None:
    config = write_config(tmp_path, rows=texts(200))
    minilm("train", config, "train.epochs=6", "train.accumulate=1", "train.evaluate_every=0", "--runs", tmp_path)
    results = json.loads((tmp_path / "tiny" / "results.json").read_text())
    assert results["test"]["accuracy"] > 0.9 and results["baselines"]["majority"]["test"]["accuracy"] <= 0.6


def test_texts_longer_than_the_limit_are_cut_and_counted(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert minilm("train", config, "data.max_tokens=6", "train.epochs=1", "--runs", tmp_path).exit_code == 0
    lengths = json.loads((tmp_path / "tiny" / "results.json").read_text())["lengths"]
    assert lengths["max_tokens"] == 6 and lengths["longest"] > 6 and lengths["truncated"] > 10


# --- Other kinds of task ---


def test_several_labels_a_text(tmp_path: Path) -> None:
    rows = [f"{text},{i % 2},{i % 3 // 2},{i % 5 // 4}" for i, (text, _) in enumerate(texts())]
    (tmp_path / "emotions.csv").write_text("\n".join(["text,happy,sad,calm", *rows]))
    config = write_config(tmp_path)
    result = minilm(
        "train", config, f"data.source={tmp_path / 'emotions.csv'}", 'data.label_columns=["happy", "sad", "calm"]',
        "train.best=micro_f1", "train.class_weights=balanced", "train.label_smoothing=0.1", "train.epochs=1",
        "--runs", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    run = tmp_path / "tiny"
    published = json.loads((run / "model" / "config.json").read_text())  # the head is ours, and so are its labels
    assert published["minilm"]["problem_type"] == "multi_label_classification" and "problem_type" not in published
    line = json.loads(minilm("predict", run, "it was good", "--json").stdout)
    assert line["labels"] == [label for label, p in line["scores"].items() if p >= 0.5]
    assert sum(line["scores"].values()) != pytest.approx(1)
    measured = json.loads(minilm("evaluate", run, "--json").stdout)
    results = json.loads((run / "results.json").read_text())
    assert measured == {"labels": results["labels"], **results["test"]}


@pytest.mark.parametrize(("best", "metric"), [("macro_f1", "macro_f1"), ("loss", "micro_f1")])
def test_a_threshold_chosen_on_validation_is_chosen_anew_for_every_evaluation(
    tmp_path: Path, best: str, metric: str
) -> None:
    # Labels so rare that none reaches a probability of 0.5, so that at this threshold every F1 would be 0.
    rows = [f"{text},{int(i % 10 == 0)},{int(i % 10 == 1)}" for i, (text, _) in enumerate(texts(200))]
    (tmp_path / "rare.csv").write_text("\n".join(["text,refund,delay", *rows]))
    result = minilm(
        "train", write_config(tmp_path), f"data.source={tmp_path / 'rare.csv'}",
        'data.label_columns=["refund", "delay"]', "train.decision_threshold=validation", f"train.best={best}",
        "train.epochs=2", "--runs", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    history = read_history(tmp_path / "tiny")
    results = json.loads((tmp_path / "tiny" / "results.json").read_text())
    assert all(min(entry.train[metric], entry.validation[metric]) > 0 for entry in history)
    kept = next(entry for entry in history if entry.step == results["best"]["step"])
    assert kept.validation[metric] == results["validation"][metric]  # by the same threshold as at the end
    majority = results["baselines"]["majority"]
    assert majority["decision_threshold"] < 0.5 and majority["labels"] == ["refund", "delay"]


def test_few_texts_train_for_the_least_number_of_steps_and_auto_is_a_threshold_for_several_labels(
    tmp_path: Path,
) -> None:
    rows = [f"{text},{int(label == 'good')},{i % 2}" for i, (text, label) in enumerate(texts(40))]
    (tmp_path / "several.csv").write_text("\n".join(["text,good,odd", *rows]))
    several = (f"data.source={tmp_path / 'several.csv'}", 'data.label_columns=["good", "odd"]')
    for name, data, chosen in (("several", several, True), ("single", (), False)):
        result = minilm(
            "train", write_config(tmp_path), *data, f"name={name}", "train.decision_threshold=auto", "--runs", tmp_path,
            "train.epochs=1", "train.batch_size=8", "train.min_steps=10",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        results = json.loads((tmp_path / name / "results.json").read_text())
        assert (results.get("decision_threshold", 0.5) != 0.5) == chosen
        last = read_history(tmp_path / name)[-1]
        assert 10 <= last.step < 10 + last.step / last.epoch
        words = "epochs instead of 1, as few texts make few steps (train.min_steps = 10); for 1: train.min_steps=0"
        assert f"{last.epoch:.0f} {words}" in result.output
        number = results["data"]["sizes"]["validation"]
        assert f"no temperature was fitted, as {number} validation texts are fewer than 30" in result.stderr
    assert minilm("export", tmp_path / "several", tmp_path / "linear", "--linear").exit_code == 0


def test_a_data_set_that_is_misspelt_is_told_with_the_config(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert f'{config}: data.source: no data set is named "ag-new" (did you mean "ag-news"?)' in refused(
        "train", config, "data.source=ag-new", "--runs", tmp_path
    )


def test_pairs_that_are_cleaned(tmp_path: Path) -> None:
    both = zip(texts(), texts(seed=1), strict=True)
    rows = [f"{first}\t&amp;amp;lt; {second}\t{i % 2}" for i, ((first, _), (second, _)) in enumerate(both)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["first\tsecond\tsame", *rows]))
    config = write_config(tmp_path)
    result = minilm(
        "train", config, f"data.source={tmp_path / 'pairs.tsv'}", "data.text=first", "data.text_pair=second",
        "data.label=same", 'data.clean=["entities", "lower"]', "train.epochs=1", "--runs", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    run = tmp_path / "tiny"
    # Measured again, texts are not cleaned twice: "&amp;amp;lt;" would become "&lt;" and not "&amp;lt;".
    measured = json.loads(minilm("evaluate", run, "--json").stdout)
    results = json.loads((run / "results.json").read_text())
    assert measured == {"labels": results["labels"], **results["test"]}
    assert minilm("predict", run, "it was good\tit was bad").stdout.endswith("\tit was good\tit was bad\n")
    assert "text 1 must be two texts" in refused("predict", run, "it was good")


def test_a_checkpoint_is_fine_tuned_with_its_own_tokenizer_and_a_new_head(tmp_path: Path) -> None:
    config = write_config(tmp_path, rows=[(text, f"very {label}") for text, label in texts()])
    model = finished_run() / "model"
    text = config.read_text().replace('architecture = "gpt2"', f'source = "{model}"')
    text = re.sub(r"\[model.config\][^\[]*|\[tokenizer\][^\[]*", "", text)
    config.write_text(text)
    assert minilm("train", config, "train.epochs=1", "--runs", tmp_path).exit_code == 0
    run = tmp_path / "tiny"
    assert (run / "model" / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    assert json.loads((run / "results.json").read_text())["labels"] == ["very bad", "very good"]
    first, again = (read_tensors(folder / "model.safetensors")["wte.weight"] for folder in (model, run / "model"))
    assert 0 < (first - again).abs().max() < 0.1  # it began where the other ended


def test_the_familys_own_head_makes_a_folder_that_needs_no_words_of_ours(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert minilm("train", config, "model.head.kind=family", "train.epochs=1", "--runs", tmp_path).exit_code == 0
    model = tmp_path / "tiny" / "model"
    assert json.loads((model / "config.json").read_text())["architectures"] == ["GPT2ForSequenceClassification"]
    assert not (model / "head.safetensors").exists()
    assert minilm("predict", tmp_path / "tiny", "it was good").exit_code == 0


# --- What is said ---


def test_a_part_of_the_rows_is_told_with_the_whole_in_terminal_and_report(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    changes = ("data.train_rows=20", "data.shots=4", "data.test_rows=4", "train.epochs=1", 'data.clean=["lower"]')
    result = minilm("train", config, *changes, "--runs", tmp_path)
    assert result.exit_code == 0, result.output
    assert "8 of 48 / 6 / 4 of 6 texts;" in result.stderr
    report = (tmp_path / "tiny" / "report.md").read_text()
    assert "| texts | 8 of 48 train, 6 validation, 4 of 6 test |" in report and "8 of 48 texts with 2 labels" in report


def test_the_command_to_try_can_be_pasted_where_the_path_has_a_space(tmp_path: Path) -> None:
    result = minilm("train", write_config(tmp_path), "train.epochs=1", "--runs", tmp_path / "my runs")
    [line] = [line for line in result.stdout.splitlines() if line.startswith("Try it:")]
    assert shlex.split(line)[2:] == ["minilm", "predict", str(tmp_path / "my runs" / "tiny"), "some text"]


def test_an_augmented_run_says_which_training_texts_were_measured(tmp_path: Path) -> None:
    extra = '[augment]\nmethod = "insertion"\nratio = 0.5\n'
    assert minilm("train", write_config(tmp_path, extra), "train.epochs=1", "--runs", tmp_path).exit_code == 0
    results = json.loads((tmp_path / "tiny" / "results.json").read_text())
    report, added = (tmp_path / "tiny" / "report.md").read_text(), results["augmentation"]["added"]
    texts_told = f"{48 + added} training texts, {added} of them made by augmentation"
    assert added and sum(map(sum, results["train"]["confusion"])) == 48 + added
    assert f": {texts_told}, with 2 labels." in report and f"Row *train*: {texts_told};" in report
    assert f"The training curve is measured on 6 of the {texts_told}." in report
    assert f"0 of the {texts_told} |" in report and "of the 48 training texts" not in report


# --- What goes wrong, told in one line ---


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("train.learning_rate=1", "train.learning_rate is not a known key"),
        ("train.epoch=1", 'train.epoch is not a known key (did you mean "train.epochs"?)'),
        ("train.lr=fast", 'train.lr must be a number above 0, got "fast"'),
        ("train.batch_size=0", "train.batch_size must be a whole number of at least 1, got 0"),
        ("model.head.activation=gelus", 'got "gelus" (did you mean "gelu"?)'),
        ("model.architecture=gtp2", 'model.architecture "gtp2" is not supported (did you mean "gpt2"?)'),
        ("model.config.widht=8", "widht"),
        ("model.config.heads=three", "heads must be a whole number"),
        ("model.config.heads=3", "width"),
        ("model.config.vocab_size=10", "the tokenizer has 300 tokens, but the model only 10 (model.config.vocab_size)"),
        ("data.max_tokens=40", "data.max_tokens is 40, but the model reads at most 32 tokens; lower"),
        ("train.best=jaccard", 'no metric "jaccard"'),
        ("train.class_weights=[1.0, 2.0, 3.0]", "one weight for each of the 2 labels (bad, good), got 3"),
        ("train.device=cuda:7", 'this machine has no device "cuda:7"; use "auto"'),
        ("train.precision=float16", "needs a CUDA device"),
        ("data.source=nowhere.csv", "nowhere.csv"),
        ("name=a/b", "name must be"),
        ("rubbish", "a change must have the form section.key=value"),
    ],
)
def test_a_config_that_cannot_be_is_refused_and_leaves_nothing(tmp_path: Path, change: str, said: str) -> None:
    config = finished_run().parents[1] / "tiny.toml"
    assert said in refused("train", config, "train.device=cpu", change, "--runs", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (None, "the file contains no rows"),
        ([], "the file contains no rows"),
        (["good film\tgood"] * 20, 'all 16 training rows have the label "good"'),
        (["good film"], "has 1 fields, but the header has 2"),
        (["\tgood"], "is empty"),
    ],
)
def test_data_that_cannot_be_used_are_refused_and_leave_nothing(
    tmp_path: Path, lines: list[str] | None, said: str
) -> None:
    config = write_config(tmp_path)
    (tmp_path / "texts.tsv").write_text("" if lines is None else "\n".join(["text\tlabel", *lines]) + "\n")
    result = minilm("train", config, "--runs", tmp_path / "runs")
    assert result.exit_code == 1 and said in result.stderr and "texts.tsv" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_label_that_only_the_test_split_has_is_refused_with_its_line(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    (tmp_path / "test.tsv").write_text("text\tlabel\nit was good\tgood\nit was so so\tmiddling\n")
    train, test = tmp_path / "texts.tsv", tmp_path / "test.tsv"
    result = minilm("train", config, "data.source=", f"data.train={train}", f"data.test={test}", "--runs", tmp_path)
    assert result.exit_code == 1
    assert f'{test}, line 3: unknown label "middling": the training data has bad, good' in result.stderr


@pytest.mark.parametrize("runs", ["file", "file/below", "file/far/below"])
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, runs: str) -> None:
    (tmp_path / "file").touch()
    config = finished_run().parents[1] / "tiny.toml"
    message = refused("train", config, "--runs", tmp_path / runs)
    assert f"{tmp_path / runs / 'tiny'}: cannot be created (" in message and "--runs" in message


def test_a_loss_that_is_not_finite_names_step_rate_and_gradient(tmp_path: Path) -> None:
    config = finished_run().parents[1] / "tiny.toml"
    message = refused("train", config, "train.lr=1e30", "train.schedule=constant", "--runs", tmp_path)
    found = re.search(r"at step (\d+) \(learning rate 1e\+30, gradient norm (?:nan|inf)\).*is saved in (\S+)", message)
    assert found, message
    assert Path(found[2]).name == f"000001-step-{int(found[1]) - 1}" and (Path(found[2]) / "progress.json").exists()


def test_a_warning_about_the_data_is_shown_and_kept(tmp_path: Path) -> None:
    rows = texts()
    config = write_config(tmp_path, rows=[*rows, ("one more", "Good")])
    result = minilm("train", config, "train.epochs=1", "--runs", tmp_path)
    assert re.search(r"^warning: these labels differ only in spelling", result.stderr, re.MULTILINE)
    assert "differ only in spelling" in (tmp_path / "tiny" / "report.md").read_text()


@pytest.mark.parametrize("best", ["roc_auc", "average_precision"])
def test_a_ranking_can_choose_the_checkpoint(tmp_path: Path, best: str) -> None:
    result = minilm("train", write_config(tmp_path), f"train.best={best}", "train.epochs=2", "--runs", tmp_path)
    assert result.exit_code == 0, result.output
    history, results = read_history(tmp_path / "tiny"), json.loads((tmp_path / "tiny" / "results.json").read_text())
    assert results["best"]["value"] == max(entry.validation[best] for entry in history)
    assert results["validation"][best] == results["best"]["value"]
    assert "| ranking, test set | ROC AUC | average precision |" in (tmp_path / "tiny" / "report.md").read_text()


def test_a_ranking_that_validation_cannot_measure_is_refused_before_training(tmp_path: Path) -> None:
    data = write_data(tmp_path / "all-good.tsv", [(text, "good") for text, _ in texts(20)])
    said = refused(
        "train", write_config(tmp_path), "train.best=roc_auc", f"data.validation={data}", "data.source=",
        f"data.train={write_data(tmp_path / 'train.tsv')}", "--runs", tmp_path,
    )  # fmt: skip
    assert "needs validation texts with and without a label" in said
