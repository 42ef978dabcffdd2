"""``adapter_config.json``, PEFT's description of an adapter: the adapted modules, their ranks and their alphas.

Modules are identified by their published names, by PEFT's rules (``targets``, ``saves``, ``rank_of``): a list contains
suffixes of names, a string is a regular expression. Settings for which PEFT has no key are under "minilm", which PEFT
ignores.

An adapter that computes anything but ``W x + s B A x``, with or without DoRA, is refused, and so is every setting that
is not known here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm.checkpoints.adapter_inits import INITS
from minilm.checkpoints.configs import from_plain
from minilm.errors import UserError
from minilm.models import ARCHITECTURES, TASKS
from minilm.models.heads import HeadConfig
from minilm.schema import cut
from minilm.textfiles import read_json

CONFIG = "adapter_config.json"
INSTEAD = "merge the adapter with PEFT, and open the whole model"  # advice if an adapter is not supported
# Initializations of A and B that do not change the pretrained weights.
_INITS = (True, False, "gaussian", "eva", "orthogonal", "mica")
# Keys that do not affect the outputs: notes, and settings of methods that other keys turn on.
_NOTES = {
    "peft_version", "inference_mode", "runtime_config", "fan_in_fan_out", "megatron_core",
    "qalora_group_size", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "init_lora_weights",
}  # fmt: skip


# Kinds of values.
_Kind = Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _name(value: Any) -> bool:
    return isinstance(value, str)


def _absent(value: Any) -> bool:
    return value is None


def _count(least: int) -> _Kind:
    return lambda value: type(value) is int and value >= least


def _list(kind: _Kind) -> _Kind:
    return lambda value: isinstance(value, list) and all(map(kind, value))


def _table(kind: _Kind) -> _Kind:
    return lambda value: isinstance(value, dict) and all(map(kind, value.values()))


def _any(*kinds: _Kind) -> _Kind:
    return lambda value: any(kind(value) for kind in kinds)


def _different(value: Any) -> bool:
    return _list(_name)(value) and len(set(value)) == len(value)


_Keys = dict[str, tuple[Any, _Kind, str]]  # key -> the default value, the allowed kind, and the kind in words
_KEYS: _Keys = {
    "peft_type": ("LORA", lambda value: value == "LORA", "LORA, the only kind of adapter that minilm supports"),
    "task_type": (None, _any(_absent, _name), "a name or null"),
    "auto_mapping": (None, _any(_absent, _table(lambda value: True)), "a table or null"),
    "base_model_name_or_path": (None, _any(_absent, _name), "a name or null"),
    "revision": (None, _any(_absent, _name), "a name or null"),
    "r": (8, _count(1), "a whole number from 1"),
    "lora_alpha": (8, _number, "a number"),
    "lora_dropout": (0.0, lambda value: _number(value) and 0 <= value < 1, "a number from 0 to 1, 1 excluded"),
    "use_rslora": (False, lambda value: isinstance(value, bool), "true or false"),
    "use_dora": (False, lambda value: isinstance(value, bool), "true or false"),
    "lora_bias": (False, lambda value: isinstance(value, bool), "true or false"),
    "bias": ("none", lambda value: value in ("none", "all", "lora_only"), '"none", "all" or "lora_only"'),
    "target_modules": (None, _any(_absent, _name, _list(_name)), "a list of names, or a pattern"),
    "exclude_modules": (None, _any(_absent, _name, _list(_name)), "a list of names, or a pattern"),
    "modules_to_save": (None, _any(_absent, _list(_name)), "a list of names or null"),
    "layers_to_transform": (None, _any(_absent, _count(0), _list(_count(0))), "a list of layers, or one"),
    "layers_pattern": (None, _any(_absent, _name, _list(_name)), "a list of names, or one"),
    "trainable_token_indices": (
        None, _any(_absent, _list(_count(0)), _table(_list(_count(0)))), "a list of tokens, or one for each table",
    ),
    "rank_pattern": (None, _any(_absent, _table(_count(1))), "a table of ranks"),
    "alpha_pattern": (None, _any(_absent, _table(_number)), "a table of numbers"),
    "minilm": (None, _any(_absent, _table(lambda value: True)), "a table"),
}
_OWN: _Keys = {  # keys of the table "minilm"
    "task": (None, _any(_absent, lambda value: value in TASKS), "one of " + ", ".join(TASKS)),
    "model_type": (None, _any(_absent, _name), "a name"),
    "labels": (None, _any(_absent, _different), "a list of different names"),
    "head": (None, _any(_absent, _table(lambda value: True)), "a table"),
    "blocks": (None, _any(_absent, _table(_list(_count(0)))), "a table of lists"),
    "base_sample": (None, _any(_absent, _list(_number)), "a list of numbers"),
}


@dataclass(frozen=True)
class AdapterConfig:
    """An adapter's settings, checked."""

    where: str  # the file, for error messages
    published: dict[str, Any]  # PEFT's keys, with default values for missing keys
    base: str  # the model that was adapted: a Hub id or a folder; "": unknown
    revision: str  # of the base on the Hub; "": unknown
    task: str  # what the adapted model is for: "encode", "classify" or "lm"; "": unknown
    labels: list[str]  # the classes, in order; empty: unknown
    dropout: float
    rank_stabilized: bool
    lora_bias: bool  # B has a bias
    dora: bool  # the lengths of the matrices' rows were learned apart
    bias: str  # which biases were trained: "none", "all" or "lora_only"
    init: str  # "pissa" or "olora": the initial A and B were subtracted from the base weights; "": not
    head: HeadConfig | None  # the settings of minilm's head; None: the family's head, or none
    model_type: str  # the base's family; "": unknown
    blocks: dict[str, list[int]]  # fused module -> the parts for which its B has diagonal blocks
    base_sample: list[float]  # some values of the base's weights; empty: unknown
    extra: dict[str, Any]  # the other keys under "minilm": max_tokens, threshold, problem_type, ...

    @property
    def saved(self) -> list[str]:
        """The suffixes of the names of modules that were fully trained; PEFT adds those of the usual heads."""
        usual = ["classifier", "score"] if self.published["task_type"] == "SEQ_CLS" else []
        return [*(self.published["modules_to_save"] or ()), *usual]

    def rank_of(self, module: str) -> int:
        """The rank of the adapter on this module."""
        return int(self._by_pattern("rank_pattern", module, self.published["r"]))

    def alpha_of(self, module: str) -> float:
        """The alpha of the adapter on this module."""
        return float(self._by_pattern("alpha_pattern", module, self.published["lora_alpha"]))

    def _by_pattern(self, table: str, module: str, otherwise: Any) -> Any:
        patterns = self.published[table] or {}
        return next((patterns[p] for p in patterns if self._match(rf"(.*\.)?({p})", module, table)), otherwise)

    def targets(self, module: str) -> bool:
        """Whether this linear module is adapted."""
        excluded = self._named("exclude_modules", module)
        if excluded or any(self._match(rf"(.*\.)?{name}(\..*)?", module, "modules_to_save") for name in self.saved):
            return False
        named = self._named("target_modules", module)
        by_its_end = named and isinstance(wanted := self.published["target_modules"], list) and module not in wanted
        return named and (not by_its_end or self._in_layers(module))

    def _named(self, key: str, module: str) -> bool:
        names = self.published[key]
        if isinstance(names, str):
            return self._match(names, module, key) is not None
        return any(module == name or module.endswith(f".{name}") for name in names or ())

    def _in_layers(self, module: str) -> bool:
        layers, patterns = self.published["layers_to_transform"], self.published["layers_pattern"] or []
        if layers is None or layers == []:
            return True
        stacks = [rf"(?:|.*?\.){p}" for p in ([patterns] if isinstance(patterns, str) else patterns)]
        for stack in stacks or [r".*?\.[^.]*"]:
            if found := self._match(rf"{stack}\.(?P<layer>\d+)\..*", module, "layers_pattern"):
                return int(found["layer"]) in ([layers] if isinstance(layers, int) else layers)
        return False

    def saves(self, tensor: str) -> bool:
        """Whether this tensor belongs to a module that was fully trained."""
        parts = tensor.split(".")
        modules = [".".join(parts[:i]) for i in range(1, len(parts))]
        return any(module.endswith(name) for module in modules for name in self.saved)

    def _match(self, pattern: str, module: str, key: str) -> re.Match[str] | None:
        try:
            return re.fullmatch(pattern, module)
        except re.error as error:
            raise UserError(f"{self.where}: {key} contains an invalid regular expression ({error})") from error


