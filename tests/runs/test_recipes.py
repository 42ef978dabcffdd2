"""Every recipe runs from end to end: on the sample of its data, with a tiny checkpoint of its family."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from minilm.config import DataSection, FreezeAllButLast, FreezeBackbone, FreezeNothing
from minilm.data.catalog import entries
from minilm.hub import catalogue
from minilm.loading import load_config
from minilm.runs.finetune import changes_of, for_pairs, recipe_of
from tests.making import dry_make, made
from tests.tiny import minilm, refused

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
    changes += ["train.threads=1"] + (["freeze.layers=1"] if config.freeze.part == "all-but-last" else [])
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
    changes = [f"model.source={REFERENCE / FAMILIES[model]}", "data.max_tokens=20", "train.epochs=1", "train.threads=1"]
    changes += ["freeze.layers=1"] if model == "bielik" else []
    result = minilm("finetune", model, "--data", tmp_path / "mine.csv", *changes, "--runs", tmp_path)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("method", "freeze", "rank"),
    [
        ("full", FreezeNothing(), 0),
        ("head", FreezeBackbone(), 0),
        ("last3", FreezeAllButLast(layers=3), 0),
        ("last12", FreezeAllButLast(layers=12), 0),
        ("lora", FreezeNothing(), 8),
    ],
)
@pytest.mark.parametrize("model", FAMILIES)
def test_every_method_is_for_every_recipe(model: str, method: str, freeze: object, rank: int) -> None:
    recipe = recipe_of(model)
    config = load_config(recipe, changes_of(recipe, method=method))
    assert (config.freeze, config.lora and config.lora.rank) == (freeze, rank)
    assert config.train and config.train.lr == {"head": 1e-3, "lora": 5e-4}.get(method, 5e-5)


@pytest.mark.parametrize("method", ["some", "full head", "last", "lastX", "last0", "last3 x", "last100"])
def test_another_method_is_refused(method: str) -> None:
    said = f'--method must be full, head, last3 (or another number) or lora, got "{method}"'
    assert said in refused("finetune", "bert", "--method", method)


def test_the_method_of_a_recipe_is_its_own_if_no_other_is_chosen() -> None:
    assert changes_of(recipe_of("bielik")) == []


def test_a_change_comes_after_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr("minilm.cli._train", lambda recipe, changes, **_: seen.append((recipe.stem, *changes)))
    assert minilm("finetune", "bert", "lora.rank=4", "--method", "lora", "seed=2", "--resume").exit_code == 0
    assert seen == [("bert", "freeze.part=nothing", "lora.rank=8", "train.lr=5e-4", "lora.rank=4", "seed=2")]


@pytest.mark.parametrize(
    ("model", "changes", "kind"),
    [
        ("minilm", ["data.text_pair=b"], "family"),
        ("minilm", ['data.text_pair="b"'], "family"),
        ("minilm", ["data.text_pair=b", "model.head.kind=mlp"], "mlp"),
        ("minilm", ["data.text_pair=b", "model.head.pooling=cls"], "mlp"),
        ("minilm", ["data.text_pair=b", "data.text_pair="], "mlp"),
        ("minilm", ['data.text_pair=""'], "mlp"),
        ("minilm", ["data.text=a"], "mlp"),
        ("bielik", ["data.text_pair=b"], "mlp"),  # its head reads the last vector
    ],
)
def test_pairs_are_read_by_the_familys_head_unless_one_is_chosen(model: str, changes: list[str], kind: str) -> None:
    recipe = recipe_of(model)
    assert load_config(recipe, for_pairs(recipe, changes)).model.head.kind == kind


def test_the_model_may_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINILM_WEIGHTS", str(tmp_path))
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr("minilm.cli._train", lambda recipe, changes, **_: seen.append((recipe.stem, *changes)))
    monkeypatch.setattr("minilm.hub.download_model", lambda name: seen.append((name,)))
    monkeypatch.setattr("minilm.hub.is_whole", lambda folder: False)
    assert minilm("finetune", "seed=2", "--data", "sample").exit_code == 0
    assert seen == [("minilm",), ("minilm", "data.sample=true", "seed=2")]  # its checkpoint is in a package
    seen.clear()
    assert minilm("finetune", "minilm", f"model.source={REFERENCE / 'bert'}").exit_code == 0
    assert seen == [("minilm", f"model.source={REFERENCE / 'bert'}")]


def test_a_model_without_a_recipe_is_named_with_those_that_have_one() -> None:
    said = refused("finetune", "bret")
    assert 'no recipe for the model "bret" (did you mean "bert"?); there are recipes for albert, bert' in said


def test_other_data_than_the_recipes_own_are_taken_whole_unless_one_says_otherwise() -> None:
    recipe = recipe_of("distilbert")

    def section(data: str, *changes: str) -> DataSection:
        return load_config(recipe, [*changes_of(recipe, data), *changes]).data

    own = load_config(recipe).data
    assert own.train_rows and own.validation_rows and own.clean
    other = section("my reviews.csv")
    assert (other.train_rows, other.validation_rows, other.test_rows, other.clean) == (0, 0, 0, [])
    assert section("my reviews.csv", "data.train_rows=7", 'data.clean=["lower"]') == replace(
        other, train_rows=7, clean=["lower"]
    )
    assert section("ag-news") == own and section("sample") == replace(own, sample=True)


def test_the_recipes_own_data_keep_its_metric_and_threshold() -> None:
    recipe = recipe_of("albert")
    assert changes_of(recipe, "tweet-emotions") == ["data.source=tweet-emotions"]
    config = load_config(recipe, changes_of(recipe, "mine.csv"))
    assert config.train and (config.train.best, config.train.decision_threshold) == ("loss", "auto")


def test_few_texts_of_other_data_make_enough_steps_unless_one_names_the_epochs() -> None:
    recipe = recipe_of("minilm")

    def settings(data: str, *changes: str) -> tuple[int, int]:
        train = load_config(recipe, [*changes_of(recipe, data), *changes]).train
        assert train is not None
        return train.epochs, train.min_steps

    assert settings("mine.csv") == (5, 200) and settings("news-sample") == (5, 0)
    assert settings("mine.csv", "train.epochs=3") == (3, 0)
    assert settings("mine.csv", "train.epochs=3", "train.min_steps=50") == (3, 50)
    assert settings("mine.csv", "train.min_steps=50") == (5, 50)


@pytest.mark.parametrize(
    ("target", "begin"), [("finetune", ["finetune", "minilm"]), ("scratch", ["train", "scratch_sample"])]
)
def test_make_hands_on_what_the_command_line_sets_and_nothing_of_its_own(target: str, begin: list[str]) -> None:
    changes = ['data.labels=["a b", "it\'s"]', "data.text=x # $y", "data.text_pair=", "seed=2", "train.epochs=1"]
    own = ["PYTHON=python3", "JOBS=1", "BIN=.venv/bin", "ARGS=seed=3 --resume"]
    command = made(dry_make(*own, *changes, target=target))
    assert command == [".venv/bin/minilm", *begin, *changes, "seed=3", "--resume"]
    words = made(dry_make("name=x", "DATA=it's.csv", target=target))[3:]
    data = ["--data", "it's.csv"] if target == "finetune" else ["data.source=it's.csv"]
    assert words == [*data, "name=x"]


def test_make_finetune_is_one_line_over_minilm_finetune() -> None:
    command = made(dry_make("MODEL=bielik", "DATA=sample", "METHOD=last3"))
    assert command == [".venv/bin/minilm", "finetune", "bielik", "--data", "sample", "--method", "last3"]


def test_make_scratch_takes_changes_on_the_studys_data_too() -> None:
    command = made(dry_make("DATA=polish-slang", "train.epochs=1", target="scratch"))
    assert command == [".venv/bin/minilm", "train", "scratch", "train.epochs=1"]


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
    assert model.startswith("  model speakleash/Bielik-1.5B-v3: ") and "`minilm download bielik`" in model
    assert data.startswith("  data ") and "DATA=sample" in data and "data.train" in data
    with_data = minilm("train", recipe, "data.sample=true", "--runs", tmp_path / "runs")
    assert with_data.exit_code == 1 and len(with_data.stderr.strip().splitlines()) == 1
    assert tomllib.loads(recipe.read_text())["train"]["lr"] == 1e-5
