"""What a study is told: a TOML file, and the runs that follow from it.

    name = "medical-adaptation"
    question = "Does adapting BERT to the questions' language help?"
    base = "../finetune/bert.toml"      # the run they all vary; beside this file, or a whole config as [base]
    metric = "accuracy"                 # by which they are compared, on the test texts

    [axes]                              # every combination of these, in this order
    seed = [1, 2, 3]

    [[runs]]                            # and each of them with every variant
    name = "head"
    changes = ["freeze.part=backbone"]

    [[runs]]
    name = "adapted-head"
    after = "adapt"                     # goes on from what that run adapted
    changes = ["freeze.part=backbone"]

A run's settings are the base, then the variant's changes, its point on the axes, and the changes of the command line;
the later wins. A change on the command line of [train], [adapt] or [zero_shot] is for the runs that have this section,
and one of a key that not every choice reads, such as model.head.dropout, for those that read it.
``after`` sets ``model.source`` to the folder ``adapted`` of that variant's run at the same point; axes that it is not
crossed with are left out of account. With a section ``[active]`` each run that trains becomes rounds of active learning
(``minilm.studies.rounds``).

A run whose config leaves the CPU's threads open (``train.threads = 0``) has one. It is written into its config, and
hangs neither on the machine nor on how many runs go on at once: so results do not either.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from minilm.config import FolderName, RunConfig
from minilm.errors import UserError, nearest
from minilm.evaluation.metrics import HIGHER_IS_BETTER
from minilm.loading import config_of, folder_name, is_within, short_hash, unread
from minilm.schema import flat, override, read_table, shown, write_table
from minilm.studies.rounds import ActiveSection, Choice, check_active, rounds_of
from minilm.textfiles import read_toml

RESERVED = re.compile("configs|logs|figures(-.*)?")  # folders beside the runs'
OPTIONAL = ("adapt", "train", "zero_shot")  # sections that not every run has
THREADS = 1  # of a run, where its config leaves it open
T = TypeVar("T")


@dataclass(frozen=True)
class Variant:
    """``[[runs]]``: one way to change the base."""

    name: FolderName
    base: str = ""  # a file in place of the study's base
    without: list[str] = field(default_factory=list)  # sections of the base that are left out
    changes: list[str] = field(default_factory=list)  # key=value, as on the command line
    after: str = ""  # a variant above: go on from what it adapted
    axes: Literal["all"] | list[str] = "all"  # those it is crossed with


@dataclass(frozen=True)
class StudyConfig:
    """A study's file, whole."""

    name: FolderName  # of the folder under runs/
    question: str
    base: str | dict[str, Any] = ""  # a file, from this file's folder; or a whole config as [base]
    analysis: str = "compare"  # which page answers the question
    metric: Literal[tuple(HIGHER_IS_BETTER)] = "accuracy"  # type: ignore[valid-type]
    page: FolderName = "study"  # name of the page's files: another one leaves the first page alone
    axes: dict[str, list[Any]] = field(default_factory=dict)  # key of the run's config -> its values
    runs: list[Variant] = field(default_factory=list)
    active: ActiveSection | None = None

    @property
    def figures(self) -> str:
        """The folder of the page's pictures."""
        return "figures" if self.page == "study" else f"figures-{self.page}"


@dataclass(frozen=True)
class Planned:
    """One run of a study."""

    name: str  # of its folder
    variant: str  # empty where the study has none
    point: dict[str, Any]  # its value on each axis
    config: RunConfig
    after: str = ""  # the run that must be finished first
    choice: Choice | None = None  # of a round of active learning

    @property
    def group(self) -> str:
        """What it is, whichever its seed: "head", "head, lr 1e-05"."""
        axes = [f"{key.rpartition('.')[2]} {_plain(value)}" for key, value in self.point.items() if key != "seed"]
        return ", ".join([self.variant, *axes] if self.variant else axes) or "all runs"


@dataclass(frozen=True)
class Study:
    """A study's settings, its folder, and its runs in order."""

    config: StudyConfig
    folder: Path
    runs: tuple[Planned, ...]
    path: Path  # of its file, which the base is named from
    changes: tuple[str, ...] = ()  # of the command line, of every run

    @property
    def axes(self) -> list[str]:
        """What tells runs of a variant apart: the file's axes, and of [active] the rule and the number of labels."""
        return list(dict.fromkeys([*self.config.axes, *(key for run in self.runs for key in run.point)]))


