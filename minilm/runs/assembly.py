"""What a run is made of: data, tokens, model and task, as its config says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from minilm import hub
from minilm.checkpoints.adapters import is_adapter
from minilm.checkpoints.configs import new_config
from minilm.checkpoints.contents import read_contents
from minilm.checkpoints.models import card_of, load_parts, new_model, warn_of
from minilm.config import DataSection, RunConfig, TrainSection
from minilm.connection import Unreachable
from minilm.data.batching import collate, make_batches
from minilm.data.locations import complete, find_source
from minilm.data.sources import Dataset, Rows, load_dataset
from minilm.data.splits import keep_rows, strata_of
from minilm.data.tokenization import Encoded, encode, load_tokenizer, pad_id, separate_pairs, train_bpe
from minilm.devices import Execution
from minilm.errors import UserError, nearest
from minilm.evaluation.metrics import check_metric
from minilm.evaluation.predictor import Forward, Reading, predict_scores
from minilm.finetuning.freezing import freeze, reads_pooler
from minilm.finetuning.lora import LoRAConfig, add_lora
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Architecture, Backbone
from minilm.models.heads import ClassificationHead, HeadConfig, mlp_head
from minilm.runs.augment import augmented
from minilm.runs.folders import write_history
from minilm.runs.results import brief, decide, measure
from minilm.runs.sharing import hash_of_rows, once
from minilm.training.frozen_prefix import FrozenPrefix
from minilm.training.loop import Task
from minilm.training.objectives import Objective, balanced_weights
from minilm.training.optimizer import check_warmup

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Material:
    """What a run trains and is measured on."""

    data: Dataset
    train: Rows  # the data's, and those that [augment] made of them
    tokenizer: Tokenizer
    encoded: dict[str, Encoded]  # of each split

    @property
    def added(self) -> int:
        """How many training rows are not the data's."""
        return len(self.train) - len(self.data.train)

    def rows(self, split: str) -> Rows:
        """The texts and labels of a split, as they are trained or measured on."""
        rows: Rows = self.train if split == "train" else getattr(self.data, split)
        return rows

    def size(self, split: str) -> str:
        """How many texts of the data a split has, and of how many, where a part was taken: "2,400 of 4,000"."""
        size = len(getattr(self.data, split))
        return f"{size:,}" + (f" of {self.data.whole[split]:,}" if size < self.data.whole[split] else "")


def prepare(config: RunConfig, where: str) -> Material:
    """Load the data, add to the training rows, find or train the tokenizer, and encode every text once.

    Raises UserError where data and config do not go together; ``where`` names the config.
    """
    find_all(config, where)
    data = once("data", lambda: _files_of(config.data, where), lambda: load_dataset(config.data, where))
    if config.train is not None:
        _check_objective(config.train, data, where)
    train = augmented(config, data, where)
    tokenizer, limit = _tokenizer(config, train, where), complete(config.data).max_tokens

    def tokens(rows: Rows) -> Encoded:
        return once(
            "tokens",
            lambda: (hash_of_rows(rows), tokenizer.to_str(), limit),
            lambda: encode(tokenizer, rows.texts, rows.pairs, limit),
        )

    splits = zip(SPLITS, (train, data.validation, data.test), strict=True)
    encoded = {split: tokens(rows) for split, rows in splits}
    if config.train is not None:
        batches = make_batches(encoded["train"].lengths, config.train.batch_size, seed=config.seed, epoch=0)
        check_warmup(config.train, len(batches), f"{where}: train.warmup")
    return Material(data, train, tokenizer, encoded)


def _files_of(section: DataSection, where: str) -> tuple[object, ...]:
    """What a data set depends on: its settings, and its files as they are now."""
    files = [*find_source(section, f"{where}: ").files.values(), *([Path(section.rows)] if section.rows else [])]
    return repr(section), *((path, path.stat().st_mtime_ns) for path in files if path.is_file())


def _tokenizer(config: RunConfig, train: Rows, where: str) -> Tokenizer:
    """The one that the config names, the checkpoint's own, or one that is trained on the training texts."""
    source = config.tokenizer.source
    if source == "bpe":
        return train_bpe(train.texts + (train.pairs or []), config.tokenizer.vocab_size)
    tokenizer = load_tokenizer(source) if source else load_tokenizer(config.model.source, config.model.revision)
    if source and config.model.source:
        _check_tokens(tokenizer, config, where)
    if train.pairs is not None:
        separate_pairs(tokenizer)
    return tokenizer


def _check_tokens(tokenizer: Tokenizer, config: RunConfig, where: str) -> None:
    """Raises UserError where the checkpoint learned other tokens; that it has more or fewer does no harm."""
    folder = find_checkpoint(config, where)
    try:
        own = load_tokenizer(folder)
    except UserError:
        return  # it brings none to compare with
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if own.id_to_token(number) not in (None, token):
            raise UserError(
                f'{where}: tokenizer.source: token {number} is "{token}" in {config.tokenizer.source}, but '
                f'"{own.id_to_token(number)}" to the checkpoint {folder}; leave it out to take the checkpoint\'s own'
            )


