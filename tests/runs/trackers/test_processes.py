"""Trackers that work, that fail, and that hang. None of them reaches the network."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import struct
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minilm.errors import UserError
from minilm.hints import install
from minilm.loading import load_config
from minilm.reporting.results import read_history
from minilm.runs.trackers import processes
from minilm.runs.trackers.processes import values_of
from minilm.runs.trackers.worker import read_state
from tests.tiny import at_step, finished_run, minilm, refused, write_config

TIMED = {"seconds", "tokens_per_second"}
FIGURE = Path(__file__).parents[3] / "docs" / "scratch_confusion.png"
Curves = dict[str, list[tuple[int, float]]]  # name -> steps and values


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "STOP_SECONDS", 300.0)
    monkeypatch.setattr(processes, "FINISH_SECONDS", 300.0)
    return write_config(tmp_path)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local stores, and a proxy that must not be asked for anything."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has connected
            proxy.accept()


# --- Trackers that work ---


def test_every_tracker_has_the_steps_and_values_of_metrics_jsonl_once_each(config: Path, offline: None) -> None:
    """The run is interrupted, and its checkpoints are lost: so it repeats evaluations that were already logged."""
    command = ("train", config, 'train.log_to=["tensorboard", "wandb", "mlflow"]')
    with at_step(11, lambda: os.kill(os.getpid(), signal.SIGINT)):
        assert minilm(*command).exit_code == 130
    run = Path("runs/tiny")
    names = ("tensorboard", "wandb", "mlflow")
    first = {name: read_state(run, name) for name in names}
    assert all(state.id and state.steps == {"": 8} and not state.finished for state in first.values())
    seconds = read_history(run)[0].seconds
    shutil.rmtree(run / "checkpoints")
    (run / "figures").mkdir()
    shutil.copy(FIGURE, run / "figures" / "confusion.png")

    result = minilm(*command, "--resume")
    assert result.exit_code == 0 and "warning" not in result.stderr
    states = {name: read_state(run, name) for name in names}
    assert all(state.steps == {"": 18} and state.finished for state in states.values())
    assert {name: state.id for name, state in states.items()} == {name: state.id for name, state in first.items()}
    history = [values_of(entry) for entry in read_history(run)]
    assert [step for step, _ in history] == [4, 8, 12, 16, 18]
    expected: Curves = defaultdict(list)
    for step, values in history:
        for name, value in values.items():
            expected[name].append((step, value))
    test = json.loads((run / "results.json").read_text())["test"]
    final = {f"final/test/{name}": test[name] for name in ("loss", "accuracy", "macro_f1")}

    check_tensorboard(run, expected, final)
    check_wandb(run, expected, final, states["wandb"].id, seconds)
    check_mlflow(run, expected, final, states["mlflow"].id)


def check_tensorboard(run: Path, expected: Curves, final: dict[str, float]) -> None:
    """The event files hold float32."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "trackers"))
    events.Reload()
    rounded = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert {tag for tag in rounded if not tag.startswith("final/")} == set(expected)
    for name in set(expected) - TIMED:
        assert rounded[name] == [(step, np32(value)) for step, value in expected[name]]
    assert {name: rounded[name] for name in final} == {name: [(18, np32(value))] for name, value in final.items()}
    [image] = events.Images("figures/confusion")
    assert image.encoded_image_string == FIGURE.read_bytes() and image.width > 100
    [text] = events.Tensors("config")
    assert b'"batch_size": 4' in text.tensor_proto.string_val[0]


def np32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def check_wandb(run: Path, expected: Curves, final: dict[str, float], id: str, seconds: float) -> None:
    found: Curves = defaultdict(list)
    summary: dict[str, Any] = {}
    files = sorted((run / "trackers" / "wandb").glob("offline-run-*/*.wandb"))
    assert [path.name for path in files] == [f"run-{id}.wandb"] * 2
    for record in (record for path in files for record in wandb_records(path)):
        match record.WhichOneof("record_type"):
            case "environment":
                pytest.fail("the host, the user, the command and the git remote are nobody's business")
            case "run":
                assert not record.run.host and not record.run.HasField("git")
                assert (record.run.run_id, record.run.display_name) == (id, "tiny")
                assert record.run.notes == run.resolve().as_uri() and record.run.project == "minilm"
            case "history":
                row = wandb_values(record.history.item)
                for name in row.keys() & expected.keys():
                    found[name].append((row["step"], row[name]))
            case "summary":
                summary |= wandb_values(record.summary.update)
    assert {name: found[name] for name in expected.keys() - TIMED} == {
        name: values for name, values in expected.items() if name not in TIMED
    }
    assert found["seconds"][0] == (4, seconds)
    assert {name: summary[name] for name in final} == final
    assert list((run / "trackers" / "wandb").glob("offline-run-*/files/media/images/figures/confusion*.png"))