def load_study(path: Path, changes: Sequence[str] = (), *, runs: Path = Path("runs")) -> Study:
    """Read a study's file and plan its runs, which will lie under ``runs``.

    A change is of the study (``axes.seed=[1]``, ``metric=macro_f1``) or of every run (``train.epochs=1``). Raises
    UserError where the file or a run's config is not right.
    """
    table = read_toml(path)
    own, of_runs = _sort_changes(changes)
    # Quotes around an axis's key may be left out: [axes] train.lr = [1e-5] is a table within.
    table["axes"] = flat(table["axes"]) if isinstance(table.get("axes"), dict) else table.get("axes", {})
    for change in own:
        scratch: dict[str, Any] = {}
        key = override(StudyConfig, scratch, change)
        if key.startswith("axes.") and isinstance(table["axes"], dict):
            table["axes"] |= flat(scratch["axes"])
        else:
            override(StudyConfig, table, change)
    places = {change.partition("=")[0].strip(): change for change in own}

    def place(key: str) -> str:
        return places.get(key, str(path))

    config = read_table(StudyConfig, table, place)
    _check(config, path)
    folder = runs / config.name
    planned = [
        _plan(config, path, variant, point, of_runs, folder)
        for variant in config.runs or [Variant("all")]
        for point in _points(config, variant)
    ]
    if config.active is not None:
        check_active(config.active, place)
        planned = _in_rounds(planned, config.active, folder, path)
    _check_distinct(planned, path)
    for change in of_runs:
        _check_read(change, [run.config for run in planned])
    return Study(config, folder, tuple(planned), path, tuple(of_runs))


def dump_study(study: Study) -> str:
    """The study's settings as TOML, which can be run from any place; what else went into its runs stands above them."""
    config = study.config
    config = replace(
        config,
        base=_from_anywhere(config.base, study.path),
        runs=[replace(variant, base=_from_anywhere(variant.base, study.path)) for variant in config.runs],
    )
    said = [f"Read from {study.path}"]
    said += [f"with {' '.join(study.changes)}"] if study.changes else []
    return "".join(f"# {line}\n" for line in said) + write_table(asdict(config))


def _from_anywhere(base: T, path: Path) -> T | str:
    """A base's file by its whole path; a base that is a table, or none, as it is."""
    return str((path.parent / base).resolve()) if base and isinstance(base, str) else base


