"""What a run says of each test text, written and read back."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minilm.config import SPLITS
from minilm.data.rows import Rows
from minilm.errors import UserError
from minilm.evaluation.decisions import plain_decision
from minilm.reporting.predictions import read_predictions, write_predictions
from minilm.reporting.record import Run, read_run
from tests import records
from tests.tiny import finished_run

NAMES = ["no", "yes, please", 'a "new" one']
TEXTS = ["plain", 'quoted, "so"', "two\nlines\rand more", "x" * 200_000]


def kept(folder: Path, labels: np.ndarray, scores: np.ndarray, pairs: list[str] | None = None, threshold: float = 0.5):
    """What is read of what is written, and the file's rows."""
    decision = replace(plain_decision(labels), threshold=threshold)
    write_predictions(folder, Rows(TEXTS, pairs, labels), scores, NAMES, decision)
    results = records.trained() | {"labels": NAMES, "baselines": {}}
    results |= {split: records.several(1, 0.5, 0.5) for split in SPLITS if labels.ndim == 2}
    csv.field_size_limit(2**31 - 1)
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return read_predictions(run_of(folder, results, len(labels))), list(csv.DictReader(file))


def run_of(folder: Path, results: dict, rows: int) -> Run:
    results["data"]["sizes"]["test"] = rows
    return Run(folder, records.typed(results), records.config(), [], None)


def test_one_label_a_text_comes_back_with_its_decisions(tmp_path):
    labels, scores = (
        np.array([0, 2, 1, 1]),
        np.log([[0.5, 0.25, 0.25], [0.7, 0.1, 0.2], [0.1, 0.8, 0.1], [0.4, 0.4, 0.2]]),
    )
    told, rows = kept(tmp_path, labels, scores, pairs=["p", "q", "r", "s"])
    assert told.labels.tolist() == labels.tolist() and told.predicted.tolist() == [0, 0, 1, 0]
    assert told.right.tolist() == [True, False, True, False]
    assert [row["text"] for row in rows] == TEXTS and rows[3]["pair"] == "s"
    assert rows[1]["label"] == NAMES[2] and [float(rows[1][f"P({name})"]) for name in NAMES] == [0.7, 0.1, 0.2]


def test_several_labels_come_back_as_they_were_given_from_the_threshold_on(tmp_path):
    labels = np.array([[0, 0, 0], [1, 1, 0], [0, 1, 1], [1, 0, 0]])
    scores = np.array([[-9, -9, -9], [2, 0.5, -1], [-1, 2, 2], [0.5, -3, -3]])  # sigmoid(0.5) = 0.62
    told, rows = kept(tmp_path, labels, scores, threshold=0.7)
    assert told.labels.tolist() == labels.tolist()
    assert told.predicted.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert told.right.tolist() == [True, False, True, False]
    assert json.loads(rows[2]["label"]) == NAMES[1:] and rows[0]["predicted"] == "[]"


def test_a_file_that_was_edited_is_told_and_none_is_none(tmp_path):
    path, run = tmp_path / "predictions.csv", run_of(tmp_path, records.trained() | {"labels": NAMES}, 1)
    assert read_predictions(run) is None
    path.write_text("label,predicted\nno,no\n")
    assert read_predictions(run).right.tolist() == [True]
    rows = ("no,maybe\n", "no,no\nno,no\n", '"no,no\n')
    for text in (*(f"label,predicted\n{row}" for row in rows), "label\nno\n"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"predictions.csv: was changed after the run wrote it"):
            read_predictions(run)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    several=st.booleans(),
    places=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
    junk=st.sampled_from([b"", b"\"", b"\n", b"\x00", b"[" * 3000, b"[\"no\"]", b"{}", b"\xed\xa0\x80"]),
)
def test_whatever_was_done_to_the_file_is_a_line_or_decisions(tmp_path, several, places, junk):
    labels = np.eye(3, dtype=int)[[0, 1, 2, 0]] if several else np.array([0, 1, 2, 0])
    write_predictions(tmp_path, Rows(["a", "b", "c", "d"], None, labels), np.eye(3)[[0, 1, 1, 2]] * 4 - 2, NAMES)
    results = records.trained() | {"labels": NAMES, "baselines": {}}
    results |= {split: records.several(1, 0.5, 0.5) for split in SPLITS if several}
    path, run = tmp_path / "predictions.csv", run_of(tmp_path, results, 4)
    content = path.read_bytes()
    first, last = sorted(place % (len(content) + 1) for place in places)
    path.write_bytes(content[:first] + junk + content[last:])
    try:
        assert read_predictions(run).labels.shape == labels.shape
    except UserError as error:
        assert str(error).startswith(str(path))


def test_a_runs_file_agrees_with_its_metrics():
    run = read_run(finished_run())
    assert read_predictions(run).right.mean() == run.results.test.accuracy