def wandb_values(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a file of W&B, in the format of LevelDB's log: blocks of 32 KiB; checksum, length, type, data."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := -place % 32768) and left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def check_mlflow(run: Path, expected: Curves, final: dict[str, float], id: str) -> None:
    found: Curves = defaultdict(list)
    with sqlite3.connect("mlflow.db") as store:
        for key, step, value in store.execute("select key, step, value from metrics order by step"):
            found[key].append((step, value))
        runs = store.execute("select run_uuid, name, status from runs").fetchall()
        tags = dict(store.execute("select key, value from tags"))
        params = dict(store.execute("select key, value from params"))
        [artifacts] = [Path(uri.removeprefix("file://")) for (uri,) in store.execute("select artifact_uri from runs")]
    assert runs == [(id, "tiny", "FINISHED")]
    assert set(found) - set(expected) >= set(final)
    for name in expected.keys() - TIMED:
        assert found[name] == expected[name]
    assert [step for step, _ in found["seconds"]] == [4, 8, 12, 16, 18]
    assert {name: found[name] for name in final} == {name: [(18, value)] for name, value in final.items()}
    assert tags["folder"] == run.resolve().as_uri() and params["train.batch_size"] == "4"
    assert load_config(artifacts / "config.toml") == load_config(run / "config.toml")
    assert (artifacts / "figures" / "confusion.png").read_bytes() == FIGURE.read_bytes()


# --- Trackers that do not ---

FAKE = """
import json, os, sys, time
Settings = dict
def init(**options):
    json.dump(options, open("options.json", "w"))
    {init}
    return Run()
class Run:
    summary = {{}}
    def define_metric(self, *_, **__): pass
    def log(self, values):
        {log}
        print(json.dumps(values), file=open("logged.jsonl", "a"))
    def finish(self, exit_code):
        {end}
        print("exit code", exit_code, file=open("ended.txt", "a"))
"""


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a package named wandb in front of the real one."""
    monkeypatch.syspath_prepend(tmp_path / "packages")

    def write(init: str = "pass", log: str = "pass", end: str = "pass") -> None:
        (tmp_path / "packages").mkdir()
        (tmp_path / "packages" / "wandb.py").write_text(FAKE.format(init=init, log=log, end=end))

    return write


def warnings_of(result: Any) -> list[str]:
    return [line for line in result.stderr.splitlines() if "warning: wandb" in line]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"init": "raise RuntimeError('No API key configured.\\nUse `wandb login`')"}, "No API key configured. Use"),
        ({"init": "sys.exit('no network')"}, "no network"),
        ({"init": "os._exit(3)"}, "its process has ended"),
        ({"log": "raise ConnectionError('no route to host ' + 1000 * 'x')"}, "no route to host xxx"),
    ],
)
def test_a_tracker_that_fails_warns_once_and_the_run_finishes(
    config: Path, wandb: Any, how: dict[str, str], why: str
) -> None:
    wandb(**how)
    result = minilm("train", config, 'train.log_to=["wandb"]')
    assert result.exit_code == 0
    [line] = warnings_of(result)
    assert why in line and len(line) < 400 and line.endswith(f"(details: {Path('runs/tiny/trackers/wandb.log')})")
    assert Path("runs/tiny/report.md").exists()


def test_a_tracker_that_hangs_is_given_up_after_a_bounded_time(
    config: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb(init="open('pid', 'w').write(str(os.getpid())); time.sleep(10000)")
    monkeypatch.setattr(processes, "FINISH_SECONDS", 4.0)
    monkeypatch.setattr(processes, "QUIET_SECONDS", 0.5)
    result = minilm("train", config, 'train.log_to=["wandb"]')
    assert result.exit_code == 0 and "waits for wandb, at most" in result.stderr
    [line] = warnings_of(result)
    assert "wandb: does not answer; the run continues without it" in line
    if Path("pid").exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int(Path("pid").read_text()), 0)


def test_what_a_tracker_missed_is_sent_when_the_finished_run_is_resumed(config: Path, wandb: Any) -> None:
    wandb(init="if not os.path.exists('login'): raise RuntimeError('no login')")
    assert warnings_of(minilm("train", config, 'train.log_to=["wandb"]'))
    Path("login").touch()
    assert not warnings_of(minilm("train", "runs/tiny/config.toml", "--resume"))
    logged = [json.loads(line) for line in Path("logged.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == [4, 8, 12, 16, 18]
    assert Path("ended.txt").read_text() == "exit code 0\n"
    assert not warnings_of(minilm("train", "runs/tiny/config.toml", "--resume"))
    assert Path("ended.txt").read_text() == "exit code 0\n"  # it has all


def resent(run: Path, *overrides: str) -> None:
    """Send a finished run again, as ``--resume`` does."""
    processes.finish_again(load_config(run / "config.toml", list(overrides)), run)


def test_a_tracker_that_is_killed_while_it_closes_is_not_complete(
    config: Path, wandb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb(end="os.path.exists('login') or os._exit(9)")
    run = Path(shutil.copytree(finished_run(), "copy"))
    resent(run, 'train.log_to=["wandb"]')
    assert "warning: wandb: its process has ended" in capsys.readouterr().err
    assert not read_state(run, "wandb").finished and not Path("ended.txt").exists()
    Path("login").touch()
    resent(run, 'train.log_to=["wandb"]')
    assert read_state(run, "wandb").finished and Path("ended.txt").read_text() == "exit code 0\n"
    assert "warning" not in capsys.readouterr().err


def test_a_file_in_the_current_folder_does_not_hide_a_module_of_python(
    config: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``python -m minilm`` has the current folder in front, too."""
    wandb()
    Path("secrets.py").write_text("raise SystemExit('the wrong secrets')")
    monkeypatch.setattr(sys, "path", [str(Path.cwd()), *sys.path])
    run = Path(shutil.copytree(finished_run(), "copy"))
    resent(run, 'train.log_to=["wandb"]')
    assert "warning" not in capsys.readouterr().err and read_state(run, "wandb").finished


def test_an_adaptation_has_its_own_steps(config: Path, wandb: Any) -> None:
    wandb()
    run, settings = Path("copy"), load_config(config, ['train.log_to=["wandb"]'])
    shutil.copytree(finished_run(), run)
    history = read_history(run)
    with processes.Trackers(settings, run) as trackers:
        trackers.record(run / "adaptation", history[:2])
        trackers.record(run / "adaptation", history[:3])
        trackers.record(run, history[:1])
        trackers.finish()
    logged = [json.loads(line) for line in Path("logged.jsonl").read_text().splitlines()]
    assert [row.get("adaptation/step") for row in logged] == [4, 8, 12, None]
    assert [row.get("step") for row in logged] == [None, None, None, 4]
    assert logged[2]["adaptation/validation/loss"] == history[2].validation.loss
    assert read_state(run, "wandb").steps == {"adaptation/": 12, "": 4}


def test_a_missing_package_is_named_before_anything_is_done(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    message = refused("train", config, 'train.log_to=["mlflow"]')
    assert message.endswith('log_to: "mlflow" needs a package; to install it: ' + install("mlflow"))
    assert not Path("runs").exists()


def test_a_folder_with_the_name_of_a_package_is_no_package(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's own files are in ./wandb unless a folder is named."""
    Path("wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(Path.cwd())])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(UserError, match=r'log_to: "wandb" needs a package; .* pip install -e .*\[wandb\]'):
        processes.check_trackers(load_config(config, ['train.log_to=["wandb"]']))


def test_an_unknown_tracker_is_refused(config: Path) -> None:
    message = refused("train", config, 'train.log_to=["neptune"]')
    assert 'must be a list, each item "tensorboard", "wandb" or "mlflow"' in message


def test_a_study_groups_its_runs_by_its_name(config: Path, wandb: Any, tmp_path: Path) -> None:
    """Also if a run is sent later, by the study or by ``minilm train``."""
    wandb(init="if not os.path.exists('login'): raise RuntimeError('no login')")
    study = tmp_path / "study.toml"
    about = 'name = "rates"\nquestion = "Which?"\nanalysis = "compare"\n'
    study.write_text(about + 'base = "tiny.toml"\n[axes]\nseed = [1]\n')
    result = minilm("study", study, 'train.log_to=["wandb"]', "train.epochs=1")
    assert result.exit_code == 0, result.output
    options = json.loads(Path("options.json").read_text())
    assert options["group"] == "rates" and options["name"] == "seed-1"
    Path("login").touch()
    [path] = Path("runs").glob("**/seed-1/config.toml")
    assert minilm("train", path, "--resume").exit_code == 0
    assert json.loads(Path("options.json").read_text())["group"] == "rates"
    assert read_state(path.parent, "wandb").finished
    shutil.rmtree(path.parent / "trackers")  # as of a run whose tracker never started
    processes.finish_again(load_config(path), path.parent, "rates")
    assert json.loads(Path("options.json").read_text())["group"] == "rates"
