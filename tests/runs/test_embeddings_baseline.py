"""A baseline of what the checkpoint knows before it is trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from minilm.checkpoints.models import load_model
from minilm.data.tokenization import pad_id
from minilm.devices import runtime
from minilm.evaluation.embeddings import fit_probe, text_vectors
from minilm.loading import load_config
from minilm.runs.assembly import prepare
from tests.tiny import minilm, outcome, refused, write_config, write_data

REFERENCE = Path(__file__).parents[1] / "reference"
CONFIG = """
name = "tiny"
model.source = "{model}"
data = {{ source = "{data}", max_tokens = 20 }}

[train]
epochs = 1
batch_size = 8
lr = 1e-2
threads = 1
device = "cpu"
"""


@pytest.mark.parametrize(
    ("model", "changes"), [("bert-classify", []), ("gpt2-classify", ["lora.rank=2", "lora.dropout=0.1"])]
)
def test_it_is_fitted_to_the_vectors_before_training_and_changes_nothing_else(
    tmp_path: Path, model: str, changes: list[str]
) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG.format(model=REFERENCE / model, data=write_data(tmp_path / "texts.tsv")))
    for runs, more in (("with", ["train.embeddings_baseline=true"]), ("without", [])):
        result = minilm("train", config, *changes, *more, "--runs", tmp_path / runs)
        assert result.exit_code == 0, result.output
    run, plain = tmp_path / "with" / "tiny", tmp_path / "without" / "tiny"
    assert outcome(run) == outcome(plain)

    prepared, backbone = prepare(load_config(config)), load_model(REFERENCE / model, "encode", dtype=torch.float32)
    vectors = {
        split: text_vectors(backbone, encoded, runtime("cpu", "float32"), pad=pad_id(prepared.tokenizer))
        for split, encoded in prepared.encoded.items()
    }
    probe = fit_probe(vectors["train"], prepared.train.labels, 2)
    right = probe.predict(vectors["test"]).argmax(axis=1) == prepared.data.test.labels
    baseline = json.loads((run / "results.json").read_text())["baselines"]["embeddings"]
    assert baseline["test"]["accuracy"] == pytest.approx(float(np.mean(right))) and baseline["seconds"] > 0
    scores = probe.predict(vectors["validation"])
    loss = -scores[np.arange(len(scores)), prepared.data.validation.labels].mean()
    assert baseline["validation"]["loss"] == pytest.approx(float(loss), rel=1e-3)
    assert "*embeddings*, a linear model on the text vectors" in (run / "report.md").read_text()
    assert "*embeddings*" not in (plain / "report.md").read_text()


def test_a_model_from_scratch_has_none(tmp_path: Path) -> None:
    config = write_config(tmp_path, "embeddings_baseline = true\n")
    assert "needs a checkpoint (model.source)" in refused("train", config, "--runs", tmp_path / "runs")
