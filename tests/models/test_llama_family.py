"""Qwen3, SmolLM3 and Phi-3: their published sizes, what each has of its own, and what their configs may say."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from minilm.checkpoints.configs import read_config, write_config
from minilm.checkpoints.models import load_model
from minilm.errors import UserError
from minilm.models import build_model, without_weights
from minilm.models.batch import Batch
from minilm.models.rotary import Rotary, rotary_tables
from tests.families import small_config, small_model

# Configurations of published checkpoints, from memory.
QWEN3: dict[str, Any] = {
    "model_type": "qwen3", "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02,
    "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28, "num_attention_heads": 16,
    "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-6, "rope_scaling": None,
    "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True, "use_cache": True,
    "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
DEEP = {"num_hidden_layers": 36, "max_window_layers": 36, "num_attention_heads": 32}
SMOLLM3: dict[str, Any] = {
    "model_type": "smollm3", "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": None,
    "eos_token_id": 128012, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
    "intermediate_size": 11008, "layer_types": ["full_attention"] * 36, "max_position_embeddings": 65536,
    "max_window_layers": 28, "mlp_bias": False, "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0] * 9,
    "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 4, "pad_token_id": 128004,
    "pretraining_tp": 2, "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 5000000.0, "sliding_window": None,
    "use_cache": False, "use_sliding_window": False, "vocab_size": 128256,
}  # fmt: skip
PHI3: dict[str, Any] = {
    "model_type": "phi3", "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1, "embd_pdrop": 0.0,
    "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 3072, "initializer_range": 0.02,
    "intermediate_size": 8192, "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 32, "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-5, "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 2047,
    "tie_word_embeddings": False, "use_cache": True, "vocab_size": 32064,
}  # fmt: skip
# Of the factors, the first and the last are those of the checkpoint; the others lie between them.
SHORT, LONG = [1.0 + 2.0 * j / 47 for j in range(48)], [1.08 + 63.76 * j / 47 for j in range(48)]
STRETCHED = {"type": "longrope", "short_factor": SHORT, "long_factor": LONG}
PHI35 = {**PHI3, "max_position_embeddings": 131072, "rope_scaling": STRETCHED, "sliding_window": 262144}
PHI4_MINI = {
    **PHI35, "num_attention_heads": 24, "num_key_value_heads": 8, "partial_rotary_factor": 0.75, "vocab_size": 200064,
    "tie_word_embeddings": True, "pad_token_id": 199999, "bos_token_id": 199999, "eos_token_id": 199999,
}  # fmt: skip
PHI4 = {
    **PHI3, "hidden_size": 5120, "intermediate_size": 17920, "num_hidden_layers": 40, "num_attention_heads": 40,
    "num_key_value_heads": 10, "max_position_embeddings": 16384, "original_max_position_embeddings": 16384,
    "rope_theta": 250000, "sliding_window": None, "vocab_size": 100352, "pad_token_id": 100349,
}  # fmt: skip
PUBLISHED: dict[str, tuple[str, dict[str, Any], int]] = {  # its class, its configuration, its parameters
    "Qwen/Qwen3-0.6B": ("Qwen3ForCausalLM", QWEN3, 596_049_920),
    "Qwen/Qwen3-1.7B": (
        "Qwen3ForCausalLM", {**QWEN3, "hidden_size": 2048, "intermediate_size": 6144}, 1_720_574_976
    ),
    "Qwen/Qwen3-4B": (
        "Qwen3ForCausalLM", {**QWEN3, **DEEP, "hidden_size": 2560, "intermediate_size": 9728}, 4_022_468_096
    ),
    "Qwen/Qwen3-8B": (
        "Qwen3ForCausalLM",
        {**QWEN3, **DEEP, "hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": False},
        8_190_735_360,
    ),
    "Qwen/Qwen3-Embedding-0.6B": (
        "Qwen3ForCausalLM", {**QWEN3, "max_position_embeddings": 32768, "vocab_size": 151669}, 595_776_512
    ),
    "HuggingFaceTB/SmolLM3-3B": ("SmolLM3ForCausalLM", SMOLLM3, 3_075_098_624),
    "microsoft/Phi-3-mini-4k-instruct": ("Phi3ForCausalLM", PHI3, 3_821_079_552),
    "microsoft/Phi-3.5-mini-instruct": ("Phi3ForCausalLM", PHI35, 3_821_079_552),
    "microsoft/Phi-4-mini-instruct": ("Phi3ForCausalLM", PHI4_MINI, 3_836_021_760),
    "microsoft/phi-4": ("Phi3ForCausalLM", PHI4, 14_659_507_200),
}  # fmt: skip


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_checkpoint_has_the_number_of_parameters_that_it_has_there(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    kind, published, parameters = PUBLISHED[name]
    with without_weights():
        ours = build_model(published["model_type"], read_config(published), "lm")
    config = transformers.AutoConfig.for_model(**deepcopy(published))
    with torch.device("meta"):
        theirs = getattr(transformers, kind)(config)
    theirs.tie_weights()
    assert count(ours) == count(theirs) == parameters


# --- Qwen3 ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_no_length_of_queries_and_keys_changes_what_qwen3_gives() -> None:
    model: Any = small_model("qwen3", "encode", norm_eps=1e-12)
    ids = torch.randint(4, 50, (2, 7))
    before = model(ids)
    for layer in model.layers:
        layer.attention.query.weight *= 3
        layer.attention.key.weight *= 0.2
    torch.testing.assert_close(model(ids), before, rtol=1e-4, atol=1e-5)


def test_qwen3_has_its_own_defaults() -> None:
    config = read_config({"model_type": "qwen3"})
    assert (config.vocab_size, config.head_width, config.kv_heads, config.head_norms) == (151936, 128, 32, True)
    assert not config.attention_bias and not config.output_bias and not config.window
    assert read_config({"model_type": "qwen3", "attention_bias": True}).output_bias


# --- SmolLM3 --------------------------------------------------------------------------------------------------------


def test_smollm3_leaves_every_fourth_layer_without_positions() -> None:
    config = read_config({"model_type": "smollm3", "num_hidden_layers": 9})
    assert config.unplaced_layers == (3, 7)
    assert (config.rotary.base, config.tied, config.pad_token) == (2_000_000.0, True, 128004)
    listed = read_config({"model_type": "smollm3", "num_hidden_layers": 3, "no_rope_layers": [0, 1, 0, 0]})
    assert listed.unplaced_layers == (0, 2)


def test_the_windows_of_smollm3_are_in_the_layers_without_positions() -> None:
    published = {"model_type": "smollm3", "num_hidden_layers": 4, "no_rope_layer_interval": 2, "sliding_window": 5}
    assert read_config(published).window == 0
    config = read_config({**published, "use_sliding_window": True})
    assert (config.window, config.full_layers) == (5, (0, 2))


@torch.no_grad()
def test_a_layer_without_positions_does_not_know_the_order_of_what_is_on_its_left() -> None:
    model: Any = small_model("smollm3", "encode", depth=1, unplaced_layers=(0,))
    ids = torch.randint(4, 50, (1, 7))
    other = ids[:, [3, 1, 0, 5, 4, 2, 6]]
    torch.testing.assert_close(model(ids)[:, -1], model(other)[:, -1], rtol=1e-5, atol=1e-5)
    model = small_model("smollm3", "encode", depth=1, unplaced_layers=())
    assert (model(ids)[:, -1] - model(other)[:, -1]).abs().max() > 0.01


# --- Phi-3 ----------------------------------------------------------------------------------------------------------

LONGROPE = Rotary("longrope", trained=8, short=(1.0, 1.5, 2.0, 2.5), long=(2.0, 4.0, 6.0, 8.0))


@pytest.mark.parametrize("length", [8, 9])
def test_longrope_divides_each_pairs_speed_by_its_factor_for_short_or_for_long_texts(length: int) -> None:
    cos, _ = rotary_tables(LONGROPE, 8, 32, torch.arange(length)[None], torch.zeros(1))
    for j, factor in enumerate(LONGROPE.short if length <= 8 else LONGROPE.long):
        sharper = (1 + torch.tensor(4.0).log() / torch.tensor(8.0).log()).sqrt()
        expected = sharper * torch.cos(torch.tensor(10000 ** (-2 * j / 8) / factor * (length - 1)))
        torch.testing.assert_close(cos[0, 0, -1, j], expected)


@pytest.mark.parametrize("kind", ["longrope", "yarn"])
@pytest.mark.parametrize("more", [{}, {"factor": 3.0}, {"attention_factor": 1.4}])
def test_the_tables_of_longrope_equal_the_reference(kind: str, more: dict[str, float]) -> None:
    transformers = pytest.importorskip("transformers")
    reference = pytest.importorskip("transformers.models.phi3.modeling_phi3")
    table = {"type": kind, "short_factor": list(LONGROPE.short), "long_factor": list(LONGROPE.long), **more}
    published = {
        "vocab_size": 50, "hidden_size": 24, "num_attention_heads": 3, "rope_scaling": table, "pad_token_id": 3,
        "max_position_embeddings": 64, "original_max_position_embeddings": 16,
    }  # fmt: skip
    config = read_config({"model_type": "phi3", **published})
    assert config == read_config({"model_type": "phi3", **published, "rope_scaling": {**table, "type": "su"}})
    theirs = reference.Phi3RotaryEmbedding(transformers.Phi3Config(**deepcopy(published)))
    for length in (16, 17, 60, 3):
        positions = torch.arange(length)[None]
        cos, sin = rotary_tables(config.rotary, 8, config.context, positions, torch.zeros(1))
        there = theirs(torch.zeros(1), positions)
        torch.testing.assert_close(cos[:, 0], there[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(sin[:, 0, :, 4:], there[1][:, :, 4:], rtol=0, atol=1e-6)


def test_a_model_with_longrope_reads_and_writes_up_to_the_longest_text_before() -> None:
    """Beyond it the cached keys would be turned by other angles, and a text's batch would change its vectors."""
    config = small_config("phi3", head_width=8, rotary=replace(LONGROPE, trained=16))
    with without_weights():
        assert build_model("phi3", config).context == 16
        assert build_model("phi3", small_config("phi3")).context == small_config("phi3").context


