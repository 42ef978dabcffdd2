"""Gemma 1 to 3 and EmbeddingGemma: published sizes, caps, norms, which layers see how far, what their configs say."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from minilm.checkpoints.configs import new_config, read_config, write_config
from minilm.checkpoints.models import load_model, new_model
from minilm.errors import UserError
from minilm.finetuning.freezing import freeze
from minilm.models import build_model, without_weights
from minilm.models.batch import Batch
from minilm.models.gemma import GemmaAttention, GemmaConfig, GemmaNorm
from minilm.models.rotary import Rotary
from tests.families import small_config, small_model

FULL, SLIDING = "full_attention", "sliding_attention"
# Configurations of published checkpoints, from memory.
COMMON: dict[str, Any] = {
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 2, "eos_token_id": 1, "head_dim": 256,
    "initializer_range": 0.02, "pad_token_id": 0, "rms_norm_eps": 1e-6, "use_cache": True,
}  # fmt: skip
GEMMA_2B = {
    **COMMON, "model_type": "gemma", "hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2048, "intermediate_size": 16384, "max_position_embeddings": 8192, "num_attention_heads": 8,
    "num_hidden_layers": 18, "num_key_value_heads": 1, "rope_scaling": None, "rope_theta": 10000.0,
    "vocab_size": 256000,
}  # fmt: skip
GEMMA2_2B = {
    **COMMON, "model_type": "gemma2", "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    "cache_implementation": "hybrid", "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2304, "intermediate_size": 9216, "max_position_embeddings": 8192, "num_attention_heads": 8,
    "num_hidden_layers": 26, "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "rope_theta": 10000.0,
    "sliding_window": 4096, "vocab_size": 256000,
}  # fmt: skip
GEMMA2_9B = {
    **GEMMA2_2B, "hidden_size": 3584, "intermediate_size": 14336, "num_attention_heads": 16, "num_hidden_layers": 42,
    "num_key_value_heads": 8,
}  # fmt: skip
GEMMA2_27B = {
    **GEMMA2_2B, "head_dim": 128, "hidden_size": 4608, "intermediate_size": 36864, "num_attention_heads": 32,
    "num_hidden_layers": 46, "num_key_value_heads": 16, "query_pre_attn_scalar": 144,
}  # fmt: skip
GEMMA3_1B = {
    **COMMON, "model_type": "gemma3_text", "attn_logit_softcapping": None, "cache_implementation": "hybrid",
    "final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
    "intermediate_size": 6912, "max_position_embeddings": 32768, "num_attention_heads": 4, "num_hidden_layers": 26,
    "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rope_local_base_freq": 10000, "rope_scaling": None,
    "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144,
}  # fmt: skip
GEMMA3_270M = {key: value for key, value in GEMMA3_1B.items() if not key.endswith(("pattern", "implementation"))} | {
    "_sliding_window_pattern": 6, "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
    "layer_types": ([SLIDING] * 5 + [FULL]) * 3, "use_bidirectional_attention": False,
}  # fmt: skip
EMBEDDING = GEMMA3_270M | {
    "hidden_size": 768, "intermediate_size": 1152, "num_attention_heads": 3, "num_hidden_layers": 24,
    "layer_types": ([SLIDING] * 5 + [FULL]) * 4, "max_position_embeddings": 2048, "use_bidirectional_attention": True,
}  # fmt: skip
PUBLISHED: dict[str, tuple[str, dict[str, Any], int]] = {  # its class, its configuration, its parameters
    "google/gemma-2b": ("GemmaForCausalLM", GEMMA_2B, 2_506_172_416),
    "google/gemma-2-2b": ("Gemma2ForCausalLM", GEMMA2_2B, 2_614_341_888),
    "google/gemma-2-9b": ("Gemma2ForCausalLM", GEMMA2_9B, 9_241_705_984),
    "google/gemma-2-27b": ("Gemma2ForCausalLM", GEMMA2_27B, 27_227_128_320),
    "google/gemma-3-270m": ("Gemma3ForCausalLM", GEMMA3_270M, 268_098_176),
    "google/gemma-3-1b-pt": ("Gemma3ForCausalLM", GEMMA3_1B, 999_885_952),
    "google/embeddinggemma-300m": ("Gemma3TextModel", EMBEDDING, 302_863_104),
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_checkpoint_has_the_number_of_parameters_that_it_has_there(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    kind, published, parameters = PUBLISHED[name]
    task = "encode" if kind.endswith("Model") else "lm"
    with without_weights():
        ours = build_model(published["model_type"], read_config(published), task)
    config = transformers.AutoConfig.for_model(**deepcopy(published))
    with torch.device("meta"):
        theirs = getattr(transformers, kind)(config)
    theirs.tie_weights()
    assert count(ours) == count(theirs) == parameters


# --- What a position sees -------------------------------------------------------------------------------------------


def reached(model: Any, layer: int, position: int, length: int = 12) -> list[int]:
    """The positions whose vectors change one layer later if this one's changes."""
    torch.manual_seed(0)
    batch = Batch(torch.randint(4, 50, (1, length)))
    state = model.embed(batch)
    before = model.run(state, batch, layer, layer + 1).x.clone()
    state.x[0, position] += torch.randn(state.x.shape[-1])
    after = model.run(state, batch, layer, layer + 1).x
    return (before != after).any(-1)[0].nonzero().flatten().tolist()


