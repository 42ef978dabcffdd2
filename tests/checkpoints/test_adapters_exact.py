"""Adapters of unusual choices: each is read and written exactly, as PEFT has it, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.adapters import load_adapted_model, load_adapter
from minilm.checkpoints.files import read_tensors
from minilm.checkpoints.models import card_of, save_model
from minilm.checkpoints.opening import load_model
from minilm.errors import UserError
from minilm.finetuning.lora import (
    LoRAConfig,
    adapt_layer,
    adapted_layers,
    add_lora,
    merge,
    train_adapters_only,
    unmerge,
)
from minilm.textfiles import read_json
from tests.checkpoints.test_adapters import (
    OWN_HEAD,
    REFERENCE,
    adapted,
    assert_refused,
    assert_same_tensors,
    batch_of,
    edit,
    in_peft,
    last,
    ours,
    peft,
    pytestmark,  # noqa: F401  # pytest reads it
    run,
    run_theirs,
    theirs,
    trained,
    transformers,
)

CLASSIFIER, ENCODER, SEQ2SEQ = "AutoModelForSequenceClassification", "AutoModel", "AutoModelForSeq2SeqLM"
MASKED, CAUSAL = "AutoModelForMaskedLM", "AutoModelForCausalLM"


def train(model: nn.Module, *names: str) -> Any:
    """Train these modules or parameters too, and give all that trains random numbers."""
    for name in names:
        parent, _, leaf = name.rpartition(".")
        getattr(model.get_submodule(parent), leaf).requires_grad_(True)
    return trained(model)


def trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def assert_written_exactly(model: Any, case: str, kind: str, folder: Path) -> None:
    """It opens here bit for bit, again after a second save, and in PEFT with the same numbers."""
    batch = batch_of(case)
    save_adapter(model, folder / "once", base=str(REFERENCE / case))
    again = load_adapted_model(folder / "once", dtype=torch.float32)
    save_adapter(again, folder / "twice", base=str(REFERENCE / case))
    for opened in (again, load_adapted_model(folder / "twice", dtype=torch.float32)):
        assert_same_tensors(opened, model)
        assert trainable(opened) == trainable(model)
    there = peft.PeftModel.from_pretrained(theirs(case, kind), folder / "once")
    torch.testing.assert_close(run_theirs(there, batch), run(model, batch), rtol=1e-5, atol=5e-5)


def assert_not_written(model: Any, case: str, message: str, folder: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        save_adapter(model, folder, base=str(REFERENCE / case))
    assert "\n" not in str(caught.value) and not list(folder.iterdir())


# --- T5's token table, of which its classes have copies ------------------------------------------------------------


def t5_in_peft(*saved: str) -> tuple[Any, dict[str, nn.Parameter]]:
    """PEFT's adapter with copies of the token table, and those."""
    model = in_peft("t5-classify", target_modules=["q"], modules_to_save=["classification_head", *saved])
    named = model.named_parameters(remove_duplicate=False)
    copies = {
        name: p for name, p in named if "modules_to_save" in name and ("embed_tokens" in name or "shared" in name)
    }
    assert copies
    return model, copies


@pytest.mark.parametrize("saved", [["embed_tokens"], ["encoder.embed_tokens"], ["shared"], ["shared", "embed_tokens"]])
def test_copies_of_t5s_table_that_were_trained_apart_are_refused(saved: list[str], tmp_path: Path) -> None:
    model, _ = t5_in_peft(*saved)
    model.save_pretrained(tmp_path)
    assert_refused("t5-classify", tmp_path, r"(embed_tokens|shared).weight differs from other copies of the same table")


