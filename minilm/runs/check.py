"""What can be known of a run before it starts: whether it would fail, and how large its model is."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from minilm import hub
from minilm.checkpoints.opening import load_model
from minilm.config import RunConfig
from minilm.data.augmentation import wordnet
from minilm.errors import UserError
from minilm.reporting.summary import parameter_counts
from minilm.runs.adapt import make_lesson
from minilm.runs.assembly import Material, find_checkpoint, make_model, prepare


class ModelSize(NamedTuple):
    """Parameters of a run's model."""

    total: int
    trained: int


def check_run(config: RunConfig, where: str, pool: int = 0) -> ModelSize:
    """Do what a run does before it trains, without memory for a model and without augmentation: find and read the data,
    tokenize them, build the model on torch's "meta" device, and pack the texts to adapt to.

    pool: how many training rows there must be at least. Data and models that are not on this machine are downloaded.
    Raises UserError if the run would fail.
    """
    if config.augment is not None:
        _check_augmentation(config, where)
    material = prepare(replace(config, augment=None), where)
    if pool > len(material.train):
        raise UserError(f"{where}: the pool has {len(material.train):,} rows, but {pool:,} of them are to be labelled")
    if config.adapt is not None:
        make_lesson(config, material, where)
    return _size_of(config, material, where)


def _size_of(config: RunConfig, material: Material, where: str) -> ModelSize:
    if config.train is not None:
        tokens = material.tokenizer.get_vocab_size()
        return ModelSize(*parameter_counts(make_model(config, material.data.label_names, tokens, where, "meta")))
    similarity = config.zero_shot is not None and config.zero_shot.way == "similarity"
    model = load_model(find_checkpoint(config, where), "encode" if similarity else "lm", device="meta")
    total, _ = parameter_counts(model)
    return ModelSize(total, 0 if config.zero_shot else total)


def _check_augmentation(config: RunConfig, where: str) -> None:
    """Raise UserError if the method lacks the model or the word list that it needs."""
    assert config.augment is not None
    try:
        if config.augment.model:
            hub.resolve_model(config.augment.model)
        if config.augment.method == "synonyms":
            wordnet()
    except UserError as error:
        raise UserError(f"{where}: [augment]: {error}") from None