@torch.no_grad()
@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"])
def test_every_last_layer_of_a_group_sees_all_to_its_left_and_the_others_a_window(family: str) -> None:
    model = small_model(family, "encode", depth=4, window=3, global_every=2)
    for layer in (1, 3):
        assert reached(model, layer, 4) == list(range(4, 12))
    for layer in (0, 2):
        assert reached(model, layer, 4) == [4, 5, 6]


@torch.no_grad()
def test_one_that_reads_both_ways_sees_half_a_window_to_each_side() -> None:
    model = small_model("gemma3_text", "encode", depth=2, window=5, bidirectional=True)
    assert reached(model, 1, 6) == list(range(12))
    assert reached(model, 0, 6) == [4, 5, 6, 7, 8]
    assert reached(model, 0, 0) == [0, 1, 2]


def test_one_that_reads_both_ways_is_no_language_model() -> None:
    with pytest.raises(UserError, match=r"is bidirectional \(use_bidirectional_attention\), so it has no"):
        build_model("gemma3_text", small_config("gemma3_text", bidirectional=True), "lm")
    with pytest.raises(UserError, match=r"gemma3_text-bidirectional/config\.json: this Gemma is bidirectional"):
        load_model(Path(__file__).parents[1] / "reference" / "gemma3_text-bidirectional", "lm")


