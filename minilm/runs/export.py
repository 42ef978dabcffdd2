"""``minilm export``: save a finished run's model, or its linear baseline, in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.adapters import base_of
from minilm.checkpoints.models import card_of, own_head, save_model
from minilm.checkpoints.opening import load_model
from minilm.data.sources import load_dataset
from minilm.data.tokenization import load_tokenizer
from minilm.errors import UserError, located
from minilm.evaluation.baselines import linear
from minilm.evaluation.decisions import fit_decision
from minilm.evaluation.linear_classifier import save_linear
from minilm.evaluation.predictor import without_classifier
from minilm.evaluation.reading import Reading, decided
from minilm.evaluation.validation_scores import ValidationScores, write_validation
from minilm.finetuning.lora import merge
from minilm.hub import is_folder
from minilm.loading import load_config
from minilm.model_files import holds_adapter
from minilm.models import ARCHITECTURES
from minilm.runs.augment import augmented
from minilm.runs.folders import stored_environment
from minilm.training.console import say


def export_run(run: str, folder: Path, *, merged: bool = False, dtype: str | None = None) -> Path:
    """Save the model of a run, or of any folder or name, in a folder that ``transformers`` (or PEFT) can load.

    Prints which part of it other libraries cannot use.

    Args:
        run: a run's folder, a model's or an adapter's folder, a catalogue name or a Hub id.
        folder: created if it does not exist; it must be empty.
        merged: save an adapter and its base model as one model.
        dtype: of a whole model's weights, such as "bfloat16"; None: unchanged, but float32 for a merged adapter, which
            was trained in float32.

    Raises:
        UserError: the folder is not empty, or there is no such model.
    """
    _check_empty(folder)
    source = Path(run) / "model" if (Path(run) / "model").is_dir() else Path(run)
    if (Path(run) / "config.toml").exists() and source == Path(run):
        raise UserError(f"{run}: {without_classifier(Path(run))}")
    adapted = source.is_dir() and holds_adapter(source)
    if adapted and dtype is not None and not merged:
        raise UserError("--dtype is only for whole models; an adapter stays in float32; add --merge or remove --dtype")
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


def export_linear(run: Path, folder: Path) -> Path:
    """Fit a run's linear baseline again on the same texts, and save it in a folder for ``minilm predict``.

    Its temperature and threshold are chosen on the run's validation texts. The run's config is saved with it, so that
    tables are read as in the run. Raises UserError if the folder is not empty, or if the run's data have changed.
    """
    _check_empty(folder)
    path = run / "config.toml"
    if not path.is_file():
        raise UserError(f"{run}: not a run's folder; give the run of the linear baseline, such as runs/scratch-sample")
    config = load_config(path)
    if config.train is None:
        raise UserError(f"{run}: trained no classifier, so it has no linear baseline")
    with located(str(path)):
        data = load_dataset(config.data)
    if data.fingerprint != stored_environment(run).data.fingerprint:
        raise UserError(f"{run}: its data have changed since it was trained; restore them, or train again")
    train = augmented(config, data)
    model = linear(train.texts, train.labels, len(data.label_names), train.pairs)
    scores = model.predict(data.validation.texts, data.validation.pairs).astype(np.float32)
    decision = fit_decision(config.train, data.validation.labels, scores)
    # It reads texts of any length.
    table = {"clean": config.data.clean, "pairs": bool(config.data.text_pair), "long_texts": "windows"}
    save_linear(model, folder, data.label_names, Reading.from_table(table | decided(decision), str(folder)))
    write_validation(folder, ValidationScores(scores, data.validation.labels))
    for name in ("config.toml", "environment.json"):
        shutil.copyfile(run / name, folder / name)
    return folder


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: already exists and is not empty; give another folder")
