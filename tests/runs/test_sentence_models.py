"""Runs that start from a sentence model pool as its folder says, and say so in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minilm.checkpoints.models import load_model
from minilm.data.tokenization import load_tokenizer
from minilm.devices import runtime
from minilm.evaluation.embeddings import embed_texts, fit_probe
from minilm.loading import load_config
from minilm.runs.assembly import prepare
from tests.checkpoints.sentence_folders import sentence_model
from tests.tiny import minilm, refused, write_data

CONFIG = """
name = "tiny"
[model]
source = "{model}"
[data]
source = "{data}"
max_tokens = 20
[train]
epochs = 1
batch_size = 8
lr = 1e-3
evaluate_every = 4
threads = 1
device = "cpu"
"""
DENSE = {"in_features": 24, "out_features": 10, "activation_function": "torch.nn.modules.activation.Tanh"}


def written(folder: Path, pooling: str, **modules: object) -> tuple[Path, Path]:
    """A config, and the sentence model that it starts from."""
    model = sentence_model(folder / "sentences", "bert", {"pooling_mode": pooling}, **modules)
    path = folder / "tiny.toml"
    path.write_text(CONFIG.format(model=model, data=write_data(folder / "texts.tsv")))
    return path, model


@pytest.mark.parametrize(("pooling", "ours"), [("lasttoken", "last"), ("mean", "mean"), ("max", "max")])
def test_a_new_head_pools_as_the_folder_says_unless_the_config_says_otherwise(
    pooling: str, ours: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, model = written(tmp_path, pooling, dense=[DENSE])
    for runs, changes, wanted in (("a", [], ours), ("b", ["model.head.pooling=cls"], "cls")):
        caplog.clear()
        result = minilm("train", config, *changes, "--runs", tmp_path / runs)
        assert result.exit_code == 0, result.output
        saved = json.loads((tmp_path / runs / "tiny/model/config.json").read_text())
        assert saved["minilm"]["head"]["pooling"] == wanted
        line = f"{model}: the new head uses the pooling '{ours}' of the sentence model (model.head.pooling)"
        assert (result.output + caplog.text).count(line) == (0 if changes else 1)


def test_the_probe_reads_prompts_and_dense_layers(tmp_path: Path) -> None:
    prompts = {"prompts": {"classification": "what: "}}
    path, model = written(tmp_path, "cls", dense=[DENSE], normalize=True, prompts=prompts)
    result = minilm("train", path, "train.embeddings_baseline=true", "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    line = "the embeddings baseline: a text's vector is: cls, a dense layer, length 1; the prompt 'classification'"
    assert result.output.count(line) == 1
    prepared, backbone, tokenizer = prepare(load_config(path)), load_model(model, "encode"), load_tokenizer(model)
    train, test = (
        embed_texts(backbone, tokenizer, prepared.rows(split).texts, runtime("cpu", "float32"), max_tokens=20)
        for split in ("train", "test")
    )
    assert train.shape[1] == 10
    probe = fit_probe(train, prepared.train.labels, 2)
    right = probe.predict(test).argmax(axis=1) == prepared.data.test.labels
    results = json.loads((tmp_path / "runs/tiny/results.json").read_text())
    assert results["baselines"]["embeddings"]["test"]["accuracy"] == pytest.approx(float(np.mean(right)))


def test_zero_shot_similarity_says_what_it_took(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, model = written(tmp_path, "cls", normalize=True)
    path.write_text(path.read_text().split("[train]")[0] + '[zero_shot]\nmethod = "similarity"\n')
    result = minilm("train", path, "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    line = f"{model}: a text's vector is: cls, length 1 ({model / 'modules.json'})"
    assert (result.output + caplog.text).count(line) == 1


def test_a_broken_pooling_file_is_one_line(tmp_path: Path) -> None:
    path, model = written(tmp_path, "cls")
    (model / "1_Pooling" / "config.json").write_text("{")
    assert "1_Pooling/config.json: not valid JSON" in refused("train", path, "--runs", tmp_path / "runs")
