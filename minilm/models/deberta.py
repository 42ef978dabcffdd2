"""DeBERTa: attention with separate vectors for content and position (He et al. 2021a, "DeBERTa: Decoding-enhanced BERT
with Disentangled Attention").

BERT adds token and position embeddings before its first layer, so all layers see only their sum. DeBERTa gives each
token one vector for its content, and each distance between two tokens one for its position. The score of query ``t``
and key ``s`` has three terms ("disentangled attention", section 3.1), in each head:

    A[t, s] = Q_t . K_s  +  Q_t . K'_r  +  K_s . Q'_r               r = row(t - s),  Q' = P W_q',  K' = P W_k'
              content to    content to     position to
              content       position       content

    attention = softmax(A / sqrt(3 D/H) + padding) V                three terms, hence the 3

``P`` (2k, D) is the table of relative positions, which all layers share; row(d) = d + k, cut off to 0 .. 2k-1. There is
no term "position to position", as it would not depend on the text. (In the paper's third term the distance is s - t;
the published code, which this follows, has t - s.) The rest is BERT's:

    x_0     = norm(token[ids])                                      more terms by setting: position[0..T-1], segment
    a_l     = norm(x_l + attention(x_l))
    x_{l+1} = norm(a_l + down(gelu(up(a_l))))
    y       = x_L

The paper's other idea, absolute positions that join just before masked words are guessed (the "enhanced mask decoder",
section 3.2), is for pretraining; the published classes do without it.

Version 2 (the large models of the same paper) has another vocabulary, and its network changed in three things:

- ``W_q'`` and ``W_k'`` are the layer's own ``W_q`` and ``W_k``, so positions cost no parameters but P (``shared``).
- ``row`` sorts distances into buckets: the nearest k/2 to each side have one each, those farther off share the
  other k/2 in equal steps of their logarithm, much as in T5. A norm follows the table.
- A convolution over neighbouring tokens joins the first layer's output (not in version 3):

    x_1    <- norm(x_1 + gelu(convolution(x_0)))

Version 3 (He et al. 2021b) differs by its training: as in ELECTRA (Clark et al. 2020), a small generator fills in
masked words, and DeBERTa learns which words were replaced. It adds a table of its own to the generator's token table,
which its gradient does not reach ("gradient-disentangled embedding sharing"); files hold the sum. mDeBERTa is the same
for about 100 languages. The names of their files are in ``deberta_family.py``. The heads:

    which word was masked here?    scores = norm(gelu(dense(y))) token^T + b
    which class?                   scores = output(gelu(dense(y_0)))                     at [CLS]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from minilm.errors import UserError
from minilm.models.architecture import Backbone, BackboneConfig
from minilm.models.attention import attend
from minilm.models.batch import Batch, State, select_position
from minilm.models.dropout import Dropout
from minilm.models.layers import ACTIVATIONS, MLP, draw_weights
from minilm.models.masks import padding_mask


@dataclass(frozen=True)
class DebertaConfig(BackboneConfig):
    """DeBERTa's settings; the defaults are those of the published class of version 2, which has all parts off."""

    vocab_size: int = 128100
    context: int = 512  # longest text, in tokens
    width: int = 1536
    embedding_width: int = 0  # of the tables of tokens, positions and segments; 0: the width
    depth: int = 24
    heads: int = 24
    mlp_width: int = 6144
    activation: str = "gelu"
    segments: int = 0  # kinds of segments; 0: no table
    positions: bool = True  # a table of absolute positions, added to the tokens
    relative: bool = False  # a table of relative positions, for attention
    content_to_position: bool = False  # the second term of a score
    position_to_content: bool = False  # the third
    shared: bool = False  # relative positions pass through the content's own matrices
    key_bias: bool = True  # version 1 has none
    max_distance: int = 0  # from here on, all distances share a row; 0: the context
    buckets: int = 0  # k, if distances are sorted into buckets; 0: one row for each distance
    relative_norm: bool = False  # a norm after the table of relative positions
    kernel: int = 0  # tokens that the first layer's convolution reads; 0: no convolution
    kernel_groups: int = 1
    kernel_activation: str = "tanh"
    dropout: float = 0.1  # after the embeddings and each sublayer, on relative positions
    attention_dropout: float = 0.1  # on the attention weights
    pooler_activation: str = "gelu"  # in the family's classification head
    pooler_dropout: float = 0.0  # before its dense layer
    head_dropout: float = 0.1  # before its last layer
    norm_eps: float = 1e-7
    tied: bool = True  # a language head shares the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        resolve = object.__setattr__  # how a frozen dataclass completes itself
        resolve(self, "embedding_width", self.embedding_width or self.width)
        resolve(self, "max_distance", self.max_distance or self.context)
        if self.buckets == 1 or (self.kernel and (self.kernel % 2 == 0 or self.width % self.kernel_groups)):
            raise UserError("buckets must not be 1, kernel must be odd, and kernel_groups must divide the width")

    @property
    def reach(self) -> int:
        """k: the table of relative positions has 2k rows."""
        return self.buckets or self.max_distance


