"""Prepare a run from its config: data, tokens and model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from minilm import hub
from minilm.checkpoints.configs import new_config
from minilm.checkpoints.contents import read_contents
from minilm.checkpoints.merged import find_whole
from minilm.checkpoints.models import card_of, load_parts, new_model, warn_of
from minilm.checkpoints.sentence_models import SentenceModel
from minilm.config import (
    SPLITS,
    BPETokenizerSection,
    DataSection,
    FreezeAllButLast,
    FreezeFirst,
    RunConfig,
    TrainSection,
)
from minilm.connection import Unreachable
from minilm.data.batching import make_batches
from minilm.data.checks import named
from minilm.data.locations import find_source
from minilm.data.long_texts import LongTexts
from minilm.data.rows import Rows
from minilm.data.sources import Dataset, load_dataset
from minilm.data.tokenization import Encoded, encode, load_tokenizer, separate_pairs, train_bpe
from minilm.data.unlabelled import load_unlabelled
from minilm.devices import Runtime
from minilm.errors import UserError, nearest
from minilm.evaluation.decisions import threshold_asked_for
from minilm.evaluation.metrics import check_metric
from minilm.evaluation.ranking import has_pairs
from minilm.evaluation.reading import Reading
from minilm.finetuning.freezing import freeze, reads_pooler
from minilm.finetuning.lora import LoRAConfig, add_lora
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Backbone
from minilm.models.heads import ClassificationHead
from minilm.runs.augment import augmented
from minilm.runs.heads import new_head, warn_of_pooling
from minilm.runs.shared_cache import hash_of_rows, memoize
from minilm.training.optimizer import check_warmup, with_least_steps
from minilm.training.sharding import is_sharding


@dataclass(frozen=True)
class PreparedData:
    """The data of a run, with the rows that [augment] adds, as texts and as tokens."""

    data: Dataset
    train: Rows  # the data's training rows, and those that [augment] made from them
    tokenizer: Tokenizer
    encoded: dict[str, Encoded]  # of each split
    settings: TrainSection | None  # [train], with as many epochs as ``min_steps`` needs

    @property
    def added(self) -> int:
        """The number of training rows that [augment] made."""
        return len(self.train) - len(self.data.train)

    def rows(self, split: str) -> Rows:
        """The texts and labels of a split, as they are used in training and evaluation."""
        rows: Rows = self.train if split == "train" else getattr(self.data, split)
        return rows

    def size(self, split: str) -> str:
        """The number of texts in a split, and if only a part is used, the number of all: "2,400 of 4,000"."""
        size = len(getattr(self.data, split))
        return f"{size:,}" + (f" of {self.data.whole[split]:,}" if size < self.data.whole[split] else "")


def prepare(config: RunConfig) -> PreparedData:
    """Load the data, augment the training rows, load or train the tokenizer, and encode every text once.

    Raises UserError if data and config do not match.
    """
    find_all(config)
    load = load_dataset if config.data.labelled else load_unlabelled
    data = memoize("data", lambda: _files_of(config.data), lambda: load(config.data))
    settings = config.train
    if settings is not None:
        _check_objective(settings, data)
    train = augmented(config, data)
    tokenizer = _tokenizer(config, train)

    def tokens(rows: Rows) -> Encoded:
        return memoize(
            "tokens",
            lambda: (hash_of_rows(rows), tokenizer.to_str(), config.data.max_tokens, repr(long_texts_of(config))),
            lambda: encode(tokenizer, rows.texts, rows.pairs, config.data.max_tokens, long_texts_of(config)),
        )

    splits = zip(SPLITS, (train, data.validation, data.test), strict=True)
    encoded = {split: tokens(rows) for split, rows in splits}
    if settings is not None:
        batches = make_batches(encoded["train"].lengths, settings.batch_size, seed=config.seed, epoch=0)
        settings = with_least_steps(settings, len(batches))
        check_warmup(settings, len(batches), "train.warmup")
    return PreparedData(data, train, tokenizer, encoded, settings)


def long_texts_of(config: RunConfig) -> LongTexts:
    """How to handle texts that are too long."""
    return LongTexts(config.data.long_texts, config.data.window_stride, config.data.window_scores)


def encoded_as(config: RunConfig, prepared: PreparedData, how: SentenceModel) -> dict[str, Encoded]:
    """The tokens of each split with the prompt of a sentence model."""
    if not how.prompt and not how.lowercase:
        return prepared.encoded
    limit, long = config.data.max_tokens, long_texts_of(config)
    rows = {split: prepared.rows(split) for split in prepared.encoded}
    return {
        split: encode(prepared.tokenizer, how.prompted(of.texts), of.pairs, limit, long) for split, of in rows.items()
    }


def _files_of(section: DataSection) -> tuple[object, ...]:
    """A key of a data set: its settings, and its files with their times."""
    of_splits = (file for split in find_source(section).files.values() for file in split)
    files = [*of_splits, *([Path(section.rows)] if section.rows else [])]
    return repr(section), *((path, path.stat().st_mtime_ns) for path in files if path.is_file())


def _tokenizer(config: RunConfig, train: Rows) -> Tokenizer:
    """The tokenizer that the config names, the checkpoint's own, or a BPE trained on the training texts."""
    if isinstance(config.tokenizer, BPETokenizerSection):
        return train_bpe(train.texts + (train.pairs or []), config.tokenizer.vocab_size)
    source = config.tokenizer.source
    tokenizer = load_tokenizer(source) if source else load_tokenizer(find_checkpoint(config))
    if source and config.model.source:
        _check_tokens(tokenizer, config)
    if train.pairs is not None:
        separate_pairs(tokenizer)
    return tokenizer


