"""Load and save whole models, in folders as ``transformers`` reads and writes them.

Loading builds the model without memory (on torch's "meta" device), compares every name and shape with the files'
headers, and only then reads the tensors one by one. A tensor that needs no conversion stays in the file's pages; the
pages of a tensor that is converted are freed at once. So there are never two copies of the model in memory.

A folder contains config.json, model.safetensors (or shards and their index) and the tokenizer's files. If the head is
minilm's own, which no published class has, the folder also contains head.safetensors, which is described under "minilm"
in config.json.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from minilm import hub
from minilm.atomic import atomic
from minilm.checkpoints.configs import class_of, write_config
from minilm.checkpoints.contents import Contents, read_contents
from minilm.checkpoints.files import Entry, Reader, view_once, write_json, write_tensors
from minilm.checkpoints.matching import Match, match, parameter_names, set_parameter, verify
from minilm.checkpoints.names import Layout, Place, module_of, places_of_ours, plain_name, published_tensors, rows_of
from minilm.checkpoints.trained_part import TRAINED_STEM, Base
from minilm.data.tokenizer_settings import settings_beside
from minilm.errors import UserError, located, nearest
from minilm.model_files import TOKENIZER_FILES, VOCABULARY_FILES
from minilm.models import ARCHITECTURES, TASKS, build_model, without_weights
from minilm.models.architecture import Backbone, BackboneConfig, Card, Row
from minilm.models.heads import ClassificationHead, HeadConfig, LanguageHead

log = logging.getLogger("minilm")

# Files of the tokenizer, which are copied unchanged, as are settings of generation.
OF_TOKENIZER = (*sorted(set(TOKENIZER_FILES) - {"config.json"}), *VOCABULARY_FILES)
PADS = ("<pad>", "[PAD]")  # the usual names of the padding token
BLOCK = 1 << 22  # values converted at a time
# Keys of config.json that describe the classes of a published head, and what their scores mean.
OF_CLASSES = (
    "id2label", "label2id", "num_labels", "problem_type",
    "sentence_transformers", "sbert_ce_default_activation_function",
)  # fmt: skip
# The dtype of a model's weights: one for all; the widest of the stored dtypes (None); or each weight's own.
Dtype = torch.dtype | Literal["stored"] | None


def card_of(model: Backbone) -> Card:
    """A model's card. Raises TypeError for a model that was not made by ``load_model`` or ``new_model``."""
    if not isinstance(model, Backbone) or model.card is None:
        raise TypeError("this model has no card; make it with load_model or new_model")
    return model.card


def own_head(model: Backbone) -> ClassificationHead | None:
    """The model's head if it is minilm's own, which no published class has; None for the family's head or no head."""
    head = model.head if card_of(model).own_head else None
    return head if isinstance(head, ClassificationHead) else None


def new_model(
    model_type: str, config: BackboneConfig, task: str, *, labels: Sequence[str] = (), head: HeadConfig | None = None
) -> Backbone:
    """Make a model with random weights, initialized as in its paper from torch's current random state.

    Raises UserError for settings that cannot be saved, because the family's published class does not support them.
    """
    write_config(model_type, config)
    if head is not None and head.pooling != "pooler":
        config = with_pooler(model_type, config, False)  # it would never be trained
    model = build_model(model_type, config, task, classes=len(labels), head=head)
    ARCHITECTURES[model_type].initialize(model)
    model.card = Card(model_type, task, list(labels), own_head=head is not None)
    return model


def with_pooler(model_type: str, config: BackboneConfig, wanted: bool) -> BackboneConfig:
    """The config with or without a pooler; unchanged if the family has none."""
    has_switch = "pooler" in ARCHITECTURES[model_type].switches
    return dataclasses.replace(config, **{"pooler": wanted}) if has_switch else config


# --- Loading -----------------------------------------------------------------------------------------------------


def load_model(
    source: str | Path,
    task: str | None = None,
    *,
    labels: Sequence[str] | None = None,
    head: HeadConfig | None = None,
    dtype: Dtype = None,
    device: torch.device | str | None = None,
    revision: str | None = None,
) -> Backbone:
    """Load a whole checkpoint, in evaluation mode. Arguments and errors are those of ``opening.load_model``."""
    model, untrained = load_parts(
        hub.resolve_model(str(source), revision or ""), task, labels=labels, head=head, dtype=dtype, device=device
    )
    warn_of(untrained, model)
    return model


