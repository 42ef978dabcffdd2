"""Keys that had another name in an earlier version.

In a user's file and on the command line, an old key is an error that names the new key. In the folder of a run that an
earlier version wrote, it is read as the new key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRAIN = {
    "by_length": "group_by_length",
    "decision": "decision_threshold",
    "recompute": "gradient_checkpointing",
    "threshold": "min_delta",
}

OLD_KEYS: dict[str, dict[str, str]] = {  # file -> old key -> new key; "*" is any key
    "config.toml": {
        "adapt.mask_share": "adapt.mlm_probability",
        "augment.share": "augment.fraction",
        "data.test_share": "data.test_fraction",
        "data.validation_share": "data.validation_fraction",
        "zero_shot.way": "zero_shot.method",
        **{f"train.{old}": f"train.{new}" for old, new in TRAIN.items()},
        **{f"adapt.train.{old}": f"adapt.train.{new}" for old, new in TRAIN.items()},
    },
    "results.json": {
        "baselines.*.threshold": "baselines.*.decision_threshold",
        "threshold": "decision_threshold",
        "zero_shot.way": "zero_shot.method",
    },
    "progress.json": {"loss_amount": "loss_denominator", "stale": "bad_evaluations"},
    "environment.json": {
        "start.the checkpoint": "start.checkpoint",
        "start.the text that [augment] makes": "start.augmented_texts",
        "start.the text to adapt to": "start.adaptation_texts",
        "start.the tokenizer": "start.tokenizer",
    },
}


def with_new_keys(table: Mapping[str, Any], file: str) -> dict[str, Any]:
    """A copy of the table that a run wrote to ``file``, with the new name of each key, in the same order."""
    return _renamed(table, OLD_KEYS[file], "")


def _renamed(table: Mapping[str, Any], names: Mapping[str, str], prefix: str) -> dict[str, Any]:
    found, any_key = {}, any(name.startswith(f"{prefix}*.") for name in names)
    for key, value in table.items():
        path = f"{prefix}{'*' if any_key else key}"
        name = names[path].rpartition(".")[2] if path in names else key
        found[name] = _renamed(value, names, f"{path}.") if isinstance(value, dict) else value
    return found


def old_keys_in(table: Mapping[str, Any], file: str) -> dict[str, str]:
    """The old keys that a table has, each with its new name."""
    return {old: new for old, new in OLD_KEYS[file].items() if _has(table, old)}


def _has(table: Any, key: str) -> bool:
    first, _, rest = key.partition(".")
    return isinstance(table, dict) and first in table and (not rest or _has(table[first], rest))
