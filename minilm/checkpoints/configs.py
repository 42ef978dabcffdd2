"""Convert between ``config.json`` and an architecture's config, by the rows of its ``settings`` table.

Settings for which a published config has no key are stored under the key "minilm", which other programs ignore.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from minilm.checkpoints.relatives import instead_of
from minilm.errors import UserError, nearest
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Architecture, BackboneConfig
from minilm.models.layers import ACTIVATIONS
from minilm.schema import cut

# minilm's name of an activation -> its published names; the first is written.
_ACTIVATIONS = {
    "gelu": ("gelu", "gelu_python"),
    "gelu_tanh": ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"),
    "relu": ("relu",),
    "silu": ("silu", "swish"),
    "tanh": ("tanh",),
}
# Settings that a config.json may hold as null, which means what it means without them.
_NULLABLE = frozenset((
    "classifier_dropout", "n_inner", "num_key_value_heads", "head_dim", "num_decoder_layers", "dense_act_fn",
    "is_gated_act", "pad_token_id",
))  # fmt: skip
_POSITIVE = ("vocab_size", "context", "width", "embedding_width", "depth", "heads")
# Upper limits of settings, so that an invalid config gives an error and not a very large model.
_MOST = {"depth": 1000, "decoder_depth": 1000, "vocab_size": 1 << 28, "context": 1 << 28, "window": 1 << 28}


def architecture_of(published: dict[str, Any], where: str) -> tuple[str, Architecture[Any]]:
    """The family that a ``config.json`` names. Raises UserError if minilm does not support it."""
    model_type = str(published.get("model_type", ""))
    if model_type not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise UserError(
            f'{where}: model_type "{model_type}" is not supported{instead_of(model_type)}; supported are: {known}'
        )
    return model_type, ARCHITECTURES[model_type]


def class_of(published: dict[str, Any]) -> str:
    """The published class that a ``config.json`` names; "" if it names none."""
    match published.get("architectures"):
        case [str(name), *_]:
            return name
    return ""


# Keys at the top of the config.json of a vision-language model that are not repeated in its "text_config".
_OUTER = ("architectures", "id2label", "label2id", "problem_type", "tie_word_embeddings", "quantization_config")


def text_config(published: dict[str, Any], where: str) -> dict[str, Any] | None:
    """The config.json of the text model inside a vision-language model; None if the model is not a vision-language
    model. Raises UserError if the config contains no config of a text model."""
    for model_type, architecture in ARCHITECTURES.items():
        if published.get("model_type") in architecture.nested_in:
            text = published.get("text_config")
            if not isinstance(text, dict):
                raise UserError(f'{where}: "text_config" must be a JSON object, the config of the text model')
            if text.get("use_bidirectional_attention"):  # there the whole model's attention stays causal
                why = f"has no effect in a {published['model_type']} model, but in its text model alone"
                way = "save that alone (model.language_model.save_pretrained), or set it to false"
                raise UserError(f"{where}: text_config.use_bidirectional_attention {why}; {way}")
            outer = {key: published[key] for key in _OUTER if key in published}
            if "For" not in class_of(published):  # without a head
                outer["architectures"] = [architecture.classes["encode"]]
            return {**text, **outer, "model_type": model_type}
    return None


def own_section(published: dict[str, Any], where: str) -> dict[str, Any]:
    """The table under "minilm". Raises UserError if it is not a table."""
    section = published.get("minilm", {})
    if not isinstance(section, dict) or not isinstance(section.get("config", {}), dict):
        raise UserError(f'{where}: "minilm" must be a JSON object')
    return section


def read_config(published: dict[str, Any], where: str = "config.json") -> Any:
    """minilm's config from a published config. Raises UserError if a setting has a wrong type or is not supported."""
    _, architecture = architecture_of(published, where)
    settings = _settings(published, architecture, where)
    return from_plain(architecture.config, settings | own_section(published, where).get("config", {}), where)


