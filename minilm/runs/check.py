"""Check a run before it starts: whether it would fail, and how large its model is."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from minilm import hub
from minilm.checkpoints.opening import load_model
from minilm.config import AugmentSection, EditWordsSection, RunConfig
from minilm.data.augmentation import wordnet
from minilm.errors import UserError, located
from minilm.reporting.summary import parameter_counts
from minilm.runs.adapt import prepare_adaptation
from minilm.runs.assembly import PreparedData, find_checkpoint, make_model, prepare


class ModelSize(NamedTuple):
    """The numbers of parameters of a run's model."""

    total: int
    trained: int


def check_run(config: RunConfig, pool: int = 0) -> ModelSize:
    """Do the steps of a run before training, without memory for a model and without augmentation: find and read the
    data, tokenize them, build the model on torch's "meta" device, and pack the texts for adaptation.

    pool: the least number of training rows. Data and models that are not on this machine are downloaded. Raises
    UserError if the run would fail.
    """
    if config.augment is not None:
        with located("[augment]"):
            _check_augmentation(config.augment)
    prepared = prepare(replace(config, augment=None))
    if pool > len(prepared.train):
        raise UserError(f"the pool has {len(prepared.train):,} rows, but the study would label {pool:,}")
    if config.adapt is not None:
        prepare_adaptation(config, prepared)
    return _size_of(config, prepared)


def _size_of(config: RunConfig, prepared: PreparedData) -> ModelSize:
    if config.train is not None:
        tokens = prepared.tokenizer.get_vocab_size()
        return ModelSize(*parameter_counts(make_model(config, prepared.data.label_names, tokens, "meta")))
    tasks = {"similarity": "encode", "entailment": "classify"}
    task = "lm" if config.zero_shot is None else tasks.get(config.zero_shot.method, "lm")
    total, _ = parameter_counts(load_model(find_checkpoint(config), task, device="meta"))
    return ModelSize(total, 0 if config.zero_shot else total)


def _check_augmentation(section: AugmentSection) -> None:
    """Raise UserError if the method lacks the model or the word list that it needs."""
    if not isinstance(section, EditWordsSection):
        hub.resolve_model(section.model)
    elif section.method == "synonyms":
        wordnet()