def bucket(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """The bucket of each distance, from 1 - buckets to buckets - 1: its own up to ``buckets / 2`` in size; those below
    ``max_distance`` share the others, in equal steps of their logarithm. (``relative_rows`` cuts off larger ones.)"""
    near, size = buckets // 2, distance.abs()
    steps = torch.log(size.clamp(min=near) / near) / torch.log(torch.tensor((max_distance - 1) / near))  # 0 to 1
    far = ((steps * (near - 1)).ceil() + near).long()
    return torch.where(size <= near, distance, far * distance.sign())


def relative_rows(length: int, config: DebertaConfig) -> Tensor:
    """The row of the table for each distance from 1 - T to T - 1: (2T - 1,)."""
    distance = torch.arange(1 - length, length)
    if config.buckets:
        distance = bucket(distance, config.buckets, config.max_distance)
    return (distance + config.reach).clamp(0, 2 * config.reach - 1)


@dataclass(frozen=True)
class Relative:
    """Relative positions of T tokens. Only R rows of the table occur among their distances."""

    table: Tensor  # (2k, D)
    rows: slice  # those R
    index: Tensor  # (1, 1, T, T) which of the R belongs to query t and key s


class DebertaAttention(nn.Module):
    """Disentangled attention, see above. The second and third terms are added to the first as its mask."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        c, width, own = config, config.width, config.relative and not config.shared
        self.heads, self.dropout, self.position_dropout = c.heads, c.attention_dropout, Dropout(c.dropout)
        self.to_position, self.to_content = c.content_to_position, c.position_to_content
        self.scale = (width // c.heads * (1 + self.to_position + self.to_content)) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=c.key_bias)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.position_key = nn.Linear(width, width, bias=c.key_bias) if own and self.to_position else None
        self.position_query = nn.Linear(width, width) if own and self.to_content else None

    def forward(
        self, x: Tensor, mask: Tensor | None, relative: Relative | None, query_position: Tensor | None = None
    ) -> Tensor:
        """x (B, T, D), mask (B, 1, 1, T) -> (B, T, D), or (B, 1, D) with a ``query_position`` (B,)."""
        query = self.split(self.query(select_position(x, query_position)))  # (B, H, T or 1, D/H)
        key, value = self.split(self.key(x)), self.split(self.value(x))
        if relative is not None and (self.to_position or self.to_content):
            bias = self.scale * self.position_scores(query, key, relative, query_position)
            mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
        dropout = self.dropout if self.training else 0.0
        y = attend(query, key, value, mask, causal=False, scale=self.scale, p=dropout)
        return self.output(y.transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, H, T, D/H)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def position_scores(self, query: Tensor, key: Tensor, relative: Relative, query_position: Tensor | None) -> Tensor:
        """The second and the third term, (B, H, T or 1, T). Each is computed for all R rows, then picked by distance:
        for the third, from (B, H, T keys, R rows), so both sides are transposed."""
        positions = self.position_dropout(relative.table)[None, relative.rows]  # (1, R, D)
        index = select_position(relative.index, query_position)  # (1 or B, 1, T or 1, T)
        index = index.expand(*query.shape[:3], -1)
        terms = []
        if self.to_position:
            position_key = self.split((self.position_key or self.key)(positions))  # (1, H, R, D/H)
            terms.append((query @ position_key.mT).gather(-1, index))
        if self.to_content:
            position_query = self.split((self.position_query or self.query)(positions))
            terms.append((key @ position_query.mT).gather(-1, index.mT).mT)
        return terms[0] + terms[1] if len(terms) == 2 else terms[0]


class Convolution(nn.Module):
    """A convolution over the embeddings x, added to the first layer's output y: norm(y + act(convolution(x)))."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        width, kernel = config.width, config.kernel
        self.kernel = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=config.kernel_groups)
        self.norm, self.dropout = nn.LayerNorm(width, eps=config.norm_eps), Dropout(config.dropout)
        self.activation = ACTIVATIONS[config.kernel_activation]

    def forward(self, x: Tensor, y: Tensor, query_position: Tensor | None = None) -> Tensor:
        """x (B, T, D), zero at padding; y (B, T or 1, D) -> (B, T or 1, D)."""
        near = self.kernel(x.mT).mT.contiguous()  # the kernel wants (B, D, T)
        near = self.activation(self.dropout(near))
        return self.norm(y + select_position(near, query_position))


