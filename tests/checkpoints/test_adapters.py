"""Adapters: ours open in PEFT and PEFT's open here, with the same logits; what does not fit is told by name."""

from __future__ import annotations

import copy
import functools
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from minilm.checkpoints.adapter_configs import read_adapter_config
from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.adapter_tensors import places_for
from minilm.checkpoints.adapters import base_of, load_adapted_model, load_adapter
from minilm.checkpoints.files import read_tensors, write_json, write_tensors
from minilm.checkpoints.models import card_of, load_model, new_model, save_model
from minilm.checkpoints.names import places_of_ours
from minilm.errors import UserError
from minilm.finetuning.lora import (
    DoRALinear,
    LoRAConfig,
    LoRALinear,
    adapted_layers,
    adapter_parameters,
    add_lora,
    merge,
)
from minilm.model_files import holds_adapter
from minilm.models import ARCHITECTURES
from minilm.models.batch import Batch
from minilm.models.heads import HeadConfig
from minilm.textfiles import read_json
from tests.families import ENCODER_DECODERS

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unexpected keyword arguments .'minilm'.:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]

REFERENCE = Path(__file__).parents[1] / "reference"
CLASSIFIERS = sorted(path.parent.name for path in REFERENCE.glob("*-classify/config.json"))
ENDING = [f"{family}-classify" for family in ENCODER_DECODERS]  # their texts end with a token of its own
OWN_HEAD = HeadConfig(pooling="mean", hidden=7, norm=True)


def batch_of(case: str) -> Batch:
    expected = read_tensors(REFERENCE / case / "expected.safetensors")
    mask = torch.arange(expected["ids"].shape[1]) < expected["lengths"][:, None]
    pad = read_json(REFERENCE / case / "config.json").get("pad_token_id") or 0
    return Batch(expected["ids"].masked_fill(~mask, pad), mask, decoder_ids=expected.get("decoder_ids"))


@functools.cache
def _ours(case: str) -> Any:
    return load_model(REFERENCE / case, dtype=torch.float32)


@functools.cache
def _theirs(case: str, kind: str) -> Any:
    return getattr(transformers, kind).from_pretrained(REFERENCE / case, dtype=torch.float32).eval()


def ours(case: str, **kwargs: Any) -> Any:
    if kwargs:
        torch.manual_seed(0)  # for a new head
        return load_model(REFERENCE / case, dtype=torch.float32, **kwargs)
    return copy.deepcopy(_ours(case))


def theirs(case: str, kind: str = "AutoModelForSequenceClassification") -> Any:
    return copy.deepcopy(_theirs(case, kind))


def run(model: nn.Module, batch: Batch) -> Tensor:
    """What one of our models computes, at real tokens."""
    with torch.no_grad():
        output: Tensor = model(batch)
    return output[batch.mask] if output.dim() == 3 and batch.decoder_ids is None else output


def run_theirs(model: Any, batch: Batch) -> Tensor:
    more = {} if batch.decoder_ids is None else {"decoder_input_ids": batch.decoder_ids}
    with torch.no_grad():
        found = model(input_ids=batch.ids, attention_mask=batch.mask.long(), **more)
    output: Tensor = found.logits if "logits" in found else found.last_hidden_state
    return output[batch.mask] if output.dim() == 3 and batch.decoder_ids is None else output


def trained(model: nn.Module) -> nn.Module:
    """Random numbers in all that is trained, so that each of them shows."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def adapted(case: str, *, head: HeadConfig | None = None, **settings: Any) -> Any:
    model = ours(case, task="classify", head=head, labels=["a", "b"]) if head else ours(case)
    add_lora(model, LoRAConfig(**{"rank": 3, "alpha": 5.0, "targets": ("query", "value"), **settings}))
    return trained(model)


def in_peft(case: str, **settings: Any) -> Any:
    """PEFT's adapter of a classifier, trained."""
    saved = {"modules_to_save": ["classification_head"]} if case in ENDING else {}
    config = peft.LoraConfig(**{"task_type": "SEQ_CLS", "r": 3, "lora_alpha": 5, **saved, **settings})
    model = peft.get_peft_model(theirs(case), config)
    model.create_or_update_model_card = lambda folder: None  # a README, made slowly
    return trained(model)


def published(case: str, name: str) -> str:
    """What the family's classifier calls one of our modules."""
    return places_of_ours(f"{name}.weight", places_for(_ours(case), prefixed=True))[0].their_module


def last(case: str, *kinds: str) -> list[str]:
    """The last parts of the published names of some kinds of modules."""
    stack = "encoder." if case in ENDING else ""
    return sorted({published(case, f"{stack}layers.0.{kind}").rpartition(".")[2] for kind in kinds})


