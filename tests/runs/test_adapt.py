"""Adaptation: perplexity falls, a kill loses nothing, and what comes out is a checkpoint like the one that went in."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers

from minilm.checkpoints.models import load_model
from minilm.data.masking import special_ids
from minilm.devices import Runtime
from minilm.errors import UserError
from minilm.loading import load_config
from minilm.runs.adapt import adapt, prepare_adaptation
from minilm.runs.assembly import prepare
from minilm.runs.train import train_run
from minilm.textfiles import read_json
from minilm.training.console import Interrupted
from minilm.training.loop import _Loop
from tests.tiny import at_step, write_data

REFERENCE = Path(__file__).parents[1] / "reference"
CPU = Runtime(torch.device("cpu"))
WORDS = ("take one pill", "after each meal", "no water", "twice a day", "ask a doctor", "if it hurts")
CONFIG = """
name = "adapted"
{more}
[model]
source = "{model}"

[data]
source = "{data}"
max_tokens = 20

[adapt]
block = 16
{adapt}

[adapt.train]
epochs = 1
lr = 1e-2
batch_size = 4
evaluate_every = 15
"""
MASKED = ("bert-lm", "roberta-lm", "distilbert-lm", "albert-lm")


def sentences(number: int) -> list[str]:
    chance = random.Random(0)
    return list(dict.fromkeys(" ".join(chance.choices(WORDS, k=3)) for _ in range(number)))


def checkpoint(name: str, folder: Path, tokens: tuple[str, ...]) -> Path:
    """A reference checkpoint whose tokenizer has these special tokens too."""
    place = shutil.copytree(REFERENCE / name, folder / name, ignore=shutil.ignore_patterns("expected*"))
    tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
    tokenizer.add_special_tokens(list(tokens))
    tokenizer.save(str(place / "tokenizer.json"))
    return place


def write_config(
    folder: Path, name: str = "bert-lm", tokens: tuple[str, ...] = ("[MASK]",), adapt: str = "", more: str = ""
) -> Path:
    rows = [(text, "yn"[i % 2]) for i, text in enumerate(sentences(80))]
    model, data = checkpoint(name, folder, tokens), write_data(folder / "texts.tsv", rows)
    path = folder / f"{name}.toml"
    path.write_text(CONFIG.format(model=model, data=data, adapt=adapt, more=more))
    return path


def adapted(path: Path, runs: Path, *changes: str) -> Path:
    """The run's folder after adaptation."""
    config = load_config(path, changes)
    adaptation = prepare_adaptation(config, prepare(config))
    return adapt(config, adaptation, CPU, runs).parent


def refused(path: Path, *changes: str) -> str:
    with pytest.raises(UserError) as error:
        adapted(path, path.parent / "run", *changes)
    assert "\n" not in str(error.value)
    return str(error.value)


KINDS = [(name, ("[MASK]",), "masked words") for name in MASKED]
KINDS += [("t5-lm", ("<extra_id_1>", "<extra_id_2>"), "spans"), ("gpt2-lm-old", (), "next tokens")]
NEXT = ("qwen2-lm", "llama-lm-biases", "phi3-lm", "gemma2-lm", "gemma3_text-lm")
KINDS += [(name, (), "next tokens") for name in NEXT]


@pytest.mark.parametrize(("name", "tokens", "objective"), KINDS)
def test_perplexity_falls(tmp_path: Path, name: str, tokens: tuple[str, ...], objective: str) -> None:
    run = adapted(write_config(tmp_path, name, tokens), tmp_path / "run")
    results = read_json(run / "adaptation" / "results.json")
    assert results["objective"] == objective and results["stopped"] == "finished"
    assert results["perplexity"]["after"] < 0.75 * results["perplexity"]["before"]
    assert results["texts"] > 40 and results["blocks"] * 16 >= results["tokens"] > 1000
    history = [json.loads(line) for line in (run / "adaptation" / "metrics.jsonl").read_text().splitlines()]
    assert min(entry["validation"]["loss"] for entry in history) == pytest.approx(results["loss"]["after"], rel=1e-5)
    assert not (run / "adaptation" / "checkpoints").exists() and not results["new_head"]
    model = load_model(run / "adapted", "lm")
    loaded = transformers.AutoModel.from_pretrained(run / "adapted", dtype=torch.float32)
    assert set(loaded.config.architectures) == set(read_json(run / "adapted" / "config.json")["architectures"])
    assert (run / "adapted" / "tokenizer.json").read_bytes() == (tmp_path / name / "tokenizer.json").read_bytes()
    before = load_model(tmp_path / name, "lm").state_dict()
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert len(changed) > 0.9 * len(before)


