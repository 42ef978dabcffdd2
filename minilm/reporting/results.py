"""The files that a run writes, as dataclasses, with the types and ranges of their values.

    results.json               Results
    metrics.jsonl              Evaluation, one per line
    environment.json           Environment
    adaptation/results.json    Adaptation

A file contains the fields by name, without those that are None. Reading is strict: a value that is missing, unknown, of
a wrong type or out of its range is a UserError that names the file and the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from minilm.config import SPLITS, Fraction, Positive
from minilm.evaluation.metrics import Metrics
from minilm.measures import Measured, Number, Perplexity
from minilm.old_keys import with_new_keys
from minilm.schema import JSON, read_table
from minilm.textfiles import read_json, read_json_lines

R = TypeVar("R")


@dataclass(frozen=True)
class Parameters:
    """The number of a model's parameters."""

    total: Number
    trained: Number

    def __post_init__(self) -> None:
        if not 0 <= self.trained <= self.total or not self.total:
            raise ValueError("must contain a total above 0, and a trained number of at most the total")


@dataclass(frozen=True)
class Times:
    """The time for training and prediction; None if it was not measured."""

    train_seconds: Measured | None = None
    inference_seconds_per_100_texts: Measured | None = None


@dataclass(frozen=True)
class DataSummary:
    """The data set of a run, and its splits."""

    name: str
    fingerprint: str  # a hash of all rows
    sizes: dict[str, Number]  # split -> number of texts
    whole: dict[str, Number] = field(default_factory=dict)  # the same before a part was chosen
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # guesses about the files, and numbers of dropped rows
    classes: dict[str, list[Number]] = field(default_factory=dict)  # split -> number of texts with each label (C,)

    def __post_init__(self) -> None:
        for counts in (self.sizes, self.whole, self.classes):
            if set(counts) != set(SPLITS) and (counts or counts is self.sizes):
                raise ValueError(f"must contain the sizes and classes of {', '.join(SPLITS)}")


@dataclass(frozen=True)
class Baseline:
    """The metrics of a baseline, on the same texts."""

    validation: Metrics
    test: Metrics | None = None  # None: there is no test split
    seconds: Measured | None = None  # fitting time
    # The probability from which a label is assigned, or that of each label; of two classes, of the second.
    decision_threshold: Fraction | list[Fraction] | None = None
    labels: list[str] | None = None  # of the majority with several labels per text: those of every text

    def metrics(self, split: str) -> Metrics | None:
        """The metrics of a split; None if they were not measured."""
        return {"validation": self.validation, "test": self.test}.get(split)

    def tested(self, metric: str) -> float | None:
        """A metric on the test split; None if there is no such split, or if the task does not have the metric."""
        return None if self.test is None else self.test.get(metric)


@dataclass(frozen=True)
class Best:
    """The evaluation whose weights were kept."""

    epoch: Measured
    step: Number
    metric: str  # the metric that chose it
    value: float  # its value on the validation texts


@dataclass(frozen=True)
class CharacterLengths:
    """The lengths of the training texts in characters; both texts of a pair together."""

    mean: Measured
    median: Measured
    p95: Measured  # 95% are no longer
    longest: Number


@dataclass(frozen=True)
class Lengths:
    """The lengths of the training texts in tokens."""

    mean: Measured
    median: Measured
    p95: Measured  # 95% are no longer
    longest: Number
    truncated: Number  # texts that are cut
    max_tokens: Number  # the most tokens that are read at once
    unread: Fraction = 0.0  # the fraction of all tokens that is cut
    windows: Number | None = None  # the number of windows, if long texts are read in windows
    characters: CharacterLengths | None = None  # None: the file was written by an older version


@dataclass(frozen=True)
class SampleText:
    """A test text with its prediction. With several labels per text, ``label`` and ``predicted`` are lists."""

    text: str
    label: str | list[str]  # "": it has none
    predicted: str | list[str]
    scores: dict[str, Fraction]  # label -> probability
    pair: str | None = None  # the second text of a pair, with which ``text`` ends then