def assert_same_tensors(one: nn.Module, other: nn.Module) -> None:
    a, b = one.state_dict(), other.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


FAMILIES = [f"{family}-classify" for family in ARCHITECTURES]
OURS: dict[str, dict[str, Any]] = {
    "all, rank-stabilised": {"targets": ("all-linear",), "rank_stabilized": True, "alpha": 2.3, "dropout": 0.2},
    "query and value": {},
    "a few": {"targets": ("output", "up", "key"), "rank": 1, "layers": (1,)},
    "DoRA": {"targets": ("query", "value", "up"), "dora": True, "dropout": 0.1},
}
OURS_CASES = [
    *((case, "all, rank-stabilised") for case in CLASSIFIERS),
    *((case, kind) for case in FAMILIES for kind in ("query and value", "DoRA")),
    ("gpt2-classify", "a few"),
]


@pytest.mark.parametrize(("case", "kind"), OURS_CASES)
def test_ours_open_in_peft_and_come_back_exactly(case: str, kind: str, tmp_path: Path) -> None:
    model, batch = adapted(case, **OURS[kind]), batch_of(case)
    plain, expected = run(_ours(case), batch), run(model, batch)
    assert (plain - expected).abs().max() > 0.1
    save_adapter(model, tmp_path)
    assert holds_adapter(tmp_path) and base_of(tmp_path) == str(REFERENCE / case)
    opened = peft.PeftModel.from_pretrained(theirs(case), tmp_path)
    torch.testing.assert_close(run_theirs(opened, batch), expected, rtol=1e-5, atol=1e-5)
    again = load_adapted_model(tmp_path, dtype=torch.float32)
    assert_same_tensors(model, again)
    # A copy, as the model is: a product may round by where its numbers lie, and a file's begin at no round address.
    assert torch.equal(run(copy.deepcopy(again), batch), expected) and not again.training
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, p in again.named_parameters() if p.requires_grad
    }
    for one, other in zip(adapted_layers(model).values(), adapted_layers(again).values(), strict=True):
        assert (one.rank, one.alpha, one.scale) == (other.rank, other.alpha, other.scale)
        assert (type(one), one.dropout.p) == (type(other), other.dropout.p)


QV = ("attention.query", "attention.value")
PEFTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "query and value": lambda case: {"target_modules": last(case, *QV), "lora_dropout": 0.1},
    "all linear, all biases": lambda case: {
        "target_modules": "all-linear",
        "exclude_modules": ["pre_classifier"],  # or PEFT adapts DistilBERT's head and then fails
        "bias": "all",
        "use_rslora": True,
    },
    "one layer, own biases": lambda case: {
        "target_modules": last(case, *QV, "mlp.up"),
        "bias": "lora_only",
        "layers_to_transform": [0 if case.startswith("albert") else 1],
    },
    "patterns": lambda case: {
        "target_modules": rf".*\.({'|'.join(last(case, 'attention.query', 'mlp.up', 'mlp.down'))})",
        "rank_pattern": {last(case, "mlp.up")[0]: 5},
        "alpha_pattern": {r".*\.0\..*": 11, last(case, "attention.query")[0]: 2},
        "use_rslora": True,
    },
}
PEFTS["DoRA"] = lambda case: {"target_modules": last(case, *QV, "mlp.down"), "use_dora": True, "use_rslora": True}
PEFTS_CASES = [
    *((case, "all linear, all biases") for case in CLASSIFIERS),
    *((case, kind) for case in FAMILIES for kind in ("one layer, own biases", "patterns", "DoRA")),
    *((case, "query and value") for case in ("bert-classify", "gpt2-classify")),
]


