"""Opening checkpoints: what is missing, extra or misshapen is named; what is there is used, and no more is taken."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import minilm
from minilm.checkpoints.files import Reader, read_header, read_tensors, write_json, write_tensors
from minilm.checkpoints.models import card_of, load_model, new_model, save_model
from minilm.errors import UserError
from minilm.models.bert import BertConfig
from minilm.models.gpt2 import GPT2Config
from minilm.models.heads import HeadConfig, mlp_head
from minilm.models.llama import LlamaConfig
from minilm.models.rotary import Rotary
from minilm.textfiles import read_json

REFERENCES = Path(__file__).parent.parent / "reference"
IDS = torch.tensor([[5, 6, 7]])


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """A function: a reference checkpoint with its config or tensors changed (None: left out)."""

    def change(case: str, tensors: dict[str, Tensor | None] | None = None, **config: Any) -> Path:
        folder = tmp_path / case
        shutil.copytree(REFERENCES / case, folder)
        if tensors:
            held = {**read_tensors(folder / "model.safetensors"), **tensors}
            write_tensors(folder / "model.safetensors", {k: t for k, t in held.items() if t is not None})
        kept = {**read_json(folder / "config.json"), **config}
        write_json(folder / "config.json", {k: value for k, value in kept.items() if value is not None})
        return folder

    return change


# --- What does not fit ---------------------------------------------------------------------------------------------

QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        ({QUERY: None}, {}, f"bert: lacks the tensor {QUERY}, which"),
        (
            {QUERY: None, "encoder.layer.1.attention.self.querry.weight": torch.ones(24, 24)}, {},
            f'lacks the tensor {QUERY} (did you mean "encoder.layer.1.attention.self.querry.weight"?)',
        ),
        ({"pooler.dense.bias": None, QUERY: None}, {}, f"lacks the tensor {QUERY} and 1 more"),
        (
            {"encoder.layer.1.output.dense.weights": torch.ones(1)}, {},
            'model.safetensors: unexpected tensor encoder.layer.1.output.dense.weights (did you mean '
            '"encoder.layer.1.output.dense.weight"?); the model in config.json does not',
        ),
        ({}, {"num_hidden_layers": 3}, "lacks the tensor encoder.layer.2."),
        ({}, {"num_hidden_layers": 1}, "unexpected tensor encoder.layer.1."),
        (
            {}, {"hidden_size": 12},
            "embeddings.word_embeddings.weight (embeddings.token.weight) has the shape (64, 24), "
            "but config.json requires (64, 12)",
        ),
        ({QUERY: torch.ones(24, 24, dtype=torch.int8)}, {}, f"{QUERY} has the dtype int8; quantised"),
        ({QUERY: torch.ones(24, 24).to(torch.float8_e4m3fn)}, {}, f"{QUERY} has the dtype float8_e4m3fn; quantised"),
        ({f"bert.{QUERY}": torch.ones(24, 24)}, {}, f"{QUERY} differs from bert.{QUERY}"),
        ({"encoder.layer.0.output.LayerNorm.gamma": torch.ones(24)}, {}, "differs from encoder.layer.0.output.Layer"),
    ],
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_named(
    changed: Callable[..., Path], tensors: dict[str, Tensor | None], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as raised:
        load_model(changed("bert", tensors, **config))
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_no_tensor_is_looked_at_before_all_fit(changed: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = changed("bert", num_hidden_layers=3)
    monkeypatch.delattr(Reader, "view")
    with pytest.raises(UserError, match="lacks the tensor"):
        load_model(folder)


def test_a_tied_head_that_differs_is_named(changed: Callable[..., Path]) -> None:
    folder = changed("gpt2-lm-old", {"lm_head.weight": torch.zeros(64, 24)})
    with pytest.raises(UserError, match=r"lm_head.weight differs from wte.weight, but .*; check tie_word_embeddings"):
        load_model(folder)
    assert load_model(folder, "encode")(IDS).shape == (1, 3, 24)


def test_a_tied_head_may_be_stored_too(changed: Callable[..., Path]) -> None:
    table = read_tensors(REFERENCES / "gpt2-lm-old" / "model.safetensors")["wte.weight"]
    model = load_model(changed("gpt2-lm-old", {"lm_head.weight": table}))
    assert model.head.output.weight is model.embeddings.token.weight


def test_a_bias_that_our_config_does_without_must_be_zero(changed: Callable[..., Path]) -> None:
    folder = changed("gpt2", minilm={"config": {"attention_bias": False}})
    with pytest.raises(UserError, match=r"h.\d.attn.c_(attn|proj).bias is not zero"):
        load_model(folder)


def test_a_head_that_the_checkpoint_is_for_must_be_there(changed: Callable[..., Path]) -> None:
    folder = changed("llama-lm-biases", tie_word_embeddings=False)
    with pytest.raises(UserError, match=r"lacks the tensor lm_head.weight"):
        load_model(folder)


# --- Tasks and heads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "task"), [("gpt2", "encode"), ("bert-lm", "lm"), ("t5-lm", "lm"), ("llama-classify", "classify")]
)
def test_the_checkpoint_says_what_it_is_for(case: str, task: str) -> None:
    assert card_of(load_model(REFERENCES / case)).task == task


def test_a_task_that_there_is_not_is_named() -> None:
    with pytest.raises(UserError, match=r'got "clasify" \(did you mean "classify"\?\)'):
        load_model(REFERENCES / "bert", "clasify")


def test_a_classifier_needs_a_head_or_labels() -> None:
    with pytest.raises(UserError, match=r"bert: has no classification head; train one .*in Python give the classes"):
        load_model(REFERENCES / "bert", "classify")


def test_label_names_come_with_the_head() -> None:
    assert card_of(load_model(REFERENCES / "bert-classify")).labels == ["cold", "mild", "hot"]


def test_two_classes_of_one_name_are_refused_but_not_under_new_labels(changed: Callable[..., Path]) -> None:
    folder = changed("bert-classify", id2label={"0": "a", "1": "b", "2": "a"})
    with pytest.raises(UserError, match=r'config\.json: names two classes "a"; give them different names'):
        load_model(folder)
    assert card_of(load_model(folder, labels=["a", "b"])).labels == ["a", "b"]


def test_the_tensors_tell_how_many_classes_there_are(changed: Callable[..., Path]) -> None:
    model = load_model(changed("bert-classify", id2label=None, label2id=None))
    assert card_of(model).labels == ["LABEL_0", "LABEL_1", "LABEL_2"] and model(IDS).shape == (1, 3)


@pytest.mark.parametrize(
    ("id2label", "message"),
    [
        ({"0": "a", "1": "b"}, "must name 3 labels"),
        ({"0": "a", "2": "b", "3": "c"}, "without gaps"),
        (["a"], "without gaps"),
        (False, "without gaps"),
        ({}, "must name 3 labels"),
    ],
)
def test_labels_that_contradict_the_head_are_an_error(
    changed: Callable[..., Path], id2label: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_model(changed("bert-classify", id2label=id2label))


def same_head(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.head.state_dict(), other.head.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("labels", "head", "kept"),
    [
        (None, None, True),
        (["cold", "mild", "hot"], None, True),
        (["hot", "mild", "cold"], None, False),
        (["a", "b"], None, False),
        (None, mlp_head(24), False),
    ],
)
def test_a_trained_head_is_kept_only_for_its_own_labels(
    caplog: pytest.LogCaptureFixture, labels: list[str] | None, head: HeadConfig | None, kept: bool
) -> None:
    trained = load_model(REFERENCES / "bert-classify")
    model = load_model(REFERENCES / "bert-classify", "classify", labels=labels, head=head)
    assert same_head(model, trained) is kept
    said = f"{REFERENCES / 'bert-classify'}: its head for this task (classify) starts untrained"
    assert [record.message for record in caplog.records] == ([] if kept else [said])


def test_a_language_head_that_is_not_there_starts_untrained(caplog: pytest.LogCaptureFixture) -> None:
    model = load_model(REFERENCES / "bert", "lm")
    assert model.head.output.weight is model.embeddings.token.weight and model(IDS).shape == (1, 3, 64)
    assert len(caplog.records) == 1 and "its head for this task (lm) starts untrained" in caplog.text


def test_a_pooler_that_is_not_there_starts_untrained(caplog: pytest.LogCaptureFixture) -> None:
    model = load_model(REFERENCES / "bert-lm", "classify", labels=["a", "b"])
    assert model(IDS).shape == (1, 2) and "its head and pooler for this task" in caplog.text


def test_a_spare_pooler_is_carried_along_but_not_trained(tmp_path: Path) -> None:
    model = load_model(REFERENCES / "bert", "classify", labels=["a", "b"], head=mlp_head(24, pooling="mean"))
    assert not any(p.requires_grad for p in model.pooler.parameters())
    save_model(model, tmp_path)
    assert torch.equal(load_model(tmp_path, "encode").pooler.dense.weight, model.pooler.dense.weight)


def test_a_head_cannot_want_a_pooler_that_the_family_has_not() -> None:
    with pytest.raises(UserError, match="no pooler"):
        load_model(REFERENCES / "gpt2", "classify", labels=["a"], head=mlp_head(24, pooling="pooler"))


def test_a_model_from_scratch_has_no_pooler_that_nobody_trains() -> None:
    config = BertConfig(vocab_size=8, width=4, depth=1, heads=1, mlp_width=4)
    assert new_model("bert", config, "classify", labels=["a"], head=mlp_head(4, pooling="cls")).pooler is None
    assert new_model("bert", config, "classify", labels=["a"]).pooler is not None
    assert new_model("bert", config, "encode").pooler is not None


def test_what_was_known_about_an_old_head_is_not_taken_for_the_new_one(changed: Callable[..., Path]) -> None:
    folder = changed("bert-classify", problem_type="multi_label_classification", minilm={"threshold": 0.3})
    old, new = load_model(folder), load_model(folder, labels=["a", "b"])
    assert card_of(old).extra == {"threshold": 0.3} and "problem_type" in card_of(old).published
    assert card_of(new).extra == {} and "problem_type" not in card_of(new).published


@pytest.mark.parametrize(
    ("rotary", "context"),
    [({}, 100), ({"kind": "linear", "factor": 2.5}, 250), ({"kind": "dynamic", "factor": 2.5}, 100)],
)
def test_linear_stretching_alone_makes_the_context_longer(rotary: dict[str, Any], context: int) -> None:
    sizes: dict[str, Any] = {"vocab_size": 8, "width": 4, "depth": 1, "heads": 1, "mlp_width": 4, "context": 100}
    assert new_model("llama", LlamaConfig(**sizes, rotary=Rotary(**rotary)), "encode").context == context
    assert load_model(REFERENCES / "t5-encoder").context == 0


# --- Memory and dtypes ---------------------------------------------------------------------------------------------


def test_what_needs_no_change_stays_in_the_pages_of_the_file(tmp_path: Path) -> None:
    folder = shutil.copytree(REFERENCES / "llama", tmp_path / "llama")
    before = (folder / "model.safetensors").read_bytes()
    model, other = load_model(folder), load_model(folder)
    entries = read_header(folder / "model.safetensors")
    start = model.norm.weight.data_ptr() - entries["norm.weight"].begin
    assert model.embeddings.token.weight.data_ptr() == start + entries["embed_tokens.weight"].begin
    with torch.no_grad():
        model.embeddings.token.weight.zero_()
    assert other.embeddings.token.weight.any() and (folder / "model.safetensors").read_bytes() == before


def test_every_tensor_is_contiguous_and_of_the_dtype_asked_for() -> None:
    for case in ("gpt2-lm-untied", "llama-lm-sharded", "bert"):
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            for name, parameter in load_model(REFERENCES / case, dtype=dtype).named_parameters():
                assert parameter.is_contiguous() and parameter.dtype == dtype, name


def test_a_model_comes_in_the_dtype_it_is_stored_in() -> None:
    assert {p.dtype for p in load_model(REFERENCES / "llama-lm-sharded").parameters()} == {torch.bfloat16}


def test_each_tensor_may_keep_the_dtype_it_is_stored_in(tmp_path: Path) -> None:
    model = load_model(REFERENCES / "bert-classify", dtype=torch.bfloat16)
    model.head.float()
    save_model(model, tmp_path)
    again = load_model(tmp_path, dtype="stored")
    assert {n: p.dtype for n, p in again.named_parameters()} == {n: p.dtype for n, p in model.named_parameters()}
    assert {p.dtype for p in load_model(tmp_path).parameters()} == {torch.float32}


def test_what_float16_cannot_hold_stays_float32() -> None:
    model = load_model(REFERENCES / "t5-lm", dtype=torch.float16)
    wide = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    assert len(wide) == 4 and all(name.endswith("mlp.down.weight") for name in wide)
    assert model(IDS, decoder_ids=IDS).isfinite().all()


def test_large_tensors_are_converted_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_model(REFERENCES / "gpt2-lm-untied", dtype=torch.float32)
    monkeypatch.setattr("minilm.checkpoints.models.BLOCK", 50)
    for name, parameter in load_model(REFERENCES / "gpt2-lm-untied", dtype=torch.float32).named_parameters():
        assert torch.equal(parameter, whole.get_parameter(name))


# --- Saving --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [None, mlp_head(24, norm=True, pooling="mean")])
def test_what_else_is_known_comes_back(tmp_path: Path, head: HeadConfig | None) -> None:
    model = load_model(REFERENCES / "bert", "classify", labels=["b", "a"], head=head)
    card_of(model).extra |= {"max_tokens": 7, "threshold": 0.3}
    back = load_model(save_model(model, tmp_path / "x"))
    card = card_of(back)
    assert (card.labels, card.task, card.own_head) == (["b", "a"], "classify", head is not None)
    assert card.extra == {"max_tokens": 7, "threshold": 0.3} and back.head.config == model.head.config
    assert torch.equal(back(IDS), model(IDS))


def test_a_model_can_be_saved_over_the_folder_it_came_from(tmp_path: Path) -> None:
    folder = shutil.copytree(REFERENCES / "llama-lm-sharded", tmp_path / "x")
    model = load_model(folder)
    with torch.no_grad():
        model.norm.weight += 1
    expected = model(IDS)
    save_model(model, folder)
    assert torch.equal(load_model(folder)(IDS), expected) and torch.equal(model(IDS), expected)


def test_the_tokenizer_comes_along(tmp_path: Path) -> None:
    save_model(load_model(REFERENCES / "bert"), tmp_path / "copied")
    assert (tmp_path / "copied/tokenizer.json").read_text() == (REFERENCES / "bert/tokenizer.json").read_text()
    tokenizer = minilm.load_tokenizer(REFERENCES / "gpt2")
    model = new_model("gpt2", GPT2Config(vocab_size=64, context=4, width=4, depth=1, heads=1), "encode")
    save_model(model, tmp_path / "given", tokenizer=tokenizer)
    assert minilm.load_tokenizer(tmp_path / "given").get_vocab() == tokenizer.get_vocab()
    assert read_json(tmp_path / "given/config.json")["pad_token_id"] == tokenizer.token_to_id("<pad>")


def test_a_tokenizers_padding_does_not_move_robertas_positions(tmp_path: Path) -> None:
    model, tokenizer = load_model(REFERENCES / "roberta-classify"), minilm.load_tokenizer(REFERENCES / "gpt2")
    assert tokenizer.token_to_id("<pad>") != model.config.first_position - 1
    save_model(model, tmp_path, tokenizer=tokenizer)
    assert read_json(tmp_path / "config.json")["pad_token_id"] == model.config.first_position - 1


@pytest.mark.parametrize("task", ["encode", "classify"])
def test_alberts_pooler_stays(task: str, tmp_path: Path) -> None:
    held = read_tensors(REFERENCES / "albert-classify" / "model.safetensors")
    save_model(load_model(REFERENCES / "albert-classify", task), tmp_path)
    kept = read_tensors(tmp_path / "model.safetensors")
    prefix = "" if task == "encode" else "albert."
    assert torch.equal(kept[f"{prefix}pooler.weight"], held["albert.pooler.weight"])
    assert torch.equal(kept[f"{prefix}pooler.bias"], held["albert.pooler.bias"])


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("bert-lm-untied", ("cls.predictions.decoder.bias", "cls.predictions.bias")),
        ("bert-lm", ("cls.predictions.bias", "cls.predictions.bias")),
    ],
)
def test_a_masked_language_heads_bias_is_the_decoders(
    changed: Callable[..., Path], case: str, names: tuple[str, str]
) -> None:
    counts, other = names
    folder = changed(case, {other: torch.ones(64), counts: torch.arange(64.0)})
    assert torch.equal(load_model(folder).head.output.bias, torch.arange(64.0))


def test_a_head_of_ours_that_is_gone_is_named(tmp_path: Path) -> None:
    save_model(load_model(REFERENCES / "gpt2", "classify", labels=["a"], head=mlp_head(24)), tmp_path)
    (tmp_path / "head.safetensors").unlink()
    with pytest.raises(UserError, match=r"head.safetensors: no such file"):
        load_model(tmp_path)


def test_a_head_of_ours_that_is_described_wrongly_is_named(tmp_path: Path) -> None:
    save_model(load_model(REFERENCES / "gpt2", "classify", labels=["a"], head=mlp_head(24)), tmp_path)
    config = read_json(tmp_path / "config.json")
    config["minilm"]["head"]["poolling"] = "last"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r'minilm.head: unknown setting poolling \(did you mean "pooling"\?\)'):
        load_model(tmp_path)


def test_a_module_of_another_make_has_no_card() -> None:
    with pytest.raises(TypeError, match="make it with load_model"):
        save_model(nn.Linear(1, 1), "nowhere")


def test_a_new_model_is_drawn_from_the_random_state() -> None:
    config = GPT2Config(vocab_size=8, context=4, width=4, depth=1, heads=1)
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(new_model("gpt2", config, "classify", labels=["a", "b"], head=mlp_head(4)))
    assert same_head(models[0], models[1]) and not same_head(models[0], models[2])


def test_nothing_is_said_where_all_is_there(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        load_model(REFERENCES / "gpt2-lm-old")
    assert caplog.records == []
