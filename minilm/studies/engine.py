"""A study from its plan to its page.

Finished runs are never run again, interrupted ones go on where they stopped, failed ones are reported while the others
go on. A run that goes on from another waits for it. Nothing is kept but the runs' own folders, and a line on each under
``logs/``: whatever ends a study, the same command goes on with it. The page is written when each run, here or by
another shard, has finished or failed.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minilm.checkpoints.atomic import atomic
from minilm.evaluation.metrics import check_metric
from minilm.loading import dump_config
from minilm.reporting.groups import costs_of
from minilm.reporting.page import Code, Folded, Page, Section, Table, html, markdown
from minilm.reporting.record import Run, read_run, relative_path
from minilm.reporting.report import environment_rows
from minilm.reporting.tables import ABSENT, decimal, duration, metric_name, text_table
from minilm.runs.shared_cache import shared_cache
from minilm.schema import shown as as_toml
from minilm.studies.analyses import ANALYSES, Finished, check_plan
from minilm.studies.config import Planned, Study, dump_study
from minilm.studies.execution import BUSY, bring_to_end, is_closed, locked, note, noted, state_of
from minilm.studies.workers import in_processes


@dataclass
class Outcome:
    """How a study ended."""

    page: Path | None = None  # the HTML; None where runs are left to others
    failed: dict[str, str] = field(default_factory=dict)  # run -> why
    elsewhere: dict[str, str] = field(default_factory=dict)  # those that failed in another shard
    left: int = 0  # runs that have not finished, here or elsewhere


def plan_table(study: Study, runs: Iterable[Planned]) -> str:
    """The runs with what is changed about each and how far it is, for the terminal."""
    axes = study.axes
    rows = [
        [
            str(study.runs.index(run) + 1),
            run.name,
            *(as_toml(run.point[key]) if key in run.point else ABSENT for key in axes),
            run.after or ABSENT,
            state_of(study.folder, run),
        ]
        for run in runs
    ]
    return text_table(["", "run", *axes, "after", "state"], rows, left=2)


def shard_of(study: Study, part: int, parts: int) -> list[Planned]:
    """The runs of one of several parts, always the same: every ``parts``-th run, with those that go on from it."""
    firsts = [run.name for run in study.runs if not run.after]
    first_of: dict[str, str] = {}
    for run in study.runs:
        first_of[run.name] = first_of.get(run.after, run.name)
    return [run for run in study.runs if firsts.index(first_of[run.name]) % parts == part - 1]


def run_study(study: Study, *, jobs: int = 1, shard: tuple[int, int] = (1, 1)) -> Outcome:
    """Bring a study's runs to their end, or those of one shard, ``(1, 2)`` for the first of two; then write its page.

    Raises:
        UserError: the study cannot begin, or its runs cannot answer its question.
        minilm.training.loop.Interrupted: a signal came; the same call goes on.
    """
    check_study(study)
    progress = Progress(study, shard_of(study, *shard), jobs)
    say(plan_table(study, progress.runs))
    with progress.bar:
        progress.look_over_finished()
        if jobs == 1:
            with shared_cache():
                while run := progress.next_run():
                    progress.done(run, bring_to_end(study.folder, run))
        else:
            in_processes(progress.jobs, study.folder, progress.next_run, progress.done, bring_to_end)
    with locked(study.folder / ".page.lock", wait=True):  # shards may end at the same moment
        finished = [run for run in study.runs if state_of(study.folder, run) == "finished"]
        failed = failures(study)
        outcome = Outcome(failed=progress.failed, left=len(study.runs) - len(finished))
        outcome.elsewhere = {name: why for name, why in failed.items() if name not in progress.failed}
        if finished and len(finished) + len(failed) == len(study.runs):
            outcome.page = write_page(study, finished, failed)
    return outcome


def check_study(study: Study) -> None:
    """Raises UserError where the study cannot be answered, as its file and its runs' configs tell before any run."""
    check_plan(study)
    configs = [run.config for run in study.runs if run.config.train or run.config.zero_shot]
    kinds = {config.data.multi_label for config in configs}
    if study.config.metric != "perplexity" and len(kinds) == 1:  # of both kinds, those that have it are compared
        check_metric(study.config.metric, kinds.pop(), f"{study.path}: metric")


