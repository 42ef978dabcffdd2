"""Read the folder of a run, for reports, comparisons and studies.

    config.toml        the settings, runnable again            minilm.config.RunConfig
    results.json       the results                             minilm.reporting.results.Results
    metrics.jsonl      one evaluation per line                 minilm.reporting.results.Evaluation
    environment.json   versions, device, hashes of inputs      minilm.reporting.results.Environment
    predictions.csv    the test texts                          minilm.reporting.predictions.Predictions
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minilm.config import RunConfig
from minilm.errors import UserError
from minilm.hints import WINDOWS, program, quoted, training_program
from minilm.loading import load_config
from minilm.reporting.page import Picture, Span, fragment
from minilm.reporting.results import Environment, Evaluation, Results, read_history, read_record
from minilm.reporting.results_tables import metrics_table, perplexity_table
from minilm.reporting.tables import decimal, metric_columns, metric_name
from minilm.textfiles import path_of, read_text

if TYPE_CHECKING:
    from minilm.evaluation.predictor import Classifier


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run. A notebook shows its table of results and its learning curves."""

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

    @property
    def report(self) -> str:
        """The run's report, as Markdown."""
        return read_text(self.folder / "report.md")

    @property
    def figures(self) -> list[Path]:
        """The pictures of the run, as PNG files."""
        return sorted((self.folder / "figures").glob("*.png"))

    def classifier(self, device: str = "auto", precision: str = "") -> Classifier:
        """The trained classifier; see ``Classifier.load``. Raises UserError if the run has none."""
        from minilm.evaluation.predictor import Classifier  # imports torch, which tables do not need

        return Classifier.load(self.folder, device, precision)

    def __repr__(self) -> str:
        """One line: the folder, and the most telling metrics."""
        split = "test" if self.results.test is not None else "validation"
        names = ("perplexity",) if self.only_adapted else metric_columns(self.results.multi_label)
        numbers = [f"{metric_name(name)} {decimal(self.metric(name, split))}" for name in names]
        return f"<Run {relative_path(self.folder)}: {split} {', '.join(numbers)}>"

    def _repr_html_(self) -> str:
        """The table of results and the learning curves, for a notebook; self-contained."""
        results, curves = self.results, self.folder / "figures" / "learning_curves.png"
        tables = [metrics_table(results)] if not self.only_adapted else []
        tables += [perplexity_table(results.adaptation)] if results.adaptation is not None else []
        pictures = [Picture(curves, "loss and metric over the epochs")] if curves.is_file() else []
        return fragment([[Span(self.name), f", in {relative_path(self.folder)}"], *tables, *pictures])

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


def read_run(folder: str | Path) -> Run:
    """Read a finished run. Raises UserError if the folder is not a run's folder, or if the run has not finished."""
    folder = path_of(folder, "the run")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of a run, such as runs/scratch")
    config = folder / "config.toml"
    if not config.is_file():
        found = sorted(path.parent for path in folder.glob("*/config.toml"))
        inside = f"a run in it, such as {relative_path(found[0])}, or all of them: {folder / '*'}" if found else ""
        advice = inside or "one that `minilm train` made"
        raise UserError(f"{folder}: not a run's folder (it has no config.toml); give {advice}")
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
    return f"{training_program()} train {quoted(relative_path(folder / 'config.toml'))} --resume"


def prediction_command(run: Run) -> str:
    """The command that classifies one text, or a pair of two texts with a tab between them."""
    pair = '"first text`tsecond text"' if WINDOWS else "$'first text\\tsecond text'"  # a tab in PowerShell, in bash
    example = pair if reads_pairs(run) else '"some text"'
    return f"{program()} predict {quoted(relative_path(run.folder))} {example}"


def reads_pairs(run: Run) -> bool:
    """Whether a run was trained on pairs of texts."""
    return bool(run.config.data.text_pair)


def relative_path(path: Path) -> str:
    """A path as a user would type it: relative if it is below the working directory."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # on another drive of Windows
        return str(path)
    return str(path) if relative.startswith(os.pardir) else relative
