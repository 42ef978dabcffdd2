"""The linear baseline, kept: it answers as it did when it was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minilm.errors import UserError
from minilm.evaluation.baselines import linear
from minilm.evaluation.ensemble import load_predictor
from minilm.evaluation.linear_classifier import load_linear, save_linear
from minilm.evaluation.reading import Reading
from tests.tiny import finished_run, minilm, refused, texts

ROWS = [text for text, _ in texts(40)]


@pytest.mark.parametrize("several", [False, True])
def test_a_model_that_is_saved_gives_the_same_scores_when_it_is_opened(tmp_path: Path, several: bool) -> None:
    labels = np.array([int(name == "good") for _, name in texts(40)])
    if several:
        labels = np.stack([labels, 1 - labels, np.zeros_like(labels)], axis=1)
    names = ["a", "b", "c"][: 3 if several else 2]
    model = linear(ROWS, labels, len(names))
    save_linear(model, tmp_path, names, Reading(pairs=False))
    opened = load_linear(tmp_path)
    assert opened.labels == names and opened.multi_label is several
    np.testing.assert_array_equal(opened.scores(ROWS), model.predict(ROWS))


def test_a_runs_baseline_is_exported_and_measures_as_its_report_says(tmp_path: Path) -> None:
    result = minilm("export", finished_run(), tmp_path / "linear", "--linear")
    assert result.exit_code == 0 and "minilm predict" in result.stdout
    found = json.loads(minilm("evaluate", tmp_path / "linear", "--json").stdout)
    stored = json.loads((finished_run() / "results.json").read_text())["baselines"]["linear"]["test"]
    assert found["confusion"] == stored["confusion"] and found["loss"] == pytest.approx(stored["loss"])
    assert minilm("predict", tmp_path / "linear", "it was a good film").stdout.startswith("good ")
    (tmp_path / "in.csv").write_text("id,text\n1,a dull book\n2,\n")
    minilm("predict", tmp_path / "linear", "--file", tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("1,a dull book,bad,")
    together = minilm("predict", finished_run(), tmp_path / "linear", "it was good", "--min-precision", "0.5")
    assert together.exit_code == 0 and together.stdout.endswith("\tit was good\n")
    assert "not empty" in refused("export", finished_run(), tmp_path / "linear", "--linear")


def test_what_is_not_as_it_was_written_is_refused(tmp_path: Path) -> None:
    assert "not a run's folder" in refused("export", tmp_path, tmp_path / "x", "--linear")
    assert "--linear cannot be combined" in refused("export", tmp_path, tmp_path / "x", "--linear", "--merge")
    save_linear(linear(ROWS, np.arange(40) % 2, 2), tmp_path, ["a", "b"], Reading())
    description = json.loads((tmp_path / "linear.json").read_text())
    (tmp_path / "linear.json").write_text(json.dumps(description | {"labels": ["a", "b", "c"]}))
    with pytest.raises(UserError, match=r"linear\.safetensors: does not belong to linear\.json"):
        load_predictor([tmp_path])
