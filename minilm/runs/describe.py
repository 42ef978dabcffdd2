"""``minilm info``: the layers of a model, its size, and the memory of a training step, without its weights.

A model that is not on this machine is described by its config.json, the only file that is then downloaded.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from minilm import devices, hub
from minilm.checkpoints.opening import holds_model, load_model
from minilm.config import BPETokenizerSection, FreezeAllButLast, FreezeNothing, LoraSection, RunConfig, TrainSection
from minilm.data.sources import load_dataset
from minilm.data.tokenization import load_tokenizer
from minilm.errors import UserError, located
from minilm.finetuning.freezing import shares_layers
from minilm.finetuning.lora import adapter_parameters
from minilm.hints import program
from minilm.loading import config_of, load_config
from minilm.model_files import holds_adapter, is_whole
from minilm.models.architecture import Backbone
from minilm.reporting.record import read_run
from minilm.reporting.summary import parameter_counts, summarize
from minilm.reporting.tables import count, text_table
from minilm.runs.assembly import choose_trained, make_model
from minilm.runs.memory import StepMemory, step_memory
from minilm.schema import override

MIB = 2**20
RANK, LAST = 8, 3  # of the methods that are compared: LoRA's rank, and how many layers train
TEXTS, TOKENS = 16, 128  # of a batch, for a model without a config


def describe_model(model: str, changes: Sequence[str] = ()) -> str:
    """The layers, size and memory of a config (TOML), a run's folder, a model's folder, a catalogue name or a Hub id.

    changes: of the config, such as ``train.batch_size=8``; a model without a config gets the defaults of one. The model
    is built on torch's "meta" device, which has shapes but no memory, so this is quick for any size.
    """
    path = Path(model)
    if path.suffix == ".toml":
        return _describe_config(load_config(path, changes), str(path))
    if (path / "config.toml").is_file():
        config, finished = load_config(path / "config.toml", changes), holds_model(path / "model")
        if changes or not finished:
            labels = read_run(path).results.labels if finished else None
            return _describe_config(config, str(path), labels)
        shown = load_model(path / "model", device="meta")
        if config.adapters is None and shown.head is not None:
            choose_trained(shown, config, ())
        return _page(shown, [("this run", shown)], config.train, config.data.max_tokens)
    folder = _folder_of(str(path / "model") if (path / "model").is_dir() else model)
    if changes:
        return _describe_config(_usual_config(folder, changes), model, ["0", "1"])
    shown = load_model(folder, device="meta")
    config = _usual_config(folder, [f"data.max_tokens={min(TOKENS, shown.context or TOKENS)}"])
    return _page(shown, _methods(config, ["0", "1"]), config.train, config.data.max_tokens)


def _describe_config(config: RunConfig, where: str, labels: list[str] | None = None) -> str:
    with located(where):
        shown = model_of(config, labels)
        methods = _methods(config, labels) if config.model.source and config.train else ()
        return _page(shown, [("this config", shown), *methods], config.train, config.data.max_tokens)


def model_of(config: RunConfig, labels: list[str] | None = None) -> Backbone:
    """The model of a config on the meta device, frozen as it will train. labels: None: those of the data.

    Raises UserError as ``make_model`` does.
    """
    if config.model.source:
        folder = _folder_of(config.model.source, config.model.revision)
        config = replace(config, model=replace(config.model, source=str(folder), revision=""))
    precision = _precision(config.train) if config.train else "float32"
    return make_model(config, labels or _labels(config), _vocabulary(config), device="meta", precision=precision)


def memory_of(model: Backbone, settings: TrainSection, tokens: int) -> StepMemory:
    """The memory of a step of a model from ``model_of`` with these settings, for texts of so many tokens."""
    return step_memory(
        model, settings.batch_size, tokens, bfloat16=_precision(settings) != "float32", accumulate=settings.accumulate,
        checkpointing=settings.gradient_checkpointing,
    )  # fmt: skip


def _folder_of(source: str, revision: str = "") -> Path:
    """The folder of a model on this machine, or if there is none, one with its config.json. Raises UserError for an
    adapter that is not on this machine."""
    folder = hub.resolve_config(source, revision).parent
    if holds_adapter(folder) and not is_whole(folder):
        raise UserError(f"{source}: is an adapter; download it first ({program()} download {source}), or give its base")
    return folder


def _usual_config(folder: Path, changes: Sequence[str]) -> RunConfig:
    """A config that trains a classifier of two labels from a model's folder."""
    table = {
        "name": "info",
        "model": {"source": str(folder)},
        "data": {"source": "texts.csv", "max_tokens": TOKENS},
        "train": {"epochs": 1, "lr": 1e-4, "batch_size": TEXTS},
    }
    return config_of(table, {override(RunConfig, table, text): text for text in changes}, str(folder))


