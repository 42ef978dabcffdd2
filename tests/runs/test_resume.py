from __future__ import annotations

import os
import re
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minilm.checkpoints.files import read_tensors, write_tensors
from minilm.training.loop import _Loop
from tests.processes import killed_at
from tests.tiny import at_step, finished_run, minilm, outcome, refused, write_config, write_data

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def config() -> Path:
    """The config of the run that was not interrupted: data and settings are the same."""
    return finished_run().parents[1] / "tiny.toml"


def resumed(config: Path, runs: Path) -> Path:
    result = minilm("train", config, "--runs", runs, "--resume")
    assert result.exit_code == 0, result.output
    return runs / "tiny"


# --- kill -9 ---


@pytest.mark.parametrize(
    ("target", "call"),
    [
        ("minilm.training.loop._Loop._step", 2),  # before anything is kept
        ("minilm.training.loop._Loop._step", 11),
        ("os.fsync", 21),  # while a checkpoint is written
        ("os.fsync", 24),
        ("minilm.runs.fit.save_model", 1),  # training has ended
        ("minilm.runs.conclude.write_report", 1),  # all is measured
    ],
)
def test_a_killed_run_ends_where_the_uninterrupted_one_ends(
    runs: Path, config: Path, tmp_path: Path, target: str, call: int
) -> None:
    killed_at(target, call, ["train", config, "--runs", runs], tmp_path / "log")
    assert outcome(resumed(config, runs)) == outcome(finished_run())
    assert (runs / "tiny" / "report.md").exists()


