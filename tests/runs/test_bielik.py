"""`make finetune MODEL=bielik` at full size: 1.5 billion random parameters, in bfloat16, in two files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch

from minilm.checkpoints.configs import write_config
from minilm.checkpoints.files import write_json, write_tensors
from minilm.checkpoints.names import published_tensors, rows_of
from minilm.models import ARCHITECTURES, build_model, without_weights
from tests.making import ROOT, dry_make, made
from tests.tiny import minilm


def write_checkpoint(folder: Path) -> None:
    """A checkpoint of Bielik-1.5B-v3's shape as it is published, and a small tokenizer."""
    llama = ARCHITECTURES["llama"]
    config = llama.config(
        vocab_size=32000, width=1536, depth=32, heads=12, kv_heads=2, mlp_width=8960,
        attention_bias=True, output_bias=True, mlp_bias=True, context=8192,
    )  # fmt: skip
    with without_weights():
        model = build_model("llama", config, "lm")
    rows = rows_of(llama.names, config, "lm", prefixed=True)
    shapes = {name: tensor.shape for name, tensor in published_tensors(dict(model.named_parameters()), rows)}
    names, files = list(shapes), {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        write_tensors(
            folder / file, {name: torch.empty(shapes[name], dtype=torch.bfloat16).normal_(std=0.02) for name in part}
        )
        files |= dict.fromkeys(part, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": files})
    published = {"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
    write_json(folder / "config.json", write_config("llama", config) | published)
    shutil.copyfile(ROOT / "tests" / "reference" / "llama-classify" / "tokenizer.json", folder / "tokenizer.json")


def test_bielik_trains_its_last_three_layers_for_three_steps_by_make_finetune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "bielik")
    changes = [f"model.source={tmp_path / 'bielik'}", "data.max_tokens=16", "train.batch_size=2", "train.epochs=1"]
    changes += ["data.train_rows=6", "data.validation_rows=3", "data.test_rows=3", f"ARGS=--runs {tmp_path}"]
    program, *arguments = made(dry_make("MODEL=bielik", "DATA=sample", *changes))
    assert program == ".venv/bin/minilm"
    monkeypatch.chdir(ROOT)  # where make runs it
    with mock.patch("minilm.runs.conclude.time_inference", return_value=0.0):  # 300 texts through it would take minutes
        result = minilm(*arguments)
    assert result.exit_code == 0, result.output
    assert "141,247,491 of 1,548,145,155 parameters train" in result.stderr
    assert "29 of 32 layers cached: " in result.stderr
    run = tmp_path / "finetune-bielik"
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert history[-1]["step"] == 3 and 0.5 < history[-1]["train_loss"] < 5
    trained = json.loads((run / "results.json").read_text())["parameters"]
    assert trained == {"total": 1_548_145_155, "trained": 141_247_491}
    shutil.rmtree(tmp_path / "bielik")  # some gigabytes
    shutil.rmtree(run)
