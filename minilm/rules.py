"""What several keys of a config must satisfy together: rules, each told in one line where it does not hold."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import MISSING, fields, replace
from functools import reduce
from typing import Any, NamedTuple

from minilm.config import HeadSection, LoraSection, RunConfig, TrainSection, is_within
from minilm.errors import UserError
from minilm.schema import Place

REWRITING = ("masked-words", "back-translation")  # the methods of [augment] that need a model


class Rule(NamedTuple):
    """What several keys must satisfy together."""

    keys: tuple[str, ...]
    holds: Callable[[RunConfig], bool]
    words: str


def _weights_fit(c: RunConfig) -> bool:
    names, weights = c.data.labels or c.data.label_columns, c.train.class_weights if c.train else ""
    return isinstance(weights, str) or not names or len(weights) == len(names)


def _columns_differ(c: RunConfig) -> bool:
    labels = c.data.label_columns or [c.data.label]  # which differ among themselves by another rule
    return not {c.data.text, c.data.text_pair}.intersection(labels) and c.data.text != c.data.text_pair


def _same_machine(first: TrainSection, second: TrainSection) -> bool:
    keys = ("device", "precision", "threads")
    plain = TrainSection(epochs=1, lr=1.0)
    return all(getattr(first, key) in (getattr(plain, key), getattr(second, key)) for key in keys)


def _trains(c: RunConfig, section: str) -> bool:
    """Whether a section has something trained."""
    if section in ("freeze", "lora"):
        return c.freeze.part != "nothing" if section == "freeze" else bool(c.lora.rank)
    return getattr(c, section) is not None


def _without(section: str) -> Rule:
    return Rule(
        ("zero_shot", section),
        lambda c: c.zero_shot is None or not _trains(c, section),
        f"[zero_shot] and [{section}] exclude each other: the one asks a model as it is, the other is for training",
    )


RULES = (
    Rule(
        ("data.source", "data.train"),
        lambda c: bool(c.data.source) != bool(c.data.train),
        "data.source or data.train must be given, one of them (the other is cleared by data.source= or data.train=)",
    ),
    Rule(
        ("data.validation", "data.test"),
        lambda c: bool(c.data.train) or not (c.data.validation or c.data.test),
        "data.validation and data.test go with data.train, not with data.source",
    ),
    Rule(
        ("data.validation_share", "data.test_share"),
        lambda c: c.data.validation_share + c.data.test_share < 1,
        "data.validation_share and data.test_share must be below 1 together, to leave rows for training",
    ),
    Rule(
        ("data.shots", "data.rows"),
        lambda c: not (c.data.shots and c.data.rows),
        "data.shots and data.rows exclude each other: use one",
    ),
    Rule(
        ("data.text_pair", "data.label", "data.label_columns", "data.text"),
        _columns_differ,
        "data.text, data.text_pair and data.label (or data.label_columns) must be different columns",
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
        ("model.source", "model.architecture"),
        lambda c: bool(c.model.source) != bool(c.model.architecture),
        "model.source (a checkpoint) or model.architecture (from scratch) must be given, one of them",
    ),
    Rule(
        ("model.config",),
        lambda c: not (c.model.source and c.model.config),
        "model.config is for a model from scratch; a checkpoint (model.source) has its own",
    ),
    Rule(
        ("tokenizer.source",),
        lambda c: bool(c.tokenizer.source or c.model.source),
        'tokenizer.source must be given for a model from scratch: a checkpoint, or "bpe"',
    ),
    Rule(
        ("train.class_weights", "data.labels", "data.label_columns"),
        _weights_fit,
        "train.class_weights must hold one weight for each label",
    ),
    Rule(
        ("train", "adapt", "zero_shot"),
        lambda c: bool(c.train or c.adapt or c.zero_shot),
        "[train] is missing: how long and at which rate to train (or [adapt] or [zero_shot] in its place)",
    ),
    Rule(
        ("train.embeddings_baseline", "model.architecture"),
        lambda c: bool(c.model.source) or c.train is None or not c.train.embeddings_baseline,
        "train.embeddings_baseline needs a checkpoint (model.source): a model from scratch knows nothing yet",
    ),
    Rule(
        ("augment", "train"),
        lambda c: c.augment is None or c.train is not None,
        "[augment] makes texts with labels for [train], which is missing; [adapt] reads the texts as they are",
    ),
    Rule(
        ("augment.model", "augment.method"),
        lambda c: c.augment is None or bool(c.augment.model) == (c.augment.method in REWRITING),
        'augment.model must be given for the methods "masked-words" and "back-translation", and for no other',
    ),
    Rule(
        ("freeze.part", "freeze.layers"),
        lambda c: c.freeze.part != "all-but-last" or c.freeze.layers > 0,
        'freeze.layers must say how many layers are trained (freeze.part = "all-but-last"); "backbone" freezes all',
    ),
    Rule(
        ("freeze.layers", "freeze.part"),
        lambda c: not c.freeze.layers or c.freeze.part in ("first", "all-but-last"),
        'freeze.layers goes with freeze.part = "first" or "all-but-last"',
    ),
    Rule(
        ("lora",),
        lambda c: c.lora.rank is not None or c.lora == LoraSection(),
        "lora.rank is missing: without it there are no adapters (0 says so)",
    ),
    Rule(
        ("adapt.train", "train"),
        lambda c: c.adapt is None or c.train is None or _same_machine(c.adapt.train, c.train),
        "adapt.train.device, .precision and .threads must be left out or be those of [train]",
    ),
    Rule(
        ("lora.rank", "freeze.part"),
        lambda c: not c.lora.rank or c.freeze.part == "nothing",
        'lora.rank and freeze.part exclude each other: LoRA freezes the backbone; use one (rank 0 or part "nothing")',
    ),
    Rule(
        ("model.architecture", "freeze.part", "lora.rank", "adapt"),
        lambda c: bool(c.model.source) or (c.freeze.part == "nothing" and not c.lora.rank and c.adapt is None),
        "[freeze], [lora] and [adapt] go on from a checkpoint (model.source), not from scratch",
    ),
    Rule(
        ("adapt", "tokenizer.source"),
        lambda c: c.adapt is None or not c.tokenizer.source,
        "[adapt] needs the checkpoint's own tokenizer; leave tokenizer.source out",
    ),
    *map(_without, ("train", "adapt", "freeze", "lora")),
    Rule(
        ("zero_shot", "model.source", "tokenizer.source"),
        lambda c: c.zero_shot is None or bool(c.model.source and not c.tokenizer.source),
        "[zero_shot] asks a checkpoint (model.source) with its own tokenizer; leave tokenizer.source out",
    ),
    Rule(
        ("zero_shot.pattern", "zero_shot.way"),
        lambda c: c.zero_shot is None or bool(c.zero_shot.pattern) == (c.zero_shot.way != "similarity"),
        'zero_shot.pattern must be given for "cloze" and "likelihood", and not for "similarity", which has none',
    ),
    Rule(
        ("zero_shot.content_free", "zero_shot.way"),
        lambda c: c.zero_shot is None or not c.zero_shot.content_free or c.zero_shot.way != "similarity",
        'zero_shot.content_free calibrates "cloze" and "likelihood"; leave it out for "similarity"',
    ),
    Rule(
        ("tokenizer.source", "model.source"),
        lambda c: not c.model.source or c.tokenizer.source != "bpe",
        'tokenizer.source = "bpe" is for a model from scratch; a checkpoint (model.source) has learned its own tokens',
    ),
)


# --- What nothing reads -------------------------------------------------------------------------------------------


class Unread(NamedTuple):
    """Keys that nothing reads where another key has made another choice."""

    choice: str  # that other key
    keys: tuple[str, ...]
    holds: Callable[[RunConfig], bool]
    words: str


def _way(c: RunConfig) -> str:
    return c.zero_shot.way if c.zero_shot else ""


UNREAD = (
    Unread(
        "model.head.kind",
        tuple(f"model.head.{f.name}" for f in fields(HeadSection) if f.name != "kind"),
        lambda c: c.model.head.kind == "family",
        'needs model.head.kind = "mlp"; "family" is the checkpoint\'s own head, with settings of its own',
    ),
    Unread(
        "tokenizer.source",
        ("tokenizer.vocab_size",),
        lambda c: c.tokenizer.source != "bpe",
        'needs tokenizer.source = "bpe"; a checkpoint\'s tokenizer has the tokens that it has',
    ),
    Unread(
        "zero_shot.way",
        ("zero_shot.words",),
        lambda c: _way(c) == "similarity",
        'is for "cloze" and "likelihood"; "similarity" reads zero_shot.descriptions',
    ),
    Unread(
        "zero_shot.way",
        ("zero_shot.descriptions",),
        lambda c: _way(c) in ("cloze", "likelihood"),
        'is for "similarity"; "cloze" and "likelihood" read zero_shot.words',
    ),
)


def put_aside(
    config: RunConfig, place: Place, where: str, shared: Collection[str] = (), *, of_a_run: bool = False
) -> RunConfig:
    """The config without what it says and nothing reads, so that it can be written down.

    That comes with a file whose choice was changed from outside, with a file that a run wrote (``of_a_run``), or with
    changes of several runs (``shared``), which may make the choice or say what only some of them read. Raises UserError
    where it was said for this run as it is; ``place`` tells where, and ``where`` is the file.
    """
    for rule in UNREAD:
        for key in rule.keys if rule.holds(config) else ():
            value, usual = value_of(config, key), default_of(config, key)
            if value == usual:
                continue
            of_file, chosen_outside = place(key) == where, place(rule.choice) != where
            said = [k for k in shared if is_within(key, k) or is_within(k, key)]
            of_others = any(not is_within(rule.choice, k) for k in said)
            overruled = not said and any(is_within(rule.choice, k) for k in shared)
            if not (of_others or overruled or (of_file and (chosen_outside or of_a_run))):
                raise UserError(f"{place(key)}: {key} {rule.words}")
            config = with_value(config, key, usual)
    return config


def unread(config: RunConfig, key: str) -> str:
    """Why nothing reads a key in this config, or one within it; empty where something does."""
    return next((rule.words for rule in UNREAD if rule.holds(config) and any(is_within(key, k) for k in rule.keys)), "")


def value_of(section: Any, key: str) -> Any:
    """The value at a key such as "model.head.kind"."""
    return reduce(getattr, key.split("."), section)


def default_of(section: Any, key: str) -> Any:
    """The value that a key has where nothing is said."""
    *path, last = key.split(".")
    found = next(f for f in fields(reduce(getattr, path, section)) if f.name == last)
    return found.default if found.default_factory is MISSING else found.default_factory()


def with_value(section: Any, key: str, value: Any) -> Any:
    """A section with another value at a key."""
    first, _, rest = key.partition(".")
    return replace(section, **{first: with_value(getattr(section, first), rest, value) if rest else value})
