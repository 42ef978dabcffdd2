"""A run's folder, read. The report and the comparison know of a run what is in these four files, and in
``predictions.csv`` (``minilm.reporting.predictions``):

config.toml       the settings, runnable again
environment.json  versions and device: any table
metrics.jsonl     a line an evaluation: step, epoch, lr, train_loss, train and validation (metrics)
results.json      train, validation, test   metrics, as ``minilm.evaluation.metrics`` has them
                  baselines                 name -> {validation, test (metrics), seconds}
                  labels                    names, in order
                  samples                   [{text, label, predicted, scores}], labels by name
                  best, stopped             {epoch, step, metric, value} of the weights kept; why it ended
                  parameters                {total, trained}
                  times                     {train_seconds, inference_seconds_per_100_texts}
                  tokens_per_second         in training
                  data                      {name, fingerprint, sizes (of the splits), warnings}
                  augmentation              {method, ratio, added (rows)}, where rows were added
                  zero_shot                 {method, pattern, content_free, words (label -> word or description)}, where
                                            a model was asked, not trained
                  lengths                   {mean, median, p95, longest, truncated, max_tokens}
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm.errors import UserError
from minilm.loading import stored_table
from minilm.old_keys import with_new_keys
from minilm.textfiles import read_json, read_json_lines, read_toml

FAMILIES = {
    "gpt2": "GPT-2",
    "llama": "Llama",
    "bert": "BERT",
    "distilbert": "DistilBERT",
    "albert": "ALBERT",
    "t5": "T5",
}


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    results: dict[str, Any]  # results.json
    config: dict[str, Any]  # config.toml
    history: list[dict[str, Any]]  # metrics.jsonl, an evaluation each
    environment: dict[str, Any]  # environment.json

    @property
    def name(self) -> str:
        """The folder's name, which unlike the config's tells a second run from the first."""
        return self.folder.resolve().name

    @property
    def from_scratch(self) -> bool:
        """Whether the model began from random weights."""
        return not self.config.get("model", {}).get("source")

    @property
    def model(self) -> str:
        """What was trained: the checkpoint's name, or the architecture's."""
        section = self.config.get("model", {})
        architecture = section.get("architecture", "")
        return _adapted(section.get("source", "")) or FAMILIES.get(architecture, architecture) or "model"


def _adapted(source: str) -> str:
    """The checkpoint's name; of one that a run adapted, what that run started from: "bert, adapted"."""
    config = Path(source).parent / "config.toml"
    if Path(source).name != "adapted" or not config.is_file():
        return source
    start = read_toml(config)["model"]["source"]
    return f"{_adapted(start)}, adapted"


def read_run(folder: Path) -> Run:
    """Read a finished run. Raises UserError where the folder is no run's, or the run has not finished."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of a run, such as runs/scratch")
    config = folder / "config.toml"
    if not config.is_file():
        raise UserError(f"{folder}: not a run's folder, it has no config.toml; give one that `minilm train` made")
    if not (folder / "results.json").is_file():
        raise UserError(f"{folder}: this run has not finished; go on with `{resume_command(folder)}`")
    environment = folder / "environment.json"
    return Run(
        folder=folder,
        results=with_new_keys(read_json(folder / "results.json"), "results.json"),
        config=stored_table(config),
        history=read_history(folder / "metrics.jsonl"),
        environment=with_new_keys(read_json(environment), "environment.json") if environment.is_file() else {},
    )


def resume_command(folder: Path) -> str:
    """The command that goes on with an interrupted run."""
    return f"minilm train {shlex.quote(shown(folder / 'config.toml'))} --resume"


def predict_command(run: Run) -> str:
    """The command that classifies one text, or one pair: its two texts have a tab between them."""
    example = "$'first text\\tsecond text'" if reads_pairs(run) else '"some text"'
    return f"minilm predict {shlex.quote(shown(run.folder))} {example}"


def reads_pairs(run: Run) -> bool:
    """Whether a run was trained on pairs of texts."""
    return bool(run.config.get("data", {}).get("text_pair"))


def shown(path: Path) -> str:
    """A path as a person would type it here: relative where it lies below the working folder."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith(os.pardir) else relative


def read_history(path: Path) -> list[dict[str, Any]]:
    """The evaluations in ``metrics.jsonl``, in order; none if there is no such file."""
    return read_json_lines(path) if path.is_file() else []
