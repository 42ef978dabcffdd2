"""Find the files of a config's labelled rows: from the section ``[data]`` to the files of each split.

    data.source = "ag-news"                 a name in the catalogue; "tweet-emotions:spanish" names a configuration
    data.source = "reviews"                 a folder with train, and validation (or dev) and test files
    data.source = "reviews.csv"             one file, with the splits in data.split_column, if it has one
    data.source = "user/set"                a data set of the Hub; "user/set:name" names a configuration
    data.source = "parts/*.csv"             several files, one after another; also for data.train, data.validation, ...
    data.source = "-"                       standard input
    data.train = "a.csv", data.test = ...   one file per split
    data.sample = true                      instead of a data set in the catalogue, the small sample of the same kind

Splits that are not given are made from the training rows.
"""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minilm import hub
from minilm.config import SPLITS, DataSection
from minilm.connection import Unreachable
from minilm.data import catalog
from minilm.data.decoding import STDIN
from minilm.data.readers import FORMATS, ending, is_table, matching, texts_without_labels
from minilm.errors import UserError, nearest

SPLIT_NAMES = {
    "train": "train", "training": "train", "test": "test",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
}  # fmt: skip
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(:.+)?")
PARQUET = "refs/convert/parquet"  # the branch where the Hub keeps its own copy of a public data set


@dataclass(frozen=True)
class Source:
    """A data set's name and files, before any row is read."""

    name: str
    files: dict[str, list[Path]]  # split -> its files, one after another; "train" is always there
    rows: dict[str, int] = field(default_factory=dict)  # split -> number of rows according to the catalogue


def find_source(section: DataSection) -> Source:
    """The files behind ``data.source``, or behind ``data.train``, ``data.validation`` and ``data.test``."""
    entry = _entry(section.source, section.sample)
    if section.train and not section.sample:
        given = {split: getattr(section, split) for split in SPLITS if getattr(section, split)}
        paths = {split: hub.local_path(path) for split, path in given.items()}
        return Source(_name_of(paths["train"]), {split: matching(path) for split, path in paths.items()})
    if section.source == str(STDIN):
        return Source("standard-input", {"train": [STDIN]})
    if entry is None:
        catalog.find(section.source)  # raises UserError for a misspelled name
    if entry is None and section.sample:
        raise UserError(f'data.sample: there is no sample for data.source = "{section.source}"')
    if entry:
        try:
            wanted = {split: [name] for split, name in entry.files.items()}
            files = _download(entry.source, wanted, entry.revision) if wanted else {"train": [entry.file]}
        except Unreachable as error:
            hint = "; or use the small sample instead: data.sample=true (make finetune DATA=sample)"
            raise Unreachable(error.who, error.why, error.without + (hint if entry.sample else "")) from None
        return Source(entry.name, files, entry.rows)
    path = hub.local_path(section.source)
    if path.is_dir():
        return Source(path.resolve().name, _split_files(path))
    if path.is_file() or is_table(path) or matching(path) != [path]:
        return Source(_name_of(path), {"train": matching(path)})
    if HUB_ID.fullmatch(section.source):
        return Source(section.source, _hub_files(section.source))
    raise UserError(f"data.source: no such file or folder: {section.source}")


def _name_of(path: Path) -> str:
    """A data set's name, from its file; if the file is named after a split, such as "train.csv.gz", from its folder."""
    name = re.sub(r"[*?\[\]]+", "", path.name.split(".")[0]).strip("-_") if path != STDIN else "standard-input"
    return path.resolve().parent.name if name.lower() in (*SPLIT_NAMES, "") else name


def catalogue_keys(source: Any, sample: bool) -> dict[str, Any]:
    """The keys of ``[data]`` that the catalogue gives for a source, such as its columns; {} for other sources."""
    entry = _entry(source, sample) if isinstance(source, str) else None
    return deepcopy(entry.data) if entry else {}


def _entry(source: str, sample: bool) -> catalog.Entry | None:
    """The data set's entry in the catalogue, or with ``sample`` that of its small sample; None if there is none."""
    entry = catalog.entries().get(source)
    if entry is None or not sample or entry.name.endswith("-sample"):
        return entry
    return catalog.entries().get(entry.sample)


def _download(repo_id: str, files: dict[str, list[str]], revision: str) -> dict[str, list[Path]]:
    """Download the files of each split from the Hub."""
    paths = hub.dataset_files(repo_id, [name for names in files.values() for name in names], revision)
    return {split: [paths[name] for name in names] for split, names in files.items()}


def _hub_files(source: str) -> dict[str, list[Path]]:
    """Download the splits of any data set as the Hub's Parquet copy: ``<configuration>/<split>/0000.parquet``, ..."""
    repo_id, _, configuration = source.partition(":")
    found: dict[str, dict[str, list[str]]] = {}  # configuration -> split -> files
    for name in sorted(hub.dataset_listing(repo_id, PARQUET)):
        folder, _, rest = name.partition("/")
        if split := SPLIT_NAMES.get(rest.partition("/")[0]):
            found.setdefault(folder, {}).setdefault(split, []).append(name)
    if not configuration:
        configuration = next(iter(found)) if len(found) == 1 else "default"
    if configuration not in found:
        hint = nearest(configuration, found) if ":" in source else ""
        raise UserError(
            f"data.source: {repo_id} has the configurations {', '.join(found) or '(none)'}{hint}; "
            f"name one of them, as in {repo_id}:{next(iter(found), 'name')}"
        )
    if "train" not in found[configuration]:
        raise UserError(f"data.source: {source} has no train split, only {', '.join(found[configuration])}")
    return _download(repo_id, found[configuration], PARQUET)


def _split_files(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder that are named after their split, such as train.csv and dev.csv."""
    found: dict[str, list[Path]] = {}
    data = sorted(path for path in folder.iterdir() if is_table(path) or ending(path) == ".txt")
    for path in data:
        split = SPLIT_NAMES.get(path.name.lower().split(".")[0])
        if split in found:
            raise UserError(f"{folder}: has two {split} files, {found[split][0].name} and {path.name}; keep one")
        if split:
            found[split] = [path]
    if "train" not in found:
        there = ", ".join(path.name for path in data) or "no data files"
        if texts := next((path for path in data if re.match(r"train\w*text", path.name.lower())), None):
            raise UserError(texts_without_labels(texts))
        raise UserError(f"{folder}: no train file ({', '.join(FORMATS)}); the folder has {there}")
    return found
