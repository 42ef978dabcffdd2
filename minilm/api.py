"""Train from Python: ``minilm.train`` and ``minilm.study``, the same as the commands of these names.

>>> run = minilm.train("distilbert", data="reviews.csv", lora={"rank": 8}, seed=2)
>>> run.results.test.macro_f1
>>> run.classifier().predict(["not bad at all"])

The file has columns ``text`` and ``label``; ``data={"source": "reviews.csv", "text": "review"}`` names others. Both
functions take what the command line takes, and leave the same folders. Data may also be in memory: ``data`` is a data
frame, or ``(texts, labels)``; they are written beside the runs, so that a run can be repeated and resumed from its
folder.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minilm.config import SPLITS, RunConfig
from minilm.data.in_memory import columns_of_data, is_in_memory, plain
from minilm.errors import UserError
from minilm.keywords import changes_from, listed_changes, python_call
from minilm.recipes import find_recipe, find_study, recipes
from minilm.reporting.page import Picture, Prose, Span, Table, answer_in, fragment
from minilm.reporting.record import Run, read_run, relative_path
from minilm.reporting.tables import decimal
from minilm.runs.finetune import FEW_TEXTS, OTHER_DATA, data_changes, fetch_packaged, for_pairs, method_changes
from minilm.runs.kept_data import keep_data
from minilm.runs.train import train_run
from minilm.studies.config import StudyConfig, figures_of
from minilm.studies.engine import describe_outcome, run_study
from minilm.studies.other_data import load_with_data
from minilm.textfiles import path_of, read_text
from minilm.training.console import Interrupted, write
from minilm.world import from_first, joined, wait_for_first

Section = Mapping[str, Any]  # the keys of a section of a config, with their values
PICTURES = 3  # the most pictures of a study that a notebook shows


@python_call
def train(
    config: str | Path | Mapping[str, Any],
    data: Any = None,
    *,
    method: str = "",
    name: str | None = None,
    seed: int | None = None,
    model: Section | None = None,
    tokenizer: Section | None = None,
    freeze: Section | None = None,
    lora: Section | None = None,
    augment: Section | None = None,
    adapt: Section | None = None,
    train: Section | None = None,
    zero_shot: Section | None = None,
    changes: Sequence[str] = (),
    runs: str | Path = "runs",
    resume: bool = False,
) -> Run:
    """Train a classifier, and return the finished run: its results, report and model.

    >>> run = minilm.train("minilm", data=frame, train={"epochs": 3, "lr": 1e-4}, name="reviews")

    Args:
        config: the name of a recipe (``minilm recipes`` lists them: "minilm", "distilbert", "scratch_sample", ...); the
            path of a TOML file, or of an earlier run; or a dict with the keys of such a file.
        data: a file, a folder, the name of a data set, or "sample" (a small set of the recipe's kind); a data frame of
            pandas or polars; ``(texts, labels)``, in which a text may be a pair and a label may be a list of labels; or
            a dict with keys of [data], in which "source", or "train", "validation" and "test", may be any of these.
            None: the config's own data. Without a split for them, validation and test texts are held out.
        method: how a recipe trains: "full", "head", "last3" (or another number) or "lora"; empty: as it is.
        name, seed, model, tokenizer, freeze, lora, augment, adapt, train, zero_shot: changes of the config, as
            ``lora={"rank": 8}``; docs/config.md describes every key.
        changes: further changes as on the command line, such as ``("data.text=review", "train.lr=1e-4")``.
        runs: the folder of all runs.
        resume: resume the last run of this name instead of starting one.

    Raises:
        minilm.UserError: a mistake in a config, the data or the arguments, in one line.
        minilm.Interrupted: Ctrl-C stopped the run; its state is saved, and the message says how to resume it.
    """
    keywords = {
        "name": name, "seed": seed, "model": model, "tokenizer": tokenizer, "freeze": freeze, "lora": lora,
        "augment": augment, "adapt": adapt, "train": train, "zero_shot": zero_shot,
    }  # fmt: skip
    made = [*method_changes(method), *changes_from(RunConfig, keywords), *listed_changes(changes)]
    return train_on(config, data, made, runs=path_of(runs, "runs"), resume=resume)


def train_on(
    config: str | Path | Mapping[str, Any],
    data: Any,
    changes: Sequence[str],
    *,
    runs: Path,
    resume: bool = False,
    pictures: bool = True,
) -> Run:
    """The same as ``train``, with changes as on the command line.

    pictures: whether the report has pictures.
    """
    source = _source_of(config, find_recipe)
    shipped = source if isinstance(source, Path) and source in recipes().values() else None
    made = [*_data_changes(data, shipped, runs), *changes]
    if shipped is not None:
        made = for_pairs(shipped, made)
        fetch_packaged(shipped, made)
    try:
        with _threads_restored(), joined():
            folder = train_run(source, made, runs=runs, resume=resume, pictures=pictures)
            wait_for_first()  # of several processes, the first writes the results, perhaps where others cannot read
            return from_first(lambda: read_run(folder))
    except Interrupted as stop:
        hint = f'the state is saved; resume with: minilm.train("{stop.folder.as_posix()}", resume=True)'
        raise Interrupted(stop.number, stop.folder, hint) from None


def _source_of(config: Any, find: Callable[[str | Path], Path]) -> Path | dict[str, Any]:
    """The file of a config, or its table with Python's simplest types. Raises UserError for other types."""
    if isinstance(config, Mapping):
        return plain(config, nan=math.nan)
    if not isinstance(config, str | Path):
        raise UserError(f"the config must be a name, a path or a dict, got {type(config).__name__}")
    return find(config)


@contextmanager
def _threads_restored() -> Iterator[None]:
    """A context at whose end torch has as many CPU threads as before: a run may set others (``train.threads``)."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# Studies ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class FinishedStudy:
    """A study whose runs have ended. A notebook shows its answer, its runs and its pictures."""

    folder: Path
    question: str
    runs: list[Run]  # the finished runs, in order
    failed: dict[str, str]  # run -> why it failed
    page: Path | None  # the page with the answer, as HTML; None if no run has finished

    @property
    def report(self) -> str:
        """The page as Markdown. Raises UserError if there is none."""
        if self.page is None:
            raise UserError(f"{self.folder}: this study has no page, as none of its runs has finished")
        return read_text(self.page.with_suffix(".md"))

    @property
    def figures(self) -> list[Path]:
        """The pictures of the page, as PNG files."""
        return [] if self.page is None else sorted((self.page.parent / figures_of(self.page.stem)).glob("*.png"))

    def __repr__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        page = f"; {relative_path(self.page)}" if self.page is not None else ""
        return f"<FinishedStudy {relative_path(self.folder)}: {len(self.runs)} runs{failed}{page}>"

    def _repr_html_(self) -> str:
        """The question, its answer, the runs and up to three pictures, for a notebook; self-contained."""
        answer = "" if self.page is None else answer_in(read_text(self.page))
        rows: list[list[Prose]] = [
            [run.name, decimal(run.metric("accuracy")), decimal(run.metric("macro_f1"))] for run in self.runs
        ]
        rows += [[name, Span(f"failed: {why}", "em"), ""] for name, why in self.failed.items()]
        table = Table(["run", "test accuracy", "test macro F1"], rows)
        pictures = [Picture(path, path.stem.replace("_", " ")) for path in self.figures[:PICTURES]]
        opening = fragment([[Span(self.folder.name), f": {self.question}"]])
        return f"{opening}\n<p>{answer}</p>\n{fragment([table, *pictures])}"


@python_call
def study(
    config: str | Path | Mapping[str, Any],
    data: Any = None,
    *,
    name: str | None = None,
    axes: Mapping[str, Sequence[Any]] | None = None,
    metric: str | None = None,
    keep_model: str | None = None,
    page: str | None = None,
    active: Section | None = None,
    model: Section | None = None,
    tokenizer: Section | None = None,
    freeze: Section | None = None,
    lora: Section | None = None,
    augment: Section | None = None,
    adapt: Section | None = None,
    train: Section | None = None,
    zero_shot: Section | None = None,
    changes: Sequence[str] = (),
    jobs: int = 1,
    runs: str | Path = "runs",
) -> FinishedStudy:
    """Train all runs of a study, and write the page that answers its question. The same call resumes a study.

    >>> study = minilm.study("seeds", axes={"seed": [1, 2, 3]}, train={"epochs": 2})

    Args:
        config: the name of a study (``minilm recipes`` lists them), the path of a TOML file, or a dict.
        data: other data for every run; see ``minilm.train``. A study that comes with minilm uses them completely and
            without cleaning, as its limits were chosen for its own data; its axes stay.
        name, axes, metric, keep_model, page, active: changes of the study; an axis is changed by itself.
        model, tokenizer, freeze, lora, augment, adapt, train, zero_shot: changes of every run.
        changes: further changes as on the command line, of the study or of every run.
        jobs: runs at the same time. A script needs ``if __name__ == "__main__":`` for more than one.
        runs: the folder of all runs and studies.

    Raises:
        minilm.UserError: a mistake in the study, or runs that cannot answer its question.
        minilm.Interrupted: Ctrl-C stopped the study; the finished runs and the states of the others are saved.
    """
    of_study = {"name": name, "axes": axes, "metric": metric, "keep_model": keep_model, "page": page, "active": active}
    of_runs = {
        "model": model, "tokenizer": tokenizer, "freeze": freeze, "lora": lora, "augment": augment, "adapt": adapt,
        "train": train, "zero_shot": zero_shot,
    }  # fmt: skip
    if not isinstance(jobs, int) or jobs < 1:
        raise UserError(f"jobs must be a whole number of at least 1, got {jobs!r}")
    made = [*changes_from(StudyConfig, of_study), *changes_from(RunConfig, of_runs), *listed_changes(changes)]
    runs = path_of(runs, "runs")
    made = [*_data_changes(data, None, runs), *made]
    source = _source_of(config, find_study)
    planned = load_with_data(source, made, runs=runs)
    try:
        with _threads_restored():
            outcome = run_study(planned, jobs=jobs)
    except Interrupted as stop:
        hint = "the state is saved; the same call of minilm.study resumes it"
        raise Interrupted(stop.number, planned.folder, hint) from None
    write("\n".join(describe_outcome(planned, outcome)), sys.stderr)
    failed = outcome.failed | outcome.failed_elsewhere
    finished = [read_run(planned.folder / run.name) for run in planned.runs if run.name not in failed]
    return FinishedStudy(planned.folder, planned.config.question, finished, failed, outcome.page)


# Data -------------------------------------------------------------------------------------------------------


def _data_changes(data: Any, recipe: Path | None, runs: Path) -> list[str]:
    """The changes of a config, or of a recipe that comes with minilm, for other data."""
    if data is None:
        return []
    given = {key: value for key, value in (data if isinstance(data, Mapping) else {"source": data}).items()}
    keys: dict[str, Any] = {}
    for key in [key for key in ("source", *SPLITS) if given.get(key) is not None]:
        if is_in_memory(given[key]):
            columns = columns_of_data(given[key])
            given[key] = keep_data(columns, runs)
            keys |= columns.keys
        given[key] = str(given[key])
    source = given.get("source", "")
    if recipe is not None and source:
        return [*data_changes(recipe, source), *_data_keys(keys | given | {"source": None})]
    if source == "sample":
        return ["data.sample=true", *_data_keys(given | {"source": None})]
    if not source and not given.get("train"):
        return _data_keys(given)
    others = (*OTHER_DATA, FEW_TEXTS) if recipe is not None else ()
    return [*others, *_data_keys(dict.fromkeys(("source", *SPLITS), "") | {"sample": False} | keys | given)]


def _data_keys(keys: Section) -> list[str]:
    return changes_from(RunConfig, {"data": keys})