def failures(study: Study) -> dict[str, str]:
    """Run -> why it failed when it was last tried, here or by another shard; with the runs that go on from it."""
    found: dict[str, str] = {}
    for run in study.runs:  # those that a run goes on from are above it
        why = _no_start(run) if run.after in found else noted(study.folder, run).get("failed", "")
        if why and state_of(study.folder, run) != "finished":
            found[run.name] = why
    return found


def _no_start(run: Planned) -> str:
    return f"{run.after}, which it goes on from, has failed"


def say(line: str) -> None:
    """A line for the person at the terminal, above the bar."""
    tqdm.write(line, file=sys.stderr)


class Progress:
    """Which runs are left, which are under way, and what is said of those that end."""

    def __init__(self, study: Study, runs: Sequence[Planned], jobs: int) -> None:
        self.study, self.runs = study, runs
        self.waiting = [run for run in runs if state_of(study.folder, run) != "finished"]
        self.jobs = max(1, min(jobs, len(self.waiting)))
        self.under_way: dict[str, float] = {}  # run -> when it started
        self.failed: dict[str, str] = {}
        self.places: set[str] = set()  # whose traceback was shown
        self.seconds: list[float] = []
        self.bar: tqdm[Any] = tqdm(
            total=len(runs),
            initial=len(runs) - len(self.waiting),
            unit="run",
            disable=None,
            dynamic_ncols=True,
            leave=False,
        )

    def look_over_finished(self) -> None:
        """Close the finished runs that a kill kept from it."""
        for run in self.runs:
            if run in self.waiting or is_closed(self.study.folder / run.name):
                continue
            if failure := bring_to_end(self.study.folder, run):
                say(f"{run.name}: its report was not written: {failure}")

    def next_run(self) -> Planned | None:
        """The next run whose predecessor has finished; those whose predecessor failed have failed too."""
        for run in list(self.waiting):
            if run.after in self.failed:
                self.waiting.remove(run)
                self.done(run, _no_start(run))
            elif run.after not in {*self.under_way, *(other.name for other in self.waiting)}:
                self.waiting.remove(run)
                self.under_way[run.name] = time.monotonic()
                self._note_start(run)
                return run
        return None

    def _note_start(self, run: Planned) -> None:
        """How many go on beside it, or did before it was interrupted; that it failed before is over."""
        folder = self.study.folder
        before = noted(folder, run).get("jobs", 1) if state_of(folder, run) == "interrupted" else 1
        note(folder, run, jobs=max(before, self.jobs))

    def done(self, run: Planned, failure: str) -> None:
        """Say in a line how a run has ended, and after the first how long the others will take."""
        started = self.under_way.pop(run.name, None)
        seconds = time.monotonic() - started if started is not None else 0.0
        number = f"{self.study.runs.index(run) + 1:>{len(str(len(self.study.runs)))}}/{len(self.study.runs)}"
        if failure:
            self._say_failure(run, failure, number)
            if started is not None and failure != BUSY:
                told = noted(self.study.folder, run) | {"failed": self.failed[run.name]}
                note(self.study.folder, run, **told)
        else:
            self.seconds.append(seconds)
            reached = _reached(read_run(self.study.folder / run.name), self.study.config.metric)
            say(f"{number}  {run.name}  {reached}  {duration(seconds)}")
        left = len(self.waiting) + len(self.under_way)
        if len(self.seconds) == 1 and left and not failure:
            say(f"about {duration(seconds * math.ceil(left / self.jobs))} for the other {left}, at this rate")
        self.bar.update()

    def _say_failure(self, run: Planned, failure: str, number: str) -> None:
        """In one line; below it the traceback where there is one, of those that went wrong in the same place once."""
        self.failed[run.name], _, trace = failure.partition("\n")
        say(f"{number}  {run.name}  failed: {self.failed[run.name]}")
        place = trace.rpartition("\n")[0]  # without the message, which may name the run
        if trace and place not in self.places:
            self.places.add(place)
            say(trace)


def _reached(run: Run, metric: str) -> str:
    """``accuracy 0.9070``; the perplexity of a run that only adapted."""
    for split, key in (("test", metric), ("validation", "perplexity")):
        if (value := run.metric(key, split)) is not None:
            return f"{metric_name(key)} {decimal(value)}"
    return f"no {metric_name(metric)}"