@pytest.mark.parametrize(("case", "kind"), PEFTS_CASES)
def test_pefts_open_here_and_go_back(case: str, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, batch = in_peft(case, **PEFTS[kind](case)), batch_of(case)
    model.save_pretrained(tmp_path / "theirs")
    expected = run_theirs(model, batch)
    with caplog.at_level(logging.WARNING):
        opened = load_adapted_model(tmp_path / "theirs", dtype=torch.float32)
    assert not [record for record in caplog.records if record.name == "minilm"]
    assert card_of(opened).labels == card_of(_ours(case)).labels
    torch.testing.assert_close(run(opened, batch), expected, rtol=1e-5, atol=1e-5)
    save_adapter(opened, tmp_path / "ours")
    if case in ("bert-classify", "gpt2-classify"):  # others have no biases, or none beside the adapted layers'
        assert read_adapter_config(tmp_path / "ours").bias == model.peft_config["default"].bias
    assert_same_tensors(load_adapted_model(tmp_path / "ours", dtype=torch.float32), opened)
    back = peft.PeftModel.from_pretrained(theirs(case), tmp_path / "ours")
    torch.testing.assert_close(run_theirs(back, batch), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("gpt2-lm-untied", "AutoModelForCausalLM"),
        ("llama-lm-biases", "AutoModelForCausalLM"),
        ("bert-lm", "AutoModelForMaskedLM"),
        ("t5-lm-flan", "AutoModelForSeq2SeqLM"),
        ("gpt2", "AutoModel"),
        ("bert", "AutoModel"),
    ],
)
def test_language_models_and_backbones_too(case: str, kind: str, tmp_path: Path) -> None:
    model, batch = adapted(case, targets=("all-linear",)), batch_of(case)
    save_adapter(model, tmp_path)
    opened = peft.PeftModel.from_pretrained(theirs(case, kind), tmp_path)
    # An adapter of random numbers on every layer of T5, which scales nothing down, magnifies how float32 rounds: on
    # some processors both lie 1.8e-5 from what float64 gives.
    least = 5e-5 if case.startswith("t5") else 1e-5
    torch.testing.assert_close(run_theirs(opened, batch), run(model, batch), rtol=1e-5, atol=least)
    assert_same_tensors(load_adapted_model(tmp_path, dtype=torch.float32), model)