@dataclass(frozen=True)
class Augmentation:
    """The training texts that augmentation has made."""

    method: str
    ratio: Measured  # new texts for each training text
    added: Number  # new texts


@dataclass(frozen=True)
class CalibrationErrors:
    """Errors of the probabilities, see ``minilm.evaluation.calibration``."""

    expected_error: Fraction
    brier: Measured
    loss: Measured


@dataclass(frozen=True)
class CoveragePoint:
    """The results if only answers with at least some probability are given."""

    threshold: Fraction
    coverage: Measured  # the fraction of texts that is answered; with several labels: labels per text
    accuracy: Fraction  # the fraction of these answers that is right


@dataclass(frozen=True)
class Calibration:
    """The calibration of probabilities on one split; the temperature was fitted on the validation texts."""

    split: str
    temperature: list[Positive]  # one; several labels: one each
    before: CalibrationErrors
    after: CalibrationErrors
    coverage: list[CoveragePoint] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.split not in SPLITS or not self.temperature:
            raise ValueError("must contain a split and a temperature")


@dataclass(frozen=True)
class Mistake:
    """A text with a wrong prediction. With several labels per text, ``label`` and ``predicted`` are lists."""

    row: Number  # in its file, from 1
    text: str  # its beginning
    label: str | list[str]
    predicted: str | list[str]
    probability: Fraction  # of the wrong answer


@dataclass(frozen=True)
class ConfusedTexts:
    """Two labels that are confused, with some of the texts."""

    label: str
    predicted: str
    texts: Number
    mistakes: list[Mistake]


@dataclass(frozen=True)
class LabelIssueText:
    """A text whose label is probably wrong."""

    row: Number  # in its file, from 1
    text: str  # its beginning
    label: str
    suggested: str  # another label; with several labels per text: "add" or "remove"
    score: Fraction  # the lower, the more suspicious


@dataclass(frozen=True)
class Mistakes:
    """The mistakes on one split that are worth reading."""

    split: str
    surest: list[Mistake]
    confused: list[ConfusedTexts]  # with one label per text
    label_issues: list[LabelIssueText]  # the first of them
    all_label_issues: Number  # how many there are

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}")


@dataclass(frozen=True)
class ZeroShot:
    """The prompt of zero-shot classification."""

    method: str
    pattern: str = ""
    content_free: str = ""
    words: dict[str, str] = field(default_factory=dict)  # label -> word or description
    given: dict[str, Number] = field(default_factory=dict)  # texts without labels: how many got each label


@dataclass(frozen=True)
class Change:
    """A metric on the validation texts before and after adaptation."""

    before: Perplexity
    after: Perplexity


@dataclass(frozen=True)
class Adaptation:
    """The adaptation of a checkpoint to texts without labels."""

    objective: str  # "masked words", "spans" or "next tokens"
    parameters: Parameters
    loss: Change
    perplexity: Change
    texts: Number  # texts in training
    left_out: Number  # texts dropped, as they are repeated or in the validation or test split
    blocks: Number
    tokens: Number
    held_out_tokens: Number  # tokens of the validation texts
    seconds: Measured
    steps: Number
    best_step: int
    stopped: str
    new_head: bool = False  # whether the checkpoint had no language head


