"""A run's folder that an earlier version wrote works as it did: see before/README.md."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from minilm.loading import dump_config, load_config
from minilm.reporting.compare import load_groups
from tests.tiny import minilm

BEFORE = Path(__file__).parent / "before"
CLASSIFIERS = ("scratch", "lora", "frozen", "labels", "adapted")
TIMED = {"seconds", "tokens_per_second"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, as the one that commands run in."""
    copy = shutil.copytree(BEFORE, tmp_path / "before")
    monkeypatch.chdir(copy)
    return copy


def read(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def history(run: str) -> list[dict[str, Any]]:
    """The evaluations of a run, each as numbers by name; without times."""
    lines = Path(run, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMED} for line in lines]


def near(value: Any) -> Any:
    """The same, with room in each number for another machine's rounding."""
    if isinstance(value, dict):
        return {key: near(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [near(inner) for inner in value]
    return pytest.approx(value, rel=1e-4, abs=1e-5) if isinstance(value, float) else value


def of_before(now: Any, before: Any) -> Any:
    """What this version has of all that the version before had; it may have more metrics."""
    if isinstance(before, dict):
        return {key: of_before(now.get(key), value) for key, value in before.items()}
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [of_before(*pair) for pair in zip(now, before, strict=True)]
    return now


@pytest.mark.parametrize("run", CLASSIFIERS)
def test_it_predicts_as_it_did(run: str) -> None:
    with Path("runs", run, "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    result = minilm("predict", f"runs/{run}", *(row["text"] for row in rows), "--json")
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(answers) == len(rows)
    for row, answer in zip(rows, answers, strict=True):
        scores = {label: float(row[f"P({label})"]) for label in answer["scores"]}
        assert answer["scores"] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("run", CLASSIFIERS)
def test_it_is_measured_as_it_was(run: str) -> None:
    result = minilm("evaluate", f"runs/{run}", "--json")
    assert result.exit_code == 0, result.output
    measured, stored = json.loads(result.stdout), read(f"runs/{run}/results.json")["test"]
    assert measured.pop("labels") == ["good", "third"] if run == "labels" else ["bad", "good"]
    assert {key: measured[key] for key in stored} == near(stored)


def test_all_of_them_are_compared() -> None:
    runs = [f"runs/{run}" for run in (*CLASSIFIERS, "asked")]
    result = minilm("compare", *runs, "--html", "compare.html")
    assert result.exit_code == 0, result.output
    assert all(run in result.stdout for run in CLASSIFIERS) and Path("compare.html").stat().st_size > 1000


@pytest.mark.parametrize("run", CLASSIFIERS)
def test_its_model_is_exported(run: str) -> None:
    result = minilm("export", f"runs/{run}", "exported", "--merge")
    assert result.exit_code == 0, result.output
    own, exported = (minilm("predict", source, "it was good", "--json") for source in (f"runs/{run}", "exported"))
    assert own.exit_code == exported.exit_code == 0, own.output + exported.output
    first, second = (json.loads(result.stdout)["scores"] for result in (own, exported))
    assert first == pytest.approx(second, abs=1e-5)


@pytest.mark.usefixtures("torch_dropout")  # which it was trained with
@pytest.mark.parametrize("run", ["scratch", "adapted"])
def test_an_interrupted_one_is_resumed_and_ends_where_it_would_have_ended(run: str) -> None:
    result = minilm("train", f"interrupted/{run}/config.toml", "--resume", "--runs", "interrupted")
    assert result.exit_code == 0, result.output
    before = history(f"runs/{run}")
    assert of_before(history(f"interrupted/{run}"), before) == near(before)
    assert read(f"interrupted/{run}/results.json")["test"]["accuracy"] >= 0
    if run == "adapted":
        first, second = (read(f"{runs}/{run}/adaptation/results.json") for runs in ("runs", "interrupted"))
        assert second["perplexity"] == near(first["perplexity"])


@pytest.mark.usefixtures("torch_dropout")
@pytest.mark.parametrize("run", [*CLASSIFIERS, "asked"])
def test_its_config_can_be_run_again(run: str) -> None:
    result = minilm("train", f"runs/{run}/config.toml", "--runs", "again")
    assert result.exit_code == 0, result.output
    # The evaluations are the same; which of them is the best is not, if several reach the same metric.
    if run == "asked":
        before, now = (read(f"{runs}/{run}/results.json")["test"] for runs in ("runs", "again"))
    else:
        before, now = (history(f"{runs}/{run}") for runs in ("runs", "again"))
    if run == "labels":  # its thresholds are chosen after the temperature
        splits = ("train", "validation")
        before = [entry | {split: {"loss": entry[split]["loss"]} for split in splits} for entry in before]
    assert of_before(now, before) == near(before)


def test_a_finished_one_is_found_to_have_finished() -> None:
    result = minilm("train", "runs/lora/config.toml", "--resume")
    assert result.exit_code == 0 and "this run has already finished" in result.stderr, result.output


@pytest.mark.parametrize("run", [*CLASSIFIERS, "asked"])
def test_a_study_of_the_same_settings_finds_it_finished(run: str) -> None:
    config = load_config(Path("runs", run, "config.toml"))
    Path("base.toml").write_text(dump_config(config), encoding="utf-8")
    metric = "micro_f1" if run == "labels" else "accuracy"
    study = f'name = "runs"\nquestion = "?"\nmetric = "{metric}"\nbase = "base.toml"\n[[runs]]\nname = "{run}"\n'
    Path("study.toml").write_text(study, encoding="utf-8")
    result = minilm("study", "study.toml", "--dry-run", "--runs", ".")
    assert result.exit_code == 0 and re.search(rf"{run} .*finished", result.stdout), result.output


@pytest.mark.parametrize("run", [*CLASSIFIERS, "asked"])
def test_it_is_a_run_of_another_seed_beside_one_of_this_version(run: str) -> None:
    shutil.copytree(f"runs/{run}", f"again/{run}")
    config = load_config(Path("again", run, "config.toml"), ["seed=2"])
    Path("again", run, "config.toml").write_text(dump_config(config), encoding="utf-8")  # as this version writes it
    [group] = load_groups([Path("runs", run), Path("again", run)])
    assert [run.config.seed for run in group.runs] == [1, 2]