@pytest.mark.parametrize("saved", [["embed_tokens"], ["shared"], ["shared", "embed_tokens"]])
def test_equal_copies_of_t5s_table_are_read(saved: list[str], tmp_path: Path) -> None:
    model, copies = t5_in_peft(*saved)
    table = ours("t5-classify").embeddings.token.weight.detach()
    for parameter in copies.values():  # "shared" alone is never read, so never trained
        parameter.data.copy_(table if saved == ["shared"] else table.flip(0))
    model.save_pretrained(tmp_path)
    opened, batch = load_adapted_model(tmp_path, dtype=torch.float32), batch_of("t5-classify")
    torch.testing.assert_close(run(opened, batch), run_theirs(model, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("case", "kind"), [("t5-classify", CLASSIFIER), ("t5-lm-flan", SEQ2SEQ)])
def test_a_trained_table_of_t5_is_written_where_peft_reads_it(case: str, kind: str, tmp_path: Path) -> None:
    assert_written_exactly(train(adapted(case), "embeddings.token"), case, kind, tmp_path)


# --- Modules in modules, and copies of biases ----------------------------------------------------------------------


@pytest.mark.parametrize("saved", [["encoder.layer.1", "attention"], ["embeddings"]])
@pytest.mark.parametrize("bias", ["none", "all"])
def test_modules_trained_inside_others_are_refused(saved: list[str], bias: str, tmp_path: Path) -> None:
    in_peft("bert-classify", target_modules=["intermediate.dense"], modules_to_save=saved, bias=bias).save_pretrained(
        tmp_path
    )
    assert_refused("bert-classify", tmp_path, r"belongs to a module inside another trained module; merge the adapter")


def test_only_all_biases_let_copies_of_biases_in(tmp_path: Path) -> None:
    in_peft("bert-classify", target_modules=["query"], modules_to_save=["pooler"], bias="all").save_pretrained(tmp_path)
    assert "base_model.model.bert.pooler.original_module.dense.bias" in read_tensors(
        tmp_path / "adapter_model.safetensors"
    )
    load_adapter(ours("bert-classify"), tmp_path)
    edit(tmp_path, lambda config, _: config.update(bias="none"))
    assert_refused("bert-classify", tmp_path, r"(original_module|modules_to_save)\.\S*bias belongs to a module")


# --- What an adapter is for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "kind", "target", "saved", "task"),
    [
        ("bert-classify", CLASSIFIER, "query", ["classifier"], "classify"),
        ("bert-lm", MASKED, "query", None, "lm"),
        ("t5-lm", SEQ2SEQ, "q", None, "lm"),
        ("bert", ENCODER, "query", None, "encode"),
    ],
)
def test_an_adapter_without_a_task_type_is_for_what_its_class_is_for(
    case: str, kind: str, target: str, saved: list[str] | None, task: str, tmp_path: Path
) -> None:
    model = peft.get_peft_model(
        theirs(case, kind), peft.LoraConfig(r=3, target_modules=[target], modules_to_save=saved)
    )
    trained(model).save_pretrained(tmp_path)
    for wanted in (None, task):
        opened, batch = load_model(tmp_path, wanted, dtype=torch.float32), batch_of(case)
        assert card_of(opened).task == task
        torch.testing.assert_close(run(opened, batch), run_theirs(model, batch), rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match=f'is an adapter for the task "{task}", and cannot be loaded for'):
        load_model(tmp_path, "lm" if task == "encode" else "encode")


@pytest.mark.parametrize(
    "told", [{}, {"task_type": "QUESTION_ANS"}, {"auto_mapping": {"base_model_class": "BertForNextSentencePrediction"}}]
)
def test_where_nobody_says_what_an_adapter_is_for_the_caller_does(told: dict[str, Any], tmp_path: Path) -> None:
    model = peft.get_peft_model(theirs("bert-lm", MASKED), peft.LoraConfig(r=3, target_modules=["query"]))
    trained(model).save_pretrained(tmp_path)
    edit(tmp_path, lambda config, _: config.update({"auto_mapping": None, **told}))
    with pytest.raises(UserError, match=r"adapter_config.json: task_type and auto_mapping name none of the supported"):
        load_model(tmp_path)
    opened, batch = load_model(tmp_path, "lm", dtype=torch.float32), batch_of("bert-lm")
    torch.testing.assert_close(run(opened, batch), run_theirs(model, batch), rtol=1e-5, atol=1e-5)


# --- Names that say no more than they should -----------------------------------------------------------------------


@pytest.mark.parametrize("task", ["encode", "classify"])
def test_a_name_that_also_means_frozen_modules_is_not_written(task: str, tmp_path: Path) -> None:
    own: Any = {"task": "classify", "head": OWN_HEAD, "labels": ["a", "b"]} if task == "classify" else {"task": task}
    model = ours("llama", **own)
    add_lora(model, LoRAConfig())
    message = r"layers.0.attention_norm.weight is not trained, but the names of the fully trained modules \(norm\)"
    assert_not_written(train(model, "norm"), "llama", message, tmp_path)


