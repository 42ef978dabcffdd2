"""Heads: they map a backbone's vectors to scores of classes or words.

A classification head first picks one vector per text (pooling), then maps it to one score per class:

    z = pool(x)                                     (B, D)
    z = act(norm(dense(dropout(z))))                if the head has a hidden layer; most heads have no norm
    scores = output(dropout(z))                     (B, C)

In ModernBERT's head the norm comes after the activation: ``z = norm(act(dense(z)))``.

The head of every published family has this form, with the settings in ``classification_head`` at the end of the
family's file; so has minilm's head (``mlp_head``). A language head maps each vector to one score per word, usually with
the token embedding itself as its matrix E:

    scores = norm(act(dense(x))) E^T + b            masked-language models
    scores = x E^T                                  decoders
    scores = (x / sqrt(D)) E^T                      T5 of version 1.0; umT5, with a matrix of its own for E
    scores = c tanh(x E^T / c)                      Gemma 2, whose scores are capped at c

A head is called as ``head(x, batch, pooler)`` with the backbone's output ``x (B, T, D)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minilm.errors import UserError
from minilm.models.batch import Batch, select_position
from minilm.models.dropout import Dropout
from minilm.models.layers import ACTIVATIONS

POOLINGS = ("cls", "last", "mean", "pooler", "max", "mean_sqrt_len", "weighted_mean")


def pool(x: Tensor, batch: Batch, how: str, pooler: nn.Module | None = None) -> Tensor:
    """One vector per text, (B, T, D) -> (B, D): the first token's ("cls"), the last real token's ("last"), the mean
    over real tokens ("mean"), or the first token's passed through the backbone's own ``pooler`` ("pooler").

    Sentence models have three more: the highest number in each dimension ("max"), the sum divided by the square root of
    the number of tokens ("mean_sqrt_len"), and a mean in which token t counts t times ("weighted_mean").

    Raises ValueError for an unknown name, and for "pooler" if the backbone has none.
    """
    if how == "cls":
        return x[:, 0]
    if how == "last":
        return select_position(x, batch.last())[:, 0]
    if how == "mean" and batch.mask is None:
        return x.mean(dim=1)
    if how in ("mean", "max", "mean_sqrt_len", "weighted_mean"):
        real = torch.ones_like(x[..., :1], dtype=torch.bool) if batch.mask is None else batch.mask.unsqueeze(-1)
        if how == "max":
            return x.masked_fill(~real, float("-inf")).amax(dim=1)
        weights = real  # (B, T, 1)
        if how == "weighted_mean":
            weights = real * torch.arange(1, x.shape[1] + 1, device=x.device).unsqueeze(-1)
        total = weights.sum(dim=1)
        return (x * weights).sum(dim=1) / (total.sqrt() if how == "mean_sqrt_len" else total)
    if how == "pooler" and pooler is not None:
        return pooler(x[:, 0])
    raise ValueError(f"unknown pooling {how!r}, or this backbone has no pooler")


class Pooler(nn.Module):
    """A text's vector, computed from that of its first token: ``tanh(dense(x))``, as in BERT's published code
    (the paper does not have it)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, D), the vectors at [CLS] -> (B, D)."""
        return torch.tanh(self.dense(x))


class Head(nn.Module, ABC):
    """The base class of heads, whose input is a backbone's output."""

    @abstractmethod
    def forward(self, x: Tensor, batch: Batch, pooler: nn.Module | None = None) -> Tensor:
        """x (B, T, D) -> scores. With ``query_position``, x may be (B, 1, D), only these positions."""

    def query_position(self, batch: Batch) -> Tensor | None:
        """(B,) the only position of each text that this head uses; None if it uses several."""
        return None


@dataclass(frozen=True)
class HeadConfig:
    """A classification head's settings."""

    pooling: str = "last"  # one of those of ``pool``
    hidden: int = 0  # width of the hidden layer; 0: none
    norm: bool = False  # LayerNorm after the dense layer
    norm_last: bool = False  # it follows the activation instead
    norm_eps: float = 1e-5
    activation: str = "gelu"
    dropout: float = 0.0  # before the last layer
    input_dropout: float = 0.0  # before the dense layer
    bias: bool = True  # of the last layer
    dense_bias: bool = True
    norm_bias: bool = True

    def __post_init__(self) -> None:
        """Raises UserError for an unknown pooling."""
        if self.pooling not in POOLINGS:
            raise UserError(f"pooling must be one of {', '.join(POOLINGS)}, got {str(self.pooling)[:100]!r}")


