"""Published configs whose layers are of two kinds: some see the whole text ("full"), others a window of it ("sliding").

``layer_types`` names the kind of each layer. ModernBERT and Gemma 3 also have rotary positions for each kind, in two
tables of ``rope_parameters``, or in the older keys of their bases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from minilm.errors import UserError
from minilm.models.rotary import Rotary, read_rotary, turns_whole_heads, write_rotary

FULL, SLIDING = "full_attention", "sliding_attention"


class Kind(NamedTuple):
    """The rotary positions of a kind of layers."""

    ours: str  # the setting that has them
    base_key: str  # the older key of their base
    base: float  # its default


Kinds = Mapping[str, Kind]  # for FULL and SLIDING


def full_layers(kinds: Sequence[str], depth: int) -> tuple[int, ...]:
    """The layers that see everything, from the kind of each (``layer_types``).

    Raises UserError for an unsupported kind, and for too few or too many layers.
    """
    if other := set(kinds) - {FULL, SLIDING}:
        raise UserError(f"config.json: layer_types: the type {', '.join(sorted(other))} is not supported")
    if len(kinds) != depth:
        raise UserError(f"config.json: layer_types must name {depth} layers, got {len(kinds)}")
    return tuple(i for i, kind in enumerate(kinds) if kind == FULL)


def read_both(
    published: dict[str, Any], kinds: Kinds, head_width: int, scaled: Sequence[str] = (FULL, SLIDING)
) -> dict[str, Rotary]:
    """The rotary positions of both kinds of layers, by our settings. ``scaled``: the kinds for which the older key
    ``rope_scaling`` counts.

    Raises UserError for a table of another kind, and if rotary positions are not supported.
    """
    tables = published.get("rope_parameters") or {}
    if not set(tables) <= set(kinds):
        raise UserError(f"config.json: rope_parameters must contain a table for {FULL} and one for {SLIDING}")
    settings = {}
    for name, kind in kinds.items():
        base = {"rope_theta": published.get(kind.base_key) or kind.base}
        base["partial_rotary_factor"] = published.get("partial_rotary_factor")
        scaling = (published.get("rope_scaling") or {}) if name in scaled else {}
        table = base | (tables.get(name) or {"rope_type": "default"}) | scaling
        rotary = read_rotary({**published, "rope_scaling": None, "rope_parameters": table})
        settings[kind.ours] = turns_whole_heads(rotary, head_width)
    return settings


def write_both(rotaries: Mapping[str, Rotary], kinds: Kinds) -> dict[str, Any]:
    """The inverse of ``read_both``, with new and, if possible, old keys. rotaries: of FULL and of SLIDING."""
    tables = {name: write_rotary(rotary)["rope_parameters"] for name, rotary in rotaries.items()}
    return {"rope_parameters": tables, **{kinds[name].base_key: rotary.base for name, rotary in rotaries.items()}}
