"""What a run is told: a TOML file and the command line's changes to it, as frozen dataclasses.

    name = "my-run"

    [model]
    source = "distilbert"

    [data]
    source = "reviews.csv"

    [train]
    epochs = 3
    lr = 3e-5

    $ minilm train my-run.toml train.lr=1e-4 data.source=other.csv

Each section below is a table of the file, each field a key in it, with its type, limits, default and meaning.
``minilm.schema`` reads the one into the other, strictly; ``minilm.rules`` says what keys must satisfy together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from minilm.errors import UserError
from minilm.schema import Limit, override, parse_file, read_table, write_table


def _like(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


Count = Annotated[int, Limit("a whole number of at least 0", lambda n: n >= 0)]
Size = Annotated[int, Limit("a whole number of at least 1", lambda n: n >= 1)]
Seed = Annotated[int, Limit("a whole number from 0 to 4294967295", lambda n: 0 <= n < 2**32)]
Positive = Annotated[float, Limit("a number above 0", lambda x: x > 0)]
Amount = Annotated[float, Limit("a number of at least 0", lambda x: x >= 0)]
Share = Annotated[float, Limit("a number from 0 to 1", lambda x: 0 <= x <= 1)]
Rate = Annotated[float, Limit("a number of at least 0 and below 1", lambda x: 0 <= x < 1)]
Part = Annotated[float, Limit("a number above 0 and below 1", lambda x: 0 < x < 1)]
Threads = Annotated[int, Limit("a whole number from 0 to 1024", lambda n: 0 <= n <= 1024)]
Ratio = Annotated[float, Limit("a number from 0 to 2", lambda x: 0 <= x <= 2)]
FolderName = Annotated[str, Limit('a name of at most 100 letters, digits, "-", "_" and "."', _like(r"\w[\w.-]{0,99}"))]
Column = Annotated[str, Limit("the name of a column", bool)]
Delimiter = Annotated[str, Limit('one character, or "tab"', lambda d: len(d) <= 1 or d in ("tab", "\\t"))]
OneGPU = Annotated[str, Limit('one of several GPUs, "cuda:1"', _like(r"cuda:\d+"))]
Device = Literal["auto", "cpu", "cuda", "mps"] | OneGPU
Vocabulary = Annotated[int, Limit("a whole number of at least 259: 256 bytes and 3 special tokens", lambda n: n >= 259)]


# A field that is not said. For a data set of the catalogue it is as the catalogue says, else as told beside the field:
# ``minilm.data.locations.complete`` fills it in. So what is said counts, also where it is the usual.
NOT_SAID: Any = None


@dataclass(frozen=True)
class HeadSection:
    """``[model.head]``: turns a text's hidden states (B, T, D) into class scores (B, C)."""

    # Dense, activation, dropout, dense ("mlp"), or the head that the checkpoint's family defines.
    kind: Literal["mlp", "family"] = "mlp"
    hidden: Count = 0  # units of the mlp's first layer; 0: the model's width
    # Which hidden state the mlp reads: the last real token's, the first's, the mean, or the pooler's. Where it is not
    # said, that which the family's own head reads: the first token's of BERT and its kin, the last one's of the others.
    pooling: Literal["last", "cls", "mean", "pooler"] = NOT_SAID
    norm: bool = False  # LayerNorm after the mlp's first layer
    activation: Literal["gelu", "relu", "tanh"] = "gelu"
    dropout: Rate = 0.1


@dataclass(frozen=True)
class ModelSection:
    """``[model]``: a checkpoint (``source``), or from scratch (``architecture`` and ``[model.config]``)."""

    source: str = ""  # folder, catalogue name or Hub id; empty: from scratch
    revision: str = ""  # the Hub's branch, tag or commit; empty: its default branch
    architecture: str = ""  # from scratch: a model_type such as "gpt2"
    config: dict[str, Any] = field(default_factory=dict)  # from scratch: the architecture's own fields
    head: HeadSection = field(default_factory=HeadSection)


@dataclass(frozen=True)
class TokenizerSection:
    """``[tokenizer]``: how text becomes token ids."""

    # A checkpoint whose tokenizer.json is used; "bpe": a byte-level BPE trained on the training split;
    # empty: that of model.source.
    source: str = ""
    vocab_size: Vocabulary = 8000  # of the bpe