class DebertaLayer(nn.Module):
    """One layer: attention to every position, then the MLP, each added to its input and normalised."""

    def __init__(self, config: DebertaConfig, *, convolution: bool) -> None:
        super().__init__()
        self.attention = DebertaAttention(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.convolution = Convolution(config) if convolution else None
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None, relative: Relative | None, query_position: Tensor | None = None
    ) -> Tensor:
        """x (B, T, D), mask (B, 1, 1, T) -> (B, T, D), or (B, 1, D) with a ``query_position`` (B,)."""
        y = self.attention(x, mask, relative, query_position)
        y = self.attention_norm(select_position(x, query_position) + self.dropout(y))
        y = self.mlp_norm(y + self.dropout(self.mlp(y)))
        return y if self.convolution is None else self.convolution(x, y, query_position)


class DebertaEmbeddings(nn.Module):
    """Token embeddings, and if the config has them, position and segment embeddings; and the relative positions."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        c, width = config, config.embedding_width
        self.token = nn.Embedding(c.vocab_size, width)
        self.position = nn.Embedding(c.context, width) if c.positions else None
        self.segment = nn.Embedding(c.segments, width) if c.segments else None
        self.projection = nn.Linear(width, c.width, bias=False) if width != c.width else None
        self.norm, self.dropout = nn.LayerNorm(c.width, eps=c.norm_eps), Dropout(c.dropout)
        self.relative = nn.Embedding(2 * c.reach, c.width) if c.relative else None
        self.relative_norm = nn.LayerNorm(c.width, eps=c.norm_eps) if c.relative_norm else None

    def forward(self, batch: Batch) -> Tensor:
        """(B, T, D), zero at padding, so that the convolution sees the same at padding as beyond the ends of a text."""
        x = self.token(batch.ids)
        if self.position is not None:
            x = x + self.position(batch.position_numbers())
        if self.segment is not None:
            one_text = batch.segments is None or self.segment.num_embeddings == 1
            x = x + (self.segment.weight[0] if one_text else self.segment(batch.segments))
        x = self.norm(x if self.projection is None else self.projection(x))
        return self.dropout(x if batch.mask is None else x * batch.mask[..., None])


class Deberta(Backbone):
    """The encoder."""

    config: DebertaConfig
    embeddings: DebertaEmbeddings

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__(config)
        self.embeddings = DebertaEmbeddings(config)
        self.layers = nn.ModuleList(
            DebertaLayer(config, convolution=i == 0 and config.kernel > 0) for i in range(config.depth)
        )

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    @property
    def context(self) -> int:
        return self.config.context

    def embed(self, batch: Batch) -> State:
        return State(self.embeddings(batch))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        x, mask, relative = state.x, padding_mask(batch), self.relative(batch)
        for i in range(first, last):
            x = self.layers[i](x, mask, relative, self.query_position(batch, i))
        return replace(state, x=x)

    def relative(self, batch: Batch) -> Relative | None:
        """The relative positions of the batch's tokens, the same in all layers."""
        if self.embeddings.relative is None:
            return None
        table, norm = self.embeddings.relative.weight, self.embeddings.relative_norm
        length, device = batch.ids.shape[1], batch.ids.device
        rows = relative_rows(length, self.config)  # computed on the CPU: no device rounds a distance to another bucket
        first, last = 0, 2 * self.config.reach - 1
        if not torch.compiler.is_exporting():  # the graph is for texts of any length
            first, last = int(rows.min()), int(rows.max())
        places = torch.arange(length, device=device)
        distance = places[:, None] - places + length - 1  # (T, T) from 0
        index = (rows - first).to(device)[distance]
        return Relative(table if norm is None else norm(table), slice(first, last + 1), index[None, None])


def initialize(model: Deberta) -> None:
    """N(0, 0.02^2), zero biases, unit norms, as the published code draws them."""
    draw_weights(model)