# --- The pieces -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_capped_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    config = GemmaConfig(width=12, heads=4, kv_heads=2, head_width=6, attention_scalar=9, attention_cap=0.7)
    attention = GemmaAttention(config)
    query, key, value = torch.randn(2, 4, 5, 6), torch.randn(2, 2, 5, 6), torch.randn(2, 2, 5, 6)
    y = attention.attend(query * 3, key, value, None)
    for head in range(4):
        scores = query[:, head] * 3 @ key[:, head // 2].mT / 3
        scores = 0.7 * torch.tanh(scores / 0.7)
        hidden = torch.ones(5, 5).triu(1).bool()
        expected = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value[:, head // 2]
        torch.testing.assert_close(y[:, head], expected)


@torch.no_grad()
def test_a_very_large_cap_is_none_and_caps_hold() -> None:
    torch.manual_seed(1)
    ids = torch.randint(4, 50, (2, 9))
    model: Any = small_model("gemma2", "lm", attention_cap=1e6, language_cap=0.0)
    uncapped = model(ids)
    for layer in model.layers:
        layer.attention.cap = 0.0
    torch.testing.assert_close(model(ids), uncapped, rtol=1e-3, atol=1e-3)
    capped = small_model("gemma2", "lm", attention_cap=0.0, language_cap=0.5)(ids)
    torch.testing.assert_close(capped, 0.5 * torch.tanh(uncapped / 0.5), rtol=1e-3, atol=1e-3)
    assert capped.abs().max() <= 0.5


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_a_norm_adds_its_weight_to_1_in_float32(stored: torch.dtype) -> None:
    norm = GemmaNorm(8, 1e-6).to(stored)
    assert not norm.weight.any()
    nn.init.normal_(norm.weight, std=0.2, generator=torch.Generator().manual_seed(1))
    x = (torch.randn(3, 8, generator=torch.Generator().manual_seed(0)) * 300).to(stored)
    wide = x.double()
    exact = (1 + norm.weight.double()) * wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    assert norm(x).dtype == stored
    assert torch.equal(norm(x), exact.to(stored)) or stored == torch.float32
    torch.testing.assert_close(norm(x).double(), exact, rtol=1e-2, atol=1e-6)


@torch.no_grad()
def test_the_factor_of_the_embeddings_is_rounded_as_in_training() -> None:
    config = GemmaConfig(vocab_size=5, width=3072, depth=1, heads=1, kv_heads=1, head_width=2, mlp_width=1)
    model = new_model("gemma2", config, "encode").bfloat16()
    ids = torch.arange(5)[None]
    assert torch.equal(model.embeddings(ids), model.token_embedding(ids) * 55.5)  # sqrt(3072) = 55.4256


def test_initial_weights_have_the_published_spread_and_plain_norms() -> None:
    torch.manual_seed(0)
    model: Any = new_model("gemma3_text", small_config("gemma3_text", width=128, mlp_width=256), "encode")
    layer = model.layers[0]
    assert layer.mlp.gate.weight.std().item() == pytest.approx(0.02, rel=0.05)
    norms = [module for module in model.modules() if isinstance(module, GemmaNorm)]
    assert len(norms) == 6 * 2 + 1 and not any(norm.weight.any() for norm in norms)


def test_freezing_all_but_the_last_layer_leaves_its_four_norms_and_the_final_one() -> None:
    model = small_model("gemma3_text")
    freeze(model, "all-but-last", 1)
    trained = {name for name, p in model.named_parameters() if p.requires_grad and "norm" in name}
    own = ("attention_norm", "attention_post_norm", "mlp_norm", "mlp_post_norm")
    own += ("attention.query_norm", "attention.key_norm")
    assert trained == {"norm.weight", *(f"layers.1.{norm}.weight" for norm in own)}


@pytest.mark.usefixtures("torch_dropout")
@pytest.mark.parametrize("kind", ["Gemma2ForCausalLM", "Gemma3ForCausalLM", "GemmaForCausalLM"])
def test_attention_weights_are_dropped_as_transformers_drops_them(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    family = {"Gemma3ForCausalLM": "gemma3_text"}.get(kind, kind.removesuffix("ForCausalLM").lower())
    config = transformers.AutoConfig.for_model(
        family, vocab_size=50, hidden_size=12, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=1,
        head_dim=4, intermediate_size=20, attention_dropout=0.3,
    )  # fmt: skip
    theirs = getattr(transformers, kind)(config).train()
    theirs.save_pretrained(tmp_path)
    ours, ids = load_model(tmp_path).train(), torch.randint(4, 50, (2, 9))
    torch.manual_seed(2)
    y = theirs(input_ids=ids).logits
    torch.manual_seed(2)
    torch.testing.assert_close(ours(ids), y, atol=1e-5, rtol=1e-5)


# --- Settings -------------------------------------------------------------------------------------------------------


def test_both_spellings_of_gemma_3_give_the_same_config() -> None:
    old = {"num_hidden_layers": 7, "sliding_window_pattern": 3, "rope_theta": 5e5, "rope_local_base_freq": 90.0}
    old |= {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    tables = {
        FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
        SLIDING: {"rope_type": "default", "rope_theta": 90.0},
    }
    kinds = [SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL, SLIDING]
    new = {"num_hidden_layers": 7, "layer_types": kinds, "rope_parameters": tables}
    configs = [read_config({"model_type": "gemma3_text", **spelling}) for spelling in (old, new)]
    assert configs[0] == configs[1] and configs[0].global_layers == (2, 5)
    written = write_config("gemma3_text", configs[0])
    assert "minilm" not in written and read_config(written) == configs[0]
    assert (written["rope_theta"], written["rope_local_base_freq"]) == (5e5, 90.0)
    assert written["rope_scaling"]["factor"] == 8.0 and written["rope_parameters"][FULL]["factor"] == 8.0


def test_each_family_has_its_published_classs_defaults() -> None:
    first, second, third = (read_config({"model_type": name}) for name in ("gemma", "gemma2", "gemma3_text"))
    assert (first.width, first.depth, first.kv_heads, first.attention_scalar) == (3072, 28, 16, 256)
    assert (first.attention_cap, first.language_cap, first.post_norms, first.head_norms) == (0, 0, False, False)
    assert len(first.global_layers) == 28
    assert (second.attention_cap, second.language_cap, second.window) == (50, 30, 4096)
    assert second.global_layers == tuple(range(1, 26, 2)) and second.rotary == second.local_rotary
    assert (third.attention_cap, third.language_cap, third.vocab_size, third.head_norms) == (0, 0, 262208, True)
    assert third.global_layers == (5, 11, 17, 23)
    assert (third.rotary.base, third.local_rotary.base) == (1_000_000.0, 10_000.0)
    assert new_config("gemma3_text", {"depth": 48}, "here").global_layers == tuple(range(5, 48, 6))


def test_null_means_no_cap() -> None:
    published = {"model_type": "gemma2", "attn_logit_softcapping": None, "final_logit_softcapping": None}
    config = read_config(published)
    assert (config.attention_cap, config.language_cap) == (0.0, 0.0)
    assert read_config(write_config("gemma2", config)) == config


def test_gelu_means_its_approximation_in_gemma_1() -> None:
    assert read_config({"model_type": "gemma", "hidden_act": "gelu"}).activation == "gelu_tanh"
    assert read_config({"model_type": "gemma", "hidden_act": "silu"}).activation == "silu"
    with pytest.raises(UserError, match='use "gelu_tanh" for "gelu"'):
        write_config("gemma", small_config("gemma", activation="gelu"))


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("gemma", {"attention_cap": 3.0}, "attention_cap = 0.0"),
        ("gemma", {"window": 3}, "window = 0"),
        ("gemma", {"attention_scalar": 5}, "attention_scalar = 8"),
        ("gemma2", {"head_norms": True}, "head_norms = False"),
        ("gemma2", {"local_rotary": Rotary(base=5.0)}, "local_rotary = "),
        ("gemma2", {"bidirectional": True}, "bidirectional = False"),
        ("gemma2", {"rotary": Rotary("linear", partial=0.5), "local_rotary": Rotary("linear", partial=0.5)}, "partial"),
        ("gemma3_text", {"attention_cap": 3.0}, "attention_cap = 0.0"),
        ("gemma3_text", {"post_norms": False}, "post_norms = True"),
    ],
)
def test_what_a_published_class_cannot_say_is_refused(family: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_config(family, small_config(family, **changes))


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"model_type": "gemma", "use_bidirectional_attention": True}, "use_bidirectional_attention is not supported"),
        ({"model_type": "gemma2", "use_bidirectional_attention": True}, "use_bidirectional_attention is not supported"),
        ({"model_type": "gemma2", "layer_types": [FULL]}, "layer_types must name 26 layers, got 1"),
        ({"model_type": "gemma2", "sliding_window": None}, "sliding_window, query_pre_attn_scalar and rms_norm"),
        ({"model_type": "gemma3_text", "rms_norm_eps": 0.0}, "rms_norm_eps must be above 0"),
        ({"model_type": "gemma3_text", "query_pre_attn_scalar": 0}, "query_pre_attn_scalar and rms_norm_eps must be"),
        ({"model_type": "gemma2", "attn_logit_softcapping": 0.0}, "attn_logit_softcapping must be a number above"),
        ({"model_type": "gemma3_text", "final_logit_softcapping": 0}, "final_logit_softcapping must be a number above"),
        ({"model_type": "gemma2", "rope_parameters": {FULL: {"rope_theta": 5.0}}}, "rope_parameters must be one table"),
        ({"model_type": "gemma3_text", "layer_types": ["chunked_attention"] * 26}, "chunked_attention"),
        ({"model_type": "gemma3_text", "rope_parameters": {"rope_theta": 5.0}}, "must contain a table for"),
        ({"model_type": "gemma3_text", "sliding_window_pattern": 0}, "a setting has the wrong type"),
        ({"model_type": "gemma3_text", "num_attention_heads": 5}, "must be a multiple of kv_heads"),
        ({"model_type": "gemma3_text", "head_dim": 7}, "7 numbers do not form pairs"),
        ({"model_type": "gemma2", "hidden_activation": "glu"}, 'activation "glu"'),
    ],
)
def test_a_setting_that_is_not_supported_is_refused_by_name(published: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_config(published)


def test_gemma_3_never_caps_attention_whatever_its_config_says() -> None:
    """As the published class, which does not read the setting."""
    assert read_config({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}).attention_cap == 0.0