# --- The page ---


def write_page(study: Study, finished: Sequence[Planned], failed: dict[str, str]) -> Path:
    """Write the page (study.md, study.html), study.toml and the pictures from the runs' folders; return study.html.

    Pictures are drawn beside their place: where that fails, the page before stays whole.
    """
    runs = [Finished(run, read_run(study.folder / run.name)) for run in finished]
    name, figures = study.config.page, study.config.figures
    with empty_folder(study.folder / ".page") as made:
        answer, sections = ANALYSES[study.config.analysis](study, runs, made / figures)
        if failed:
            rows = [[run, why] for run, why in failed.items()]
            sections.append(Section("Runs that failed", [Table(["run", "why"], rows, left=2)]))
        sections += [_every_run(study, runs), _settings(study, runs[0]), _environment(study, runs)]
        page = Page(study.config.name, study.config.question, answer, sections)
        texts = {f"{name}.toml": dump_study(study), f"{name}.md": markdown(page, made), f"{name}.html": html(page)}
        shutil.rmtree(study.folder / figures, ignore_errors=True)
        if (made / figures).exists():
            (made / figures).rename(study.folder / figures)
    for file_name, text in texts.items():
        with atomic(study.folder / file_name) as file:
            file.write(text.encode())
    return study.folder / f"{name}.html"


@contextlib.contextmanager
def empty_folder(place: Path) -> Iterator[Path]:
    """A folder that is empty, whatever a kill left there, and gone in the end."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _every_run(study: Study, runs: Sequence[Finished]) -> Section:
    axes = study.axes
    header = ["run", *axes, "result", "best epoch", "training"]
    rows = []
    for finished in runs:
        best = finished.run.results.best
        point = finished.planned.point
        rows.append(
            [
                finished.planned.name,
                *(as_toml(point[key]) if key in point else ABSENT for key in axes),
                _reached(finished.run, study.config.metric),
                f"{best.epoch:.4g}" if best else ABSENT,
                duration(costs_of(finished.run).seconds),
            ]
        )
    times = [seconds for finished in runs if (seconds := costs_of(finished.run).seconds) is not None]
    took = [f"Training took {duration(sum(times))} in all."] if times else []
    return Section("Every run", [Table(header, rows), *took])


def _settings(study: Study, first: Finished) -> Section:
    title, config = f"The config of {first.planned.name}, runnable by itself", dump_config(first.run.config)
    return Section(
        "Settings",
        [Folded("The study's file", Code(dump_study(study), "toml")), Folded(title, Code(config, "toml"))],
    )


def _environment(study: Study, runs: Sequence[Finished]) -> Section:
    """Versions and devices, and how many runs went on at once; where runs differ, all of them."""
    found: dict[str, dict[str, None]] = {}
    for finished in runs:
        for key, value in environment_rows(finished.run.environment) if finished.run.environment else ():
            found.setdefault(key, {})[value] = None
    data = {finished.run.results.data.name: finished.run.results.data.sizes for finished in runs}
    rows = [
        [f"data: {name}", ", ".join(f"{n:,} {split}" for split, n in sizes.items())] for name, sizes in data.items()
    ]
    rows += [[key, " / ".join(values)] for key, values in found.items()]
    jobs = sorted({n for finished in runs if (n := noted(study.folder, finished.planned).get("jobs"))})
    rows += [["runs at once", " / ".join(map(str, jobs))]] if jobs else []
    beside = ["Runs that went on beside others share the machine with them: their times are upper bounds."]
    return Section("Data and environment", [Table(["", ""], rows, left=2), *(beside if jobs[-1:] > [1] else [])])


def describe_outcome(study: Study, outcome: Outcome) -> list[str]:
    """What a person is told at the end."""
    lines = []
    if outcome.failed:
        lines.append(f"{len(outcome.failed)} of {len(study.runs)} runs failed; the same command tries them again")
    if outcome.elsewhere:
        lines.append(f"failed in another shard, whose command tries them again: {', '.join(outcome.elsewhere)}")
    if outcome.page is not None:
        lines.append(f"Page:  {relative_path(outcome.page)}")
    elif outcome.left:
        finished = len(study.runs) - outcome.left
        lines.append(f"{finished} of {len(study.runs)} runs have finished; the page comes with the last")
    return lines