def warn_of(untrained: Sequence[str], model: Backbone) -> None:
    """Warn which parts of a model start untrained, from their parameters' names, unless the model is on "meta"."""
    card = card_of(model)
    trained = {name for name, _ in model.named_parameters()}.difference(untrained)
    partly = {name.partition(".")[0] for name in trained}
    tops = ((name.partition(".")[0], module_of(name)) for name in untrained)
    parts = sorted({module if top in partly else top for top, module in tops})
    if parts and not any(parameter.is_meta for parameter in model.parameters()):
        log.warning("%s: its %s for this task (%s) starts untrained", card.folder, " and ".join(parts), card.task)


def load_parts(
    folder: Path,
    task: str | None = None,
    *,
    labels: Sequence[str] | None = None,
    head: HeadConfig | None = None,
    dtype: Dtype = None,
    device: torch.device | str | None = None,
) -> tuple[Backbone, list[str]]:
    """``load_model`` of a folder, and the names of the parameters that the checkpoint does not have."""
    stored = read_contents(folder, weights=torch.device(device or "cpu").type != "meta")
    task = task or stored.task
    if task not in TASKS:
        raise UserError(f'task must be one of {", ".join(TASKS)}, got "{task}"{nearest(task, TASKS)}')
    card = Card(stored.model_type, task, folder=stored.folder, published=stored.published, nested=stored.nested)
    if task == "classify":
        card.labels = list(_different(stored) if labels is None else labels)
        if not card.labels:
            instead = "train one (minilm train), or in Python give the classes of a new head (labels)"
            other = class_of(stored.published)
            why = f": it is a {other}, whose task is not supported" if other and stored.has_other_head else ""
            raise UserError(f"{stored.folder}: has no classification head{why}; {instead}")
        same = card.labels == stored.labels and head in (None, stored.head)
        head, head_is_new = head or stored.head, not same
        card.own_head = head is not None
    else:
        head, head_is_new = None, task != stored.task and not stored.has("head", task)
    if head_is_new:
        card.published = {key: value for key, value in stored.published.items() if key not in OF_CLASSES}
    else:
        described = ("config", "head", "labels", "base", "problem_type")  # by the model and its card
        card.extra = {key: value for key, value in stored.own.items() if key not in described}
        if "problem_type" in stored.own:  # minilm's head
            card.published = {**stored.published, "problem_type": stored.own["problem_type"]}

    for note in stored.notes:
        log.warning("%s: %s", folder, note)
    config = with_pooler(stored.model_type, stored.config, stored.has("pooler"))
    if head_is_new and "decoder" in stored.architecture.switches and not stored.has("decoder"):
        config = dataclasses.replace(config, **{"decoder": False})  # only T5's encoder, as in token classifiers
    with without_weights(), located(str(stored.folder / "config.json")):
        model = build_model(stored.model_type, config, task, classes=len(card.labels), head=head)
    model.card = card
    if not stored.has_weights:
        return _described(model, dtype).eval(), []
    found = _match(model, stored, head_is_new)
    _fill(model, found, dtype, torch.device(device or "cpu"))
    if head is not None and head.pooling != "pooler" and model.pooler is not None:
        model.pooler.requires_grad_(False)  # the head does not use it; it is kept for loading the backbone
    return model.eval(), found.untrained


def _described(model: Backbone, dtype: Dtype) -> Backbone:
    """A model without weights, in the dtype that its config.json names if none is given."""
    published = card_of(model).published
    named = str(published.get("dtype") or published.get("torch_dtype") or "").removeprefix("torch.")
    widest = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(named, torch.float32)
    return model.to(dtype if isinstance(dtype, torch.dtype) else widest)


def _different(stored: Contents) -> list[str]:
    """The checkpoint's classes. Raises UserError if two have the same name, as one of their scores would be lost."""
    for label in stored.labels:
        if stored.labels.count(label) > 1:
            raise UserError(f'{stored.folder / "config.json"}: names two classes "{label}"; give them different names')
    return stored.labels


