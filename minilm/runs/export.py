"""``minilm export``: a finished run's model as a folder for others."""

from __future__ import annotations

from pathlib import Path

import torch

from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.adapters import base_of
from minilm.checkpoints.models import card_of, own_head, save_model
from minilm.checkpoints.opening import load_model
from minilm.data.tokenization import load_tokenizer
from minilm.errors import UserError
from minilm.evaluation.predictor import without_classifier
from minilm.finetuning.lora import merge
from minilm.hub import is_folder
from minilm.model_files import holds_adapter
from minilm.models import ARCHITECTURES
from minilm.training.console import say


def export_run(run: str, folder: Path, *, merged: bool = False, dtype: str | None = None) -> Path:
    """Write the model of a run, or of any folder or name, into a folder that ``transformers`` (or PEFT) opens.

    Says which part of it other libraries cannot use.

    Args:
        run: a run's folder, a model's or an adapter's folder, a catalogue name or a Hub id.
        folder: made if it does not exist; it must be empty.
        merged: write an adapter and its base as one model.
        dtype: of a whole model's weights, such as "bfloat16"; None: as they are, of an adapted one float32, in which
            the adapter was trained.

    Raises:
        UserError: the folder is not empty, or there is no such model.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already and not empty; name another folder")
    source = Path(run) / "model" if (Path(run) / "model").is_dir() else Path(run)
    if (Path(run) / "config.toml").exists() and source == Path(run):
        raise UserError(f"{run}: {without_classifier(Path(run))}")
    adapted = source.is_dir() and holds_adapter(source)
    if adapted and dtype is not None and not merged:
        raise UserError("--dtype is for whole models: an adapter stays in float32; add --merge, or leave it out")
    model = load_model(source if is_folder(source) else run, dtype=torch.float32 if adapted else "stored")
    tokenizer = load_tokenizer(card_of(model).tokenizer or run)
    if adapted and not merged:
        base = base_of(source)
        base = str(Path(base).resolve()) if is_folder(base) else base
        save_adapter(model, folder, base=base, tokenizer=tokenizer)
    else:
        merge(model)
        if dtype is not None:
            model.to(getattr(torch, dtype))
        save_model(model, folder, tokenizer=tokenizer)
    if own_head(model) is not None:
        backbone = ARCHITECTURES[card_of(model).model_type].classes["encode"]
        say(
            f"{folder}: the mlp head is minilm's own and other libraries cannot use it: for them this is a {backbone} "
            "without labels; a model trained with model.head.kind=family can be used anywhere"
        )
    return folder
