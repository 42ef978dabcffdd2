"""Domain adaptation: before a checkpoint learns to classify, it goes on learning its own task from texts like those.

Gururangan et al. 2020, "Don't Stop Pretraining". The texts need no labels. A checkpoint is asked about them what it was
once trained on (``minilm.data.masking``): masked words, spans, or the next tokens. How well it answers is told by its
perplexity on the validation texts, before and after. The result is a checkpoint again, to start a classifier from.

    RUN/adapted/      the language model, whole, with its tokenizer
    RUN/adaptation/   metrics.jsonl  results.json; checkpoints/ while it trains
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from minilm.data.locations import complete
from minilm.data.masking import (
    FIXED,
    LEAST,
    MaskedWords,
    NextTokens,
    Question,
    Spans,
    ask_about,
    pack,
    special_ids,
    with_ends,
    without_special,
    word_numbers,
)
from minilm.data.tokenization import Encoded, encode, pad_id
from minilm.devices import Execution
from minilm.errors import UserError
from minilm.models.architecture import Backbone, evaluation_mode
from minilm.models.batch import Batch
from minilm.reporting.summary import parameter_counts
from minilm.rules import default_of
from minilm.runs.assembly import Material
from minilm.runs.folders import write_history
from minilm.training.console import say
from minilm.training.loop import Interrupted, Task, labels_of, train
from minilm.training.objectives import LanguageObjective
from minilm.training.optimizer import check_warmup
from minilm.training.recompute import recompute
from minilm.training.state import Checkpoints, Progress

UNCUT = 2**31 - 1  # tokens: a text of any length is read whole


def adapt(config: RunConfig, lesson: Lesson, run_on: Execution, folder: Path) -> Path:
    """Adapt the checkpoint as ``[adapt]`` says, from the start or the last checkpoint; return its folder.

    Returns at once where that was done before. ``lesson`` is from ``make_lesson``; ``folder`` is the run's.

    Raises:
        UserError: the texts, the model and the config do not go together.
        minilm.training.loop.Interrupted: a signal ended it; the next call goes on.
    """
    adapted, place = folder / "adapted", folder / "adaptation"
    if (adapted / "config.json").exists():  # it is the last file to be written
        _close(place)
        return adapted
    settings = lesson.settings
    stored = read_contents(hub.resolve_model(config.model.source, config.model.revision))
    torch.manual_seed(config.seed)
    model, untrained = load_parts(stored.folder, "lm", dtype=torch.float32, device=run_on.device)
    warn_of(untrained, model)
    total, trained = parameter_counts(model)
    say(f"{folder}: adaptation to {lesson}; {trained:,} of {total:,} parameters train on {run_on}")
    if settings.recompute:
        recompute(model)
    before = perplexity(model, lesson, run_on, settings.batch_size)
    task = _make_task(lesson, model, settings, run_on, place)
    try:
        progress = train(model, task, settings, run_on, Checkpoints(place / "checkpoints"))
    except Interrupted as signal:  # what goes on is the whole run
        raise Interrupted(signal.number, folder) from None
    task.record(progress.history)
    after = perplexity(model, lesson, run_on, settings.batch_size)
    results = {
        "parameters": {"total": total, "trained": trained},
        "new_head": any(name.startswith("head.") for name in untrained),
        **_results(lesson, progress, before, after),
    }
    write_json(place / "results.json", results)
    _return_pooler(model, stored, run_on)
    save_model(model, adapted)  # with the files of its tokenizer
    _close(place)
    say(f"{adapted}: perplexity on validation texts {before['perplexity']:.4g} before, {after['perplexity']:.4g} after")
    return adapted


def _close(place: Path) -> None:
    """Let the checkpoints go: nothing goes on from them, and a kill may have come before that."""
    shutil.rmtree(place / "checkpoints", ignore_errors=True)


def _results(lesson: Lesson, progress: Progress, before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """What was learned from which texts, and what it changed."""
    return {
        "objective": lesson.name,
        **{name: {"before": before[name], "after": after[name]} for name in before},
        "texts": lesson.texts,
        "left_out": lesson.left_out,
        "blocks": len(lesson.train.blocks),
        "tokens": len(lesson.train.blocks.ids),
        "held_out_tokens": len(lesson.validation.blocks.ids),
        "seconds": progress.seconds,
        "steps": progress.step,
        "best_step": progress.best_step,
        "stopped": progress.stopped,
    }


def _section_of(config: RunConfig, where: str) -> AdaptSection:
    """``[adapt]``, its best checkpoint chosen by the loss. Raises UserError for what only a classifier can have."""
    assert config.adapt is not None
    train, plain = config.adapt.train, TrainSection(epochs=1, lr=1.0)
    for key in ("class_weights", "decision", "embeddings_baseline"):
        if getattr(train, key) != getattr(plain, key):
            raise UserError(f"{where}: adapt.train.{key} is for classes, which adaptation does not know; leave it out")
    if train.best not in ("loss", plain.best):
        raise UserError(f'{where}: adapt.train.best must be "loss": adaptation has no other metric')
    return replace(config.adapt, train=replace(train, best="loss"))


def _make_task(lesson: Lesson, model: Backbone, settings: TrainSection, run_on: Execution, place: Path) -> Task:
    """The batches, the objective and the measuring; evaluations are recorded in ``place``."""
    lengths = lesson.train.blocks.lengths
    return Task(
        batches=lambda epoch: make_batches(lengths, settings.batch_size, seed=lesson.seed, epoch=epoch),
        collate=lambda rows, epoch: lesson.batch("train", rows, epoch),
        objective=LanguageObjective(settings.label_smoothing),
        evaluate=lambda: {"validation": perplexity(model, lesson, run_on, settings.batch_size)},
        record=lambda history: write_history(place, history),
    )


def _return_pooler(model: Backbone, stored: Contents, run_on: Execution) -> None:
    """Give a language model its checkpoint's pooler, which it does without but a classifier made from it needs."""
    if stored.has("pooler"):
        model.pooler = load_model(stored.folder, "encode", dtype=torch.float32, device=run_on.device).pooler
        model.config = with_pooler(stored.model_type, model.config, True)


