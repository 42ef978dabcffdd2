"""Load adapters that change part of a token table, as if the whole table had been trained.

PEFT adapts a table E (V, D) with LoRA, or trains some of its rows ("trainable_token_indices"):

    E' = E + s (B A)^T         lora_embedding_A (r, V), lora_embedding_B (D, r)
    E'[i_k] = delta_k          trainable_tokens_delta (n, D), for the n tokens i

A tied language head uses E in the first case, and E' in the second. If the adapter is saved again, E' is one of PEFT's
"modules_to_save".
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from minilm.checkpoints.adapter_configs import INSTEAD, AdapterConfig
from minilm.checkpoints.adapter_forms import check_shape
from minilm.checkpoints.contents import HEAD, TOKENS
from minilm.checkpoints.files import Entry, Reader
from minilm.checkpoints.models import card_of
from minilm.checkpoints.names import Place, places_of_theirs, plain_name
from minilm.errors import UserError
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Backbone
from minilm.models.heads import LanguageHead

DELTA = "token_adapter.trainable_tokens_delta"


def may_untie(model: Backbone) -> bool:
    """Whether a language head can have another matrix than the token table. T5's cannot, as it scales its input only if
    both are one."""
    return isinstance(model.head, LanguageHead) and model.head.config.scale == 1.0


def changed_tables(
    model: Backbone,
    places: tuple[Place, ...],
    module: str,
    changes: Mapping[str, Entry],
    whole: Mapping[str, Tensor],
    config: AdapterConfig,
    reader: Reader,
) -> dict[str, Tensor]:
    """The values of minilm's parameters for a published table and its changes.

    whole: the fully trained tensors of the adapter, possibly with the table. Raises UserError for a table that is not
    the model's token table, and for changes in another form.
    """
    first = next(iter(changes.values()))
    plain = plain_name(f"{module}.weight", ARCHITECTURES[card_of(model).model_type].names)
    ours = [place.ours for place in places_of_theirs(plain, places)]
    if ours != [TOKENS] or model.start_token is not None:
        raise UserError(f"{first.file}: {first.name} changes part of a table, which minilm cannot load; {INSTEAD}")
    table = model.token_embedding.weight.detach()
    before = whole.get(TOKENS, table)
    if DELTA in changes:
        if len(changes) > 1:
            raise UserError(f"{first.file}: adapts {module} and trains some of its rows; {INSTEAD}")
        new = _with_rows(before, changes[DELTA], _indices(module, config), config, reader)
        shared = isinstance(model.head, LanguageHead) and model.head.output.weight is model.token_embedding.weight
        return {TOKENS: new, HEAD: new} if shared else {TOKENS: new}
    if config.dora or changes.keys() != {"lora_embedding_A", "lora_embedding_B"}:
        why = "is adapted with DoRA" if config.dora else "has no A or no B"
        raise UserError(f"{first.file}: {module} {why}, which is not supported; {INSTEAD}")
    rank, (entries, width) = config.rank_of(module), before.shape
    check_shape(changes["lora_embedding_A"], (rank, entries), config)
    check_shape(changes["lora_embedding_B"], (width, rank), config)
    scale = config.alpha_of(module) / (math.sqrt(rank) if config.rank_stabilized else rank)
    a, b = (reader.view(changes[f"lora_embedding_{x}"]).to(before) for x in "AB")
    return {TOKENS: before + scale * (b @ a).T}


def _with_rows(before: Tensor, delta: Entry, indices: list[int], config: AdapterConfig, reader: Reader) -> Tensor:
    check_shape(delta, (len(indices), before.shape[1]), config)
    if len(set(indices)) < len(indices) or max(indices, default=-1) >= len(before):
        most = len(before) - 1
        raise UserError(f"{config.where}: trainable_token_indices must be different numbers from 0 to {most}")
    return before.index_copy(0, torch.tensor(indices, device=before.device), reader.view(delta).to(before))


def _indices(module: str, config: AdapterConfig) -> list[int]:
    """The indices of the trained rows of this table."""
    given = config.published["trainable_token_indices"] or []
    if isinstance(given, list):
        return given
    return next((rows for name, rows in given.items() if module == name or module.endswith(f".{name}")), [])