@dataclass(frozen=True, kw_only=True)
class Results:
    """All results of a run.

    A run that trained a classifier has ``best``, a zero-shot run has ``zero_shot``, and a run that adapted a language
    model has ``adaptation``. A run that only adapted has no metrics of labels.
    """

    name: str
    architecture: str = ""  # its name in reports: "GPT-2"
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
    frozen_layers: str = ""  # a text about the layers whose outputs were computed once
    best: Best | None = None
    stopped: str = ""  # why training ended: "finished", "early stopping" or "max_minutes"
    lengths: Lengths | None = None
    samples: list[SampleText] = field(default_factory=list)
    data: DataSummary
    # The probability from which a label is assigned, or that of each label; of two classes, of the second.
    decision_threshold: Fraction | list[Fraction] | None = None
    calibration: Calibration | None = None
    mistakes: Mistakes | None = None
    augmentation: Augmentation | None = None
    same_answer: str = ""  # with several labels per text: a warning if nearly all predictions are equal

    def __post_init__(self) -> None:
        """Raise ValueError if the parts contradict each other."""
        measured = {split: self.metrics(split) for split in SPLITS}
        for name, baseline in self.baselines.items():
            measured |= {f"baselines.{name}.{split}": baseline.metrics(split) for split in ("validation", "test")}
        found = {key: metrics for key, metrics in measured.items() if metrics is not None}
        for key, metrics in found.items():
            if len(metrics.by_label) != len(self.labels):
                raise ValueError(f"{key} must contain the metrics of each of the {len(self.labels)} labels")
            if metrics.multi_label != next(iter(found.values())).multi_label:
                raise ValueError(f"{key} must contain the same metrics as the other splits")
        needed = {"train", "validation", "test"} if self.best else {"validation", "test"} if self.zero_shot else set()
        if self.zero_shot is not None and self.zero_shot.given:
            needed = set()
        needed -= {split for split, size in self.data.sizes.items() if not size}
        if missing := [split for split in SPLITS if split in needed - found.keys()]:
            raise ValueError(f"{missing[0]} is missing")
        if not needed and (found or not (self.adaptation or self.zero_shot)):
            raise ValueError("must contain best, zero_shot or adaptation")
        thresholds = self.decision_threshold
        if isinstance(thresholds, list) and len(thresholds) != len(self.labels):
            raise ValueError(f"decision_threshold must contain one for each of the {len(self.labels)} labels")
        if found and any(len(texts) != len(self.labels) for texts in self.data.classes.values()):
            raise ValueError(f"data.classes must contain a number of texts for each of the {len(self.labels)} labels")
        if self.best is not None and (self.validation is None or self.validation.get(self.best.metric) is None):
            raise ValueError(f'best.metric: "{self.best.metric}" is not among the metrics of validation')

    def metrics(self, split: str) -> Metrics | None:
        """The metrics of a split; None if they were not measured."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]

    @property
    def multi_label(self) -> bool:
        """Whether a text may have several labels."""
        return any(metrics.multi_label for split in SPLITS if (metrics := self.metrics(split)) is not None)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation during training."""

    step: Number  # optimizer steps done
    epoch: Measured
    lr: Measured
    train_loss: Measured  # mean over the steps since the last evaluation
    grad_norm: Measured | None = None  # None: the gradient overflowed float16, and the step was skipped
    tokens_per_second: Measured
    seconds: Measured  # of training so far
    train: Metrics | None = None  # on as many training texts as there are validation texts
    validation: Metrics


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The environment that a result depends on, besides its config."""

    minilm: str
    commit: str | None = None
    python: str
    packages: dict[str, str]
    platform: str
    device: str
    threads: Number
    processes: Number = 1
    cpu: str = ""  # its name, and the instructions that torch uses; "": a version that did not record them
    data: DataSummary
    start: dict[str, str] = field(default_factory=dict)  # name -> hash of an input of the run


# --- Reading ---


def read_record(kind: type[R], path: Path) -> R:
    """Read a file that a run wrote. Raises UserError if it is missing or invalid."""
    return _from(kind, with_new_keys(read_json(path), path.name), str(path))


def read_history(folder: Path) -> list[Evaluation]:
    """The evaluations in a folder's ``metrics.jsonl``, in order; [] if there is no such file."""
    path = folder / "metrics.jsonl"
    lines = read_json_lines(path) if path.is_file() else []
    return [_from(Evaluation, table, place) for place, table in lines]


def _from(kind: type[R], table: Mapping[str, Any], place: str) -> R:
    return read_table(kind, table, lambda key: place, syntax=JSON)
