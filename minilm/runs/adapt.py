"""Domain adaptation: continue the pretraining of a checkpoint with new texts before it is fine-tuned.

Gururangan et al. 2020, "Don't Stop Pretraining". The texts need no labels. The task is that of the checkpoint's
pretraining (``minilm.data.masking``): predicting masked words, removed spans, or the next tokens. The perplexity on the
validation texts, before and after, measures the effect. The result is a checkpoint from which a classifier can start.

    RUN/adapted/      the language model, whole, with its tokenizer
    RUN/adaptation/   metrics.jsonl  results.json; checkpoints/ while it trains
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from minilm import hub
from minilm.checkpoints.contents import Contents, read_contents
from minilm.checkpoints.files import write_json
from minilm.checkpoints.models import load_model, load_parts, save_model, warn_of, with_pooler
from minilm.config import AdaptSection, RunConfig, TrainSection
from minilm.data.batching import make_batches
from minilm.data.cleaning import cleaner
from minilm.data.corpus import distinct, read_texts, texts_of
from minilm.data.masking import (
    FIXED,
    LEAST,
    Corruption,
    MaskedWords,
    NextTokens,
    Spans,
    corrupted_batch,
    pack,
    special_ids,
    with_ends,
    without_special,
    word_numbers,
)
from minilm.data.tokenization import Encoded, encode, pad_id
from minilm.devices import Runtime
from minilm.errors import UserError, located
from minilm.evaluation.metrics import Metrics
from minilm.models.architecture import Backbone, evaluation_mode
from minilm.models.batch import Batch
from minilm.reporting.results import Adaptation, Change, Evaluation, Parameters
from minilm.reporting.summary import parameter_counts
from minilm.runs.assembly import PreparedData, find_checkpoint
from minilm.runs.folders import Recorder, write_history
from minilm.schema import as_table
from minilm.training.console import Interrupted, say
from minilm.training.gradient_checkpointing import use_gradient_checkpointing
from minilm.training.loop import Task, labels_of, train
from minilm.training.objectives import LanguageObjective
from minilm.training.optimizer import check_warmup, with_least_steps
from minilm.training.sharding import is_sharding, open_whole, shard
from minilm.training.state import Checkpoints, Progress
from minilm.world import barrier, deal_out, from_first, is_first, sum_

UNCUT = 2**31 - 1  # tokens: texts are not cut


def adapt(
    config: RunConfig, data: AdaptationData, runtime: Runtime, folder: Path, record: Recorder = write_history
) -> Path:
    """Adapt the checkpoint, from the start or from the last checkpoint of an interrupted run; return its folder.

    If the folder already exists, it is returned. ``data`` is from ``prepare_adaptation``; ``folder`` is the run's;
    ``record`` writes the evaluations.

    Raises:
        UserError: the texts, the model and the config do not match.
        minilm.training.console.Interrupted: a signal stopped the adaptation; the next call resumes it.
    """
    adapted, place = folder / "adapted", folder / "adaptation"
    if from_first((adapted / "config.json").exists):  # this file is written last
        _drop_checkpoints(place)
        return adapted
    settings = data.settings
    stored = read_contents(find_checkpoint(config))
    device = torch.device("cpu") if is_sharding(settings.shard) else runtime.device

    def load() -> tuple[Backbone, list[str]]:
        torch.manual_seed(config.seed)
        return load_parts(stored.folder, "lm", dtype=torch.float32, device=device)

    model, untrained = load()
    warn_of(untrained, model)
    total, trained = parameter_counts(model)
    say(f"{folder}: adaptation to {data}; {trained:,} of {total:,} parameters train on {runtime}")
    if settings.gradient_checkpointing:
        use_gradient_checkpointing(model)
    if is_sharding(settings.shard):
        shard(model, runtime)
    before = perplexity(model, data, runtime, settings.batch_size)
    task = _make_task(data, model, settings, runtime, partial(record, place))
    try:
        progress = train(model, task, settings, runtime, Checkpoints(place / "checkpoints"))
    except Interrupted as signal:  # the user resumes the whole run, not only the adaptation
        raise Interrupted(signal.number, folder) from None
    task.record(progress.history)
    after = perplexity(model, data, runtime, settings.batch_size)
    new_head = any(name.startswith("head.") for name in untrained)
    results = _results(data, progress, Parameters(total, trained), new_head, before, after)
    write_json(place / "results.json", as_table(results))
    if is_first():
        if is_sharding(settings.shard):
            model = open_whole(lambda: load()[0], Checkpoints(place / "checkpoints").best)
        _add_pooler(model, stored, runtime)
        save_model(model, adapted)  # including the tokenizer's files
    _drop_checkpoints(place)
    barrier()
    say(f"{adapted}: perplexity on validation texts {before['perplexity']:.4g} before, {after['perplexity']:.4g} after")
    return adapted


def _drop_checkpoints(place: Path) -> None:
    """Remove the checkpoints, which are no longer needed."""
    if is_first():
        shutil.rmtree(place / "checkpoints", ignore_errors=True)


def _results(
    data: AdaptationData, progress: Progress, parameters: Parameters, new_head: bool, before: Metrics, after: Metrics
) -> Adaptation:
    """The texts, the training, and the perplexity before and after."""
    return Adaptation(
        parameters=parameters,
        new_head=new_head,
        objective=data.name,
        loss=Change(before["loss"], after["loss"]),
        perplexity=Change(before["perplexity"], after["perplexity"]),
        texts=data.texts,
        left_out=data.left_out,
        blocks=len(data.train.blocks),
        tokens=len(data.train.blocks.ids),
        held_out_tokens=len(data.validation.blocks.ids),
        seconds=progress.seconds,
        steps=progress.step,
        best_step=progress.best_step,
        stopped=progress.stopped,
    )


def _section_of(config: RunConfig) -> AdaptSection:
    """``[adapt]``, its best checkpoint chosen by the loss."""
    assert config.adapt is not None
    return replace(config.adapt, train=replace(config.adapt.train, best="loss"))


def _make_task(
    data: AdaptationData,
    model: Backbone,
    settings: TrainSection,
    runtime: Runtime,
    record: Callable[[list[Evaluation]], None],
) -> Task:
    """The batches, the objective and the evaluation; ``record`` writes the evaluations."""
    lengths = data.train.blocks.lengths
    return Task(
        batches=lambda epoch: make_batches(lengths, settings.batch_size, seed=data.seed, epoch=epoch),
        collate=lambda rows, epoch: data.batch("train", rows, epoch),
        objective=LanguageObjective(settings.label_smoothing),
        evaluate=lambda: {"validation": perplexity(model, data, runtime, settings.batch_size)},
        record=record,
    )


def _add_pooler(model: Backbone, stored: Contents, runtime: Runtime) -> None:
    """Add the checkpoint's pooler to a language model, for classifiers that start from it."""
    if stored.has("pooler"):
        model.pooler = load_model(stored.folder, "encode", dtype=torch.float32, device=runtime.device).pooler
        model.config = with_pooler(stored.model_type, model.config, True)


