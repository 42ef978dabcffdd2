"""Train from Python: ``minilm.train`` and ``minilm.study``, the same as the commands of these names.

>>> run = minilm.train("distilbert", data="reviews.csv", lora={"rank": 8}, seed=2)
>>> run.results.test.macro_f1
>>> run.classifier().predict(["not bad at all"])

Both take what the command line takes, and leave the same folders. Data may also be in memory: ``data`` is a data frame,
or ``(texts, labels)``; they are written beside the runs, so that a run can be repeated and resumed from its folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minilm.config import SPLITS, RunConfig
from minilm.data.in_memory import columns_of_data, is_in_memory, plain
from minilm.keywords import changes_from
from minilm.recipes import find_recipe, recipes
from minilm.reporting.record import Run, read_run
from minilm.runs.finetune import OTHER_DATA, data_changes, fetch_packaged, method_changes
from minilm.runs.kept_data import keep_data
from minilm.runs.train import train_run
from minilm.training.console import Interrupted

Section = Mapping[str, Any]  # the keys of a section of a config, with their values


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
    recipe = find_recipe(config) if isinstance(config, str | Path) else None
    source, runs = recipe or plain(config), Path(runs)
    own = {
        "name": name, "seed": seed, "model": model, "tokenizer": tokenizer, "freeze": freeze, "lora": lora,
        "augment": augment, "adapt": adapt, "train": train, "zero_shot": zero_shot,
    }  # fmt: skip
    shipped = recipe if recipe in recipes().values() else None
    made = [
        *_data_changes(data, shipped, runs),
        *method_changes(method),
        *changes_from(RunConfig, own),
        *changes,
    ]
    if shipped is not None:
        fetch_packaged(shipped, made)
    return run_of(source, made, runs=runs, resume=resume)


def run_of(
    source: Path | Mapping[str, Any], changes: Sequence[str], *, runs: Path, resume: bool = False, pictures: bool = True
) -> Run:
    """The finished run of a config with changes. Raises Interrupted with a message for Python."""
    try:
        return read_run(train_run(source, changes, runs=runs, resume=resume, pictures=pictures))
    except Interrupted as stop:
        hint = f'the state is saved; resume with: minilm.train("{stop.folder.as_posix()}", resume=True)'
        raise Interrupted(stop.number, stop.folder, hint) from None


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
    others = OTHER_DATA if recipe is not None else ()
    return [*others, *_data_keys(dict.fromkeys(("source", *SPLITS), "") | {"sample": False} | keys | given)]


def _data_keys(keys: Section) -> list[str]:
    return changes_from(RunConfig, {"data": keys})