@dataclass(frozen=True)
class DataSection:
    """``[data]``: labelled texts, and how they are split.

    Paths start at the folder the command runs in. Changing ``source`` on the command line changes nothing
    else: columns, labels and shares stay as the file has them.
    """

    source: str = ""  # catalogue name, folder with train/validation/test files, one file, or Hub id
    sample: bool = False  # in place of that source, the small set of its kind that comes with minilm
    train: str = ""  # instead of source: a file for each split
    validation: str = ""
    test: str = ""
    text: Column = NOT_SAID  # column of the text: "text"
    text_pair: str = NOT_SAID  # column of a second text; empty, as usual: single texts
    label: Column = NOT_SAID  # column of the class, a name or a number: "label"
    label_columns: list[Column] = NOT_SAID  # several labels a text: columns of 0 and 1, in place of label; usually none
    labels: list[str] = NOT_SAID  # the labels' names in order; empty, as usual: as the training data says
    validation_share: Part = NOT_SAID  # of the training rows, where no validation split is given: 0.1
    test_share: Rate = NOT_SAID  # of the training rows, where no test split is given: 0.1; 0: no test split
    split_seed: Seed = 0  # of splitting and subsetting
    redraw: bool = False  # split and draw anew for each run: split_seed becomes its seed
    group: str = NOT_SAID  # column: rows that share its value stay on one side of a split; empty, as usual: none
    max_tokens: Size = 256  # longer texts are cut
    # A stratified subset of so many rows; 0: all. With the same split_seed 100 rows are among the 500.
    train_rows: Count = 0
    validation_rows: Count = 0
    test_rows: Count = 0
    # Of those training rows only ...
    shots: Count = 0  # so many of each class; 0: all. With the same split_seed 2 of each are among the 5
    rows: str = ""  # those that a file names by their number; empty: all
    clean: list[str] = field(default_factory=list)  # cleaning steps; their order is fixed
    # How the files are written; what is empty or "auto" is found by looking.
    delimiter: Delimiter = ""  # between the fields of a row: a character, or "tab"
    encoding: str = ""  # such as "cp1250"; empty: UTF-8, or UTF-16 with its mark
    quoting: Literal["auto", "none", "all"] = "auto"  # whether quote marks around a field belong to it ("none") or not
    header: bool = True  # whether the first row names the columns; false: they are numbers, text = "2"
    # What becomes of rows and labels.
    empty: Literal["error", "skip"] = "error"  # rows without a text or a label
    label_separator: str = ""  # several labels a text, in one cell: what is between them; lists are read as such
    rename: dict[str, str] = field(default_factory=dict)  # labels: as the files have them -> as they shall be called
    other: Literal["error", "drop"] = "error"  # rows whose label is none of ``labels``
    max_labels: Size = 5000  # more are probably none
    # What becomes of texts longer than max_tokens: their end is cut, or their middle; or they are read in windows.
    long_texts: Literal["cut", "head-tail", "windows"] = "cut"
    window_stride: Count = 0  # tokens from the start of a window to that of the next; 0: half a window
    window_scores: Literal["mean", "max"] = "mean"  # a text's probabilities, from those of its windows

    @property
    def multi_label(self) -> bool:
        """Whether a text may have several labels."""
        return bool(self.label_columns or self.label_separator)


@dataclass(frozen=True)
class AugmentSection:
    """``[augment]``: training texts made of those there are, with their labels (see ``minilm.data.augmentation``)."""

    # Of a text's words some are put in once more, change places, are left out, become synonyms (WordNet's), become
    # what a masked-language model would write; or the text is translated to German and back.
    method: Literal["insertion", "swap", "deletion", "synonyms", "masked-words", "back-translation"]
    ratio: Ratio = 0.25  # new texts for each that is there
    share: Part = 0.1  # of a text's words that change, one at least; back-translation changes what it will
    model: str = ""  # of the last two methods: a checkpoint with a trained masked-language head, or a T5


