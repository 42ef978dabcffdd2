"""Adapters that change part of a table of embeddings, such as that of the tokens: they are loaded as if the whole table
had been trained.

PEFT adapts a table E (V, D) with LoRA or DoRA, or trains some of its rows ("trainable_token_indices"):

    E' = E + s (B A)^T         lora_embedding_A (r, V), lora_embedding_B (D, r)
    E' = m / |E'| * E'         lora_magnitude_vector m (D,); |E'| (D,) are the lengths of the columns
    E'[i_k] = delta_k          trainable_tokens_delta (n, D), for the n tokens i

A tied language head uses E in the first two cases, and E' in the third. If the adapter is saved again, E' is one of
PEFT's "modules_to_save". That would untie a tied table, so of this the rows are saved that differ from the base's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from minilm.checkpoints.adapter_configs import INSTEAD, AdapterConfig
from minilm.checkpoints.adapter_forms import check_shape
from minilm.checkpoints.contents import HEAD, TOKENS, read_contents
from minilm.checkpoints.files import Entry, Reader, view_once
from minilm.checkpoints.models import card_of
from minilm.checkpoints.names import Place, places_of_ours, places_of_theirs, plain_name
from minilm.errors import UserError
from minilm.finetuning.lora import lora_scale, row_lengths
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Backbone
from minilm.models.heads import LanguageHead

DELTA, MAGNITUDE = "token_adapter.trainable_tokens_delta", "magnitude_vector"
TABLES = [f"embeddings.{name}.weight" for name in ("token", "position", "segment")]
DISTANCES = "embeddings.relative.weight"  # DeBERTa's, whose published class reads it without its adapter
BLOCK = 1 << 14  # rows that are compared at a time


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

    whole: the fully trained tensors of the adapter, possibly with the table. Raises UserError for what is not a table
    of this model, for a table of which there are copies (T5's tokens), and for changes in another form.
    """
    first = next(iter(changes.values()))
    plain = plain_name(f"{module}.weight", ARCHITECTURES[card_of(model).model_type].names)
    found = places_of_theirs(plain, places)
    ours = found[0].ours if len(found) == 1 else ""
    if ours == DISTANCES or (ours == TOKENS and model.start_token is not None):
        why = "changes a table, for which PEFT itself gives other numbers before and after merging"
        raise UserError(f"{first.file}: {first.name} {why}; train the adapter without {module.rpartition('.')[2]}")
    if ours not in TABLES:
        raise UserError(f"{first.file}: {first.name} changes part of a table, which minilm cannot load; {INSTEAD}")
    before = whole.get(ours, model.get_parameter(ours).detach())
    if DELTA in changes:
        if len(changes) > 1:
            raise UserError(f"{first.file}: adapts {module} and trains some of its rows; {INSTEAD}")
        indices = _indices(module, config, is_of_tokens=ours == TOKENS)
        new = _with_rows(before, changes[DELTA], indices, config, reader)
        if ours != TOKENS or not is_tied(model):
            return {ours: new}
        if head_has_bias(model):
            why = "PEFT leaves out that head's bias until the adapter is merged"
            raise UserError(f"{first.file}: {first.name} changes a table that a language head shares: {why}; {INSTEAD}")
        return {TOKENS: new, HEAD: new}
    wanted = {"lora_embedding_A", "lora_embedding_B", *([MAGNITUDE] if config.dora else [])}
    if changes.keys() != wanted:
        absent = ", ".join(sorted(wanted - changes.keys())) or "no tensors of another kind"
        raise UserError(f"{first.file}: {module} needs {absent}; download the adapter again")
    rank, (entries, width) = config.rank_of(module), before.shape
    check_shape(changes["lora_embedding_A"], (rank, entries), config)
    check_shape(changes["lora_embedding_B"], (width, rank), config)
    scale = lora_scale(config.alpha_of(module), rank, rank_stabilized=config.rank_stabilized)
    a, b = (reader.view(changes[f"lora_embedding_{x}"]).to(before) for x in "AB")
    new = before + scale * (b @ a).T
    if config.dora:
        check_shape(changes[MAGNITUDE], (width,), config)
        new = new * (reader.view(changes[MAGNITUDE]).to(new) / row_lengths(new.T))
    return {ours: new}


def is_tied(model: Backbone) -> bool:
    """Whether a language head shares the token table."""
    return isinstance(model.head, LanguageHead) and model.head.output.weight is model.token_embedding.weight


def head_has_bias(model: Backbone) -> bool:
    """Whether a language head adds a bias to its scores."""
    return isinstance(model.head, LanguageHead) and model.head.output.bias is not None


def changed_rows(model: Backbone) -> Tensor:
    """The numbers of the rows of the token table that differ from those of the model's folder; at least one."""
    table, folder = model.token_embedding.weight.detach(), card_of(model).folder
    if folder is None:
        return torch.arange(len(table))
    stored = read_contents(folder)
    place = next(place for place in places_of_ours(TOKENS, stored.places("encode")) if place.theirs in stored.tensors)
    before = place.take(view_once(stored.tensors[place.theirs][0]))
    changed = torch.cat([
        (now.cpu() != then.to(now.dtype)).any(dim=1)
        for now, then in zip(table.split(BLOCK), before.split(BLOCK), strict=True)
    ])  # fmt: skip
    return changed.nonzero().flatten() if changed.any() else torch.zeros(1, dtype=torch.int64)


def _with_rows(before: Tensor, delta: Entry, indices: list[int], config: AdapterConfig, reader: Reader) -> Tensor:
    check_shape(delta, (len(indices), before.shape[1]), config)
    if len(set(indices)) < len(indices) or max(indices, default=-1) >= len(before):
        most = len(before) - 1
        raise UserError(f"{config.where}: trainable_token_indices must be different numbers from 0 to {most}")
    return before.index_copy(0, torch.tensor(indices, device=before.device), reader.view(delta).to(before))


def _indices(module: str, config: AdapterConfig, *, is_of_tokens: bool) -> list[int]:
    """The indices of the trained rows of this table. A list is for the table of tokens."""
    given = config.published["trainable_token_indices"] or []
    if isinstance(given, list):
        return given if is_of_tokens else []
    return next((rows for name, rows in given.items() if module == name or module.endswith(f".{name}")), [])