def _check_tokens(tokenizer: Tokenizer, config: RunConfig) -> None:
    """Raise UserError if a token has another id in the checkpoint. The number of tokens may differ."""
    folder = find_checkpoint(config)
    try:
        own = load_tokenizer(folder)
    except UserError:
        return  # the checkpoint has no tokenizer to compare with
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if own.id_to_token(number) not in (None, token):
            raise UserError(
                f'tokenizer.source: token {number} is "{token}" in {config.tokenizer.source}, but '
                f'"{own.id_to_token(number)}" in the checkpoint {folder}; remove it to use the checkpoint\'s tokenizer'
            )


def _check_objective(train: TrainSection, data: Dataset) -> None:
    """Raise UserError if the metric, the class weights or the threshold do not match the labels."""
    check_metric(train.best, data.multi_label, key="train.best")
    if train.best == "roc_auc" and not has_pairs(data.validation.labels):
        raise UserError("train.best = roc_auc needs validation texts with and without a label; choose another metric")
    weights, labels = train.class_weights, data.label_names
    for name in weights if isinstance(weights, dict) else ():
        if name not in labels:
            raise UserError(f'train.class_weights: no label "{name}"{nearest(name, labels)}; labels: {named(labels)}')
    if isinstance(weights, list) and len(weights) != len(labels):
        raise UserError(
            f"train.class_weights must contain one weight for each of the {len(labels)} labels "
            f"({', '.join(labels)}), got {len(weights)}"
        )
    key, wanted = "train.decision_threshold", threshold_asked_for(train, data.multi_label)
    if wanted != 0.5 and not data.multi_label and len(labels) != 2:
        raise UserError(f"{key} needs data with several labels per text or two classes; these have {len(labels)}")
    if wanted == "validation" and not data.multi_label:
        raise UserError(f'with two classes, {key} must be a number or "validation-per-label"')


def make_model(
    config: RunConfig,
    labels: list[str],
    vocab_size: int,
    device: torch.device | str = "cpu",
    *,
    precision: str = "float32",
    source: Path | None = None,
) -> Backbone:
    """Make the model to train: a checkpoint with a new head, or a new model, initialized from torch's random state.

    Args:
        config: the run's config.
        labels: the classes of the head.
        vocab_size: the size of the tokenizer.
        device: for a checkpoint's weights.
        precision: with "bfloat16", frozen weights that the checkpoint stores in bfloat16 keep this dtype; parameters
            that train are float32.
        source: the checkpoint to start from instead of the config's, such as an adapted one.

    Raises:
        UserError: model, tokenizer and config do not match.
    """
    if config.model.source:
        folder = source or find_checkpoint(config)
        model = _from_checkpoint(config, folder, labels, device, precision)
    else:
        model = _from_scratch(config, labels, vocab_size, device)
    _check_reading(config, model, vocab_size)
    _describe_reading(config, model)
    return model


def _describe_reading(config: RunConfig, model: Backbone) -> None:
    """Record in the model's card how it reads texts, and what its scores mean."""
    data, card = config.data, card_of(model)
    kind = "multi" if data.multi_label else "single"
    card.published["problem_type"] = f"{kind}_label_classification"
    precision = config.train.precision if config.train else "float32"
    card.extra |= asdict(
        Reading(
            data.max_tokens, data.clean, pairs=bool(data.text_pair), precision=precision,
            long_texts=data.long_texts, window_stride=data.window_stride, window_scores=data.window_scores,
        )
    )  # fmt: skip


def fresh_model(
    config: RunConfig, prepared: PreparedData, runtime: Runtime, source: Path | None = None
) -> Backbone:
    """The classifier before training, on its device; equal seeds give equal models."""
    torch.manual_seed(config.seed)
    sharding = config.train is not None and is_sharding(config.train.shard)  # then parts of it go to the device later
    target = torch.device("cpu") if sharding else runtime.device
    vocabulary, device = prepared.tokenizer.get_vocab_size(), target if config.model.source else "cpu"
    labels = prepared.data.label_names
    model = make_model(config, labels, vocabulary, device, precision=runtime.precision, source=source)
    return model.to(target)


def check_classifier(config: RunConfig, prepared: PreparedData) -> None:
    """Build the classifier on the device "meta", without memory. Raises UserError if it cannot be built."""
    make_model(config, prepared.data.label_names, prepared.tokenizer.get_vocab_size(), "meta")


