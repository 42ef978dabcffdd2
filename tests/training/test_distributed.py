"""Several processes train as one does: the same losses, the same best step, the same weights; and they end together.

The processes are started by torchrun, with gloo on the CPU. One torchrun does all runs of a number of processes
(``distributed_runs``), as starting one takes seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from minilm import world
from minilm.models.batch import Batch
from minilm.training.distributed import part_of_step
from minilm.world import World
from tests.tiny import minilm, outcome
from tests.training.distributed_runs import CASES, DROPOUT, HALF, PLAIN, RESUMED, alone, write_inputs

QUICK = ("gpt2-accumulate", "bert-labels", "t5-last-sharded")
SHARDED = [name for name in CASES if name not in PLAIN]
CLOSE = 1e-5


def torchrun(*arguments: object, processes: int = 2, options: tuple[str, ...] = ("--standalone",)) -> list[str]:
    """The command."""
    start = [sys.executable, "-m", "torch.distributed.run", *options, f"--nproc-per-node={processes}", "-m"]
    return [*start, *map(str, arguments)]


def ran(*arguments: object, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """torchrun, to its end. It must end by itself."""
    command = torchrun(*arguments, processes=processes)
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all configs in ``inputs``."""
    folder = tmp_path_factory.mktemp("distributed")
    write_inputs(folder / "inputs")
    return folder


@pytest.fixture(scope="module")
def quick(inputs: Path) -> Path:
    """The runs of two processes that every test run does."""
    done = ran("tests.training.distributed_runs", inputs, *QUICK)
    assert done.returncode == 0, done.stderr
    return inputs


def assert_alike(one: Path, other: Path, close: float = CLOSE) -> None:
    """Two runs have the same evaluations, the same results and the same weights, but for rounding."""
    histories = [(run / "metrics.jsonl").read_text().splitlines() for run in (one, other)]
    for ours, theirs in zip(*(map(json.loads, history) for history in histories), strict=True):
        assert ours["step"] == theirs["step"] and ours["lr"] == theirs["lr"]
        for key in ("train_loss", "grad_norm"):
            assert ours[key] == pytest.approx(theirs[key], abs=close), key
        assert ours["validation"] == pytest.approx(theirs["validation"], abs=close)
    results = [json.loads((run / "results.json").read_text()) for run in (one, other)]
    assert results[0]["stopped"] == results[1]["stopped"] and results[0]["parameters"] == results[1]["parameters"]
    assert results[0]["best"]["step"] == results[1]["best"]["step"]
    assert results[0]["test"]["loss"] == pytest.approx(results[1]["test"]["loss"], abs=close)
    files = sorted(path.name for path in (one / "model").iterdir())
    assert files == sorted(path.name for path in (other / "model").iterdir())
    for name in (name for name in files if name.endswith(".safetensors")):
        weights = [load_file(run / "model" / name) for run in (one, other)]
        assert weights[0].keys() == weights[1].keys()
        for key, tensor in weights[0].items():
            torch.testing.assert_close(tensor, weights[1][key], atol=close, rtol=0, msg=f"{name}: {key}")


