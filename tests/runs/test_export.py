"""What `minilm export` writes: a folder in which other libraries find what they can use, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers as hf

from minilm.checkpoints.adapter_configs import read_adapter_config
from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.adapters import base_of
from minilm.checkpoints.models import card_of, load_model, save_model
from minilm.data.tokenization import load_tokenizer
from minilm.evaluation.predictor import Classifier
from minilm.finetuning.lora import LoRAConfig, adapted_layers, add_lora
from minilm.model_files import holds_adapter
from minilm.models.heads import mlp_head
from tests.hub_server import Hub, Repo, files
from tests.tiny import minilm

REFERENCE = Path(__file__).parents[1] / "reference"
PUBLISHED = ("id2label", "label2id", "num_labels", "problem_type")


def with_own_head(folder: Path) -> Path:
    """A classifier of several labels a text, with our head on a checkpoint that was another classifier."""
    head = mlp_head(24, pooling="cls")
    model = load_model(REFERENCE / "bert-classify", "classify", labels=["red", "blue"], head=head)
    card_of(model).published["problem_type"] = "multi_label_classification"
    return save_model(model, folder, tokenizer=load_tokenizer(REFERENCE / "bert-classify"))


def test_with_our_own_head_the_folder_is_a_backbone_without_labels_and_the_terminal_says_so(tmp_path: Path) -> None:
    source = with_own_head(tmp_path / "own")
    result = minilm("export", source, tmp_path / "out")
    assert result.exit_code == 0 and result.stdout == f"{tmp_path / 'out'}: written\n"
    assert "other libraries cannot use it: for them this is a BertModel without labels" in result.stderr
    assert "model.head.kind=family can be used anywhere" in result.stderr
    published = json.loads((tmp_path / "out" / "config.json").read_text())
    assert published["architectures"] == ["BertModel"] and not published.keys() & set(PUBLISHED)
    theirs, info = hf.AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and type(theirs).__name__ == "BertModel"
    assert set(theirs.config.id2label.values()).isdisjoint({"red", "blue"})
    ours, before = Classifier.load(tmp_path / "out", "cpu"), Classifier.load(source, "cpu")
    assert ours.labels == ["red", "blue"] and ours.multi_label
    assert ours.predict(["a text"]) == before.predict(["a text"])


@pytest.mark.parametrize("task", ["encode", "lm"])
def test_a_checkpoint_without_a_classifier_keeps_no_labels_of_one(tmp_path: Path, task: str) -> None:
    save_model(load_model(REFERENCE / "bert-classify", task), tmp_path)
    assert not json.loads((tmp_path / "config.json").read_text()).keys() & set(PUBLISHED)


def test_with_the_familys_head_the_folder_is_a_classifier_and_nothing_is_said(tmp_path: Path) -> None:
    result = minilm("export", REFERENCE / "bert-classify", tmp_path / "out")
    assert result.exit_code == 0 and "other libraries" not in result.output
    published = json.loads((tmp_path / "out" / "config.json").read_text())
    assert published["architectures"] == ["BertForSequenceClassification"] and "id2label" in published


def test_the_folder_from_which_a_published_model_was_loaded_is_left_out(tmp_path: Path) -> None:
    source = shutil.copytree(REFERENCE / "bert-classify", tmp_path / "source")
    published = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(published | {"_name_or_path": "/home/me/secret"}))
    assert minilm("export", source, tmp_path / "out").exit_code == 0
    assert "secret" not in "".join(file.read_text() for file in (tmp_path / "out").glob("*.json"))


@pytest.mark.parametrize("place", ["the Hub", "weights", "a folder"])
def test_an_adapter_of_any_place_stays_an_adapter_of_its_bases_revision(
    place: str, playing: Hub, tmp_path: Path
) -> None:
    base = save_model(load_model(REFERENCE / "bert-classify", dtype=torch.bfloat16), tmp_path / "base")
    playing.repos["them/base"] = Repo(files(base), revisions=("main", "v1"))
    model = load_model(base, dtype=torch.float32)
    add_lora(model, LoRAConfig(rank=2))
    tokenizer = load_tokenizer(REFERENCE / "bert-classify")
    here = {"the Hub": "made", "weights": "weights/me/adapter", "a folder": "me/adapter"}[place]
    adapter = save_adapter(model, tmp_path / here, base="them/base", revision="v1", tokenizer=tokenizer)
    if place == "the Hub":
        playing.repos["me/adapter"] = Repo(files(adapter))
    assert minilm("export", "me/adapter", "alone").exit_code == 0
    assert holds_adapter(Path("alone")) and not Path("alone/model.safetensors").exists()
    assert base_of("alone") == "them/base" and read_adapter_config("alone").revision == "v1"
    assert minilm("export", "me/adapter", "whole", "--merge").exit_code == 0
    whole = load_model("whole")
    assert next(whole.parameters()).dtype == torch.float32 and not adapted_layers(whole)
