"""Plan the runs of a study: its variants at every point of its axes, their folders, and rounds of active learning.

A run's settings are the base, then the variant's changes, then its point on the axes, then the changes of the command
line; later settings win. A change of [train], [adapt] or [zero_shot] on the command line applies to the runs that have
this section. A change of a key that only some choices use, such as ``model.head.dropout``, applies to the runs that
use it.

``after`` sets ``model.source`` to the folder ``adapted`` of the earlier variant's run at the same point, ignoring axes
that the earlier variant is not crossed with.

With a section ``[active]``, each run that trains becomes a tree of rounds:

                    random 100 --- random 500
    start 20  <
                    entropy 100 --- entropy 500

A round is an ordinary run. It waits for the previous round, whose model chooses its rows
(``minilm.studies.labelling``). The pool is the run's training rows. ``data.rows`` names the file that lists the
training rows of a round.

If a config does not set the number of CPU threads (``train.threads = 0``), a run of a study gets one thread. This
number is written to the run's config, so that results depend neither on the machine nor on ``--jobs``.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from minilm.config import KeepModel, RunConfig
from minilm.errors import UserError, nearest
from minilm.loading import config_of, folder_name, is_within, keep_change, short_hash, unread
from minilm.schema import flat, override, read_table, shown, write_table
from minilm.studies.config import ActiveSection, StudyConfig, Variant, check_active, check_axes_and_variants
from minilm.textfiles import read_toml

RESERVED = re.compile("configs|logs|figures(-.*)?")  # names of the study's own folders
OPTIONAL_SECTIONS = ("adapt", "train", "zero_shot")  # sections that not every run has
DEFAULT_THREADS = 1  # CPU threads of a run whose config does not set them
FIRST_ROUND = "start"  # the name of the first round, which all rules share; its rows are random
T = TypeVar("T")


@dataclass(frozen=True)
class LabellingRound:
    """One round of active learning: how many rows are labelled, and by which rule they were chosen."""

    rule: str
    labels: int  # labelled rows in this round
    noise: float = 0.0  # fraction of them whose label is wrong
    final_labels: int = 0  # labelled rows in the last round


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study."""

    name: str  # of its folder
    variant: str  # empty if the study has no variants
    point: dict[str, Any]  # its value on each axis
    config: RunConfig
    after: str = ""  # the run that must finish first
    round: LabellingRound | None = None  # in active learning
    keep_model: KeepModel = "trained"  # what its folder saves of the model

    @property
    def group(self) -> str:
        """The common name of runs that differ only in their seed: ``head``, or ``head, lr 1e-05``."""
        return self.name_without() or "all runs"

    def name_without(self, *keys: str) -> str:
        """The variant and the point, apart from the seed and the values on these axes. It may be empty."""
        point = {key: value for key, value in self.point.items() if key not in ("seed", *keys)}
        axes = [f"{key.rpartition('.')[2]} {_plain(value)}" for key, value in point.items()]
        return ", ".join([self.variant, *axes] if self.variant else axes)


@dataclass(frozen=True)
class Study:
    """A study's settings, its folder, and its runs in order."""

    config: StudyConfig
    folder: Path
    runs: tuple[PlannedRun, ...]
    path: Path  # of its file; the path of the base is relative to it
    changes: tuple[str, ...] = ()  # from the command line, for every run

    def first_of(self, run: PlannedRun) -> PlannedRun:
        """The run, or the first of the runs that it starts from. Its checkpoint exists before the study starts."""
        while run.after:
            run = next(other for other in self.runs if other.name == run.after)
        return run

    @property
    def axes(self) -> list[str]:
        """The axes that distinguish the runs of a variant: those of the file and, with [active], rule, labels,
        noise."""
        return list(dict.fromkeys([*self.config.axes, *(key for run in self.runs for key in run.point)]))


