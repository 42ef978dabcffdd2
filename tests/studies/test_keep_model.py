"""What a study's runs keep of their models, and that it is enough to predict with."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from minilm.studies.plan import load_study
from tests.studies.test_engine import STUDY, draw, write_study
from tests.studies.test_experiments import bert  # noqa: F401 (a fixture)
from tests.studies.test_preview import frozen_study
from tests.tiny import minilm, refused


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    for name in ("bars", "curves"):
        monkeypatch.setattr(f"minilm.reporting.group_plots.{name}", lambda *arguments, **options: draw(arguments[2]))
    monkeypatch.setattr("minilm.studies.page_parts.dashboard", lambda *arguments, **options: draw(arguments[2]))


def run(path: Path, folder: Path, keep: str) -> Path:
    result = minilm("study", path, f"keep_model={keep}", "train.epochs=1", "axes.seed=[1]", "--runs", folder / keep)
    assert result.exit_code == 0, result.output
    return folder / keep / "frozen"


def answers(run: Path) -> str:
    return minilm("predict", run, "a good film", "an awful day", "--json").stdout


def test_a_frozen_backbone_is_not_stored_again_and_predicts_the_same(tmp_path, bert):  # noqa: F811
    path = frozen_study(tmp_path, bert)
    whole, trained = run(path, tmp_path, "all"), run(path, tmp_path, "trained")
    for name in ("full_seed-1", "head_seed-1", "lora_seed-1"):
        assert answers(whole / name) == answers(trained / name) and "scores" in answers(whole / name)
    files = {name: {p.name for p in (trained / f"{name}_seed-1" / "model").iterdir()} for name in ("full", "head")}
    assert "model.safetensors" in files["full"] and "trained.safetensors" not in files["full"]
    assert "model.safetensors" not in files["head"] and {"trained.safetensors", "head.safetensors"} <= files["head"]
    minilm("export", trained / "head_seed-1", tmp_path / "exported")
    assert (tmp_path / "exported" / "model.safetensors").exists()
    assert answers(tmp_path / "exported") == answers(whole / "head_seed-1")
    evaluated = (minilm("evaluate", folder / "head_seed-1", "--json").stdout for folder in (whole, trained))
    assert json.loads(next(evaluated)) == json.loads(next(evaluated))


def test_a_study_may_keep_no_model(tmp_path, bert):  # noqa: F811
    folder = run(frozen_study(tmp_path, bert), tmp_path, "none")
    assert not list(folder.glob("*/model")) and len(list(folder.glob("*/predictions.csv"))) == 3
    assert 'kept no model (keep_model = "none")' in refused("predict", folder / "head_seed-1", "a text")


def test_models_that_choose_the_next_rows_are_kept(tmp_path):
    text = 'keep_model = "none"\n' + STUDY + '[active]\nrules = ["random"]\nlabels = [4, 8, 12]\n'
    runs = load_study(write_study(tmp_path, text), runs=tmp_path).runs
    assert {(run.round.labels, run.keep_model) for run in runs} == {(4, "trained"), (8, "trained"), (12, "none")}


def test_results_csv_has_a_row_for_every_run_with_every_axis_and_metric(tmp_path):
    text = STUDY.replace("[axes]", '[axes]\n"train.weight_decay" = [0, 0.1]')
    text = text.replace('["train.lr=1e-4"]', '["data.label=lable"]')
    path, few = write_study(tmp_path, text), ("axes.seed=[1]", "train.epochs=1")
    result = minilm("study", path, *few, "--runs", tmp_path / "runs")
    assert result.exit_code == 1
    folder = tmp_path / "runs" / "rates"
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["train.weight_decay"], row["seed"], row["state"]) for row in rows] == [
        ("low", "0", "1", "failed"),
        ("low", "0.1", "1", "failed"),
        ("high", "0", "1", "finished"),
        ("high", "0.1", "1", "finished"),
    ]
    assert "lable" in rows[0]["failure"] and rows[0]["test_accuracy"] == "" == rows[2]["failure"]
    results = json.loads((folder / rows[3]["run"] / "results.json").read_text())
    for split in ("test", "validation", "train"):
        for metric in ("loss", "accuracy", "macro_f1", "mcc"):
            assert float(rows[3][f"{split}_{metric}"]) == results[split][metric]
    assert float(rows[3]["linear_baseline_test_accuracy"]) == results["baselines"]["linear"]["test"]["accuracy"]
    assert float(rows[3]["train_seconds"]) == results["times"]["train_seconds"]
    assert (rows[3]["model"], rows[3]["test_texts"], rows[3]["train_texts"]) == ("GPT-2", "6", "48")
    assert int(rows[3]["parameters"]) == results["parameters"]["total"]
