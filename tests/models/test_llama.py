"""Llama, Mistral, Qwen2: Bielik's size, what a token may see, generation with a cache, rotary positions, configs."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from minilm.checkpoints.configs import from_plain, read_config, write_config
from minilm.errors import UserError
from minilm.models import build_model
from minilm.models.attention import takes_groups
from minilm.models.batch import Batch, Cache
from minilm.models.heads import mlp_head
from minilm.models.layers import Attention, RMSNorm
from minilm.models.llama import Llama, LlamaConfig, initialize
from minilm.models.rotary import Rotary, rotary_frequencies, rotary_tables, rotate

SMALL = LlamaConfig(vocab_size=50, context=32, width=24, depth=2, heads=4, kv_heads=2, head_width=8, mlp_width=20)
BIELIK = LlamaConfig(
    vocab_size=32000,
    width=1536,
    depth=32,
    heads=12,
    kv_heads=2,
    mlp_width=8960,
    attention_bias=True,
    output_bias=True,
    mlp_bias=True,
)
STRETCHED = [
    Rotary("default", base=5e5),
    Rotary("linear", factor=3.7),
    Rotary("dynamic", factor=2.5),
    Rotary("llama3", base=5e5, factor=8.0, trained=64, low=1.0, high=4.0),
    Rotary("yarn", factor=4.0, trained=64),
    Rotary("yarn", factor=4.0, trained=64, low=2.0, high=16.0, attention=0.8, truncate=False),
]


def small(config: LlamaConfig = SMALL) -> Llama:
    """A small model in evaluation mode, its weights large enough for differences to show."""
    torch.manual_seed(1)
    model = Llama(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def texts(seed: int, *shape: int) -> Tensor:
    return torch.randint(1, 50, shape, generator=torch.Generator().manual_seed(seed))


def test_bielik_with_the_studys_head_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = build_model("llama", BIELIK, "classify", classes=3, head=mlp_head(1536, hidden=512, norm=True))
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_548_145_155
    assert not list(model.buffers())


def test_a_tied_language_head_has_no_parameters_of_its_own() -> None:
    with torch.device("meta"):
        tied, untied = (build_model("qwen2", replace(SMALL, tied=tied), "lm") for tied in (True, False))
    assert tied.head.output.weight is tied.embeddings.token.weight
    assert sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters()) == 50 * 24


# --- What a token may see -----------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(kept=st.integers(1, 9), seed=st.integers(0, 99), window=st.sampled_from([0, 3]))
def test_later_tokens_never_change_an_earlier_output(kept: int, seed: int, window: int) -> None:
    model = small(replace(SMALL, window=window))
    ids, others = texts(seed, 2, 10), texts(seed + 1, 2, 10)
    others[:, :kept] = ids[:, :kept]
    torch.testing.assert_close(model(ids)[:, :kept], model(others)[:, :kept], rtol=0, atol=1e-5)


@settings(max_examples=30)
@given(length=st.integers(1, 6), padding=st.integers(1, 6), seed=st.integers(0, 99))
def test_neither_content_nor_amount_of_padding_changes_a_real_token(length: int, padding: int, seed: int) -> None:
    model = small(replace(SMALL, window=4))
    ids = texts(seed, 1, length + padding)
    mask = torch.arange(length + padding)[None] < length
    torch.testing.assert_close(model(ids, mask)[:, :length], model(ids[:, :length]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("full_layers", "reach"), [((), 5), ((1,), 8)])
def test_a_window_of_three_reaches_two_positions_further_in_each_layer(full_layers: tuple, reach: int) -> None:
    model = small(replace(SMALL, window=3, full_layers=full_layers))
    vectors = model.embeddings(texts(0, 1, 8)).detach().requires_grad_()
    batch = Batch(texts(0, 1, 8))
    model.run(replace(model.embed(batch), x=vectors), batch, 0, 2).x[0, -1].sum().backward()
    assert int((vectors.grad[0].abs().sum(dim=-1) > 0).sum()) == reach


# --- Running in parts ---------------------------------------------------------------------------------------------


def test_layers_run_in_parts_give_what_they_give_in_a_row() -> None:
    model, batch = small(), Batch(texts(0, 2, 7))
    state = model.run(model.run(model.embed(batch), batch, 0, 1), batch, 1, 2)
    assert torch.equal(model.finish(state), model(batch))


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, window=3, full_layers=(0,), rotary=STRETCHED[4])])
def test_generation_with_a_cache_equals_reading_each_text_whole(config: LlamaConfig) -> None:
    model, ids, lengths, steps = small(config), texts(3, 3, 9), torch.tensor([5, 2, 4]), 4
    positions = torch.arange(5).expand(3, 5)
    cache = Cache(length=9, positions=positions)
    model(Batch(ids[:, :5], positions=positions, cache=cache))  # the prompts, the shorter ones padded
    for step in range(steps):
        at = (lengths + step)[:, None]
        cache.positions = at
        y = model(Batch(ids.gather(1, at), positions=at, cache=cache))
        for row, length in enumerate(lengths.tolist()):
            whole = model(ids[row : row + 1, : length + step + 1])
            torch.testing.assert_close(y[row, 0], whole[0, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_rotation_keeps_the_precision_that_the_model_runs_in(precision: torch.dtype) -> None:
    model = small()
    expected = model(texts(0, 2, 7))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        positions = torch.arange(7).expand(2, 7)
        y = model(Batch(texts(0, 2, 7), positions=positions, cache=Cache(7, positions)))
    assert (y - expected).abs().max() < (1e-5 if precision == torch.float32 else 0.3)


# --- The pieces ---------------------------------------------------------------------------------------------------


def test_shared_key_value_heads_equal_heads_repeated() -> None:
    torch.manual_seed(0)
    shared = Attention(24, 4, kv_heads=2, head_width=6, causal=True)
    whole = Attention(24, 4, head_width=6, causal=True)
    repeated = {
        name: p.unflatten(0, (2, 6)).repeat_interleave(2, dim=0).flatten(0, 1) if name[:3] in ("key", "val") else p
        for name, p in shared.state_dict().items()
    }
    whole.load_state_dict(repeated)
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(shared(x), whole(x))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float16])
def test_rms_norm_computes_in_float32_and_returns_the_weights_dtype(given: torch.dtype, stored: torch.dtype) -> None:
    norm = RMSNorm(8, 1e-6).to(stored)
    x = (torch.randn(3, 8, generator=torch.Generator().manual_seed(0)) * 300).to(given)  # squares leave float16's range
    exact = x.double() / (x.double().pow(2).mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    y = norm(x)
    assert y.dtype == stored
    torch.testing.assert_close(y.double(), exact, rtol=1e-2 if torch.bfloat16 in (given, stored) else 2e-3, atol=1e-6)


def test_initial_weights_have_the_published_spread_and_no_bias() -> None:
    torch.manual_seed(0)
    model = Llama(replace(SMALL, width=128, mlp_width=256, attention_bias=True, output_bias=True))
    initialize(model)
    layer = model.layers[0]
    assert layer.mlp.gate.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not layer.attention.output.bias.any() and bool((layer.mlp_norm.weight == 1).all())


# --- Rotary positions ---------------------------------------------------------------------------------------------


@given(st.sampled_from(STRETCHED), st.integers(0, 40), st.integers(0, 40), st.integers(0, 80))
def test_a_query_and_a_key_know_their_distance_only(rotary: Rotary, t: int, s: int, shift: int) -> None:
    query, key = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def product(t: int, s: int) -> float:
        tables = rotary_tables(replace(rotary, factor=1.0), 16, 128, torch.tensor([[t, s]]), query)
        turned = rotate(torch.cat((query, key), dim=2), *tables)
        return float(turned[0, 0, 0] @ turned[0, 0, 1])

    assert product(t, s) == pytest.approx(product(t + shift, s + shift), abs=1e-3)


def test_llama3_slows_the_slow_pairs_only() -> None:
    rotary = Rotary("llama3", base=5e5, factor=8.0, trained=8192, low=1.0, high=4.0)
    got = rotary_frequencies(rotary, 128, 131072, torch.device("cpu")).tolist()
    for j, frequency in enumerate(got):  # Llama 3.1's rule of three cases, pair by pair
        plain = 5e5 ** (-2 * j / 128)
        wavelength = 2 * math.pi / plain
        smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
        expected = (
            plain if wavelength < 8192 / 4 else plain / 8 if wavelength > 8192 / 1
            else (1 - smooth) * plain / 8 + smooth * plain
        )  # fmt: skip
        assert frequency == pytest.approx(expected, rel=1e-5)


def test_yarn_blends_between_whole_pairs_and_sharpens_attention() -> None:
    got = rotary_frequencies(Rotary("yarn", factor=4.0, trained=2048), 128, 8192, torch.device("cpu")).tolist()
    first, last = (128 * math.log(2048 / (turns * 2 * math.pi)) / (2 * math.log(10000)) for turns in (32, 1))
    first, last = math.floor(first), math.ceil(last)
    for j, frequency in enumerate(got):  # Peng et al. 2023, equations 19 to 23
        plain = 10000 ** (-2 * j / 128)
        slowed = min(max((j - first) / (last - first), 0), 1)
        assert frequency == pytest.approx(plain / 4 * slowed + plain * (1 - slowed), rel=1e-5)
    cos, _ = rotary_tables(Rotary("yarn", factor=4.0), 128, 8192, torch.tensor([[0]]), torch.zeros(1))
    assert cos.flatten()[0].item() == pytest.approx(0.1 * math.log(4) + 1)


def test_dynamic_scaling_begins_past_the_context_and_keeps_the_fastest_pair() -> None:
    def angles(kind: str, length: int) -> Tensor:
        positions = torch.arange(length)[None]
        return rotary_tables(Rotary(kind, factor=2.0), 16, 32, positions, torch.zeros(1))[0][0, 0, 5]

    assert torch.equal(angles("dynamic", 32), angles("default", 32))
    longer, plain = angles("dynamic", 64), angles("default", 64)
    assert longer[0] == plain[0] and bool((longer[1:8] > plain[1:8]).all())  # cosines: smaller angles


@pytest.mark.parametrize("rotary", STRETCHED)
def test_tables_equal_the_reference(rotary: Rotary) -> None:
    transformers = pytest.importorskip("transformers")
    reference = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = replace(SMALL, context=256, rotary=rotary)
    published = transformers.LlamaConfig(**write_config("llama", config))
    positions, x = torch.arange(400)[None], torch.zeros(1)
    cos, sin = rotary_tables(rotary, 8, 256, positions, x)
    theirs = reference.LlamaRotaryEmbedding(published)(x, positions)
    torch.testing.assert_close(cos[:, 0], theirs[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(sin[:, 0].abs(), theirs[1].abs(), rtol=0, atol=1e-6)
    torch.testing.assert_close(sin[:, 0, :, 4:], theirs[1][:, :, 4:], rtol=0, atol=1e-6)


# --- The published configs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotary", STRETCHED)
@pytest.mark.parametrize("spelling", ["rope_parameters", "rope_scaling", "type"])
def test_rotary_positions_are_read_in_every_spelling(rotary: Rotary, spelling: str) -> None:
    config = replace(SMALL, rotary=rotary)
    published = write_config("llama", config)
    assert "minilm" not in published
    if spelling == "rope_parameters":
        del published["rope_theta"], published["rope_scaling"]
    else:
        del published["rope_parameters"]
        if published["rope_scaling"]:
            table = {key: value for key, value in published["rope_scaling"].items() if key != "rope_theta"}
            published["rope_scaling"] = {**table, spelling.replace("rope_scaling", "rope_type"): table.pop("rope_type")}
    assert read_config(published) == config


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("llama", replace(SMALL, attention_bias=True, output_bias=True, mlp_bias=True, tied=True)),
        ("mistral", replace(SMALL, window=7)),
        ("mistral", SMALL),
        ("qwen2", replace(SMALL, attention_bias=True)),
        ("qwen2", replace(SMALL, attention_bias=True, window=7, full_layers=(1,))),
        ("qwen2", replace(SMALL, attention_bias=True, window=7)),
    ],
)
def test_every_familys_config_comes_back_as_it_was_written(model_type: str, config: LlamaConfig) -> None:
    published = write_config(model_type, config)
    assert "minilm" not in published and read_config(published) == config


def test_qwen2_windows_the_layers_above_max_window_layers() -> None:
    published = {"model_type": "qwen2", "num_hidden_layers": 4, "max_window_layers": 3, "sliding_window": 9}
    assert read_config({**published, "use_sliding_window": True}).full_layers == (0, 1, 2)
    assert read_config({**published, "use_sliding_window": True}).window == 9
    assert read_config({**published, "use_sliding_window": False}).window == 0


def test_a_file_that_leaves_settings_out_gets_its_own_classs_defaults() -> None:
    mistral, qwen2 = read_config({"model_type": "mistral"}), read_config({"model_type": "qwen2"})
    assert (mistral.kv_heads, mistral.window, mistral.mlp_width, mistral.context) == (8, 4096, 14336, 131072)
    assert (qwen2.vocab_size, qwen2.mlp_width, qwen2.attention_bias, qwen2.output_bias) == (151936, 22016, True, False)
    assert read_config({"model_type": "mistral", "sliding_window": None, "num_key_value_heads": None}).window == 0


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("llama", {"window": 3}, "window = 0"),
        ("llama", {"attention_bias": True, "output_bias": False}, "output_bias = True"),
        ("mistral", {"mlp_bias": True}, "mlp_bias = False"),
        ("qwen2", {"attention_bias": False}, "attention_bias = True"),
    ],
)
def test_what_a_published_class_cannot_say_is_refused(model_type: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_config(model_type, replace(SMALL, **changes))


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"rope_scaling": {"type": "yarm", "factor": 2.0}}, r'kind "yarm" \(did you mean "yarn"\?\)'),
        ({"rope_scaling": {"rope_type": "linear"}}, 'rope_type "linear" need factor'),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "need low_freq_factor"),
        ({"rope_parameters": {"rope_type": "linear", "factor": -1.0}}, "a factor above 0"),
        ({"rope_parameters": {"rope_type": "linear", "factor": True}}, "a factor above 0"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": [1]}}, "a trained"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2, "attention_factor": "1"}}, "an? attention"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2, "truncate": 1}}, "truncate to be true or false"),
        ({"rope_parameters": {"rope_type": ["yarn"]}}, "rope_type must be a text"),
        ({"rope_parameters": [1]}, "must be an object"),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}, "partial_rotary_factor": 0.5},
            r"partial_rotary_factor must be 1 with this rope_type, got 0.5",
        ),
        ({"head_dim": 5}, "rotate pairs"),
        ({"num_key_value_heads": 5}, "multiple of kv_heads"),
        ({"hidden_size": 4097}, "multiple of heads"),
        ({"model_type": "qwen2", "layer_types": ["chunked_attention"]}, "chunked_attention is not supported"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(published: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_config({"model_type": "llama", **published})


def test_partial_factors_do_what_they_do_in_the_reference() -> None:
    default = {"model_type": "llama", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    plain = rotary_frequencies(Rotary(), 128, 2048, torch.device("cpu"))
    assert torch.equal(rotary_frequencies(read_config(default).rotary, 128, 2048, torch.device("cpu")), plain)
    almost = Rotary("linear", factor=2.0, partial=0.9)  # 7 of 8 numbers: four pairs, spread as over seven
    expected = [10000 ** (-2 * j / 7) / 2 for j in range(4)]
    assert rotary_frequencies(almost, 8, 2048, torch.device("cpu")).tolist() == pytest.approx(expected)


def test_mscale_settles_yarns_factor_on_attention() -> None:
    table = {"rope_type": "yarn", "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.3}
    expected = (0.07 * math.log(4) + 1) / (0.13 * math.log(4) + 1)
    assert read_config({"model_type": "llama", "rope_scaling": table}).rotary.attention == pytest.approx(expected)


def test_a_config_table_may_hold_rotary_settings() -> None:
    config = from_plain(LlamaConfig, {"rotary": {"kind": "linear", "factor": 2.0}}, "x.toml")
    assert config.rotary == Rotary("linear", factor=2.0)


@pytest.mark.parametrize(
    ("device", "dtype", "masked", "takes"),
    [
        ("cpu", torch.float32, True, True),
        ("cuda", torch.bfloat16, False, True),
        ("cuda", torch.bfloat16, True, False),
        ("cuda", torch.float32, False, False),
    ],
)
def test_keys_are_repeated_only_where_no_fast_kernel_takes_groups(
    device: str, dtype: torch.dtype, masked: bool, takes: bool
) -> None:
    query: Any = SimpleNamespace(is_cuda=device == "cuda", dtype=dtype)
    assert takes_groups(query, torch.ones(1) if masked else None) is takes


@pytest.mark.parametrize("masked", [False, True])
def test_repeated_keys_give_the_same_numbers_as_groups(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention = Attention(24, 4, kv_heads=2, head_width=8, causal=True)
    x, mask = torch.randn(2, 5, 24), torch.ones(5, 5).tril().bool() if masked else None
    results = []
    for takes in (True, False):
        monkeypatch.setattr("minilm.models.attention.takes_groups", lambda query, mask, takes=takes: takes)
        attention.zero_grad()
        y = attention(x, mask)
        y.square().sum().backward()
        results.append((y.detach(), attention.key.weight.grad.clone(), attention.value.weight.grad.clone()))
    torch.testing.assert_close(results[0], results[1])
