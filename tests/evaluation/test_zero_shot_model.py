"""A model that was never trained on the labels, as its user asks it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from minilm.devices import runtime
from minilm.errors import UserError
from minilm.evaluation.ensemble import load_predictor
from minilm.evaluation.prompts import Prompt, likelihood
from minilm.evaluation.zero_shot import open_model
from minilm.evaluation.zero_shot_model import method_of, zero_shot_predictor
from tests.runs.test_zero_shot import write
from tests.tiny import minilm, refused

REFERENCE = Path(__file__).parents[1] / "reference"
WRITER = str(REFERENCE / "llama-lm-biases")


@pytest.mark.parametrize(
    ("model", "method"),
    [("llama-lm-biases", "likelihood"), ("bert-lm", "cloze"), ("bert", "similarity"), ("t5-lm", "likelihood")],
)
def test_what_a_checkpoint_is_decides_how_it_is_asked(model: str, method: str) -> None:
    assert method_of(REFERENCE / model) == method


def test_a_classifier_with_labels_of_its_own_is_refused() -> None:
    with pytest.raises(UserError, match="is a classifier with its own labels"):
        method_of(REFERENCE / "bert-classify")


def test_its_probabilities_are_those_of_the_method() -> None:
    predictor = zero_shot_predictor(WRITER, ["good", " bad"], pattern="{text} is {label}", device="cpu")
    assert predictor.labels == ["good", "bad"]
    model, tokenizer = open_model(WRITER, "likelihood", "cpu")
    prompt = Prompt("{text} is {label}", ["good", "bad"])
    expected = np.exp(likelihood(model, tokenizer, ["a day"], prompt, runtime("cpu", "float32")))
    np.testing.assert_allclose(list(predictor.predict(["a day"])[0].values()), expected[0], atol=1e-6)


def test_texts_and_tables_are_answered_on_the_command_line(tmp_path: Path) -> None:
    command = ("zero-shot", WRITER, "--labels", "good,bad")
    [line] = minilm(*command, "a day", "--json").stdout.splitlines()
    found = json.loads(line)
    assert found["text"] == "a day" and set(found["scores"]) == {"good", "bad"}
    (tmp_path / "in.csv").write_text("id,review\n1,a day\n2,\n")
    out = tmp_path / "out.csv"
    result = minilm(*command, "--file", tmp_path / "in.csv", "--column", "review", "--out", out, "--all")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(out.open(newline="")))
    assert [row["id"] for row in rows] == ["1", "2"] and rows[1]["predicted"] == ""
    assert float(rows[0]["P(good)"]) == pytest.approx(found["scores"]["good"], rel=1e-4)


def test_what_does_not_fit_together_is_refused_in_one_line(tmp_path: Path) -> None:
    for said, *command in (
        ("--labels must be two labels or more", "a", "--labels", "good"),
        ("--labels must be two labels or more", "a", "--labels", "good,good"),
        ('no method "guess"', "a", "--labels", "a,b", "--method", "guess"),
        ('--pattern must contain "{label}"', "a", "--labels", "a,b", "--pattern", "{text}"),
        ('several labels per text need the method "entailment"', "a", "--labels", "a,b", "--several"),
        ("--out needs a table as input (--file)", "a", "--labels", "a,b", "--out", tmp_path / "o.csv"),
        ("--column is for a table", "a", "--labels", "a,b", "--column", "review"),
        ("--all needs an output table", "a", "--labels", "a,b", "--all"),
        (f"--file: {tmp_path / 'no.txt'}: no such file", "--labels", "a,b", "--file", tmp_path / "no.txt"),
    ):
        assert said in refused("zero-shot", WRITER, *command)


def test_the_model_of_a_zero_shot_run_answers_as_the_run_did(tmp_path: Path) -> None:
    assert minilm("train", write(tmp_path), "--runs", tmp_path / "runs").exit_code == 0
    run = tmp_path / "runs" / "asked"
    rows = list(csv.DictReader((run / "predictions.csv").open(newline="")))
    predictor = load_predictor([run], "cpu")
    found = predictor.predict([row["text"] for row in rows])
    for row, scores in zip(rows, found, strict=True):
        assert max(scores, key=lambda name: scores[name]) == row["predicted"]
        assert scores["good"] == pytest.approx(float(row["P(good)"]), rel=1e-4)
    measured = json.loads(minilm("evaluate", run, "--json").stdout)
    assert measured["confusion"] == json.loads((run / "results.json").read_text())["test"]["confusion"]
    assert minilm("predict", run, "a day").exit_code == 0
    assert "has no validation.safetensors" in refused("predict", run, "a day", "--min-precision", "0.9")
