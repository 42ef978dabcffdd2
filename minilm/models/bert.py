"""BERT: an encoder that attends to both sides (Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional
Transformers for Language Understanding"). RoBERTa is one too (Liu et al. 2019, "RoBERTa: A Robustly Optimized BERT
Pretraining Approach").

Every position has a vector of width ``D``. The input vector is the sum of a token, a position and a segment
embedding. Each of ``L`` layers adds the output of attention, which combines the vectors of all positions, then
the output of the MLP, and normalises both sums:

    x_0     = norm(token[ids] + position[0..T-1] + segment[segments])
    a_l     = norm(x_l + attention(x_l))         attention(Q, K, V) = softmax(Q K^T / sqrt(D/H) + padding) V
    x_{l+1} = norm(a_l + down(gelu(up(a_l))))
    y       = x_L

``Q``, ``K`` and ``V`` are ``x W_q``, ``x W_k`` and ``x W_v``. Each of ``H`` heads computes the formula on its own D/H
numbers of them, and a last matrix maps all heads' results to the output (``gpt2.py`` explains attention). ``padding``
is minus infinity if the key is padding, and 0 otherwise.

``norm`` brings the ``D`` numbers at each position to mean 0 and variance 1, then scales and shifts each (LayerNorm, Ba
et al. 2016). It comes after each sublayer ("post-norm"), as in Vaswani et al. 2017, so ``y`` is normalised already.

A text is read as ``[CLS] text [SEP]``, a pair as ``[CLS] first [SEP] second [SEP]``; segments are 0 up to the first
[SEP] and 1 after it. A model that sees the next word learns nothing from predicting it. So BERT was trained on two
other tasks, each with its head (15% of the tokens were to be predicted, most of them hidden by a mask token; the
formulas are the published code's):

    which word was masked here?     scores = norm(gelu(dense(y))) token^T + b            at every position
    does the second text follow?    scores = W tanh(dense(y_0)) + b                      at [CLS], position 0

The second head's ``tanh(dense(.))`` is the pooler. To classify texts, keep it and learn new ``W`` and ``b``.

RoBERTa, XLM-RoBERTa (Conneau et al. 2020) and CamemBERT (Martin et al. 2020) learned only the first task, from more
text: they have one kind of segment, the first rows of their position table are not for tokens, and their classifiers
learn a dense layer of their own in the pooler's place: ``scores = output(tanh(dense(y_0)))`` at <s>.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from minilm.errors import UserError
from minilm.models.architecture import Architecture, Backbone, BackboneConfig, Names, Row
from minilm.models.batch import Batch, State, select_position
from minilm.models.dropout import Dropout
from minilm.models.heads import HeadConfig, LanguageConfig, Pooler
from minilm.models.layers import MLP, Attention, draw_weights
from minilm.models.masks import padding_mask


@dataclass(frozen=True)
class EncoderConfig(BackboneConfig):
    """The settings of BERT's layers, which ELECTRA and MPNet share; the defaults are those of the base model."""

    vocab_size: int = 30522
    context: int = 512  # longest text, in tokens
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    activation: str = "gelu"
    dropout: float = 0.1  # after the embeddings and each sublayer
    attention_dropout: float = 0.1  # on the attention weights
    norm_eps: float = 1e-12
    tied: bool = True  # a language head shares the token embedding


@dataclass(frozen=True)
class BertConfig(EncoderConfig):
    """BERT's settings; the defaults are those of the base model, uncased."""

    segments: int = 2  # kinds of segments
    first_position: int = 0  # the first token's row in the position table (RoBERTa: 2)
    pooler: bool = True  # a language model has none
    head_dropout: float = 0.1  # in the family's classification head


