"""LoRA adapters in PEFT's format, both ways: what was trained, without the base model that it belongs to.

A folder holds adapter_config.json (see ``adapter_configs``) and adapter_model.safetensors (see ``adapter_tensors``);
where the head is our own, head.safetensors, described under "minilm" in adapter_config.json; and perhaps a tokenizer.
The trained head is always there: PEFT opens an adapter with the family's head on the published classifier, and one with
ours on the backbone.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minilm import hub
from minilm.checkpoints.adapter_configs import CONFIG, AdapterConfig, check_adapter_config, read_adapter_config
from minilm.checkpoints.adapter_tensors import (
    PREFIX,
    STEM,
    Held,
    Published,
    copies_of,
    module_of,
    publish,
    read_held,
    rows_for,
)
from minilm.checkpoints.contents import TOKENS, read_contents
from minilm.checkpoints.files import read_folder, sample, write_json, write_tensors
from minilm.checkpoints.matching import parameter_names
from minilm.checkpoints.models import Card, Dtype, card_of, load_parts, warn_of, write_tokenizer
from minilm.checkpoints.names import Row, published_tensors, rows_of_ours, rows_of_theirs
from minilm.errors import UserError
from minilm.finetuning.lora import LoRALinear, adapt_layer, adapted_layers, adapter_parameters
from minilm.models import ARCHITECTURES, TASKS
from minilm.models.heads import HeadConfig


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and not a whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: str | Path) -> str:
    """The model that an adapter belongs to: a folder, or a name that ``load_model`` takes.

    A relative path counts from the adapter's folder, if it leads somewhere from there. Raises UserError where the
    adapter does not name its base.
    """
    config = read_adapter_config(folder)
    if not config.base:
        raise UserError(f"{config.where}: base_model_name_or_path must name the base model (a folder or a Hub id)")
    beside = Path(folder) / config.base
    return str(beside) if beside.is_dir() else config.base


# --- Loading -------------------------------------------------------------------------------------------------------


def load_adapted_model(
    folder: str | Path,
    task: str | None = None,
    *,
    labels: Sequence[str] | None = None,
    head: HeadConfig | None = None,
    dtype: Dtype = None,
    device: torch.device | str | None = None,
) -> nn.Module:
    """Open an adapter's base and adapt it, in evaluation mode.

    Arguments and errors as those of ``opening.load_model``, and ``load_adapter``'s errors; task, labels and head can
    only be the adapter's own. Where it does not say its task, the task must be given.
    """
    folder, config, source = Path(folder), read_adapter_config(folder), base_of(folder)
    if config.task and task not in (None, config.task):
        raise UserError(f'{folder}: an adapter for the task "{config.task}"; it cannot be opened for "{task}"')
    task = config.task or task
    if not task:
        tasks = ", ".join(TASKS)
        raise UserError(
            f"{config.where}: task_type and auto_mapping name none of the tasks that are known here ({tasks}); open "
            "the adapter for one of them"
        )
    if head not in (None, config.head):
        raise UserError(f"{folder}: an adapter with a head already; leave the head out, or open the base model")
    try:
        base = hub.resolve_model(source, "" if hub.is_folder(source) else config.revision)
    except UserError as error:
        raise UserError(f"{config.where}: its base model cannot be opened: {error}") from None
    own = _labels(folder, config, base) if task == "classify" else None
    if dtype is None and any(entry.dtype == torch.float32 for entry in read_folder(folder, STEM).values()):
        dtype = torch.float32  # nothing that was trained is rounded, also where the base has fewer bits
    of_base = None if dtype == "stored" else dtype
    model, untrained = load_parts(base, task, labels=own, head=config.head, dtype=of_base, device=device)
    if labels is not None and list(labels) != card_of(model).labels:
        its = ", ".join(card_of(model).labels) or "none"
        raise UserError(f"{folder}: an adapter with labels already ({its}); leave labels out, or open the base model")
    load_adapter(model, folder, as_stored=dtype == "stored")
    warn_of([name for name in untrained if not model.get_parameter(name).requires_grad], model)
    return model


def _labels(folder: Path, config: AdapterConfig, base: Path) -> list[str] | None:
    """The classes of the adapter's head; None: it has no head, so the base's must do."""
    stored = read_contents(base)
    output = PREFIX + rows_of_ours("head.output.weight", stored.rows("classify"))[0].theirs
    held = read_folder(folder, STEM)
    if config.labels or output not in held:
        return config.labels or None
    classes = held[output].shape[0] if held[output].shape else 0
    return stored.labels if len(stored.labels) == classes else [f"LABEL_{i}" for i in range(classes)]


def load_adapter(model: nn.Module, folder: str | Path, *, as_stored: bool = False) -> None:
    """Adapt a model as a folder says, in place. What the adapter holds is what is trained from now on.

    Args:
        model: the adapter's base, from ``load_model``, with a head of the adapter's kind.
        folder: of an adapter that we or PEFT have written.
        as_stored: what was trained whole keeps its dtype, and does not take the model's.

    Raises:
        UserError: the adapter is of a kind that is not supported, for another model, or broken. The model is unchanged.
    """
    if adapted_layers(model):
        raise ValueError("this model has adapters already; merge them first")
    config, card = read_adapter_config(folder), card_of(model)
    _check_kind(model, config)
    held = read_held(model, Path(folder), config)
    weights = _sample(model, held.adapters, held.whole)
    if config.base_sample and not weights.is_meta and not _same_weights(weights, config.base_sample):
        raise UserError(f"{config.where}: made for {config.base or 'a model'}, whose weights are not this model's")
    for name, (a, b, alpha) in held.adapters.items():
        layer = adapt_layer(model, name, len(a), alpha, dropout=config.dropout, rank_stabilized=config.rank_stabilized)
        layer.lora_a.data.copy_(a)
        layer.lora_b.data.copy_(b)
    for name, value in held.whole.items():
        parameter = model.get_parameter(name)
        dtype = value.dtype if as_stored else parameter.dtype
        parameter.data = torch.empty_like(parameter, dtype=dtype).copy_(value)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_trained(name, held, config) or name.endswith((".lora_a", ".lora_b")))
    extra = dict(config.extra)
    if "problem_type" in extra:
        card.published["problem_type"] = extra.pop("problem_type")
    card.labels = config.labels or card.labels
    card.extra |= extra
    card.adapter = Path(folder)


def _is_trained(name: str, held: Held, config: AdapterConfig) -> bool:
    """Whether a parameter is trained itself. Of a fused bias that is stored, "lora_only" means the adapted parts."""
    alone = name.endswith(".bias") and f"{module_of(name)}.weight" not in held.whole
    spare = alone and config.bias == "lora_only" and module_of(name) not in held.adapters
    return name in held.whole and not spare


def _check_kind(model: Any, config: AdapterConfig) -> None:
    """Raises UserError where the adapter's config is for another family, or another head."""
    card, ours = card_of(model), model.head.config if card_of(model).own_head else None
    if config.model_type not in ("", card.model_type):
        raise UserError(f"{config.where}: made for a {config.model_type} model; this is a {card.model_type} model")
    if config.head not in (None, ours):
        raise UserError(
            f"{config.where}: the adapter has a head of its own ({config.head}), which this model has not; "
            "open the base with it"
        )
    if config.labels and len(config.labels) != len(card.labels):
        raise UserError(f"{config.where}: has {len(config.labels)} labels, the model {len(card.labels)}")


