"""An adapter as the start of a run: merged with its base model once, into a folder of ``weights/``.

A run starts from a whole checkpoint on the disk, which is compared when the run resumes, and its own adapter names that
as its base. The folder's name contains a hash of the adapter and its base, so equal ones are merged only once.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path

import torch

from minilm import hub
from minilm.atomic import flush_names, move, remove_remains, unfinished
from minilm.checkpoints.adapter_configs import read_adapter_config
from minilm.checkpoints.adapters import find_base, load_adapted_model
from minilm.checkpoints.files import fingerprint
from minilm.checkpoints.models import card_of, copy_files, save_model
from minilm.data.tokenization import load_tokenizer
from minilm.errors import UserError
from minilm.finetuning.lora import merge
from minilm.model_files import MODULE_FILE, SENTENCE_FILES, files_in, holds_adapter, is_whole
from minilm.repository import taking_turns
from minilm.world import alone

log = logging.getLogger("minilm")

OF_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "head.safetensors", "tokenizer.json")


def find_whole(source: str, revision: str = "", base: str = "") -> Path:
    """The folder of a whole model: of the source, or if that is an adapter, of the adapter merged with its base.

    Args:
        source: a folder, a catalogue name or a Hub id.
        revision: a branch, tag or commit on the Hub.
        base: of an adapter, the model that it is merged with; "": the one that adapter_config.json names.

    Raises:
        UserError: there is no such model, the adapter does not fit its base, or a base is given for a whole model.
    """
    folder = hub.resolve_model(source, revision)
    if not holds_adapter(folder):
        if base:
            raise UserError(f"model.base: {folder} is a whole model, not an adapter; remove model.base")
        return folder
    below = find_base(folder, base or None)
    name = f"merged-{_hash_of(folder, below)[:16]}"
    target = hub.weights_folder() / name
    if is_whole(target):
        return target
    # Of several processes of a run too, each takes its turn: the first on every machine saves the model.
    with taking_turns(target.with_name(f".{name}.lock"), name), alone():
        if not is_whole(target):  # another process may have just merged it
            _merge(folder, below, target)
    return target


def _hash_of(adapter: Path, base: Path) -> str:
    """A hash of an adapter's files and of samples of its base."""
    digest = hashlib.sha256(fingerprint(base).encode())
    for path in (adapter / name for name in OF_ADAPTER):
        digest.update(path.read_bytes() if path.is_file() else b"-")
    return digest.hexdigest()


def _merge(adapter: Path, base: Path, target: Path) -> None:
    """Save the merged model in a folder that appears whole."""
    model = load_adapted_model(
        adapter, read_adapter_config(adapter).task or "encode", dtype=torch.float32, base=base
    )
    merge(model)
    remove_remains(target)
    beside = unfinished(target)
    try:
        save_model(model, beside, tokenizer=load_tokenizer(card_of(model).tokenizer or adapter))
        copy_files(base, [*SENTENCE_FILES, *filter(MODULE_FILE.fullmatch, files_in(base))], beside)  # its pooling
        flush_names(beside)
        move(beside, target)
        flush_names(target.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    size = sum(path.stat().st_size for path in target.iterdir()) / 1e6
    log.warning("%s: merged with its base model %s, in %s (%.0f MB)", adapter, base, target, size)
