"""Whatever lies in a folder opens: a whole model, or an adapter with its base."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import minilm
from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.files import write_json
from minilm.checkpoints.models import card_of, load_model, save_model
from minilm.checkpoints.opening import holds_model
from minilm.devices import runtime
from minilm.errors import UserError
from minilm.evaluation.predictor import Classifier
from minilm.evaluation.reading import Reading
from minilm.finetuning.lora import LoRAConfig, add_lora, merge
from minilm.model_files import holds_adapter, weight_names
from minilm.models.heads import HeadConfig, mlp_head
from minilm.runs.describe import describe_model
from minilm.textfiles import read_json
from tests.data.tokenizer_folders import word_pieces

REFERENCES = Path(__file__).parent.parent / "reference"
IDS = torch.tensor([[5, 6, 7, 8]])
TEXTS = ["One two", "three", "four five SIX seven eight nine ten"]
READING = Reading(max_tokens=5, clean=["lower"], pairs=False, threshold=0.2)


def adapted(case: str = "bert", head: HeadConfig | None = None, **kwargs: Any) -> nn.Module:
    """A model with LoRA adapters and a new head, random numbers in all that trains."""
    torch.manual_seed(0)
    kwargs = {"task": "classify", "labels": ["bad", "good"], "head": head, "dtype": torch.float32, **kwargs}
    model = load_model(REFERENCES / case, **kwargs)
    add_lora(model, LoRAConfig(rank=2, alpha=4.0, targets=("query", "value")))
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter's."""
    return save_adapter(adapted(head=mlp_head(24)), tmp_path / "adapter")


def test_a_whole_model_and_an_adapter_open_alike(folder: Path, tmp_path: Path) -> None:
    model, whole = adapted(head=mlp_head(24)), tmp_path / "whole"
    save_model(load_model(REFERENCES / "bert", "classify", labels=["bad", "good"]), whole)
    assert [holds_model(place) for place in (folder, whole, tmp_path)] == [True, True, False]
    assert torch.equal(minilm.load_model(folder)(IDS), model(IDS))
    assert torch.equal(minilm.load_model(whole)(IDS), load_model(whole)(IDS))


@pytest.mark.parametrize("head", [None, mlp_head(24)])
def test_nothing_of_an_adapter_is_said_to_start_untrained(
    head: HeadConfig | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = save_adapter(adapted(head=head), tmp_path)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        minilm.load_model(place)
    assert caplog.records == []


def test_a_pooler_that_neither_base_nor_adapter_has_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = adapted("bert-lm")
    for parameter in model.pooler.parameters():
        parameter.requires_grad_(False)
    place = save_adapter(model, tmp_path)
    caplog.clear()
    minilm.load_model(place)
    assert [record.message for record in caplog.records] == [
        f"{REFERENCES / 'bert-lm'}: its pooler for this task (classify) starts untrained"
    ]


def test_an_adapters_own_task_labels_and_head_are_accepted_and_no_others(folder: Path) -> None:
    own: dict[str, Any] = {"task": "classify", "labels": ["bad", "good"], "head": mlp_head(24)}
    assert torch.equal(minilm.load_model(folder, **own)(IDS), minilm.load_model(folder)(IDS))
    others: list[tuple[dict[str, Any], str]] = [
        ({"task": "lm"}, 'is an adapter for the task "classify", and cannot be loaded for "lm"'),
        ({"labels": ["good", "bad"]}, r"this adapter already has labels \(bad, good\); remove labels"),
        ({"head": mlp_head(24, hidden=3)}, "this adapter already has a head; remove the argument head"),
    ]
    for other, message in others:
        with pytest.raises(UserError, match=f"adapter: {message}"):
            minilm.load_model(folder, **other)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("head", [None, mlp_head(24)])
@pytest.mark.parametrize("place", ["adapter", "run/model"])
def test_a_classifier_comes_back_from_its_adapter_bit_for_bit(
    head: HeadConfig | None, multi_label: bool, place: str, tmp_path: Path
) -> None:
    model, tokenizer = adapted(head=head), minilm.load_tokenizer(REFERENCES / "gpt2")
    kind = "multi" if multi_label else "single"
    card_of(model).published["problem_type"] = f"{kind}_label_classification"
    card_of(model).extra |= asdict(READING)
    before = Classifier(model, tokenizer, runtime("cpu", "float32"))
    save_adapter(model, tmp_path / place, tokenizer=tokenizer)
    after = Classifier.load(tmp_path / place.partition("/")[0], device="cpu")
    assert after.reading == before.reading == READING
    assert (after.labels, after.multi_label) == (["bad", "good"], multi_label)
    assert after.tokenizer.to_str() == tokenizer.to_str()
    assert after.predict(TEXTS) == before.predict(TEXTS)


def test_a_wrong_setting_is_named_with_the_adapters_file(folder: Path) -> None:
    config = read_json(folder / "adapter_config.json")
    config["minilm"]["threshold"] = "high"
    write_json(folder / "adapter_config.json", config)
    with pytest.raises(UserError, match=r"adapter/adapter_config.json: minilm.threshold must be"):
        Classifier.load(folder)


def test_the_tokenizer_is_the_adapters_or_else_the_bases(folder: Path, tmp_path: Path) -> None:
    model = minilm.load_model(folder)
    assert card_of(model).tokenizer == REFERENCES / "bert"
    own = minilm.load_tokenizer(REFERENCES / "gpt2")
    save_adapter(model, tmp_path / "own", tokenizer=own)
    again = minilm.load_model(tmp_path / "own")
    assert card_of(again).tokenizer == tmp_path / "own"
    save_adapter(again, tmp_path / "copy")
    save_adapter(again, tmp_path / "own")  # over itself
    merge(again)
    save_model(again, tmp_path / "merged")
    for place in ("own", "copy", "merged"):
        assert minilm.load_tokenizer(tmp_path / place).to_str() == own.to_str(), place


@pytest.mark.parametrize("parts", [False, True])
def test_an_adapters_tokenizer_is_copied_with_its_settings_also_if_it_is_in_parts(
    parts: bool, folder: Path, tmp_path: Path
) -> None:
    if parts:
        word_pieces(folder, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], lowercase=False)
    else:
        shutil.copy(REFERENCES / "gpt2" / "tokenizer.json", folder)
    options = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "truncation_side": "left"}
    write_json(folder / "tokenizer_config.json", options)
    model = minilm.load_model(folder)
    assert card_of(model).tokenizer == folder
    save_adapter(model, tmp_path / "copy")
    merge(model)
    save_model(model, tmp_path / "merged")
    tokens = minilm.load_tokenizer(folder).encode("Hot and cold").ids
    for place in (tmp_path / "copy", tmp_path / "merged"):
        again = minilm.load_tokenizer(place)
        assert again.encode("Hot and cold").ids == tokens and again.truncation["direction"] == "left"