def find_all(config: RunConfig) -> None:
    """Find the model and the data on this machine, or download them, before texts are read.

    Raises UserError if they are not available; the message lists everything that must be downloaded.
    """
    missing: dict[str, Unreachable] = {}
    finders: dict[str, Callable[[], object]] = {"data": lambda: find_source(config.data)}
    if config.model.source:
        finders = {"model": lambda: find_checkpoint(config)} | finders
    for kind, find in finders.items():
        try:
            find()
        except Unreachable as error:
            missing[kind] = error
    if len(missing) == 1:
        raise next(iter(missing.values()))
    if missing:
        lines = [f"{kind} {error.who}: {error.without}" for kind, error in missing.items()]
        why = missing["model"].why
        raise UserError(f"the Hub cannot be reached ({why}), and two things are not on this machine:", *lines)


def find_checkpoint(config: RunConfig) -> Path:
    """The folder of ``model.source``; for an adapter, of the whole model after merging. Raises UserError as
    ``find_whole`` does."""
    folder = hub.resolve_model(config.model.source, config.model.revision)
    if (folder / "config.toml").is_file():
        raise UserError(f"model.source: {folder} is a run's folder; give its model, such as {folder / 'model'}")
    return find_whole(config.model.source, config.model.revision, config.model.base)


def _from_checkpoint(
    config: RunConfig, folder: Path, labels: list[str], device: torch.device | str, precision: str
) -> Backbone:
    dtype = None if precision == "bfloat16" else torch.float32
    stored = read_contents(folder, weights=torch.device(device).type != "meta")
    # A sentence model's pooling is also used if ``folder`` was adapted from it.
    head = new_head(config.model.head, stored.architecture, stored.config, find_checkpoint(config))
    model, untrained = load_parts(folder, "classify", labels=labels, head=head, dtype=dtype, device=device)
    if head is None and card_of(model).own_head:
        raise UserError(f'model.head.kind is "family", but {folder} has an MLP head; set model.head.kind = "mlp"')
    if config.train:  # zero-shot runs use an untrained head on purpose
        warn_of(untrained, model)
        warn_of_pooling(config.model.head, model, find_checkpoint(config))
    choose_trained(model, config, untrained)
    return model


def _from_scratch(
    config: RunConfig, labels: list[str], vocab_size: int, device: torch.device | str
) -> Backbone:
    name = config.model.architecture
    if name not in ARCHITECTURES:
        hint, known = nearest(name, ARCHITECTURES), ", ".join(sorted(ARCHITECTURES))
        raise UserError(f'model.architecture "{name}" is not supported{hint}; use one of {known}')
    settings = {"vocab_size": vocab_size, **config.model.config}
    model_config = new_config(name, settings, "[model.config]")
    with torch.device(device):
        head = new_head(config.model.head, ARCHITECTURES[name], model_config)
        return new_model(name, model_config, "classify", labels=labels, head=head)


def _check_reading(config: RunConfig, model: Backbone, vocab_size: int) -> None:
    """Raise UserError if the model cannot read the tokenizer's tokens, or texts of this length."""
    embedded = model.get_parameter("embeddings.token.weight").shape[0]
    # A checkpoint's own tokenizer may have more tokens than the model; these never occur.
    if config.tokenizer.source and embedded < vocab_size:
        raise UserError(
            f"the tokenizer has {vocab_size:,} tokens, but the model only {embedded:,} (model.config.vocab_size)"
        )
    if model.is_causal and isinstance(model.head, ClassificationHead) and model.head.config.pooling == "cls":
        raise UserError(
            'model.head.pooling = "cls" uses the first token, which in this model attends to no other token; use '
            '"last" or "mean"'
        )
    tokens, context = config.data.max_tokens, model.context
    if 0 < context < tokens:
        raise UserError(f"data.max_tokens is {tokens}, but the model reads at most {context} tokens; lower it")


def choose_trained(model: Backbone, config: RunConfig, untrained: Sequence[str]) -> None:
    """Freeze the model and add adapters as the config describes, in place; parameters that train become float32.

    ``untrained``: the parameters that the checkpoint does not have. If they include the pooler, it trains together with
    the head, even if the backbone is frozen, as its weights are random.
    """
    if lora := config.adapters:
        targets, layers = tuple(lora.targets), tuple(lora.layers)
        settings = LoRAConfig(lora.rank, lora.alpha, lora.dropout, targets, lora.rank_stabilized, layers, lora.dora)
        add_lora(model, settings)
    else:
        number = config.freeze.layers if isinstance(config.freeze, FreezeFirst | FreezeAllButLast) else 0
        freeze(model, config.freeze.part, number)
    for name in untrained:
        if name.startswith("pooler.") and reads_pooler(model):
            model.get_parameter(name).requires_grad_(True)
    for parameter in model.parameters():
        if parameter.requires_grad or parameter.dtype == torch.float16:
            parameter.data = parameter.data.float()