def load_study(
    source: Path | Mapping[str, Any], changes: Sequence[str] = (), *, runs: Path = Path("runs")
) -> Study:
    """Read a study's file, or a table with the same keys, and plan its runs, whose folders will be below ``runs``.

    A change applies to the study (``axes.seed=[1]``, ``metric=macro_f1``) or to every run (``train.epochs=1``). Raises
    UserError if the file or the config of a run is invalid.
    """
    path = Path("the study") if isinstance(source, Mapping) else source
    table = copy.deepcopy(dict(source)) if isinstance(source, Mapping) else read_toml(path)
    of_study, of_runs = _split_changes(changes)
    # The quotes around the key of an axis are optional; without them, TOML reads "train.lr" as nested tables.
    table["axes"] = flat(table["axes"]) if isinstance(table.get("axes"), dict) else table.get("axes", {})
    for change in of_study:
        scratch: dict[str, Any] = {}
        key = override(StudyConfig, scratch, change)
        if key.startswith("axes.") and isinstance(table["axes"], dict):
            table["axes"] |= flat(scratch["axes"])
        else:
            override(StudyConfig, table, change)
    places = {change.partition("=")[0].strip(): change for change in of_study}

    def place(key: str) -> str:
        return places.get(key, str(path))

    config = read_table(StudyConfig, table, place)
    check_axes_and_variants(config, str(path))
    folder = runs / config.name
    planned = [
        _plan_run(config, path, variant, point, of_runs, folder)
        for variant in config.runs or [Variant("all")]
        for point in _points(config, variant)
    ]
    if config.active is not None:
        check_active(config.active, place)
        planned = _plan_rounds(planned, config.active, folder, path)
    _check_distinct(planned, path)
    for change in of_runs:
        _check_change_is_read(change, [run.config for run in planned])
    return Study(config, folder, tuple(planned), path, tuple(of_runs))


def concerning(study: Study, changes: Sequence[str]) -> list[str]:
    """Those of the changes that a run of the study uses, and that do not change one of its axes."""
    found = []
    for change in changes:
        key, section = override(RunConfig, {}, change), _optional_section(change)
        having = [run.config for run in study.runs if not section or section in _optional_sections_of(run.config)]
        if not any(is_within(axis, key) for axis in study.axes) and not all(unread(config, key) for config in having):
            found.append(change)
    return found


def dump_study(study: Study) -> str:
    """The study's settings as TOML that can be run from any folder. A comment above names the file and the changes."""
    config = study.config
    config = replace(
        config,
        base=_absolute(config.base, study.path),
        runs=[replace(variant, base=_absolute(variant.base, study.path)) for variant in config.runs],
    )
    comments = [f"Read from {study.path}"]
    comments += [f"with {' '.join(study.changes)}"] if study.changes else []
    return "".join(f"# {line}\n" for line in comments) + write_table(asdict(config))


def rows_file(folder: Path, name: str) -> Path:
    """The file that lists the rows of a round; absolute, so that the study can be resumed from any folder."""
    return folder.resolve() / "configs" / f"{name}.rows.txt"


# --- Reading ---


def _absolute(base: T, path: Path) -> T | str:
    """The absolute path of a base; a base that is a table or empty stays as it is."""
    return str((path.parent / base).resolve()) if base and isinstance(base, str) else base


def _split_changes(changes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Changes of the study itself, and changes of its runs."""
    names = {f.name for f in fields(StudyConfig)}
    of_study = [change for change in changes if re.split(r"[.=\s]", change.strip(), maxsplit=1)[0] in names]
    return of_study, [change for change in changes if change not in of_study]


def _points(config: StudyConfig, variant: Variant) -> list[dict[str, Any]]:
    """Every combination of a variant's axes; the last axis changes fastest."""
    keys = config.axes_of(variant)
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*(config.axes[key] for key in keys))]


