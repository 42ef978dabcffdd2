"""``minilm export``: save a finished run's model, or its linear baseline, in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from minilm.atomic import atomic
from minilm.checkpoints.adapter_configs import read_adapter_config
from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.adapters import base_of
from minilm.checkpoints.models import card_of, own_head, save_model
from minilm.checkpoints.onnx_export import check_installed
from minilm.checkpoints.opening import load_model
from minilm.data.tokenization import load_tokenizer
from minilm.errors import UserError
from minilm.evaluation.baselines import linear
from minilm.evaluation.decisions import fit_decision
from minilm.evaluation.linear_classifier import save_linear
from minilm.evaluation.predictor import without_classifier
from minilm.evaluation.reading import Reading, decided, decision_of, names_of
from minilm.evaluation.validation_scores import ValidationScores, write_validation
from minilm.finetuning.lora import merge
from minilm.hub import is_folder, resolve_model
from minilm.model_files import holds_adapter
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Backbone
from minilm.reporting.export_facts import ExportFacts
from minilm.reporting.model_card import CARD, Exported, model_card
from minilm.reporting.record import Run, read_run
from minilm.runs.augment import augmented
from minilm.runs.folders import load_data_of
from minilm.runs.onnx import add_onnx, check_classifier
from minilm.training.console import say


def export_run(
    run: str,
    folder: Path,
    *,
    merged: bool = False,
    dtype: str | None = None,
    onnx: bool = False,
    int8: bool = False,
    name: str = "",
) -> Path:
    """Save the model of a run, or of any folder or name, in a folder that ``transformers`` (or PEFT) can load.

    The folder gets a model card, README.md. Prints which part of it other libraries cannot use.

    Args:
        run: a run's folder, a model's or an adapter's folder, a catalogue name or a Hub id.
        folder: created if it does not exist; it must be empty.
        merged: save an adapter and its base model as one model.
        dtype: of a whole model's weights, such as "bfloat16"; None: unchanged, but float32 for a merged adapter, which
            was trained in float32.
        onnx: save a classifier as an ONNX graph too; an adapter is merged. See ``runs/onnx.py``.
        int8: save the graph with 8-bit integers too.
        name: the name by which the model will be used, for the model card; "": the folder's name.

    Raises:
        UserError: the folder is not empty, or there is no such model, or none that can be saved in this form.
    """
    _check_empty(folder)
    if int8 and not onnx:
        raise UserError("--int8 is a form of the ONNX graph; add --onnx")
    if onnx:
        check_installed()
    source = resolve_model(str(_model_of(run)))
    adapted = holds_adapter(source)
    stays = adapted and not merged and not onnx
    if stays and dtype is not None:
        raise UserError("--dtype is only for whole models; an adapter stays in float32; add --merge or remove --dtype")
    model = load_model(source, dtype=torch.float32 if adapted else "stored")
    if onnx:
        check_classifier(model, run)
    tokenizer = load_tokenizer(card_of(model).tokenizer or run)
    if stays:
        base, revision = base_of(source), read_adapter_config(source).revision
        if is_folder(base):
            base, revision = str(Path(base).resolve()), ""
        save_adapter(model, folder, base=base, revision=revision, tokenizer=tokenizer)
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
    facts = add_onnx(model, tokenizer, folder, run=Path(run), int8=int8) if onnx else None
    _write_card(folder, _describe(model, name or folder.resolve().name, run, adapter=stays, facts=facts), run)
    return folder


def _model_of(run: str) -> Path | str:
    """The folder of a run's model; anything else unchanged. Raises UserError for a run without a model."""
    folder = Path(run) / "model"
    if folder.is_dir():
        return folder
    if (Path(run) / "config.toml").exists():
        raise UserError(f"{run}: {without_classifier(Path(run))}")
    return run


def _describe(model: Backbone, name: str, run: str, *, adapter: bool, facts: ExportFacts | None) -> Exported:
    """What the folder of an exported model holds."""
    card = card_of(model)
    record = _record(run)
    source, revision = run, ""
    if record is not None:
        source, revision = record.config.model.source, record.config.model.revision
    elif card.adapter is not None:
        source, revision = base_of(card.adapter), read_adapter_config(card.adapter).revision
    if card.task != "classify":
        return Exported(name=name, source=source, revision=revision, model=card, adapter=adapter)
    reading = Reading.of(card)
    return Exported(
        name=name,
        source=source,
        revision=revision,
        model=card,
        labels=names_of(card),
        adapter=adapter,
        decision=decision_of(card, reading),
        reading=reading,
        facts=facts,
    )


def _record(run: str) -> Run | None:
    """The run whose model is exported; None if the model has no run."""
    return read_run(Path(run)) if (Path(run) / "results.json").is_file() else None


def _write_card(folder: Path, exported: Exported, run: str) -> None:
    with atomic(folder / CARD) as file:
        file.write(model_card(exported, _record(run)).encode())


def export_linear(run: Path, folder: Path) -> Path:
    """Fit a run's linear baseline again on the same texts, and save it in a folder for ``minilm predict``.

    Its temperature and threshold are chosen on the run's validation texts. The run's config is saved with it, so that
    tables are read as in the run. Raises UserError if the folder is not empty, or if the run's data have changed.
    """
    _check_empty(folder)
    config, data = load_data_of(run)
    assert config.train is not None  # it trained a classifier
    train = augmented(config, data)
    model = linear(train.texts, train.labels, len(data.label_names), train.pairs)
    scores = model.predict(data.validation.texts, data.validation.pairs).astype(np.float32)
    decision = fit_decision(config.train, data.validation.labels, scores)
    # It reads texts of any length.
    table = {"clean": config.data.clean, "pairs": bool(config.data.text_pair), "long_texts": "windows"}
    reading = Reading.from_table(table | decided(decision), str(folder))
    save_linear(model, folder, data.label_names, reading)
    write_validation(folder, ValidationScores(scores, data.validation.labels))
    for name in ("config.toml", "environment.json"):
        shutil.copyfile(run / name, folder / name)
    name = folder.resolve().name
    _write_card(folder, Exported(name=name, labels=data.label_names, decision=decision, reading=reading), str(run))
    return folder


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: already exists and is not empty; give another folder")
