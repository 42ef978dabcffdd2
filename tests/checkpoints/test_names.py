"""The name tables: every one whole, and the same in both directions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minilm.checkpoints.names import plain_name, published_tensors, rows_of, rows_of_ours, rows_of_theirs
from minilm.models import ARCHITECTURES, TASKS, build_model
from minilm.models.layers import Names

SMALL = {"vocab_size": 8, "width": 12, "depth": 2, "heads": 3, "mlp_width": 8}
COMBINATIONS = [(model_type, task) for model_type in ARCHITECTURES for task in TASKS]


def small_config(model_type: str, **settings: Any) -> Any:
    return ARCHITECTURES[model_type].config(**{**SMALL, **settings})


@pytest.mark.parametrize(("model_type", "task"), COMBINATIONS)
def test_our_tensors_written_and_taken_again_are_the_same(model_type: str, task: str) -> None:
    names, model = ARCHITECTURES[model_type].names, build_model(model_type, small_config(model_type), task, classes=3)
    rows = rows_of(names, model.config, task)
    ours = dict(model.named_parameters())
    published = dict(published_tensors(ours, rows))
    for name, parameter in ours.items():
        row = rows_of_ours(name, rows)[0]
        assert published[row.theirs].shape == row.shape_of_theirs(tuple(parameter.shape))
        assert torch.equal(row.take(published[row.theirs]), parameter)
        assert name in [back.ours for back in rows_of_theirs(row.theirs, rows)]


@pytest.mark.parametrize(("model_type", "task"), COMBINATIONS)
def test_a_prefix_is_taken_off_again(model_type: str, task: str) -> None:
    names, config = ARCHITECTURES[model_type].names, small_config(model_type)
    for row, with_prefix in zip(rows_of(names, config, task), rows_of(names, config, task, prefixed=True), strict=True):
        assert with_prefix.theirs in (row.theirs, names.prefix[task] + row.theirs)
        assert plain_name(with_prefix.theirs, names) == row.theirs


def test_a_bias_that_files_must_have_is_written_as_zero() -> None:
    config = small_config("gpt2", attention_bias=False)
    model = build_model("gpt2", config)
    rows = rows_of(ARCHITECTURES["gpt2"].names, config, "encode")
    published = dict(published_tensors(dict(model.named_parameters()), rows))
    assert published["h.1.attn.c_attn.bias"].tolist() == [0.0] * 36
    assert published["h.0.attn.c_proj.bias"].tolist() == [0.0] * 12


def test_a_tensor_that_the_table_does_not_know_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"no row for something.else"):
        dict(published_tensors({"something.else": torch.ones(1)}, []))


def test_a_row_that_says_nonsense_is_an_error() -> None:
    names = Names(rows=(("a", "b", "transponed"),), heads={}, prefix={"encode": ""})
    with pytest.raises(ValueError, match="'transponed', which means nothing"):
        rows_of(names, None, "encode")
