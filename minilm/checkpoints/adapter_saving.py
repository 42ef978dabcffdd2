"""Save LoRA adapters in PEFT's format: the trained parameters, without the base model.

``adapters`` loads such a folder.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import Tensor

from minilm.checkpoints.adapter_configs import CONFIG, AdapterConfig, check_adapter_config
from minilm.checkpoints.adapter_forms import PeftAdapter, publish
from minilm.checkpoints.adapter_tables import DELTA, changed_rows, head_has_bias, is_tied
from minilm.checkpoints.adapter_tensors import PREFIX, STEM, copies_of, places_for, sample_of_base
from minilm.checkpoints.contents import TOKENS
from minilm.checkpoints.files import write_json, write_tensors
from minilm.checkpoints.matching import parameter_names
from minilm.checkpoints.models import OF_TOKENIZER, card_of, copy_files, own_head, write_tokenizer
from minilm.checkpoints.names import Place, module_of, places_of_ours, places_of_theirs, published_tensors
from minilm.errors import UserError
from minilm.finetuning.lora import DoRALinear, LoRALinear, adapted_layers, adapter_parameters
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Backbone, Card


def save_adapter(
    model: Backbone, folder: str | Path, *, base: str = "", revision: str = "", tokenizer: Any = None
) -> Path:
    """Save the trained parameters of an adapted model in a folder that PEFT opens and ``load_adapter`` reads exactly.

    Args:
        model: a model with adapters, from ``add_lora`` or ``load_adapter``.
        folder: created if it does not exist.
        base: the name by which others find the base model, if possible its Hub id; "": the folder that the model was
            loaded from.
        revision: the revision of the base model on the Hub.
        tokenizer: a ``tokenizers.Tokenizer`` to save too; None: the adapter's own tokenizer if it had one. The base
            model's tokenizer is not saved again.

    Raises:
        UserError: the base model is not saved anywhere, or a trained parameter cannot be stored in PEFT's format.
            Nothing is written.
    """
    folder, card, layers = Path(folder), card_of(model), adapted_layers(model)
    if not layers:
        raise ValueError("this model has no adapters; add_lora adds them, and merge removes them")
    base = base or (str(card.folder.resolve()) if card.folder is not None else "")
    if not base:
        raise UserError("LoRA: the adapter's base model was never saved; save and load it first, or train without LoRA")
    places = places_for(model, prefixed=True)
    adapters = publish(model, places)
    rows = changed_rows(model) if _has_trained_rows(model) else None
    whole, settings = _trained_whole(model, places, set() if rows is None else {TOKENS})
    tensors: dict[str, Tensor] = {}
    for module, adapter in adapters.items():
        tensors |= {f"{PREFIX}{module}.{name}": tensor for name, tensor in adapter.tensors().items()}
    for theirs, tensor in published_tensors(whole, places):
        for name in copies_of(theirs, model):
            module, _, leaf = name.rpartition(".")
            tensors[f"{PREFIX}{module}{'.base_layer' if module in adapters else ''}.{leaf}"] = tensor
    if rows is not None:
        settings["trainable_token_indices"] = rows.tolist()
        table = places_of_ours(TOKENS, places)[0].their_module
        tensors[f"{PREFIX}{table}.{DELTA}"] = model.token_embedding.weight.detach()[rows]
    settings |= _settings(layers, adapters)
    settings |= {
        "task_type": _task_type(card),
        "base_model_name_or_path": base,
        "revision": revision or None,
        "fan_in_fan_out": any(
            place.layout.transposed for name in layers for place in places_of_ours(f"{name}.weight", places)
        ),
        "minilm": _own_settings(model, adapters),
    }
    _check_names(model, places, check_adapter_config(dict(settings), str(folder / CONFIG)), tensors, adapters)
    write_tensors(folder / f"{STEM}.safetensors", tensors)
    if (head := own_head(model)) is not None:
        write_tensors(folder / "head.safetensors", dict(head.named_parameters()))
    if tokenizer is not None:
        write_tokenizer(tokenizer, folder, model.config)
    elif card.adapter is not None and card.adapter == card.tokenizer:
        copy_files(card.adapter, OF_TOKENIZER, folder)
    write_json(folder / CONFIG, settings)
    return folder


def _check_names(
    model: Backbone,
    places: tuple[Place, ...],
    config: AdapterConfig,
    tensors: Collection[str],
    adapters: Collection[str],
) -> None:
    """Raises UserError if the module names to be written would also select other modules, by PEFT's rules.

    PEFT compares suffixes: "norm", Llama's final norm, is also a suffix of layers.0.input_layernorm.
    """
    saved = ", ".join(config.saved)
    for module in adapters:
        if not config.targets(module):
            raise UserError(
                f"LoRA: {module} is adapted, but the names of the fully trained modules ({saved}) also select it in "
                "PEFT's format; adapt it or train it fully, not both"
            )
    for name, _ in model.named_parameters(remove_duplicate=False):
        for theirs in (copy for place in places_of_ours(name, places) for copy in copies_of(place.theirs, model)):
            written = f"{PREFIX}{theirs}" in tensors
            if config.saves(theirs) and not written:
                raise UserError(
                    f"LoRA: {name} is not trained, but the names of the fully trained modules ({saved}) also select "
                    "it in PEFT's format, as they are suffixes; train it too, or freeze those modules"
                )
            bias_alone = theirs.endswith(".bias") and config.bias != "none"
            if written and not config.saves(theirs) and not bias_alone:
                raise UserError(f"LoRA: {name} is trained, but PEFT's format has no name for it; freeze it")


def _settings(layers: dict[str, LoRALinear], adapters: dict[str, PeftAdapter]) -> dict[str, Any]:
    """PEFT's settings of these adapters: the most frequent rank and alpha, and the modules that have others.

    Raises UserError if they differ in a setting that PEFT stores only once.
    """
    first, layer = next(iter(layers.items()))
    for name, other in layers.items():
        alike = type(other) is type(layer) and other.dropout.p == layer.dropout.p
        if not alike or other.rank_stabilized != layer.rank_stabilized:
            raise UserError(
                f"LoRA: {first} and {name} differ in dropout, rank_stabilized or dora, but PEFT's format has one for "
                "all; give them the same"
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
        "use_dora": isinstance(layer, DoRALinear),
        "target_modules": sorted(adapters),
        "init_lora_weights": True,
    }


def _own_settings(model: Backbone, adapters: dict[str, PeftAdapter]) -> dict[str, Any]:
    """The settings for which PEFT has no key."""
    card = card_of(model)
    own: dict[str, Any] = {"task": card.task, "model_type": card.model_type}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    own["base_sample"] = sample_of_base(model, adapted_layers(model), trained).tolist()
    if blocks := {module: adapter.blocks for module, adapter in adapters.items() if adapter.blocks}:
        own["blocks"] = blocks
    if card.task == "classify":
        own["labels"] = card.labels
    if "problem_type" in card.published:
        own["problem_type"] = card.published["problem_type"]
    if (head := own_head(model)) is not None:
        own["head"] = dataclasses.asdict(head.config)
    return card.extra | own


def _task_type(card: Card) -> str | None:
    """PEFT's name of the adapted model's task; None if it has no name for it."""
    if card.task == "encode" or card.own_head:
        return "FEATURE_EXTRACTION"
    if card.task == "classify":
        return "SEQ_CLS"
    kinds = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}
    return kinds.get(ARCHITECTURES[card.model_type].language_modeling)


def _has_trained_rows(model: Backbone) -> bool:
    """Whether the token table is trained and tied to a language head, and PEFT can store the rows."""
    tied = is_tied(model) and "head.output" not in adapted_layers(model)
    stored = model.start_token is None and not head_has_bias(model)
    return tied and stored and model.token_embedding.weight.requires_grad


def _trained_whole(
    model: Backbone, places: tuple[Place, ...], apart: set[str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The parameters that are trained besides the adapters, and PEFT's settings for them. PEFT's format can store

        a fully trained module, such as a norm             its name in "modules_to_save"
        the family's head, trained or not                  the same; it is always written
        biases whose weights are frozen                    "bias": "all", or "lora_only" for those of adapted modules
        rows of a token table that is tied to the head     "trainable_token_indices"

    and nothing else: not a part of a module, not other subsets of the biases, and no other tied weights.
    ``apart``: the trained parameters that are stored as rows.
    """
    card, layers = card_of(model), adapted_layers(model)
    parameters = {
        name: parameter
        for name, parameter in model.named_parameters()
        if not (card.own_head and name.startswith("head."))  # minilm's head has its own file
    }
    trained = {name for name, p in parameters.items() if p.requires_grad} - adapter_parameters(model).keys() - apart
    if card.task == "classify" and not any(name.startswith("head.") for name in layers):
        trained |= {name for name in parameters if name.startswith("head.")}
    # Biases without their weights: attention.query.bias, if attention.query.weight is frozen.
    biases = {name for name in trained if name.endswith(".bias") and f"{module_of(name)}.weight" not in trained}
    # Modules: attention_norm, if its weight is trained; then its bias must be trained too.
    modules = {module_of(name) for name in trained - biases}
    whole = {name for name in parameters if module_of(name) in modules}
    # The subsets of biases that PEFT can name, among biases that do not belong to fully trained modules.
    every_bias = {
        name
        for name in parameters.keys() - whole
        if any(place.theirs.endswith(".bias") for place in places_of_ours(name, places))
    }
    of_layers = {f"{name}.bias" for name in layers} & every_bias
    kinds = {frozenset(every_bias): "all", frozenset(of_layers): "lora_only", frozenset[str](): "none"}
    # The rest cannot be stored: a part of a module, the weight of an adapted module, other biases, tied weights.
    stray = (whole - trained) | (modules & layers.keys())
    stray |= set() if frozenset(biases) in kinds else biases
    stray |= {first for first, *others in parameter_names(model) if others and first in trained}
    if stray:
        raise UserError(f"LoRA: PEFT's format cannot store {min(stray)}; freeze it, or train its whole module")
    # A fused tensor is written completely, including parts that were not trained.
    written = {
        part.ours
        for name in trained
        for place in places_of_ours(name, places)
        for part in places_of_theirs(place.theirs, places)
    }
    tensors: dict[str, Tensor] = {name: parameters[name] for name in parameters if name in written}
    return tensors, {"modules_to_save": _saved_modules(model, whole, places) or None, "bias": kinds[frozenset(biases)]}


def _saved_modules(model: Backbone, whole: Collection[str], places: tuple[Place, ...]) -> list[str]:
    """The published modules of the fully trained parameters; for a whole head, the module that contains all of it."""
    found = {name: places_of_ours(name, places) for name, _ in model.named_parameters(remove_duplicate=False)}
    others = {place.theirs.partition(".")[0] for name in found.keys() - whole for place in found[name]}
    saved = set()
    for name in whole:
        for place in found[name]:
            top = place.theirs.partition(".")[0]
            is_whole = name.startswith("head.") and top not in others
            saved |= {top} if is_whole else {module_of(copy) for copy in copies_of(place.theirs, model)}
    return sorted(saved)
