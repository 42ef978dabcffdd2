"""[augment]: training rows of a run are added to, and nothing else is."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from minilm.loading import load_config
from minilm.runs import augment as runs_augment
from minilm.runs.assembly import PreparedData, prepare
from tests.tiny import at_step, minilm, outcome, refused, texts, write_config

SWAP = '[augment]\nmethod = "swap"\nratio = 0.5\nfraction = 0.4\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, SWAP)


def data_of(config: Path, *changes: str) -> PreparedData:
    return prepare(load_config(config, changes))


def test_only_training_rows_are_added_to_and_by_the_seed(config: Path) -> None:
    prepared, plain = data_of(config), data_of(config, "augment.ratio=0")
    given = plain.data.train
    assert plain.added == 0 and plain.train is plain.data.train and prepared.added == round(len(given) / 2)
    assert prepared.train.texts[: len(given)] == given.texts == prepared.data.train.texts
    assert prepared.data.fingerprint == plain.data.fingerprint
    for split in ("validation", "test"):
        assert prepared.rows(split).texts == plain.rows(split).texts
        assert np.array_equal(prepared.rows(split).labels, plain.rows(split).labels)
    assert len(prepared.encoded["train"]) == len(prepared.train) == len(prepared.rows("train"))
    new = prepared.train.texts[len(given) :]
    assert new == data_of(config).train.texts[len(given) :] != data_of(config, "seed=2").train.texts[len(given) :]
    label = dict(texts())
    names = prepared.data.label_names
    for text, number in zip(new, prepared.train.labels[len(given) :], strict=True):
        source = next(other for other in label if sorted(other.split()) == sorted(text.split()))
        assert label[source] == names[number]


def test_no_new_text_is_one_of_another_split(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    # Swapped, the training texts 0 to 7 are texts of validation (0 to 2), test (3 to 5), and second texts there (6, 7).
    splits = {
        "train": [(f"{i} word", "same") for i in range(9)],
        "validation": [("word 0", "WORD  6"), ("word 1", "x"), ("word 2", "x")],
        "test": [("word 3", "word 7"), ("Word 4", "x"), ("word  5", "x")],
    }
    for split, rows in splits.items():
        lines = [f"{text}\t{pair}\t{'good' if i % 2 else 'bad'}" for i, (text, pair) in enumerate(rows)]
        (folder / f"{split}.tsv").write_text("\n".join(["text\tother\tlabel", *lines]) + "\n")
    pairs = [f"data.source={folder}", "data.text_pair=other", "augment.ratio=1"]
    found = data_of(write_config(tmp_path, SWAP), *pairs)
    assert found.train.texts[9:] == ["word 8"] and found.train.pairs[9:] == ["same"]


def test_the_number_is_told_and_the_sizes_are_the_datas(config: Path, tmp_path: Path) -> None:
    result = minilm("train", config, "train.epochs=1", "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    run = tmp_path / "runs" / "tiny"
    results = json.loads((run / "results.json").read_text())
    size, added = results["data"]["sizes"]["train"], results["augmentation"]["added"]
    assert f"{added} training texts added to {size} (swap)" in result.output and added == round(size / 2)
    assert sum(map(sum, results["train"]["confusion"])) == size + added
    assert sum(map(sum, results["test"]["confusion"])) == results["data"]["sizes"]["test"]
    assert f"{added} (swap, ratio 0.5)" in (run / "report.md").read_text()


def test_an_interrupted_run_goes_on_with_the_same_rows(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert minilm("train", config, "--runs", whole).exit_code == 0
    with at_step(5, lambda: os.kill(os.getpid(), signal.SIGINT)):
        assert minilm("train", config, "--runs", halves).exit_code == 130
    with monkeypatch.context() as patch:  # a method that has changed, such as another WordNet
        patch.setattr(runs_augment, "by_words", lambda *_: lambda texts, randoms: [f"{text}!" for text in texts])
        assert "the text that [augment] generates changed" in refused("train", config, "--runs", halves, "--resume")
    assert minilm("train", config, "--runs", halves, "--resume").exit_code == 0
    assert outcome(halves / "tiny") == outcome(whole / "tiny")


def test_each_method_gets_what_it_needs(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(source: str, *, masked: bool, device: str) -> tuple[str, str]:
        asked.append((source, masked))
        return "model", "tokenizer"

    def upper(model: str, tokenizer: str, fraction: float = 0) -> object:
        asked.append((model, fraction))
        return lambda texts, randoms: [f"{text} {text.upper()}" for text in texts]

    monkeypatch.setattr(runs_augment, "load_language_model", load)
    monkeypatch.setattr(runs_augment, "masked_words", upper)
    monkeypatch.setattr(runs_augment, "back_translation", upper)
    monkeypatch.setattr(runs_augment, "wordnet", lambda: lambda word: ["neat"] if word == "good" else [])
    for method in ("masked-words", "back-translation"):  # the second drops the file's fraction, which it has not
        assert data_of(config, f"augment.method={method}", "augment.model=m").added > 0
    assert asked == [("m", True), ("model", 0.4), ("m", False), ("model", 0)]
    prepared = data_of(config, "augment.method=synonyms", "augment.ratio=0.05")
    assert prepared.added and all("neat" in text for text in prepared.train.texts[-prepared.added :])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["augment.ratio=2.5"], "augment.ratio must be a number from 0 to 2"),
        (["augment.model=bert"], 'augment.model belongs to augment.method = "masked-words" or "back-translation"'),
        (["augment.method=masked-words"], "augment.model is missing"),
        (["augment.method=shuffle"], "augment.method must be"),
        (["augment.method=masked-words", "augment.model=/none"], "/none"),
    ],
)
def test_what_does_not_fit_is_refused(config: Path, tmp_path: Path, changes: list[str], words: str) -> None:
    assert words in refused("train", config, *changes, "--runs", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
