"""Conditions on several keys of a config. Each rule has the message that is shown if the condition is not met."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from minilm.callers import changes
from minilm.config import BPETokenizerSection, FreezeNothing, RunConfig, TrainSection

_PER_LABEL = "validation-per-label"
_OWN_COLUMN = re.compile(r"row|text|pair|label|predicted|P\(.*\)")


class Rule(NamedTuple):
    """A condition on several keys, and its message."""

    keys: tuple[str, ...]
    holds: Callable[[RunConfig], bool]
    words: str | Callable[[RunConfig], str]

    def message(self, config: RunConfig) -> str:
        """What is wrong with a config that does not meet the condition, and what to type."""
        return self.words if isinstance(self.words, str) else self.words(config)


def _weights_fit(c: RunConfig) -> bool:
    names, weights = c.data.labels or c.data.label_columns, c.train.class_weights if c.train else ""
    return isinstance(weights, str | dict) or not names or len(weights) == len(names)


def _files_of_splits(c: RunConfig) -> str:
    given = {f"data.{split}": getattr(c.data, split) for split in ("validation", "test")}
    typed = {"data.source": "", "data.train": c.data.source, **{key: file for key, file in given.items() if file}}
    return f"data.validation and data.test need data.train instead of data.source; type: {changes(typed)}"


def _columns_differ(c: RunConfig) -> bool:
    labels = c.data.label_columns or [c.data.label]  # which differ among themselves by another rule
    texts = {c.data.text, c.data.text_pair} - {""}
    return not texts.intersection(labels) and c.data.text != c.data.text_pair


def _same_settings(first: TrainSection, second: TrainSection) -> bool:
    keys = ("device", "precision", "threads", "log_to")
    default = TrainSection(epochs=1, lr=1.0)
    return all(getattr(first, key) in (getattr(default, key), getattr(second, key)) for key in keys)


def _default_in_adaptation(key: str) -> Callable[[RunConfig], bool]:
    default = TrainSection(epochs=1, lr=1.0)
    return lambda c: c.adapt is None or getattr(c.adapt.train, key) == getattr(default, key)


def _freezes(c: RunConfig) -> bool:
    return not isinstance(c.freeze, FreezeNothing)


def _excludes_zero_shot(section: str, given: Callable[[RunConfig], bool]) -> Rule:
    return Rule(
        ("zero_shot", section),
        lambda c: c.zero_shot is None or not given(c),
        f"[zero_shot] cannot be combined with [{section}], as it does not train; remove one of them",
    )


RULES = (
    Rule(
        ("data.source", "data.train"),
        lambda c: bool(c.data.source) != bool(c.data.train),
        "give either data.source or data.train, not both or neither (data.source= or data.train= clears one)",
    ),
    Rule(
        ("data.validation", "data.test"),
        lambda c: bool(c.data.train) or not (c.data.validation or c.data.test),
        _files_of_splits,
    ),
    Rule(
        ("data.validation_fraction", "data.test_fraction"),
        lambda c: c.data.validation_fraction + c.data.test_fraction < 1,
        "data.validation_fraction + data.test_fraction must be below 1, so that rows are left for training",
    ),
    Rule(
        ("data.folds", "data.fold"),
        lambda c: c.data.folds != 1 and (c.data.fold <= c.data.folds if c.data.fold else not c.data.folds),
        "data.folds must be at least 2, and data.fold a number from 1 to data.folds (both 0: no folds)",
    ),
    Rule(
        ("data.folds", "data.test"),
        lambda c: not (c.data.folds and c.data.test),
        "data.folds makes the test split from the training rows; remove data.test",
    ),
    Rule(
        ("data.shots", "data.rows"),
        lambda c: not (c.data.shots and c.data.rows),
        "data.shots and data.rows cannot be combined; remove one of them",
    ),
    Rule(
        ("data.text_pair", "data.label", "data.label_columns", "data.text"),
        _columns_differ,
        "data.text, data.text_pair and data.label (or data.label_columns) must be different columns",
    ),
    Rule(
        ("data.label", "data.labels", "zero_shot"),
        lambda c: c.data.labelled or (c.zero_shot is not None and len(c.data.labels) > 1),
        'data.label = "" (texts without labels) needs [zero_shot], and the labels to choose from in data.labels',
    ),
    Rule(
        ("data.keep",),
        lambda c: len(set(c.data.keep)) == len(c.data.keep) and not any(map(_OWN_COLUMN.fullmatch, c.data.keep)),
        "data.keep must name each column once, and none of the columns of predictions.csv: row, text, pair, label, "
        "predicted, P(...)",
    ),
    Rule(
        ("data.labels", "data.label_columns"),
        lambda c: all(len(set(names)) == len(names) for names in (c.data.labels, c.data.label_columns)),
        "data.labels and data.label_columns must name each label once",
    ),
    Rule(
        ("data.labels", "data.label_columns"),
        lambda c: not c.data.labels or len(c.data.label_columns) in (0, len(c.data.labels)),
        "data.labels must name as many labels as data.label_columns has columns",
    ),
    Rule(
        ("data.label_columns", "data.label_separator"),
        lambda c: not (c.data.label_columns and c.data.label_separator),
        "data.label_columns (one column per label) and data.label_separator (one column) cannot be combined; use one",
    ),
    Rule(
        ("data.other", "data.labels"),
        lambda c: c.data.other == "error" or bool(c.data.labels),
        'data.other = "drop" drops labels that data.labels does not list; list the labels to keep in data.labels',
    ),
    Rule(
        ("data.long_texts", "data.window_stride", "data.window_scores"),
        lambda c: c.data.long_texts == "windows" or (c.data.window_stride, c.data.window_scores) == (0, "mean"),
        'data.window_stride and data.window_scores need data.long_texts = "windows"',
    ),
    Rule(
        ("data.test_fraction", "zero_shot"),
        lambda c: c.zero_shot is None or c.data.test_fraction > 0,
        "[zero_shot] is evaluated on the test split, so data.test_fraction must be above 0",
    ),
    Rule(
        ("data.long_texts", "zero_shot"),
        lambda c: c.zero_shot is None or c.data.long_texts == "cut",
        '[zero_shot] always cuts long texts; remove data.long_texts, or raise data.max_tokens',
    ),
    Rule(
        ("model.source", "model.architecture"),
        lambda c: bool(c.model.source) != bool(c.model.architecture),
        "give either model.source (a checkpoint) or model.architecture (a model from scratch), not both or neither",
    ),
    Rule(
        ("model.base", "model.source"),
        lambda c: bool(c.model.source) or not c.model.base,
        "model.base needs an adapter (model.source), which is merged with it; remove model.base",
    ),
    Rule(
        ("model.config",),
        lambda c: not (c.model.source and c.model.config),
        "model.config is only for a model from scratch, as a checkpoint (model.source) has its own; remove one of them",
    ),
    Rule(
        ("tokenizer.source",),
        lambda c: bool(c.tokenizer.source or c.model.source),
        'a model from scratch needs tokenizer.source: a checkpoint, or "bpe"',
    ),
    Rule(
        ("train.class_weights", "data.labels", "data.label_columns"),
        _weights_fit,
        "train.class_weights must contain one weight for each label",
    ),
    Rule(
        ("train", "adapt", "zero_shot"),
        lambda c: bool(c.train or c.adapt or c.zero_shot),
        "[train] is missing; add it with epochs and lr (or add [adapt] or [zero_shot] instead)",
    ),
    Rule(
        ("train.embeddings_baseline", "model.architecture"),
        lambda c: bool(c.model.source) or c.train is None or not c.train.embeddings_baseline,
        "train.embeddings_baseline needs a checkpoint (model.source), as the vectors of a new model are random",
    ),
    Rule(
        ("augment", "train"),
        lambda c: c.augment is None or c.train is not None,
        "[augment] makes labelled texts for [train], which is missing; [adapt] does not use them",
    ),
    Rule(
        ("adapt.train", "train"),
        lambda c: c.adapt is None or c.train is None or _same_settings(c.adapt.train, c.train),
        "adapt.train.device, .precision, .threads and .log_to must be equal to those of [train]; remove them",
    ),
    Rule(
        ("adapt.train.best",),
        lambda c: c.adapt is None or c.adapt.train.best in ("loss", TrainSection(epochs=1, lr=1.0).best),
        'adapt.train.best must be "loss", as adaptation has no other metric; remove it',
    ),
    *(
        Rule(
            (f"adapt.train.{key}",),
            _default_in_adaptation(key),
            f"adapt.train.{key} is only for classification; remove it",
        )
        for key in (
            "class_weights", "decision_threshold", "threshold_metric", "embeddings_baseline", "linear_baseline",
        )
    ),
    Rule(
        ("train.threshold_metric", "train.decision_threshold"),
        lambda c: c.train is None or c.train.threshold_metric == "f1" or c.train.decision_threshold == _PER_LABEL,
        f'train.threshold_metric needs train.decision_threshold = "{_PER_LABEL}"',
    ),
    Rule(
        ("lora.rank", "freeze.part"),
        lambda c: not (c.adapters and _freezes(c)),
        lambda c: (
            "lora.rank and freeze.part cannot be combined, as LoRA freezes the backbone; add "
            f"{changes({'lora.rank': '0'})} or {changes({'freeze.part': 'nothing'})}"
        ),
    ),
    Rule(
        ("model.architecture", "freeze.part", "lora.rank", "adapt"),
        lambda c: bool(c.model.source) or not (_freezes(c) or c.adapters or c.adapt),
        "[freeze], [lora] and [adapt] need a checkpoint to start from (model.source), not a model from scratch",
    ),
    Rule(
        ("adapt", "tokenizer.source"),
        lambda c: c.adapt is None or not c.tokenizer.source,
        "[adapt] needs the checkpoint's own tokenizer; remove tokenizer.source",
    ),
    _excludes_zero_shot("train", lambda c: c.train is not None),
    _excludes_zero_shot("adapt", lambda c: c.adapt is not None),
    _excludes_zero_shot("freeze", _freezes),
    _excludes_zero_shot("lora", lambda c: c.adapters is not None),
    Rule(
        ("zero_shot", "model.source", "tokenizer.source"),
        lambda c: c.zero_shot is None or bool(c.model.source and not c.tokenizer.source),
        "[zero_shot] needs a checkpoint (model.source) with its own tokenizer; remove tokenizer.source",
    ),
    Rule(
        ("tokenizer.source", "model.source"),
        lambda c: not (c.model.source and isinstance(c.tokenizer, BPETokenizerSection)),
        'tokenizer.source = "bpe" is only for a model from scratch; a checkpoint (model.source) needs its tokenizer',
    ),
)
