"""What we save, ``transformers`` opens, with the same numbers; and it comes back bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minilm.checkpoints.files import read_folder, read_tensors, write_json, write_tensors
from minilm.checkpoints.models import card_of, load_model, new_model, save_model
from minilm.checkpoints.names import plain_name
from minilm.models import ARCHITECTURES
from minilm.models.batch import Batch
from minilm.models.gpt2 import GPT2Config
from minilm.models.heads import mlp_head
from minilm.textfiles import read_json
from tests.families import small_config

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

REFERENCES = Path(__file__).parent.parent / "reference"
CASES = sorted(path.parent.name for path in REFERENCES.glob("*/config.json"))
ONE_OF_EACH = ["gpt2", "llama", "mistral-classify", "qwen2-classify", "bert", "roberta-classify", "xlm-roberta-lm",
               "distilbert-lm", "albert-classify", "bart-lm", "deberta-v2-classify", "electra-classify",
               "modernbert-lm", "mpnet", "t5-lm", "phi3-classify", "gemma2-classify", "gemma3_text-lm"]  # fmt: skip


def batch_of(case: str) -> Batch:
    held = read_tensors(REFERENCES / case / "expected.safetensors")
    mask = torch.arange(held["ids"].shape[1]) < held["lengths"][:, None]
    return Batch(held["ids"], mask, held.get("segments"), decoder_ids=held.get("decoder_ids"))


def open_there(folder: Path, kind: str = "") -> Any:
    """The folder in ``transformers``, which must miss nothing and find nothing that it does not know."""
    opened = getattr(transformers, kind or read_json(folder / "config.json")["architectures"][0])
    model, told = opened.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert {key: value for key, value in told.items() if value} == {}
    return model.eval()


@torch.no_grad()
def run_there(model: Any, batch: Batch) -> Tensor:
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long()}
    if batch.segments is not None:
        inputs["token_type_ids"] = batch.segments
    if batch.decoder_ids is not None and hasattr(model, "lm_head"):
        inputs["decoder_input_ids"] = batch.decoder_ids
    output = model(**inputs)
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


def assert_same_numbers(ours: Any, theirs: Any, batch: Batch) -> None:
    with torch.no_grad():
        got, wanted = ours(batch), run_there(theirs, batch)
    real = batch.mask if got.shape[:2] == batch.ids.shape else ...
    torch.testing.assert_close(got[real], wanted[real], rtol=1e-5, atol=1e-5)


def assert_same_tensors(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = dict(one.named_parameters()), dict(other.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(parameter, theirs[name]) for name, parameter in ours.items())
    assert one.config == other.config


@pytest.mark.parametrize("case", CASES)
def test_a_model_with_its_familys_head_goes_there_and_comes_back(case: str, tmp_path: Path) -> None:
    model = load_model(REFERENCES / case)
    save_model(model, tmp_path)
    assert_same_numbers(load_model(tmp_path, dtype=torch.float32), open_there(tmp_path), batch_of(case))
    assert_same_tensors(model, load_model(tmp_path))
    names = ARCHITECTURES[card_of(model).model_type].names
    before = {plain_name(name, names): entry for name, entry in read_folder(REFERENCES / case).items()}
    # Of an untied language head neither reads the second name of the bias: the decoder has its own.
    unread = set() if model.config.tied else {"cls.predictions.bias", "lm_head.bias"}
    for name, tensor in read_tensors(tmp_path / "model.safetensors").items():
        if (entry := before.get(plain_name(name, names))) is not None and name not in unread:
            assert torch.equal(tensor, read_tensors(entry.file)[entry.name]), name


@pytest.mark.parametrize("case", ["t5-lm", "t5-lm-flan", "t5-encoder", "t5-classify"])
def test_t5s_encoder_is_opened_by_its_own_class(case: str, tmp_path: Path) -> None:
    model = load_model(REFERENCES / case, "encode", dtype=torch.float32)
    save_model(model, tmp_path)
    assert_same_numbers(model, open_there(tmp_path, "T5EncoderModel"), batch_of(case))
    assert_same_tensors(model, load_model(tmp_path))


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_with_our_head_the_backbone_opens_there_and_the_whole_here(case: str, tmp_path: Path) -> None:
    head = mlp_head(24, hidden=7, norm=True, pooling="mean")
    model = load_model(REFERENCES / case, "classify", labels=["a", "b"], head=head, dtype=torch.float32)
    save_model(model, tmp_path)
    assert_same_tensors(model, load_model(tmp_path))
    if model.config.__class__.__name__ == "BertConfig" and not model.config.pooler:
        there = transformers.AutoModel.from_pretrained(tmp_path, add_pooling_layer=False)
    else:
        there = open_there(tmp_path, "AutoModel")
    backbone = load_model(tmp_path, "encode")
    if case == "t5-lm":
        there = there.get_encoder()
    assert_same_numbers(backbone, there, replace(batch_of(case), decoder_ids=None))  # a decoder reads the text


def test_gpt2_without_attention_biases_is_written_with_zero_ones(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = GPT2Config(vocab_size=64, context=32, width=24, depth=2, heads=3, attention_bias=False, activation="gelu")
    model = new_model("gpt2", config, "classify", labels=["a", "b", "c"]).eval()
    save_model(model, tmp_path)
    assert not read_tensors(tmp_path / "model.safetensors")["transformer.h.1.attn.c_attn.bias"].any()
    there = open_there(tmp_path)
    there.config.pad_token_id = 3
    assert_same_numbers(model, there, batch_of("gpt2"))
    back = load_model(tmp_path)
    assert back.layers[0].attention.query.bias is None
    assert_same_tensors(model, back)


@pytest.mark.parametrize("task", ["encode", "classify", "lm"])
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_model_from_scratch_goes_there_and_comes_back(model_type: str, task: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = small_config(model_type, vocab_size=64)
    model = new_model(model_type, config, task, labels=["a", "b", "c"]).eval()
    save_model(model, tmp_path)
    open_there(tmp_path)
    assert_same_tensors(model, load_model(tmp_path))


@pytest.mark.parametrize(
    ("tie", "scale", "stored"),
    [
        (True, None, "no head"),  # version 1.0, as published
        (True, None, "a copy"),
        (False, None, "its own head"),  # version 1.1 and Flan-T5
        (True, False, "no head"),  # as transformers 5 writes them, whether tied or not
        (True, False, "a copy"),
        (True, False, "its own head"),
        (True, True, "its own head"),
        (None, None, "no head"),
        (None, None, "its own head"),
        (False, None, "no head"),
        (False, True, "no head"),
    ],
)
def test_t5s_head_is_tied_and_scaled_as_there(
    tie: bool | None, scale: bool | None, stored: str, tmp_path: Path
) -> None:
    folder = tmp_path / "there"
    sizes = {"vocab_size": 64, "d_model": 24, "num_layers": 1, "num_heads": 3, "d_kv": 6, "d_ff": 32}
    torch.manual_seed(1)
    made = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0))
    made.save_pretrained(folder)
    said = {"tie_word_embeddings": tie, "scale_decoder_outputs": scale}
    config = {key: value for key, value in read_json(folder / "config.json").items() if key not in said}
    write_json(folder / "config.json", config | {key: value for key, value in said.items() if value is not None})
    if stored != "no head":
        tensors = read_tensors(folder / "model.safetensors")
        head = tensors["shared.weight"].clone() if stored == "a copy" else torch.randn(64, 24)
        write_tensors(folder / "model.safetensors", tensors | {"lm_head.weight": head})

    model, batch = load_model(folder), batch_of("t5-lm")
    assert model.config.tied == (stored != "its own head")
    assert_same_numbers(model, open_there(folder), batch)
    save_model(model, tmp_path / "back")
    assert_same_numbers(model, open_there(tmp_path / "back"), batch)
    assert_same_tensors(model, load_model(tmp_path / "back"))
