from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from minilm import hub
from tests.tiny import finished_run, minilm, refused, write_config

ROOT = Path(__file__).parents[2]


def parameters(*arguments: object) -> int:
    shown = minilm("info", *arguments).stdout
    [line] = [line for line in shown.splitlines() if line.startswith("Parameters ")]
    return int(line.split()[-1].replace(",", ""))


def test_the_scratch_study_has_its_published_number_of_parameters_without_the_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(hub, "resolve_model", unreachable)
    monkeypatch.setattr(hub, "dataset_files", unreachable)
    assert parameters(ROOT / "experiments" / "scratch.toml") == 5_728_003


def test_a_config_a_finished_run_its_model_and_an_unfinished_one_are_the_same_model(tmp_path: Path) -> None:
    run = finished_run()
    shutil.copy(run / "config.toml", tmp_path)
    for model in (run.parents[1] / "tiny.toml", run, run / "model", tmp_path):
        assert parameters(model) == 8930, model


def test_a_tokenizer_that_was_trained_elsewhere_tells_the_vocabulary(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    text = config.read_text().replace('"bpe"', f'"{finished_run() / "model"}"').replace("vocab_size = 300", "")
    config.write_text(text)
    assert parameters(config) == 8930


@pytest.mark.parametrize("name", ["bert-classify", "distilbert-lm", "llama-lm-biases", "t5-encoder", "modernbert-lm"])
def test_config_json_alone_is_enough_and_tells_the_same_size(tmp_path: Path, name: str) -> None:
    whole = ROOT / "tests" / "reference" / name
    shutil.copy(whole / "config.json", tmp_path)
    assert parameters(tmp_path) == parameters(whole)


def test_of_a_hub_id_only_the_config_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "tests" / "reference" / "bert-classify" / "config.json", tmp_path)
    wanted = []

    def resolve(source: str, revision: str = "", want: str = "model") -> Path:
        if source == str(tmp_path):
            return tmp_path
        wanted.append((source, want))
        return tmp_path

    monkeypatch.setattr(hub, "resolve_model", resolve)
    shown = minilm("info", "someone/some-bert").stdout
    assert "LoRA, rank 8" in shown and wanted == [("someone/some-bert", "config")]
    config = write_config(tmp_path)
    changes = ["model.architecture=", "model.config={}", "model.source=someone/some-bert", "tokenizer.source="]
    changes.append("data.max_tokens=16")
    assert "this config" in minilm("info", config, *changes).stdout
    assert set(wanted) == {("someone/some-bert", "config")}


def test_the_size_and_the_memory_of_each_method_are_shown() -> None:
    shown = minilm("info", ROOT / "tests" / "reference" / "bert-classify").stdout
    assert re.search(r"Weights: [\d.]+ MiB in float32, [\d.]+ MiB in bfloat16", shown)
    assert re.search(r"LoRA, rank 8: [\d,]+ parameters of adapters on query and value", shown)
    rows = {line.split("  ")[0]: line.split() for line in shown.splitlines()}
    assert int(rows["LoRA, rank 8"][-6].replace(",", "")) < int(rows["all parameters"][-6].replace(",", ""))


def test_changes_are_those_of_a_config_with_or_without_one() -> None:
    def batch(*arguments: object) -> tuple[str, ...]:
        found = re.search(r"a batch of (\d+) texts of (\d+) tokens", minilm("info", *arguments).stdout)
        assert found is not None
        return found.groups()

    bert = ROOT / "tests" / "reference" / "bert-classify"
    assert batch(bert, "train.batch_size=5", "data.max_tokens=9", "lora.rank=2") == ("5", "9")
    assert batch(finished_run(), "train.batch_size=7") == ("7", "32") and batch(finished_run()) == ("4", "32")
    assert "this config" in minilm("info", bert, "data.max_tokens=9", "lora.rank=2").stdout
    assert 'did you mean "lora.rank"?' in refused("info", bert, "lora.rnk=2")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    assert "config.json" in refused("info", tmp_path)
    assert "no such file" in refused("info", tmp_path / "none.toml")
    assert "nonsense" in refused("info", "nonsense")
