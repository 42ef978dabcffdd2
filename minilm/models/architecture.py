"""The contract: what every architecture offers, and how its published files are laid out.

A model is a ``Backbone``: text in, one vector per position out, and a head that turns vectors into scores. Whatever
changes or moves models (LoRA, freezing, caching, exports, generation) uses what is here and knows no architecture by
name. To add one, write one file with its config, its backbone and its ``Architecture``, and register it in
``minilm.models``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from torch import Tensor, nn

from minilm.errors import UserError
from minilm.model_files import is_whole
from minilm.models.batch import Batch, State
from minilm.models.heads import ClassificationHead, Head, HeadConfig, LanguageConfig

# --- What a model offers ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BackboneConfig:
    """The settings that every architecture has; each adds its own, and its own defaults."""

    vocab_size: int = 0
    width: int = 0
    depth: int = 0
    heads: int = 1
    tied: bool = True  # a language head shares the token embedding

    def __post_init__(self) -> None:
        """Raises UserError if the heads do not divide the width."""
        if not self.heads or self.width % self.heads:
            raise UserError(f"width ({self.width}) must be a multiple of heads ({self.heads})")


@dataclass
class Card:
    """A description of a model, stored as ``model.card``."""

    model_type: str  # its key in ARCHITECTURES
    task: str  # "encode", "classify" or "lm"
    labels: list[str] = field(default_factory=list)  # classes in order
    own_head: bool = False  # our head instead of the family's
    nested: bool = False  # it is the text model of a vision-language model
    folder: Path | None = None  # the folder of the model, or of the base of an adapter
    adapter: Path | None = None  # where its adapter was loaded from
    published: dict[str, Any] = field(default_factory=dict)  # its config.json, with what we do not use
    extra: dict[str, Any] = field(default_factory=dict)  # more settings, stored under "minilm": threshold, ...

    @property
    def tokenizer(self) -> Path | None:
        """The folder of its tokenizer: the adapter's, if that brings one."""
        brought = self.adapter is not None and is_whole(self.adapter, "tokenizer")
        return self.adapter if brought else self.folder


class Backbone(nn.Module, ABC):
    """An architecture with or without a head.

        y      = finish(run(embed(batch), 0, L))        one finished vector per position
        scores = head(y)

    A subclass builds ``embeddings`` and its layers, and writes ``embed``, ``run`` and ``blocks``; if it has a final
    norm, ``finish`` and ``norms_after`` too. Layers are numbered in the order in which they run: an encoder-decoder's
    encoder, then its decoder. ALBERT has one set of weights, which runs L times.

    Most classification heads read one position of each text (``Batch.query_position``). So the last layer, and only
    that, computes a query and the MLP for this position alone; the other positions contribute keys and values. That
    saves 3% of a training step with 12 layers, 18% with 4, and more behind a cached prefix.
    """

    config: BackboneConfig
    embeddings: nn.Module
    pooler: nn.Module | None
    head: Head | None
    start_token: int | None = None  # the first input token of an encoder-decoder's decoder; None: other models
    card: Card | None = None
    unmerged: dict[str, Any]  # the adapted layers that ``lora.merge`` replaced, by name

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.pooler = None
        self.head = None
        self.unmerged = {}

    @property
    def token_embedding(self) -> nn.Embedding:
        """The token table, (V, D)."""
        table = self.embeddings.get_submodule("token")
        assert isinstance(table, nn.Embedding)
        return table

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The layers' modules in the order in which they run, ``num_layers`` of them."""

    @property
    def num_layers(self) -> int:
        """How many layers run, one after another."""
        return len(self.blocks)

    @property
    def is_causal(self) -> bool:
        """Whether no position sees what lies to its right, so the first vector depends on the first token alone."""
        return False

    @property
    def context(self) -> int:
        """The longest text that the model reads, or continues, in tokens; 0: no limit."""
        return 0

    @abstractmethod
    def embed(self, batch: Batch) -> State:
        """The state before the first layer."""

    @abstractmethod
    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        """The state after layers ``first`` to ``last`` (exclusive)."""

    def finish(self, state: State) -> Tensor:
        """The finished vectors, (B, T or 1, D)."""
        return state.x

    def norms_after(self, layer: int) -> Sequence[nn.Module]:
        """The final norms that this layer's output passes through."""
        return ()

    def query_position(self, batch: Batch, layer: int) -> Tensor | None:
        """The position (B,) for which this layer computes its query and its MLP; None: all positions."""
        return batch.query_position if layer == self.num_layers - 1 else None

    def vectors(self, batch: Batch, state: State | None = None, first: int = 0, last: int | None = None) -> Tensor:
        """The finished vectors, (B, T, D), or (B, 1, D) if the batch has a ``query_position``; an encoder-decoder's
        are its decoder's, (B, T', D). From ``state``, the one before layer ``first``, or else from the start; up to
        layer ``last`` (exclusive), or else to the end."""
        state = self.embed(batch) if state is None else state
        return self.finish(self.run(state, batch, first, self.num_layers if last is None else last))

    def vectors_after(self, batch: Batch, last: int) -> Tensor:
        """The finished vectors if only the first ``last`` layers run."""
        return self.vectors(batch, last=last)

    def states(self, batch: Batch, last: int) -> State:
        """The state after the first ``last`` layers."""
        return self.run(self.embed(batch), batch, 0, last)

    def pooled(self, batch: Batch) -> Tensor:
        """The vector of each text that the classification head reads, (B, D)."""
        assert isinstance(self.head, ClassificationHead)
        batch = replace(batch, query_position=self.head.query_position(batch))
        return self.head.pooled(self.vectors(batch), batch, self.pooler)

    def classify(self, z: Tensor) -> Tensor:
        """The scores (B, C) of vectors from ``pooled``, (B, D)."""
        assert isinstance(self.head, ClassificationHead)
        return self.head.classify(z)

    def apply_head(self, x: Tensor, batch: Batch) -> Tensor:
        """The head's scores of finished vectors, from ``vectors``. Raises TypeError if there is no head."""
        if self.head is None:
            raise TypeError("this model has no head")
        scores: Tensor = self.head(x, batch, self.pooler)
        return scores

    def forward(
        self,
        ids: Tensor | Batch,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        *,
        decoder_ids: Tensor | None = None,
        state: State | None = None,
        first: int = 0,
    ) -> Tensor:
        """ids (B, T) -> (B, T, D) without a head, (B, C) with a classifier's, (B, T, V) with a language model's.

        Args:
            ids: token ids, or a whole ``Batch``.
            mask: (B, T), true or 1 at real tokens; padding must be on the right.
            segments: (B, T), 0 in the first text of a pair and 1 in the second.
            decoder_ids: (B, T'), what the decoder of an encoder-decoder reads; T' takes T's place in the output.
            state: the state before layer ``first``, if it is known; else all layers run.

        Raises:
            ValueError: padding is not on the right, a text is empty, an encoder-decoder's decoder has no input, or a
                ``Batch`` comes with a mask, segments or decoder_ids.
        """
        batch = Batch.of(ids, mask, segments, decoder_ids)
        if self.head is None:
            return self.vectors(batch, state, first)
        if batch.cache is None:
            batch = replace(batch, query_position=self.head.query_position(batch))
        return self.apply_head(self.vectors(batch, state, first), batch)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Without dropout inside; afterwards every part is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


