"""Any classifier measured on a labelled file: its labels are matched by name or number, or the file is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from minilm.evaluation.predictor import Classifier
from minilm.evaluation.regression import score_metrics
from tests.evaluation.test_scores import published
from tests.tiny import finished_run, minilm, refused, texts, write_data

REFERENCE = Path(__file__).parents[1] / "reference"
WORDS = ["rain", "a dog", "no", "it was", "so be it", "yes"]
NAMES, NUMBERS = ["hot", "cold", "mild", "cold", "hot", "mild"], [2, 0, 1, 0, 2, 1]  # the model's: cold, mild, hot


def model(folder: Path, **keys: Any) -> Path:
    shutil.copytree(REFERENCE / "bert-classify", folder)
    config = json.loads((folder / "config.json").read_text()) | keys
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def table(folder: Path, labels: list[Any], header: str = "text,label") -> Path:
    path = folder / "weather.csv"
    path.write_text("\n".join([header, *(f"{text},{label}" for text, label in zip(WORDS, labels, strict=True))]))
    return path


def measured(*arguments: object) -> dict[str, Any]:
    result = minilm("evaluate", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("labels", [NAMES, [n.upper() for n in NAMES], NUMBERS, [f"LABEL_{n}" for n in NUMBERS]])
def test_the_metrics_are_those_of_scikit_learn_however_the_labels_are_written(
    labels: list[Any], tmp_path: Path
) -> None:
    folder = model(tmp_path / "m")
    given = [max(answer, key=lambda name: answer[name]) for answer in Classifier.load(folder, "cpu").predict(WORDS)]
    predicted = [["cold", "mild", "hot"].index(name) for name in given]
    found = measured(folder, "--file", table(tmp_path, labels))
    assert found["labels"] == ["cold", "mild", "hot"]
    assert found["accuracy"] == pytest.approx(accuracy_score(NUMBERS, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(NUMBERS, predicted, average="macro"))
    assert [row["support"] for row in found["per_class"]] == [2, 2, 2]


def test_which_label_was_taken_for_which_is_said_unless_it_is_plain(tmp_path: Path) -> None:
    folder, file = model(tmp_path / "m"), table(tmp_path, NUMBERS)
    said = minilm("evaluate", folder, "--file", file).stderr
    assert f"{file}: its labels match the model's: 0 = cold, 1 = mild, 2 = hot" in said
    plain = table(tmp_path, NAMES)
    assert "match the model's" not in minilm("evaluate", folder, "--file", plain).stderr


def test_other_columns_and_other_names_of_labels_are_given_as_changes(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    expected = measured(folder, "--file", table(tmp_path, NUMBERS))
    file = table(tmp_path, ["c", "a", "b", "a", "c", "b"], "review,stars")
    columns = ["data.text=review", "data.label=stars"]
    assert measured(folder, *columns, 'data.labels=["a", "b", "c"]', "--file", file) == expected
    renamed = 'data.rename={a = "cold", b = "mild", c = "hot"}'
    assert measured(folder, *columns, renamed, "--file", file) == expected


def test_several_labels_a_text_are_measured_too(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", problem_type="multi_label_classification")
    file = table(tmp_path, ["1,0,1"] * 3 + ["0,1,0"] * 3, "text,HOT,cold,mild")
    found = measured(folder, "--file", file, 'data.label_columns=["HOT", "cold", "mild"]')
    assert [row["support"] for row in found["per_label"]] == [3, 3, 3] and found["labels"] == ["cold", "mild", "hot"]
    p = np.array([list(a.values()) for a in Classifier.load(folder, "cpu").predict(WORDS)])
    truth = np.array([[0, 1, 1]] * 3 + [[1, 0, 0]] * 3)
    assert found["micro_f1"] == pytest.approx(f1_score(truth, p >= 0.5, average="micro", zero_division=0))


def test_of_pairs_the_second_column_is_named(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    file = table(tmp_path, [f"so,{n}" for n in NUMBERS], "text,other,label")
    assert measured(folder, "--file", file, "data.text_pair=other") != measured(folder, "--file", file)


def test_a_runs_model_and_a_run_are_measured_alike(tmp_path: Path) -> None:
    more = write_data(tmp_path / "more.tsv", texts(20, seed=5))
    run = finished_run()
    assert measured(run / "model", "--file", more) == measured(run, "--file", more)
    (tmp_path / "other.tsv").write_text(more.read_text().replace("text\tlabel", "review\tlabel"))
    assert measured(run, "--file", tmp_path / "other.tsv", "data.text=review") == measured(run, "--file", more)


@pytest.mark.parametrize("problem", ["regression", None])
def test_a_score_is_measured_against_a_column_of_numbers(problem: str | None, tmp_path: Path) -> None:
    folder = published(tmp_path / "m", problem_type=problem)
    values = [0.5, -1.0, 2.0, 2.0, 0.0, 0.25]
    file = table(tmp_path, values)
    answers = [answer["score"] for answer in Classifier.load(folder, "cpu").predict(WORDS)]
    expected = score_metrics(np.array(values), np.array(answers))
    found = measured(folder, "--file", file)
    assert found["labels"] == ["score"] and found["texts"] == 6
    assert found["spearman"] == pytest.approx(expected.spearman)
    assert found["mean_squared_error"] == pytest.approx(expected.mean_squared_error, rel=1e-4)
    shown = minilm("evaluate", folder, "--file", file).stdout
    assert "pearson" in shown and f"{expected.spearman:.4f}" in shown


@pytest.mark.parametrize(
    ("keys", "labels", "changes", "said"),
    [
        ({}, ["good", *NAMES[1:]], [], "its labels good are none of the model's"),
        ({}, ["wet"] * 6, [], "its labels wet are none of the model's: cold, mild, hot; map them to these"),
        ({}, [n + 1 for n in NUMBERS], [], "none of the model's: cold, mild, hot"),
        ({}, NUMBERS, ["data.label_separator=;"], "gives one label per text, so remove data.label_separator"),
        ({}, NUMBERS, ["train.lr=1"], "train.lr=1: only keys of [data] can be changed here"),
        ({}, NUMBERS, ["data.labels=[1]"], "data.labels must"),
        ({}, NUMBERS, ["data.label=stars"], 'no column "stars" (data.label)'),
        ({"problem_type": "multi_label_classification"}, NUMBERS, [], "several labels per text; name the"),
        ({"problem_type": "regression"}, NUMBERS, [], "gives 3 scores (cold, mild, hot); a file can have only one"),
    ],
)
def test_what_cannot_be_matched_is_one_line(
    keys: dict[str, Any], labels: list[Any], changes: list[str], said: str, tmp_path: Path
) -> None:
    folder = model(tmp_path / "m", **keys)
    assert said in refused("evaluate", folder, "--file", table(tmp_path, labels), *changes)


def test_without_a_file_there_is_nothing_to_measure_on(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    assert "not a run's folder, so it has no data; give a labelled file" in refused("evaluate", folder)
    assert "names a column of a file; give the file (--file)" in refused("evaluate", finished_run(), "data.label=x")
    assert "give a run or a model to evaluate" in refused("evaluate", "data.label=x", "--file", "x.csv")