# --- What is dealt out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("sizes", [[7], [1], [4, 4, 3], [4, 4, 4, 4, 2]])
def test_every_row_of_a_step_counts_once_and_all_do_as_many_batches(
    size: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = np.split(np.random.default_rng(0).permutation(sum(sizes)), np.cumsum(sizes)[:-1])
    loaded = [Batch(torch.from_numpy(rows)[:, None], labels=torch.from_numpy(rows)) for rows in batches]
    parts = []
    for rank in range(size):
        monkeypatch.setattr(world, "_world", World(rank, size))
        parts.append(part_of_step(batches, loaded))
    assert len({len(each) for each in parts}) == 1
    for rows, batch, _ in (part for each in parts for part in each):
        assert batch.ids[:, 0].tolist() == rows.tolist() == batch.labels.tolist()
    counted = [row for each in parts for rows, _, weight in each if weight for row in rows]
    assert sorted(counted) == list(range(sum(sizes)))


def test_one_process_computes_what_it_did() -> None:
    batches = [np.arange(3), np.arange(3, 5)]
    loaded = [Batch(torch.zeros(len(rows), 2, dtype=torch.long)) for rows in batches]
    for (rows, batch, weight), number in zip(part_of_step(batches, loaded), range(2), strict=True):
        assert rows is batches[number] and batch is loaded[number] and weight == 1.0


# --- Several processes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUICK)
def test_two_processes_train_as_one(name: str, quick: Path) -> None:
    assert_alike(quick / "alone" / name, quick / "by-2" / name)


@pytest.mark.distributed
@pytest.mark.parametrize(("number", "cases"), [(2, tuple(CASES)), (4, (*PLAIN, *SHARDED[::3]))])
def test_any_number_of_processes_trains_as_one(number: int, cases: tuple[str, ...], inputs: Path) -> None:
    together = inputs / f"by-{number}"
    shutil.rmtree(together, ignore_errors=True)  # some were done for ``quick``
    done = ran("tests.training.distributed_runs", inputs, *cases, DROPOUT, processes=number)
    assert done.returncode == 0, done.stderr
    for name in cases:
        assert_alike(inputs / "alone" / name, together / name, 0.02 if name == HALF else CLOSE)
    begun = json.loads((together / RESUMED / "environment.json").read_text())
    assert begun["processes"] == 1  # and resumed in all
    # With as many processes as before, each with its own dropout, nothing differs by a bit.
    assert outcome(inputs / f"straight-{number}" / DROPOUT) == outcome(inputs / f"stopped-{number}" / DROPOUT)
    perplexities = [run / "bert-adapt" / "adaptation" / "results.json" for run in (inputs / "alone", together)]
    one, several = (json.loads(path.read_text())["perplexity"] for path in perplexities)
    assert several == pytest.approx(one, abs=1e-3)


@pytest.mark.distributed
def test_two_machines_that_share_no_folder_train_as_one_process(inputs: Path) -> None:
    """Two agents of torchrun on this machine, each in a folder of its own. Only the first writes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name, machines = "t5-last", [inputs / "machine-1", inputs / "machine-2"]
    meet = ("--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}")
    agents = []
    for machine in machines:
        machine.mkdir()
        command = torchrun("minilm", "train", inputs / "inputs" / f"{name}.toml", processes=1, options=meet)
        source = {"PYTHONPATH": str(Path(__file__).parents[2])}
        agents.append(subprocess.Popen(command, cwd=machine, env={**os.environ, **source}, stderr=subprocess.PIPE))
    alone(name, inputs, "alone-beside-machines")
    errors = [agent.communicate(timeout=900)[1].decode() for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], errors
    written = [machine for machine in machines if (machine / "runs").exists() and list((machine / "runs").iterdir())]
    assert len(written) == 1
    assert_alike(inputs / "alone-beside-machines" / name, written[0] / "runs" / name)


def errors_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines that minilm prints when it stops; torchrun's own report is not among them."""
    return [line for line in done.stderr.splitlines() if line.startswith(("Error: ", "SIGTERM", "interrupted"))]


def disturbed(inputs: Path, name: str, runs: str, rank: int, action: str, *changes: str, step: int = 8) -> list[str]:
    """What minilm prints if something happens to one of two processes."""
    config = inputs / "inputs" / f"{name}.toml"
    changes = ("train.checkpoint_minutes=0", "train.evaluate_every=3", *changes)
    done = ran("tests.training.disturbed_run", rank, step, action, "train", config, *changes, "--runs", inputs / runs)
    assert done.returncode == 1, done.stderr
    return [*errors_of(done), *(line for line in done.stderr.splitlines() if "RuntimeError: a bug" in line)]


def resumed_alone(inputs: Path, name: str, runs: str) -> None:
    """The run is resumed in one process, says that bits may differ, and ends as if it had never been disturbed."""
    config = inputs / "inputs" / f"{name}.toml"
    changes = ("train.checkpoint_minutes=0", "train.evaluate_every=3")
    result = minilm("train", config, *changes, "--runs", inputs / runs, "--resume")
    assert result.exit_code == 0, result.output
    assert "processes 1 (it was 2)" in result.stderr
    straight = minilm("train", config, *changes, "--runs", inputs / f"{runs}-straight")
    assert straight.exit_code == 0, straight.output
    assert_alike(inputs / runs / name, inputs / f"{runs}-straight" / name)


@pytest.mark.distributed
def test_a_signal_to_one_process_ends_all_with_one_message_and_the_state_kept(inputs: Path) -> None:
    (line,) = disturbed(inputs, "bert-lora-sharded", "signal", 1, "signal")
    assert line.startswith("SIGTERM: the state is saved; resume with: torchrun --nproc-per-node 2 -m minilm train ")
    assert [path.name for path in (inputs / "signal" / "bert-lora-sharded" / "checkpoints").glob("0*")] == [
        "000003-step-8"
    ]
    resumed_alone(inputs, "bert-lora-sharded", "signal")


@pytest.mark.distributed
def test_if_one_process_is_killed_the_others_do_not_wait_for_it(inputs: Path) -> None:
    (line,) = disturbed(inputs, "gpt2-full", "kill", 1, "kill", "train.patience=0")
    assert "another process of this run ended or cannot be reached" in line and "--resume" in line


@pytest.mark.distributed
def test_an_exception_in_one_process_ends_all_and_is_shown_once(inputs: Path) -> None:
    (line,) = disturbed(inputs, "gpt2-full", "fail", 1, "fail")
    assert line.endswith("RuntimeError: a bug in one process")


@pytest.mark.distributed
def test_a_loss_that_is_infinite_in_one_process_ends_all_with_one_line(inputs: Path) -> None:
    (line,) = disturbed(inputs, "gpt2-full", "infinite", 0, "nothing", "train.lr=1e30", "train.clip=0")
    assert "the loss is no longer finite" in line


@pytest.mark.distributed
def test_other_verbs_are_not_for_torchrun(inputs: Path) -> None:
    done = ran("minilm", "models")
    assert errors_of(done) == ["Error: torchrun is for train and finetune; start `minilm models` without it"]