class BertLayer(nn.Module):
    """One layer: attention to every position, then the MLP, each added to its input and normalised."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, dropout=config.attention_dropout)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, query_position: Tensor | None = None) -> Tensor:
        """x (B, T, D), mask (B, 1, 1, T) -> (B, T, D), or (B, 1, D) with a ``query_position`` (B,).

        The mask may also hold numbers that are added to the scores, (B or 1, H, T, T), as MPNet's does.
        """
        y = self.attention(x, mask, query_position=query_position)
        x = self.attention_norm(select_position(x, query_position) + self.dropout(y))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class BertEmbeddings(nn.Module):
    """The sum of learned token, position and segment embeddings."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.first_position = config.first_position
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.first_position + config.context, config.width)
        self.segment = nn.Embedding(config.segments, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, ids: Tensor, positions: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D). Without ``segments``, all tokens are in segment 0."""
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        where = self.position(positions + self.first_position)  # (T, D) for all texts, or (B, T, D)
        one_text = segments is None or self.segment.num_embeddings == 1
        which = self.segment.weight[0] if one_text else self.segment(segments)  # (D,) or (B, T, D)
        return self.dropout(self.norm(self.token(ids) + which + where))


class Bert(Backbone):
    """The encoder."""

    config: BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.embeddings = BertEmbeddings(config)
        self.layers = nn.ModuleList(BertLayer(config) for _ in range(config.depth))
        self.pooler = Pooler(config.width) if config.pooler else None

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    @property
    def context(self) -> int:
        return self.config.context

    def embed(self, batch: Batch) -> State:
        return State(self.embeddings(batch.ids, batch.positions, batch.segments))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        x, mask = state.x, padding_mask(batch)
        for i in range(first, last):
            x = self.layers[i](x, mask, self.query_position(batch, i))
        return replace(state, x=x)


def initialize(model: Bert) -> None:
    """As the paper's code draws them: N(0, 0.02^2) cut off at two deviations, zero biases, unit norms."""
    draw_weights(model, truncated=True)


# --- The published checkpoints ------------------------------------------------------------------------------

NAMES = Names(
    prefix={"encode": "", "classify": "bert.", "lm": "bert."},
    rows=(
        Row("embeddings.token", "embeddings.word_embeddings"),
        Row("embeddings.position", "embeddings.position_embeddings"),
        Row("embeddings.segment", "embeddings.token_type_embeddings"),
        Row("embeddings.norm", "embeddings.LayerNorm"),
        Row("layers.{i}.attention.query", "encoder.layer.{i}.attention.self.query"),
        Row("layers.{i}.attention.key", "encoder.layer.{i}.attention.self.key"),
        Row("layers.{i}.attention.value", "encoder.layer.{i}.attention.self.value"),
        Row("layers.{i}.attention.output", "encoder.layer.{i}.attention.output.dense"),
        Row("layers.{i}.attention_norm", "encoder.layer.{i}.attention.output.LayerNorm"),
        Row("layers.{i}.mlp.up", "encoder.layer.{i}.intermediate.dense"),
        Row("layers.{i}.mlp.down", "encoder.layer.{i}.output.dense"),
        Row("layers.{i}.mlp_norm", "encoder.layer.{i}.output.LayerNorm"),
        Row("pooler.dense", "pooler.dense"),
    ),
    heads={
        "classify": (Row("head.output", "classifier"),),
        "lm": (
            Row("head.dense", "cls.predictions.transform.dense"),
            Row("head.norm", "cls.predictions.transform.LayerNorm"),
            Row("head.output", "cls.predictions.decoder"),
            # Files have the bias under one name or both; if they differ, the untied decoder's counts.
            Row("head.output.bias", "cls.predictions.bias", bare=True),
        ),
    },
    old=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
    # A buffer of 0..T-1, and heads of other tasks: does the second text follow (BERT, HerBERT), and where in
    # a text is the answer.
    ignored=("embeddings.position_ids", "cls.seq_relationship.*", "cls.sso.*", "qa_outputs.*"),
)