def read_adapter_config(folder: str | Path) -> AdapterConfig:
    """Read and check an adapter's config. Raises UserError if a setting is wrong, missing or not supported."""
    path = Path(folder) / CONFIG
    return check_adapter_config(read_json(path), str(path))


def check_adapter_config(published: dict[str, Any], where: str) -> AdapterConfig:
    """The settings of an adapter_config.json, with defaults for missing keys. Errors as in ``read_adapter_config``."""
    _check(published, _KEYS, where)
    own = dict(published["minilm"] or {})
    _check(own, _OWN, f"{where}: minilm")
    for key, value in published.items():
        if value and key not in _KEYS and key not in _NOTES:
            raise UserError(f"{where}: {key} ({cut(value)}) is not supported here; {INSTEAD}")
    init = published.get("init_lora_weights", True)
    init = init.lower() if isinstance(init, str) else init
    if init not in (*_INITS, *INITS):
        raise UserError(f"{where}: init_lora_weights {cut(init)} changes the base model's weights; {INSTEAD}")
    return AdapterConfig(
        where=where,
        published=published,
        base=published["base_model_name_or_path"] or "",
        revision=published["revision"] or "",
        task=own["task"] or _task(published),
        labels=own["labels"] or [],
        dropout=published["lora_dropout"],
        rank_stabilized=published["use_rslora"],
        dora=published["use_dora"],
        lora_bias=published["lora_bias"],
        bias=published["bias"],
        init=init if init in INITS else "",
        head=None if own["head"] is None else from_plain(HeadConfig, own["head"], f"{where}: minilm.head"),
        model_type=own["model_type"] or "",
        blocks=own["blocks"] or {},
        base_sample=own["base_sample"] or [],
        extra={key: value for key, value in own.items() if key not in _OWN},
    )


def _check(table: dict[str, Any], keys: _Keys, where: str) -> None:
    """Add the default values of missing keys, in place. Raises UserError for the first wrong value."""
    for key, (default, is_right, wanted) in keys.items():
        value = table.setdefault(key, default)
        if not is_right(value):
            raise UserError(f"{where}: {key} must be {wanted}, got {cut(value)}")


def _task(published: dict[str, Any]) -> str:
    """The task of the adapted model, from PEFT's task_type or else from the class that was adapted."""
    if task_type := published["task_type"]:
        by_type = {"SEQ_CLS": "classify", "FEATURE_EXTRACTION": "encode"}
        return "lm" if task_type.endswith("_LM") else by_type.get(task_type, "")
    adapted = (published["auto_mapping"] or {}).get("base_model_class")
    classes = [pair for architecture in ARCHITECTURES.values() for pair in architecture.classes.items()]
    return next((task for task, name in classes if name == adapted), "")
