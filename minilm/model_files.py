"""Which files a model consists of, on the Hub or in a folder.

    config.json                                      the architecture and its settings
    model.safetensors                                its weights; of a large model in shards, named by an index
    tokenizer.json                                   its tokenizer; of an old model its parts: vocab.txt, ...
    adapter_config.json, adapter_model.safetensors   an adapter, in place of the first two
    modules.json, 1_Pooling/config.json, ...         what a sentence model does with the backbone's vectors
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from minilm.errors import UserError

Want = Literal["model", "tokenizer", "config"]

WEIGHTS = "model.safetensors"
VALIDATION = "validation.safetensors"  # what a classifier made of its validation texts
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
TRAINED_PART = "trained.safetensors"  # in place of the weights: those that a run has trained
CONFIGS = ("config.json", "adapter_config.json")  # a model has the first, an adapter the second
TOKENIZER_FILES = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
VOCABULARY_FILES = (  # the parts of a tokenizer, fetched if there is no tokenizer.json
    "vocab.json", "merges.txt", "vocab.txt",
    "spiece.model", "tokenizer.model", "spm.model", "sentencepiece.bpe.model",
)  # fmt: skip
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
SENTENCE_FILES = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")
MODULE_FILE = re.compile(r"[1-9]\d*_\w+/(config\.json|model\.safetensors)")  # of a sentence model: 1_Pooling, 2_Dense
MODEL_FILES = ("generation_config.json", INDEX, "head.safetensors", VALIDATION, *ADAPTER_FILES, *SENTENCE_FILES)


def needed_files(names: Collection[str], want: Want = "model") -> list[str]:
    """Which of a repository's or folder's files we read, its weights aside."""
    wanted: list[str] = [*TOKENIZER_FILES, *(() if "tokenizer.json" in names else VOCABULARY_FILES)]
    if want == "config":
        wanted = list(CONFIGS)
    if want == "model":
        wanted += [name for name in MODEL_FILES if name != INDEX or WEIGHTS not in names]
    if want == "model" and "modules.json" in names:
        wanted += sorted(filter(MODULE_FILE.fullmatch, names))
    return [name for name in wanted if name in names]


def refusal_of_pickles(file: str, source: str, published_class: str = "", page: str = "") -> str:
    """Why weights that are only there as a pickle are not read, and the two ways out.

    source: a Hub id or a folder. published_class: what its config.json names, if that is known. page: the Hub's.
    """
    discussions = f"{page}/discussions has" if page else "its discussions on the Hub have"
    kind = published_class or "AutoModelForSequenceClassification"
    which = "" if published_class else ", or the class that its config.json names"
    return (
        f"its weights are only there as {file}, which can run code when it is opened and is never read here; take it "
        f'with revision = "refs/pr/N" if {discussions} a pull request N that adds safetensors; or, if you trust its '
        f'author, convert it with transformers: {kind}.from_pretrained("{source}")'
        f'.save_pretrained("FOLDER", safe_serialization=True){which}'
    )


def shard_names(index: Mapping[str, Any], where: str = INDEX) -> list[str]:
    """The files that a parsed ``model.safetensors.index.json`` names: plain names, each once, in order.

    ``where`` is the index's path, for errors. Raises UserError if it names no file, or one outside its own folder.
    """
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{where}: has no weight_map, which names the file of each tensor; download it again")
    names = set(map(str, weight_map.values()))
    for name in names:
        # A path on any system: separators, drives and ".." are refused whatever system this is.
        plain = PurePosixPath(name).name == PureWindowsPath(name).name == name
        if not plain or not name.endswith(".safetensors"):
            raise UserError(f'{where}: names "{name}", which is no safetensors file beside it; do not trust this model')
    return sorted(names)


def weight_names(folder: Path) -> list[str]:
    """The files of a model's weights, by its folder's other files: one file, an adapter's, or shards."""
    index = folder / INDEX
    if index.is_file() and not (folder / WEIGHTS).is_file():
        try:
            parsed = json.loads(index.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{index}: not valid JSON ({error}); remove it and download it again") from error
        return shard_names(parsed if isinstance(parsed, dict) else {}, str(index))
    return ["adapter_model.safetensors"] if holds_adapter(folder) else [WEIGHTS]


def holds_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and not a whole model. Some programs write the base's config.json beside it."""
    whole = (WEIGHTS, INDEX, TRAINED_PART) if (folder / "config.json").is_file() else ()
    return (folder / "adapter_config.json").is_file() and not any((folder / name).is_file() for name in whole)


def is_whole(folder: Path, want: Want = "model") -> bool:
    """Whether a folder holds what its model, tokenizer or config is opened from. (Weights are fetched last.)"""
    there = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    if want == "config":
        return not there.isdisjoint(CONFIGS)
    if want == "tokenizer":
        parts = set(VOCABULARY_FILES) - {"vocab.json", "merges.txt"}
        return "tokenizer.json" in there or {"vocab.json", "merges.txt"} <= there or not there.isdisjoint(parts)
    return not there.isdisjoint(CONFIGS) and there.issuperset(weight_names(folder))


def files_in(folder: Path) -> list[str]:
    """The names of all files of a folder, as a repository's: with "/"."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
