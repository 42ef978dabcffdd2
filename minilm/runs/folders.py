"""The folder of a run: create and find it, and check that its inputs have not changed.

    runs/NAME/  config.toml  environment.json  metrics.jsonl  results.json  predictions.csv  summary.txt
                report.md  report.html  model/  checkpoints/  figures/

A folder is never overwritten; a second run with the same name gets a number. A new folder always contains its config.
The folder is locked while a process works in it.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from minilm.atomic import atomic, flush_names, remove_remains, unfinished
from minilm.config import SPLITS, RunConfig
from minilm.data.checks import class_counts
from minilm.data.sources import Dataset, load_dataset
from minilm.devices import Runtime
from minilm.errors import UserError, located
from minilm.loading import load_config
from minilm.locking import FOLLOWS_RENAMES, locked
from minilm.reporting.record import resume_command
from minilm.reporting.results import DataSummary, Environment, Evaluation, read_record
from minilm.reporting.tables import join_words
from minilm.schema import as_table, flat, shown
from minilm.textfiles import read_toml
from minilm.world import world

Recorder = Callable[[Path, list[Evaluation]], None]  # writes all evaluations so far in a folder, as write_history
LOCK = ".lock"  # the file in a run's folder that is locked while a process works on the run
STARTED_FROM = {  # inputs that must not change before a run is resumed
    "data": "the data",
    "checkpoint": "the checkpoint",
    "augmented_texts": "the text that [augment] generates",
    "tokenizer": "the tokenizer",
    "adaptation_texts": "the texts of [adapt]",
}


@contextmanager
def new_folder(runs: Path, name: str, fill: Callable[[Path], None]) -> Iterator[Path]:
    """Make ``runs/name``, or if that exists ``runs/name-2`` and so on; it is locked inside the ``with`` block.

    fill: writes the first files, before the folder appears. Raises UserError if the folder cannot be created.
    """
    with ExitStack() as stack:
        beside = unfinished(runs / name)
        try:
            remove_remains(runs / name)
            beside.mkdir(parents=True)
            stack.callback(shutil.rmtree, beside, ignore_errors=True)  # absent if it was renamed
            lock = stack.enter_context(locked(beside / LOCK)) if FOLLOWS_RENAMES else None
            fill(beside)
            flush_names(beside)
            folder = _renamed(beside, runs, name)
            if lock is not None:
                lock.path = folder / LOCK
            flush_names(runs)
        except OSError as error:
            raise UserError(
                f"{runs / name}: cannot be created ({error.strerror}); choose another folder with --runs"
            ) from error
        if lock is None:
            stack.enter_context(occupied(folder))
        yield folder


def _renamed(beside: Path, runs: Path, name: str) -> Path:
    """Give a folder the first name that is free."""
    number = 1
    while True:
        folder = runs / (name if number == 1 else f"{name}-{number}")
        number += 1
        if os.path.lexists(folder):
            continue
        with suppress(FileExistsError):  # another process was faster
            _rename_new(beside, folder)
            return folder


def _rename_new(beside: Path, folder: Path) -> None:
    """Rename a folder. Raises FileExistsError if the new name exists."""
    try:
        beside.rename(folder)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder)) from error
        raise


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Lock a run's folder. Raises UserError if another process works in it."""
    with locked(folder / LOCK) as lock:
        if lock.holder:
            raise UserError(f"{folder}: {lock.holder}, is working on this run; wait until it ends, or stop it")
        yield


def find_folder(config_path: Path, config: RunConfig, runs: Path) -> Path:
    """The folder of the run to resume: the last run with this name and these settings, preferably an unfinished one.

    If ``config_path`` is the config of such a run, that run is preferred. Raises UserError if there is no run, or if
    all runs were started with other settings.
    """
    found = _runs_named(config_path, config, runs)
    if not found:
        raise UserError(f"{runs / config.name}: there is no such run to resume; start a new run without --resume")
    for folder in found:
        if not first_difference(load_config(folder / "config.toml"), config):
            return folder
    likeliest = found[0]
    other = first_difference(load_config(likeliest / "config.toml"), config)
    message = f"was started with {other}; resume it with its own settings: {resume_command(likeliest)}"
    raise UserError(f"{likeliest}: {message}")


def find_unfinished(config_path: Path, config: RunConfig, runs: Path) -> Path | None:
    """The folder of the last unfinished run with this name and these settings; None if there is none."""
    for folder in _runs_named(config_path, config, runs):
        finished = (folder / "results.json").exists()
        if not finished and not first_difference(load_config(folder / "config.toml"), config):
            return folder
    return None


def _runs_named(config_path: Path, config: RunConfig, runs: Path) -> list[Path]:
    """The folders of runs with this name, first the unfinished ones, each kind from the last to the first."""
    own = [config_path.parent] if config_path.name == "config.toml" else []
    numbered = [p for p in runs.glob(f"{config.name}-*") if p.name.removeprefix(f"{config.name}-").isdecimal()]
    numbered.sort(key=lambda path: -int(path.name.rpartition("-")[2]))
    places = (*own, *numbered, runs / config.name)
    found = [path for path in places if is_run(path) and _name_of(path) == config.name]
    found.sort(key=lambda path: (path / "results.json").exists())
    return found