def _check_objective(train: TrainSection, data: Dataset, where: str) -> None:
    """Raises UserError where the metric, the weights or the threshold do not go with the labels."""
    check_metric(train.best, data.multi_label, key=f"{where}: train.best")
    weights, labels = train.class_weights, data.label_names
    if isinstance(weights, list) and len(weights) != len(labels):
        raise UserError(
            f"{where}: train.class_weights must hold one weight for each of the {len(labels)} labels "
            f"({', '.join(labels)}), got {len(weights)}"
        )
    if train.decision != 0.5 and not data.multi_label:
        raise UserError(f"{where}: train.decision is for data with several labels a text (data.label_columns)")


def make_model(
    config: RunConfig,
    labels: list[str],
    vocab_size: int,
    where: str,
    device: torch.device | str = "cpu",
    *,
    precision: str = "float32",
    source: Path | None = None,
) -> Backbone:
    """The model to train: a checkpoint with a new head, or one from scratch, drawn from torch's random state.

    Args:
        config: of the run.
        labels: of the head.
        vocab_size: the tokenizer's.
        where: what to call the config in messages.
        device: where a checkpoint's weights go.
        precision: in "bfloat16", frozen weights stay in it where the checkpoint has them so; what trains is float32.
        source: the checkpoint to start from instead of the config's, one that was made from it.

    Raises:
        UserError: model, tokenizer and config do not go together.
    """
    if config.model.source:
        folder = source or find_checkpoint(config, where)
        model = _from_checkpoint(config, folder, labels, where, device, precision)
    else:
        model = _from_scratch(config, labels, vocab_size, where, device)
    _check_reading(config, model, vocab_size, where)
    data, card = complete(config.data), card_of(model)
    kind = "multi" if data.label_columns else "single"
    card.published["problem_type"] = f"{kind}_label_classification"
    precision = config.train.precision if config.train else "float32"
    card.extra |= asdict(Reading(data.max_tokens, data.clean, pairs=bool(data.text_pair), precision=precision))
    return model


def fresh_model(
    config: RunConfig, material: Material, run_on: Execution, where: str, source: Path | None = None
) -> Backbone:
    """The classifier before training, on its device, the same for the same seed."""
    torch.manual_seed(config.seed)
    vocabulary, device = material.tokenizer.get_vocab_size(), run_on.device if config.model.source else "cpu"
    labels = material.data.label_names
    model = make_model(config, labels, vocabulary, where, device, precision=run_on.precision, source=source)
    return model.to(run_on.device)


def check_classifier(config: RunConfig, material: Material, where: str) -> None:
    """See that a classifier can be made of the checkpoint, without memory for one. Raises UserError where it cannot."""
    make_model(config, material.data.label_names, material.tokenizer.get_vocab_size(), where, "meta")


def find_all(config: RunConfig, where: str) -> None:
    """See that model and data are on this machine, or fetch them, before a text is read.

    Raises UserError where they cannot be had; what the Hub would have to give is told all at once.
    """
    missing: dict[str, Unreachable] = {}
    finders: dict[str, Callable[[], object]] = {"data": lambda: find_source(config.data, f"{where}: ")}
    if config.model.source:
        finders = {"model": lambda: find_checkpoint(config, where)} | finders
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
        raise UserError("\n".join([f"the Hub cannot be reached ({why}), and two things are not here:", *lines]))


def find_checkpoint(config: RunConfig, where: str) -> Path:
    """The folder of ``model.source``. Raises UserError where it is no whole model's."""
    folder = hub.resolve_model(config.model.source, config.model.revision)
    if (folder / "config.toml").is_file():
        raise UserError(f"{where}: model.source: {folder} is a run; name the model in it, such as {folder / 'model'}")
    if is_adapter(folder):
        export = f"minilm export {folder} FOLDER --merge"
        raise UserError(f"{where}: model.source: {folder} is an adapter; merge it with its base first: {export}")
    return folder


def _from_checkpoint(
    config: RunConfig, folder: Path, labels: list[str], where: str, device: torch.device | str, precision: str
) -> Backbone:
    dtype = None if precision == "bfloat16" else torch.float32
    stored = read_contents(folder)
    head = _head(config, stored.architecture, stored.config)
    try:
        model, untrained = load_parts(folder, "classify", labels=labels, head=head, dtype=dtype, device=device)
        if head is None and card_of(model).own_head:
            raise UserError(f'model.head.kind is "family", but {folder} has a head of the kind "mlp"; choose that')
        if config.train:  # else it is only the measure of what is known without training
            warn_of(untrained, model)
        choose_trained(model, config, untrained)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return model


def _from_scratch(
    config: RunConfig, labels: list[str], vocab_size: int, where: str, device: torch.device | str
) -> Backbone:
    name = config.model.architecture
    if name not in ARCHITECTURES:
        hint, known = nearest(name, ARCHITECTURES), ", ".join(sorted(ARCHITECTURES))
        raise UserError(f'{where}: model.architecture "{name}" is not one of ours{hint}: {known}')
    settings = {"vocab_size": vocab_size, **config.model.config}
    model_config = new_config(name, settings, f"{where}: [model.config]")
    with torch.device(device):
        head = _head(config, ARCHITECTURES[name], model_config)
        return new_model(name, model_config, "classify", labels=labels, head=head)


