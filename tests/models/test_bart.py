"""BART: its published sizes, its positions, generation with a cache, its settings, its untied form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minilm.checkpoints.configs import read_config, write_config
from minilm.checkpoints.files import read_json, read_tensors, write_json, write_tensors
from minilm.checkpoints.models import load_model, save_model
from minilm.checkpoints.names import is_ignored, places_of_theirs, plain_name, rows_of
from minilm.errors import UserError
from minilm.generation import generate
from minilm.models import ARCHITECTURES, build_model, without_weights
from minilm.models.bart import FIXED, BartConfig
from minilm.models.batch import Batch, Cache
from tests.families import mask_of, small_config, small_model

REFERENCE = Path(__file__).parents[1] / "reference"

# Configurations of published checkpoints, from memory.
LARGE = {
    "model_type": "bart", "activation_dropout": 0.1, "activation_function": "gelu", "add_bias_logits": False,
    "add_final_layer_norm": False, "attention_dropout": 0.1, "bos_token_id": 0, "classif_dropout": 0.1,
    "classifier_dropout": 0.0, "d_model": 1024, "decoder_attention_heads": 16, "decoder_ffn_dim": 4096,
    "decoder_layerdrop": 0.0, "decoder_layers": 12, "decoder_start_token_id": 2, "dropout": 0.1,
    "encoder_attention_heads": 16, "encoder_ffn_dim": 4096, "encoder_layerdrop": 0.0, "encoder_layers": 12,
    "eos_token_id": 2, "init_std": 0.02, "is_encoder_decoder": True, "max_position_embeddings": 1024,
    "normalize_before": False, "num_hidden_layers": 12, "pad_token_id": 1, "scale_embedding": False,
    "vocab_size": 50265,
}  # fmt: skip
BASE = {**LARGE, "d_model": 768, "num_hidden_layers": 6, "normalize_embedding": True} | {
    f"{stack}_{key}": value
    for stack in ("encoder", "decoder")
    for key, value in (("layers", 6), ("ffn_dim", 3072), ("attention_heads", 12))
}
PUBLISHED: dict[str, tuple[str, dict[str, Any], int]] = {  # its task, and how many parameters it has
    "facebook/bart-base": ("encode", BASE, 139_420_416),
    "facebook/bart-large": ("encode", LARGE, 406_291_456),
    "facebook/bart-large-cnn": ("lm", {**LARGE, "vocab_size": 50264}, 406_290_432),
    "facebook/bart-large-mnli": ("classify", LARGE, 407_344_131),
    "sshleifer/distilbart-cnn-12-6": ("lm", {**LARGE, "decoder_layers": 6, "vocab_size": 50264}, 305_510_400),
}


def draw_ids(seed: int, *shape: int) -> Tensor:
    return torch.randint(4, 50, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_number_of_parameters(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    task, published, parameters = PUBLISHED[name]
    with without_weights():
        ours = build_model("bart", read_config(published), task, classes=3)
    assert sum(p.numel() for p in ours.parameters()) == parameters
    with torch.device("meta"):
        kind = getattr(transformers, ARCHITECTURES["bart"].classes[task])
        theirs = kind(transformers.BartConfig(**{k: v for k, v in published.items() if k != "model_type"}))
    assert sum(p.numel() for p in theirs.parameters()) == parameters
    written = write_config("bart", read_config(published))
    assert "minilm" not in written and read_config(written) == read_config(published)


def test_tokens_begin_at_the_third_row_of_each_stacks_own_positions() -> None:
    model, ids = small_model("bart", "encode"), draw_ids(1, 1, 5)
    model(ids).square().sum().backward()
    for positions in (model.embeddings.encoder, model.embeddings.decoder):
        assert len(positions.position.weight) == model.context + 2
        used = positions.position.weight.grad.abs().sum(-1) > 0
        assert used.nonzero().flatten().tolist() == [2, 3, 4, 5, 6]


def test_the_decoder_reads_the_text_moved_right_if_it_is_given_nothing_else() -> None:
    model = small_model("bart", "encode")
    ids = torch.tensor([[0, 7, 8, 2, 1], [0, 9, 8, 7, 2]])
    read = torch.tensor([[2, 0, 7, 8, 2], [2, 0, 9, 8, 7]])
    with torch.no_grad():
        mask = mask_of([4, 5], 5)
        torch.testing.assert_close(model(ids, mask), model(ids, mask, decoder_ids=read))
    labels = torch.tensor([[7, 8, 2, -100]])
    assert model.shift_right(labels).tolist() == [[2, 7, 8, 2]]
    assert model.shift_right(torch.tensor([[7, -100, -100]])).tolist() == [[2, 7, 1]]


def test_generation_with_a_cache_equals_one_pass_and_reads_the_text_once() -> None:
    model, ids, written = small_model("bart", "lm"), draw_ids(1, 2, 6), draw_ids(2, 2, 7)
    mask, calls = mask_of([6, 3], 6), []
    for module in (model.encoder.layers[0], model.decoder.layers[0].cross_attention.key):
        module.register_forward_hook(lambda module, *_: calls.append(module))
    cache = Cache(length=9, positions=torch.empty(0))
    with torch.no_grad():
        steps = []
        for first, last in ((0, 3), (3, 4), (4, 7)):
            cache.positions = torch.arange(first, last).expand(2, -1)
            steps.append(model(Batch(ids, mask, decoder_ids=written[:, first:last], cache=cache)))
        assert len(calls) == 2
        torch.testing.assert_close(torch.cat(steps, dim=1), model(ids, mask, decoder_ids=written))


def test_what_is_written_has_a_context_of_its_own() -> None:
    model = small_model("bart", "lm", context=8)
    assert [len(text) for text in generate(model, [[5] * 8, [5]], 20)] == [7, 7]  # the start token is one of 8
    with pytest.raises(UserError, match="prompt 1 has 9 tokens; the model's context is 8"):
        generate(model, [[5] * 9], 1)


@pytest.mark.parametrize("key", FIXED)
def test_what_the_published_class_does_not_read_is_refused(key: str) -> None:
    other = 0.1 if "drop" in key else not FIXED[key]
    with pytest.raises(UserError, match=rf"config.json: {key} = {other} is not supported, only {FIXED[key]}"):
        read_config({**LARGE, key: other})
    assert read_config({**LARGE, key: FIXED[key]}) == read_config(LARGE)


def test_the_decoders_sizes_are_its_own_or_else_the_published_defaults_or_else_the_encoders() -> None:
    own = {"decoder_layers": 3, "decoder_attention_heads": 4, "decoder_ffn_dim": 30}
    config = read_config({**LARGE, **own})
    assert (config.decoder_depth, config.decoder_heads, config.decoder_mlp_width) == (3, 4, 30)
    absent = read_config({"model_type": "bart", "encoder_layers": 2, "encoder_ffn_dim": 30})
    assert (absent.decoder_depth, absent.decoder_heads, absent.decoder_mlp_width) == (12, 16, 4096)
    assert BartConfig(depth=2, heads=4, mlp_width=30).decoder_depth == 2
    with pytest.raises(UserError, match=r"multiple of decoder_heads \(5\)"):
        BartConfig(decoder_heads=5)


@pytest.mark.parametrize(
    "name",
    [
        "shared.weight", "model.encoder.embed_tokens.weight", "encoder.embed_positions.weight",
        "model.decoder.layernorm_embedding.bias", "model.decoder.layers.11.encoder_attn_layer_norm.weight",
        "encoder.layers.0.fc1.weight", "model.encoder.version", "classification_head.out_proj.bias", "lm_head.weight",
        "final_logits_bias",
    ],
)  # fmt: skip
def test_names_of_published_files_are_known(name: str) -> None:
    names, config = ARCHITECTURES["bart"].names, small_config("bart")
    rows = rows_of(names, config, "classify" if "classification" in name else "lm")
    plain = plain_name(name, names)
    assert is_ignored(plain, names) or len(places_of_theirs(plain, rows)) == 1


def test_a_language_heads_bias_must_be_zero(tmp_path: Path) -> None:
    tensors = read_tensors(REFERENCE / "bart-lm" / "model.safetensors")
    write_json(tmp_path / "config.json", read_json(REFERENCE / "bart-lm" / "config.json"))
    for bias, task in ((0.0, "lm"), (0.0, "encode"), (0.5, "lm")):
        write_tensors(tmp_path / "model.safetensors", tensors | {"final_logits_bias": torch.full((1, 64), bias)})
        if bias == 0:
            load_model(tmp_path, task)
        else:
            with pytest.raises(UserError, match="final_logits_bias is not zero"):
                load_model(tmp_path, task)


def test_an_untied_model_is_written_with_the_copies_that_the_published_class_looks_for(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = small_model("bart", "lm", tied=False)
    save_model(model, tmp_path)
    there, found = transformers.BartForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    ids, written = draw_ids(1, 2, 6), draw_ids(2, 2, 4)
    with torch.no_grad():
        expected = there.eval()(input_ids=ids, decoder_input_ids=written).logits
        torch.testing.assert_close(model(ids, decoder_ids=written), expected, atol=1e-4, rtol=1e-5)
        again = load_model(tmp_path)
        assert torch.equal(again(ids, decoder_ids=written), model(ids, decoder_ids=written))
    tensors = read_tensors(tmp_path / "model.safetensors")
    write_tensors(tmp_path / "model.safetensors", tensors | {"model.encoder.embed_tokens.weight": torch.ones(50, 24)})
    with pytest.raises(UserError, match="differs from"):
        load_model(tmp_path)


@pytest.mark.usefixtures("torch_dropout")
def test_training_draws_the_same_dropout_as_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    changes = {"dropout": 0.3, "attention_dropout": 0.2, "activation_dropout": 0.1, "classifier_dropout": 0.4}
    there = transformers.BartForSequenceClassification.from_pretrained(REFERENCE / "bart-classify", **changes).train()
    ours = load_model(REFERENCE / "bart-classify")
    published = {**read_json(REFERENCE / "bart-classify" / "config.json"), **changes}
    fresh = build_model("bart", read_config(published), "classify", classes=3)
    fresh.load_state_dict(ours.state_dict())
    fresh.train().head.query_position = lambda batch: None  # the last layer computes all positions, as theirs does
    ids = draw_ids(1, 2, 9)
    ids[:, -1] = 2
    torch.manual_seed(2)
    expected = there(input_ids=ids).logits
    torch.manual_seed(2)
    torch.testing.assert_close(fresh(ids), expected, atol=1e-5, rtol=1e-5)
    assert replace(ours.config, dropout=0.3, attention_dropout=0.2, mlp_dropout=0.1, head_dropout=0.4) == fresh.config
