"""Fine-tuning from end to end, in every way: what a run saves comes back bit for bit, also after an interruption."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minilm.checkpoints.models import new_model, save_model
from minilm.checkpoints.opening import load_model
from minilm.data.tokenization import load_tokenizer
from minilm.evaluation.predictor import Classifier
from minilm.models.gpt2 import GPT2Config
from minilm.runs.conclude import conclude
from minilm.runs.evaluate import evaluate_runs
from minilm.runs.export import export_run
from minilm.runs.fit import Trained, TrainRun
from tests.tiny import at_step, minilm, outcome, refused, texts, write_data

REFERENCE = Path(__file__).parents[1] / "reference"
CONFIG = """
name = "tuned"

[model]
source = "{model}"

[data]
source = "{data}"
max_tokens = 20

[train]
epochs = 2
batch_size = 8
lr = 1e-2
evaluate_every = 4
checkpoint_minutes = 0
threads = 1
"""
WAYS = {
    "full": ("bert-classify", 'model.head.kind="family"'),
    "head": ("bert-classify", 'model.head.kind="family"', "freeze.part=backbone"),
    "last": ("llama-classify", "freeze.part=all-but-last", "freeze.layers=1", "model.head.norm=true"),
    "first": ("distilbert-classify", "freeze.part=first", "freeze.layers=1", "train.gradient_checkpointing=true"),
    "albert": ("albert-classify", "freeze.part=first"),
    "lora": ("gpt2-classify", "lora.rank=2", "lora.dropout=0.1", 'model.head.kind="family"'),
    "lora, own head": ("t5-classify", "lora.rank=2", 'lora.targets=["all-linear"]', "lora.rank_stabilized=true"),
    "lora, dora": ("gpt2-classify", "lora.rank=2", "lora.dora=true", "lora.dropout=0.1", 'model.head.kind="family"'),
    "adapted": ("bert-lm", "adapt.block=16", "adapt.train={epochs=1, lr=1e-2, batch_size=4}", "freeze.part=backbone"),
    "adapted, lora": ("bert-lm", "adapt.block=16", "adapt.train={epochs=1, lr=1e-2, batch_size=4}", "lora.rank=2"),
    "bfloat16": ("bert-classify", "train.precision=bfloat16", "freeze.part=first", "freeze.layers=1"),
    "several labels": (
        "t5-classify", 'model.head.kind="family"', "train.decision_threshold=validation", "train.best=micro_f1",
    ),
}


def write_config(folder: Path, way: str) -> tuple[Path, list[str]]:
    """A run's config and changes to it."""
    name, *changes = WAYS[way]
    model = REFERENCE / name
    if way.startswith("adapted"):
        model = with_mask(model, folder)
    if way == "several labels":
        data = folder / "texts.tsv"
        rows = [f"{text}\t{int('good' in label)}\t{i % 3 // 2}" for i, (text, label) in enumerate(texts())]
        data.write_text("\n".join(["text\tgood\tthird", *rows]) + "\n")
        changes.append('data.label_columns=["good", "third"]')
    else:
        data = write_data(folder / "texts.tsv")
    path = folder / "tuned.toml"
    path.write_text(CONFIG.format(model=model, data=data), encoding="utf-8")
    return path, changes


def with_mask(model: Path, folder: Path) -> Path:
    """A copy of a checkpoint whose tokenizer has a mask token."""
    from shutil import copytree

    from tokenizers import Tokenizer

    place = copytree(model, folder / "model")
    tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
    tokenizer.add_special_tokens(["[MASK]"])
    tokenizer.save(str(place / "tokenizer.json"))
    return place