@pytest.mark.parametrize("case", ["gpt2", "bert", "distilbert-classify", "llama-classify"])
def test_our_own_head_lies_beside_and_peft_opens_the_backbone(case: str, tmp_path: Path) -> None:
    model, batch = adapted(case, head=OWN_HEAD), batch_of(case)
    card_of(model).extra["max_tokens"] = 77
    card_of(model).published["problem_type"] = kind = "multi_label_classification"
    save_adapter(model, tmp_path, base=str(REFERENCE / case))
    assert all(".lora_" in name for name in read_tensors(tmp_path / "adapter_model.safetensors"))
    again = load_adapted_model(tmp_path, dtype=torch.float32)
    assert torch.equal(run(again, batch), run(model, batch))
    assert_same_tensors(model, again)
    card = card_of(again)
    assert card.labels == ["a", "b"] and card.extra["max_tokens"] == 77
    assert card.published["problem_type"] == kind
    opened = peft.PeftModel.from_pretrained(theirs(case, "AutoModel"), tmp_path)
    model.head = None
    torch.testing.assert_close(run_theirs(opened, batch), run(model, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("case", ["distilbert-classify", "t5-classify"])
def test_training_goes_as_in_peft(case: str, dora: bool, tmp_path: Path) -> None:
    in_peft(case, target_modules=last(case, *QV), use_rslora=True, use_dora=dora).save_pretrained(tmp_path)
    batch, labels = batch_of(case), torch.tensor([0, 2, 1])
    model = load_adapted_model(tmp_path)
    other = peft.PeftModel.from_pretrained(theirs(case), tmp_path, is_trainable=True).eval()
    trained = [[p for p in m.parameters() if p.requires_grad] for m in (model, other)]
    assert sorted(p.numel() for p in trained[0]) == sorted(p.numel() for p in trained[1])
    one, two = (torch.optim.AdamW(parameters, lr=0.01) for parameters in trained)
    for _ in range(8):
        losses = [
            nn.functional.cross_entropy(model(batch), labels),
            other(input_ids=batch.ids, attention_mask=batch.mask.long(), labels=labels).loss,
        ]
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
        for optimizer, loss in zip((one, two), losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert losses[0] < 0.5


@pytest.mark.usefixtures("torch_dropout")
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_gradients_are_those_of_peft(dora: bool, dropout: float) -> None:
    torch.manual_seed(0)
    base, x = nn.Linear(6, 5), torch.randn(3, 6)
    config = peft.LoraConfig(r=2, lora_alpha=3, lora_dropout=dropout, target_modules=["0"], use_dora=dora)
    theirs = peft.inject_adapter_in_model(config, nn.Sequential(copy.deepcopy(base)))[0]
    layer = (DoRALinear if dora else LoRALinear)(base, 2, 3.0, dropout=dropout)
    pairs = [(layer.lora_a, theirs.lora_A["default"].weight), (layer.lora_b, theirs.lora_B["default"].weight)]
    if dora:
        torch.testing.assert_close(layer.lora_magnitude, theirs.lora_magnitude_vector["default"].weight)
        pairs.append((layer.lora_magnitude, theirs.lora_magnitude_vector["default"].weight))
    for one, other in pairs:
        nn.init.uniform_(one, 0.2, 1)
        other.data.copy_(one.data)
    for module in (layer.train(), theirs.train()):
        torch.manual_seed(1)  # for the dropout
        module(x).square().sum().backward()
    for one, other in pairs:
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)


def test_a_merged_model_is_saved_as_any_other(tmp_path: Path) -> None:
    model, batch = adapted("gpt2-classify", targets=("all-linear",)), batch_of("gpt2-classify")
    expected = run(model, batch)
    merge(model)
    save_model(model, tmp_path)
    torch.testing.assert_close(run(load_model(tmp_path), batch), expected, rtol=1e-5, atol=1e-5)


# --- GPT-2's fused c_attn ------------------------------------------------------------------------------------------


def test_a_fused_module_is_read_with_the_shared_a(tmp_path: Path) -> None:
    in_peft("gpt2-classify", target_modules=["c_attn"]).save_pretrained(tmp_path)
    stored = read_tensors(tmp_path / "adapter_model.safetensors")
    model = ours("gpt2-classify")
    load_adapter(model, tmp_path)
    module = "base_model.model.transformer.h.1.attn.c_attn"
    attention = model.layers[1].attention
    for part, layer in enumerate((attention.query, attention.key, attention.value)):
        assert torch.equal(layer.lora_a, stored[f"{module}.lora_A.weight"])
        assert torch.equal(layer.lora_b, stored[f"{module}.lora_B.weight"][24 * part : 24 * (part + 1)])


@pytest.mark.parametrize(("stabilized", "alpha"), [(False, 10), (True, 5 * 2**0.5)])
def test_a_fused_module_is_written_in_blocks(stabilized: bool, alpha: float, tmp_path: Path) -> None:
    model = adapted("gpt2-classify", targets=("value", "query", "down"), rank_stabilized=stabilized)
    save_adapter(model, tmp_path)
    config = read_adapter_config(tmp_path)
    module, attention = "transformer.h.0.attn.c_attn", model.layers[0].attention
    stored = read_tensors(tmp_path / "adapter_model.safetensors")
    a, b = (stored[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
    assert torch.equal(a, torch.cat([attention.query.lora_a, attention.value.lora_a]))
    zeros = torch.zeros(24, 3)
    rows = [[attention.query.lora_b, zeros], [zeros, zeros], [zeros, attention.value.lora_b]]
    assert torch.equal(b, torch.cat([torch.cat(row, dim=1) for row in rows]))
    assert config.rank_of(module) == 6 and config.alpha_of(module) == pytest.approx(alpha)
    assert config.rank_of("transformer.h.0.mlp.c_proj") == 3 and config.blocks[module] == [0, 2]


@given(
    rank=st.integers(1, 5),
    alpha=st.floats(1e-3, 1e3),
    targets=st.sets(st.sampled_from(["query", "key", "value", "output", "up", "layers.1.*.query"]), min_size=1),
    rank_stabilized=st.booleans(),
    layers=st.sampled_from([(), (1,), (0, 1)]),
)
@settings(max_examples=20)
def test_any_adapter_comes_back(tmp_path_factory: pytest.TempPathFactory, targets: set[str], **kwargs: Any) -> None:
    folder, model = tmp_path_factory.getbasetemp() / "any", adapted("gpt2-classify", targets=tuple(targets), **kwargs)
    save_adapter(model, folder)
    again = ours("gpt2-classify")
    load_adapter(again, folder)
    assert_same_tensors(model, again)
    for one, other in zip(adapted_layers(model).values(), adapted_layers(again).values(), strict=True):
        assert one.rank == other.rank and one.scale == pytest.approx(other.scale, rel=1e-10)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [([0, 1], "is not zero outside the blocks"), ([0, 3], "must list parts"), ([0, 1, 2, 2], "must list parts")],
)
def test_blocks_that_are_not_there_are_told(blocks: list[int], message: str, tmp_path: Path) -> None:
    save_adapter(adapted("gpt2-classify"), tmp_path)
    edit(tmp_path, lambda config, _: config["minilm"]["blocks"].update({"transformer.h.0.attn.c_attn": blocks}))
    assert_refused("gpt2-classify", tmp_path, message)


# --- What is refused -----------------------------------------------------------------------------------------------


def edit(folder: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], Any]) -> None:
    """Change an adapter's config and tensors in place."""
    config, tensors = read_json(folder / "adapter_config.json"), read_tensors(folder / "adapter_model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(config, tensors)
    write_json(folder / "adapter_config.json", config)
    write_tensors(folder / "adapter_model.safetensors", tensors)


def assert_refused(case: str, folder: Path, message: str, **kwargs: Any) -> None:
    """One clear line that names the folder, and a model as it was."""
    model, untouched = ours(case, **kwargs), ours(case, **kwargs)
    with pytest.raises(UserError, match=message) as caught:
        load_adapter(model, folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert card_of(model) == card_of(untouched)
    assert_same_tensors(model, untouched)


@pytest.fixture(scope="module")
def bert_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PEFT's, of the tiny BERT classifier."""
    folder = tmp_path_factory.mktemp("bert")
    in_peft("bert-classify", target_modules=["query", "value"]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("use_dora", True, "lacks base_model.model.bert.encoder.layer.0.attention.self.query.lora_magnitude_vector;"),
        ("use_dora", "yes", "use_dora must be true or false, got .yes."),
        ("peft_type", "LOHA", "peft_type must be LORA, the only kind"),
        ("layer_replication", [[0, 2], [1, 2]], "layer_replication"),
        ("megatron_config", {"a": 1}, "megatron_config"),
        ("trainable_token_indices", [1, 2], "lacks the tokens of trainable_token_indices"),
        ("trainable_token_indices", "all", "trainable_token_indices must be a list of tokens, or one for each table"),
        ("target_parameters", ["weight"], "target_parameters"),
        ("lora_bias", True, "lacks base_model.model.bert.encoder.layer.0.attention.self.query.lora_B.bias;"),
        ("use_qalora", True, "use_qalora"),
        ("alora_invocation_tokens", [3], "alora_invocation_tokens"),
        ("tomorrows_method", {"x": 1}, "tomorrows_method"),
        ("init_lora_weights", "pissa_niter_16", 'init_lora_weights "pissa_niter_16" changes'),
        ("init_lora_weights", "corda", 'init_lora_weights "corda"'),
        ("init_lora_weights", "loftq", 'init_lora_weights "loftq"'),
        ("r", 4, "lora_A.weight has the rank 3, but .*adapter_config.json says 4"),
        ("r", "3", 'r must be a whole number from 1, got "3"'),
        ("rank_pattern", {"layer.1.*query": 7}, "layer.1.attention.self.query.lora_A.weight has the rank 3, but"),
        ("rank_pattern", {"(": 7}, "rank_pattern contains an invalid regular expression"),
        ("alpha_pattern", {"query": "much"}, "alpha_pattern must be a table of numbers"),
        ("lora_alpha", None, "lora_alpha must be a number, got None"),
        ("bias", "some", "bias must be"),
        ("target_modules", ["query", "value", "key"], "adapts .*attention.self.key, but .* no tensors"),
        ("target_modules", ["query"], "does not adapt bert.encoder.layer.0.attention.self.value, but"),
        ("target_modules", 7, "target_modules must be a list of names, or a pattern"),
        ("modules_to_save", ["pooler"], "lacks base_model.model.bert.pooler.dense.weight, which"),
        ("minilm", {"model_type": "gpt2"}, "is for a gpt2 model, but this is a bert model"),
        ("minilm", {"labels": ["a", "b"]}, "has 2 labels, but the model has 3"),
        ("minilm", {"labels": ["a", "b", "a"]}, "labels must be a list of different names"),
        ("minilm", {"head": {"hidden": 3}}, r"the adapter has its own head \(HeadConfig.* which this model do"),
        ("minilm", {"head": {"pooling": 2**31}}, "minilm.head: pooling must be one of cls, last, .*, got '2147483648'"),
        ("minilm", {"task": "dance"}, "minilm: task must be one of"),
        ("minilm", {"base_sample": [0.5] * 8}, "which has other weights than this model"),
    ],
)
def test_a_config_that_cannot_be_right_is_refused_by_name(
    key: str, value: Any, message: str, bert_adapter: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(bert_adapter, tmp_path / "adapter")
    edit(folder, lambda config, _: config.update({key: value}))
    assert_refused("bert-classify", folder, message)


def scaled(factor: float) -> Any:
    """A base whose weights are all so many times larger."""
    model = ours("bert-classify")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    return model


@pytest.mark.parametrize(
    ("made_for", "given", "dtype", "is_taken"),
    [
        (1, 1, torch.bfloat16, True),
        (1, 1, torch.float16, True),
        (1, 1 + 2**-8, torch.float32, True),
        (1, 1.006, torch.float32, False),
        (1, 0.994, torch.float32, False),
        (1e-5, 1e-5, torch.float16, True),  # numbers below 2^-14 have fewer bits there
        (1e-4, 1.1e-4, torch.float32, False),
    ],
)
def test_a_base_is_taken_if_its_weights_differ_by_no_more_than_rounding(
    made_for: float, given: float, dtype: torch.dtype, is_taken: bool, tmp_path: Path
) -> None:
    model, other = scaled(made_for), scaled(given).to(dtype)
    add_lora(model, LoRAConfig(rank=3))
    save_adapter(model, tmp_path)
    if is_taken:
        load_adapter(other, tmp_path)
    else:
        with pytest.raises(UserError, match="which has other weights than this model"):
            load_adapter(other, tmp_path)


WORDS = "base_model.model.bert.embeddings.word_embeddings"
QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{QUERY}.lora_A.weight"), rf"lacks {QUERY}.lora_A.weight"),
        (lambda t: t.clear(), "contains no LoRA adapter"),
        (lambda t: t.update({"x.lora_A.weight": torch.ones(3, 24)}), "unexpected tensor x.lora_A.weight"),
        (lambda t: t.update({f"{QUERY}.lora_magnitude_vector": torch.ones(24)}), "but .* says use_dora = false"),
        (lambda t: t.update({f"{WORDS}.lora_embedding_A": torch.ones(3, 64)}), "needs lora_embedding_B"),
        (lambda t: t.update({f"{QUERY}.lora_A.weight": torch.ones(3, 9)}), r"\(3, 9\), but the model needs \(3, 24\)"),
        (lambda t: t.update({f"{QUERY}.lora_B.weight": torch.ones(9, 3)}), r"has the shape \(9, 3\)"),
        (lambda t: t.update({f"{QUERY}.lora_B.weight": torch.ones(24)}), r"has the shape \(24,\)"),
        (lambda t: t.update({f"{QUERY}.lora_A.weight": torch.ones(3, 24).char()}), "has the dtype int8; quantised"),
        (lambda t: t.update({f"{WORDS}.weight": torch.ones(65, 24)}), r"\(65, 24\), but the model needs \(64, 24\)"),
        (lambda t: t.pop("base_model.model.classifier.bias"), "lacks base_model.model.classifier.bias"),
        (lambda t: t.update({"base_model.model.score.weight": torch.ones(3, 24)}), "score.weight is not a tensor of"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    change: Callable[[dict[str, Tensor]], Any], message: str, bert_adapter: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(bert_adapter, tmp_path / "adapter")
    edit(folder, lambda _, tensors: change(tensors))
    assert_refused("bert-classify", folder, message)


def test_an_adapter_for_another_model_is_refused(bert_adapter: Path, tmp_path: Path) -> None:
    other = f"this distilbert model does not have; the adapter is for {REFERENCE}/bert-classify"
    assert_refused("distilbert-classify", bert_adapter, other)
    assert_refused("bert", bert_adapter, "classifier.bias belongs to a part that this bert model does not have")
    two = {"task": "classify", "labels": ["a", "b"]}
    assert_refused("bert", bert_adapter, r"classifier.bias has the shape \(3,\), but the model needs \(2,\)", **two)
    save_adapter(adapted("bert-classify"), tmp_path)
    model = ours("bert-classify")
    model.layers[0].attention.query.weight.data += 0.1
    with pytest.raises(UserError, match="which has other weights than this model"):
        load_adapter(model, tmp_path)
    load_adapter(load_model(REFERENCE / "bert-classify", dtype=torch.bfloat16), tmp_path)  # rounded, but the same


def test_an_adapter_of_a_base_that_was_trained_further_is_refused(tmp_path: Path) -> None:
    save_adapter(adapted("bert-classify"), tmp_path)
    torch.manual_seed(0)
    noisy, other, reads_otherwise = (ours("bert-classify") for _ in range(3))
    for parameter in noisy.parameters():  # about what a short adaptation does
        parameter.data += 0.01 * parameter.data.std(correction=0) * torch.randn_like(parameter)
    other.layers[-1].attention.value.weight.data.normal_()
    reads_otherwise.embeddings.token.weight.data.normal_()
    for model in (noisy, other, reads_otherwise):
        with pytest.raises(UserError, match="which has other weights than this model"):
            load_adapter(model, tmp_path)


def test_a_token_table_that_is_trained_with_the_adapter_tells_nothing_of_the_base(tmp_path: Path) -> None:
    model = adapted("bert-classify")
    model.embeddings.token.weight.requires_grad_(True)
    model.embeddings.token.weight.data += 1
    save_adapter(model, tmp_path)
    assert_same_tensors(load_adapted_model(tmp_path), model)


def test_our_head_and_a_familys_are_not_mistaken_for_each_other(tmp_path: Path) -> None:
    own = {"task": "classify", "head": OWN_HEAD, "labels": ["a", "b", "c"]}
    model = ours("bert", **own)
    add_lora(model, LoRAConfig())
    save_adapter(model, tmp_path / "own")
    save_adapter(adapted("bert-classify"), tmp_path / "family")
    assert_refused("bert-classify", tmp_path / "own", "the adapter has its own head")
    assert_refused("bert", tmp_path / "family", "classifier.bias belongs to a part that", **own)
    stored = read_tensors(tmp_path / "own" / "head.safetensors")
    write_tensors(tmp_path / "own" / "head.safetensors", {n: t for n, t in stored.items() if n != "dense.bias"})
    assert_refused("bert", tmp_path / "own", "lacks the tensor dense.bias", **own)
    (tmp_path / "own" / "head.safetensors").unlink()
    assert_refused("bert", tmp_path / "own", "head.safetensors: no such file", **own)


def test_only_safetensors_are_read(bert_adapter: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert_adapter, tmp_path / "adapter")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    message = "no adapter_model.safetensors; .*can run code.*AutoPeftModel.from_pretrained"
    assert_refused("bert-classify", folder, message)


def test_missing_biases_and_heads_are_warned_of(
    bert_adapter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(bert_adapter, tmp_path / "adapter")
    edit(folder, lambda config, _: config.update(bias="lora_only"))
    load_adapter(ours("bert-classify"), folder)
    assert "lacks 4 trained biases, such as bert.encoder.layer.0.attention.self.query.bias" in caplog.messages[-1]

    def without_head(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        config.update(bias="none", task_type=None, modules_to_save=None)
        del tensors["base_model.model.classifier.weight"], tensors["base_model.model.classifier.bias"]

    edit(folder, without_head)
    load_adapter(ours("bert-classify"), folder)
    assert "contains no head; the model keeps its own head" in caplog.messages[-1]


def test_a_tensor_that_t5_ties_cannot_be_its_own(tmp_path: Path) -> None:
    save_adapter(adapted("t5-lm"), tmp_path)
    edit(tmp_path, lambda _, tensors: tensors.update({"base_model.model.lm_head.weight": torch.ones(64, 24)}))
    assert_refused("t5-lm", tmp_path, "lm_head.weight was trained separately; this t5 model ties it to another")


def test_modules_trained_whole_are_kept_and_parts_of_modules_are_not(tmp_path: Path) -> None:
    model = adapted("bert-classify")
    model.pooler.requires_grad_(True)
    model.layers[1].mlp_norm.requires_grad_(True)
    save_adapter(trained(model), tmp_path)
    batch = batch_of("bert-classify")
    opened = peft.PeftModel.from_pretrained(theirs("bert-classify"), tmp_path)
    torch.testing.assert_close(run_theirs(opened, batch), run(model, batch), rtol=1e-5, atol=1e-5)
    assert_same_tensors(load_adapted_model(tmp_path), model)
    model.layers[1].mlp_norm.bias.requires_grad_(False)
    with pytest.raises(UserError, match=r"PEFT's format cannot store layers.1.mlp_norm.bias"):
        save_adapter(model, tmp_path)
    model.layers[1].mlp_norm.requires_grad_(False)
    model.layers[0].attention.query.weight.requires_grad_(True)
    with pytest.raises(UserError, match=r"PEFT's format cannot store layers.0.attention.query"):
        save_adapter(model, tmp_path)


def test_a_head_that_peft_adapts_instead_of_training_it_is_opened_too(tmp_path: Path) -> None:
    case, batch = "t5-classify", batch_of("t5-classify")
    model = in_peft(case, target_modules="all-linear", modules_to_save=None)  # which PEFT does to T5 if not told else
    model.save_pretrained(tmp_path / "theirs")
    opened = load_adapted_model(tmp_path / "theirs")
    assert "head.dense" in adapted_layers(opened)
    torch.testing.assert_close(run(opened, batch), run_theirs(model, batch), rtol=1e-5, atol=1e-5)
    save_adapter(opened, tmp_path / "ours")
    assert_same_tensors(load_adapted_model(tmp_path / "ours"), opened)


# --- The base ------------------------------------------------------------------------------------------------------


def test_the_base_is_found(bert_adapter: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert_adapter, tmp_path / "run" / "adapter")
    for name, found in (("org/model", "org/model"), ("../base", str(folder / "../base"))):
        (tmp_path / "run" / "base").mkdir(exist_ok=True)
        edit(folder, lambda config, _, name=name: config.update(base_model_name_or_path=name))
        assert base_of(folder) == found
    edit(folder, lambda config, _: config.update(base_model_name_or_path=None))
    with pytest.raises(UserError, match="base_model_name_or_path must name the base model"):
        base_of(folder)


def test_a_base_that_is_nowhere_saved_is_told(tmp_path: Path) -> None:
    config = ARCHITECTURES["gpt2"].config(vocab_size=8, context=8, width=8, depth=1, heads=2)
    model = new_model("gpt2", config, "classify", labels=["a", "b"])
    with pytest.raises(ValueError, match="has no adapters"):
        save_adapter(model, tmp_path)
    add_lora(model, LoRAConfig())
    with pytest.raises(UserError, match="was never saved"):
        save_adapter(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_labels_are_numbered_where_nobody_names_them(tmp_path: Path) -> None:
    head = transformers.AutoModelForSequenceClassification.from_pretrained(REFERENCE / "bert", num_labels=5)
    model = trained(peft.get_peft_model(head, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])))
    model.save_pretrained(tmp_path)
    opened, batch = load_adapted_model(tmp_path), batch_of("bert")
    assert card_of(opened).labels == [f"LABEL_{i}" for i in range(5)]
    torch.testing.assert_close(run(opened, batch), run_theirs(model, batch), rtol=1e-5, atol=1e-5)


# --- PEFT's rules --------------------------------------------------------------------------------------------------

MODULES = [
    "bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.11.attention.self.query", "bert.pooler.dense",
    "bert.encoder.layer.1.attention.output.dense", "transformer.h.1.attn.c_attn", "h.1.attn.c_attn", "classifier.dense",
    "layers.0.experts.layers.1.query", "pre_classifier", "score",
]  # fmt: skip
ENDS = st.sampled_from([*(end for m in MODULES for end in (m, m.split(".")[-1], ".".join(m.split(".")[-2:]))), "uery"])
PATTERNS = st.sampled_from([r".*query", r".*\.(query|dense)", "query", r"bert\..*1.*", "c_attn", r".*h\.1\..*"])
NAMES = st.lists(ENDS, max_size=4)


@given(
    target_modules=NAMES | PATTERNS,
    exclude_modules=st.none() | NAMES | PATTERNS,
    modules_to_save=st.none() | st.lists(st.sampled_from(["classifier", "pooler", "output", "score"]), max_size=2),
    layers_to_transform=st.none() | st.integers(0, 2) | st.lists(st.sampled_from([0, 1, 11]), max_size=2),
    layers_pattern=st.none() | st.sampled_from(["layer", "h", "layers", ["x", "layer"], []]),
    rank_pattern=st.dictionaries(ENDS | PATTERNS, st.integers(1, 9), max_size=3),
    alpha_pattern=st.dictionaries(ENDS | PATTERNS, st.integers(1, 9), max_size=3),
)
@settings(max_examples=100)
def test_modules_are_chosen_as_in_peft(tmp_path_factory: pytest.TempPathFactory, **table: Any) -> None:
    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils.other import get_pattern_key

    if isinstance(table["target_modules"], str) or not table["layers_to_transform"]:
        table["layers_to_transform"] = table["layers_pattern"] = None
    folder = tmp_path_factory.getbasetemp()
    write_json(folder / "adapter_config.json", {"peft_type": "LORA", **table})
    ours, theirs = read_adapter_config(folder), peft.LoraConfig(**table)
    for module in MODULES:
        assert ours.targets(module) == bool(check_target_module_exists(theirs, module)), module
        assert ours.rank_of(module) == table["rank_pattern"].get(get_pattern_key(table["rank_pattern"], module), 8)
        assert ours.alpha_of(module) == table["alpha_pattern"].get(get_pattern_key(table["alpha_pattern"], module), 8)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.sampled_from(["", "query", "(", "all", "none"]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(["query", "head", "task"]), values),
    max_leaves=4,
)


@given(
    key=st.sampled_from(
        ["r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "bias", "modules_to_save", "minilm",
         "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "init_lora_weights", "use_rslora",
         "revision", "base_model_name_or_path", "task_type", "peft_type", "other"]
    ),
    value=JSON,
)  # fmt: skip
@settings(max_examples=40)
def test_no_config_ends_in_anything_but_an_adapter_or_a_user_error(bert_adapter: Path, key: str, value: Any) -> None:
    config = read_json(bert_adapter / "adapter_config.json") | {key: value}
    folder = bert_adapter / "fuzzed"
    folder.mkdir(exist_ok=True)
    shutil.copy(bert_adapter / "adapter_model.safetensors", folder)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    model = ours("bert-classify")
    try:
        load_adapter(model, folder)
    except UserError as error:
        assert re.match(rf"{folder}", str(error)) and not adapted_layers(model)
    else:
        assert len(adapter_parameters(model)) == 8
