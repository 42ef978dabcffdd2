"""The files of a model, on the Hub or in a folder.

    config.json                                      the architecture and its settings
    model.safetensors                                its weights; for a large model in shards, listed by an index
    tokenizer.json                                   its tokenizer; for an old model other files: vocab.txt, ...
    adapter_config.json, adapter_model.safetensors   an adapter, instead of the first two
    modules.json, 1_Pooling/config.json, ...         how a sentence model computes text vectors
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
VALIDATION = "validation.safetensors"  # a classifier's scores of its validation texts
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
TRAINED_PART = "trained.safetensors"  # instead of all weights: those that a run has trained
CONFIGS = ("config.json", "adapter_config.json")  # a model has the first, an adapter the second
TOKENIZER_FILES = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
VOCABULARY_FILES = (  # older files of a tokenizer, downloaded if there is no tokenizer.json
    "vocab.json", "merges.txt", "vocab.txt",
    "spiece.model", "tokenizer.model", "spm.model", "sentencepiece.bpe.model",
)  # fmt: skip
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
GRAPH, QUANTIZED = "model.onnx", "model_quantized.onnx"  # the names that Optimum and Transformers.js use
ONNX_FILES = (GRAPH, f"{GRAPH}.data", QUANTIZED, f"{QUANTIZED}.data", "export.json")  # see ``runs/onnx.py``
LINEAR_FILES = ("linear.json", "linear.safetensors")  # a linear model
SENTENCE_FILES = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")
MODULE_FILE = re.compile(r"[1-9]\d*_\w+/(config\.json|model\.safetensors)")  # of a sentence model: 1_Pooling, 2_Dense
MODEL_FILES = ("generation_config.json", INDEX, "head.safetensors", VALIDATION, *ADAPTER_FILES, *SENTENCE_FILES)


def needed_files(names: Collection[str], want: Want = "model") -> list[str]:
    """The files of a repository or folder that minilm reads, except the weights."""
    wanted: list[str] = [*TOKENIZER_FILES, *(() if "tokenizer.json" in names else VOCABULARY_FILES)]
    if want == "config":
        wanted = list(CONFIGS)
    if want == "model":
        wanted += [name for name in MODEL_FILES if name != INDEX or WEIGHTS not in names]
    if want == "model" and "modules.json" in names:
        wanted += sorted(filter(MODULE_FILE.fullmatch, names))
    return [name for name in wanted if name in names]


def published_files(folder: Path) -> list[str]:
    """The files of a folder that others need to open its model; not, for example, the scores of validation texts."""
    known = {*CONFIGS, *TOKENIZER_FILES, *VOCABULARY_FILES, *MODEL_FILES, *ONNX_FILES, *LINEAR_FILES} - {VALIDATION}
    known |= set(weight_names(folder))
    return sorted(name for name in files_in(folder) if name in known or MODULE_FILE.fullmatch(name))


def refusal_of_pickles(file: str, source: str, published_class: str = "", page: str = "") -> str:
    """The message for weights that are stored only as a pickle, with two solutions.

    source: a Hub id or a folder. published_class: the class in its config.json, if known. page: its page on the Hub.
    """
    discussions = f"{page}/discussions has" if page else "its discussions on the Hub have"
    kind = published_class or "AutoModelForSequenceClassification"
    which = "" if published_class else ", or the class that its config.json names"
    return (
        f"its weights are stored only in {file}, which minilm does not load, as it can run code; use "
        f'revision = "refs/pr/N" if {discussions} a pull request N that adds safetensors; or, if you trust its '
        f'author, convert it with transformers: {kind}.from_pretrained("{source}")'
        f'.save_pretrained("FOLDER", safe_serialization=True){which}'
    )


def shard_names(index: Mapping[str, Any], where: str = INDEX) -> list[str]:
    """The files that a parsed ``model.safetensors.index.json`` lists: plain names, each once, in order.

    ``where`` is the path of the index, for errors. Raises UserError if it lists no file, or a file outside its folder.
    """
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{where}: has no weight_map (the file of each tensor); download it again")
    names = set(map(str, weight_map.values()))
    for name in names:
        # Separators, drives and ".." are errors on every system.
        plain = PurePosixPath(name).name == PureWindowsPath(name).name == name
        if not plain or not name.endswith(".safetensors"):
            raise UserError(f'{where}: lists "{name}", not a safetensors file beside it; do not trust this model')
    return sorted(names)


def weight_names(folder: Path) -> list[str]:
    """The files of a model's weights: one file, that of an adapter, or shards."""
    index = folder / INDEX
    if index.is_file() and not (folder / WEIGHTS).is_file():
        try:
            parsed = json.loads(index.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{index}: not valid JSON ({error}); remove it and download it again") from error
        return shard_names(parsed if isinstance(parsed, dict) else {}, str(index))
    return ["adapter_model.safetensors"] if holds_adapter(folder) else [WEIGHTS]


def holds_adapter(folder: Path) -> bool:
    """Whether a folder contains an adapter and not a whole model. It may also contain the config.json of the base."""
    whole = (WEIGHTS, INDEX, TRAINED_PART) if (folder / "config.json").is_file() else ()
    return (folder / "adapter_config.json").is_file() and not any((folder / name).is_file() for name in whole)


def is_whole(folder: Path, want: Want = "model") -> bool:
    """Whether a folder contains all files of its model, tokenizer or config. (Weights are downloaded last.)"""
    there = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    if want == "config":
        return not there.isdisjoint(CONFIGS)
    if want == "tokenizer":
        parts = set(VOCABULARY_FILES) - {"vocab.json", "merges.txt"}
        return "tokenizer.json" in there or {"vocab.json", "merges.txt"} <= there or not there.isdisjoint(parts)
    return not there.isdisjoint(CONFIGS) and there.issuperset(weight_names(folder))


def files_in(folder: Path) -> list[str]:
    """The names of all files in a folder, with "/" as in a repository."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
