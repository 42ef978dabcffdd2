"""A Gemma 3 that reads images too: its text model is taken out of it, and its adapters are those of the whole."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.configs import text_config
from minilm.checkpoints.files import read_tensors, write_json, write_tensors
from minilm.checkpoints.models import card_of, load_model, save_model
from minilm.checkpoints.opening import load_model as open_any
from minilm.errors import UserError
from minilm.finetuning.lora import LoRAConfig, add_lora
from minilm.textfiles import read_json

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
CLASSES = {
    "encode": "Gemma3Model",
    "classify": "Gemma3ForSequenceClassification",
    "lm": "Gemma3ForConditionalGeneration",
}
IDS, MASK = torch.randint(4, 50, (2, 9), generator=torch.Generator().manual_seed(0)), torch.ones(2, 9)
MASK[1, 5:] = 0


def saved(task: str, folder: Path, **changes: Any) -> Any:
    """A small one with random weights, and its folder."""
    text = {
        "vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "head_dim": 8,
        "num_key_value_heads": 1, "intermediate_size": 20, "sliding_window": 3, "sliding_window_pattern": 3,
    }  # fmt: skip
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 8, "image_size": 16, "patch_size": 4,
    }  # fmt: skip
    torch.manual_seed(1)
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=60, **changes
    )
    model = getattr(transformers, CLASSES[task])(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def run(model: Any) -> torch.Tensor:
    output = model(input_ids=IDS * MASK.long(), attention_mask=MASK.long())
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


def assert_equal(ours: Any, theirs: torch.Tensor) -> None:
    with torch.no_grad():
        got = ours(IDS * MASK.long(), MASK.bool())
    real = MASK.bool() if got.dim() == 3 else ...
    torch.testing.assert_close(got[real], theirs[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spelling", ["language_model.model.", "model.language_model."])
@pytest.mark.parametrize("task", CLASSES)
def test_its_text_model_opens_and_is_saved_alone(
    task: str, spelling: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = saved(task, tmp_path / "whole")
    tensors = read_tensors(tmp_path / "whole" / "model.safetensors")
    tensors = {name.replace("language_model.model.", spelling): tensor.clone() for name, tensor in tensors.items()}
    write_tensors(tmp_path / "whole" / "model.safetensors", tensors.items())
    with caplog.at_level(logging.WARNING, logger="minilm"):
        ours = load_model(tmp_path / "whole")
    assert "only the text model (gemma3_text) of this gemma3 model is loaded" in caplog.text
    assert "ignored" not in caplog.text and card_of(ours).task == task
    assert_equal(ours, run(theirs))
    save_model(ours, tmp_path / "alone")
    alone = read_json(tmp_path / "alone" / "config.json")
    assert alone["model_type"] == "gemma3_text" and "vision_config" not in alone and "text_config" not in alone
    there = getattr(transformers, alone["architectures"][0])
    model, loading = there.from_pretrained(tmp_path / "alone", output_loading_info=True)
    assert not any(loading.values())
    torch.testing.assert_close(run(model.eval()), run(theirs), rtol=1e-5, atol=1e-5)
    again = load_model(tmp_path / "alone")
    assert_equal(again, run(theirs))
    assert not card_of(again).nested


def test_an_untied_language_head_is_read(tmp_path: Path) -> None:
    theirs = saved("lm", tmp_path, tie_word_embeddings=False)
    assert_equal(load_model(tmp_path), run(theirs))


@pytest.mark.parametrize("task", CLASSES)
def test_its_adapters_are_those_of_the_whole_model(task: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    theirs = saved(task, tmp_path / "base")
    ours = load_model(tmp_path / "base")
    add_lora(ours, LoRAConfig(rank=2, targets=("query", "down")))
    for parameter in ours.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(ours, tmp_path / "adapter")
    there = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    assert_equal(ours, run(there))
    assert_equal(open_any(tmp_path / "adapter"), run(there))


def test_one_that_would_read_both_ways_is_refused(tmp_path: Path) -> None:
    """There the flag halves the window and leaves attention causal; in the text model alone it does what it says."""
    saved("encode", tmp_path)
    config = read_json(tmp_path / "config.json")
    config["text_config"]["use_bidirectional_attention"] = True
    write_json(tmp_path / "config.json", config)
    with pytest.raises(UserError, match=r"config.json: text_config.use_bidirectional_attention has no effect in a gem"):
        load_model(tmp_path)


def test_one_without_the_config_of_its_text_model_is_refused() -> None:
    with pytest.raises(UserError, match=r'here: "text_config" must be a JSON object'):
        text_config({"model_type": "gemma3", "text_config": 5}, "here")
    assert text_config({"model_type": "bert", "text_config": 5}, "here") is None
