"""Runs on long texts in windows: every architecture, the frozen prefix, resume and predict; all counts are of texts."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
from dataclasses import fields
from pathlib import Path

import pytest

from minilm.evaluation.predictor import Classifier
from minilm.models import ARCHITECTURES
from tests.tiny import BAD, GOOD, OTHER, at_step, minilm, outcome, write_config

SIZES = {"width": 16, "depth": 2, "heads": 2, "mlp_width": 32, "kv_heads": 1, "head_width": 8}
WINDOWS = ["data.long_texts=windows", "data.max_tokens=12", "train.epochs=1"]


def long_texts(number: int = 40) -> list[tuple[str, str]]:
    """Texts of 5 to 30 words whose label one of their last words gives away."""
    chance = random.Random(0)
    rows = []
    for i in range(number):
        words = chance.choices(OTHER, k=chance.randint(4, 28))
        rows.append((" ".join([*words, chance.choice(BAD if i % 2 else GOOD), str(i)]), "bad" if i % 2 else "good"))
    return rows


def train(folder: Path, *changes: str, name: str = "tiny") -> Path:
    config = folder / "tiny.toml"
    if not config.exists():
        write_config(folder, rows=long_texts())
    result = minilm("train", config, f"name={name}", *WINDOWS, *changes, "--runs", folder)
    assert result.exit_code == 0, result.output
    return folder / name


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_architecture_reads_long_texts_in_windows_and_answers_for_texts(tmp_path: Path, family: str) -> None:
    known = {field.name for field in fields(ARCHITECTURES[family].config)}
    sizes = [f"model.config.{key}={value}" for key, value in SIZES.items() if key in known]
    run = train(tmp_path, f"model.architecture={family}", "model.config={}", *sizes)
    results = json.loads((run / "results.json").read_text())
    assert sum(row["support"] for row in results["test"]["per_class"]) == 4 and results["lengths"]["truncated"] == 0
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    answers = Classifier.load(run, "cpu").predict([row["text"] for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        assert float(row["P(good)"]) == pytest.approx(answer["good"], abs=1e-5)


@pytest.mark.parametrize(("part", "layers"), [("backbone", 0), ("all-but-last", 1)])
def test_the_frozen_prefix_keeps_windows(tmp_path: Path, part: str, layers: int) -> None:
    first = train(tmp_path, "model.config.depth=2", name="first")
    config = tmp_path / "second.toml"
    lines = (tmp_path / "tiny.toml").read_text().split("[data]")
    config.write_text(f'name = "second"\n[model]\nsource = "{first / "model"}"\n[data]{lines[1]}')
    freeze = [f"freeze.part={part}", *([f"freeze.layers={layers}"] if layers else [])]
    runs = []
    for name, cache in (("kept", 4096), ("anew", 0)):
        changes = [f"name={name}", f"train.cache_mib={cache}", *freeze, *WINDOWS]
        assert minilm("train", config, *changes, "--runs", tmp_path).exit_code == 0
        results = json.loads((tmp_path / name / "results.json").read_text())
        assert bool(results["frozen_layers"]) == (cache > 0)
        runs.append(results["test"])
    assert runs[0]["loss"] == pytest.approx(runs[1]["loss"], abs=1e-5)


def test_a_run_in_windows_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    whole = train(tmp_path / "a", "data.window_scores=max")
    config = write_config(tmp_path / "b", rows=long_texts())
    command = ["train", config, *WINDOWS, "data.window_scores=max", "--runs", tmp_path / "b"]
    with at_step(5, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        assert minilm(*command).exit_code == 128 + signal.SIGTERM
    assert minilm(*command, "--resume").exit_code == 0
    assert outcome(tmp_path / "b" / "tiny")["weights"]["model.safetensors"] == (
        (whole / "model" / "model.safetensors").read_bytes()
    )


def test_cut_texts_are_reported_in_training_and_in_prediction(tmp_path: Path) -> None:
    config = write_config(tmp_path, rows=long_texts())
    result = minilm("train", config, "data.max_tokens=12", "train.epochs=1", "--runs", tmp_path)
    assert "of 40 texts are longer than 12 tokens and are cut, so" in result.stderr
    assert "raise data.max_tokens (at most 32), or use data.long_texts=windows" in result.stderr
    said = minilm("predict", tmp_path / "tiny", long_texts()[1][0]).stderr
    assert "1 of 1 texts are longer than 12 tokens and are cut" in said
    assert minilm("predict", tmp_path / "tiny", "good").stderr == ""


def test_several_labels_a_text_are_combined_over_windows_too(tmp_path: Path) -> None:
    labels = {"good": "good,long", "bad": "bad"}
    rows = [(text, labels[label] if i % 3 else "long") for i, (text, label) in enumerate(long_texts())]
    config = write_config(tmp_path, rows=rows)
    result = minilm("train", config, *WINDOWS, "data.label_separator=,", "--runs", tmp_path)
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "tiny" / "results.json").read_text())
    assert results["labels"] == ["bad", "good", "long"] and 0 <= results["test"]["jaccard"] <= 1