def _sample(model: Any, adapted: Collection[str], whole: Collection[str]) -> Tensor:
    """Some numbers of each adapted weight, in the model's order, and of the token table: they tell bases apart.

    ``whole``: the parameters that are trained themselves, and so are not the base's.
    """
    names = [f"{name}.weight" for name, _ in model.named_modules() if name in adapted]
    names += [TOKENS] if TOKENS not in whole else []
    return torch.cat([sample(model.get_parameter(name)).float() for name in names])


def _same_weights(found: Tensor, stored: list[float]) -> bool:
    """Whether numbers are the same but for their rounding to another dtype: in bfloat16, of 8 bits, by up to 2^-8.

    An adapter may keep those of fewer weights, the first.
    """
    wanted, found = torch.tensor(stored), found[: len(stored)].cpu()
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=0.004, atol=1e-6)


# --- Saving --------------------------------------------------------------------------------------------------------


def save_adapter(model: Any, folder: str | Path, *, base: str = "", revision: str = "", tokenizer: Any = None) -> Path:
    """Write what was trained of an adapted model, in a folder that PEFT opens and ``load_adapter`` reads back exactly.

    Args:
        model: with adapters, from ``add_lora`` or ``load_adapter``.
        folder: made where it does not exist.
        base: what others find the base by, best its Hub id; "": the folder that the model was loaded from.
        revision: of the base on the Hub.
        tokenizer: a ``tokenizers.Tokenizer`` to write too; None: the one that the adapter came with, or the base's,
            which is not written again.

    Raises:
        UserError: the base is nowhere saved, or something was trained that the format has no place or no name for.
            Nothing is written.
    """
    folder, card, layers = Path(folder), card_of(model), adapted_layers(model)
    if not layers:
        raise ValueError("this model has no adapters; add_lora makes them, and merge takes them away")
    base = base or (str(card.folder.resolve()) if card.folder is not None else "")
    if not base:
        raise UserError("LoRA: the model under the adapter was never saved; train it whole, or save and load it first")
    rows = rows_for(model, prefixed=True)
    adapters = publish(layers, rows)
    whole, settings = _trained_whole(model, rows)
    tensors = {}
    for module, adapter in adapters.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = adapter.a
        tensors[f"{PREFIX}{module}.lora_B.weight"] = adapter.b
    for theirs, tensor in published_tensors(whole, rows):
        for name in copies_of(theirs, model):
            module, _, leaf = name.rpartition(".")
            tensors[f"{PREFIX}{module}{'.base_layer' if module in adapters else ''}.{leaf}"] = tensor
    settings |= _settings(layers, adapters)
    settings |= {
        "task_type": _task_type(card),
        "base_model_name_or_path": base,
        "revision": revision or None,
        "fan_in_fan_out": any(row.transposed for name in layers for row in rows_of_ours(f"{name}.weight", rows)),
        "minilm": _own_settings(model, adapters),
    }
    _check_names(model, rows, check_adapter_config(dict(settings), str(folder / CONFIG)), tensors, adapters)
    write_tensors(folder / f"{STEM}.safetensors", tensors)
    if card.own_head:
        write_tensors(folder / "head.safetensors", dict(model.head.named_parameters()))
    if tokenizer is not None:
        write_tokenizer(tokenizer, folder)
    elif (origin := card.adapter) is not None and origin == card.tokenizer and origin.resolve() != folder.resolve():
        shutil.copyfile(origin / "tokenizer.json", folder / "tokenizer.json")
    write_json(folder / CONFIG, settings)
    return folder