# --- How its published files are laid out -------------------------------------------------------------------------

C = TypeVar("C", bound=BackboneConfig)


@dataclass(frozen=True)
class Row:
    """One of minilm's modules ("ours"), and the module of a published file ("theirs") that contains its weight and
    bias.

    ``{i}`` is replaced by the number of a layer. A published matrix may be the transpose of minilm's, and may contain
    several of minilm's matrices ("fused"), as blocks of its rows after transposing:

        parts=3               [q; k; v]                      three blocks of equal size
        sizes=...             [q; k; v]                      blocks in these proportions
        by_heads=True         [q_1; k_1; v_1; q_2; ...]      the same, head after head
    """

    ours: str
    theirs: str
    transposed: bool = False
    part: int = 0  # the index of minilm's block
    parts: int = 1
    sizes: Callable[[Any], tuple[int, ...]] | None = None  # config -> the blocks' proportions; None: equal blocks
    by_heads: bool = False
    zero_bias: bool = False  # files have this bias, zero if our model has none; if ``bare``, they may have it
    bare: bool = False  # ``ours`` and ``theirs`` are names of single tensors, not of modules with a weight and a bias
    when: Callable[[Any], bool] | None = None  # config -> whether the row applies; None: always


@dataclass(frozen=True)
class Names:
    """What a family's published tensors are called: applied by ``minilm.checkpoints.names``."""

    rows: tuple[Row, ...]  # the backbone
    heads: dict[str, tuple[Row, ...]]  # task ("classify", "lm") -> rows of the family's own head
    prefix: dict[str, str]  # task -> the optional prefix of the backbone's names in files
    old: tuple[tuple[str, str], ...] = ()  # (old spelling, new spelling) of parts of their names
    ignored: tuple[str, ...] = ()  # patterns of tensors that files carry and nothing needs
    other_prefixes: tuple[str, ...] = ()  # of published classes with unsupported tasks
    nested: str = ""  # the text between prefix and name in a vision-language model

    @property
    def prefixes(self) -> tuple[str, ...]:
        """All that may stand before the backbone's rows, the longest first."""
        known = {*self.prefix.values(), *self.other_prefixes} - {""}
        return tuple(sorted(known, key=len, reverse=True))


def _nothing(_: Any) -> dict[str, Any]:
    return {}


def check_fixed(config: BackboneConfig, family: str, fixed: Mapping[str, Any]) -> None:
    """Raise UserError if a setting differs from the value that the family's published class always has."""
    ours = vars(config)
    for name, value in fixed.items():
        if ours[name] != value:
            raise UserError(f"{family} checkpoints have {name} = {value}, but this model has {ours[name]}")


@dataclass(frozen=True)
class Architecture(Generic[C]):
    """All that the rest of the project knows about one family of models."""

    title: str  # its name in reports: "GPT-2"
    config: type[C]  # its settings, a frozen dataclass whose defaults are the published class's
    model: Callable[[C], Backbone]
    initialize: Callable[[Any], None]  # random weights as the paper draws them
    classes: dict[str, str]  # task -> name of the published class
    language_modeling: Literal["causal", "masked", "seq2seq"]  # what its language models do
    names: Names
    classification_head: Callable[[C], HeadConfig]  # config -> the head that published classifiers were trained with
    language_head: Callable[[C], LanguageConfig]  # config -> the head of the published language models
    settings: tuple[tuple[str, ...], ...]  # rows (ours, theirs, older spellings ...) of config.json
    nested_in: tuple[str, ...] = ()  # model types whose config.json contains this one's under "text_config"
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of config.json, if the published class has others
    read: Callable[[dict[str, Any]], dict[str, Any]] = _nothing  # config.json -> settings that no row can express
    write: Callable[[C], dict[str, Any]] = _nothing  # config -> what config.json needs and no row can express
    switches: tuple[str, ...] = ()  # optional parts, each a bool in the config: "pooler", "decoder"
    tied_by_tensors: bool = False  # the tensors show if the language head is tied, not config.json
    float32: tuple[str, ...] = ()  # patterns of our tensors that stay float32 in a float16 model, for their range