def _settings(published: dict[str, Any], architecture: Architecture[Any], where: str) -> dict[str, Any]:
    """The settings of a published config by minilm's names, with the published defaults of missing keys."""
    published = {**architecture.defaults, **published}
    if architecture.language_modeling == "causal" and published.get("is_causal") is False:
        raise UserError(f"{where}: is_causal = false: a bidirectional decoder is not supported")
    if published.get("quantization_config"):
        raise UserError(f"{where}: quantised weights are not supported; use the checkpoint from which they were made")
    settings: dict[str, Any] = {}
    usual = {field.name: field.default for field in dataclasses.fields(architecture.config)}
    for ours, *theirs in architecture.settings:
        key = next((key for key in theirs if published.get(key) is not None), None)
        if key is not None:
            _check_size(ours, key, published[key], usual[ours], where)
            settings[ours] = _activation(published[key], where) if ours.endswith("activation") else published[key]
        elif not _NULLABLE.issuperset(nulls := [key for key in theirs if key in published]):
            raise UserError(f"{where}: {nulls[0]} is null; remove it to use the default, or give a value")
    try:
        settings |= architecture.read(published)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix('config.json: ')}") from error
    except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"{where}: a setting has the wrong type ({error})") from error
    return settings


def _check_size(ours: str, key: str, value: Any, usual: Any, where: str) -> None:
    """Raise UserError for a size of 0, which in our config may mean "the usual one" and in the published never does."""
    sizes = ours.endswith(("width", "heads")) or (ours == "segments" and usual > 0)
    if sizes and value == 0 and not isinstance(value, bool):
        raise UserError(f"{where}: {key} must be above 0, got {value}")


def new_config(model_type: str, settings: dict[str, Any], where: str) -> Any:
    """The config of a model to train from scratch: the family's published defaults, updated with plain values.

    Raises UserError for a wrong field.
    """
    architecture = ARCHITECTURES[model_type]
    kind, usual = architecture.config, architecture.config()
    published = _settings({"model_type": model_type}, architecture, where)
    own = {key: value for key, value in published.items() if value != getattr(usual, key)}
    return from_plain(kind, own | settings, where)


def from_plain(kind: type, settings: Any, where: str) -> Any:
    """A frozen dataclass (the config of an architecture or a head) from plain values, each checked against its field.

    Raises UserError for a wrong field."""
    if not isinstance(settings, dict):
        raise UserError(f"{where}: must be a table, got {cut(settings)}")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key in settings:
        if key not in fields:
            raise UserError(f"{where}: unknown setting {key}{nearest(key, fields)}; settings are: {', '.join(fields)}")
    checked = {key: _checked(key, value, fields[key].default, where) for key, value in settings.items()}
    try:
        return kind(**checked)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except TypeError as error:
        raise UserError(f"{where}: a setting has the wrong type ({error})") from error


def _checked(key: str, value: Any, default: Any, where: str) -> Any:
    """The value, converted to the type of the field. The allowed values follow from the field's default and name."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        least, most = int(key in _POSITIVE), _MOST.get(key, 1 << 20)
        fits = is_number and least <= value <= most and value == int(value)
        wanted = f"a whole number from {least} to {most:,}"
    elif isinstance(default, float) and key.endswith("dropout"):
        fits, wanted = is_number and 0 <= value < 1, "a number from 0 to 1, 1 excluded"
    elif isinstance(default, float):
        fits, wanted = is_number and value >= 0, "a number of at least 0"
    elif key.endswith("activation"):
        fits, wanted = isinstance(value, str) and value in ACTIVATIONS, "one of " + ", ".join(ACTIVATIONS)
    elif isinstance(default, tuple):
        fits, wanted = isinstance(value, list | tuple), "a list"
    else:
        return value
    if not fits:
        raise UserError(f"{where}: {key} must be {wanted}, got {cut(value)}")
    return type(default)(value)


def write_config(model_type: str, config: BackboneConfig) -> dict[str, Any]:
    """The published form of a config; settings without a published key are under "minilm"."""
    architecture = ARCHITECTURES[model_type]
    published: dict[str, Any] = {"model_type": model_type}
    for ours, key, *_ in architecture.settings:
        value = getattr(config, ours)
        published[key] = _ACTIVATIONS[value][0] if ours.endswith("activation") else value
    published |= architecture.write(config)
    read_back = dataclasses.asdict(read_config(published))
    unpublished = {key: value for key, value in dataclasses.asdict(config).items() if read_back[key] != value}
    unpublished.pop("pooler", None)  # follows from the tensors
    if unpublished:
        published["minilm"] = {"config": unpublished}
    return published


def _activation(theirs: Any, where: str) -> str:
    for ours, names in _ACTIVATIONS.items():
        if theirs in names:
            return ours
    known = [name for names in _ACTIVATIONS.values() for name in names]
    raise UserError(f'{where}: activation "{theirs}" is not supported{nearest(str(theirs), known)}')
