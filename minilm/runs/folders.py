"""The folder of a run: making and finding it, and checking that its inputs have not changed.

    runs/NAME/  config.toml  environment.json  metrics.jsonl  results.json  predictions.csv  summary.txt
                report.md  report.html  model/  checkpoints/  figures/

A folder is never overwritten; a second run with the same name gets a number.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from minilm.checkpoints.atomic import atomic
from minilm.config import SPLITS, RunConfig
from minilm.data.checks import class_counts
from minilm.data.sources import Dataset
from minilm.devices import Runtime
from minilm.errors import UserError
from minilm.loading import load_config
from minilm.reporting.record import resume_command
from minilm.reporting.results import DataSummary, Environment, Evaluation, read_record
from minilm.schema import as_table, flat, shown
from minilm.textfiles import read_toml

STARTED_FROM = {  # inputs that must not change before a run is resumed
    "data": "the data",
    "checkpoint": "the checkpoint",
    "augmented_texts": "the text that [augment] makes",
    "tokenizer": "the tokenizer",
    "adaptation_texts": "the text to adapt to",
}


def new_folder(runs: Path, name: str) -> Path:
    """Make the folder ``runs/name``, or if it exists ``runs/name-2`` and so on. Raises UserError if this fails."""
    number = 1
    while True:
        folder = runs / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror}); give another folder with --runs") from error


def find_folder(config_path: Path, config: RunConfig, runs: Path) -> Path:
    """The folder of the run to resume: the last run with this name and these settings, preferably an unfinished one.

    If ``config_path`` is the config of such a run, that run is preferred. Raises UserError if there is no run, or if
    all runs were started with other settings.
    """
    own = [config_path.parent] if config_path.name == "config.toml" else []
    numbered = [p for p in runs.glob(f"{config.name}-*") if p.name.removeprefix(f"{config.name}-").isdecimal()]
    numbered.sort(key=lambda path: -int(path.name.rpartition("-")[2]))
    places = (*own, *numbered, runs / config.name)
    found = [path for path in places if is_run(path) and _name_of(path) == config.name]
    found.sort(key=lambda path: (path / "results.json").exists())
    if not found:
        raise UserError(f"{runs / config.name}: there is no such run to resume; start a new run without --resume")
    for folder in found:
        if not first_difference(load_config(folder / "config.toml"), config):
            return folder
    likeliest = found[0]
    other = first_difference(load_config(likeliest / "config.toml"), config)
    message = f"was started with {other}; resume it with its own settings: {resume_command(likeliest)}"
    raise UserError(f"{likeliest}: {message}")


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


def check_unchanged(folder: Path, data: Dataset, start: Mapping[str, str]) -> None:
    """Raise UserError if the data or another input of the run has changed."""
    environment = stored_environment(folder)
    stored = {"data": environment.data.fingerprint, **environment.start}
    for key, value in {"data": data.fingerprint, **start}.items():
        if stored.get(key) != value:
            what = STARTED_FROM[key]
            raise UserError(f"{folder}: {what} changed since this run was started; start a new one without --resume")


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