def test_a_part_of_a_language_head_is_written_by_its_own_name(tmp_path: Path) -> None:
    model = train(adapted("bert-lm"), "head.dense")
    assert_written_exactly(model, "bert-lm", MASKED, tmp_path)
    assert read_json(tmp_path / "once" / "adapter_config.json")["modules_to_save"] == [
        "cls.predictions.transform.dense"
    ]


def test_a_classification_head_that_is_adapted_in_part_is_written_by_its_parts(tmp_path: Path) -> None:
    there = in_peft("t5-classify", target_modules=["q", "dense"], modules_to_save=["out_proj"])
    there.save_pretrained(tmp_path / "theirs")
    model = load_adapted_model(tmp_path / "theirs", dtype=torch.float32)
    assert "head.dense" in adapted_layers(model)
    assert_written_exactly(model, "t5-classify", CLASSIFIER, tmp_path)


def test_a_fused_module_is_not_adapted_and_trained_whole_at_once(tmp_path: Path) -> None:
    model = train(adapted("gpt2-classify", targets=("query",)), "layers.1.attention.value")
    message = r"transformer.h.1.attn.c_attn is adapted, but the names of the fully trained modules"
    assert_not_written(model, "gpt2-classify", message, tmp_path)


@pytest.mark.parametrize("targets", [("query", "value"), ("query",), ("query", "key", "value")])
def test_biases_of_some_parts_of_a_fused_module_are_saved_again_and_again(
    targets: tuple[str, ...], tmp_path: Path
) -> None:
    model = adapted("gpt2-classify", targets=targets)
    model = train(model, *(f"{name}.bias" for name in adapted_layers(model)))
    assert_written_exactly(model, "gpt2-classify", CLASSIFIER, tmp_path)
    assert read_json(tmp_path / "twice" / "adapter_config.json")["bias"] == "lora_only"


@pytest.mark.parametrize("other", [{"rank_stabilized": True}, {"dropout": 0.3}])
def test_adapters_that_differ_in_what_peft_has_one_of_are_not_written(other: dict[str, Any], tmp_path: Path) -> None:
    model = ours("bert-classify")
    adapt_layer(model, "layers.0.attention.query", 4, 8.0)
    adapt_layer(model, "layers.1.attention.query", 4, 8.0, **other)
    train_adapters_only(model)
    message = r"layers.0.attention.query and layers.1.attention.query differ in dropout, rank_stabilized or dora"
    assert_not_written(model, "bert-classify", message, tmp_path)


@pytest.mark.parametrize(("rank", "alpha"), [(3, 4.0), (2, 5.0)])
def test_parts_of_a_fused_module_that_differ_are_not_written(rank: int, alpha: float, tmp_path: Path) -> None:
    model = ours("gpt2-classify")
    adapt_layer(model, "layers.0.attention.query", 2, 4.0)
    adapt_layer(model, "layers.0.attention.value", rank, alpha)
    train_adapters_only(model)
    message = r"layers.0.attention.query, layers.0.attention.value are one module in PEFT's format; give them one rank"
    assert_not_written(model, "gpt2-classify", message, tmp_path)


MODELS = [
    *((f"{family}-classify", CLASSIFIER) for family in ("albert", "bert", "distilbert", "gpt2", "llama", "t5")),
    ("llama", ENCODER),
    ("bert-lm", MASKED),
    ("bert-lm-untied", MASKED),
    ("gpt2-lm-untied", CAUSAL),
    ("t5-lm", SEQ2SEQ),
]


@given(model=st.sampled_from(MODELS), choice=st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_any_choice_is_written_exactly_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, model: tuple[str, str], choice: Any
) -> None:
    (case, kind), folder = model, tmp_path_factory.mktemp("any")
    net, batch = ours(case), batch_of(case)
    linear = [n for n, m in net.named_modules() if isinstance(m, nn.Linear) and n != "head.output"]
    for name in choice.sample(linear, choice.randint(1, 3)):
        adapt_layer(net, name, 2, 3.0)
    train_adapters_only(net)
    others = [n for n, m in net.named_modules() if n not in adapted_layers(net) and list(m.parameters(recurse=False))]
    train(net, *choice.sample(others, choice.randint(0, 3)))
    try:
        save_adapter(net, folder)
    except UserError:
        assert not list(folder.iterdir())
        return
    assert_same_tensors(load_adapted_model(folder, dtype=torch.float32), net)
    there = run_theirs(peft.PeftModel.from_pretrained(theirs(case, kind), folder), batch)
    expected = run(net, batch)
    assert (there - expected).abs().max() <= 2e-5 * max(1.0, float(expected.abs().max()))


