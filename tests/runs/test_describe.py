from __future__ import annotations

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


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    assert "config.json" in refused("info", tmp_path)
    assert "no such file" in refused("info", tmp_path / "none.toml")
    assert "nonsense" in refused("info", "nonsense")
