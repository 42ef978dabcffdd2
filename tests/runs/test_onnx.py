"""`minilm export --onnx`: the graph answers as the model does, and what 8-bit integers cost is measured."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.models import load_model
from minilm.checkpoints.onnx_export import open_graph
from minilm.data.tokenization import load_tokenizer
from minilm.finetuning.lora import LoRAConfig, add_lora
from minilm.models.batch import Batch
from minilm.reporting.export_facts import ExportFacts
from minilm.runs import onnx as exporting
from minilm.schema import read_table
from tests.tiny import finished_run, minilm, refused

REFERENCE = Path(__file__).parents[1] / "reference"
TEXTS = ["it was good", "really awful", "żółw", "a very long text that is cut " * 9, "good bad", "dull song"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An exported folder, and what the terminal got."""
    folder = tmp_path_factory.mktemp("onnx") / "news"
    result = minilm("export", finished_run(), folder, "--onnx", "--int8")
    assert result.exit_code == 0, result.output
    return folder, result.stderr


def facts_in(folder: Path) -> ExportFacts:
    path = folder / "export.json"
    return read_table(ExportFacts, json.loads(path.read_text()), lambda key: str(path))


def test_the_program_in_the_model_card_gives_the_labels_of_minilm(exported: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = exported
    [script] = re.findall(r"```python\n(import json.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(script.strip().splitlines()) <= 15
    assert set(re.findall(r"import ([\w, ]+)", script)) == {"json, sys", "numpy as np, onnxruntime, tokenizers"}
    (tmp_path / "script.py").write_text(script)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    command = [sys.executable, str(tmp_path / "script.py"), str(folder), str(tmp_path / "texts.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours = minilm("predict", finished_run(), *TEXTS, "--json").stdout.splitlines()
    assert done.stdout.split("\n")[:-1] == [json.loads(line)["labels"][0] for line in ours]


def test_the_facts_beside_the_graph_are_the_runs(exported: tuple[Path, str]) -> None:
    folder, said = exported
    facts, section = facts_in(folder), json.loads((folder / "config.json").read_text())["minilm"]
    assert facts.labels == ["bad", "good"] and facts.kind == "single" and facts.threshold is None
    assert facts.temperature == (section.get("temperature") or [1.0]) and facts.max_tokens == 32 and facts.clean == []
    assert facts.onnx.inputs == ["input_ids", "attention_mask"] and facts.onnx.largest_difference < 1e-5
    most = f"{facts.onnx.largest_difference:.1e} at most"
    assert f"{folder}/model.onnx: 0.1 MB; its scores differ from the model's by {most}" in said


def test_the_loss_of_8_bit_integers_is_measured_on_the_validation_texts(exported: tuple[Path, str]) -> None:
    folder, said = exported
    int8 = facts_in(folder).int8
    results = json.loads((finished_run() / "results.json").read_text())
    assert int8 is not None and int8.texts == results["data"]["sizes"]["validation"] and int8.same_labels <= int8.texts
    assert int8.float32 == pytest.approx({key: results["validation"][key] for key in ("accuracy", "macro_f1")})
    assert f"{folder}/model_quantized.onnx: 0.0 MB; on the {int8.texts} validation texts accuracy " in said
    assert (folder / "model_quantized.onnx").stat().st_size < (folder / "model.onnx").stat().st_size


def quick(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Graphs are copies of those in this folder."""
    monkeypatch.setattr(exporting, "write_onnx", lambda _, path: shutil.copyfile(folder / "model.onnx", path))
    copied = lambda _, path: shutil.copyfile(folder / "model_quantized.onnx", path)  # noqa: E731
    monkeypatch.setattr(exporting, "quantize", copied)


def test_validation_texts_that_are_not_there_are_named(
    exported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch, exported[0])
    run = shutil.copytree(finished_run(), tmp_path / "run")
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("texts.tsv", "gone.tsv"))
    said = minilm("export", run, tmp_path / "out", "--onnx", "--int8").stderr
    assert "what 8-bit integers cost was not measured (" in said and "gone.tsv" in said
    int8 = facts_in(tmp_path / "out").int8
    assert int8 is not None and int8.unmeasured == "no validation texts and scores of a run could be read"
    for file in (tmp_path / "out").glob("*.json"):
        assert str(tmp_path) not in file.read_text(encoding="utf-8")
    said = minilm("export", run / "model", tmp_path / "out2", "--onnx", "--int8").stderr
    assert f"not measured ({run}/model: has no model/validation.safetensors" in said


def test_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    said = refused("export", finished_run(), tmp_path / "a", "--int8")
    assert "--int8 is a form of the ONNX graph; add --onnx" in said
    said = refused("export", REFERENCE / "bert-lm", tmp_path / "a", "--onnx")
    assert "bert-lm: has no classification head, and --onnx saves classifiers; train one, or remove --onnx" in said
    assert "--linear cannot be combined" in refused("export", finished_run(), tmp_path / "a", "--linear", "--onnx")
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_an_adapter_is_merged(tmp_path: Path) -> None:
    model = load_model(REFERENCE / "bert-classify")
    add_lora(model, LoRAConfig(rank=2))
    for name, parameter in model.named_parameters():
        if "lora_b" in name:
            torch.nn.init.normal_(parameter)
    tokenizer = load_tokenizer(REFERENCE / "bert-classify")
    save_adapter(model, tmp_path / "adapter", base=str(REFERENCE / "bert-classify"), tokenizer=tokenizer)
    assert minilm("export", tmp_path / "adapter", tmp_path / "out", "--onnx").exit_code == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    batch = Batch(torch.tensor([[5, 6, 7]]))
    graph = open_graph(tmp_path / "out" / "model.onnx")
    with torch.no_grad():
        torch.testing.assert_close(graph(batch), model(batch), rtol=1e-4, atol=1e-5)
