"""Load LoRA adapters in PEFT's format: the trained parameters, without the base model.

A folder contains adapter_config.json (see ``adapter_configs``) and adapter_model.safetensors (see ``adapter_tensors``).
If the head is minilm's own, it also contains head.safetensors, which is described under "minilm" in
adapter_config.json. It may contain a tokenizer.
The trained head is always stored. PEFT opens an adapter with the family's head on the published classifier, and one
with minilm's head on the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from minilm import hub
from minilm.checkpoints.adapter_configs import AdapterConfig, read_adapter_config
from minilm.checkpoints.adapter_tensors import PREFIX, STEM, AdapterTensors, read_adapter, sample_of_base
from minilm.checkpoints.contents import read_contents
from minilm.checkpoints.files import read_folder
from minilm.checkpoints.matching import parameter_names, set_parameter
from minilm.checkpoints.models import Dtype, card_of, load_parts, own_head, warn_of
from minilm.checkpoints.names import module_of, places_of_ours
from minilm.errors import UserError
from minilm.finetuning.lora import DoRALinear, adapt_layer, adapted_layers, adapter_parameters
from minilm.models import TASKS
from minilm.models.architecture import Backbone
from minilm.models.heads import HeadConfig


def base_of(folder: str | Path) -> str:
    """The base model of an adapter: a folder, or a name that ``load_model`` accepts.

    A relative path is relative to the adapter's folder if it exists there. Raises UserError if the adapter does not
    name its base model.
    """
    config = read_adapter_config(folder)
    if not config.base:
        raise UserError(f"{config.where}: base_model_name_or_path must name the base model (a folder or a Hub id)")
    beside = Path(folder) / config.base
    return str(beside) if beside.is_dir() else config.base


def find_base(folder: Path, base: str | Path | None = None) -> Path:
    """The folder of an adapter's base model, downloaded if it is not on this machine.

    base: the model to use; None: the one that the adapter names. Raises UserError if there is no such model.
    """
    config, source = read_adapter_config(folder), base_of(folder) if base is None else str(base)
    revision = "" if hub.is_folder(source) or base is not None else config.revision
    try:
        return hub.resolve_model(source, revision)
    except UserError as error:
        named = "load_model(..., base=...), or in a config model.base"
        elsewhere = "" if base is not None else f"; if it is elsewhere, name it: {named}"
        raise UserError(f"{config.where}: its base model cannot be opened: {error}{elsewhere}") from None


def load_adapted_model(
    folder: str | Path,
    task: str | None = None,
    *,
    labels: Sequence[str] | None = None,
    head: HeadConfig | None = None,
    dtype: Dtype = None,
    device: torch.device | str | None = None,
    base: str | Path | None = None,
) -> Backbone:
    """Load an adapter's base model and apply the adapter, in evaluation mode.

    Arguments and errors are those of ``opening.load_model``, and the errors of ``load_adapter``. task, labels and head
    must be those of the adapter. If the adapter does not name its task, the task must be given.
    """
    folder, config = Path(folder), read_adapter_config(folder)
    if config.task and task not in (None, config.task):
        raise UserError(f'{folder}: is an adapter for the task "{config.task}", and cannot be loaded for "{task}"')
    task = config.task or task
    if not task:
        tasks = ", ".join(TASKS)
        raise UserError(
            f"{config.where}: task_type and auto_mapping name none of the supported tasks ({tasks}); give the task "
            "when loading the adapter"
        )
    if head not in (None, config.head):
        raise UserError(f"{folder}: this adapter already has a head; remove the argument head, or load the base model")
    below = find_base(folder, base)
    own = _labels(folder, config, below) if task == "classify" else None
    if dtype is None and any(entry.dtype == torch.float32 for entry in read_folder(folder, STEM).values()):
        dtype = torch.float32  # so that trained parameters are not rounded to the base's dtype
    of_base = None if dtype == "stored" else dtype
    model, untrained = load_parts(below, task, labels=own, head=config.head, dtype=of_base, device=device)
    if labels is not None and list(labels) != card_of(model).labels:
        its = ", ".join(card_of(model).labels) or "none"
        raise UserError(f"{folder}: this adapter already has labels ({its}); remove labels, or load the base model")
    load_adapter(model, folder, as_stored=dtype == "stored")
    warn_of([name for name in untrained if not model.get_parameter(name).requires_grad], model)
    return model


def _labels(folder: Path, config: AdapterConfig, base: Path) -> list[str] | None:
    """The classes of the adapter's head; None if it has no head, so that the base's head is used."""
    stored = read_contents(base)
    output = PREFIX + places_of_ours("head.output.weight", stored.places("classify"))[0].theirs
    held = read_folder(folder, STEM)
    if config.labels or output not in held:
        return config.labels or None
    classes = held[output].shape[0] if held[output].shape else 0
    return stored.labels if len(stored.labels) == classes else [f"LABEL_{i}" for i in range(classes)]


def load_adapter(model: Backbone, folder: str | Path, *, as_stored: bool = False) -> None:
    """Apply an adapter to a model, in place. Only the adapter's parameters remain trainable.

    Args:
        model: the adapter's base, from ``load_model``, with a head of the adapter's kind.
        folder: the folder of an adapter, written by minilm or PEFT.
        as_stored: fully trained parameters keep the dtype in which they are stored, instead of the model's.

    Raises:
        UserError: the adapter's kind is not supported, it is for another model, or it is damaged. The model does not
            change.
    """
    if adapted_layers(model):
        raise ValueError("this model already has adapters; merge them first")
    config, card = read_adapter_config(folder), card_of(model)
    _check_kind(model, config)
    held = read_adapter(model, Path(folder), config)
    weights = sample_of_base(model, held.adapters, held.whole)
    if config.base_sample and not weights.is_meta and not _same_weights(weights, config.base_sample):
        raise UserError(f"{config.where}: is for {config.base or 'a model'}, which has other weights than this model")
    for name, adapter in held.adapters.items():
        layer = adapt_layer(
            model,
            name,
            len(adapter.a),
            adapter.alpha,
            dropout=config.dropout,
            rank_stabilized=config.rank_stabilized,
            dora=config.dora,
        )
        layer.lora_a.data.copy_(adapter.a)
        layer.lora_b.data.copy_(adapter.b)
        if isinstance(layer, DoRALinear) and adapter.magnitude is not None:
            layer.lora_magnitude.data.copy_(adapter.magnitude)
    _untie(model, held.whole)
    for name, value in held.whole.items():
        parameter = model.get_parameter(name)
        dtype = value.dtype if as_stored else parameter.dtype
        parameter.data = torch.empty_like(parameter, dtype=dtype).copy_(value)
    of_adapters = adapter_parameters(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_trained(name, held, config) or name in of_adapters)
    extra = dict(config.extra)
    if "problem_type" in extra:
        card.published["problem_type"] = extra.pop("problem_type")
    card.labels = config.labels or card.labels
    card.extra |= extra
    card.adapter = Path(folder)


def _untie(model: Backbone, whole: Mapping[str, Tensor]) -> None:
    """Untie two tied parameters if the adapter does not store one value for both."""
    for names in parameter_names(model):
        values = [whole.get(name) for name in names]
        if any(value is not values[0] for value in values):
            for name in names[1:]:
                set_parameter(model, name, nn.Parameter(model.get_parameter(name).detach().clone()))


def _is_trained(name: str, held: AdapterTensors, config: AdapterConfig) -> bool:
    """Whether a parameter is fully trained. For a stored fused bias, "lora_only" means its adapted parts."""
    alone = name.endswith(".bias") and f"{module_of(name)}.weight" not in held.whole
    spare = alone and config.bias == "lora_only" and module_of(name) not in held.adapters
    return name in held.whole and not spare


def _check_kind(model: Backbone, config: AdapterConfig) -> None:
    """Raises UserError if the adapter's config is for another family or another head."""
    card, head = card_of(model), own_head(model)
    if config.model_type not in ("", card.model_type):
        raise UserError(f"{config.where}: is for a {config.model_type} model, but this is a {card.model_type} model")
    if config.head is not None and (head is None or config.head != head.config):
        raise UserError(
            f"{config.where}: the adapter has its own head ({config.head}), which this model does not have; "
            "load the base model with this head"
        )
    if config.labels and len(config.labels) != len(card.labels):
        raise UserError(f"{config.where}: has {len(config.labels)} labels, but the model has {len(card.labels)}")


def _same_weights(found: Tensor, stored: list[float]) -> bool:
    """Whether values are equal up to rounding to another dtype; bfloat16 with 8 significant bits rounds by up to 2^-8.

    An adapter may store the values of only the first weights.
    """
    wanted, found = torch.tensor(stored), found[: len(stored)].cpu()
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=0.004, atol=1e-6)