def _sort_changes(changes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of the study itself, and those of its runs."""
    names = {f.name for f in fields(StudyConfig)}
    own = [change for change in changes if re.split(r"[.=\s]", change.strip(), maxsplit=1)[0] in names]
    return own, [change for change in changes if change not in own]


def _check(config: StudyConfig, path: Path) -> None:
    """Whether axes and variants fit together."""
    for key, values in config.axes.items():
        if not values:
            raise UserError(f"{path}: axes.{key} must hold at least one value")
    names: list[str] = []
    for variant in config.runs:
        where, above = f'{path}: run "{variant.name}"', {v.name: v for v in config.runs[: len(names)]}
        if variant.name in names:
            raise UserError(f"{where}: there are two of that name")
        for key in variant.axes if variant.axes != "all" else ():
            if key not in config.axes:
                raise UserError(f"{where}: {key} is no axis{nearest(key, config.axes)}")
        if variant.after and variant.after not in above:
            raise UserError(f'{where}: after = "{variant.after}" is no run above it{nearest(variant.after, above)}')
        if variant.after and set(_axes(config, above[variant.after])) - set(_axes(config, variant)):
            raise UserError(f'{where}: must be crossed with all axes of "{variant.after}", which it goes on from')
        names.append(variant.name)


def _axes(config: StudyConfig, variant: Variant) -> list[str]:
    return [key for key in config.axes if variant.axes == "all" or key in variant.axes]


def _points(config: StudyConfig, variant: Variant) -> list[dict[str, Any]]:
    """Every combination of the axes; the last one changes fastest."""
    keys = _axes(config, variant)
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*(config.axes[key] for key in keys))]


def _plan(
    config: StudyConfig, path: Path, variant: Variant, point: dict[str, Any], changes: Sequence[str], folder: Path
) -> Planned:
    """One run: the base with all that is changed about it."""
    where = f'{path}: run "{variant.name}"' if config.runs else str(path)
    table, base = _base(config, path, variant, where)
    written: dict[str, str] = {}
    for change in variant.changes:
        if "=" not in change:
            raise UserError(f"{where}: {shown(change)}: a change is written section.key=value, such as train.lr=3e-4")
        written[override(RunConfig, table, change)] = f"{where}: {change}"
    for key, value in point.items():
        written[override(RunConfig, table, f"{key}={shown(value)}")] = f"{path}: axes.{key}"
    shared = []
    for change in (change for change in changes if _section_of(change) in {"", *table}):
        key = override(RunConfig, table, change)
        shared.append(key)
        if axis := next((axis for axis in point if is_within(axis, key)), ""):
            raise UserError(f"{change}: {axis} is an axis of this study; change it with axes.{axis}=[...]")
        written[key] = change
    name, after = _folder_name(config, variant.name, point), ""
    if variant.after:
        earlier = next(v for v in config.runs if v.name == variant.after)
        after = _folder_name(config, earlier.name, {key: point[key] for key in _axes(config, earlier)})
        source = (folder / after / "adapted").resolve()  # the study may be gone on with from another place
        written[override(RunConfig, table, f"model.source={shown(str(source))}")] = f"{where}: after"
    table["name"] = name
    run = config_of(table, written, base, shared)
    return Planned(name, variant.name if config.runs else "", point, _with_threads(run), after)


def _section_of(change: str) -> str:
    """The section that a run must have for a change to concern it; none for most."""
    section, dot, _ = change.partition("=")[0].strip().partition(".")
    return section if dot and section in OPTIONAL else ""


def _check_read(change: str, configs: Sequence[RunConfig]) -> None:
    """Raises UserError where a change on the command line concerns none of the runs."""
    section, key = _section_of(change), override(RunConfig, {}, change)
    concerned = [config for config in configs if not section or getattr(config, section)]
    if not concerned:
        raise UserError(f"{change}: no run of this study has a section [{section}]")
    if all(unread(config, key) for config in concerned):
        raise UserError(f"{change}: no run of this study reads it: {unread(concerned[0], key)}")


def _base(config: StudyConfig, path: Path, variant: Variant, where: str) -> tuple[dict[str, Any], str]:
    """The table that a variant starts from, and the file it was written in."""
    base = variant.base or config.base
    if not base:
        raise UserError(f"{where}: base is missing: the file of a run's config, or that config as [base]")
    table = copy.deepcopy(base) if isinstance(base, dict) else read_toml(path.parent / base)
    for section in variant.without:
        if section not in table:
            raise UserError(f"{where}: without: the base has no section [{section}]{nearest(section, table)}")
        del table[section]
    return table, str(path if isinstance(base, dict) else path.parent / base)


def _with_threads(config: RunConfig) -> RunConfig:
    """The CPU's threads as a setting of the run, where torch would have decided."""
    adapt, train, asked = config.adapt, config.train, config.zero_shot
    if asked is not None and not asked.threads:
        config = replace(config, zero_shot=replace(asked, threads=THREADS))
    if train is not None and not train.threads:
        config = replace(config, train=replace(train, threads=THREADS))
    if adapt is not None and not adapt.train.threads:
        config = replace(config, adapt=replace(adapt, train=replace(adapt.train, threads=THREADS)))
    return config


def _folder_name(config: StudyConfig, variant: str, point: dict[str, Any]) -> str:
    """``head_seed-1_lr-1e-05``: the same for the same point, whatever else the study holds."""
    last = [key.rpartition(".")[2] for key in config.axes]
    parts = [variant] if config.runs or not point else []
    for key, value in point.items():
        short = key.rpartition(".")[2]
        parts.append(f"{short if last.count(short) == 1 else key}-{_file_safe(_plain(value))}")
    return folder_name("_".join(parts))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)


def _file_safe(text: str) -> str:
    """Text as part of a file's name; where characters are lost, its hash keeps it apart from others."""
    safe = re.sub(r"[^A-Za-z0-9.-]+", "-", text)[:40]
    return safe if safe == text else f"{safe}-{short_hash(text)}"


def _in_rounds(runs: Sequence[Planned], active: ActiveSection, folder: Path, path: Path) -> list[Planned]:
    """The runs that train, each as its rounds; what only adapts stays as it is."""
    trained = {run.name for run in runs if run.config.train}
    found: list[Planned] = []
    for run in runs:
        where = f'{path}: run "{run.variant}"' if run.variant else str(path)
        if run.after in trained:
            raise UserError(f"{where}: after: in a study with [active] that must be a run without [train]")
        if run.name in trained and (run.config.data.rows or run.config.data.shots):
            raise UserError(f"{where}: data.rows and data.shots must be left out: [active] names the rows")
        found += rounds_of(run, active, folder) if run.name in trained else [run]
    if not trained:
        raise UserError(f"{path}: [active] needs runs with a section [train]")
    return found


def _check_distinct(runs: Sequence[Planned], path: Path) -> None:
    """No two runs have one folder, or at a point of the same axes the same settings.

    Where two variants vary different settings, they may meet in a point: it belongs to either.
    """
    seen: dict[str, Planned] = {}
    for run in runs:
        if RESERVED.fullmatch(run.name):
            raise UserError(f'{path}: a run may not be called "{run.name}": the study keeps other things there')
        settings = repr((tuple(run.point), replace(run.config, name="")))
        for key in (run.name, settings):
            if key in seen:
                raise UserError(f'{path}: the runs "{seen[key].name}" and "{run.name}" have the same settings')
            seen[key] = run