def _name_of(folder: Path) -> Any:
    """The name of a run, from its config: "mine-2" may be the second run named "mine", or the first named "mine-2"."""
    return read_toml(folder / "config.toml").get("name")


def is_run(folder: Path) -> bool:
    """Whether a run was started in this folder."""
    return (folder / "config.toml").exists() and (folder / "environment.json").exists()


def first_difference(stored: RunConfig, wanted: RunConfig) -> str:
    """The first setting in which two configs differ, ``train.lr = 0.1, not 0.2``; empty if they are equal."""
    tables = flat(asdict(stored)), flat(asdict(wanted))
    for key in (*tables[1], *tables[0]):
        was, now = (shown(table[key]) if table.get(key) is not None else "nothing" for table in tables)
        if was != now:
            return f"{key} = {was}, not {now}"
    return ""


def describe_environment(data: Dataset, runtime: Runtime, start: dict[str, str]) -> Environment:
    """The environment that a result depends on. ``start``: hashes of the run's inputs besides its data."""
    packages = ("torch", "tokenizers", "numpy", "huggingface-hub", "matplotlib")
    return Environment(
        minilm=version("minilm"),
        commit=_commit(),
        python=platform.python_version(),
        packages={name: version(name) for name in packages},
        platform=platform.platform(),
        device=str(runtime),
        threads=torch.get_num_threads(),
        processes=world().size,
        cpu=describe_cpu(),
        data=describe_data(data),
        start=start,
    )


def describe_data(data: Dataset) -> DataSummary:
    """The name, the fingerprint, the sizes and the warnings of a data set."""
    sizes = {split: len(getattr(data, split)) for split in SPLITS}
    classes = {split: class_counts(getattr(data, split).labels, len(data.label_names)).tolist() for split in SPLITS}
    return DataSummary(data.name, data.fingerprint, sizes, data.whole, data.warnings, data.notes, classes)


def stored_environment(folder: Path) -> Environment:
    """Read the environment in which a run was started. Raises UserError if its file was edited."""
    return read_record(Environment, folder / "environment.json")


def load_data_of(run: Path) -> tuple[RunConfig, Dataset]:
    """The config and the data of a run that trained a classifier.

    Raises UserError if the folder is not such a run's, or if its data cannot be read or have changed.
    """
    path = run / "config.toml"
    if not path.is_file():
        raise UserError(f"{run}: not a run's folder; give one that `minilm train` made, such as runs/scratch-sample")
    config = load_config(path)
    if config.train is None:
        raise UserError(f"{run}: trained no classifier")
    with located(str(path)):
        data = load_dataset(config.data)
    if data.fingerprint != stored_environment(run).data.fingerprint:
        raise UserError(f"{run}: its data have changed since it was trained; restore them, or train again")
    return config, data


def check_unchanged(folder: Path, data: Dataset, start: Mapping[str, str]) -> None:
    """Raise UserError if the data or another input of the run has changed."""
    environment = stored_environment(folder)
    stored = {"data": environment.data.fingerprint, **environment.start}
    for key, value in {"data": data.fingerprint, **start}.items():
        if stored.get(key) != value:
            what = STARTED_FROM[key]
            raise UserError(f"{folder}: {what} changed since this run was started; start a new one without --resume")


def other_machine(folder: Path, runtime: Runtime) -> str:
    """The differences between this machine and the one where a run was started that may change numbers; or empty."""
    stored = stored_environment(folder)
    pairs = {
        "torch": (stored.packages.get("torch", ""), version("torch")),
        "device": (stored.device, str(runtime)),
        "threads": (str(stored.threads), str(torch.get_num_threads())),
        "processes": (str(stored.processes), str(world().size)),
        "CPU": (stored.cpu or describe_cpu(), describe_cpu()),
    }
    changed = [f"{key} {here} (it was {then})" for key, (then, here) in pairs.items() if here != then]
    if not changed:
        return ""
    what = f"resumes with {join_words(changed)}: from now on, its numbers may differ in their last bits"
    return f"{what} from those of an uninterrupted run"


def describe_cpu() -> str:
    """The CPU's name and the widest instructions that torch uses, as the order of sums depends on them."""
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor() or platform.machine()])[0]}, {torch.backends.cpu.get_cpu_capability()}"


def _commit() -> str | None:
    """The last commit that changed the package; None if the package is not in a repository."""
    if shutil.which("git") is None:
        return None
    command = ["git", "-C", str(Path(__file__).parents[1]), "log", "-1", "--format=%H", "--", "."]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def write_history(folder: Path, history: list[Evaluation]) -> None:
    """Write ``metrics.jsonl``, one evaluation per line."""
    with atomic(folder / "metrics.jsonl") as file:
        file.write("".join(json.dumps(as_table(entry)) + "\n" for entry in history).encode())