def _check_reading(config: RunConfig, model: Backbone, vocab_size: int, where: str) -> None:
    """Raises UserError where the model cannot read the tokens that it is given."""
    embedded = model.get_parameter("embeddings.token.weight").shape[0]
    # A checkpoint's own tokenizer may have more tokens than the checkpoint: its makers know that they never occur.
    if config.tokenizer.source and embedded < vocab_size:
        raise UserError(
            f"{where}: the tokenizer has {vocab_size:,} tokens, the model only {embedded:,} (model.config.vocab_size)"
        )
    causal = ARCHITECTURES[card_of(model).model_type].language_modeling == "causal"
    if causal and isinstance(model.head, ClassificationHead) and model.head.config.pooling == "cls":
        raise UserError(
            f'{where}: model.head.pooling = "cls" reads the first token, which in this model sees no other; choose '
            '"last" or "mean"'
        )
    tokens, context = complete(config.data).max_tokens, model.context
    if 0 < context < tokens:
        raise UserError(f"{where}: data.max_tokens is {tokens}, but the model reads at most {context} tokens; lower it")


def choose_trained(model: Backbone, config: RunConfig, untrained: Sequence[str]) -> None:
    """Freeze and adapt the model as the config says, in place; what trains is float32 from now on.

    ``untrained``: the parameters that the checkpoint does not have. A pooler among them trains with the head that reads
    it, whatever is frozen: it knows nothing yet.
    """
    lora = config.lora
    if lora.rank:
        settings = LoRAConfig(
            lora.rank, lora.alpha, lora.dropout, tuple(lora.targets), lora.rank_stabilized, tuple(lora.layers)
        )
        add_lora(model, settings)
    else:
        freeze(model, config.freeze.part, config.freeze.layers)
    for name in untrained:
        if name.startswith("pooler.") and reads_pooler(model):
            model.get_parameter(name).requires_grad_(True)
    for parameter in model.parameters():
        if parameter.requires_grad or parameter.dtype == torch.float16:
            parameter.data = parameter.data.float()


def _head(config: RunConfig, architecture: Architecture, model_config: Any) -> HeadConfig | None:
    """Our head as the config wants it, by default on the vector that the family's own reads; None: the family's own."""
    head = config.model.head
    if head.kind == "family":
        return None
    usual = architecture.classification_head(model_config).pooling
    return mlp_head(
        model_config.width,
        hidden=head.hidden,
        # Our head has a hidden layer itself, in the place of a pooler's.
        pooling=head.pooling or ("cls" if usual == "pooler" else usual),
        norm=head.norm,
        activation=head.activation,
        dropout=head.dropout,
    )


def make_task(
    config: RunConfig,
    settings: TrainSection,
    material: Material,
    model: Backbone,
    run_on: Execution,
    folder: Path,
    prefix: FrozenPrefix,
) -> Task:
    """The batches, the objective and the measuring of a run; ``folder`` is where evaluations are recorded."""
    train, validation = material.train, material.data.validation
    texts, pad = material.encoded["train"], pad_id(material.tokenizer)
    forward = {split: prefix.forward(split, model) for split in ("train", "validation")}
    # As many training texts as validation has tell whether the two drift apart; all would take longer than training.
    sample = keep_rows(strata_of(train.labels), min(len(train), len(validation)), config.seed)
    watched: dict[str, tuple[Encoded, np.ndarray, Forward]] = {
        "train": (texts.take(sample), train.labels[sample], lambda batch, rows: forward["train"](batch, sample[rows])),
        "validation": (material.encoded["validation"], validation.labels, forward["validation"]),
    }

    def evaluate() -> dict[str, dict[str, Any]]:
        scores = {
            split: predict_scores(model, encoded, run_on, pad=pad, forward=how)
            for split, (encoded, _, how) in watched.items()
        }
        # Chosen anew each time: while rare labels are still unlikely, none would be given at 0.5, however well the
        # model ranks them, and no checkpoint would look better than the first.
        threshold = decide(settings, validation.labels, scores["validation"])
        return {split: brief(measure(labels, scores[split], threshold)) for split, (_, labels, _) in watched.items()}

    return Task(
        batches=lambda epoch: make_batches(
            texts.lengths, settings.batch_size, seed=config.seed, epoch=epoch, by_length=settings.by_length
        ),
        collate=lambda rows, epoch: collate(texts, rows, train.labels, pad, limit=model.context),
        objective=Objective(_class_weights(settings, material), settings.label_smoothing, material.data.multi_label),
        evaluate=evaluate,
        record=lambda history: write_history(folder, history),
        forward=forward["train"],
        seconds=prefix.seconds,
    )


def _class_weights(settings: TrainSection, material: Material) -> torch.Tensor | None:
    if settings.class_weights == "balanced":
        return balanced_weights(material.train.labels, len(material.data.label_names))
    return torch.tensor(settings.class_weights) if settings.class_weights else None
