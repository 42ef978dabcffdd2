"""``minilm study FILE --dry-run``: estimate the time and disk space of a study, and check which runs would fail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minilm.config import RunConfig
from minilm.errors import UserError, located
from minilm.reporting.tables import duration
from minilm.runs.check import ModelSize, check_run
from minilm.runs.shared_cache import shared_cache
from minilm.studies.execution import read_note, state_of
from minilm.studies.plan import PlannedRun, Study

BYTES = 4  # per parameter: trained parameters are stored in float32
RESUME_COPIES = 4  # copies of the trained parameters in a checkpoint: weights, best weights, Adam's two moments
REPORT_BYTES = 2**20  # the approximate size of a run's report, figures and predictions


@dataclass(frozen=True)
class StudyPreview:
    """The preview of the remaining runs."""

    left: int
    finished: int
    failing: dict[str, str]  # run -> why it would fail
    stored_bytes: int  # of the folders of the remaining runs
    working_bytes: int  # additional bytes while runs train
    seconds: float | None  # until all are finished; None before the first


def preview_study(study: Study, runs: Sequence[PlannedRun], jobs: int = 1) -> StudyPreview:
    """Check every run that has not finished, as far as that is possible without training."""
    left = [run for run in runs if state_of(study.folder, run) != "finished"]
    sizes: dict[str, ModelSize] = {}
    failing: dict[str, str] = {}
    checked: dict[str, ModelSize | str] = {}
    with shared_cache():
        for run in left:
            config, pool = _checkable(study, run)
            key = repr((_without_seed(config), pool))
            if key not in checked:
                checked[key] = _check(config, study.path, pool)
            found = checked[key]
            if isinstance(found, str):
                failing[run.name] = found
            else:
                sizes[run.name] = found
    able = [run for run in left if run.name in sizes]
    stored = sum(_stored_bytes(run, sizes[run.name]) for run in able)
    working = max((RESUME_COPIES * BYTES * sizes[run.name].trained for run in able), default=0)
    done = [note.seconds for run in runs if run not in left and (note := read_note(study.folder, run)).seconds]
    seconds = sum(done) / len(done) * math.ceil(len(left) / jobs) if done else None
    return StudyPreview(len(left), len(runs) - len(left), failing, stored, working * min(jobs, len(left)), seconds)


def _check(config: RunConfig, file: Path, pool: int) -> ModelSize | str:
    """The size of a run's model, or why the run would fail."""
    try:
        with located(str(file)):
            return check_run(config, pool)
    except UserError as error:
        return " ".join(str(error).split())


def _checkable(study: Study, run: PlannedRun) -> tuple[RunConfig, int]:
    """A run's config in which inputs that do not exist yet are replaced, and the least number of training rows.

    A run that starts from an adapted checkpoint is checked with the checkpoint that will be adapted; a round of active
    learning with the whole pool.
    """
    config, pool = run.config, 0
    source = Path(config.model.source)
    if run.after and source.name == "adapted" and not (source / "config.json").is_file():
        config = replace(config, model=replace(config.model, source=study.first_of(run).config.model.source))
    if run.round is not None:
        config, pool = replace(config, data=replace(config.data, rows="")), run.round.final_labels
    return config, pool


def _without_seed(config: RunConfig) -> RunConfig:
    """A config that is equal for runs that differ only in their seed, and in the data drawn with it."""
    data = replace(config.data, split_seed=0) if config.data.redraw else config.data
    return replace(config, name="", seed=1, data=data)


def _stored_bytes(run: PlannedRun, size: ModelSize) -> int:
    """The size of a run's folder in bytes."""
    config, stored = run.config, REPORT_BYTES
    if config.adapt is not None:
        stored += BYTES * size.total
    if config.train is None or run.keep_model == "none":
        return stored
    whole = run.keep_model == "all" and config.adapters is None
    return stored + BYTES * (size.total if whole else size.trained)


def describe_preview(preview: StudyPreview) -> list[str]:
    """The preview in a few lines."""
    runs = f"Runs:  {preview.left} to run, {preview.finished} finished"
    stored, working = _size(preview.stored_bytes), _size(preview.working_bytes)
    disk = f"Disk:  {stored} for the runs, and {working} more while they train"
    time = "Time:  unknown until the first run has finished"
    if not preview.left:
        return [runs]
    if preview.seconds is not None:
        time = f"Time:  about {duration(preview.seconds)}, at the rate of the finished runs"
    together: dict[str, list[str]] = {}
    for name, why in preview.failing.items():
        together.setdefault(why, []).append(name)
    return [runs, disk, time, *(f"Would fail: {', '.join(names)}: {why}" for why, names in together.items())]


def _size(number: float) -> str:
    """A number of bytes as text: ``12 MB``, ``1.4 GB``."""
    if number < 0.5e6:
        return "less than 1 MB"
    return f"{number / 1e6:,.0f} MB" if number < 0.9995e9 else f"{number / 1e9:,.1f} GB"