def _check_names(
    model: nn.Module,
    rows: tuple[Row, ...],
    config: AdapterConfig,
    tensors: Collection[str],
    adapters: Collection[str],
) -> None:
    """Raises UserError where the names that would be written mean something else too, by PEFT's rules.

    They are ends of names: "norm", a Llama's last, is also the end of layers.0.input_layernorm.
    """
    saved = ", ".join(config.saved)
    for module in adapters:
        if not config.targets(module):
            raise UserError(
                f"LoRA: {module} is adapted, but PEFT's names for what is trained whole ({saved}) mean it too; "
                "adapt it or train it, not both"
            )
    for name, _ in model.named_parameters(remove_duplicate=False):
        for theirs in (copy for row in rows_of_ours(name, rows) for copy in copies_of(row.theirs, model)):
            written = f"{PREFIX}{theirs}" in tensors
            if config.saves(theirs) and not written:
                raise UserError(
                    f"LoRA: {name} is not trained, but PEFT's names for what is ({saved}) mean it too, as the ends "
                    "of names that they are; train it too, or freeze those"
                )
            bias_alone = theirs.endswith(".bias") and config.bias != "none"
            if written and not config.saves(theirs) and not bias_alone:
                raise UserError(f"LoRA: {name} is trained, but PEFT's format has no name for it; freeze it")


def _settings(layers: dict[str, LoRALinear], adapters: dict[str, Published]) -> dict[str, Any]:
    """PEFT's settings of these adapters: the most usual rank and alpha, and the modules that have others.

    Raises UserError where they differ in a setting that PEFT has one of.
    """
    first, layer = next(iter(layers.items()))
    for name, other in layers.items():
        if (other.dropout.p, other.rank_stabilized) != (layer.dropout.p, layer.rank_stabilized):
            raise UserError(
                f"LoRA: {first} and {name} differ in dropout or rank_stabilized, but PEFT's format has one for all; "
                "give them the same"
            )
    ranks = {module: len(adapter.a) for module, adapter in adapters.items()}
    alphas = {
        module: int(adapter.alpha) if adapter.alpha.is_integer() else adapter.alpha
        for module, adapter in adapters.items()
    }
    rank, alpha = (Counter(numbers.values()).most_common(1)[0][0] for numbers in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {re.escape(module): r for module, r in ranks.items() if r != rank},
        "alpha_pattern": {re.escape(module): a for module, a in alphas.items() if a != alpha},
        "lora_dropout": layer.dropout.p,
        "use_rslora": layer.rank_stabilized,
        "target_modules": sorted(adapters),
        "init_lora_weights": True,
    }


