"""What a person sees in the terminal who trains on files of their own."""

from __future__ import annotations

import json
from pathlib import Path

from tests.tiny import minilm, refused, texts, write_config


def test_standard_input_is_trained_on_and_resumed_with(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    rows = "\n".join(json.dumps({"text": text, "label": label}) for text, label in texts())
    command = ["train", config, "data.source=-", "train.epochs=1", "--runs", tmp_path]
    result = minilm(*command, stdin=rows)
    assert result.exit_code == 0, result.output
    assert "standard input: it is JSON" in result.stderr
    assert "standard-input, 48 / 6 / 6 texts" in result.stderr
    assert "this run has already finished" in minilm(*command, "--resume", stdin=rows).stderr


def test_what_was_found_and_how_many_texts_have_each_label_is_shown_before_training(tmp_path: Path) -> None:
    lines = ["text;label", *(f"{text};{label}" for text, label in texts())]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    config = write_config(tmp_path)
    result = minilm("train", config, f"data.source={tmp_path / 'mine.csv'}", "train.epochs=1", "--runs", tmp_path)
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'mine.csv'}: its fields are separated by semicolons (data.delimiter)" in result.stderr
    shown = [line.split() for line in result.stderr.splitlines()]
    assert ["label", "train", "validation", "test", "of", "train"] in shown
    assert ["bad", "24", "3", "3", "50.0%"] in shown


def test_a_wrong_column_is_refused_with_the_changes_that_work(tmp_path: Path) -> None:
    lines = ["id,review,stars", *(f'{i},"{text}",{label}' for i, (text, label) in enumerate(texts()))]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    command = ["train", write_config(tmp_path), f"data.source={tmp_path / 'mine.csv'}", "--runs", tmp_path]
    message = refused(*command)
    assert message.endswith("data.text=review data.label=stars")
    assert minilm(*command, "data.text=review", "data.label=stars", "train.epochs=1").exit_code == 0


def test_class_weights_by_name_train_and_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    command = ["train", config, "train.epochs=1", "--runs", tmp_path]
    assert minilm(*command, "train.class_weights.bad=2").exit_code == 0
    message = refused(*command, "train.class_weights.bat=2")
    assert 'train.class_weights: no label "bat" (did you mean "bad"?); labels: bad, good' in message


def test_data_in_place_of_a_config_or_a_model_is_answered_with_the_command(tmp_path: Path) -> None:
    data = tmp_path / "reviews.csv"
    assert f"minilm finetune minilm --data {data}" in refused("train", data)
    assert f"minilm finetune minilm --data {data}" in refused("finetune", data)
    message = refused("finetune", "bret")
    assert '(did you mean "bert"?)' in message and "there are recipes for" in message


def test_a_runs_folder_in_place_of_its_config_is_trained_again(tmp_path: Path) -> None:
    assert minilm("train", write_config(tmp_path), "train.epochs=1", "--runs", tmp_path).exit_code == 0
    assert minilm("train", tmp_path / "tiny", "name=again", "--runs", tmp_path).exit_code == 0
    assert (tmp_path / "again" / "results.json").exists()


def test_with_all_rows_to_train_on_there_is_no_test_and_the_report_says_so(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    command = ["train", config, "data.test_fraction=0", "train.epochs=1", "train.embeddings_baseline=false"]
    result = minilm(*command, "--runs", tmp_path, pictures=True)
    assert result.exit_code == 0, result.output
    run = tmp_path / "tiny"
    results = json.loads((run / "results.json").read_text())
    assert "test" not in results and results["data"]["sizes"] == {"train": 54, "validation": 6, "test": 0}
    assert all("test" not in baseline for baseline in results["baselines"].values())
    report = (run / "report.md").read_text()
    assert "No texts were held out for a test" in report and "validation set" in report
    assert not (run / "predictions.csv").exists() and not (run / "figures" / "confusion_test.png").exists()
    assert "validation" in result.stdout and "linear, test" not in result.stdout
    assert minilm("predict", run, "good").exit_code == 0
    assert minilm("compare", run).exit_code == 0
    assert minilm("evaluate", run, "--split", "validation").exit_code == 0
    assert "has no test split" in refused("evaluate", run)


def test_600_labels_fit_their_files_the_report_and_the_terminal(tmp_path: Path) -> None:
    rows = [(f"word{label} again {i}", f"label {label} {'of a long name ' * 4}".strip()) for i in range(3)
            for label in range(600)]  # fmt: skip
    config = write_config(tmp_path, rows=rows)
    result = minilm("train", config, "train.epochs=1", "--runs", tmp_path, pictures=True)
    assert result.exit_code == 0, result.output
    run = tmp_path / "tiny"
    assert (run / "results.json").stat().st_size < 2_000_000
    results = json.loads((run / "results.json").read_text())
    assert "confusion" not in results["test"] and 0 < len(results["test"]["confused"]) <= 100
    assert "P(" not in (run / "predictions.csv").read_text(encoding="utf-8").splitlines()[0]
    assert len((run / "report.md").read_text().split("<details>")[0].splitlines()) < 150
    shown = minilm("evaluate", run).stdout
    assert "(560 more labels: --json has all)" in shown and max(map(len, shown.splitlines())) <= 100
    assert max(map(len, result.stderr.split("tiny:")[0].splitlines())) <= 620


def test_a_classifier_of_several_labels_that_answers_alike_is_said_to(tmp_path: Path) -> None:
    rows = [(text, label if i % 3 else f"{label},odd") for i, (text, label) in enumerate(texts())]
    config = write_config(tmp_path, rows=rows)
    changes = ["data.label_separator=,", "train.epochs=1", "train.lr=1e-6", "train.decision_threshold=0.99"]
    result = minilm("train", config, *changes, "--runs", tmp_path)
    assert "warning: 100% of the test texts get the same labels (none)" in result.stderr
    assert "100% of the test texts get the same labels" in (tmp_path / "tiny" / "report.md").read_text()


def test_the_linear_baseline_can_be_left_out(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert minilm("train", config, "train.epochs=1", "train.linear_baseline=false", "--runs", tmp_path).exit_code == 0
    assert set(json.loads((tmp_path / "tiny" / "results.json").read_text())["baselines"]) == {"majority"}