def test_a_poolers_weights_survive(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("bert", "albert-classify"):  # they have a pooler, and no language head
        (tmp_path / name).mkdir()
        run = adapted(write_config(tmp_path / name, name), tmp_path / name / "run")
        assert "its head for this task (lm) starts untrained" in caplog.text
        assert read_json(run / "adaptation" / "results.json")["new_head"]
        caplog.clear()
        source = load_model(tmp_path / name / name, "encode")
        classifier = load_model(run / "adapted", "classify", labels=["y", "n"])
        assert "its head for this task (classify) starts untrained" in caplog.text  # and not the pooler
        caplog.clear()
        assert torch.equal(classifier.pooler.dense.weight, source.pooler.dense.weight)
        peer, report = transformers.AutoModel.from_pretrained(run / "adapted", output_loading_info=True)
        assert not report["missing_keys"]
        peers = peer.pooler.bias if name.startswith("albert") else peer.pooler.dense.bias
        assert torch.equal(peers, source.pooler.dense.bias)
        masked, report = transformers.AutoModelForMaskedLM.from_pretrained(run / "adapted", output_loading_info=True)
        assert not report["missing_keys"] and not report["mismatched_keys"]
        ids = torch.arange(5, 17)[None]
        with torch.inference_mode():
            ours = load_model(run / "adapted", "lm")(ids)
            torch.testing.assert_close(masked.eval()(ids).logits, ours, rtol=1e-4, atol=1e-5)


# --- Interruptions ---


def outcome(run: Path) -> dict[str, Any]:
    """What two equal adaptations have in common."""
    timed = {"seconds", "tokens_per_second"}
    history = [json.loads(line) for line in (run / "adaptation" / "metrics.jsonl").read_text().splitlines()]
    results = read_json(run / "adaptation" / "results.json")
    return {
        "files": {path.name: path.read_bytes() for path in (run / "adapted").iterdir()},
        "history": [{key: value for key, value in entry.items() if key not in timed} for entry in history],
        "results": {key: value for key, value in results.items() if key not in timed},
    }


@pytest.mark.parametrize(("name", "tokens"), [("bert-lm", ("[MASK]",)), ("t5-lm", ("<extra_id_1>", "<extra_id_2>"))])
def test_an_interrupted_adaptation_ends_where_the_uninterrupted_one_ends(
    tmp_path: Path, name: str, tokens: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config(tmp_path, name, tokens)
    whole = adapted(path, tmp_path / "whole")
    step, done = _Loop._step, []

    def interrupted(self: _Loop, *given: Any) -> None:
        step(self, *given)
        done.append(1)
        if len(done) in (3, 12):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(_Loop, "_step", interrupted)
    for _ in range(2):
        with pytest.raises(Interrupted) as error:
            adapted(path, tmp_path / "parts")
        assert error.value.folder == tmp_path / "parts"
        assert not (tmp_path / "parts" / "adapted").exists()
    assert outcome(adapted(path, tmp_path / "parts")) == outcome(whole)
    total = len(done)
    monkeypatch.setattr(_Loop, "__init__", None)  # what is done is not done again
    adapted(path, tmp_path / "parts")
    assert len(done) == total


def test_a_kill_before_the_model_is_written_costs_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_config(tmp_path)
    whole = adapted(path, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("minilm.runs.adapt.save_model", lambda *given: 1 // 0)
        adapted(path, tmp_path / "parts")
    monkeypatch.setattr(_Loop, "_step", None)
    assert outcome(adapted(path, tmp_path / "parts")) == outcome(whole)


def test_a_kill_before_the_checkpoints_are_dropped_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_config(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("minilm.runs.adapt._drop_checkpoints", lambda place: None)
        run = adapted(path, tmp_path / "parts")
    assert (run / "adaptation" / "checkpoints").exists()
    adapted(path, tmp_path / "parts")
    assert not (run / "adaptation" / "checkpoints").exists()


def test_recomputing_changes_no_bit(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    runs = [adapted(path, tmp_path / name, f"adapt.train.gradient_checkpointing={name}") for name in ("true", "false")]
    assert outcome(runs[0]) == outcome(runs[1])


# --- Texts ---


def test_no_text_is_learned_twice_or_measured_on(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    config = load_config(path)
    prepared = prepare(config)
    data = prepared.data
    texts = tmp_path / "more.txt"
    everything = [*data.train.texts, *data.validation.texts, *data.test.texts, "", "take two pills", "take two pills"]
    texts.write_bytes("\r\n".join(everything).encode("utf-8-sig"))
    adaptation = prepare_adaptation(load_config(path, [f"adapt.texts={texts}"]), prepared)
    assert adaptation.texts == len(data.train.texts) + 1
    assert adaptation.left_out == len(data.validation.texts) + len(data.test.texts) + 2
    plain = prepare_adaptation(config, prepared)
    assert plain.texts == len(data.train.texts) and plain.left_out == 0
    table = tmp_path / "more.jsonl"
    table.write_text("".join(json.dumps({"text": text, "other": 1}) + "\n" for text in everything))
    again = prepare_adaptation(load_config(path, [f"adapt.texts={table}"]), prepared)
    assert again.train.blocks.ids.tolist() == adaptation.train.blocks.ids.tolist()


def test_pairs_are_texts_of_their_own(tmp_path: Path) -> None:
    path, data = write_config(tmp_path), tmp_path / "pairs.tsv"
    texts = sentences(60)
    rows = [f"{a}\t{b}\t{'yn'[i % 2]}" for i, (a, b) in enumerate(zip(texts[::2], texts[1::2], strict=False))]
    data.write_text("\n".join(["one\ttwo\tlabel", *rows]) + "\n")
    config = load_config(path, [f"data.source={data}", "data.text=one", "data.text_pair=two", "data.max_tokens=20"])
    prepared = prepare(config)
    adaptation = prepare_adaptation(config, prepared)
    assert adaptation.texts == 2 * len(prepared.data.train)
    tokenizer = prepared.tokenizer
    first = tokenizer.decode(adaptation.train.blocks.ids.tolist(), skip_special_tokens=False)
    assert first.replace(" ", "").startswith(f"[CLS]{prepared.data.train.texts[0]}[SEP][CLS]".replace(" ", ""))


def test_texts_of_a_decoder_end_where_its_tokenizer_does_not_say_so(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, "gpt2-lm-old", ()))
    prepared = prepare(config)
    adaptation = prepare_adaptation(config, prepared)
    end = prepared.tokenizer.token_to_id("</s>")
    assert (adaptation.train.blocks.ids == end).sum() >= adaptation.texts - 1


def test_whole_words_are_hidden_together(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    file = tmp_path / "bert-lm" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(file))
    config = load_config(path, ["adapt.whole_words=true"])
    adaptation = prepare_adaptation(config, prepare(config))
    words, labels = adaptation.train.words, adaptation.batch("train", np.arange(8), 0).labels
    assert words is not None and labels is not None
    for row, asked in zip(words[: 8 * 16].reshape(8, 16), labels.numpy() >= 0, strict=True):
        assert asked.any() and not asked[row < 0].any()
        assert (np.isin(row, row[asked]) == asked).all()
    run = adapted(path, tmp_path / "run", "adapt.whole_words=true")
    perplexity = read_json(run / "adaptation" / "results.json")["perplexity"]
    assert perplexity["after"] < 0.75 * perplexity["before"]


def test_blocks_that_hold_nothing_to_ask_about_are_left_out(tmp_path: Path) -> None:
    path, corpus = write_config(tmp_path), tmp_path / "texts.txt"
    known = sentences(80)
    config = load_config(path, [f"adapt.texts={corpus}", "adapt.train.batch_size=1"])
    prepared = prepare(config)
    unknown = ["[UNK]" * (30 + i) for i in range(4)]
    corpus.write_text("\n".join([*known, *unknown, *(f"{text} now" for text in known)]))
    adaptation = prepare_adaptation(config, prepared)
    blocks, special = adaptation.train.blocks, special_ids(prepared.tokenizer)
    assert (blocks.ids == prepared.tokenizer.token_to_id("[UNK]")).any()
    for row in range(len(blocks)):
        assert not special[blocks.row(row)].all()
        assert (adaptation.batch("train", np.array([row]), 0).labels >= 0).any()
    assert adapted(path, tmp_path / "run", f"adapt.texts={corpus}", "adapt.train.batch_size=1")


# --- What cannot be done ---


def test_bad_input_is_told_in_one_line(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    assert "adapt.block must be at least 8 and at most 24" in refused(path, "adapt.block=25")
    assert "adapt.block must be at least 8" in refused(path, "adapt.block=4")
    few = tmp_path / "few.txt"
    few.write_text("take no pill\nno\n")
    message = refused(path, f"adapt.texts={few}")
    assert "2 texts for adaptation give 1 blocks of 16 tokens, fewer than one batch" in message
    assert "adapt.train.warmup is 100 steps, but training has only" in refused(path, "adapt.train.warmup=100")
    assert "does not split texts into words" in refused(path, "adapt.whole_words=true")
    assert "adapt.train.class_weights is only for classification" in refused(path, "adapt.train.class_weights=balanced")
    assert 'adapt.train.best must be "loss"' in refused(path, "adapt.train.best=accuracy")
    assert f"{tmp_path}/fews.txt: cannot be read" in refused(path, f"adapt.texts={tmp_path}/fews.txt")
    assert "did you mean" in refused(path, f"adapt.texts={tmp_path}/fews.txt")
    assert "unknown format; the file name must end in .txt, .csv" in refused(path, "adapt.texts=a.doc")
    few.write_bytes(b"take\nno\xff")
    assert f"{few}, line 2: not UTF-8 (byte 0xff)" in refused(path, f"adapt.texts={few}")
    assert not (tmp_path / "run").exists()


def test_a_table_without_texts_is_refused(tmp_path: Path) -> None:
    path, table = write_config(tmp_path), tmp_path / "more.jsonl"
    table.write_text('{"text": "take one"}\n{"text": 3}\n')
    with pytest.raises(UserError, match=r'more\.jsonl, line 2: column "text" contains no text'):
        adapted(path, tmp_path / "run", f"adapt.texts={table}")
    table.write_text('{"body": "take one"}\n')
    assert 'no column "text"' in refused(path, f"adapt.texts={table}")


def test_what_the_tokenizer_lacks_is_named(tmp_path: Path) -> None:
    path = write_config(tmp_path, "bert-lm", ())
    assert "[adapt]: the tokenizer has no mask token ([MASK] or <mask>)" in refused(path)
    path = write_config(tmp_path, "t5-lm", ())
    assert "needs 2 sentinels, but the tokenizer has 1" in refused(path)
    assert "whole_words is only for masked-language models" in refused(path, "adapt.whole_words=true")
    path = write_config(tmp_path, "distilbert-lm", ("[MASK]", "pill", "doctor", "twice", "meal"))
    assert "the tokenizer has the token id 65, but the model has only 64" in refused(path)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("gpt2-lm-old", "adapt.mlm_probability=0.3", "mlm_probability is only for masked-language models and T5"),
        ("gpt2-lm-old", "adapt.span=2", "span is only for T5, which predicts spans; remove it"),
        ("bert-lm", "adapt.span=2", "span is only for T5, which predicts spans; remove it"),
    ],
)
def test_a_setting_of_another_kind_of_question_is_refused(tmp_path: Path, name: str, change: str, said: str) -> None:
    path = write_config(tmp_path, name, ("[MASK]",) if name == "bert-lm" else ())
    assert f"[adapt]: {said}" in refused(path, change)


@pytest.mark.parametrize(
    ("name", "more", "complaint"),
    [
        ("bert-lm", '[lora]\nrank = 2\ntargets = ["qery"]', '"qery"'),
        ("bert-lm", '[freeze]\npart = "all-but-last"\nlayers = 9', "freeze"),
        ("t5-encoder", "", "lacks the tensor"),
    ],
)
def test_what_a_later_stage_cannot_do_is_told_before_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, more: str, complaint: str
) -> None:
    tokens = ("[MASK]",) if name == "bert-lm" else ("<extra_id_1>", "<extra_id_2>")
    path = write_config(tmp_path, name, tokens)
    path.write_text(path.read_text() + f"\n[train]\nepochs = 1\nlr = 1e-3\n{more}\n")
    with pytest.raises(UserError) as error:
        train_run(path, runs=tmp_path / "runs")
    assert complaint in str(error.value) and not (tmp_path / "runs").exists() and not caplog.messages


def test_want_of_memory_is_answered_with_what_needs_less_in_this_stage(tmp_path: Path) -> None:
    def no_memory() -> None:
        raise MemoryError

    message = r"lower adapt\.train\.batch_size .* adapt\.block"
    with pytest.raises(UserError, match=message) as raised, at_step(2, no_memory):
        train_run(write_config(tmp_path), ["train.epochs=1", "train.lr=0.001"], runs=tmp_path / "runs")
    assert "or data.max_tokens" not in str(raised.value)
