"""Run a study, from its plan to its page.

Finished runs are not run again, interrupted runs are resumed, and failed runs are reported while the others continue.
A run that starts from another run waits for it. The only stored state is the runs' folders, and a note on each run in
``logs/``, so the same command resumes a study after any interruption. The page is written when every run, in this shard
or in another, has finished or failed.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from minilm.locking import locked
from minilm.reporting.record import read_run, relative_path
from minilm.reporting.tables import ABSENT, duration, text_table
from minilm.runs.shared_cache import shared_cache
from minilm.schema import shown as as_toml
from minilm.studies.checks import check_study
from minilm.studies.execution import BUSY, RunNote, is_closed, read_note, run_to_end, state_of, write_note
from minilm.studies.plan import PlannedRun, Study
from minilm.studies.study_page import describe_result, write_page
from minilm.studies.workers import in_processes
from minilm.terminal import printable
from minilm.training.console import progress_bar, write


@dataclass
class StudyOutcome:
    """How a study ended."""

    page: Path | None = None  # the HTML; None if runs are left to other shards
    failed: dict[str, str] = field(default_factory=dict)  # run -> why
    failed_elsewhere: dict[str, str] = field(default_factory=dict)  # runs that failed in another shard
    unfinished: int = 0  # runs that have not finished, in any shard


def plan_table(study: Study, runs: Iterable[PlannedRun]) -> str:
    """The runs with their changes and their state, for the terminal."""
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


def shard_of(study: Study, part: int, parts: int) -> list[PlannedRun]:
    """The runs of one of several parts, always the same: every ``parts``-th run, with the runs that start from it."""
    firsts = [run.name for run in study.runs if not run.after]
    first_of: dict[str, str] = {}
    for run in study.runs:
        first_of[run.name] = first_of.get(run.after, run.name)
    return [run for run in study.runs if firsts.index(first_of[run.name]) % parts == part - 1]


def run_study(study: Study, *, jobs: int = 1, shard: tuple[int, int] = (1, 1)) -> StudyOutcome:
    """Run the runs of a study, or those of one shard, ``(1, 2)`` for the first of two; then write the page.

    Raises:
        UserError: the study cannot start, or its runs cannot answer its question.
        minilm.training.console.Interrupted: a signal stopped the study; the same call resumes it.
    """
    check_study(study)
    progress = StudyProgress(study, shard_of(study, *shard), jobs)
    print_line(plan_table(study, progress.runs))
    with progress.bar:
        progress.close_finished()
        if jobs == 1:
            with shared_cache():
                while run := progress.next_run():
                    progress.done(run, run_to_end(study.folder, run))
        else:
            in_processes(progress.jobs, study.folder, progress.next_run, progress.done, run_to_end)
    with locked(study.folder / ".page.lock", wait=True):  # shards may end at the same moment
        finished = [run for run in study.runs if state_of(study.folder, run) == "finished"]
        failed = failures(study)
        outcome = StudyOutcome(failed=progress.failed, unfinished=len(study.runs) - len(finished))
        outcome.failed_elsewhere = {name: why for name, why in failed.items() if name not in progress.failed}
        if finished and len(finished) + len(failed) == len(study.runs):
            outcome.page = write_page(study, finished, failed)
    return outcome


def failures(study: Study) -> dict[str, str]:
    """Run -> why its last attempt failed, in any shard. The runs that start from a failed run have failed too."""
    found: dict[str, str] = {}
    for run in study.runs:  # a run comes after the runs that it starts from
        why = _cannot_start(run) if run.after in found else read_note(study.folder, run).failed
        if why and state_of(study.folder, run) != "finished":
            found[run.name] = why
    return found


def _cannot_start(run: PlannedRun) -> str:
    return f"{run.after}, which it starts from, has failed"


def print_line(line: str) -> None:
    """Print a line, or a table, for the person at the terminal, above the bar."""
    write(printable(line, keep="\n"), sys.stderr)


class StudyProgress:
    """Which runs are waiting, which are running, and the lines about those that have ended."""

    def __init__(self, study: Study, runs: Sequence[PlannedRun], jobs: int) -> None:
        self.study, self.runs = study, runs
        self.waiting = [run for run in runs if state_of(study.folder, run) != "finished"]
        self.jobs = max(1, min(jobs, len(self.waiting)))
        self.running: dict[str, float] = {}  # run -> when it started
        self.failed: dict[str, str] = {}
        self.shown_traces: set[str] = set()
        self.seconds: list[float] = []
        self.bar = progress_bar(len(runs), len(runs) - len(self.waiting), "run")

    def close_finished(self) -> None:
        """Write the reports of finished runs that a kill prevented."""
        for run in self.runs:
            if run in self.waiting or is_closed(self.study.folder / run.name):
                continue
            if failure := run_to_end(self.study.folder, run):
                print_line(f"{run.name}: its report was not written: {failure}")

    def next_run(self) -> PlannedRun | None:
        """The next run that can start. A run fails if the run that it starts from has failed."""
        for run in list(self.waiting):
            if run.after in self.failed:
                self.waiting.remove(run)
                self.done(run, _cannot_start(run))
            elif run.after not in {*self.running, *(other.name for other in self.waiting)}:
                self.waiting.remove(run)
                self.running[run.name] = time.monotonic()
                self._note_start(run)
                return run
        return None

    def _note_start(self, run: PlannedRun) -> None:
        """Record how many runs run at the same time, and remove the note of an earlier failure."""
        folder = self.study.folder
        before = read_note(folder, run) if state_of(folder, run) == "interrupted" else RunNote()
        write_note(folder, run, RunNote(max(before.jobs, self.jobs), seconds=before.seconds))

    def done(self, run: PlannedRun, failure: str) -> None:
        """Print how a run has ended and, after the first, how long the others will take."""
        started = self.running.pop(run.name, None)
        seconds = time.monotonic() - started if started is not None else 0.0
        number = f"{self.study.runs.index(run) + 1:>{len(str(len(self.study.runs)))}}/{len(self.study.runs)}"
        if failure:
            self._say_failure(run, failure, number)
            if started is not None and failure != BUSY:
                note = read_note(self.study.folder, run)
                write_note(self.study.folder, run, replace(note, failed=self.failed[run.name]))
        else:
            self.seconds.append(seconds)
            result = describe_result(read_run(self.study.folder / run.name), self.study.config.metric)
            print_line(f"{number}  {run.name}  {result}  {duration(seconds)}")
        left = len(self.waiting) + len(self.running)
        if len(self.seconds) == 1 and left and not failure:
            print_line(f"about {duration(seconds * math.ceil(left / self.jobs))} for the other {left}, at this rate")
        self.bar.update()

    def _say_failure(self, run: PlannedRun, failure: str, number: str) -> None:
        """A line, and below it the traceback if there is one and it was not shown before."""
        self.failed[run.name], _, trace = failure.partition("\n")
        print_line(f"{number}  {run.name}  failed: {self.failed[run.name]}")
        place = trace.rpartition("\n")[0]  # without the message, which may name the run
        if trace and place not in self.shown_traces:
            self.shown_traces.add(place)
            print_line(trace)


def describe_outcome(study: Study, outcome: StudyOutcome) -> list[str]:
    """The lines at the end of the command."""
    lines = []
    if outcome.failed:
        lines.append(f"{len(outcome.failed)} of {len(study.runs)} runs failed; run the same command to try them again")
    if outcome.failed_elsewhere:
        names = ", ".join(outcome.failed_elsewhere)
        lines.append(f"failed in another shard; run that shard's command to try them again: {names}")
    if outcome.page is not None:
        lines.append(f"Page:  {relative_path(outcome.page)}")
    elif outcome.unfinished:
        finished = len(study.runs) - outcome.unfinished
        lines.append(f"{finished} of {len(study.runs)} runs have finished; the page is written after the last")
    return lines
