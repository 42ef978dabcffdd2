"""The program that is shown for a graph turns scores into the labels that minilm gives, for every kind of answer."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minilm.evaluation.decisions import Decision
from minilm.reporting.export_facts import ExportFacts, Graph
from minilm.reporting.onnx_script import onnx_script
from minilm.schema import as_table

REFERENCE = Path(__file__).parents[1] / "reference"
SCORES = np.array([[0.2, 0.5], [1.5, -1.0], [-3.0, -0.1], [0.4, 0.3]], np.float32)
PLAIN = ExportFacts(
    minilm="1", labels=["a", "b"], kind="single", temperature=[1.0], max_tokens=9, truncation_side="right",
    pad_id=0, clean=[], pairs=False,
    onnx=Graph(file="model.onnx", megabytes=1, inputs=["input_ids"], output="logits", largest_difference=0),
)  # fmt: skip
CASES = {
    "the most probable label": Decision("single", temperature=np.array([2.0])),
    "the second of two labels from a threshold on": Decision("single", 0.4, np.array([2.0])),
    "several labels from a threshold on": Decision("multi", 0.6, np.array([2.0, 0.5])),
    "several labels from one threshold each on": Decision("multi", np.array([0.9, 0.3])),
    "a score": Decision("score"),
    "a raw score": Decision("score", raw=True),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("pairs", [False, True])
def test_the_labels_are_those_of_the_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str, pairs: bool
) -> None:
    decision, fed = CASES[case], list[dict[str, Any]]()
    z = SCORES[:, :1] if decision.kind == "score" else SCORES
    many = isinstance(decision.threshold, np.ndarray)
    threshold = None if case == "the most probable label" else np.asarray(decision.threshold).tolist()
    temperature = [1.0] if decision.temperature is None else decision.temperature.tolist()
    facts = replace(PLAIN, kind=decision.kind, raw=decision.raw, temperature=temperature, pairs=pairs)
    facts = replace(facts, threshold=threshold)
    assert many == isinstance(facts.threshold, list)
    (tmp_path / "export.json").write_text(json.dumps(as_table(facts)))
    (tmp_path / "tokenizer.json").write_bytes((REFERENCE / "bert-classify" / "tokenizer.json").read_bytes())
    (tmp_path / "texts.txt").write_text("one\ttwo\n" * len(z))

    def run(names: list[str], feed: dict[str, Any]) -> list[np.ndarray]:
        fed.append(feed)
        return [z]

    session = SimpleNamespace(run=run)
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=lambda path: session))
    monkeypatch.setattr(sys, "argv", ["script", str(tmp_path), str(tmp_path / "texts.txt")])
    script = onnx_script(facts)
    assert len(script.splitlines()) <= 16
    exec(compile(script, "script", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    p = decision.probabilities(z)
    if decision.kind == "score":
        assert [float(line) for line in lines] == pytest.approx(p[:, 0].tolist())
    else:
        given = decision.choose(p)
        rows = given if decision.kind == "multi" else np.eye(2, dtype=int)[given]
        assert lines == [", ".join(np.array(["a", "b"])[row.astype(bool)]) for row in rows]
    assert fed[0]["input_ids"].shape[0] == len(z) and list(fed[0]) == ["input_ids"]


def test_the_page_about_deploying_shows_the_program() -> None:
    page = (Path(__file__).parents[2] / "docs" / "deploying.md").read_text(encoding="utf-8")
    assert f"```python\n{onnx_script(PLAIN)}```" in page