# --- What is learned ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pieces:
    """Packed texts."""

    blocks: Encoded
    words: np.ndarray | None  # the word number of each token, to hide whole words


@dataclass(frozen=True)
class Lesson:
    """What the model is asked, and about which texts."""

    name: str  # "masked words", "spans" or "next tokens"
    question: Question
    train: Pieces
    validation: Pieces
    texts: int  # that are learned from ...
    left_out: int  # ... and that are not, because they are there twice or the model is measured on them
    seed: int
    pad: int
    settings: TrainSection

    @property
    def fingerprint(self) -> str:
        """A hash of the tokens that are learned and measured."""
        digest = hashlib.sha256()
        for pieces in (self.train, self.validation):
            digest.update(pieces.blocks.ids.tobytes() + pieces.blocks.offsets.tobytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        blocks = self.train.blocks
        return f"{self.texts:,} texts, {len(blocks.ids):,} tokens in {len(blocks):,} blocks ({self.name})"

    def batch(self, split: str, rows: np.ndarray, epoch: int) -> Batch:
        """The question about blocks of a split, on the CPU."""
        pieces: Pieces = getattr(self, split)
        return ask_about(
            self.question, pieces.blocks, rows, seed=self.seed, epoch=epoch, pad=self.pad, words=pieces.words
        )


def make_lesson(config: RunConfig, material: Material, where: str) -> Lesson:
    """Read, tokenise and pack the texts; no weight is read.

    Raises UserError where texts, tokenizer, model and config do not go together.
    """
    section = _section_of(config, where)
    stored = read_contents(hub.resolve_model(config.model.source, config.model.revision))
    tokenizer, block = material.tokenizer, section.block
    context = load_model(stored.folder, "lm", device="meta").context  # and what the checkpoint lacks for it is an error
    if block < LEAST or 0 < context < block:
        limit = f"at most {context:,}, the tokens that the model reads" if context else "more"
        raise UserError(f"{where}: adapt.block must be at least {LEAST} and {limit}, got {block}")
    data, columns = material.data, complete(config.data)
    if section.texts:
        names = [name for name in (columns.text, columns.text_pair) if name]
        found = read_texts(hub.local_path(section.texts), names, cleaner(columns.clean))
    else:
        found = texts_of(data.train)
    texts = distinct(found, without=texts_of(data.validation, data.test))
    try:
        name, question = _question(section, tokenizer, stored)
        train = _pieces(texts, name, tokenizer, section, stored)
        validation = _pieces(distinct(texts_of(data.validation)), name, tokenizer, section, stored)
    except UserError as error:
        raise UserError(f"{where}: [adapt]: {error}") from None
    if len(train.blocks) < section.train.batch_size:
        raise UserError(
            f"{where}: {len(texts):,} texts to adapt to make {len(train.blocks)} blocks of {block} tokens, fewer than "
            f"one batch (adapt.train.batch_size {section.train.batch_size}); give more texts (adapt.texts), or lower "
            "adapt.block or the batch size"
        )
    batches = make_batches(train.blocks.lengths, section.train.batch_size, seed=config.seed, epoch=0)
    check_warmup(section.train, len(batches), f"{where}: adapt.train.warmup")
    for pieces in (train, validation):
        if (most := pieces.blocks.ids.max(initial=0)) >= stored.config.vocab_size:
            size = stored.config.vocab_size
            raise UserError(f"{where}: the tokenizer gives the token {most:,}, but the model has only {size:,}")
    return Lesson(
        name, question, train, validation,
        texts=len(texts), left_out=len(found) - len(texts), seed=config.seed, pad=pad_id(tokenizer),
        settings=section.train,
    )  # fmt: skip


def _question(section: AdaptSection, tokenizer: Tokenizer, stored: Contents) -> tuple[str, Question]:
    """What this family was trained on: BERT's on masked words, T5 on spans, decoders on the next token."""
    masked = stored.architecture.language_modeling == "masked"
    if section.whole_words and not masked:
        raise UserError("whole_words is for models that learn from masked words, BERT's family; leave it out")
    spans = stored.architecture.language_modeling == "seq2seq"
    if section.span != default_of(section, "span") and not spans:
        raise UserError("span is for models that learn from spans, T5's family; leave it out")
    if section.mask_share != default_of(section, "mask_share") and not (masked or spans):
        raise UserError("mask_share is for models that learn from masked words or spans, not decoders; leave it out")
    if masked:
        return "masked words", MaskedWords.of(tokenizer, section.mask_share, stored.config.vocab_size)
    if spans:
        return "spans", Spans.of(tokenizer, section.mask_share, section.span, section.block)
    return "next tokens", NextTokens()


def _pieces(texts: Sequence[str], name: str, tokenizer: Tokenizer, section: AdaptSection, stored: Contents) -> Pieces:
    """Texts to blocks, joined as the family's own pretraining did."""
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
    """The blocks that hold a token which is not ``special`` (V,): no other, such as [UNK], is ever asked for."""
    blocks, words = pieces.blocks, pieces.words
    kept = np.flatnonzero(np.logical_or.reduceat(~special[blocks.ids], blocks.offsets[:-1]))
    return Pieces(blocks.take(kept), None if words is None else words[blocks.places(kept)])


def _end_token(tokenizer: Tokenizer, stored: Contents) -> int | None:
    """What to put after each text where the tokenizer puts nothing around it: the checkpoint's end of a text."""
    if tokenizer.num_special_tokens_to_add(False):
        return None
    named = stored.published.get("eos_token_id")
    candidates = [
        *(named if isinstance(named, list) else [named]),
        *map(tokenizer.token_to_id, ("<|endoftext|>", "</s>")),
    ]
    return next((end for end in candidates if end is not None and end < stored.config.vocab_size), None)


# --- How well it is known ----------------------------------------------------------------------------------------


def perplexity(model: Backbone, lesson: Lesson, run_on: Execution, batch_size: int) -> dict[str, float]:
    """Loss and perplexity on the validation texts; the same is asked every time."""
    objective, total, amount = LanguageObjective(), 0.0, 0.0
    with evaluation_mode(model), torch.inference_mode(), run_on.autocast():
        for rows in make_batches(lesson.validation.blocks.lengths, batch_size, seed=0, epoch=0, shuffle=False):
            on_cpu = lesson.batch("validation", rows, FIXED)
            batch = on_cpu.to(run_on.device)
            total += float(objective.total(model(batch), labels_of(batch)))
            amount += objective.amount(labels_of(on_cpu))
    if not amount:
        raise UserError("the validation texts are too short: there is nothing to measure adaptation by")
    loss = total / amount
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}  # beyond lies no number
