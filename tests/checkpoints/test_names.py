"""The name tables: every one whole, and the same in both directions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minilm.checkpoints.names import Layout, places_of_ours, places_of_theirs, plain_name, published_tensors, rows_of
from minilm.models import ARCHITECTURES, TASKS, build_model
from minilm.models.architecture import Names, Row
from tests import families
from tests.families import small_model

SMALL = {"vocab_size": 8, "width": 12, "depth": 2, "heads": 3, "mlp_width": 8}
COMBINATIONS = [(model_type, task) for model_type in ARCHITECTURES for task in TASKS]


def small_config(model_type: str, **settings: Any) -> Any:
    return ARCHITECTURES[model_type].config(**{**SMALL, **settings})


@pytest.mark.parametrize(("model_type", "task"), COMBINATIONS)
def test_our_tensors_written_and_taken_again_are_the_same(model_type: str, task: str) -> None:
    names, model = ARCHITECTURES[model_type].names, small_model(model_type, task)
    places = rows_of(names, model.config, task)
    ours = dict(model.named_parameters())
    published = dict(published_tensors(ours, places))
    for name, parameter in ours.items():
        place = places_of_ours(name, places)[0]
        assert published[place.theirs].shape == place.shape_of_theirs(tuple(parameter.shape))
        assert torch.equal(place.take(published[place.theirs]), parameter)
        assert name in [back.ours for back in places_of_theirs(place.theirs, places)]


@pytest.mark.parametrize(("model_type", "task"), COMBINATIONS)
def test_a_prefix_is_taken_off_again(model_type: str, task: str) -> None:
    names, config = ARCHITECTURES[model_type].names, families.small_config(model_type)
    pairs = zip(rows_of(names, config, task), rows_of(names, config, task, prefixed=True), strict=True)
    for place, with_prefix in pairs:
        assert with_prefix.theirs in (place.theirs, names.prefix[task] + place.theirs)
        assert plain_name(with_prefix.theirs, names) == place.theirs


def test_a_bias_that_files_must_have_is_written_as_zero() -> None:
    config = small_config("gpt2", attention_bias=False)
    model = build_model("gpt2", config)
    places = rows_of(ARCHITECTURES["gpt2"].names, config, "encode")
    published = dict(published_tensors(dict(model.named_parameters()), places))
    assert published["h.1.attn.c_attn.bias"].tolist() == [0.0] * 36
    assert published["h.0.attn.c_proj.bias"].tolist() == [0.0] * 12


def test_a_tensor_that_the_table_does_not_know_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"no row for something.else"):
        dict(published_tensors({"something.else": torch.ones(1)}, []))


@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    groups=st.integers(1, 4),
    unit=st.integers(1, 3),
    transposed=st.booleans(),
)
def test_fused_tensors_are_cut_and_joined_alike(sizes: list[int], groups: int, unit: int, transposed: bool) -> None:
    layout = Layout(transposed, tuple(sizes), groups if len(sizes) > 1 else 1)
    parts = [torch.randn(size * unit * layout.groups, 2) for size in sizes]
    whole = layout.join(parts)
    for part, ours in enumerate(parts):
        assert torch.equal(layout.cut(whole, part), ours)
        assert layout.rows_of_all(len(ours), part) == len(whole)


def test_blocks_lie_one_after_another_or_head_after_head() -> None:
    q, k = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]])  # two heads of width 1
    assert Layout(sizes=(1, 1)).join([q, k]).flatten().tolist() == [1, 2, 3, 4]
    assert Layout(sizes=(1, 1), groups=2).join([q, k]).flatten().tolist() == [1, 3, 2, 4]


def test_rows_by_heads_and_of_unequal_size_know_their_config() -> None:
    sizes = Row("layers.{i}.key", "h.{i}.qkv", part=1, sizes=lambda config: (config.heads, 1, 1))
    by_heads = Row("layers.{i}.value", "h.{i}.fused", part=2, parts=3, by_heads=True)
    gated = Row("up", "wi", when=lambda config: config.depth == 7)
    config = small_config("gpt2")
    weight, _, other, _ = rows_of(Names((sizes, by_heads, gated), {}, {"encode": ""}), config, "encode")
    assert (weight.layout, weight.shape_of_theirs((4, 12))) == (Layout(sizes=(3, 1, 1)), (20, 12))
    assert (other.layout, other.theirs) == (Layout(sizes=(1, 1, 1), groups=3), "h.{i}.fused.weight")