def test_a_run_killed_after_training_is_only_measured(
    runs: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at("minilm.runs.conclude.write_json", 1, ["train", config, "--runs", runs], tmp_path / "log")
    assert not (runs / "tiny" / "results.json").exists()
    monkeypatch.setattr(_Loop, "_step", None)
    assert outcome(resumed(config, runs)) == outcome(finished_run())


# --- Signals ---


@pytest.mark.parametrize(
    ("number", "step", "status"), [(signal.SIGINT, 7, 130), (signal.SIGTERM, 2, 143), (signal.SIGINT, 18, 130)]
)
def test_a_signal_keeps_the_state_and_says_how_to_go_on(
    runs: Path, config: Path, number: signal.Signals, step: int, status: int
) -> None:
    with at_step(step, lambda: os.kill(os.getpid(), number)):
        result = minilm("train", config, "--runs", runs)
    assert result.exit_code == status
    said = re.search(rf"{number.name}: the state is saved; resume with: minilm train (\S+) --resume", result.stderr)
    assert said, result.stderr
    assert outcome(resumed(Path(said[1]), runs)) == outcome(finished_run())


def test_a_run_may_be_interrupted_again_and_again(runs: Path, config: Path) -> None:
    for i in range(3):
        with at_step(5, lambda: os.kill(os.getpid(), signal.SIGINT)):
            result = minilm("train", config, "--runs", runs, *(["--resume"] if i else []))
        assert result.exit_code == 130
    assert outcome(resumed(config, runs)) == outcome(finished_run())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_results_are_written_loses_nothing(
    runs: Path, config: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("minilm.runs.conclude.fit_baselines", lambda *_, **__: os.kill(os.getpid(), number))
        result = minilm("train", config, "--runs", runs)
    assert result.exit_code == 128 + number and "the state is saved" in result.stderr
    assert outcome(resumed(config, runs)) == outcome(finished_run())


# --- A full disk ---


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file grows beyond this many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_and_once_there_is_room_the_run_goes_on(runs: Path, config: Path) -> None:
    with disk_of(8_000):  # enough for the texts about the run, not for its weights
        message = refused("train", config, "--runs", runs)
    assert re.search(r"runs/tiny.*: File too large; once that is fixed, resume with: minilm train .* --resume", message)
    assert outcome(resumed(config, runs)) == outcome(finished_run())


# --- Memory ---


def no_memory() -> None:
    raise MemoryError


def test_want_of_memory_is_told_and_once_there_is_room_the_run_goes_on(runs: Path, config: Path) -> None:
    with at_step(7, no_memory):
        message = refused("train", config, "--runs", runs)
    told = r"out of memory .*train\.batch_size.*resume when it has ended: minilm train \S+ --resume"
    assert re.search(told, message)
    assert outcome(resumed(config, runs)) == outcome(finished_run())


# --- What cannot be resumed ---


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A run that was killed before its training left anything."""
    folder = tmp_path / "runs" / "tiny"
    shutil.copytree(finished_run(), folder)
    (folder / "results.json").unlink()
    return folder


def test_there_must_be_a_run_to_resume(runs: Path, config: Path) -> None:
    assert "there is no such run to resume; start a new run without --resume" in refused(
        "train", config, "--runs", runs, "--resume"
    )


def test_a_finished_run_stays_as_it_is(config: Path, copied: Path) -> None:
    shutil.copy(finished_run() / "results.json", copied)
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*.safetensors")}
    result = minilm("train", config, "--runs", copied.parent, "--resume")
    assert result.exit_code == 0 and "has already finished" in result.stderr and "macro F1" in result.stdout
    assert before == {path: path.stat().st_mtime_ns for path in copied.rglob("*.safetensors")}


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("train.lr=0.5", "train.lr = 0.01, not 0.5"),
        ("model.config.heads=4", "model.config.heads = 2, not 4"),
        ("model.config.norm_eps=1e-3", "model.config.norm_eps = nothing, not 0.001"),
    ],
)
def test_a_run_is_resumed_with_its_own_settings_only(
    config: Path, copied: Path, own: bool, change: str, said: str
) -> None:
    path = copied / "config.toml" if own else config
    message = refused("train", path, change, "--runs", copied.parent, "--resume")
    assert f"{copied}: was started with {said}; resume it with its own settings: minilm train {copied}" in message


def test_a_run_whose_data_have_changed_is_not_resumed(tmp_path: Path) -> None:
    folder = shutil.copytree(finished_run(), tmp_path / "tiny")
    (folder / "results.json").unlink()
    data = write_data(tmp_path / "texts.tsv")
    config = folder / "config.toml"
    config.write_text(config.read_text().replace(str(finished_run().parents[1] / "texts.tsv"), str(data)))
    data.write_text(data.read_text().replace("good", "fine", 1))
    assert f"{folder}: the data changed since this run was started" in refused("train", config, "--resume")


@pytest.mark.parametrize("changed", ["model.safetensors", "tokenizer.json"])
def test_a_run_whose_checkpoint_has_changed_is_not_resumed(tmp_path: Path, changed: str) -> None:
    source = shutil.copytree(REFERENCE / "bert-classify", tmp_path / "bert")
    config = write_config(tmp_path, "[freeze]\npart = 'backbone'\n")
    model = f"[model]\nsource = '{source}'\n\n[data]"
    text = re.sub(r"\[model\].*?\[data\]", model, config.read_text(), flags=re.DOTALL)
    config.write_text(text.replace("max_tokens = 32", "max_tokens = 16"))
    with at_step(5, lambda: os.kill(os.getpid(), signal.SIGINT)):
        assert minilm("train", config, "--runs", tmp_path / "runs").exit_code == 130
    if changed == "model.safetensors":
        tensors = {name: tensor + 0.1 * tensor.std() for name, tensor in read_tensors(source / changed).items()}
        write_tensors(source / changed, tensors)
    else:
        text = (source / changed).read_text()
        (source / changed).write_text(text.replace('"normalizer":{"type":"Lowercase"}', '"normalizer":null'))
    what = "the checkpoint" if changed == "model.safetensors" else "the tokenizer"
    assert f"{what} changed since" in refused("train", config, "--runs", tmp_path / "runs", "--resume")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "progress.json"])
def test_a_truncated_checkpoint_is_named(config: Path, runs: Path, name: str) -> None:
    with at_step(7, lambda: os.kill(os.getpid(), signal.SIGINT)):
        assert minilm("train", config, "--runs", runs).exit_code == 130
    [checkpoint] = (runs / "tiny" / "checkpoints").glob("*-step-*")
    path = checkpoint / name
    path.write_bytes(path.read_bytes()[:50])
    assert str(path) in refused("train", config, "--runs", runs, "--resume")


def test_the_last_run_of_a_name_is_the_one_resumed(config: Path, copied: Path) -> None:
    for number in (2, 10, 9):
        shutil.copytree(copied, copied.parent / f"tiny-{number}")
    (copied.parent / "tiny-11").mkdir()  # killed before it began
    shutil.copytree(copied, copied.parent / "tiny-else")
    assert minilm("train", config, "--runs", copied.parent, "--resume").exit_code == 0
    assert [path.parent.name for path in copied.parent.glob("*/results.json")] == ["tiny-10"]


def test_a_run_that_began_from_anothers_config_is_found_by_the_command_that_started_it(copied: Path) -> None:
    """``minilm train runs/tiny/config.toml seed=2``, interrupted, leaves its run beside the one that it began from."""
    shutil.copy(finished_run() / "results.json", copied)
    own = ["train", copied / "config.toml", "--runs", copied.parent]
    for change, name in (("seed=2", "tiny-2"), ("name=mine", "mine"), ("name=tiny", "tiny-3")):
        with at_step(7, lambda: os.kill(os.getpid(), signal.SIGINT)):
            assert minilm(*own, change).exit_code == 130
        assert not (copied.parent / name / "results.json").exists()
        assert minilm(*own, change, "--resume").exit_code == 0
        assert (copied.parent / name / "results.json").exists()
    assert f"{copied.parent / 'other'}: there is no such run to resume" in refused(*own, "name=other", "--resume")


@pytest.mark.parametrize("finished", [True, False])
def test_of_the_runs_of_a_name_one_with_other_settings_is_passed_over(
    config: Path, copied: Path, finished: bool
) -> None:
    other = shutil.copytree(copied, copied.parent / "tiny-2")
    (other / "config.toml").write_text((other / "config.toml").read_text().replace("lr = 0.01", "lr = 0.02", 1))
    if finished:
        shutil.copy(finished_run() / "results.json", other)
    assert minilm("train", config, "--runs", copied.parent, "--resume").exit_code == 0
    assert (copied / "results.json").exists() and (other / "results.json").exists() == finished


def test_a_run_of_another_name_that_ends_in_a_number_is_not_the_one_resumed(config: Path, copied: Path) -> None:
    other = shutil.copytree(copied, copied.parent / "tiny-2")
    (other / "config.toml").write_text((other / "config.toml").read_text().replace('"tiny"', '"tiny-2"', 1))
    assert minilm("train", config, "--runs", copied.parent, "--resume").exit_code == 0
    assert [path.parent.name for path in copied.parent.glob("*/results.json")] == ["tiny"]