# --- Texts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pieces:
    """Texts that were joined and cut into blocks."""

    blocks: Encoded
    words: np.ndarray | None  # the word number of each token, to mask whole words


@dataclass(frozen=True)
class AdaptationData:
    """The texts for adaptation, and the task."""

    name: str  # of the task: "masked words", "spans" or "next tokens"
    corruption: Corruption
    train: Pieces
    validation: Pieces
    texts: int  # number of training texts
    left_out: int  # texts that were dropped: repeated ones, and those in the validation and test splits
    seed: int
    pad: int
    settings: TrainSection

    @property
    def fingerprint(self) -> str:
        """A hash of the training and validation tokens."""
        digest = hashlib.sha256()
        for pieces in (self.train, self.validation):
            digest.update(pieces.blocks.ids.tobytes() + pieces.blocks.offsets.tobytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        blocks = self.train.blocks
        return f"{self.texts:,} texts, {len(blocks.ids):,} tokens in {len(blocks):,} blocks ({self.name})"

    def batch(self, split: str, rows: np.ndarray, epoch: int) -> Batch:
        """Corrupted blocks of a split with their labels, on the CPU."""
        pieces: Pieces = getattr(self, split)
        return corrupted_batch(
            self.corruption, pieces.blocks, rows, seed=self.seed, epoch=epoch, pad=self.pad, words=pieces.words
        )


def prepare_adaptation(config: RunConfig, prepared: PreparedData) -> AdaptationData:
    """Read, tokenise and pack the texts, without reading weights.

    Raises UserError if texts, tokenizer, model and config do not match.
    """
    section = _section_of(config)
    stored = read_contents(find_checkpoint(config))
    tokenizer, block = prepared.tokenizer, section.block
    context = load_model(stored.folder, "lm", device="meta").context  # also checks the checkpoint
    if block < LEAST or 0 < context < block:
        limit = f" and at most {context:,}, the model's context" if context else ""
        raise UserError(f"adapt.block must be at least {LEAST}{limit}, got {block}")
    data, columns = prepared.data, config.data
    if section.texts:
        names = [name for name in (columns.text, columns.text_pair) if name]
        found = read_texts(hub.local_path(section.texts), names, cleaner(columns.clean))
    else:
        found = texts_of(data.train)
    texts = distinct(found, without=texts_of(data.validation, data.test))
    with located("[adapt]"):
        name, corruption = _corruption(section, tokenizer, stored)
        train = _pieces(texts, name, tokenizer, section, stored)
        validation = _pieces(distinct(texts_of(data.validation)), name, tokenizer, section, stored)
    if len(train.blocks) < section.train.batch_size:
        raise UserError(
            f"the {len(texts):,} texts for adaptation give {len(train.blocks)} blocks of {block} tokens, fewer "
            f"than one batch (adapt.train.batch_size = {section.train.batch_size}); give more texts (adapt.texts), or "
            "lower adapt.block or adapt.train.batch_size"
        )
    batches = make_batches(train.blocks.lengths, section.train.batch_size, seed=config.seed, epoch=0)
    settings = with_least_steps(section.train, len(batches))
    check_warmup(settings, len(batches), "adapt.train.warmup")
    for pieces in (train, validation):
        if (most := pieces.blocks.ids.max(initial=0)) >= stored.config.vocab_size:
            size = stored.config.vocab_size
            raise UserError(f"the tokenizer has the token id {most:,}, but the model has only {size:,} tokens")
    return AdaptationData(
        name, corruption, train, validation,
        texts=len(texts), left_out=len(found) - len(texts), seed=config.seed, pad=pad_id(tokenizer),
        settings=settings,
    )  # fmt: skip


def _corruption(section: AdaptSection, tokenizer: Tokenizer, stored: Contents) -> tuple[str, Corruption]:
    """The pretraining task of this family: masked words (BERT's family), spans (T5), the next tokens (decoders)."""
    masked = stored.architecture.language_modeling == "masked"
    if section.whole_words and not masked:
        raise UserError("whole_words is only for masked-language models, such as BERT; remove it")
    spans = stored.architecture.language_modeling == "seq2seq"
    default = AdaptSection(section.train)
    if section.span != default.span and not spans:
        raise UserError("span is only for T5, which predicts spans; remove it")
    if section.mlm_probability != default.mlm_probability and not (masked or spans):
        raise UserError("mlm_probability is only for masked-language models and T5, not for decoders; remove it")
    if masked:
        return "masked words", MaskedWords.of(tokenizer, section.mlm_probability, stored.config.vocab_size)
    if spans:
        return "spans", Spans.of(tokenizer, section.mlm_probability, section.span, section.block)
    return "next tokens", NextTokens()


def _pieces(texts: Sequence[str], name: str, tokenizer: Tokenizer, section: AdaptSection, stored: Contents) -> Pieces:
    """Join the texts into blocks, as in the family's pretraining."""
    encoded, words = encode(tokenizer, texts, None, UNCUT), None
    if name == "spans":
        encoded = without_special(encoded, special_ids(tokenizer))
    elif name == "next tokens":
        end = _end_token(tokenizer, stored)
        encoded = encoded if end is None else with_ends(encoded, end)
    blocks = pack(encoded, section.block)
    if section.whole_words:
        words = word_numbers(tokenizer, texts)[: len(blocks.ids)]
    pieces = Pieces(blocks, words)
    return _with_words(pieces, special_ids(tokenizer)) if name == "masked words" else pieces


def _with_words(pieces: Pieces, special: np.ndarray) -> Pieces:
    """The blocks that contain a token that is not ``special`` (V,), as special tokens, such as [UNK], are not
    predicted.
    """
    blocks, words = pieces.blocks, pieces.words
    kept = np.flatnonzero(np.logical_or.reduceat(~special[blocks.ids], blocks.offsets[:-1]))
    return Pieces(blocks.take(kept), None if words is None else words[blocks.places(kept)])


def _end_token(tokenizer: Tokenizer, stored: Contents) -> int | None:
    """The checkpoint's end-of-text token, to put after each text if the tokenizer adds no special tokens."""
    if tokenizer.num_special_tokens_to_add(False):
        return None
    named = stored.published.get("eos_token_id")
    candidates = [
        *(named if isinstance(named, list) else [named]),
        *map(tokenizer.token_to_id, ("<|endoftext|>", "</s>")),
    ]
    return next((end for end in candidates if end is not None and end < stored.config.vocab_size), None)


# --- Evaluation --------------------------------------------------------------------------------------------------


def perplexity(model: Backbone, data: AdaptationData, runtime: Runtime, batch_size: int) -> Metrics:
    """Loss and perplexity on the validation texts, which are corrupted in the same way each time."""
    objective, total, denominator = LanguageObjective(), 0.0, 0.0
    batches = make_batches(data.validation.blocks.lengths, batch_size, seed=0, epoch=0, shuffle=False)
    with evaluation_mode(model), torch.no_grad(), runtime.autocast():
        for rows, is_mine in deal_out(batches):
            on_cpu = data.batch("validation", rows, FIXED)
            batch = on_cpu.to(runtime.device)
            total += is_mine * float(objective.sum(model(batch), labels_of(batch)))
            denominator += is_mine * objective.denominator(labels_of(on_cpu))
    total, denominator = sum_(torch.tensor([total, denominator], dtype=torch.float64)).tolist()
    if not denominator:
        raise UserError("the validation texts are too short to evaluate the adaptation; give more or longer texts")
    loss = total / denominator
    return Metrics(loss, perplexity=math.exp(min(loss, 230.0)))  # at most 1e100
