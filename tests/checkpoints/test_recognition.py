"""A config.json without model_type: the tensors tell the family, or it is refused, and never read as another."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from minilm.checkpoints.contents import read_contents
from minilm.checkpoints.files import read_tensors, write_json, write_tensors
from minilm.checkpoints.models import card_of, load_model, save_model
from minilm.errors import UserError
from minilm.textfiles import read_json

REFERENCES = Path(__file__).parent.parent / "reference"
CASES = sorted(path.parent.name for path in REFERENCES.glob("*/config.json"))


def without(folder: Path, case: str, *keys: str, **changes: Any) -> Path:
    """A reference without some keys of its config.json."""
    shutil.copytree(REFERENCES / case, folder, dirs_exist_ok=True)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {k: v for k, v in config.items() if k not in keys} | changes)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_the_class_tells_the_family(case: str, tmp_path: Path) -> None:
    contents = read_contents(without(tmp_path, case, "model_type"))
    assert contents.model_type == read_json(REFERENCES / case / "config.json")["model_type"]


@pytest.mark.parametrize("case", CASES)
def test_the_tensors_tell_the_family_or_it_is_refused(case: str, tmp_path: Path) -> None:
    folder, original = without(tmp_path, case, "model_type", "architectures"), read_contents(REFERENCES / case)
    try:
        contents = read_contents(folder)
    except UserError as error:
        assert "names no model_type, and its tensors fit" in str(error) and original.model_type in str(error)
        return
    assert contents.config == original.config and contents.architecture.model is original.architecture.model


@pytest.mark.parametrize(
    "case", ["albert-lm", "bart-lm", "bert-lm", "distilbert-lm", "electra-lm", "gpt2", "modernbert"]
)
def test_most_families_are_told_by_their_tensors_alone(case: str, tmp_path: Path) -> None:
    contents = read_contents(without(tmp_path, case, "model_type", "architectures"))
    assert contents.model_type == read_json(REFERENCES / case / "config.json")["model_type"]


def test_bert_tiny_opens_and_is_saved_as_what_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its config.json has nothing but sizes, and its tensors have the prefix of BERT's classes."""
    sizes = ("hidden_size", "hidden_act", "vocab_size", "num_attention_heads", "type_vocab_size", "num_hidden_layers",
             "max_position_embeddings", "intermediate_size")  # fmt: skip
    folder = without(tmp_path / "tiny", "bert-lm")
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {key: config[key] for key in sizes})
    with caplog.at_level(logging.WARNING, logger="minilm"):
        model, expected = load_model(folder), load_model(REFERENCES / "bert-lm", "encode")
    assert "config.json names no model_type; by its tensors, it is bert" in caplog.text
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(model(ids), expected(ids))
    save_model(model, tmp_path / "saved")
    assert read_json(tmp_path / "saved" / "config.json")["model_type"] == card_of(model).model_type == "bert"


def test_bert_and_roberta_without_a_prefix_or_a_head_look_alike_and_are_refused(tmp_path: Path) -> None:
    folder = without(tmp_path, "roberta-classify", "model_type", "architectures")
    tensors = read_tensors(folder / "model.safetensors")
    backbone = {name.removeprefix("roberta."): t.clone() for name, t in tensors.items() if name.startswith("roberta.")}
    write_tensors(folder / "model.safetensors", backbone)
    with pytest.raises(UserError, match=r'fit bert and .*roberta.* equally well; add one, such as'):
        read_contents(folder)


def test_tensors_of_no_family_are_refused(tmp_path: Path) -> None:
    folder = without(tmp_path, "bert", "model_type", "architectures")
    write_tensors(folder / "model.safetensors", {"weight": torch.zeros(2)})
    with pytest.raises(UserError, match="names no model_type, and its tensors fit no supported family"):
        read_contents(folder)
