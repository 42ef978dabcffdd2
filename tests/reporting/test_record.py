import os
from pathlib import Path

import pytest

from minilm.errors import UserError
from minilm.reporting.record import read_run, relative_path
from tests import records


def test_a_run_is_read_whole(make_run, results):
    run = read_run(make_run(results))
    assert run.results == records.typed(results)
    assert (run.name, run.model, run.from_scratch) == ("slang", "GPT-2", True)
    assert len(run.history) == 28 and run.environment.device == "cpu"


def test_a_fine_tuned_model_is_called_as_its_checkpoint(make_run, results):
    run = read_run(make_run(results, config='[model]\nsource = "speakleash/Bielik-1.5B-v3"\n'))
    assert (run.model, run.from_scratch) == ("speakleash/Bielik-1.5B-v3", False)


def test_an_adapted_model_is_called_as_what_was_adapted(make_run, results):
    adapt = make_run(records.adapted(), name="adapt", config='[model]\nsource = "bert"\n[adapt]\nblock = 64\n')
    run = read_run(make_run(results, name="full", config=f'[model]\nsource = "{adapt.resolve()}/adapted"\n'))
    assert run.model == "bert, adapted"


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder; give the folder of a run"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"not a run's folder \(it has no config\.toml"):
        read_run(tmp_path)


def test_an_unfinished_run_says_how_to_go_on(make_run, results):
    folder = make_run(results, name="my run")
    (folder / "results.json").unlink()
    with pytest.raises(UserError, match=r"has not finished; resume it with `minilm train '.*config\.toml' --resume`"):
        read_run(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("results.json", '{"name": ', r"results\.json: not valid JSON"),
        ("results.json", "[]", r"results\.json: must contain a JSON object"),
        ("results.json", "{}", r"results\.json: name is missing; it must be a text"),
        ("results.json", b'{"name": "\xff"}', r"results\.json: not UTF-8 text"),
        ("results.json", '{"name": "\\ud800"}', r"results\.json: contains an invalid Unicode surrogate"),
        ("metrics.jsonl", '{"st', r"metrics\.jsonl, line 1: not valid JSON"),
        ("metrics.jsonl", "\n{}\n", r"metrics\.jsonl, line 2: step is missing"),
        ("environment.json", '{"minilm": 1}', r'environment\.json: minilm must be a text, got 1'),
        ("config.toml", "name = ", r"config\.toml: not valid TOML"),
    ],
)
def test_a_damaged_file_is_named(make_run, results, file, content, message):
    folder = make_run(results)
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        read_run(folder)


def test_history_and_environment_may_be_missing(make_run, results):
    folder = make_run(results)
    (folder / "metrics.jsonl").unlink()
    (folder / "environment.json").unlink()
    assert read_run(folder).history == [] and read_run(folder).environment is None


def test_paths_are_shown_as_one_would_type_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert relative_path(tmp_path / "runs" / "x") == os.path.join("runs", "x")
    assert relative_path(Path("runs/x")) == os.path.join("runs", "x")
    assert relative_path(tmp_path.parent / "x") == str(tmp_path.parent / "x")


def test_on_windows_a_path_on_another_drive_is_shown_whole(tmp_path, monkeypatch):
    def relpath(path):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", relpath)
    assert relative_path(tmp_path) == str(tmp_path)