def test_an_adapter_and_a_run_that_holds_one_are_described(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text(
        f'name = "run"\n[model]\nsource = "{REFERENCES / "bert"}"\n[data]\nsource = "texts.csv"\nmax_tokens = 16\n'
        "[lora]\nrank = 3\n[train]\nepochs = 1\nlr = 1e-3\n"
    )
    folder.rename(run / "model")
    for place in (run, run / "model"):
        assert "lora" in describe_model(str(place)).lower()


# --- The base, and what lies beside an adapter ---


def test_an_adapter_opens_on_the_base_that_is_named(folder: Path, tmp_path: Path) -> None:
    expected = minilm.load_model(folder)(IDS)
    moved = shutil.copytree(REFERENCES / "bert", tmp_path / "moved")
    for name in (None, "org/nowhere", str(tmp_path / "gone")):
        write_json(folder / "adapter_config.json", read_json(folder / "adapter_config.json") | {
            "base_model_name_or_path": name, "revision": "a-branch"
        })  # fmt: skip
        assert torch.equal(minilm.load_model(folder, base=moved)(IDS), expected)
    with pytest.raises(UserError, match=r"base model cannot be opened: .*gone.*; if it is elsewhere, name it: load"):
        minilm.load_model(folder)
    with pytest.raises(UserError, match="which has other weights than this model"):
        minilm.load_model(folder, base=REFERENCES / "bert-classify")
    with pytest.raises(UserError, match=r"its base model cannot be opened: .*nowhere"):
        minilm.load_model(folder, base=tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a whole model, not an adapter; remove the argument base"):
        minilm.load_model(moved, base=REFERENCES / "bert")


def test_the_bases_config_beside_an_adapter_is_not_taken_for_a_model(folder: Path) -> None:
    expected = minilm.load_model(folder)(IDS)
    shutil.copy(REFERENCES / "bert" / "config.json", folder)
    assert holds_adapter(folder) and weight_names(folder) == ["adapter_model.safetensors"]
    assert torch.equal(minilm.load_model(folder)(IDS), expected)
    shutil.copy(REFERENCES / "bert" / "model.safetensors", folder)  # a whole model, with an adapter beside it
    assert not holds_adapter(folder) and minilm.load_model(folder).card.task == "encode"