def _own_settings(model: Any, adapters: dict[str, Published]) -> dict[str, Any]:
    """What PEFT has no key for."""
    card = card_of(model)
    own: dict[str, Any] = {"task": card.task, "model_type": card.model_type}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    own["base_sample"] = _sample(model, adapted_layers(model), trained).tolist()
    if blocks := {module: adapter.blocks for module, adapter in adapters.items() if adapter.blocks}:
        own["blocks"] = blocks
    if card.task == "classify":
        own["labels"] = card.labels
    if "problem_type" in card.published:
        own["problem_type"] = card.published["problem_type"]
    if card.own_head:
        own["head"] = dataclasses.asdict(model.head.config)
    return card.extra | own


def _task_type(card: Card) -> str | None:
    """PEFT's name of what the adapted model is for; None: it has none."""
    if card.task == "encode" or card.own_head:
        return "FEATURE_EXTRACTION"
    if card.task == "classify":
        return "SEQ_CLS"
    kinds = {"ForConditionalGeneration": "SEQ_2_SEQ_LM", "LMHeadModel": "CAUSAL_LM", "ForCausalLM": "CAUSAL_LM"}
    name = ARCHITECTURES[card.model_type].classes["lm"]
    return next((kind for end, kind in kinds.items() if name.endswith(end)), None)


def _trained_whole(model: Any, rows: tuple[Row, ...]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What is trained beside the adapters, and PEFT's words for it. Its format has a place for

        a module that is trained whole, such as a norm     its name in "modules_to_save"
        the family's head, trained or not                  likewise: it is always written
        biases alone, their modules' weights being frozen  "bias": "all" there are, or "lora_only": the adapted modules'

    and for nothing else: no part of a module, no other choice of biases, no weight that is tied to another.
    """
    card, layers = card_of(model), adapted_layers(model)
    parameters = {
        name: parameter
        for name, parameter in model.named_parameters()
        if not (card.own_head and name.startswith("head."))  # which has a file of its own
    }
    trained = {name for name, p in parameters.items() if p.requires_grad} - adapter_parameters(model).keys()
    if card.task == "classify" and not any(name.startswith("head.") for name in layers):
        trained |= {name for name in parameters if name.startswith("head.")}
    # Biases alone: attention.query.bias, where attention.query.weight is frozen.
    biases = {name for name in trained if name.endswith(".bias") and f"{module_of(name)}.weight" not in trained}
    # Modules: attention_norm, where its weight is trained, and then its bias must be.
    modules = {module_of(name) for name in trained - biases}
    whole = {name for name in parameters if module_of(name) in modules}
    # The choices of biases that have a word, among those that no module brings along.
    every_bias = {name for name in parameters.keys() - whole if name.endswith(".bias")}
    of_layers = {f"{name}.bias" for name in layers} & every_bias
    kinds = {frozenset(every_bias): "all", frozenset(of_layers): "lora_only", frozenset[str](): "none"}
    # What is left has no place: a module's part, an adapted module's own weight, other biases, tied weights.
    stray = (whole - trained) | (modules & layers.keys())
    stray |= set() if frozenset(biases) in kinds else biases
    stray |= {first for first, *others in parameter_names(model) if others and first in trained}
    if stray:
        raise UserError(f"LoRA: {min(stray)} is not trained as PEFT's format can tell; freeze it, or train all of it")
    # A fused tensor is written whole, with those parts of it that were not trained.
    places = [row for name in trained for row in rows_of_ours(name, rows)]
    written = {part.ours for row in places for part in rows_of_theirs(row.theirs, rows)}
    tensors = {name: parameters[name] for name in parameters if name in written}
    return tensors, {"modules_to_save": _saved_modules(model, whole, rows) or None, "bias": kinds[frozenset(biases)]}


def _saved_modules(model: nn.Module, whole: Collection[str], rows: tuple[Row, ...]) -> list[str]:
    """The published modules of the parameters that are trained whole; of a whole head, the one that holds it all."""
    places = {name: rows_of_ours(name, rows) for name, _ in model.named_parameters(remove_duplicate=False)}
    others = {row.theirs.partition(".")[0] for name in places.keys() - whole for row in places[name]}
    saved = set()
    for name in whole:
        for row in places[name]:
            top = row.theirs.partition(".")[0]
            is_whole = name.startswith("head.") and top not in others
            saved |= {top} if is_whole else {module_of(copy) for copy in copies_of(row.theirs, model)}
    return sorted(saved)