def test_the_fused_matrices_of_phi3_hold_queries_keys_and_values_in_a_row(tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    settings = {"vocab_size": 50, "hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
    settings |= {"num_hidden_layers": 1, "intermediate_size": 10, "pad_token_id": 0}
    theirs = transformers.Phi3Model(transformers.Phi3Config(**settings))
    theirs.save_pretrained(tmp_path)
    ours: Any = load_model(tmp_path, "encode").layers[0]  # type: ignore[index, union-attr]
    there = theirs.layers[0]
    parts = (ours.attention.query, ours.attention.key, ours.attention.value)
    assert [len(part.weight) for part in parts] == [24, 12, 12]
    assert torch.equal(torch.cat([part.weight for part in parts]), there.self_attn.qkv_proj.weight)
    assert torch.equal(torch.cat([ours.mlp.gate.weight, ours.mlp.up.weight]), there.mlp.gate_up_proj.weight)


# --- Settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("qwen3", {}),
        ("qwen3", {"attention_bias": True, "output_bias": True, "window": 0, "full_layers": ()}),
        ("qwen3", {"rotary": Rotary("yarn", factor=4.0, trained=64)}),
        ("smollm3", {"attention_bias": True, "output_bias": True, "mlp_bias": True, "tied": True}),
        ("smollm3", {"window": 4, "full_layers": (0,), "unplaced_layers": ()}),
        ("phi3", {"dropout": 0.1, "window": 0}),
        ("phi3", {"head_width": 8, "rotary": LONGROPE}),
        ("phi3", {"head_width": 8, "rotary": Rotary(partial=0.5), "pad_token": 3}),
    ],
)
def test_a_config_comes_back_as_it_was_written(model_type: str, changes: dict[str, Any]) -> None:
    config = small_config(model_type, **changes)
    published = write_config(model_type, config)
    assert "minilm" not in published and read_config(published) == config


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("llama", {"head_norms": True}, "head_norms = False"),
        ("mistral", {"unplaced_layers": (1,)}, r"unplaced_layers = \(\)"),
        ("qwen2", {"dropout": 0.1}, "dropout = 0.0"),
        ("qwen3", {"head_norms": False}, "head_norms = True"),
        ("qwen3", {"mlp_bias": True}, "mlp_bias = False"),
        ("smollm3", {"head_norms": True}, "head_norms = False"),
        ("phi3", {"attention_bias": True}, "attention_bias = False"),
        ("phi3", {"rotary": Rotary("linear", factor=2.0)}, '"longrope" or none, not "linear"'),
    ],
)
def test_what_a_published_class_cannot_say_is_refused(model_type: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_config(model_type, small_config(model_type, **changes))


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"model_type": "qwen3", "layer_types": ["full_attention"]}, "layer_types must name 32 layers, got 1"),
        ({"model_type": "qwen3", "layer_types": ["chunked_attention"] * 32}, "chunked_attention is not supported"),
        ({"model_type": "qwen3", "layer_types": ["sliding_attention"] * 32}, "sliding_window gives no window"),
        ({"model_type": "qwen2", "layer_types": ["sliding_attention"] * 32}, "sliding_window gives no window"),
        ({"model_type": "smollm3", "no_rope_layers": [1, 0]}, "a number for each of 36 layers"),
        ({"model_type": "smollm3", "no_rope_layer_interval": 0}, "no_rope_layer_interval must be above 0"),
        ({"model_type": "phi3", "rope_scaling": {"type": "linear", "factor": 2.0}}, 'not "linear"'),
        ({"model_type": "phi3", "rope_scaling": {"type": "su"}}, "need short_factor"),
        (
            {"model_type": "phi3", "rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [1.0]}},
            "short_factor and long_factor must have 48 numbers, one per pair; got 1 and 1",
        ),
        (
            {"model_type": "phi3", "rope_scaling": {"type": "su", "short_factor": [0] * 48, "long_factor": [1] * 48}},
            "numbers above 0 as short factors",
        ),
    ],
)
def test_a_setting_that_is_not_supported_is_refused_by_name(published: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_config(published)


@pytest.mark.usefixtures("torch_dropout")
def test_layers_are_dropped_where_transformers_drops_them(tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Phi3Config(
        vocab_size=50, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        resid_pdrop=0.3, attention_dropout=0.2, pad_token_id=0,
    )  # fmt: skip
    theirs = transformers.Phi3Model(config).train()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path, "encode").train()
    ids = torch.randint(4, 50, (2, 9))
    torch.manual_seed(2)
    y = theirs(input_ids=ids).last_hidden_state
    torch.manual_seed(2)
    torch.testing.assert_close(ours(Batch(ids)), y, atol=1e-5, rtol=1e-5)
