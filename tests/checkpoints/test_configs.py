"""config.json: read in every spelling, written so that it can be read, and wrong values named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.checkpoints.configs import from_plain, new_config, read_config, write_config
from minilm.errors import UserError
from minilm.models import ARCHITECTURES
from minilm.models.gpt2 import GPT2Config
from tests.families import DECODERS

REFERENCES = Path(__file__).parent.parent / "reference"
PUBLISHED = [json.loads(path.read_text()) for path in sorted(REFERENCES.glob("*/config.json"))]


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_an_empty_config_gives_the_published_defaults(model_type: str) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoConfig.for_model(model_type).to_dict()
    theirs = {key: value for key, value in theirs.items() if key != "num_decoder_layers"}  # T5: as many as num_layers
    assert read_config({"model_type": model_type, "vocab_size": theirs["vocab_size"]}) == read_config(theirs)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_model_from_scratch_starts_from_the_published_defaults(model_type: str) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoConfig.for_model(model_type).to_dict()
    ours = new_config(model_type, {"vocab_size": theirs["vocab_size"]}, "x.toml")
    assert ours == read_config(theirs | {"num_decoder_layers": None})
    if ARCHITECTURES[model_type].language_modeling != "seq2seq":
        smaller = new_config(model_type, {"width": 64, "heads": 8, "context": 40}, "x.toml")
        assert (smaller.width, smaller.heads, smaller.context) == (64, 8, 40)
        if not model_type.startswith("gemma"):  # whose heads have a width of their own, whatever the model's is
            assert getattr(smaller, "head_width", 8) == 8


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published["architectures"][0])
def test_a_config_written_is_read_back(published: dict[str, Any]) -> None:
    config = read_config(published)
    written = json.loads(json.dumps(write_config(published["model_type"], config)))
    assert read_config(written) == config
    assert "minilm" not in written  # the published keys can say it all


def test_what_published_keys_cannot_say_lies_under_our_own() -> None:
    config = GPT2Config(attention_bias=False)
    written = write_config("gpt2", config)
    assert written["minilm"] == {"config": {"attention_bias": False}}
    assert read_config(written) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widht": 5}, 'unknown setting widht (did you mean "width"?)'),
        ({"width": 0}, "width must be a whole number from 1"),
        ({"width": 12.5}, "width must be a whole number"),
        ({"width": "12"}, "width must be a whole number"),
        ({"width": True}, "width must be a whole number"),
        ({"width": 1 << 60}, "width must be a whole number"),
        ({"width": 10, "heads": 3}, "width (10) must be a multiple of heads (3)"),
        ({"tied": 1}, "tied must be true or false"),
        ({"dropout": 1.0}, "dropout must be a number from 0 to 1"),
        ({"dropout": float("nan")}, "dropout must be a number"),
        ({"norm_eps": float("inf")}, "norm_eps must be a number"),
        ({"activation": "glu"}, "activation must be one of gelu"),
        ({"activation": ["gelu"]}, "activation must be one of gelu"),
        ([], "must be a table"),
    ],
)
def test_a_wrong_setting_is_named(settings: Any, message: str) -> None:
    with pytest.raises(UserError) as raised:
        from_plain(GPT2Config, settings, "x.toml")
    assert str(raised.value).startswith("x.toml: ") and message in str(raised.value)


def test_a_whole_number_may_be_written_as_a_fraction() -> None:
    config = from_plain(GPT2Config, {"depth": 2.0, "dropout": 0}, "x.toml")
    assert (config.depth, config.dropout) == (2, 0.0) and type(config.depth) is int and type(config.dropout) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bertt"}, 'model_type "bertt" is not supported (did you mean "bert"?)'),
        ({"model_type": None}, "is not supported"),
        ({"hidden_act": "gelu_neww"}, 'activation "gelu_neww" is not supported (did you mean "gelu_new"?)'),
        ({"hidden_size": "wide"}, "width must be a whole number"),
        ({"quantization_config": {"bits": 4}}, "quantised weights are not supported"),
        ({"is_decoder": True}, "config.json: is_decoder"),
        ({"minilm": 5}, '"minilm" must be a JSON object'),
        ({"minilm": {"config": {"colour": 1}}}, "unknown setting colour"),
    ],
)
def test_a_wrong_config_json_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        read_config({"model_type": "bert", **change}, "here/config.json")
    assert str(raised.value).startswith("here/config.json: ") and message in str(raised.value)
    assert str(raised.value).count("config.json") == 1


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_decoder_that_is_to_read_both_ways_is_refused(model_type: str) -> None:
    """The published classes follow the setting, each in its way."""
    with pytest.raises(UserError, match="is_causal = false"):
        read_config({"model_type": model_type, "is_causal": False})


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3))
JSON = st.one_of(PLAIN, st.lists(PLAIN, max_size=2), st.dictionaries(st.text(max_size=3), PLAIN, max_size=2))


@given(published=st.sampled_from(PUBLISHED), value=JSON, data=st.data())
def test_no_value_whatever_ends_in_another_error(published: dict[str, Any], value: Any, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(published)))
    try:
        config = read_config({**published, key: value})
    except UserError:
        return
    assert dataclasses.is_dataclass(config)
