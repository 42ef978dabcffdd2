"""The contents of a checkpoint's folder, from its ``config.json`` and the headers of its files.

If only shapes are needed, config.json is enough (``read_contents`` with ``weights=False``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minilm.checkpoints.configs import architecture_of, class_of, from_plain, own_section, read_config, text_config
from minilm.checkpoints.files import Entry, read_folder, read_header
from minilm.checkpoints.matching import equal
from minilm.checkpoints.names import (
    Place,
    all_places,
    is_needed,
    is_of_head,
    places_of_ours,
    places_of_theirs,
    plain_name,
    rows_of,
)
from minilm.checkpoints.recognition import recognise
from minilm.checkpoints.trained_part import base_of_part, read_weights
from minilm.errors import UserError
from minilm.models.architecture import Architecture, BackboneConfig, Names
from minilm.models.heads import HeadConfig
from minilm.schema import cut
from minilm.textfiles import read_json

log = logging.getLogger("minilm")

TOKENS, HEAD = "embeddings.token.weight", "head.output.weight"
USUAL_CLASSES = 2  # of a published classifier whose config.json names none


@dataclass(frozen=True)
class Contents:
    """A checkpoint before it is loaded."""

    folder: Path
    published: dict[str, Any]  # config.json
    own: dict[str, Any]  # the table "minilm" in config.json
    model_type: str
    architecture: Architecture[Any]
    config: BackboneConfig
    task: str  # the checkpoint's task
    tensors: dict[str, list[Entry]]  # by plain name; several entries of one name are copies
    own_tensors: dict[str, list[Entry]]  # head.safetensors, by minilm's names
    head: HeadConfig | None  # the settings of minilm's head; None: the family's head, or none
    labels: list[str]  # the classes of the head, in order; empty: there is no classification head
    nested: bool = False  # whether it is the text model inside a vision-language model
    has_other_head: bool = False  # its head is ignored, as the task is not supported (multiple choice)
    has_weights: bool = True  # False: only config.json was read, so the parts follow from its class
    notes: tuple[str, ...] = ()  # messages when it is loaded: guesses, and parts that are ignored

    def places(self, task: str) -> tuple[Place, ...]:
        """The name table for a task, with the family's head."""
        return rows_of(self.architecture.names, self.config, task)

    def all_places(self) -> tuple[Place, ...]:
        """The name table with the heads of all tasks."""
        return all_places(self.architecture.names, self.config)

    def has(self, part: str, task: str = "encode") -> bool:
        """Whether tensors of a part ("pooler", or "head" of a task) are stored; for a head, tensors of no other
        head."""
        if not self.has_weights:
            return self._is_of_class(part, task)
        others = (self.places(other) for other in self.architecture.names.heads if part == "head" and other != task)
        shared = {place.theirs for places in others for place in places}
        stored = (place for place in self.places(task) if place.theirs in self.tensors and place.theirs not in shared)
        return any(place.ours.startswith(f"{part}.") for place in stored)


    def _is_of_class(self, part: str, task: str) -> bool:
        """Whether the published class that config.json names has a part."""
        if part == "head":
            return task == self.task
        return self.task != "lm" if part == "pooler" else not class_of(self.published).endswith("EncoderModel")


def read_contents(folder: Path, *, weights: bool = True) -> Contents:
    """Read the config and the headers. Raises UserError if a file is missing, damaged or contradicts another.

    weights: if False, a folder without any safetensors file is described by its config.json alone.
    """
    if not weights and (folder / "config.json").is_file() and not any(folder.glob("*.safetensors")):
        return _contents_of_config(folder)
    where = str(folder / "config.json")
    published, notes = read_json(folder / "config.json"), []
    if published.get("model_type") is None:
        published["model_type"] = recognise(published, read_folder(folder), folder)
        notes.append(f"config.json names no model_type; by its tensors, it is {published['model_type']}")
    nested = text_config(published, where)
    if nested is not None:
        notes.append(f"only the text model ({nested['model_type']}) of this {published['model_type']} model is loaded")
    published = published if nested is None else nested
    model_type, architecture = architecture_of(published, where)
    config, own, names = read_config(published, where), own_section(published, where), architecture.names
    base = base_of_part(own, where)
    held = read_weights(folder, base)
    task = _task(published, own, architecture, {plain_name(name, names) for part in held for name in part})
    others = _other_heads(held, config, names, is_known=task is not None, is_part=base is not None)
    if others and task is None:
        modules = " and ".join(sorted({name.partition(".")[0] for name in others}))
        notes.append(f"the head of {class_of(published)} ({modules}) is ignored, as its task is not supported")
    tensors: dict[str, list[Entry]] = {}
    for part in held:
        tensors |= _by_name((plain_name(name, names), entry) for name, entry in part.items() if name not in others)
    head, own_tensors = None, {}
    if "head" in own:
        head = from_plain(HeadConfig, own["head"], f"{where}: minilm.head")
        own_tensors = _by_name((f"head.{name}", e) for name, e in read_header(folder / "head.safetensors").items())
        outputs = own_tensors.get("head.output.weight", [])
    else:
        places = places_of_ours(HEAD, rows_of(names, config, "classify"))
        outputs = [entry for place in places for entry in tensors.get(place.theirs, [])]
    if architecture.tied_by_tensors:
        config = replace(config, tied=_is_tied(tensors, config, names, is_for_words=task == "lm", where=where))
    known = all_places(names, config)
    return Contents(
        folder=folder,
        published=published,
        own=own,
        model_type=model_type,
        architecture=architecture,
        config=config,
        task=task or "encode",
        tensors={plain: held for plain, held in tensors.items() if is_needed(plain, names, known)},
        own_tensors=own_tensors,
        head=head,
        labels=_labels(published, own, outputs[0], where) if outputs else [],
        nested=nested is not None,
        has_other_head=bool(others) and task is None,
        notes=tuple(notes),
    )