@dataclass(frozen=True)
class TrainSection:
    """``[train]``: optimisation by AdamW (Loshchilov and Hutter 2019), evaluation, and where it runs."""

    epochs: Size
    lr: Positive  # the highest learning rate
    batch_size: Size = 32  # texts
    by_length: bool = True  # texts of similar length share a batch, which saves padding; false: batches are random
    weight_decay: Amount = 0.01
    decay_all: bool = False  # decay biases, norms and embeddings too, not only matrices
    beta1: Rate = 0.9
    beta2: Rate = 0.999
    eps: Positive = 1e-8
    clip: Amount = 1.0  # highest global gradient norm; 0: no clipping
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # from lr, after the warmup, to lr_end
    schedule_per: Literal["step", "epoch"] = "step"  # when the rate changes
    warmup: Amount = 0.0  # below 1: share of all steps; else a number of steps
    lr_end: Share = 0.0  # share of lr that is left at the end
    accumulate: Size = 1  # batches whose gradients make one step
    label_smoothing: Rate = 0.0  # probability spread over all classes
    class_weights: Literal["", "balanced"] | list[Positive] = ""  # in the loss; balanced: 1 / frequency
    evaluate_every: Count = 0  # steps; 0: every epoch
    # Validation metric that chooses the best checkpoint; the second row is for several labels a text.
    best: Literal[
        "loss", "accuracy", "macro_precision", "macro_recall", "macro_f1", "mcc",
        "subset_accuracy", "label_accuracy", "jaccard", "micro_f1",
    ] = "macro_f1"  # fmt: skip
    patience: Count = 0  # evaluations without improvement before stopping early; 0: never
    threshold: Amount = 0.0  # by how much the metric must improve to count
    max_minutes: Amount = 0.0  # of training; 0: no limit
    checkpoint_minutes: Amount = 1.0  # at least, between checkpoints to resume from; 0: one an evaluation
    device: Device = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    threads: Threads = 0  # of the CPU; 0: torch decides
    recompute: bool = False  # layers' inner results in the backward pass, instead of keeping them: slower, less memory
    cache_mib: Count = 4096  # memory for what frozen layers give, computed once; beyond it, a file; 0: never kept
    # Several labels per text: the probability threshold, at or above which a label is assigned; "validation": the best
    # there.
    decision: Literal["validation"] | Part = 0.5
    # Measure too what a logistic regression on the checkpoint's vectors reaches; it reads every text once more.
    embeddings_baseline: bool = False


@dataclass(frozen=True)
class FreezeSection:
    """``[freeze]``: the part of a checkpoint's backbone that training leaves as it is."""

    # "all-but-last": all but the last ``layers`` with the final norm and the pooler; "first": the embeddings and the
    # first ``layers``; "backbone": all of it, only the head is trained.
    part: Literal["nothing", "backbone", "all-but-last", "first"] = "nothing"
    layers: Count = 0


@dataclass(frozen=True)
class LoraSection:
    """``[lora]``: low-rank adapters; all else but the head is frozen (see ``minilm.finetuning.lora``)."""

    rank: Count | None = None  # none, or 0: no adapters
    alpha: Positive = 16.0  # the adapters' weight is alpha / rank ...
    rank_stabilized: bool = False  # ... or alpha / sqrt(rank)
    dropout: Rate = 0.0  # on the adapters' input
    # What is adapted: "query", "key", "value", "output", "up", "gate", "down", "all-linear", or patterns of names.
    targets: list[str] = field(default_factory=lambda: ["query", "value"])
    layers: list[Count] = field(default_factory=list)  # from 0; empty: all


@dataclass(frozen=True)
class AdaptSection:
    """``[adapt]``: before ``[train]``, the checkpoint goes on learning its own task from texts without labels."""

    train: TrainSection
    texts: str = ""  # a file of texts, a line each, or with the column data.text; empty: the training texts
    block: Size = 128  # tokens of a piece: texts are joined and cut, so that nothing is padded
    mask_share: Part = 0.15  # of the tokens, hidden from BERT, DistilBERT and ALBERT, or taken from T5 in spans
    whole_words: bool = False  # hide words, not pieces of words
    span: Annotated[float, Limit("a number of at least 1", lambda x: x >= 1)] = 3.0  # T5: mean tokens of a span