def _plan_run(
    config: StudyConfig, path: Path, variant: Variant, point: dict[str, Any], changes: Sequence[str], folder: Path
) -> PlannedRun:
    """One run: the base with all its changes."""
    source_of_run = f'{path}: run "{variant.name}"' if config.runs else str(path)
    table, base = _base_table(config, path, variant, source_of_run)
    written: dict[str, str] = {}  # changed key -> what changed it
    for change in variant.changes:
        if "=" not in change:
            raise UserError(f"{source_of_run}: {shown(change)}: write section.key=value, such as train.lr=3e-4")
        keep_change(written, override(RunConfig, table, change), f"{source_of_run}: {change}")
    for key, value in point.items():
        keep_change(written, override(RunConfig, table, f"{key}={shown(value)}"), f"{path}: axes.{key}")
    shared = []
    for change in (change for change in changes if _optional_section(change) in {"", *table}):
        key = override(RunConfig, table, change)
        shared.append(key)
        if axis := next((axis for axis in point if is_within(axis, key)), ""):
            raise UserError(f"{change}: {axis} is an axis of this study; change it with axes.{axis}=[...]")
        keep_change(written, key, change)
    name, after = _run_name(config, variant.name, point), ""
    if variant.after:
        earlier = next(v for v in config.runs if v.name == variant.after)
        after = _run_name(config, earlier.name, {key: point[key] for key in config.axes_of(earlier)})
        source = (folder / after / "adapted").resolve()  # the study may be resumed from another folder
        key = override(RunConfig, table, f"model.source={shown(str(source))}")
        keep_change(written, key, f"{source_of_run}: after")
    table["name"] = name
    run = config_of(table, written, base, shared)
    return PlannedRun(
        name, variant.name if config.runs else "", point, _with_threads(run), after, keep_model=config.keep_model
    )


def _optional_section(change: str) -> str:
    """The section that a run must have for a change to apply; empty for most changes."""
    section, dot, _ = change.partition("=")[0].strip().partition(".")
    return section if dot and section in OPTIONAL_SECTIONS else ""


def _optional_sections_of(config: RunConfig) -> set[str]:
    found = {"adapt": config.adapt, "train": config.train, "zero_shot": config.zero_shot}
    return {name for name, section in found.items() if section is not None}


def _check_change_is_read(change: str, configs: Sequence[RunConfig]) -> None:
    """Raise UserError if no run uses a change of the command line."""
    section, key = _optional_section(change), override(RunConfig, {}, change)
    concerned = [config for config in configs if not section or section in _optional_sections_of(config)]
    if not concerned:
        raise UserError(f"{change}: no run of this study has a section [{section}]")
    if all(unread(config, key) for config in concerned):
        raise UserError(f"{change}: no run of this study uses it: {unread(concerned[0], key)}")


def _base_table(config: StudyConfig, path: Path, variant: Variant, source_of_run: str) -> tuple[dict[str, Any], str]:
    """The table that a variant starts from, and the file that it was written in."""
    base = variant.base or config.base
    if not base:
        raise UserError(f"{source_of_run}: base is missing; give the file of a run's config, or a config as [base]")
    table = copy.deepcopy(base) if isinstance(base, dict) else read_toml(path.parent / base)
    for section in variant.without:
        if section not in table:
            hint = nearest(section, table)
            raise UserError(f"{source_of_run}: without: the base has no section [{section}]{hint}")
        del table[section]
    return table, str(path if isinstance(base, dict) else path.parent / base)


def _with_threads(config: RunConfig) -> RunConfig:
    """The config with the default number of CPU threads, if it does not set them."""
    adapt, train, zero_shot = config.adapt, config.train, config.zero_shot
    if zero_shot is not None and not zero_shot.threads:
        config = replace(config, zero_shot=replace(zero_shot, threads=DEFAULT_THREADS))
    if train is not None and not train.threads:
        config = replace(config, train=replace(train, threads=DEFAULT_THREADS))
    if adapt is not None and not adapt.train.threads:
        config = replace(config, adapt=replace(adapt, train=replace(adapt.train, threads=DEFAULT_THREADS)))
    return config


