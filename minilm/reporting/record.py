"""Read the folder of a run, for reports, comparisons and studies.

    config.toml        the settings, runnable again            minilm.config.RunConfig
    results.json       the results                             minilm.reporting.results.Results
    metrics.jsonl      one evaluation per line                 minilm.reporting.results.Evaluation
    environment.json   versions, device, hashes of inputs      minilm.reporting.results.Environment
    predictions.csv    the test texts                          minilm.reporting.predictions.Predictions
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from minilm.config import RunConfig
from minilm.errors import UserError
from minilm.hints import program, training_program
from minilm.loading import load_config
from minilm.reporting.results import Environment, Evaluation, Results, read_history, read_record


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    results: Results
    config: RunConfig
    history: list[Evaluation]  # the evaluations of training, or of adaptation if the run only adapted
    environment: Environment | None  # None: the folder lacks the file

    @property
    def name(self) -> str:
        """The folder's name, which unlike the name in the config is unique."""
        return self.folder.resolve().name

    @property
    def from_scratch(self) -> bool:
        """Whether the model started from random weights."""
        return not self.config.model.source

    @property
    def only_adapted(self) -> bool:
        """Whether the run adapted a language model and did not train a classifier."""
        return self.results.best is None and self.results.zero_shot is None

    @property
    def model(self) -> str:
        """The name of the model: that of the checkpoint, or of the architecture."""
        named = _adapted(self.config.model.source)
        return named or self.results.architecture or self.config.model.architecture

    def metric(self, name: str, split: str = "test") -> float | None:
        """A metric on a split; None if it was not measured. The perplexity is that after adaptation."""
        if name == "perplexity" and split == "validation" and self.results.adaptation is not None:
            return self.results.adaptation.perplexity.after
        metrics = self.results.metrics(split)
        return None if metrics is None else metrics.get(name)


def _adapted(source: str) -> str:
    """The checkpoint's name. If a run adapted it, the name of the checkpoint that this run started from, with
    ", adapted": "bert, adapted"."""
    config = adapted_by(source)
    return source if config is None else f"{_adapted(config.model.source)}, adapted"


def adapted_by(source: str) -> RunConfig | None:
    """The config of the run that adapted a checkpoint; None if no run did."""
    config = Path(source).parent / "config.toml"
    return load_config(config) if Path(source).name == "adapted" and config.is_file() else None


def read_run(folder: Path) -> Run:
    """Read a finished run. Raises UserError if the folder is not a run's folder, or if the run has not finished."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of a run, such as runs/scratch")
    config = folder / "config.toml"
    if not config.is_file():
        raise UserError(f"{folder}: not a run's folder (it has no config.toml); give one that `minilm train` made")
    if not (folder / "results.json").is_file():
        raise UserError(f"{folder}: this run has not finished; resume it with `{resume_command(folder)}`")
    environment = folder / "environment.json"
    return Run(
        folder=folder,
        results=read_record(Results, folder / "results.json"),
        config=load_config(config),
        history=read_history(folder) or read_history(folder / "adaptation"),
        environment=read_record(Environment, environment) if environment.is_file() else None,
    )


def resume_command(folder: Path) -> str:
    """The command that continues an interrupted run."""
    return f"{training_program()} train {shlex.quote(relative_path(folder / 'config.toml'))} --resume"


def prediction_command(run: Run) -> str:
    """The command that classifies one text, or a pair of two texts with a tab between them."""
    example = "$'first text\\tsecond text'" if reads_pairs(run) else '"some text"'
    return f"{program()} predict {shlex.quote(relative_path(run.folder))} {example}"


def reads_pairs(run: Run) -> bool:
    """Whether a run was trained on pairs of texts."""
    return bool(run.config.data.text_pair)


def relative_path(path: Path) -> str:
    """A path as a user would type it: relative if it is below the working directory."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith(os.pardir) else relative