@dataclass(frozen=True)
class ZeroShotSection:
    """``[zero_shot]``, in place of ``[train]``: a model that has read texts without labels is asked for each text's."""

    # By the word that fits a gap in it (BERT's family), by the word that would be written after it (decoders, T5), or
    # by the label's description whose vector is nearest (sentence models): see ``minilm.evaluation.zero_shot``.
    way: Literal["cloze", "likelihood", "similarity"]
    pattern: str = ""  # of the first two: has "{text}", of pairs "{pair}", and where the word goes "{label}"
    words: dict[str, str] = field(default_factory=dict)  # of the first two: label -> word; others: the label itself
    descriptions: dict[str, str] = field(default_factory=dict)  # of similarity, likewise
    # Of the first two: a text such as "N/A", for which all labels shall be as likely; empty: no calibration.
    content_free: str = ""
    device: Device = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    threads: Threads = 0  # of the CPU; 0: torch decides


@dataclass(frozen=True)
class RunConfig:
    """One run, whole."""

    name: FolderName  # of the folder under runs/
    data: DataSection
    seed: Seed = 1  # of initial weights, order of the texts and dropout
    model: ModelSection = field(default_factory=ModelSection)
    tokenizer: TokenizerSection = field(default_factory=TokenizerSection)
    freeze: FreezeSection = field(default_factory=FreezeSection)
    lora: LoraSection = field(default_factory=LoraSection)
    augment: AugmentSection | None = None
    adapt: AdaptSection | None = None
    train: TrainSection | None = None  # none: adaptation alone, or ...
    zero_shot: ZeroShotSection | None = None


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a TOML file and apply ``section.key=value`` changes, in order.

    Their values are TOML (``3e-4``, ``true``, ``["a", "b"]``); where a key holds text, the quotes may be left
    out. Raises UserError where the file cannot be read, a key is unknown or missing, or a value is unfit.
    """
    table = parse_file(Path(path))
    written = {override(RunConfig, table, text): text for text in overrides}  # key -> the change that set it
    of_a_run = Path(path).name == "config.toml" and (Path(path).parent / "environment.json").is_file()
    return config_of(table, written, str(path), of_a_run=of_a_run)


def config_of(
    table: Mapping[str, Any],
    written: Mapping[str, str],
    where: str,
    shared: Collection[str] = (),
    *,
    of_a_run: bool = False,
) -> RunConfig:
    """The config of a file's table. ``written`` tells of changed keys, in order, what set them; ``where`` is the file.

    ``shared``: changed keys that are of other runs too, so that this one need not read them. ``of_a_run``: a run wrote
    the file, and it wrote every setting down.
    What the catalogue says of the data set is written into it, so that a run's own file tells all it was made of.
    Raises UserError as ``load_config`` does.
    """
    from minilm.data.locations import complete
    from minilm.rules import RULES, put_aside  # both modules are about the sections above

    def place(key: str) -> str:
        """The last change of a key, of the table around it or of a key within it; else the file."""
        related = [k for k in written if is_within(k, key) or is_within(key, k)]
        return written[related[-1]] if related else where

    config = read_table(RunConfig, table, place)
    config = replace(config, data=complete(config.data))
    for rule in RULES:
        if not rule.holds(config):
            places = [place(key) for key in rule.keys if place(key) != where]
            raise UserError(f"{places[0] if places else where}: {rule.words}")
    config = put_aside(config, place, where, shared, of_a_run=of_a_run)
    return replace(config, data=replace(config.data, split_seed=config.seed)) if config.data.redraw else config


def is_within(key: str, outer: str) -> bool:
    """Whether a key is another, or in its table: "model.head.kind" in "model.head"."""
    return f"{key}.".startswith(f"{outer}.")


def dump_config(config: RunConfig) -> str:
    """The config as TOML, defaults written out. ``load_config`` reads it back equal."""
    return write_table(asdict(config))


def folder_name(text: str) -> str:
    """A name that a run's folder may have; of a longer one the beginning, and a hash that keeps it apart."""
    return text if len(text) <= 100 else f"{text[:93]}-{short_hash(text)}"


def short_hash(text: str) -> str:
    """Six characters that are the same for the same text, and hardly for another."""
    return hashlib.sha256(text.encode()).hexdigest()[:6]
