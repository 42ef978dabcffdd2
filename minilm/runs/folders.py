"""A run's folder: made, found again, and what it says of itself.

    runs/NAME/  config.toml  environment.json  metrics.jsonl  results.json  summary.txt  report.md
                model/  checkpoints/  figures/

A folder is never overwritten: a second run of the name gets a number.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from minilm.checkpoints.files import atomic
from minilm.config import RunConfig, load_config
from minilm.data.sources import Dataset
from minilm.devices import Execution
from minilm.errors import UserError


def new_folder(runs: Path, name: str) -> Path:
    """Make ``runs/name``, or with the first free number behind it. Raises UserError where that cannot be."""
    number = 1
    while True:
        folder = runs / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror}); choose another place with --runs") from error


def find_folder(config_path: Path, config: RunConfig, runs: Path) -> Path:
    """The folder of the run to resume. Raises UserError where there is none, or it is another run's."""
    if config_path.name == "config.toml" and (config_path.parent / "environment.json").exists():
        return config_path.parent
    numbered = [p for p in runs.glob(f"{config.name}-*") if p.name.removeprefix(f"{config.name}-").isdigit()]
    numbered.sort(key=lambda path: int(path.name.rpartition("-")[2]))
    found = [p for p in (runs / config.name, *numbered) if (p / "config.toml").exists()]
    if not found:
        raise UserError(f"{runs / config.name}: there is no such run to resume; start it without --resume")
    stored = load_config(found[-1] / "config.toml")
    if stored != config:
        key = next(k for k, v in _flat(config).items() if _flat(stored).get(k) != v)
        raise UserError(
            f"{found[-1]}: was started with {key} = {_flat(stored).get(key)!r}, not {_flat(config)[key]!r}; resume it with "
            f"its own settings: minilm train {found[-1] / 'config.toml'} --resume"
        )
    return found[-1]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    elif not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def describe_environment(data: Dataset, run_on: Execution) -> dict[str, Any]:
    """What a result depends on beside its config."""
    packages = ("torch", "tokenizers", "numpy", "huggingface-hub", "matplotlib")
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "minilm": version("minilm"),
        "commit": commit.stdout.strip() or None,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "platform": platform.platform(),
        "device": str(run_on),
        "threads": torch.get_num_threads(),
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "sizes": {split: len(getattr(data, split)) for split in ("train", "validation", "test")},
            "warnings": data.warnings,
        },
    }


def write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """metrics.jsonl, whole, an evaluation a line."""
    with atomic(folder / "metrics.jsonl") as file:
        file.write("".join(json.dumps(entry) + "\n" for entry in history).encode())