def _match(model: Backbone, stored: Contents, head_is_new: bool) -> Match:
    """Find the model's parameters in the files."""
    card = card_of(model)
    task = "encode" if card.own_head or head_is_new else card.task
    places = rows_of(stored.architecture.names, model.config, task)
    if head_is_new and not card.own_head and card.task != stored.task:
        # Parts that the heads of several tasks share (ModernBERT's dense layer and norm) are kept, as in transformers.
        alike = {place.theirs for place in stored.places(stored.task)}
        places += tuple(p for p in stored.places(card.task) if p.theirs in alike and p not in places)
    tensors = stored.tensors
    if card.own_head and not head_is_new:
        tensors = {**tensors, **stored.own_tensors}
        names = [name for name, _ in model.named_parameters() if name.startswith("head.")]
        places += tuple(Place(name, name, Row(name, name, bare=True), Layout()) for name in names)
    return match(
        model,
        tensors,
        places,
        all_places=stored.all_places(),
        new=("head.", "pooler.") if head_is_new else (),
        where=stored.folder,
    )


def _fill(model: Backbone, found: Match, dtype: Dtype, device: torch.device) -> None:
    """Put the tensors into the model, one by one, in place of those on the meta device."""
    reader = Reader()
    verify(found)
    always = ARCHITECTURES[card_of(model).model_type].float32
    stored = {name: entry.dtype for name, (_, entry) in found.read.items()} if dtype == "stored" else {}
    if not isinstance(dtype, torch.dtype):
        dtype = _widest(entry.dtype for name, (_, entry) in found.read.items() if not _is_one_of(name, always))
    wide = always if dtype == torch.float16 else ()
    for first, *others in parameter_names(model):
        kind = stored.get(first) or (torch.float32 if _is_one_of(first, wide) else dtype)
        if first in found.read:
            tensor = _read(reader, *found.read[first], kind, device)
        else:
            tensor = _untrained(first, model.get_parameter(first).shape).to(device=device, dtype=kind)
        parameter = nn.Parameter(tensor)
        for name in (first, *others):
            set_parameter(model, name, parameter)


def _widest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """The dtype that can represent all of these, so that no weight is rounded if the stored dtypes differ."""
    return functools.reduce(torch.promote_types, dtypes)


