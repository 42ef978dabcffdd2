"""The settings of a run: a TOML file, and changes to it on the command line, as frozen dataclasses.

    name = "my-run"

    [model]
    source = "distilbert"

    [data]
    source = "reviews.csv"

    [train]
    epochs = 3
    lr = 3e-5

    $ minilm train my-run.toml train.lr=1e-4 data.source=other.csv

Each section below is a table of the file. Each field is a key, with its type, its limits, its default and its meaning.
If one key determines which other keys there are, such as ``model.head.kind``, there is a dataclass for each choice.

``minilm.schema`` reads a table into a dataclass, ``minilm.rules`` checks conditions on several keys, and
``minilm.loading`` does both for a file. ``docs/config.md`` is made from this module (``make docs``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from minilm.measures import CLASSIFICATION_METRICS
from minilm.schema import Choice, Example, Limit

SPLITS = ("train", "validation", "test")


def _like(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


Count = Annotated[int, Limit("a whole number of at least 0", lambda n: n >= 0)]
Size = Annotated[int, Limit("a whole number of at least 1", lambda n: n >= 1)]
Seed = Annotated[int, Limit("a whole number from 0 to 4294967295", lambda n: 0 <= n < 2**32)]
Positive = Annotated[float, Limit("a number above 0", lambda x: x > 0)]
NonNegative = Annotated[float, Limit("a number of at least 0", lambda x: x >= 0)]
Fraction = Annotated[float, Limit("a number from 0 to 1", lambda x: 0 <= x <= 1)]
Rate = Annotated[float, Limit("a number of at least 0 and below 1", lambda x: 0 <= x < 1)]
Between = Annotated[float, Limit("a number above 0 and below 1", lambda x: 0 < x < 1)]
Threads = Annotated[int, Limit("a whole number from 0 to 1024", lambda n: 0 <= n <= 1024)]
Ratio = Annotated[float, Limit("a number from 0 to 2", lambda x: 0 <= x <= 2)]
SpanLength = Annotated[float, Limit("a number of at least 1", lambda x: x >= 1)]
FolderName = Annotated[str, Limit('a name of at most 100 letters, digits, "-", "_" and "."', _like(r"\w[\w.-]{0,99}"))]
Column = Annotated[str, Limit("the name of a column", bool)]
Delimiter = Annotated[str, Limit('one character, or "tab"', lambda d: len(d) <= 1 or d in ("tab", "\\t"))]
ModelName = Annotated[str, Limit("a model: a folder, a name that `minilm models` lists, or a Hub id", bool)]
Template = Annotated[str, Limit('a text with "{label}"', lambda p: "{label}" in p)]
Pattern = Annotated[str, Limit('a text with "{text}" and "{label}"', lambda p: "{text}" in p and "{label}" in p)]
OneGPU = Annotated[str, Limit('one of several GPUs, "cuda:1"', _like(r"cuda:\d+"))]
Device = Literal["auto", "cpu", "cuda", "mps"] | OneGPU
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Metric: TypeAlias = Literal[CLASSIFICATION_METRICS]  # type: ignore[valid-type]
BPESize = Annotated[int, Limit("a whole number of at least 259: 256 bytes and 3 special tokens", lambda n: n > 258)]
TrackerName = Literal["tensorboard", "wandb", "mlflow"]
KeepModel = Literal["all", "trained", "none"]  # what a run of a study saves of its model


# --- [model] and [tokenizer] ---


@dataclass(frozen=True)
class MLPHeadSection:
    """``[model.head]`` with ``kind = "mlp"``: dense, activation, dropout, dense, on one vector for each text."""

    kind: Literal["mlp"] = "mlp"  # this choice
    hidden: Count = 0  # units of the first layer; 0: the model's width
    # The input of the head: the last token's vector, the first token's ("cls"), the mean of all, or the pooler's.
    # "auto": the pooling in a sentence model's folder (1_Pooling), or else the input of the family's own head: the
    # first token's for BERT and similar models, the last token's for decoders.
    pooling: Literal["auto", "last", "cls", "mean", "pooler"] = "auto"
    norm: bool = False  # LayerNorm after the first layer
    activation: Literal["gelu", "relu", "tanh"] = "gelu"  # between the two layers
    dropout: Rate = 0.1  # before each layer


@dataclass(frozen=True)
class FamilyHeadSection:
    """``[model.head]`` with ``kind = "family"``: the head that published classifiers of this family have."""

    kind: Literal["family"] = "family"  # this choice


HeadSection = Annotated[MLPHeadSection | FamilyHeadSection, Choice("kind", "mlp")]


@dataclass(frozen=True)
class ModelSection:
    """``[model]``: a checkpoint (``source``), or a model from scratch (``architecture`` and ``[model.config]``)."""

    source: str = ""  # a folder, a name that `minilm models` lists, or a Hub id; empty: from scratch
    # If the source is an adapter, which is then merged with its base into a folder of weights/: the base, given as
    # the source is; empty: the base that the adapter names.
    base: str = ""
    revision: str = ""  # branch, tag or commit on the Hub; empty: the default branch
    architecture: str = ""  # from scratch: a model_type, such as "gpt2"
    config: dict[str, Any] = field(default_factory=dict)  # from scratch: the architecture's own settings
    head: HeadSection = field(default_factory=MLPHeadSection)


@dataclass(frozen=True)
class BPETokenizerSection:
    """``[tokenizer]`` with ``source = "bpe"``: a byte-level BPE, trained on the training texts."""

    source: Literal["bpe"] = "bpe"  # this choice
    vocab_size: BPESize = 8000  # the largest number of tokens


@dataclass(frozen=True)
class CheckpointTokenizerSection:
    """``[tokenizer]`` with any other ``source``: the tokenizer of a checkpoint."""

    source: str = ""  # a folder with a tokenizer, a model's name or a Hub id; empty: that of model.source


TokenizerSection = Annotated[BPETokenizerSection | CheckpointTokenizerSection, Choice("source", "")]


# --- [data] and [augment] ---


@dataclass(frozen=True)
class DataSection:
    """``[data]``: labelled texts, and how they are split.

    A data set that `minilm data` lists has its own columns and labels; keys in the config file take precedence. Paths
    are relative to the folder in which the command runs.
    """

    source: str = ""  # a name that `minilm data` lists, a folder with a file for each split, one file, or a Hub id
    sample: bool = False  # use the small set that comes with minilm and is of the same kind as the source
    train: str = ""  # instead of source: the file of the training split
    validation: str = ""  # the file of the validation split; empty: rows of the training split
    test: str = ""  # the file of the test split; empty: rows of the training split
    text: Column = "text"  # the column with the texts
    text_pair: str = ""  # the column with a second text for each; empty: single texts
    label: str = "label"  # the column with the class, as a name or a number; "" with [zero_shot]: no labels are known
    label_columns: list[Column] = field(default_factory=list)  # several labels per text: a column of 0 and 1 for each
    labels: list[str] = field(default_factory=list)  # the labels in order; empty: those in the training data, sorted
    validation_fraction: Between = 0.1  # fraction of the training rows to hold out, if there is no validation split
    test_fraction: Rate = 0.1  # the same for the test split; 0: no test split, and no test results
    folds: Count = 0  # divide the training rows into this many folds, and test one of them; 0: use test_fraction
    fold: Count = 0  # the number of the fold to test, from 1
    split_seed: Seed = 0  # seed of the splits and of the subsets
    redraw: bool = False  # draw new splits and subsets for each seed: use the run's seed as split_seed
    split_column: str = "split"  # the column of a single file that decides its splits, if there is one; empty: none
    group: str = ""  # a column; rows with the same value stay in the same split; empty: no groups
    max_tokens: Size = 256  # longer texts are cut
    # The size of a stratified subset of the training rows; 0: all. Subsets with one split_seed contain smaller ones.
    train_rows: Count = 0
    validation_rows: Count = 0  # the same for the validation rows
    test_rows: Count = 0  # the same for the test rows
    shots: Count = 0  # the number of training rows to use per class; 0: all rows
    rows: str = ""  # a file with the numbers of the training rows to use; empty: all rows
    clean: list[str] = field(default_factory=list)  # cleaning steps, which docs/data.md lists; their order is fixed
    delimiter: Delimiter = ""  # between the fields of a row: a character, or "tab"; empty: guessed from the files
    encoding: str = ""  # such as "cp1250"; empty: UTF-8, or UTF-16 with its mark
    # "none": quote marks are text; "all": they enclose fields; "auto": guessed from the files.
    quoting: Literal["auto", "none", "all"] = "auto"
    header: bool = True  # whether the first row names the columns; false: their names are numbers, text = "2"
    empty: Literal["error", "skip"] = "error"  # rows without a text or a label
    label_separator: str = ""  # several labels in one cell: the separator between them; also needed for lists
    rename: dict[str, str] = field(default_factory=dict)  # label in the files -> new name
    other: Literal["error", "drop"] = "error"  # rows whose label is not in ``labels``
    max_labels: Size = 5000  # more labels are an error, as they are probably not labels
    keep: list[Column] = field(default_factory=list)  # other columns to copy to predictions.csv, such as an id
    long_texts: Literal["cut", "head-tail", "windows"] = "cut"  # longer texts: cut their end, cut their middle, windows
    window_stride: Count = 0  # tokens from the start of a window to the start of the next; 0: half a window
    window_scores: Literal["mean", "max"] = "mean"  # how to combine the probabilities of a text's windows

    @property
    def multi_label(self) -> bool:
        """Whether a text may have several labels."""
        return bool(self.label_columns or self.label_separator)

    @property
    def labelled(self) -> bool:
        """Whether the texts have labels."""
        return bool(self.label_columns or self.label)


@dataclass(frozen=True)
class EditWordsSection:
    """``[augment]`` by editing words: insert, swap or delete words, or replace them by synonyms from WordNet."""

    method: Literal["insertion", "swap", "deletion", "synonyms"]  # how words are edited
    ratio: Ratio = 0.25  # new texts for each training text
    fraction: Between = 0.1  # fraction of a text's words to change, at least one word


@dataclass(frozen=True)
class MaskedWordsSection:
    """``[augment]`` by a masked-language model, which replaces words by others that fit the context."""

    method: Literal["masked-words"]  # this choice
    model: ModelName  # a checkpoint with a trained masked-language head
    ratio: Ratio = 0.25  # new texts for each training text
    fraction: Between = 0.1  # fraction of a text's words to replace, at least one word


@dataclass(frozen=True)
class BackTranslationSection:
    """``[augment]`` by translating texts to German and back."""

    method: Literal["back-translation"]  # this choice
    model: ModelName  # a T5 that translates, such as "flan-t5"
    ratio: Ratio = 0.25  # new texts for each training text


AugmentSection = Annotated[EditWordsSection | MaskedWordsSection | BackTranslationSection, Choice("method")]


# --- What trains: [freeze], [lora], [train], [adapt] ---


@dataclass(frozen=True)
class FreezeNothing:
    """``[freeze]`` with ``part = "nothing"``: all parameters train."""

    part: Literal["nothing"] = "nothing"  # this choice


@dataclass(frozen=True)
class FreezeBackbone:
    """``[freeze]`` with ``part = "backbone"``: only the head trains."""

    part: Literal["backbone"] = "backbone"  # this choice


@dataclass(frozen=True, kw_only=True)
class FreezeFirst:
    """``[freeze]`` with ``part = "first"``: the embeddings and the first layers are frozen."""

    part: Literal["first"] = "first"  # this choice
    layers: Count = 0  # how many layers are frozen; 0: only the embeddings


@dataclass(frozen=True, kw_only=True)
class FreezeAllButLast:
    """``[freeze]`` with ``part = "all-but-last"``: the last layers, the final norm, the pooler and the head train."""

    part: Literal["all-but-last"] = "all-but-last"  # this choice
    layers: Annotated[Size, Example(2)]  # how many layers train


FreezeSection = Annotated[FreezeNothing | FreezeBackbone | FreezeFirst | FreezeAllButLast, Choice("part", "nothing")]


@dataclass(frozen=True)
class LoraSection:
    """``[lora]``: low-rank adapters. All other parameters except the head are frozen (``minilm.finetuning.lora``)."""

    rank: Annotated[Count, Example(8)]  # the rank of the adapters' matrices; 0: no adapters
    alpha: Positive = 16.0  # the adapters' output is scaled by alpha / rank
    rank_stabilized: bool = False  # scale by alpha / sqrt(rank) instead
    dropout: Rate = 0.0  # dropout on the adapters' input
    # The layers to adapt: "query", "key", "value", "output", "up", "gate", "down", "all-linear", or patterns of names.
    targets: list[str] = field(default_factory=lambda: ["query", "value"])
    layers: list[Count] = field(default_factory=list)  # the layers that are adapted, from 0; empty: all
    dora: bool = False  # learn the norms of the matrices' rows separately from their directions (DoRA)


@dataclass(frozen=True)
class TrainSection:
    """``[train]``: optimisation by AdamW (Loshchilov and Hutter 2019), evaluation, device and precision."""

    epochs: Annotated[Size, Example(3)]  # passes over the training texts
    lr: Annotated[Positive, Example(5e-5)]  # the highest learning rate
    batch_size: Size = 32  # texts in a batch
    min_steps: Count = 0  # few texts are trained for more epochs, until there are so many steps
    group_by_length: bool = True  # batch texts of similar length, which saves padding; false: random batches
    weight_decay: NonNegative = 0.01  # how much matrices shrink in each step, in units of lr
    decay_all: bool = False  # decay biases, norms and embeddings too, not only matrices
    beta1: Rate = 0.9  # how much of the mean gradient is kept in each step
    beta2: Rate = 0.999  # how much of the mean squared gradient is kept
    eps: Positive = 1e-8  # added to the root of the mean squared gradient
    clip: NonNegative = 1.0  # the highest global norm of the gradient; 0: no clipping
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # how the rate falls after the warmup, to lr_end
    schedule_per: Literal["step", "epoch"] = "step"  # when the rate changes
    warmup: NonNegative = 0.0  # below 1: a fraction of all steps; otherwise a number of steps
    lr_end: Fraction = 0.0  # the last learning rate, as a fraction of lr
    accumulate: Size = 1  # batches whose gradients are summed for one step
    label_smoothing: Rate = 0.0  # probability that is distributed over all classes
    # Weights in the loss: "balanced" (1 / frequency), a list of one weight per label, or a table name -> weight.
    class_weights: Literal["", "balanced"] | list[Positive] | dict[str, Positive] = ""
    evaluate_every: Count = 0  # steps between evaluations; 0: one after each epoch
    # The validation metric that chooses the best checkpoint; among equal ones, the lower loss decides. Some metrics
    # need data with several labels per text: "subset_accuracy", "label_accuracy", "jaccard", "micro_f1".
    best: Metric = "macro_f1"
    patience: Count = 0  # evaluations without an improvement after which training stops; 0: never
    min_delta: NonNegative = 0.0  # the smallest change of the metric that counts as an improvement
    max_minutes: NonNegative = 0.0  # time limit of training; 0: none
    checkpoint_minutes: NonNegative = 1.0  # least time between checkpoints for resuming; 0: one at each evaluation
    device: Device = "auto"  # "auto": CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # "auto": 16 bits on a GPU, and on a CPU that computes in bfloat16; else float32
    threads: Threads = 0  # CPU threads; 0: torch decides
    shard: bool = False  # several processes (torchrun) keep a part of every parameter each, for large models
    gradient_checkpointing: bool = False  # compute activations again in the backward pass: slower, with less memory
    cache_mib: Count = 4096  # memory for outputs of frozen layers, computed once; the rest is in a file; 0: no cache
    # With several labels per text, a label is given from this probability on; with two classes, the second. On the
    # validation texts "validation" chooses it, "validation-per-label" one per label; "auto": only with several labels.
    decision_threshold: Literal["auto", "validation", "validation-per-label"] | Between = 0.5
    # The metric that "validation-per-label" maximises: macro F1, or the Jaccard index (with two classes, the second's).
    threshold_metric: Literal["f1", "jaccard"] = "f1"
    linear_baseline: bool = True  # also evaluate a linear model on words; never with more than 1,000 labels
    embeddings_baseline: bool = False  # also a logistic regression on the checkpoint's vectors; reads all texts
    # Trackers that show the run while it trains: "tensorboard", "wandb" (Weights & Biases), "mlflow"; docs/trackers.md.
    log_to: list[TrackerName] = field(default_factory=list)


@dataclass(frozen=True)
class AdaptSection:
    """``[adapt]``: before ``[train]``, continue the pretraining of the checkpoint with unlabelled texts.

    ``[adapt.train]`` has the keys of ``[train]``, except those that concern classes.
    """

    train: TrainSection
    texts: str = ""  # a file, with one text per line or in the column data.text; empty: the training texts
    block: Size = 128  # tokens per block: texts are joined and cut into blocks, so that no padding is needed
    mlm_probability: Fraction = 0.15  # fraction of tokens to predict: masked in BERT's family, removed as spans for T5
    whole_words: bool = False  # mask whole words, not single tokens
    span: SpanLength = 3.0  # T5: the mean number of tokens in a span


# --- [zero_shot] ---


@dataclass(frozen=True)
class PromptSection:
    """``[zero_shot]`` by a prompt: the label whose word is most probable for a language model."""

    # "cloze": the word that fits a gap (BERT's family); "likelihood": the word that comes next (decoders, T5).
    method: Literal["cloze", "likelihood"]
    pattern: Pattern  # the prompt: "{text}" is the text, "{pair}" the second text of a pair, "{label}" the word
    words: dict[str, str] = field(default_factory=dict)  # label -> its word; the default is the label itself
    content_free: str = ""  # a text without content, such as "N/A", for calibrating the scores; empty: no calibration
    device: Device = "auto"  # "auto": CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # "auto": 16 bits on a GPU, and on a CPU that computes in bfloat16; else float32
    threads: Threads = 0  # CPU threads; 0: torch decides


@dataclass(frozen=True)
class SimilaritySection:
    """``[zero_shot]`` by similarity: the label whose description is most similar to the text for a sentence model."""

    method: Literal["similarity"]  # this choice
    descriptions: dict[str, str] = field(default_factory=dict)  # label -> its description; the default is the label
    device: Device = "auto"  # "auto": CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # "auto": 16 bits on a GPU, and on a CPU that computes in bfloat16; else float32
    threads: Threads = 0  # CPU threads; 0: torch decides


@dataclass(frozen=True)
class EntailmentSection:
    """``[zero_shot]`` by entailment: the labels that a text entails, by a model of natural language inference."""

    method: Literal["entailment"]  # this choice
    hypothesis_template: Template = "This text is about {label}."  # what a text must entail to get the label
    words: dict[str, str] = field(default_factory=dict)  # label -> its name in the hypothesis; default: the label
    device: Device = "auto"  # "auto": CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # "auto": 16 bits on a GPU, and on a CPU that computes in bfloat16; else float32
    threads: Threads = 0  # CPU threads; 0: torch decides


ZeroShotSection = Annotated[PromptSection | SimilaritySection | EntailmentSection, Choice("method")]


# --- All of it ---


@dataclass(frozen=True)
class RunConfig:
    """The settings of one run."""

    name: FolderName  # the name of the folder under runs/
    data: DataSection
    seed: Seed = 1  # the seed of initial weights, the order of the texts, and dropout
    model: ModelSection = field(default_factory=ModelSection)
    tokenizer: TokenizerSection = field(default_factory=CheckpointTokenizerSection)
    freeze: FreezeSection = field(default_factory=FreezeNothing)
    lora: LoraSection | None = None
    augment: AugmentSection | None = None
    adapt: AdaptSection | None = None
    train: TrainSection | None = None  # if it is missing: only adaptation, or zero-shot classification
    zero_shot: ZeroShotSection | None = None

    @property
    def adapters(self) -> LoraSection | None:
        """``[lora]``, if it adds adapters."""
        return self.lora if self.lora and self.lora.rank else None
