"""k folds: the mean with its corrected interval, and a prediction for every row by a model that had not seen it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minilm.evaluation.label_issues import find_label_issues
from minilm.studies.questions import QUESTIONS
from tests.studies.made_up import ask, finished, folds_runs
from tests.tiny import minilm, refused, texts, write_config

STUDY = """
name = "folds"
question = "How well?"
base = "tiny.toml"
analysis = "folds"

[axes]
"data.fold" = [1, 2, 3]

[[runs]]
name = "tiny"
changes = ["data.folds=3", "train.epochs=1"]
"""


def test_the_page_has_the_mean_its_interval_and_each_fold(tmp_path: Path) -> None:
    answer, page = ask("folds", folds_runs(), tmp_path, axes=("data.fold",))
    assert "Over 5 folds" in answer and "accuracy of 0.8200" in answer
    assert "between 0.7900 and 0.8600" in answer
    # Student's with 4 degrees of freedom: 2.776 times 0.02915 times the root of 1/5 + 1/4
    assert "95% interval 0.7657 to 0.8743" in answer
    assert "Nadeau and Bengio 2003" in page and "linear baseline" in page


def test_the_best_variant_is_named_and_the_labels_that_it_doubts_are_shown(tmp_path: Path) -> None:
    """The better variant comes second, and only it has predictions that contradict a label."""
    names, runs = ("good", "bad"), []
    for variant, reached, doubts in (("worse", 0.7, False), ("better", 0.8, True)):
        for fold in (2, 1):
            run = finished(variant, {"data.folds": 2, "data.fold": fold}, reached + fold / 100)
            folder = tmp_path / run.planned.name
            folder.mkdir()
            rows = [(str(2 * i + fold), f"{variant} {i}", names[i % 2], names[i % 2]) for i in range(40)]
            lines = [f"{','.join(row)},{'0.9,0.1' if row[2] == 'good' else '0.1,0.9'}" for row in rows]
            lines[0] = f"{fold},{variant} 0,good,bad,0.01,0.99" if doubts else lines[0]
            (folder / "predictions.csv").write_text("\n".join(["row,text,label,predicted,P(good),P(bad)", *lines]))
            results = replace(run.run.results, labels=list(names))
            runs.append(replace(run, run=replace(run.run, folder=folder, results=results)))
    answer, page = ask("folds", runs, tmp_path, axes=("data.fold",))
    assert answer.startswith("Over 2 folds better, folds 2 has")
    assert "It is the best of 2 variants by the mean." in answer
    assert "2 labels of the 80 rows (by better, folds 2) are probably wrong" in page and "worse 0" not in page


def test_a_study_of_folds_tests_each_row_once(tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / "folds.toml").write_text(STUDY)
    result = minilm("study", tmp_path / "folds.toml", "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "runs" / "folds"
    with (folder / "out_of_fold.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(1, 61))
    assert [(row["text"], row["label"]) for row in rows] == texts()
    assert {row["fold"] for row in rows} == {"1", "2", "3"}
    page = (folder / "study.md").read_text(encoding="utf-8")
    assert "Over 3 folds" in page and "## Labels that are probably wrong" in page
    names = sorted({row["label"] for row in rows})
    p = np.array([[float(row[f"P({name})"]) for name in names] for row in rows])
    issues = find_label_issues(np.array([names.index(row["label"]) for row in rows]), p)
    found = []
    if issues:
        with (folder / "label_issues.csv").open(newline="", encoding="utf-8") as file:
            found = [int(row["row"]) for row in csv.DictReader(file)]
    assert found == [int(rows[issue.row]["row"]) for issue in issues]


def test_folds_need_their_axis(tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / "folds.toml").write_text(STUDY.replace('"data.fold" = [1, 2, 3]', "seed = [1]"))
    message = refused("study", tmp_path / "folds.toml", "data.fold=1", "--runs", tmp_path / "runs")
    assert QUESTIONS["folds"].needs in message


@pytest.mark.parametrize("analysis", ["folds"])
def test_without_the_metric_there_is_nothing_to_say(tmp_path: Path, analysis: str) -> None:
    runs = [finished("full", {"data.folds": 2, "data.fold": fold}, 0.8) for fold in (1, 2)]
    answer, _ = ask(analysis, runs, tmp_path, axes=("data.fold",))
    assert "accuracy of 0.8000 (with too few folds, or equal ones, for an interval)" in answer