@pytest.mark.parametrize("way", WAYS)
def test_it_comes_back_bit_for_bit_reloaded_resumed_merged_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    seen: dict[str, Any] = {}

    def note(run: TrainRun, trained: Trained) -> None:
        seen.update(scores=trained.scores, test=run.prepared.data.test)
        conclude(run, trained)

    monkeypatch.setattr("minilm.runs.train.conclude", note)
    config, changes = write_config(tmp_path, way)
    result = minilm("train", config, *changes, "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    run = tmp_path / "runs" / "tuned"
    expected, test = seen["scores"]["test"], seen["test"]
    assert not (run / "cache").exists()

    reloaded = Classifier.load(run, "cpu")
    assert np.array_equal(reloaded.scores_of_rows(test), expected)
    results = json.loads((run / "results.json").read_text())
    if way == "several labels":
        assert reloaded.multi_label and reloaded.reading.threshold == results["decision_threshold"] != 0.5

    if way.startswith("adapted"):  # it is interrupted in its second stage
        steps = len((run / "adaptation" / "metrics.jsonl").read_text().splitlines())
        assert steps and results["adaptation"]["perplexity"]["after"] > 0
    with at_step(14 if way.startswith("adapted") else 7, lambda: os.kill(os.getpid(), signal.SIGINT)):
        broken = minilm("train", config, *changes, "--runs", tmp_path / "again")
    assert broken.exit_code == 130, broken.output
    resumed = minilm("train", tmp_path / "again" / "tuned" / "config.toml", "--resume", "--runs", tmp_path / "again")
    assert resumed.exit_code == 0, resumed.output
    first, second = outcome(run), outcome(tmp_path / "again" / "tuned")
    for key in ("adapter_config.json", "config.json"):  # they name the base's folder
        first["weights"].pop(key, None), second["weights"].pop(key, None)
    first["results"].pop("adaptation", None), second["results"].pop("adaptation", None)  # it tells its seconds
    assert first == second

    merged = export_run(str(run), tmp_path / "merged", merged=True)
    scores = Classifier.load(merged, "cpu").scores_of_rows(test)
    if "lora" in way:
        np.testing.assert_allclose(scores, expected, atol=1e-5)
        again = Classifier.load(merged, "cpu").scores_of_rows(test)
        assert np.array_equal(again, scores)
        alone = export_run(str(run), tmp_path / "adapter")
        assert (alone / "adapter_config.json").exists() and not (alone / "model.safetensors").exists()
        assert np.array_equal(Classifier.load(alone, "cpu").scores_of_rows(test), expected)
        assert sum(f.stat().st_size for f in (run / "model").iterdir() if f.suffix == ".safetensors") < 100_000
    else:
        assert np.array_equal(scores, expected)
    half = export_run(str(run), tmp_path / "half", merged=True, dtype="bfloat16")
    assert next(load_model(half).parameters()).dtype == torch.bfloat16


def test_what_is_computed_once_is_told_on_the_way_and_in_the_results(tmp_path: Path) -> None:
    config, changes = write_config(tmp_path, "head")
    result = minilm("train", config, *changes, "--runs", tmp_path)
    results = json.loads((tmp_path / "tuned" / "results.json").read_text())
    assert re.fullmatch(r"(\d) of \1 layers cached: 0 MiB", results["frozen_layers"])
    assert results["frozen_layers"] in result.stderr and results["frozen_layers"] in report(tmp_path)


def report(runs: Path) -> str:
    return (runs / "tuned" / "report.md").read_text()


@pytest.mark.parametrize(
    ("way", "change", "message"),
    [
        ("full", "freeze.part=all-but-last", "freeze.layers is missing; it must be a whole number of at least 1"),
        ("head", "lora.rank=2", "lora.rank and freeze.part cannot be combined"),
        ("last", "freeze.layers=9", "freeze.layers is 9, but the model has"),
        ("albert", "freeze.layers=1", "share one set of weights"),
        ("lora", 'lora.targets=["quary"]', r'"quary" names no linear layer of this model \(did you mean "query"\?\)'),
        ("lora", "lora.layers=[7]", "the model has no layer 7"),
        ("full", "freeze.layers=1", 'freeze.layers belongs to freeze.part = "first" or "all-but-last"'),
        ("full", 'lora.targets=["key"]', "lora.rank is missing"),
        ("adapted", "adapt.train.threads=3", "adapt.train.device, .precision, .threads and .log_to"),
        ("full", "train.decision_threshold=validation", "with two classes, train.decision_threshold must be a number"),
        ("full", "train.best=jaccard", 'no metric "jaccard" with one label per text'),
        ("full", "data.sample=true", "there is no sample for data.source"),
        ("adapted", "adapt.train.batch_size=4000", "fewer than one batch"),
        ("adapted", "tokenizer.source=bpe", "needs the checkpoint's own tokenizer"),
        ("several labels", 'data.label_columns=["good", "fourth"]', "fourth"),
        ("full", "data.text_pair=other", "other"),
    ],
)
def test_what_does_not_go_together_is_told_in_one_line_and_leaves_no_run(
    tmp_path: Path, way: str, change: str, message: str
) -> None:
    config, changes = write_config(tmp_path, way)
    assert re.search(message, refused("train", config, *changes, change, "--runs", tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_export_refuses_a_folder_in_use_and_a_run_that_has_not_finished(tmp_path: Path) -> None:
    config, _ = write_config(tmp_path, "full")
    (tmp_path / "config.toml").write_text(config.read_text())
    assert "this run has not finished" in refused("export", tmp_path, tmp_path / "out")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("")
    assert "already exists and is not empty" in refused("export", REFERENCE / "bert-classify", tmp_path / "used")


@pytest.mark.parametrize("family", ["bert", "llama", "t5", "gpt2", "albert"])
@pytest.mark.parametrize("way", ["freeze.part=backbone", "freeze.part=first", "lora.rank=2"])
def test_a_bfloat16_checkpoint_keeps_its_frozen_weights_and_trains_in_float32(
    tmp_path: Path, family: str, way: str
) -> None:
    half = save_model(load_model(REFERENCE / f"{family}-classify", dtype=torch.bfloat16), tmp_path / "half")
    config, _ = write_config(tmp_path, "full")
    changes = [f"model.source={half}", way, "train.precision=bfloat16", "train.epochs=1"]
    result = minilm("train", config, *changes, "--runs", tmp_path)
    assert result.exit_code == 0, result.output
    run = tmp_path / "tuned"
    metrics, _ = evaluate_runs([run], device="cpu")
    assert metrics["loss"] == json.loads((run / "results.json").read_text())["test"]["loss"]
    base, trained = load_model(half, "encode"), load_model(run / "model", "classify")
    assert {p.dtype for p in trained.parameters()} == {torch.float32}  # the widest of both
    name = "embeddings.token.weight"
    assert torch.equal(trained.get_parameter(name), base.get_parameter(name).float())
    exported = export_run(str(run), tmp_path / "out", merged=True)
    test = ["a good film", "dull"]
    least = 1e-3 if "lora" in way else 0  # merged, W + s B A is rounded to bfloat16 once, and not in two parts
    np.testing.assert_allclose(
        Classifier.load(exported, "cpu").scores(test), Classifier.load(run, "cpu").scores(test), atol=least
    )


@pytest.mark.parametrize("way", ["lora.rank=2", "freeze.part=backbone"])
def test_a_pooler_that_the_checkpoint_lacks_is_trained_and_saved_whatever_is_frozen(tmp_path: Path, way: str) -> None:
    config, _ = write_config(tmp_path, "full")
    changes = [f"model.source={REFERENCE / 'bert-lm'}", 'model.head.kind="family"', way]
    result = minilm("train", config, *changes, "--runs", tmp_path)
    assert result.exit_code == 0, result.output
    first, second = (Classifier.load(tmp_path / "tuned", "cpu").scores(["a good film"]) for _ in range(2))
    assert np.array_equal(first, second)


def test_texts_as_long_as_a_context_that_is_no_multiple_of_eight_are_cached(tmp_path: Path) -> None:
    rows = [("it was really quite good " * 10, "good"), ("dull " * 50, "bad")] * 20
    config = tmp_path / "long.toml"
    data = write_data(tmp_path / "texts.tsv", [(f"{text}{i}", label) for i, (text, label) in enumerate(rows)])
    tokenizer = load_tokenizer(REFERENCE / "gpt2-classify")
    shape = GPT2Config(vocab_size=tokenizer.get_vocab_size(), context=30, width=8, depth=2, heads=2)
    save_model(new_model("gpt2", shape, "encode"), tmp_path / "model", tokenizer=tokenizer)
    config.write_text(CONFIG.format(model=tmp_path / "model", data=data))
    result = minilm("train", config, "data.max_tokens=30", "freeze.part=backbone", "--runs", tmp_path)
    assert result.exit_code == 0, result.output


def test_an_adaptation_is_not_gone_on_with_on_other_texts(tmp_path: Path) -> None:
    config, changes = write_config(tmp_path, "adapted")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(f"it was a {i} day" for i in range(60)))
    changes.append(f"adapt.texts={corpus}")
    with at_step(2, lambda: os.kill(os.getpid(), signal.SIGINT)):
        assert minilm("train", config, *changes, "--runs", tmp_path / "runs").exit_code == 130
    corpus.write_text("\n".join(f"this is a {i} song" for i in range(60)))
    again = tmp_path / "runs" / "tuned" / "config.toml"
    assert "the texts of [adapt] changed" in refused("train", again, "--resume", "--runs", tmp_path / "runs")


def test_a_run_that_only_adapted_is_no_classifier_and_says_what_to_do_with_it(tmp_path: Path) -> None:
    config, changes = write_config(tmp_path, "adapted")
    text = config.read_text()
    config.write_text(text[: text.index("[train]")])
    result = minilm("train", config, *changes[:-1], "--runs", tmp_path)
    assert result.exit_code == 0 and "perplexity" in result.output, result.output
    said = "this run only adapted a checkpoint; to train a classifier, set model.source to"
    run = tmp_path / "tuned"
    assert said in refused("predict", run, "a") and said in refused("export", run, tmp_path / "x")
    changes = [f"model.source={run}", *changes[:-1]]
    assert "is a run's folder; give its model" in refused("train", config, *changes, "--runs", tmp_path)