def _check_distinct(runs: Sequence[PlannedRun], path: Path) -> None:
    """Raise UserError if two runs have the same folder, or the same settings at a point of the same axes.

    Variants with different axes may have a point in common, which belongs to both.
    """
    seen: dict[str, PlannedRun] = {}
    for run in runs:
        if RESERVED.fullmatch(run.name):
            raise UserError(f'{path}: a run cannot be named "{run.name}", as a folder of the study has this name')
        settings = repr((tuple(run.point), replace(run.config, name="")))
        for key in (run.name, settings):
            if key in seen:
                raise UserError(f'{path}: the runs "{seen[key].name}" and "{run.name}" have the same settings')
            seen[key] = run


# --- Names of folders ---


def _run_name(config: StudyConfig, variant: str, point: dict[str, Any]) -> str:
    """The name of a run, such as ``head_seed-1_lr-1e-05``, which depends only on its variant and point."""
    last = [key.rpartition(".")[2] for key in config.axes]
    parts = [variant] if config.runs or not point else []
    for key, value in point.items():
        short = key.rpartition(".")[2]
        parts.append(f"{short if last.count(short) == 1 else key}-{_file_safe(_plain(value))}")
    return folder_name("_".join(parts))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)


def _file_safe(text: str) -> str:
    """Text as part of a file name. If characters are lost, a hash distinguishes it from similar texts."""
    safe = re.sub(r"[^A-Za-z0-9.-]+", "-", text)[:40]
    return safe if safe == text else f"{safe}-{short_hash(text)}"


# --- Rounds of active learning ---


def _plan_rounds(runs: Sequence[PlannedRun], active: ActiveSection, folder: Path, path: Path) -> list[PlannedRun]:
    """Replace every run that trains by its rounds; runs that only adapt do not change."""
    trained = {run.name for run in runs if run.config.train}
    planned: list[PlannedRun] = []
    for run in runs:
        source_of_run = f'{path}: run "{run.variant}"' if run.variant else str(path)
        if run.after in trained:
            raise UserError(f"{source_of_run}: after: in a study with [active] this must be a run without [train]")
        if run.name in trained and (run.config.data.rows or run.config.data.shots):
            raise UserError(f"{source_of_run}: remove data.rows and data.shots, as [active] chooses the rows")
        planned += _rounds_of(run, active, folder) if run.name in trained else [run]
    if not trained:
        raise UserError(f"{path}: [active] needs runs with a section [train]")
    return planned


def _rounds_of(run: PlannedRun, section: ActiveSection, folder: Path) -> Iterator[PlannedRun]:
    """A run's rounds, each after the round whose model chooses its rows. ``folder``: of the study."""

    def planned(rule: str, labels: Sequence[int], noise: float, after: str) -> PlannedRun:
        wrong = {"noise": noise} if noise else {}
        # The name contains the numbers of all rounds so far, as they determine the rows.
        name = f"{run.name}_{rule}_labels-{_joined(labels)}" + (f"_noise-{noise:g}" if wrong else "")
        name = folder_name(name)
        point = run.point | {"rule": rule, "labels": labels[-1]} | wrong
        data = replace(run.config.data, rows=str(rows_file(folder, name)))
        config = replace(run.config, name=name, data=data)
        labelling = LabellingRound(rule, labels[-1], noise, section.labels[-1])
        # The model of every round but the last chooses rows, so it is saved.
        keep = run.keep_model if labels[-1] == section.labels[-1] or run.keep_model != "none" else "trained"
        return replace(
            run, name=name, point=point, config=config, after=after, round=labelling, keep_model=keep
        )

    for noise in section.noise_levels:
        start = planned(FIRST_ROUND, section.labels[:1], noise, run.after)
        yield start
        for rule in section.rules:
            before = start
            for rounds in range(2, len(section.labels) + 1):
                before = planned(rule, section.labels[:rounds], noise, before.name)
                yield before


def _joined(labels: Sequence[int]) -> str:
    """``20-100-500``; if there are very many rounds, the last number and a hash."""
    text = "-".join(map(str, labels))
    return text if len(text) <= 60 else f"{labels[-1]}-{short_hash(text)}"