class ClassificationHead(Head):
    """Pooling, a hidden layer if ``config`` has one, one score per class."""

    def __init__(self, width: int, classes: int, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.dense = nn.Linear(width, hidden, bias=config.dense_bias) if hidden else None
        has_norm = hidden and config.norm
        self.norm = nn.LayerNorm(hidden, eps=config.norm_eps, bias=config.norm_bias) if has_norm else None
        self.activation = ACTIVATIONS[config.activation]
        self.input_dropout, self.dropout = Dropout(config.input_dropout), Dropout(config.dropout)
        self.output = nn.Linear(config.hidden or width, classes, bias=config.bias)

    def forward(self, x: Tensor, batch: Batch, pooler: nn.Module | None = None) -> Tensor:
        """x (B, T or 1, D) -> scores (B, C)."""
        return self.classify(self.pooled(x, batch, pooler))

    def query_position(self, batch: Batch) -> Tensor | None:
        """(B,) the position that pooling uses; None if it uses all positions."""
        if self.config.pooling not in ("cls", "last", "pooler"):
            return None
        last = batch.last()
        return last if self.config.pooling == "last" else torch.zeros_like(last)

    def pooled(self, x: Tensor, batch: Batch, pooler: nn.Module | None = None) -> Tensor:
        """x (B, T or 1, D) -> one vector per text, (B, D)."""
        return pool(x, batch, self.config.pooling, pooler)

    def classify(self, z: Tensor) -> Tensor:
        """Pooled vectors z (B, D) -> scores (B, C). If the backbone is frozen, z never changes and can be stored."""
        if self.dense is not None:
            z = self.dense(self.input_dropout(z))
            if self.norm is None:
                z = self.activation(z)
            else:
                z = self.norm(self.activation(z)) if self.config.norm_last else self.activation(self.norm(z))
        return self.output(self.dropout(z))


def mlp_head(
    width: int,
    *,
    hidden: int = 0,
    pooling: str = "last",
    norm: bool = False,
    activation: str = "gelu",
    dropout: float = 0.1,
) -> HeadConfig:
    """The settings of minilm's head: one hidden layer; ``hidden`` 0: as wide as the model."""
    return HeadConfig(pooling=pooling, hidden=hidden or width, norm=norm, activation=activation, dropout=dropout)


@dataclass(frozen=True)
class LanguageConfig:
    """A language head's settings."""

    hidden: int = 0  # width of the transform before the vocabulary; 0: no transform
    activation: str = "gelu"
    norm_eps: float = 1e-12
    bias: bool = False  # one number per word
    dense_bias: bool = True  # of the transform's matrix
    norm_bias: bool = True  # of its norm
    scale: float = 1.0  # factor on the vectors before they meet the words (T5 1.0 and umT5: 1/sqrt(D))
    cap: float = 0.0  # c: no score is larger, nor smaller than -c; 0: there is no cap


class LanguageHead(Head):
    """One score per word of the vocabulary, at each position, or at those that have a label.

    The vocabulary makes the last product the widest of the model, and masked-language training predicts 15% of the
    positions. The scores of the other 85% are not computed.
    """

    def __init__(
        self, width: int, vocab_size: int, config: LanguageConfig, tied_to: nn.Embedding | None = None
    ) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.dense = nn.Linear(width, hidden, bias=config.dense_bias) if hidden else None
        self.norm = nn.LayerNorm(hidden, eps=config.norm_eps, bias=config.norm_bias) if hidden else None
        self.activation = ACTIVATIONS[config.activation]
        self.output = nn.Linear(config.hidden or width, vocab_size, bias=config.bias)
        if tied_to is not None:
            self.output.weight = tied_to.weight

    def forward(self, x: Tensor, batch: Batch, pooler: nn.Module | None = None) -> Tensor:
        """x (B, T, D) -> scores (B, T, V). With ``batch.labels`` (B, T), negative at positions without a label: (N, V),
        the scores of the N positions that have one, row after row. In an encoder-decoder, T is the decoder's T'."""
        if batch.labels is not None:
            x = x[batch.labels >= 0]  # (N, D)
        if self.dense is not None and self.norm is not None:
            x = self.norm(self.activation(self.dense(x)))
        scores = self.output(x * self.config.scale if self.config.scale != 1.0 else x)
        return scores if not self.config.cap else self.config.cap * torch.tanh(scores / self.config.cap)
