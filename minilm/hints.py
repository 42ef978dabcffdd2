"""Commands for messages that the user can paste, and hints for common mistakes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from minilm.errors import UserError
from minilm.world import started

TABLES = (".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".xls", ".ods", ".txt", ".gz")


WINDOWS = os.name == "nt"


def quoted(text: str) -> str:
    """A text as one word of a command, for a POSIX shell, or on Windows for PowerShell and the command prompt."""
    if not WINDOWS:
        return shlex.quote(text)
    return text if re.fullmatch(r"[\w.:=+\\/-]+", text) else '"' + text.replace('"', '\\"') + '"'


def program() -> str:
    """How the user runs this command: "minilm" if the shell finds it, or else its path, or "python -m minilm"."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == "minilm":
        return "python -m minilm"
    if called.stem != "minilm" or not called.exists():  # called from Python
        return "minilm"
    found = shutil.which("minilm")
    if found and os.path.samefile(found, called):
        return "minilm"
    return quoted(_short(called.absolute()))


def install(extra: str) -> str:
    """The command that adds the packages of an extra ("serve") to this Python. minilm is on no package index, so it is
    installed again from its folder."""
    checkout = Path(__file__).parents[1]
    project = _short(checkout) if (checkout / "pyproject.toml").is_file() else "FOLDER"
    return f"{quoted(_short(Path(sys.executable)))} -m pip install -e {quoted(f'{project}[{extra}]')}"


def _short(path: Path) -> str:
    """A path as it can be typed here: without the working directory, if it is in that."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def training_program() -> str:
    """The same for training, which torchrun may have started in several processes."""
    place = started()
    if place.size == 1:
        return program()
    options = f"--nproc-per-node {place.local_size}" if place.local_size == place.size else "OPTIONS"
    return f"torchrun {options} -m minilm"


def config_file(named: Path) -> Path:
    """The path of a config; for a run's folder, that of its config. Raises UserError for a data file."""
    if named.is_dir() and (named / "config.toml").is_file():
        return named / "config.toml"
    if named.suffix.lower() in TABLES:
        file = quoted(str(named))
        raise UserError(
            f"{named}: is a data file, not a config (TOML). To train on it: {program()} finetune minilm "
            f"--data {file}, or with your own config: {program()} train CONFIG.toml data.source={file}"
        )
    return named
