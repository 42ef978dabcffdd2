from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.tiny import finished_run, minilm, refused, texts, write_config, write_data


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_measured_again_is_as_it_was(split: str) -> None:
    results = json.loads((finished_run() / "results.json").read_text())
    measured = json.loads(minilm("evaluate", finished_run(), "--split", split, "--json").stdout)
    assert measured["confusion"] == results[split]["confusion"]
    assert measured["loss"] == pytest.approx(results[split]["loss"], rel=1e-5)


def test_the_tables_have_all_texts_each_label_and_what_was_taken_for_what() -> None:
    shown = minilm("evaluate", finished_run()).stdout
    assert "macro F1" in shown and "precision" in shown and "is \\ taken for  bad  good" in shown


def test_a_file_is_measured_by_the_runs_own_labels(tmp_path: Path) -> None:
    more = write_data(tmp_path / "more.tsv", [row for row in texts(20, seed=5) if row[1] == "good"])
    measured = json.loads(minilm("evaluate", finished_run(), "--file", more, "--json").stdout)
    assert [row["support"] for row in measured["per_class"]] == [0, 10]


def test_a_split_and_a_file_exclude_each_other(tmp_path: Path) -> None:
    more = write_data(tmp_path / "more.tsv")
    for split in ("train", "test"):
        said = refused("evaluate", finished_run(), "--file", more, "--split", split)
        assert "give either --split (of the run's data) or --file (all rows are used), not both" in said


def test_rows_of_a_file_that_are_dropped_are_counted_as_in_training(tmp_path: Path) -> None:
    more = write_data(tmp_path / "more.tsv", [*texts(20, seed=5), ("", "good"), ("a film", ""), ("a film", "so-so")])
    asked = ("data.empty=skip", "data.other=drop")
    shown = minilm("evaluate", finished_run(), "--file", more, *asked)
    assert shown.exit_code == 0 and shown.stderr.splitlines() == [
        f"{more}: 1 row is dropped: the text is empty (data.empty=skip)",
        f"{more}: 1 row is dropped: the label is not in data.labels (data.other=drop)",
        f"{more}: 1 row is dropped: the label is missing (data.empty=skip)",
    ]


def test_a_file_with_other_labels_or_columns_is_refused(tmp_path: Path) -> None:
    other = write_data(tmp_path / "other.tsv", [("a film", "excellent")])
    result = minilm("evaluate", finished_run(), "--file", other)
    assert result.exit_code == 1 and 'line 2: unknown label "excellent"' in result.stderr
    (tmp_path / "columns.tsv").write_text("sentence\tlabel\na\tgood\n")
    assert 'no column "text"' in refused("evaluate", finished_run(), "--file", tmp_path / "columns.tsv")


def test_a_folder_that_is_no_run_or_not_finished_is_refused(tmp_path: Path) -> None:
    assert "not a run's folder" in refused("evaluate", tmp_path)
    assert "not a run's folder" in refused("evaluate", tmp_path / "nowhere")
    shutil.copy(finished_run() / "config.toml", tmp_path)
    assert "this run has not finished" in refused("evaluate", tmp_path)


def test_a_split_of_data_that_have_changed_is_refused(tmp_path: Path) -> None:
    run = shutil.copytree(finished_run(), tmp_path / "tiny")
    data = write_data(tmp_path / "texts.tsv", texts(50))
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace(str(finished_run().parents[1] / "texts.tsv"), str(data)))
    assert "its data have changed since it was trained" in refused("evaluate", run)
    (run / "environment.json").write_text("{}")
    assert "environment.json: minilm is missing" in refused("evaluate", run)


@pytest.mark.parametrize("several", [False, True])
def test_thresholds_of_each_label_count_in_results_tables_and_evaluation_alike(tmp_path: Path, several: bool) -> None:
    rows = [f"{text},{name},{int(i % 5 == 0)},{int(name == 'good')}" for i, (text, name) in enumerate(texts(120))]
    data = tmp_path / "rows.csv"
    data.write_text("\n".join(["text,label,rare,fine", *rows]))
    changes = ['data.label_columns=["rare", "fine"]'] if several else ['data.keep=["rare"]']
    result = minilm(
        "train", write_config(tmp_path), f"data.source={data}", "train.decision_threshold=validation-per-label",
        *changes, "train.epochs=2", "--runs", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    run = tmp_path / "tiny"
    results = json.loads((run / "results.json").read_text())
    if several:
        assert len(results["decision_threshold"]) == 2
    measured = json.loads(minilm("evaluate", run, "--json").stdout)
    for metric in ("macro_f1", "subset_accuracy" if several else "accuracy"):
        assert measured[metric] == results["test"][metric]
    with (run / "predictions.csv").open(newline="") as file:
        kept = list(csv.DictReader(file))
    minilm("predict", run, "--file", data, "--out", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        answered = list(csv.DictReader(file))
    for row in kept:
        assert answered[int(row["row"]) - 1]["predicted"] == row["predicted"]
        assert several or row["rare"] == answered[int(row["row"]) - 1]["rare"]
