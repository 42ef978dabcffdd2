"""``minilm info``: a model, or the sizes of all models of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from minilm.config import RunConfig
from minilm.errors import UserError
from minilm.reporting.summary import parameter_counts
from minilm.reporting.tables import ABSENT, count, text_table
from minilm.runs.describe import MEMORY_HEADER, describe_model, memory_cells, memory_of, model_of
from minilm.studies.plan import PlannedRun, Study, load_study
from minilm.textfiles import read_toml


def describe(source: str, changes: Sequence[str] = ()) -> str:
    """The layers, size and memory of one model (``describe_model``), or the sizes of the models of a study's file."""
    path = Path(source)
    if path.suffix == ".toml" and "question" in read_toml(path):  # which every study has, and no other config
        return describe_study(load_study(path, changes))
    return describe_model(source, changes)


def describe_study(study: Study) -> str:
    """A row for each model of a study that differs in its size, its trained parameters or its batches."""
    found: dict[str, list[tuple[str, RunConfig]]] = {}
    for run in study.runs:
        config = _config(study, run)
        found.setdefault(_signature(config), []).append((run.group, config))
    rows, reasons = [], []
    for runs in found.values():
        name, config = runs[0]
        try:
            cells = _cells(config)
        except UserError as error:
            cells = [ABSENT] * (len(MEMORY_HEADER) + 1)
            reasons.append(f"{name}: {error}")
        rows.append([name, count(len(runs)), *cells])
    header = ("", "runs", "parameters", *MEMORY_HEADER)
    note = "Memory in MiB, about, of a training step for a batch of texts of data.max_tokens tokens."
    return "\n".join([text_table(header, rows), "", note, *reasons])


def _config(study: Study, run: PlannedRun) -> RunConfig:
    """A run's config. An adapted checkpoint, which may not be there yet, has the size of the one that it came from."""
    return replace(run.config, model=replace(run.config.model, source=study.first_of(run).config.model.source))


def _signature(config: RunConfig) -> str:
    """A text that is equal for configs whose models and batches have equal sizes."""
    train, data = config.train, config.data
    batch = train and (train.batch_size, train.accumulate, train.precision, train.gradient_checkpointing)
    texts = data.source, data.train, data.max_tokens, data.labels, data.label_columns
    return repr((config.model, config.tokenizer, config.freeze, config.adapters, texts, batch))


def _cells(config: RunConfig) -> list[str]:
    model = model_of(config)
    total, _ = parameter_counts(model)
    if config.train is None:
        return [count(total), *[ABSENT] * len(MEMORY_HEADER)]
    return [count(total), *memory_cells(model, memory_of(model, config.train, config.data.max_tokens))]
