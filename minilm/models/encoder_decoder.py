"""An encoder that reads a text and a decoder that writes one: what T5 and BART share (Vaswani et al. 2017).

    memory = encoder(ids)                        reads to both sides
    y      = decoder(decoder ids, memory)        reads what is written so far, from left to right; each of its layers
                                                 attends to the memory too ("cross-attention")

The encoder's layers are numbered first, then the decoder's. Before the decoder's first layer, the encoder's output
becomes the state's ``memory``, and the decoder's token embeddings become its ``x``.

In training, the decoder reads the labels, shifted one position to the right behind a start token. For classification it
reads the text itself, shifted in the same way, and the head reads the vector at the text's last token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from minilm.errors import UserError
from minilm.models.architecture import Backbone, BackboneConfig
from minilm.models.batch import Batch, State
from minilm.models.heads import LanguageHead


@dataclass(frozen=True)
class EncoderDecoderConfig(BackboneConfig):
    """The settings that all of them have; ``depth`` is the encoder's."""

    decoder_depth: int = 0  # layers of the decoder; 0: as many
    start_token: int = 0  # what the decoder reads first
    pad_token: int = 0  # the decoder's input in place of an ignored label


def check_published(published: dict[str, Any]) -> None:
    """Raise UserError for a ``config.json`` with which the published class lacks what its decoder or its head needs."""
    kind = str((published.get("architectures") or [""])[0])
    if published.get("is_encoder_decoder") is False and kind.endswith(("Generation", "SequenceClassification")):
        raise UserError(f"config.json: is_encoder_decoder = false is not supported in {kind}")
    if kind.endswith("SequenceClassification") and published.get("eos_token_id", 0) is None:
        raise UserError(f"config.json: eos_token_id is null, but {kind} reads the vector of that token")
    if not kind.endswith("EncoderModel") and published.get("pad_token_id", 0) is None:
        raise UserError("config.json: pad_token_id is null, but the decoder reads it in place of ignored labels")


class Stack(nn.Module, ABC):
    """The encoder or the decoder. A layer is called as ``layer(x, mask, batch, memory, cache, query_position)``."""

    layers: nn.ModuleList
    norm: nn.Module | None  # the final norm

    def __init__(self, *, decoder: bool) -> None:
        super().__init__()
        self.is_decoder, self.norm = decoder, None

    @abstractmethod
    def mask(self, batch: Batch, length: int) -> object:
        """The mask for the layers, for the positions of x."""

    def finish(self, x: Tensor) -> Tensor:
        """The stack's finished vectors, (B, T or 1, D)."""
        return x if self.norm is None else self.norm(x)


class EncoderDecoder(Backbone):
    """An encoder and a decoder, or only the encoder."""

    config: EncoderDecoderConfig
    encoder: Stack
    decoder: Stack | None

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__(config)
        self.start_token = config.start_token

    @property
    def stacks(self) -> list[Stack]:
        return [self.encoder] if self.decoder is None else [self.encoder, self.decoder]

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [layer for stack in self.stacks for layer in stack.layers]

    def norms_after(self, layer: int) -> Sequence[nn.Module]:
        return [stack.norm for stack in self.stacks[int(layer >= self.config.depth) :] if stack.norm is not None]

    @abstractmethod
    def embed_ids(self, ids: Tensor, batch: Batch, *, decoder: bool) -> Tensor:
        """What the encoder or the decoder starts from, (B, T, D)."""

    def embed(self, batch: Batch) -> State:
        """The state before the first layer; in later steps of a generation, before the decoder's first."""
        memory = batch.cache.memory if batch.cache is not None else None
        if memory is not None:
            return self.enter_decoder(batch, memory)
        return State(self.embed_ids(batch.ids, batch, decoder=False))

    def enter_decoder(self, batch: Batch, memory: Tensor) -> State:
        """The state before the decoder's first layer. Without ``decoder_ids`` a language model reads the labels, and
        another model reads the text, each moved one place to the right.

        Raises ValueError for a language model with neither decoder_ids nor labels."""
        ids = batch.decoder_ids
        if ids is None:
            wanted = batch.labels if isinstance(self.head, LanguageHead) else batch.ids
            if wanted is None:
                raise ValueError("the language model of an encoder-decoder needs decoder_ids or labels")
            ids = self.shift_right(wanted)
        if batch.cache is not None:
            batch.cache.memory = memory
        return State(self.embed_ids(ids, batch, decoder=True), memory=memory)

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        depth = self.config.depth
        if first < depth and state.memory is None:
            state = self._run(self.encoder, state, batch, range(first, min(last, depth)))
        if last > depth and self.decoder is not None:
            if state.memory is None:
                state = self.enter_decoder(batch, self.finish(state))
            state = self._run(self.decoder, state, batch, range(max(first, depth), last))
        return state

    def _run(self, stack: Stack, state: State, batch: Batch, layers: range) -> State:
        x, mask, blocks = state.x, stack.mask(batch, state.x.shape[1]), self.blocks
        for i in layers:
            cache = batch.layer_cache(i) if stack.is_decoder else None
            x = blocks[i](x, mask, batch, state.memory, cache, self.query_position(batch, i))
        return replace(state, x=x)

    def finish(self, state: State) -> Tensor:
        """The finished vectors, (B, T or 1, D), of the stack that the state is in."""
        return self.stacks[int(state.memory is not None)].finish(state.x)

    def shift_right(self, labels: Tensor) -> Tensor:
        """What a decoder reads to predict ``labels`` (B, T'): the start token, then all of them but the last."""
        earlier = labels[:, :-1].masked_fill(labels[:, :-1] < 0, self.config.pad_token)
        return torch.cat((labels.new_full((labels.shape[0], 1), self.config.start_token), earlier), dim=1)