def _precision(settings: TrainSection) -> str:
    return devices.runtime(settings.device, settings.precision).precision


# --- The page ---


def _methods(config: RunConfig, labels: list[str] | None) -> Iterator[tuple[str, Backbone]]:
    """Usual ways to train the checkpoint of a config: all of it, LoRA, and its last layers."""
    everything = model_of(replace(config, freeze=FreezeNothing(), lora=None), labels)
    yield "all parameters", everything
    changed = [(f"LoRA, rank {RANK}", replace(config, freeze=FreezeNothing(), lora=LoraSection(RANK)))]
    if everything.num_layers > LAST and not shares_layers(everything):
        last = replace(config, freeze=FreezeAllButLast(layers=LAST), lora=None)
        changed.append((f"last {LAST} of {everything.num_layers} layers", last))
    for name, other in changed:
        model = copy.deepcopy(everything)
        choose_trained(model, other, ())
        yield name, model


def _page(
    model: Backbone, methods: Iterable[tuple[str, Backbone]], settings: TrainSection | None, tokens: int
) -> str:
    """The layers, the size, and the memory of each method."""
    total, _ = parameter_counts(model)
    wide, narrow = (f"{total * size / MIB:,.1f} MiB in {dtype}" for size, dtype in ((4, "float32"), (2, "bfloat16")))
    lines = [summarize(model), "", f"Weights: {wide}, {narrow}"]
    if settings is None:
        return "\n".join(lines)
    methods = list(methods)
    for name, other in methods:
        if name.startswith("LoRA"):
            adapters = sum(p.numel() for p in adapter_parameters(other).values())
            lines.append(f"{name}: {count(adapters)} parameters of adapters on query and value, besides the head")
    rows = [[name, *memory_cells(other, memory_of(other, settings, tokens))] for name, other in methods]
    lines += [
        "",
        f"The memory of a training step, about, for a batch of {settings.batch_size:,} texts of {tokens:,} tokens, in "
        f"{_precision(settings)} (MiB):",
        "",
        text_table(("", *MEMORY_HEADER), rows),
    ]
    return "\n".join(lines)


MEMORY_HEADER = ("trained", "weights", "moments", "gradients", "activations", "in all")


def memory_cells(model: Backbone, memory: StepMemory) -> list[str]:
    """The number of trained parameters, and the parts of the memory in MiB."""
    parts = memory.weights, memory.moments, memory.gradients, memory.activations, memory.total
    return [count(parameter_counts(model)[1]), *(f"{part / MIB:,.0f}" for part in parts)]


# --- The parts of a config that its model depends on ---


def _labels(config: RunConfig) -> list[str]:
    """The labels: those of the config or the catalogue, or else those in the data."""
    data = config.data
    return data.labels or data.label_columns or load_dataset(data).label_names


def _vocabulary(config: RunConfig) -> int:
    """The vocabulary size of the tokenizer, if that of the model depends on it; otherwise 0.

    A BPE trained on few texts may have fewer tokens.
    """
    own = config.model.config.get("vocab_size")
    if isinstance(own, int) or config.model.source:
        return 0
    if isinstance(config.tokenizer, BPETokenizerSection):
        return config.tokenizer.vocab_size
    return load_tokenizer(config.tokenizer.source).get_vocab_size()
