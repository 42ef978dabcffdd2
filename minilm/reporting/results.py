"""What a run found, as dataclasses: the files of its folder that are read again, with types and bounds.

    results.json               Results
    metrics.jsonl              Evaluation, one a line
    environment.json           Environment
    adaptation/results.json    Adaptation

A file is these fields by name; what is None is left out. They are read strictly: whatever is missing, unknown, of
another type or out of its range is a UserError that names the file and the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from minilm.config import SPLITS, Fraction
from minilm.evaluation.metrics import Metrics
from minilm.measures import Measured, Number, Perplexity
from minilm.old_keys import with_new_keys
from minilm.schema import JSON, read_table
from minilm.textfiles import read_json, read_json_lines

R = TypeVar("R")


@dataclass(frozen=True)
class Parameters:
    """How many parameters a model has."""

    total: Number
    trained: Number

    def __post_init__(self) -> None:
        if not 0 <= self.trained <= self.total or not self.total:
            raise ValueError("must hold a total above 0, and no more that are trained")


@dataclass(frozen=True)
class Times:
    """How long a model takes to train and to use; None if that was not measured."""

    train_seconds: Measured | None = None
    inference_seconds_per_100_texts: Measured | None = None


@dataclass(frozen=True)
class DataSummary:
    """Which data it was, and in which splits."""

    name: str
    fingerprint: str  # a hash of all rows
    sizes: dict[str, Number]  # texts of each split ...
    whole: dict[str, Number] = field(default_factory=dict)  # ... and before a part was taken
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was found by looking, or left out as the config says
    classes: dict[str, list[Number]] = field(default_factory=dict)  # of each split, texts with each label (C,)

    def __post_init__(self) -> None:
        if any(set(sizes) != set(SPLITS) for sizes in (self.sizes, self.whole or self.sizes)):
            raise ValueError(f"must hold the sizes of {', '.join(SPLITS)}")


@dataclass(frozen=True)
class Baseline:
    """What was reached without the model."""

    validation: Metrics
    test: Metrics | None = None  # None: there is no test split
    seconds: Measured | None = None  # that it took to fit
    decision_threshold: Fraction | None = None  # several labels a text: a label is given from this probability on
    labels: list[str] | None = None  # of the majority, several labels a text: those that every text is given

    def metrics(self, split: str) -> Metrics | None:
        """The metrics of a split; None if it was not measured."""
        return {"validation": self.validation, "test": self.test}.get(split)

    def tested(self, metric: str) -> float | None:
        """A metric on the test split; None if there is no such split, or if the task does not have the metric."""
        return None if self.test is None else self.test.get(metric)


@dataclass(frozen=True)
class Best:
    """Which weights were kept, and why."""

    epoch: Measured
    step: Number
    metric: str  # they are the best by this metric ...
    value: float  # ... on the validation texts


@dataclass(frozen=True)
class CharacterLengths:
    """How long the training texts are, in characters; both texts of a pair together."""

    mean: Measured
    median: Measured
    p95: Measured  # 95% are no longer
    longest: Number


@dataclass(frozen=True)
class Lengths:
    """How long the training texts are, in tokens."""

    mean: Measured
    median: Measured
    p95: Measured  # 95% are no longer
    longest: Number
    truncated: Number  # texts
    max_tokens: Number  # that are read at once
    unread: Fraction = 0.0  # the part of all tokens that is cut
    windows: Number | None = None  # in which the texts are read, if long ones are read in windows
    characters: CharacterLengths | None = None  # None: a version that did not measure them wrote the file


@dataclass(frozen=True)
class SampleText:
    """A test text with what the model predicts. Several labels a text: ``label`` and ``predicted`` are lists."""

    text: str
    label: str | list[str]
    predicted: str | list[str]
    scores: dict[str, Fraction]  # label -> probability


@dataclass(frozen=True)
class Augmentation:
    """Which training texts were added."""

    method: str
    ratio: Measured
    added: Number


@dataclass(frozen=True)
class ZeroShot:
    """How a model was asked that was not trained."""

    method: str
    pattern: str = ""
    content_free: str = ""
    words: dict[str, str] = field(default_factory=dict)  # label -> word or description


@dataclass(frozen=True)
class Change:
    """A metric on the validation texts before and after adaptation."""

    before: Perplexity
    after: Perplexity


@dataclass(frozen=True)
class Adaptation:
    """What a checkpoint learned from texts without labels."""

    objective: str  # "masked words", "spans" or "next tokens"
    parameters: Parameters
    loss: Change
    perplexity: Change
    texts: Number  # that it learned from ...
    left_out: Number  # ... and that it did not, because they are there twice or it is measured on them
    blocks: Number
    tokens: Number
    held_out_tokens: Number  # of the validation texts
    seconds: Measured
    steps: Number
    best_step: int
    stopped: str
    new_head: bool = False  # whether the checkpoint had no language head


@dataclass(frozen=True, kw_only=True)
class Results:
    """All that a run found.

    A run that trained has ``best``, one that asked a model without training it ``zero_shot``, one that adapted a
    language model ``adaptation``. A run that only adapted has no metrics of classes.
    """

    name: str
    train: Metrics | None = None
    validation: Metrics | None = None
    test: Metrics | None = None
    labels: list[str]  # C names, in order
    baselines: dict[str, Baseline] = field(default_factory=dict)
    zero_shot: ZeroShot | None = None
    adaptation: Adaptation | None = None
    parameters: Parameters
    times: Times
    tokens_per_second: Measured | None = None  # in training
    frozen_layers: str = ""  # what of them was computed once
    best: Best | None = None
    stopped: str = ""  # why training ended: "finished", "early stopping" or "max_minutes"
    lengths: Lengths | None = None
    samples: list[SampleText] = field(default_factory=list)
    data: DataSummary
    decision_threshold: Fraction | None = None  # several labels a text: a label is given from this probability on
    augmentation: Augmentation | None = None
    same_answer: str = ""  # several labels a text: what to say if nearly all texts get the same ones

    def __post_init__(self) -> None:
        """Raise ValueError unless the parts are of one run."""
        measured = {split: self.metrics(split) for split in SPLITS}
        for name, baseline in self.baselines.items():
            measured |= {f"baselines.{name}.{split}": baseline.metrics(split) for split in ("validation", "test")}
        found = {key: metrics for key, metrics in measured.items() if metrics is not None}
        for key, metrics in found.items():
            if len(metrics.by_label) != len(self.labels):
                raise ValueError(f"{key} must hold the metrics of each of the {len(self.labels)} labels")
            if metrics.multi_label != next(iter(found.values())).multi_label:
                raise ValueError(f"{key} must hold the same metrics as the other splits")
        needed = {"train", "validation", "test"} if self.best else {"validation", "test"} if self.zero_shot else set()
        needed -= {split for split, size in self.data.sizes.items() if not size}
        if missing := [split for split in SPLITS if split in needed - found.keys()]:
            raise ValueError(f"{missing[0]} is missing")
        if not needed and (self.adaptation is None or found):
            raise ValueError("must hold best, zero_shot or adaptation: what the run did")
        if self.best is not None and found["validation"].get(self.best.metric) is None:
            raise ValueError(f'best.metric: "{self.best.metric}" is not among the metrics of validation')

    def metrics(self, split: str) -> Metrics | None:
        """The metrics of a split; None if it was not measured."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]

    @property
    def multi_label(self) -> bool:
        """Whether a text may have several labels."""
        return any(metrics.multi_label for split in SPLITS if (metrics := self.metrics(split)) is not None)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One look at the model during training."""

    step: Number  # optimizer steps done
    epoch: Measured
    lr: Measured
    train_loss: Measured  # mean over the steps since the last evaluation
    grad_norm: Measured | None = None  # None: it overflowed float16, and the step was skipped
    tokens_per_second: Measured
    seconds: Measured  # of training so far
    train: Metrics | None = None  # of as many training texts as there are validation texts
    validation: Metrics


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a result depends on beside its config."""

    minilm: str
    commit: str | None = None
    python: str
    packages: dict[str, str]
    platform: str
    device: str
    threads: Number
    data: DataSummary
    start: dict[str, str] = field(default_factory=dict)  # what the run started from -> its hash


# --- Reading ---


def read_record(kind: type[R], path: Path) -> R:
    """A file that a run wrote, as the dataclass of what it holds. Raises UserError if it is not as a run wrote it."""
    return _from(kind, with_new_keys(read_json(path), path.name), str(path))


def read_history(folder: Path) -> list[Evaluation]:
    """The evaluations in ``metrics.jsonl`` of a folder, in order; none if there is no such file."""
    path = folder / "metrics.jsonl"
    lines = read_json_lines(path) if path.is_file() else []
    return [_from(Evaluation, table, place) for place, table in lines]


def _from(kind: type[R], table: Mapping[str, Any], place: str) -> R:
    return read_table(kind, table, lambda key: place, syntax=JSON)