def _contents_of_config(folder: Path) -> Contents:
    """The contents that config.json describes. Raises UserError if it is damaged."""
    where, published = str(folder / "config.json"), read_json(folder / "config.json")
    nested = text_config(published, where)
    published = published if nested is None else nested
    model_type, architecture = architecture_of(published, where)
    own = own_section(published, where)
    task = _task(published, own, architecture, set()) or "encode"
    return Contents(
        folder=folder,
        published=published,
        own=own,
        model_type=model_type,
        architecture=architecture,
        config=read_config(published, where),
        task=task,
        tensors={},
        own_tensors={},
        head=from_plain(HeadConfig, own["head"], f"{where}: minilm.head") if "head" in own else None,
        labels=_label_names(published, own, USUAL_CLASSES, where) if task == "classify" else [],
        nested=nested is not None,
        has_weights=False,
    )


def _other_heads(
    weights: Sequence[Mapping[str, Entry]], config: BackboneConfig, names: Names, *, is_known: bool, is_part: bool
) -> set[str]:
    """The tensors of heads of unsupported tasks.

    If the checkpoint's task is not supported, these are all tensors outside the backbone, as the matrix of a token
    classifier has the same name as that of a text classifier. Otherwise there are none, except that the base of a
    trained part may have such a head.
    """
    beside = {name for held in weights for name in held if is_of_head(name, names)}
    if not is_known:
        return beside
    ours = [place for task in names.heads for place in rows_of(names, config, task)]
    return {name for name in beside if is_part and not places_of_theirs(plain_name(name, names), ours)}


def _by_name(pairs: Iterator[tuple[str, Entry]]) -> dict[str, list[Entry]]:
    table: dict[str, list[Entry]] = {}
    for name, entry in pairs:
        table.setdefault(name, []).append(entry)
    return table


# The suffixes of the names of published classes.
TASK_OF_CLASS = {
    "ForSequenceClassification": "classify",
    "LMHeadModel": "lm",
    "ForCausalLM": "lm",
    "ForMaskedLM": "lm",
    "ForPreTraining": "lm",
    "ForConditionalGeneration": "lm",
}


def _task(
    published: dict[str, Any], own: dict[str, Any], architecture: Architecture[Any], stored: set[str]
) -> str | None:
    """The task of a checkpoint, from its published class and the plain names of its tensors; None for an unsupported
    task, such as token classification."""
    name = class_of(published)
    if "head" in own:
        return "classify"
    if not name or name == architecture.classes["encode"]:
        return "encode"
    task = next((task for end, task in TASK_OF_CLASS.items() if name.endswith(end)), None)
    if name.endswith("ForPreTraining"):  # BERT's includes a language head, but not ELECTRA's discriminator
        heads = (row.theirs for row in architecture.names.heads["lm"])
        return task if any(tensor.startswith(f"{head}.") for head in heads for tensor in stored) else None
    return task


def _is_tied(
    tensors: dict[str, list[Entry]], config: BackboneConfig, names: Names, *, is_for_words: bool, where: str
) -> bool:
    """Whether the language head is tied: it is not stored, or it is a copy of the token table."""
    places = rows_of(names, config, "lm")
    held = {ours: tensors.get(places_of_ours(ours, places)[0].theirs, []) for ours in (TOKENS, HEAD)}
    if held[HEAD] and held[TOKENS]:
        table, head = held[TOKENS][0], held[HEAD][0]
        return table.shape == head.shape and equal(table, head, block=1 << 20)
    if is_for_words and not config.tied:
        log.warning("%s: the language head is not tied, but not stored; the token embedding is used instead", where)
    return is_for_words or bool(config.tied)


def _labels(published: dict[str, Any], own: dict[str, Any], output: Entry, where: str) -> list[str]:
    """The names of the classes, one per row of the head's last matrix; "LABEL_0", ... if ``config.json`` has none."""
    classes = output.shape[0] if output.shape else 0
    labels = _label_names(published, own, classes, where)
    if len(labels) != classes:
        rows = f"the rows of {output.name} in {output.file}"
        raise UserError(f"{where}: {cut(labels)} must name {classes} labels, as many as {rows}")
    return labels


def _label_names(published: dict[str, Any], own: dict[str, Any], classes: int, where: str) -> list[str]:
    """The names of the classes in ``config.json``; if it has none, "LABEL_0", ..., so many."""
    labels = own.get("labels")
    if labels is None:
        by_number = published.get("id2label")
        by_number = {f"{i}": f"LABEL_{i}" for i in range(classes)} if by_number is None else by_number
        if not isinstance(by_number, dict) or set(by_number) != {str(i) for i in range(len(by_number))}:
            raise UserError(f"{where}: id2label must number the classes from 0 without gaps")
        labels = [by_number[str(i)] for i in range(len(by_number))]
    if not isinstance(labels, list):
        raise UserError(f"{where}: minilm.labels must be a list of names, got {cut(labels)}")
    return [str(label) for label in labels]