def read(published: dict[str, Any]) -> dict[str, Any]:
    """What no row says: a classifier's dropout is that of the layers, unless it has its own."""
    if published.get("is_decoder") or published.get("add_cross_attention"):
        raise UserError("config.json: is_decoder: an encoder with causal attention is not supported")
    if published.get("classifier_dropout") is None and "hidden_dropout_prob" in published:
        return {"head_dropout": published["hidden_dropout_prob"]}
    return {}


ARCHITECTURE = Architecture(
    title="BERT",
    config=BertConfig,
    model=Bert,
    initialize=initialize,
    classes={"encode": "BertModel", "classify": "BertForSequenceClassification", "lm": "BertForMaskedLM"},
    language_modeling="masked",
    names=NAMES,
    classification_head=lambda c: HeadConfig(pooling="pooler", dropout=c.head_dropout),
    language_head=lambda c: LanguageConfig(c.width, c.activation, c.norm_eps, bias=True),
    settings=(
        ("vocab_size", "vocab_size"),
        ("context", "max_position_embeddings"),
        ("width", "hidden_size"),
        ("depth", "num_hidden_layers"),
        ("heads", "num_attention_heads"),
        ("mlp_width", "intermediate_size"),
        ("activation", "hidden_act"),
        ("segments", "type_vocab_size"),
        ("dropout", "hidden_dropout_prob"),
        ("attention_dropout", "attention_probs_dropout_prob"),
        ("head_dropout", "classifier_dropout"),
        ("norm_eps", "layer_norm_eps"),
        ("tied", "tie_word_embeddings"),
    ),
    read=read,
    switches=("pooler",),
)


# --- RoBERTa, XLM-RoBERTa and CamemBERT ----------------------------------------------------------------------
# In their position table, row pad_id is for padding and the rows before it are never used. Tokens begin at
# row pad_id + 1, and the longest text is that much shorter than the table.


def read_roberta(published: dict[str, Any]) -> dict[str, Any]:
    """BERT's, and where in the position table the tokens are."""
    first = published.get("pad_token_id", 1) + 1
    context = published.get("max_position_embeddings", 512) - first
    return {**read(published), "first_position": first, "context": context}


def write_roberta(config: BertConfig) -> dict[str, Any]:
    """The inverse of ``read_roberta``: the length of the table, and which token pads."""
    rows = config.first_position + config.context
    return {"max_position_embeddings": rows, "pad_token_id": config.first_position - 1}


ROBERTA = replace(
    ARCHITECTURE,
    title="RoBERTa",
    classes={"encode": "RobertaModel", "classify": "RobertaForSequenceClassification", "lm": "RobertaForMaskedLM"},
    names=replace(
        NAMES,
        prefix={"encode": "", "classify": "roberta.", "lm": "roberta."},
        heads={
            "classify": (Row("head.dense", "classifier.dense"), Row("head.output", "classifier.out_proj")),
            "lm": (
                Row("head.dense", "lm_head.dense"),
                Row("head.norm", "lm_head.layer_norm"),
                Row("head.output", "lm_head.decoder"),
                Row("head.output.bias", "lm_head.bias", bare=True),
            ),
        },
    ),
    classification_head=lambda c: HeadConfig(
        pooling="cls", hidden=c.width, activation="tanh", dropout=c.head_dropout, input_dropout=c.head_dropout
    ),
    language_head=lambda c: LanguageConfig(c.width, "gelu", c.norm_eps, bias=True),
    settings=tuple(row for row in ARCHITECTURE.settings if row[0] != "context"),
    read=read_roberta,
    write=write_roberta,
)


def _relative(title: str, family: str) -> Architecture[BertConfig]:
    """RoBERTa under another name: the same network and names of tensors, trained on other texts."""
    return replace(
        ROBERTA, title=title, classes={task: name.replace("Roberta", family) for task, name in ROBERTA.classes.items()}
    )


XLM_ROBERTA = _relative("XLM-RoBERTa", "XLMRoberta")  # 100 languages
CAMEMBERT = _relative("CamemBERT", "Camembert")  # French (Martin et al. 2020)
