"""T5: its published sizes, its buckets, who sees whom, its stages, generation with a cache, its settings."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from minilm.checkpoints.configs import read_config, write_config
from minilm.errors import UserError
from minilm.models import build_model
from minilm.models.batch import Batch, Cache
from minilm.models.layers import relative_bucket
from minilm.models.t5 import KINDS, T5, T5Config, finite, initialize
from minilm.models.t5_family import MT5Config, UMT5Config

FLAN_BASE = T5Config(width=768, depth=12, heads=12, activation="gelu_tanh", gated=True, tied=False, scaled=False)
SMALL = T5Config(
    vocab_size=50, width=12, depth=2, decoder_depth=3, heads=3, head_width=8, mlp_width=20, buckets=8, max_distance=16
)


@cache
def small(task: str = "lm", config: T5Config = SMALL) -> nn.Module:
    """A small model in evaluation mode, its weights large enough for differences to show. Tests share it."""
    torch.manual_seed(1)
    model = build_model("t5", config, task, classes=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def draw_ids(seed: int, *shape: int) -> Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(seed))


def test_flan_base_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = build_model("t5", FLAN_BASE, "lm")
    assert count(model) - count(model.head) == 222_903_552
    assert count(model.head) == 32128 * 768
    assert count(model.embeddings) + count(model.encoder) == 109_628_544


def plain_bucket(distance: int, buckets: int, max_distance: int, both_sides: bool) -> float:
    """Section 2.1 for one distance; the fraction tells how close it lies to the next bucket."""
    if not both_sides and distance > 0:
        return 0
    side = buckets // 2 if both_sides else buckets
    first = side if both_sides and distance > 0 else 0
    near, distance = side // 2, abs(distance)
    if distance < near:
        return first + distance
    return first + min(near + math.log(distance / near) / math.log(max_distance / near) * (side - near), side - 1)


@given(
    distance=st.integers(-300, 300),
    buckets=st.sampled_from([8, 32, 64]),
    max_distance=st.integers(40, 256),
    both_sides=st.booleans(),
)
def test_buckets_are_those_of_the_paper(distance: int, buckets: int, max_distance: int, both_sides: bool) -> None:
    expected = plain_bucket(distance, buckets, max_distance, both_sides)
    assume(expected == int(expected) or abs(expected - round(expected)) > 1e-4)  # float32 may round either way
    assert relative_bucket(torch.tensor(distance), buckets, max_distance, both_sides=both_sides) == int(expected)


def test_buckets_of_the_published_models_end_where_they_should() -> None:
    left = relative_bucket(-torch.arange(140), 32, 128, both_sides=True)
    starts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]  # distance at which each bucket begins
    assert [int((left == b).nonzero()[0]) for b in range(16)] == starts
    right = relative_bucket(torch.arange(1, 140), 32, 128, both_sides=True)
    assert torch.equal(right, left[1:] + 16)
    assert int(relative_bucket(torch.tensor(5), 32, 128, both_sides=False)) == 0


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3), padding=st.integers(1, 6), seed=st.integers(0, 99))
@pytest.mark.parametrize("task", ["encode", "classify", "lm"])
def test_padding_never_changes_a_real_token(task: str, lengths: list[int], padding: int, seed: int) -> None:
    model = small(task)
    length = max(lengths) + padding
    ids, written = draw_ids(seed, len(lengths), length), draw_ids(seed + 1, len(lengths), 4)
    mask = torch.arange(length) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        padded = model(ids, mask, decoder_ids=written if task == "lm" else None)
        for row, own in enumerate(lengths):
            ours, only = ids[row : row + 1, :own], written[row : row + 1]
            alone = model(ours, decoder_ids=only if task == "lm" else None)[0]
            compared = padded[row, :own] if task == "encode" else padded[row]
            torch.testing.assert_close(compared, alone, atol=1e-5, rtol=1e-5)


@settings(max_examples=25)
@given(place=st.integers(1, 7), seed=st.integers(0, 99))
def test_what_the_decoder_reads_later_never_changes_what_it_said(place: int, seed: int) -> None:
    model, ids, written = small(), draw_ids(seed, 2, 5), draw_ids(seed + 1, 2, 8)
    changed = written.clone()
    changed[:, place:] = draw_ids(seed + 2, 2, 8 - place)
    with torch.no_grad():
        before, after = (model(ids, decoder_ids=w)[:, :place] for w in (written, changed))
    torch.testing.assert_close(before, after, atol=1e-6, rtol=1e-6)


def test_every_token_reaches_the_classifier_in_its_place() -> None:
    model, ids = small("classify"), torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        scores = model(ids)
        for place in range(4):
            changed = ids.clone()
            changed[0, place] = 9
            assert not torch.allclose(model(changed), scores, atol=1e-4)
        assert not torch.allclose(model(torch.tensor([[6, 5, 7, 8]])), scores, atol=1e-4)


def test_stages_run_in_parts_as_in_one_go_and_the_decoder_starts_after_the_encoder() -> None:
    model = small()
    mask = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    batch = replace(Batch.of(draw_ids(1, 2, 6), mask), decoder_ids=draw_ids(2, 2, 4))
    assert model.num_layers == 5
    with torch.no_grad():
        state = model.embed(batch)
        for stage in range(5):
            assert (state.memory is None) == (stage <= 2)
            state = model.run(state, batch, stage, stage + 1)
        torch.testing.assert_close(model.head(model.finish(state), batch), model(batch))
        encoded = model.finish(model.run(model.embed(batch), batch, 0, 2))
        assert torch.equal(encoded, state.memory)


def test_encoder_alone_is_the_encoder_of_the_whole() -> None:
    whole, alone = small(), deepcopy(small("encode"))
    alone.load_state_dict({name: t for name, t in whole.state_dict().items() if name in alone.state_dict()})
    batch = Batch(draw_ids(1, 2, 6), decoder_ids=draw_ids(2, 2, 4))
    assert not any(name.startswith("decoder.") for name in alone.state_dict())
    with torch.no_grad():
        assert torch.equal(alone(batch), whole.run(whole.embed(batch), batch, 0, 3).memory)


def test_generation_with_a_cache_equals_one_pass_and_reads_the_text_once() -> None:
    model, ids, written = deepcopy(small()), draw_ids(1, 2, 6), draw_ids(2, 2, 7)
    mask = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    calls = []
    for module in (model.encoder.layers[0], model.decoder.layers[0].cross_attention.key):
        module.register_forward_hook(lambda module, *_: calls.append(module))
    memory = Cache(length=9, positions=torch.empty(0))
    with torch.no_grad():
        steps = []
        for first, last in ((0, 3), (3, 4), (4, 7)):
            memory.positions = torch.arange(first, last).expand(2, -1)
            steps.append(model(Batch(ids, mask, decoder_ids=written[:, first:last], cache=memory)))
        assert len(calls) == 2
        torch.testing.assert_close(torch.cat(steps, dim=1), model(ids, mask, decoder_ids=written))


def test_a_language_model_reads_its_labels_one_place_to_the_right_and_says_where_it_has_nothing_to_read() -> None:
    model, labels = small(config=replace(SMALL, start_token=3, pad_token=2)), torch.tensor([[5, 6, -100, -100]])
    ids, read = torch.tensor([[5, 6, 7]]), torch.tensor([[3, 5, 6, 2]])
    assert torch.equal(model.shift_right(labels), read)
    with torch.no_grad():
        expected = model(ids, decoder_ids=read)[0, :2]
        torch.testing.assert_close(model(Batch(ids, labels=labels)), expected)
    with pytest.raises(ValueError, match="decoder_ids or labels"):
        model(ids)


def test_only_version_1_0_scales_what_its_head_reads() -> None:
    scaled, plain = small(), small(config=replace(SMALL, scaled=False))
    ids, written = draw_ids(1, 2, 6), draw_ids(2, 2, 4)
    with torch.no_grad():
        expected = plain(ids, decoder_ids=written) * 12**-0.5
        torch.testing.assert_close(scaled(ids, decoder_ids=written), expected, atol=1e-5, rtol=1e-5)
    assert scaled.head.output.weight is scaled.embeddings.token.weight


def test_sums_beyond_float16_come_back_into_its_range() -> None:
    beyond = torch.tensor([math.inf, -math.inf, 1.5, 60000.0])
    assert finite(beyond.half()).tolist() == [64512.0, -64512.0, 1.5, 60000.0]  # float16 counts in 32s up there
    assert finite(beyond) is beyond


def test_initial_vectors_keep_their_size() -> None:
    torch.manual_seed(0)
    model = T5(T5Config(vocab_size=500, width=64, depth=1, mlp_width=128, dropout=0.0))
    initialize(model)
    attention, x = model.encoder.layers[0].attention, torch.randn(1, 200, 64)
    with torch.no_grad():
        scores = attention.query(x) @ attention.key(x).transpose(1, 2) / 8**0.5  # of one head; the sum is over 8
        assert 0.7 < float(scores.std()) < 1.4
        assert 0.7 < float(attention.value(x).std()) < 1.4
        assert 0.9 < float(model.embeddings.token.weight.std()) < 1.1


def test_settings_of_version_1_1_are_read_in_old_and_new_spelling() -> None:
    old = {"model_type": "t5", "d_model": 24, "num_heads": 5, "feed_forward_proj": "gated-gelu"}
    config = read_config({**old, "tie_word_embeddings": False, "decoder_start_token_id": 0})
    assert (config.activation, config.gated, config.tied, config.scaled) == ("gelu_tanh", True, False, False)
    new = read_config({**old, "tie_word_embeddings": True, "scale_decoder_outputs": False})
    assert replace(new, tied=False) == config and new.tied
    assert config.decoder_depth == 0 and config.depth == 6


@pytest.mark.parametrize(("activation", "gated"), sorted(KINDS))
def test_every_feed_forward_has_a_published_name(activation: str, gated: bool) -> None:
    config = replace(SMALL, activation=activation, gated=gated, tied=False, scaled=False)
    written = write_config("t5", config)
    assert "minilm" not in written
    assert read_config(written) == config


@pytest.mark.parametrize(
    ("contradiction", "expected"),
    [
        ({}, ("gelu_tanh", True)),
        ({"dense_act_fn": "gelu_new", "is_gated_act": True}, ("gelu_tanh", True)),
        ({"dense_act_fn": "gelu"}, ("gelu", True)),
        ({"dense_act_fn": "relu", "is_gated_act": False}, ("relu", False)),
    ],
)
def test_what_contradicts_the_feed_forwards_name_counts(
    contradiction: dict[str, Any], expected: tuple[str, bool]
) -> None:
    published = {"model_type": "t5", "feed_forward_proj": "gated-gelu", **contradiction}
    config = read_config(published)
    assert (config.activation, config.gated) == expected
    theirs = pytest.importorskip("transformers").T5Config(**published)
    assert theirs.is_gated_act == config.gated
    assert read_config(theirs.to_dict()).activation == config.activation
    assert read_config({**published, **write_config("t5", config)}) == config  # as the published config is brought up


MT5_BASE = {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12}
UMT5_BASE = {**MT5_BASE, "vocab_size": 256384}


@pytest.mark.parametrize(
    ("published", "parameters"),
    [
        ({"model_type": "mt5", "vocab_size": 250112}, 172_119_424),
        ({"model_type": "mt5", **MT5_BASE}, 390_315_264),
        ({"model_type": "umt5"}, 172_122_112),
        ({"model_type": "umt5", **UMT5_BASE}, 395_140_608),
    ],
)
def test_relatives_have_the_published_number_of_parameters(published: dict[str, Any], parameters: int) -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        ours = build_model(published["model_type"], read_config(published), "lm")
        theirs = transformers.AutoModelForSeq2SeqLM.from_config(transformers.AutoConfig.for_model(**published))
    assert count(ours) == count(theirs) == parameters  # the token table once


def test_umt5_has_a_table_in_each_layer_and_each_counts() -> None:
    config = UMT5Config(vocab_size=50, width=12, depth=2, heads=3, head_width=8, mlp_width=20, buckets=8)
    model, ids = build_model("umt5", config, "encode").eval(), draw_ids(1, 2, 6)
    initialize(model)
    tables = [name for name, _ in model.named_parameters() if "relative_bias" in name]
    assert tables == [f"encoder.layers.{i}.relative_bias.weight" for i in range(2)]
    with torch.no_grad():
        for name in tables:
            before = model(ids)
            model.get_parameter(name)[:, 0] += torch.arange(8)
            assert not torch.allclose(model(ids), before, atol=1e-3)


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("mt5", MT5Config(scaled=True), "mT5 checkpoints have scaled = False"),
        ("umt5", replace(UMT5Config(), own_positions=False), "umT5 checkpoints have own_positions = True"),
        ("t5", T5Config(own_positions=True), "T5 checkpoints have own_positions = False"),
    ],
)
def test_what_is_fixed_in_a_relative_is_named(family: str, config: T5Config, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_config(family, config)


def test_an_unknown_feed_forward_is_named() -> None:
    with pytest.raises(UserError, match=r"gated-gleu.*did you mean .gated-gelu."):
        read_config({"model_type": "t5", "feed_forward_proj": "gated-gleu"})


def test_a_config_whose_largest_distance_leaves_no_bucket_for_far_keys_is_refused() -> None:
    with pytest.raises(UserError, match=r"max_distance \(16\) must be above half of 32 buckets"):
        T5Config(buckets=32, max_distance=16)
    T5Config(buckets=32, max_distance=17)
