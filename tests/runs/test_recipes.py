"""Every recipe runs from end to end: on the sample of its data, with a tiny checkpoint of its family."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from minilm.config import DataSection, load_config
from minilm.data.catalog import entries
from minilm.hub import catalogue
from tests.making import dry_make, made
from tests.tiny import minilm

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests" / "reference"
RECIPES = sorted((ROOT / "experiments" / "finetune").glob("*.toml"))
FAMILIES = {
    "albert": "albert-classify",
    "bert": "bert-classify",
    "bielik": "llama-classify",
    "deberta": "deberta-v2-classify",
    "distilbert": "distilbert-classify",
    "flan-t5": "t5-classify",
    "gpt2": "gpt2-classify",
    "herbert": "bert-classify",
    "minilm": "bert-classify",
    "modernbert": "modernbert-classify",
}


def test_there_is_a_recipe_for_each_of_these() -> None:
    assert {path.stem for path in RECIPES} == set(FAMILIES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_from_end_to_end_on_the_sample_of_its_data(tmp_path: Path, recipe: Path) -> None:
    config = load_config(recipe)
    assert config.name == f"finetune-{recipe.stem}" and config.model.source in catalogue()
    assert config.data.source in entries()
    changes = [f"model.source={REFERENCE / FAMILIES[recipe.stem]}", "data.sample=true", "data.max_tokens=20"]
    changes += ["data.train_rows=24", "data.validation_rows=12", "data.test_rows=12", "train.epochs=1"]
    changes += ["train.threads=1"] + (["freeze.layers=1"] if config.freeze.layers else [])
    result = minilm("train", recipe, *changes, "--runs", tmp_path)
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / config.name / "results.json").read_text())
    assert results["test"]["loss"] > 0 and results["data"]["name"].endswith("-sample")
    assert (
        minilm("predict", tmp_path / config.name, "a\tb" if config.data.source.startswith("med") else "a").exit_code
        == 0
    )


@pytest.mark.parametrize("model", FAMILIES)
def test_a_recipe_takes_a_file_of_ones_own_with_one_label_a_text(tmp_path: Path, model: str) -> None:
    (tmp_path / "mine.csv").write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(60)))
    words = made(dry_make(f"MODEL={model}", f"DATA={tmp_path / 'mine.csv'}"))
    changes = [f"model.source={REFERENCE / FAMILIES[model]}", "data.max_tokens=20", "train.epochs=1", "train.threads=1"]
    changes += ["freeze.layers=1"] if load_config(ROOT / words[2]).freeze.layers else []
    result = minilm(*words[1:], *changes, "--runs", tmp_path)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), ("experiments/finetune/minilm.toml",)),
        (("MODEL=bielik", "DATA=sample"), ("experiments/finetune/bielik.toml", "data.sample=true")),
        (("MODEL=bert", "DATA=my texts.csv"), ("data.source=my texts.csv",)),
        (("METHOD=full",), ("freeze.part=nothing", "lora.rank=0", "train.lr=5e-5")),
        (("METHOD=head",), ("freeze.part=backbone", "lora.rank=0", "train.lr=1e-3")),
        (("METHOD=last12",), ("freeze.part=all-but-last", "freeze.layers=12")),
        (("METHOD=lora", "ARGS=lora.rank=4 seed=2"), ("freeze.part=nothing", "lora.rank=8", "lora.rank=4", "seed=2")),
        (("METHOD=lora", "lora.rank=4"), ("lora.rank=8", "lora.rank=4")),
    ],
)
def test_make_finetune_says_to_minilm_what_was_asked(arguments: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    command = made(dry_make(*arguments))
    assert command[:2] == [".venv/bin/minilm", "train"] and command[2].startswith("experiments/finetune/")
    assert set(wanted) <= set(command)


def test_other_data_than_the_recipes_own_are_taken_whole_unless_one_says_otherwise() -> None:
    def section(*arguments: str) -> DataSection:
        _, _, recipe, *changes = made(dry_make("MODEL=distilbert", *arguments))
        return load_config(ROOT / recipe, changes).data

    own = load_config(ROOT / "experiments" / "finetune" / "distilbert.toml").data
    assert own.train_rows and own.validation_rows and own.clean
    other = section("DATA=my reviews.csv")
    assert (other.train_rows, other.validation_rows, other.test_rows, other.clean) == (0, 0, 0, [])
    assert section("DATA=my reviews.csv", "data.train_rows=7", 'data.clean=["lower"]') == replace(
        other, train_rows=7, clean=["lower"]
    )
    assert section("DATA=ag-news") == own and section("DATA=sample") == replace(own, sample=True)


def test_the_recipes_own_data_keep_its_metric_and_threshold() -> None:
    assert made(dry_make("MODEL=albert", "DATA=tweet-emotions"))[3:] == ["data.source=tweet-emotions"]


@pytest.mark.parametrize("target", ["finetune", "scratch"])
def test_make_hands_on_what_the_command_line_sets_and_nothing_of_its_own(target: str) -> None:
    changes = ['data.labels=["a b", "it\'s"]', "data.text=x # $y", "data.text_pair=", "seed=2", "train.epochs=1"]
    own = ["PYTHON=python3", "JOBS=1", "BIN=.venv/bin", "ARGS=seed=3 --resume"]
    command = made(dry_make(*own, *changes, target=target))
    assert command[3:] == [*changes, "seed=3", "--resume"]
    words = made(dry_make("name=x", "DATA=it's.csv", target=target))[3:]
    assert words[0] == "data.source=it's.csv" and words[-1] == "name=x"


def test_make_scratch_takes_changes_on_the_studys_data_too() -> None:
    command = made(dry_make("DATA=polish-slang", "train.epochs=1", target="scratch"))
    assert command == [".venv/bin/minilm", "train", "experiments/scratch.toml", "train.epochs=1"]


@pytest.mark.parametrize("method", ["some", "full head", "last", "lastX", "last0", "last3 x"])
def test_make_finetune_refuses_a_method_there_is_not(method: str) -> None:
    done = dry_make(f"METHOD={method}")
    message = f"METHOD is full, head, last3 (or another number) or lora, not {method}."
    assert done.returncode != 0 and message in done.stderr


def test_bielik_without_the_hub_says_what_is_missing_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MINILM_WEIGHTS", str(tmp_path / "weights"))
    recipe = ROOT / "experiments" / "finetune" / "bielik.toml"
    result = minilm("train", recipe, "--runs", tmp_path / "runs")
    assert result.exit_code == 1
    first, model, data = result.stderr.strip().splitlines()
    assert "the Hub cannot be reached" in first
    assert model.startswith("model speakleash/Bielik-1.5B-v3: ") and "make weights MODEL=bielik" in model
    assert data.startswith("data ") and "DATA=sample" in data and "data.train" in data
    with_data = minilm("train", recipe, "data.sample=true", "--runs", tmp_path / "runs")
    assert with_data.exit_code == 1 and len(with_data.stderr.strip().splitlines()) == 1
    assert tomllib.loads(recipe.read_text())["train"]["lr"] == 1e-5
