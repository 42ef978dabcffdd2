"""Sentence models (Reimers and Gurevych 2019): how to compute a text's vector from those of its tokens.

The files in the model's folder specify it:

    modules.json                         the modules, one after another
    1_Pooling/config.json                how the tokens' vectors are pooled
    2_Dense/config.json and weights      a linear layer after pooling, as in LaBSE and sentence-T5
    config_sentence_transformers.json    prompts, which are put before each text
    sentence_bert_config.json            how many tokens are read

    z = pool(x)        z = act(W z + b)        z = z / |z|              each module of modules.json, in its order

Any other module, and any unsupported setting, is an error. A folder without modules.json is not a sentence model, and
its text vectors are means.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minilm.checkpoints.files import Reader, read_header
from minilm.errors import UserError, nearest
from minilm.model_files import PICKLES
from minilm.models.batch import Batch
from minilm.models.heads import pool
from minilm.repository import stays_inside
from minilm.textfiles import read_json, read_text

# Published names of the pooling methods, in the order in which several are concatenated -> minilm's names.
POOLINGS = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
_SWITCHES = {  # the same in files from before 2026
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Identity": lambda z: z,
    "Tanh": torch.tanh,
    "ReLU": F.relu,
    "GELU": F.gelu,
    "SiLU": F.silu,
    "Sigmoid": torch.sigmoid,
}


@dataclass(frozen=True)
class Dense:
    """A linear layer with an activation: ``act(W z + b)``."""

    weight: Tensor  # (D', D)
    bias: Tensor | None  # (D',)
    activation: str

    def __call__(self, z: Tensor) -> Tensor:
        """z (B, D) -> (B, D')."""
        bias = None if self.bias is None else self.bias.to(z.device)
        return _ACTIVATIONS[self.activation](F.linear(z, self.weight.to(z.device), bias))


def normalize(z: Tensor) -> Tensor:
    """Scale each vector to length 1: z (B, D) -> (B, D)."""
    return F.normalize(z, dim=-1)


@dataclass(frozen=True)
class SentenceModel:
    """How to compute one vector for a text."""

    pooling: tuple[str, ...] = ("mean",)  # several are concatenated
    steps: tuple[Dense | Callable[[Tensor], Tensor], ...] = ()  # the modules after pooling
    prompt: str = ""  # put before each text
    prompt_name: str = ""
    other_prompts: tuple[str, ...] = ()  # names of the prompts that are not used
    pools_prompt: bool = True  # whether the tokens of the prompt are pooled too
    lowercase: bool = False
    max_tokens: int = 0  # the most tokens that are read; 0: the model's context
    folder: Path | None = field(default=None, compare=False)  # None: the default, not read from a folder

    def prompted(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts with the prompt before them."""
        found = [self.prompt + text for text in texts] if self.prompt else texts
        return [text.lower() for text in found] if self.lowercase else found

    def __call__(self, x: Tensor, batch: Batch, skipped: int = 0) -> Tensor:
        """The texts' vectors: x (B, T, D) -> (B, D'). ``skipped``: tokens of the prompt, if they are not pooled."""
        if skipped:
            mask = None if batch.mask is None else batch.mask[:, skipped:]
            x, batch = x[:, skipped:], Batch(batch.ids[:, skipped:], mask)
        z = torch.cat([pool(x, batch, how) for how in self.pooling], dim=-1)
        for step in self.steps:
            z = step(z)
        return z

    def __str__(self) -> str:
        """A line for the terminal that describes the method."""
        if self.folder is None:
            return "a text's vector is the mean of its tokens' vectors (the model's folder has no modules.json)"
        steps = ["a dense layer" if isinstance(step, Dense) else "length 1" for step in self.steps]
        line = f"a text's vector is: {' and '.join(self.pooling)}{''.join(f', {step}' for step in steps)}"
        if self.prompt:
            line += f"; the prompt {self.prompt_name!r} is put before each text: {self.prompt!r}"
        if self.other_prompts:
            line += f"; prompts that are not used: {', '.join(self.other_prompts)}"
        return f"{line} ({self.folder / 'modules.json'})"


def is_sentence_model(folder: Path | None) -> bool:
    """Whether a folder contains a sentence model."""
    return folder is not None and (folder / "modules.json").is_file()


def read_sentence_model(folder: Path | None) -> SentenceModel:
    """Read how a model's folder specifies text vectors; without modules.json, or without a folder, the mean.

    Raises UserError if a file is missing or damaged, or requires something that is not supported.
    """
    if folder is None or not is_sentence_model(folder):
        return SentenceModel()
    pooling, pools_prompt, steps = None, True, list[Any]()
    for kind, place in _modules(folder):
        where = folder / place / "config.json"
        if kind == "Transformer" and place in ("", "."):
            continue
        if kind == "Pooling" and pooling is None:
            pooling, pools_prompt = _pooling(where)
        elif kind == "Dense" and pooling is not None:
            steps.append(_dense(where))
        elif kind == "Normalize" and pooling is not None:
            steps.append(normalize)
        elif kind != "Dropout":
            raise UserError(
                f'{folder / "modules.json"}: the module {kind} in "{place}" is not supported in this position; '
                "supported are: Transformer in the folder itself, then Pooling, then Dense and Normalize"
            )
    if pooling is None:
        raise UserError(f"{folder / 'modules.json'}: has no Pooling module, which is required")
    settings = _optional(folder / "sentence_bert_config.json")
    limit, lowercase = settings.get("max_seq_length") or 0, settings.get("do_lower_case", False)
    if not isinstance(limit, int) or limit < 0:
        raise UserError(f"{folder / 'sentence_bert_config.json'}: max_seq_length must be a whole number")
    if not isinstance(lowercase, bool):
        raise UserError(f"{folder / 'sentence_bert_config.json'}: do_lower_case must be true or false")
    name, prompt, others = _prompt(folder / "config_sentence_transformers.json")
    return SentenceModel(
        pooling, tuple(steps), prompt, name, others, pools_prompt, lowercase, max_tokens=limit, folder=folder
    )


def read_pooling(folder: Path | None) -> str:
    """The pooling for a new head, from the folder of a sentence model; "" if it has none, or concatenates several.

    Raises UserError as ``read_sentence_model`` does. It does not read dense layers, as a new head has its own.
    """
    if folder is None or not is_sentence_model(folder):
        return ""
    places = [place for kind, place in _modules(folder) if kind == "Pooling"]
    ways = _pooling(folder / places[0] / "config.json")[0] if places else ()
    return ways[0] if len(ways) == 1 else ""


def _modules(folder: Path) -> list[tuple[str, str]]:
    """The kinds and folders of the modules, in the order in which they run."""
    path = folder / "modules.json"
    try:
        found = json.loads(read_text(path))
        modules = [(str(module["type"]).rpartition(".")[2], str(module["path"])) for module in found]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise UserError(f"{path}: must be a list of modules, each with a type and a path; download it again") from None
    for _, place in modules:
        if place and not stays_inside(place):
            raise UserError(f'{path}: names the path "{place}", which is outside its folder; do not trust this model')
    return modules


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _pooling(path: Path) -> tuple[tuple[str, ...], bool]:
    """The pooling methods, and whether the tokens of a prompt are pooled too."""
    config = read_json(path)
    named = config.get("pooling_mode")
    if named is None:
        named = [mode for switch, mode in _SWITCHES.items() if config.get(switch)] or ["mean"]
        unknown = [key for key, value in config.items() if key.startswith("pooling_mode") and value]
        named = [*named, *(key for key in unknown if key not in _SWITCHES)]
    modes = [named] if isinstance(named, str) else named
    if not isinstance(modes, list) or not modes:
        raise UserError(f"{path}: pooling_mode must be one of {', '.join(POOLINGS)}, got {named!r}")
    for mode in modes:
        if mode not in list(POOLINGS):
            hint = nearest(str(mode), POOLINGS)
            raise UserError(f"{path}: pooling_mode {mode!r} is not supported{hint}; supported: {', '.join(POOLINGS)}")
    includes = config.get("include_prompt", True)
    if not isinstance(includes, bool):
        raise UserError(f"{path}: include_prompt must be true or false, got {includes!r}")
    if not includes and "weightedmean" in modes:
        raise UserError(f"{path}: pooling_mode 'weightedmean' with include_prompt false is not supported")
    return tuple(POOLINGS[mode] for mode in modes), includes


def _dense(path: Path) -> Dense:
    """Read a dense layer with its weights."""
    config = read_json(path)
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    name = activation.rpartition(".")[2]
    if not activation.startswith("torch.nn.") or name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise UserError(f"{path}: activation_function {activation} is not supported; supported are: {known}")
    source = config.get("module_input_name", "sentence_embedding")
    target = config.get("module_output_name") or source
    for key, value, usual in (
        ("use_residual", config.get("use_residual", False), False),
        ("module_input_name", source, "sentence_embedding"),
        ("module_output_name", target, "sentence_embedding"),
    ):
        if value != usual:
            raise UserError(f"{path}: {key} {json.dumps(value)} is not supported; only {json.dumps(usual)} is")
    weights = path.parent / "model.safetensors"
    if not weights.is_file():
        pickles = [name.name for name in sorted(path.parent.glob("*")) if name.name.endswith(PICKLES)]
        why = f"are stored only in {pickles[0]}, which can run code when loaded" if pickles else "are missing"
        raise UserError(
            f"{weights}: the dense layer's weights {why}; save the model again with sentence-transformers: "
            'SentenceTransformer(...).save_pretrained("FOLDER")'
        )
    header, reader = read_header(weights), Reader()
    has_bias = bool(config.get("bias", True))
    wanted = {"linear.weight", *(["linear.bias"] if has_bias else [])}
    if set(header) != wanted:
        raise UserError(f"{weights}: has {', '.join(sorted(header))}, but {path} needs {', '.join(sorted(wanted))}")
    tensors = {name: reader.view(entry).float().clone() for name, entry in header.items()}
    weight, bias = tensors["linear.weight"], tensors.get("linear.bias")
    shape = [config.get("out_features"), config.get("in_features")]
    if list(weight.shape) != shape or (bias is not None and list(bias.shape) != shape[:1]):
        raise UserError(f"{weights}: linear.weight is {list(weight.shape)}, but {path} says {shape}")
    return Dense(weight, bias, name)


def _prompt(path: Path) -> tuple[str, str, tuple[str, ...]]:
    """The name and text of the prompt that is used, and the names of the others.

    It is the default prompt, or else the one named "classification", as in EmbeddingGemma, or else none.
    """
    config = _optional(path)
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise UserError(f"{path}: prompts must be a table of texts, got {prompts!r}")
    if default is not None and default not in list(prompts):
        raise UserError(f"{path}: default_prompt_name {default!r} is not one of its prompts: {', '.join(prompts)}")
    name = default or next((name for name in prompts if name.lower() == "classification"), "")
    others = tuple(other for other, text in prompts.items() if other != name and text)
    return (name if prompts.get(name) else ""), prompts.get(name, ""), others
