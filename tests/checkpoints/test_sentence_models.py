"""Sentence models: the vectors of sentence-transformers, from the same folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilm
from minilm.checkpoints.models import load_model
from minilm.checkpoints.sentence_models import POOLINGS, read_pooling, read_sentence_model
from minilm.devices import runtime
from minilm.errors import UserError
from minilm.evaluation.embeddings import embed_texts
from tests.checkpoints.sentence_folders import sentence_model
from tests.data.tokenizer_folders import write_json

sentence_transformers = pytest.importorskip("sentence_transformers")

CPU = runtime("cpu", "float32")
TEXTS = ["it was a good day", "no", "what is it?", "so much rain today 9", "longer than the others, so that it is cut"]
TANH, IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
CLS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
LABSE = {"in_features": 24, "out_features": 10, "bias": True, "activation_function": TANH}
SENTENCE_T5 = {"in_features": 24, "out_features": 40, "bias": False, "activation_function": IDENTITY}
PROMPTS = {"prompts": {"query": "ask: ", "document": ""}, "default_prompt_name": "query"}
SHAPES: dict[str, dict[str, Any]] = {
    "bge": {"pooling": CLS, "normalize": True},
    "labse": {"pooling": CLS, "dense": [LABSE], "normalize": True},
    "minilm": {"pooling": {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "normalize": True},
    "sentence-t5": {"backbone": "t5-encoder", "pooling": {"pooling_mode": "mean"}, "dense": [SENTENCE_T5],
                    "normalize": True},
    "two dense layers": {"pooling": {"pooling_mode": "mean"}, "normalize": True,
                         "dense": [SENTENCE_T5, {**LABSE, "in_features": 40}]},
    "e5, prompted": {"pooling": {"pooling_mode": "mean"}, "prompts": PROMPTS},
    "instructor": {"backbone": "t5-encoder", "prompts": PROMPTS,
                   "pooling": {"pooling_mode": ["mean", "cls", "lasttoken"], "include_prompt": False}},
    "joined": {"pooling": {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True,
                           "pooling_mode_cls_token": True}},
    "small letters": {"pooling": {"pooling_mode": "mean"}, "settings": {"do_lower_case": True}},
    "decoder": {"backbone": "llama", "pooling": {"pooling_mode_lasttoken": True}},
    "says nothing": {"pooling": {}},
    **{f"{mode}, {backbone}": {"backbone": backbone, "pooling": {"pooling_mode": mode}}
       for mode in POOLINGS for backbone in ("bert", "t5-encoder")},
}  # fmt: skip


def made(folder: Path, shape: dict[str, Any]) -> Path:
    given = dict(shape)
    return sentence_model(folder / "model", given.pop("backbone", "bert"), given.pop("pooling"), **given)


def vectors(folder: Path) -> np.ndarray:
    return embed_texts(load_model(folder, "encode"), minilm.load_tokenizer(folder), TEXTS, CPU)


@pytest.mark.parametrize("name", SHAPES)
def test_the_vectors_are_those_of_sentence_transformers(name: str, tmp_path: Path) -> None:
    folder = made(tmp_path, SHAPES[name])
    wanted = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(vectors(folder), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dense", [[], [LABSE]])
def test_a_prompt_for_classification_is_taken_if_none_is_the_default(dense: list, tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "ask: ", "Classification": "class of: "}, "default_prompt_name": None}
    folder = made(tmp_path, {"pooling": CLS, "dense": dense, "prompts": prompts})
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(vectors(folder), theirs.encode(TEXTS, prompt_name="Classification"), atol=1e-5)
    line = str(read_sentence_model(folder))
    assert "the prompt 'Classification' is put before each text: 'class of: '; prompts that are not used: query" in line
    assert line.startswith("a text's vector is: cls" + ", a dense layer" * len(dense)) and "modules.json" in line


def test_a_folder_without_modules_gives_the_mean(tmp_path: Path) -> None:
    folder = made(tmp_path, {"pooling": {"pooling_mode": "mean"}})
    wanted = vectors(folder)[:3]
    (folder / "modules.json").unlink()
    np.testing.assert_array_equal(vectors(folder)[:3], wanted)  # the others are cut at another length
    assert "no modules.json" in str(read_sentence_model(folder)) and read_pooling(folder) == read_pooling(None) == ""


@pytest.mark.parametrize(
    ("pooling", "wanted"),
    [(CLS, "cls"), ({"pooling_mode": "lasttoken"}, "last"), ({}, "mean"), ({"pooling_mode": ["max"]}, "max"),
     ({"pooling_mode": ["mean", "cls"]}, "")],
)  # fmt: skip
def test_a_new_head_pools_alike(pooling: dict[str, Any], wanted: str, tmp_path: Path) -> None:
    assert read_pooling(made(tmp_path, {"pooling": pooling})) == wanted


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("modules.json", "[", "modules.json: must be a list of modules, each with a type and a path"),
        ("modules.json", '{"a": 1}', "must be a list of modules"),
        ("modules.json", '[{"type": "x.Transformer", "path": "../up"}]', 'names the path "../up", which is outside'),
        ("modules.json", '[{"type": "x.Transformer", "path": ""}]', "has no Pooling module"),
        ("modules.json", '[{"type": "x.Transformer", "path": ""}, {"type": "x.CNN", "path": "1_CNN"}]',
         'the module CNN in "1_CNN" is not supported'),
        ("1_Pooling/config.json", "{", "1_Pooling/config.json: not valid JSON"),
        ("1_Pooling/config.json", '{"pooling_mode": "median"}', "pooling_mode 'median' is not supported.*mean"),
        ("1_Pooling/config.json", '{"pooling_mode": 3}', "pooling_mode must be one of cls, max, mean"),
        ("1_Pooling/config.json", '{"pooling_mode_new_tokens": true}', "'pooling_mode_new_tokens' is not supported"),
        ("1_Pooling/config.json", '{"include_prompt": 1}', "include_prompt must be true or false"),
        ("2_Dense/config.json", '{"in_features": 24, "out_features": 11}', r"linear.weight is \[10, 24\], but .*\[11"),
        ("2_Dense/config.json", '{"in_features": 24, "out_features": 10, "bias": false}', "has linear.bias, linear"),
        ("2_Dense/config.json", '{"activation_function": "my.Own"}', "activation_function my.Own is not supported"),
        ("2_Dense/config.json", '{"use_residual": true}', "use_residual true is not supported; only false is"),
        ("2_Dense/config.json", '{"module_input_name": "token_embeddings"}', "module_input_name .* is not supported"),
        ("2_Dense/model.safetensors", "", "not a complete safetensors file"),
        ("sentence_bert_config.json", '{"max_seq_length": "many"}', "max_seq_length must be a whole number"),
        ("sentence_bert_config.json", '{"max_seq_length": 128, "do_lower_case": null}',
         "do_lower_case must be true or false"),
        ("config_sentence_transformers.json", '{"prompts": {"a": 1}}', "prompts must be a table of texts"),
        ("config_sentence_transformers.json", '{"default_prompt_name": "q"}', "default_prompt_name 'q' is not one of"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line(name: str, content: str, message: str, tmp_path: Path) -> None:
    folder = made(tmp_path, {"pooling": CLS, "dense": [LABSE]})
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        read_sentence_model(folder)
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)


@pytest.mark.parametrize("name", ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"])
def test_a_missing_file_is_one_line(name: str, tmp_path: Path) -> None:
    folder = made(tmp_path, {"pooling": CLS, "dense": [LABSE]})
    (folder / name).unlink()
    with pytest.raises(UserError, match=str(folder / name)):
        read_sentence_model(folder)
    if name.startswith("2"):
        assert read_pooling(folder) == "cls"  # a new head does not need it


def test_a_dense_layer_that_is_pickled_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = made(tmp_path, {"pooling": CLS, "dense": [LABSE]})
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"stored only in pytorch_model.bin, which can run code.*save_pretrained"):
        read_sentence_model(folder)


@pytest.fixture(scope="module")
def labse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("any"), {"pooling": CLS, "dense": [LABSE], "prompts": PROMPTS})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([
    "pooling_mode", "include_prompt", "pooling_mode_cls_token", "type", "path", "prompts", "default_prompt_name",
    "max_seq_length", "in_features", "bias", "activation_function",
])  # fmt: skip


@given(
    name=st.sampled_from(["modules.json", "1_Pooling/config.json", "2_Dense/config.json", "sentence_bert_config.json",
                          "config_sentence_transformers.json"]),
    content=JSON | st.dictionaries(KEYS, JSON, max_size=3) | st.lists(st.dictionaries(KEYS, JSON, max_size=3)),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_any_json_in_any_file_is_read_or_refused(name: str, content: Any, labse: Path) -> None:
    usual = (labse / name).read_text()
    (labse / name).write_text(json.dumps(content))
    try:
        str(read_sentence_model(labse))
    except UserError as error:
        assert str(labse) in str(error)
    finally:
        (labse / name).write_text(usual)


def test_what_a_modules_file_leaves_alone_is_not_read(tmp_path: Path) -> None:
    folder = made(tmp_path, {"pooling": CLS})
    write_json(folder / "2_Dense", "config.json", {"activation_function": "my.Own"})
    assert read_sentence_model(folder).steps == ()