# --- Merging -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "kind"),
    [("gpt2-lm-old", CAUSAL), ("qwen2-lm", CAUSAL), ("bert-lm", MASKED), ("albert-lm", MASKED), ("t5-lm", SEQ2SEQ)],
)
def test_a_tied_head_that_was_merged_is_saved_as_untied(case: str, kind: str, tmp_path: Path) -> None:
    model, batch = ours(case), batch_of(case)
    adapt_layer(model, "head.output", 2, 5.0)
    train_adapters_only(model)
    trained(model)
    merge(model)
    save_model(model, tmp_path / "merged")
    assert_same_tensors(load_model(tmp_path / "merged"), model)
    there = getattr(transformers, kind).from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    torch.testing.assert_close(run_theirs(there, batch), run(model, batch), rtol=1e-5, atol=1e-5)
    unmerge(model)
    assert model.head.output.weight is model.embeddings.token.weight
    save_model(ours(case), tmp_path / "plain")
    told = [read_json(tmp_path / name / "config.json")["tie_word_embeddings"] for name in ("merged", "plain")]
    assert told == [False, True]


# --- First A and B that were taken out of the base's weights -------------------------------------------------------


@pytest.mark.parametrize("stabilized", [False, True])
@pytest.mark.parametrize(
    ("init", "case", "targets"),
    [
        ("pissa", "bert-classify", []),
        ("pissa", "gpt2-classify", ["c_attn", "c_fc"]),
        ("olora", "llama-classify", []),
        ("olora", "gpt2-classify", ["attn.c_proj"]),  # square, as PEFT's OLoRA of a transposed matrix must be
    ],
)
def test_pissa_and_olora_are_opened_as_plain_lora_and_written_so(
    init: str, case: str, targets: list[str], stabilized: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    targets = targets or last(case, "attention.query", "mlp.down")
    model = in_peft(case, target_modules=targets, init_lora_weights=init, use_rslora=stabilized)
    model.save_pretrained(tmp_path / "theirs")
    batch = batch_of(case)
    expected = run_theirs(peft.PeftModel.from_pretrained(theirs(case), tmp_path / "theirs"), batch)
    torch.testing.assert_close(run_theirs(model, batch), expected, rtol=1e-5, atol=1e-5)
    opened = load_adapted_model(tmp_path / "theirs", dtype=torch.float32)
    told = f"twice the rank, as its initial A and B were subtracted from the base model's weights ({init})"
    assert told in caplog.text
    torch.testing.assert_close(run(opened, batch), expected, rtol=1e-5, atol=2e-5)
    assert {layer.rank for layer in adapted_layers(opened).values()} == {6}
    save_adapter(opened, tmp_path / "ours")
    back = peft.PeftModel.from_pretrained(theirs(case), tmp_path / "ours")
    torch.testing.assert_close(run_theirs(back, batch), expected, rtol=1e-5, atol=2e-5)


def test_a_drawn_initialisation_is_refused(tmp_path: Path) -> None:
    """It cannot be computed again, as its decomposition is a random approximation."""
    in_peft("bert-classify", target_modules=["query"], init_lora_weights="pissa_niter_4").save_pretrained(tmp_path)
    message = 'init_lora_weights "pissa_niter_4" changes the base model.s weights; merge the adapter with PEFT'
    assert_refused("bert-classify", tmp_path, message)


# --- A bias of B ---------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Adapter 'default'")
@pytest.mark.parametrize("bias", ["none", "all"])
@pytest.mark.parametrize("case", ["bert-classify", "gpt2-classify"])
def test_a_bias_of_b_becomes_part_of_the_layers_own_bias(case: str, bias: str, tmp_path: Path) -> None:
    targets = ["c_attn", "c_fc"] if case.startswith("gpt2") else last(case, "attention.query", "mlp.down")
    model = in_peft(case, target_modules=targets, lora_bias=True, use_rslora=True, bias=bias)
    model.save_pretrained(tmp_path / "theirs")
    batch, expected = batch_of(case), run_theirs(model, batch_of(case))
    opened = load_adapted_model(tmp_path / "theirs", dtype=torch.float32)
    torch.testing.assert_close(run(opened, batch), expected, rtol=1e-5, atol=2e-5)
    save_adapter(opened, tmp_path / "ours")
    assert read_json(tmp_path / "ours" / "adapter_config.json")["bias"] == ("all" if bias == "all" else "lora_only")
    back = peft.PeftModel.from_pretrained(theirs(case), tmp_path / "ours")
    torch.testing.assert_close(run_theirs(back, batch), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.filterwarnings("ignore:Adapter 'default'", "ignore:.lora_bias=True. was passed")
def test_a_bias_of_b_on_a_layer_without_one_is_refused(tmp_path: Path) -> None:
    in_peft("t5-classify", target_modules=["q"], lora_bias=True).save_pretrained(tmp_path)
    assert_refused("t5-classify", tmp_path, "q.lora_B.bias is for a module without a bias, .*lora_bias = false")


# --- Token tables that are changed in part, and tables that are tied -----------------------------------------------


def language_model_in_peft(case: str, **settings: Any) -> Any:
    """PEFT's adapter of a language model whose head is its token table."""
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5, **settings)
    model = peft.get_peft_model(theirs(case, CAUSAL), config)
    model.create_or_update_model_card = lambda folder: None
    return trained(model)


def assert_opened_and_written_back(model: Any, case: str, kind: str, folder: Path) -> Any:
    """PEFT's adapter has the same numbers here; and in PEFT again, after it was saved here."""
    model.save_pretrained(folder / "theirs")
    batch = batch_of(case)
    expected = run_theirs(peft.PeftModel.from_pretrained(theirs(case, kind), folder / "theirs"), batch)
    torch.testing.assert_close(run_theirs(model, batch), expected, rtol=1e-5, atol=1e-5)
    opened = load_adapted_model(folder / "theirs", dtype=torch.float32)
    torch.testing.assert_close(run(opened, batch), expected, rtol=1e-5, atol=2e-5)
    save_adapter(opened, folder / "ours")
    assert_same_tensors(load_adapted_model(folder / "ours", dtype=torch.float32), opened)
    back = peft.PeftModel.from_pretrained(theirs(case, kind), folder / "ours")
    torch.testing.assert_close(run_theirs(back, batch), expected, rtol=1e-5, atol=2e-5)
    merge(opened)
    save_model(opened, folder / "whole")
    alone = getattr(transformers, kind).from_pretrained(folder / "whole").eval()
    torch.testing.assert_close(run_theirs(alone, batch), expected, rtol=1e-5, atol=2e-5)
    return opened


@pytest.mark.filterwarnings("ignore:Model.*tie_word_embeddings")
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["query", "word_embeddings"], "use_rslora": True},
        {"target_modules": ["query"], "trainable_token_indices": [7, 3, 5]},
        {"target_modules": ["query"], "trainable_token_indices": {"word_embeddings": [3, 5]}},
        {"target_modules": ["query", "word_embeddings"], "use_dora": True},
    ],
)
def test_an_adapted_token_table_of_a_classifier_is_opened_as_one_that_was_trained(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    model = in_peft("bert-classify", **settings)
    opened = assert_opened_and_written_back(model, "bert-classify", CLASSIFIER, tmp_path)
    before, after = ours("bert-classify").embeddings.token.weight, opened.embeddings.token.weight
    assert not torch.equal(before, after) and after.requires_grad
    if "trainable_token_indices" in settings:
        assert torch.equal(before[10:], after[10:])


@pytest.mark.parametrize(
    ("case", "table", "kind"),
    [
        ("bert-classify", "position_embeddings", "LoRA"),
        ("bert-classify", "token_type_embeddings", "DoRA"),
        ("roberta-classify", "position_embeddings", "rows"),
        ("gpt2-classify", "wpe", "LoRA"),
    ],
)
def test_other_tables_are_opened_as_if_they_had_been_trained(
    case: str, table: str, kind: str, tmp_path: Path
) -> None:
    targets = last(case, "attention.query")
    settings: dict[str, Any] = {"target_modules": [*targets, table], "use_dora": kind == "DoRA"}
    if kind == "rows":
        settings = {"target_modules": targets, "trainable_token_indices": {table: [3, 5]}}
    assert_opened_and_written_back(in_peft(case, **settings), case, CLASSIFIER, tmp_path)


@pytest.mark.filterwarnings("ignore:Model.*tie_word_embeddings")
@pytest.mark.parametrize(
    ("settings", "tied"),
    [
        ({"target_modules": ["c_attn", "wte"]}, False),
        ({"target_modules": ["c_attn"], "modules_to_save": ["wte"]}, False),
        ({"target_modules": ["c_attn"], "modules_to_save": ["wte", "lm_head"]}, False),
        ({"target_modules": ["c_attn"], "modules_to_save": ["lm_head"]}, False),
        ({"target_modules": ["c_attn"], "trainable_token_indices": [3, 5]}, True),
    ],
)
def test_what_a_language_head_shares_with_a_trained_table_is_as_in_peft(
    settings: dict[str, Any], tied: bool, tmp_path: Path
) -> None:
    case = "gpt2-lm-by-layer"
    opened = assert_opened_and_written_back(language_model_in_peft(case, **settings), case, CAUSAL, tmp_path)
    assert (opened.head.output.weight is opened.embeddings.token.weight) == tied
    if tied:
        assert read_json(tmp_path / "ours" / "adapter_config.json")["trainable_token_indices"] == [3, 5]


@pytest.mark.parametrize("case", ["gpt2-lm-old", "qwen2-lm"])
@pytest.mark.parametrize("rows", [[], [3, 60], list(range(64))])
def test_a_tied_table_is_written_as_its_rows_that_differ_from_the_base(
    case: str, rows: list[int], tmp_path: Path
) -> None:
    model = adapted(case)
    table = model.embeddings.token.weight.requires_grad_(True)
    with torch.no_grad():
        table[rows] += 0.3
    assert_written_exactly(model, case, CAUSAL, tmp_path)
    assert read_json(tmp_path / "once" / "adapter_config.json")["trainable_token_indices"] == (rows or [0])


def test_a_tied_table_is_not_written_beside_a_bias_that_peft_leaves_out(tmp_path: Path) -> None:
    model = train(adapted("bert-lm"), "embeddings.token")
    assert_not_written(model, "bert-lm", "PEFT's format cannot store embeddings.token.weight", tmp_path)
    config = peft.LoraConfig(r=3, target_modules=["query"], trainable_token_indices=[3])
    peft.get_peft_model(theirs("bert-lm", MASKED), config).save_pretrained(tmp_path)
    edit(tmp_path, lambda config, _: config.update(task_type="CAUSAL_LM"))
    assert_refused("bert-lm", tmp_path, "a table that a language head shares: PEFT leaves out that head's bias")


@pytest.mark.parametrize(
    ("case", "settings", "message"),
    [
        ("t5-classify", {"target_modules": ["q", "shared"]}, "before and after merging; train the .* without shared$"),
        ("deberta-v2-classify", {"target_modules": ["query_proj", "rel_embeddings"]}, "without rel_embeddings$"),
        ("mpnet-classify", {"target_modules": ["q", "relative_attention_bias"]}, "changes part of a table, .*; merge"),
    ],
)
def test_other_changes_of_tables_are_refused_by_name(
    case: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    in_peft(case, **settings).save_pretrained(tmp_path)
    assert_refused(case, tmp_path, message)


def test_rows_that_are_not_there_are_refused(tmp_path: Path) -> None:
    in_peft("bert-classify", target_modules=["query"], trainable_token_indices=[3, 5]).save_pretrained(tmp_path)
    for indices, message in (
        ([3], r"trainable_tokens_delta has the shape \(2, 24\), but the model needs \(1, 24\)"),
        ([3, 64], "trainable_token_indices must be different numbers from 0 to 63"),
        ([3, 3], "trainable_token_indices must be different numbers from 0 to 63"),
    ):
        edit(tmp_path, lambda config, _, indices=indices: config.update(trainable_token_indices=indices))
        assert_refused("bert-classify", tmp_path, message)
