"""A run's report shows its mistakes, and names the labels that are probably wrong."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from minilm.data.rows import Rows
from minilm.evaluation.decisions import Decision, plain_decision
from minilm.evaluation.label_issues import find_label_issues
from minilm.reporting.label_issues import issues_of, write_label_issues
from minilm.reporting.report import write_report
from minilm.reporting.results import Mistakes
from minilm.reporting.tables import CLIPPED
from minilm.runs.mistakes import HeldOut, describe_mistakes
from minilm.schema import as_table
from tests.evaluation.test_decisions import drawn

NAMES = ["negative", "neutral or ambiguous", "positive"]


def held_out(labels: np.ndarray, pairs: bool = False) -> HeldOut:
    texts = [f"text {i} " + "x" * 200 for i in range(len(labels))]
    rows = Rows(texts, [f"pair {i}" for i in range(len(labels))] if pairs else None, labels)
    return HeldOut("test", rows, np.arange(len(labels)) + 100, {"id": [f"#{i}" for i in range(len(labels))]})


def described(several: bool, pairs: bool = False) -> tuple[Mistakes, np.ndarray, np.ndarray]:
    labels, scores = drawn(0, several, 300)
    decision = plain_decision(labels)
    issues = issues_of(labels, decision.probabilities(scores), NAMES)
    return describe_mistakes(held_out(labels, pairs), scores, NAMES, decision, issues), labels, scores


def test_the_surest_mistakes_come_first_with_their_rows_in_the_file() -> None:
    found, labels, scores = described(False)
    p = Decision("single").probabilities(scores)
    assert len(found.surest) == 10
    for mistake in found.surest:
        i = mistake.row - 100
        assert mistake.label == NAMES[labels[i]] != mistake.predicted == NAMES[p[i].argmax()]
        assert mistake.probability == pytest.approx(p[i].max()) and len(mistake.text) == CLIPPED
    assert [m.probability for m in found.surest] == sorted((m.probability for m in found.surest), reverse=True)


def test_each_confused_pair_has_three_texts_at_most() -> None:
    found, labels, scores = described(False)
    predicted = scores.argmax(axis=1)
    assert len(found.confused) == 5
    for pair in found.confused:
        truth, given = NAMES.index(pair.label), NAMES.index(pair.predicted)
        assert pair.texts == ((labels == truth) & (predicted == given)).sum()
        assert len(pair.mistakes) == min(3, pair.texts)
        assert all(m.label == pair.label and m.predicted == pair.predicted for m in pair.mistakes)


def test_with_several_labels_mistakes_are_sets_and_issues_say_what_to_do() -> None:
    found, _, _ = described(True, pairs=True)
    assert isinstance(found.surest[0].label, list) and not found.confused
    assert {issue.suggested for issue in found.label_issues} <= {"add", "remove"} and found.all_label_issues
    assert "/ pair" not in found.surest[0].text  # the beginning alone is kept


@pytest.mark.parametrize("several", [False, True])
def test_the_page_shows_all_of_it(make_run, results, several_results, several: bool) -> None:
    found, _, _ = described(several)
    run = make_run((several_results if several else results) | {"mistakes": as_table(found)})
    text = write_report(run).read_text()
    assert "## Its mistakes" in text and f"| {found.surest[0].row} | text" in text
    assert "[label\\_issues.csv](label_issues.csv)" in text or "[label_issues.csv](label_issues.csv)" in text
    assert f"{found.all_label_issues} labels of the 120 test texts are probably wrong" in text
    assert ("taken for" in text) is not several
    write_report(run)


def test_a_model_without_mistakes_says_so(make_run, results) -> None:
    found = {"split": "test", "surest": [], "confused": [], "label_issues": [], "all_label_issues": 0}
    text = write_report(make_run(results | {"mistakes": found})).read_text()
    assert "The model makes no mistakes on the test texts." in text
    assert "Confident learning finds no label that is probably wrong among the 120 test texts." in text


def test_the_file_names_rows_by_number_and_the_columns_that_are_kept(tmp_path: Path) -> None:
    _, labels, scores = described(False)
    p = Decision("single").probabilities(scores)
    write_label_issues(tmp_path / "a.csv", issues_of(labels, p, NAMES), held_out(labels).columns)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = find_label_issues(labels, p)
    assert [int(row["row"]) for row in rows] == [100 + issue.row for issue in expected]
    assert list(rows[0]) == ["row", "id", "text", "label", "suggested", "score"]
    assert rows[0]["id"] == f"#{expected[0].row}" and rows[0]["label"] == NAMES[expected[0].given]
    assert float(rows[0]["score"]) == pytest.approx(expected[0].score, rel=1e-5)