def _is_one_of(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _read(reader: Reader, place: Place, entry: Entry, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One parameter: in the file's pages if possible, otherwise converted block by block."""
    ours = place.take(reader.view(entry))
    if ours.dtype == dtype and ours.is_contiguous() and device.type == "cpu":
        return ours
    ours = place.take(view_once(entry))
    tensor = torch.empty(ours.shape, dtype=dtype, device=device)
    along = int(place.layout.transposed)  # the dimension along which a block is contiguous in the file
    step = max(1, BLOCK // (ours[:, 0] if place.layout.transposed else ours[0]).numel())
    for source, target in zip(ours.split(step, along), tensor.split(step, along), strict=True):
        target.copy_(source)
    return tensor


def _untrained(name: str, shape: torch.Size) -> Tensor:
    """An initial tensor of a new head: N(0, 0.02) for matrices, ones for norms, zeros for biases."""
    if name.endswith(".norm.weight"):
        return torch.ones(shape)
    return torch.zeros(shape) if name.endswith(".bias") else torch.randn(shape) * 0.02


# --- Saving ------------------------------------------------------------------------------------------------------


def save_model(model: Backbone, folder: str | Path, *, tokenizer: Any = None, base: Base | None = None) -> Path:
    """Save a model in a folder that ``transformers`` opens and ``load_model`` reads bit for bit.

    With the family's head, the published class loads the whole model. With minilm's head, the folder is that of a
    backbone without labels, and head.safetensors contains the head; a published classifier would load the backbone with
    a random head.

    Args:
        model: a model from ``load_model`` or ``new_model``.
        folder: created if it does not exist.
        tokenizer: a ``tokenizers.Tokenizer`` to save too; None: the files of the folder that the model came from.
        base: the checkpoint from which the model was trained. If it is given, only the trained parameters are saved;
            `load_model` combines them with the base (``trained_part``), but ``transformers`` cannot load them.

    Raises:
        UserError: the family's published class does not support this model's settings.
    """
    folder, card = Path(folder), card_of(model)
    architecture = ARCHITECTURES[card.model_type]
    config = _config_to_write(model)
    task = "encode" if card.own_head else card.task
    parameters = dict(model.named_parameters())
    head = {name: p for name, p in parameters.items() if card.own_head and name.startswith("head.")}
    backbone = {name: p for name, p in parameters.items() if name not in head}
    places = rows_of(architecture.names, model.config, task, prefixed=True)
    if base is None:
        write_tensors(folder / "model.safetensors", published_tensors(backbone, places))
    else:
        part = _trained_names(model, backbone, places)
        tensors = ((name, tensor) for name, tensor in published_tensors(backbone, places) if name in part)
        write_tensors(folder / f"{TRAINED_STEM}.safetensors", tensors)
        config["minilm"] = {**config.get("minilm", {}), "base": base._asdict()}
    if head:
        write_tensors(folder / "head.safetensors", {name.removeprefix("head."): p for name, p in head.items()})
    if tokenizer is not None:
        pads = [number for name in PADS if (number := tokenizer.token_to_id(name)) is not None]
        if pads and config.get("pad_token_id") is None:
            config["pad_token_id"] = pads[0]  # the published class needs it to find the last token
        write_tokenizer(tokenizer, folder, model.config)
    else:
        copy_files(card.folder, ("generation_config.json",), folder)
        copy_files(card.tokenizer, OF_TOKENIZER, folder)
    write_json(folder / "config.json", config)
    return folder


def _trained_names(model: Backbone, backbone: Mapping[str, nn.Parameter], places: Sequence[Place]) -> set[str]:
    """The published tensors with trained values, or that the base checkpoint does not have."""
    card = card_of(model)
    assert card.folder is not None  # it was loaded from the base
    names, below = ARCHITECTURES[card.model_type].names, read_contents(card.folder).tensors
    found = [(parameter, place) for name, parameter in backbone.items() for place in places_of_ours(name, places)]
    return {at.theirs for p, at in found if p.requires_grad or plain_name(at.theirs, names) not in below}


def copy_files(origin: Path | None, names: Iterable[str], folder: Path) -> None:
    """Copy the files of these names that a folder has to another folder."""
    for name in names:
        if origin is not None and origin.resolve() != folder.resolve() and (origin / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin / name, folder / name)


def reads_segments(config: BackboneConfig) -> bool:
    """Whether a family's models tell the two texts of a pair apart by segments."""
    kinds: int = dataclasses.asdict(config).get("segments", 1)
    return kinds > 1


def write_tokenizer(tokenizer: Any, folder: Path, config: BackboneConfig) -> None:
    """Save a ``tokenizers.Tokenizer`` as tokenizer.json, with settings that make ``transformers`` use it unchanged."""
    settings = settings_beside(tokenizer, reads_segments=reads_segments(config))
    write_json(folder / "tokenizer_config.json", settings)
    with atomic(folder / "tokenizer.json") as file:
        file.write(tokenizer.to_str(pretty=True).encode())


def _config_to_write(model: Backbone) -> dict[str, Any]:
    """The model's config.json: the one that it was loaded with, updated."""
    card = card_of(model)
    task = "encode" if card.own_head else card.task
    # _name_or_path: the folder from which somebody loaded the model, perhaps on another machine.
    left_out = ("minilm", "torch_dtype", "_name_or_path", *(OF_CLASSES if task != "classify" else ()))
    config = {key: value for key, value in card.published.items() if key not in left_out}
    settings = model.config
    if isinstance(model.head, LanguageHead):  # merging an adapter of a tied head unties it
        tied = model.head.output.weight is model.token_embedding.weight
        settings = dataclasses.replace(settings, tied=tied)
    config |= write_config(card.model_type, settings)
    own = {**config.pop("minilm", {}), **card.extra}
    config["architectures"] = [ARCHITECTURES[card.model_type].classes[task]]
    always = ARCHITECTURES[card.model_type].float32
    dtypes = (parameter.dtype for name, parameter in model.named_parameters() if not _is_one_of(name, always))
    config["dtype"] = str(_widest(dtypes)).removeprefix("torch.")
    if task == "classify":
        config["id2label"] = {str(i): label for i, label in enumerate(card.labels)}
        config["label2id"] = {label: i for i, label in enumerate(card.labels)}
    if (head := own_head(model)) is not None:
        own |= {"head": dataclasses.asdict(head.config), "labels": card.labels}
        if "problem_type" in card.published:
            own["problem_type"] = card.published["problem_type"]
    return {**config, "minilm": own} if own else config
