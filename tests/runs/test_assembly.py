"""What a run is made of goes together, or is refused before any text is encoded or any weight trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.models import card_of, load_model
from minilm.checkpoints.opening import load_model as load_any
from minilm.data.tokenization import load_tokenizer
from minilm.evaluation.predictor import Classifier
from minilm.finetuning.lora import LoRAConfig, add_lora, merge
from minilm.loading import load_config
from minilm.runs import task
from minilm.runs.assembly import make_model, prepare
from tests.tiny import minilm, refused, texts, write_data

REFERENCE = Path(__file__).parents[1] / "reference"
CONFIG = """
name = "made"
[model]
source = "{model}"
[data]
source = "{data}"
max_tokens = 20
[train]
epochs = 1
lr = 1e-3
threads = 1
"""


def write(folder: Path, model: str | Path) -> Path:
    path = folder / "made.toml"
    path.write_text(CONFIG.format(model=REFERENCE / model, data=write_data(folder / "texts.tsv")))
    return path


def changed(tokenizer: Tokenizer, folder: Path, change: str) -> Path:
    """A copy in a folder, its vocabulary with two tokens swapped, some more or one less."""
    table = json.loads(tokenizer.to_str())
    vocabulary = table["model"]["vocab"]
    if change == "other":
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    elif change == "more":
        first = tokenizer.get_vocab_size()
        vocabulary |= {f"more-{i}": first + i for i in range(50)}
    elif change == "fewer":
        del vocabulary[max(vocabulary, key=lambda token: vocabulary[token])]
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(table))
    return folder


# --- The tokenizer ---


def test_a_tokenizer_that_gives_a_checkpoints_numbers_to_other_tokens_is_refused(tmp_path: Path) -> None:
    config, own = write(tmp_path, "bert-classify"), load_tokenizer(REFERENCE / "bert-classify")
    other = changed(own, tmp_path / "other", "other")
    said = refused("train", config, f"tokenizer.source={other}", "--runs", tmp_path / "runs")
    number = min(own.token_to_id("a"), own.token_to_id("b"))
    assert f"tokenizer.source: token {number} is " in said and "remove it to use the checkpoint's tokenizer" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("change", ["none", "fewer"])
def test_a_tokenizer_with_the_checkpoints_own_tokens_is_taken(tmp_path: Path, change: str) -> None:
    config, own = write(tmp_path, "bert-classify"), load_tokenizer(REFERENCE / "bert-classify")
    same = changed(own, tmp_path / "same", change)
    prepared = prepare(load_config(config, [f"tokenizer.source={same}"]))
    assert prepared.tokenizer.to_str() == load_tokenizer(same).to_str()


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_refused(tmp_path: Path) -> None:
    config, own = write(tmp_path, "bert-classify"), load_tokenizer(REFERENCE / "bert-classify")
    more = changed(own, tmp_path / "more", "more")
    assert "the model only" in refused("train", config, f"tokenizer.source={more}", "--runs", tmp_path / "runs")


def test_a_bpe_of_the_training_texts_is_not_for_a_checkpoint(tmp_path: Path) -> None:
    config = write(tmp_path, "gpt2-classify")
    assert '"bpe" is only for a model from scratch' in refused("train", config, "tokenizer.source=bpe")


# --- The batches ---


@pytest.mark.parametrize("group_by_length", [True, False])
def test_training_takes_batches_by_length_or_at_random_as_the_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_by_length: bool
) -> None:
    taken, given = [], task.make_batches

    def seen(lengths: np.ndarray, size: int, **how: Any) -> list[np.ndarray]:
        taken.append(how.get("group_by_length"))
        return given(lengths, size, **how)

    config = write(tmp_path, "bert-classify")
    monkeypatch.setattr(task, "make_batches", seen)
    change = f"train.group_by_length={str(group_by_length).lower()}"
    result = minilm("train", config, change, "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    assert set(taken) == {group_by_length}


# --- The head ---


@pytest.mark.parametrize("model", ["gpt2-classify", "llama-classify"])
def test_a_decoders_first_token_which_sees_no_other_is_refused_as_what_the_head_reads(
    tmp_path: Path, model: str
) -> None:
    said = refused("train", write(tmp_path, model), "model.head.pooling=cls", "--runs", tmp_path / "runs")
    assert 'model.head.pooling = "cls" uses the first token, which in this model attends to no other' in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("model", ["bert-classify", "distilbert-classify", "t5-classify", "gemma3_text-bidirectional"])
def test_a_first_token_that_sees_the_text_may_be_read(tmp_path: Path, model: str) -> None:
    result = minilm("train", write(tmp_path, model), "model.head.pooling=cls", "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("model", "pooling"),
    [("bert-classify", "cls"), ("distilbert-classify", "cls"), ("gpt2-classify", "last"), ("t5-classify", "last")],
)
def test_our_head_reads_what_the_familys_own_reads_unless_told_otherwise(
    tmp_path: Path, model: str, pooling: str
) -> None:
    path, size = write(tmp_path, model), load_tokenizer(REFERENCE / model).get_vocab_size()
    for said, expected in (([], pooling), (["model.head.pooling=mean"], "mean")):
        made: Any = make_model(load_config(path, said), ["a", "b"], size, "meta")
        assert made.head.config.pooling == expected


# --- An adapter as the start ---


def test_a_run_starts_from_an_adapter_and_the_base_that_the_config_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(REFERENCE / "bert-classify", "classify", labels=["a", "b"])
    add_lora(model, LoRAConfig(rank=2))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    adapter = save_adapter(model, tmp_path / "adapter", base="somebody/moved")
    config, runs = write(tmp_path, adapter), ("--runs", tmp_path / "runs")
    said = refused("train", config, *runs)
    assert "its base model cannot be opened" in said and "in a config model.base" in said
    with mock.patch.dict("os.environ", MINILM_WEIGHTS=str(tmp_path / "weights")):
        changes = (f"model.base={REFERENCE / 'bert-classify'}", "lora.rank=2", "train.lr=1e-20")
        result = minilm("train", config, *changes, *runs)
        assert result.exit_code == 0, result.output
        [merged] = (tmp_path / "weights").glob("[!.]*")
        assert f"{adapter}: merged with its base model" in caplog.text and not list(merged.parent.glob(".*.tmp"))
        caplog.clear()
        trained = load_any(tmp_path / "runs" / "made" / "model", "classify")
        assert "moved" not in str(card_of(trained).folder) and card_of(trained).folder == merged.resolve()
        merge(model)
        for name, value in model.layers.state_dict().items():
            torch.testing.assert_close(trained.layers.state_dict()[name], value, rtol=1e-6, atol=1e-6)
        again = minilm("train", config, *changes, "--runs", tmp_path / "again")
        assert again.exit_code == 0 and "merged with its base" not in caplog.text
    said = refused("train", write(tmp_path, "bert-classify"), "model.base=x", *runs)
    assert "is a whole model, not an adapter; remove model.base" in said


# --- Pairs ---


def test_a_decoders_pairs_are_told_apart_in_training_and_whenever_the_run_is_read(tmp_path: Path) -> None:
    firsts, seconds = texts(), texts(seed=1)
    rows = [f"{first}\t{second}\t{label}" for (first, label), (second, _) in zip(firsts, seconds, strict=True)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["text\tother\tlabel", *rows]))
    config, changes = (
        write(tmp_path, "gpt2-classify"),
        [f"data.source={tmp_path / 'pairs.tsv'}", "data.text_pair=other"],
    )
    prepared = prepare(load_config(config, changes))
    delimiter = load_tokenizer(REFERENCE / "gpt2-classify").token_to_id("</s>")
    encoded = prepared.encoded["train"]
    assert all((encoded.row(i) == delimiter).sum() == 1 for i in range(len(encoded)))
    assert minilm("train", config, *changes, "--runs", tmp_path).exit_code == 0
    read = Classifier.load(tmp_path / "made", "cpu").tokenizer
    assert read.encode("good", "bad").ids.count(delimiter) == 1 and delimiter not in read.encode("good").ids


def test_a_run_whose_pairs_are_asked_for_with_one_column_trains_on_single_texts(tmp_path: Path) -> None:
    config = write(tmp_path, "bert-classify")
    changes = ["data.source=medical-questions-sample", "data.text_pair=", "data.test_rows=20", "data.train_rows=40"]
    assert minilm("train", config, *changes, "--runs", tmp_path).exit_code == 0
    stored = tmp_path / "made" / "config.toml"
    assert load_config(stored) == load_config(config, changes)
    written = stored.read_text()
    assert 'text = "question_1"' in written and 'text_pair = ""' in written and '"different", "same"' in written
    assert Classifier.load(tmp_path / "made", "cpu").reading.pairs is False
