"""A study's page: the answer to its question, every run, its settings, and the data and machines."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from minilm.atomic import atomic
from minilm.loading import dump_config
from minilm.reporting.compare import NEW_TEXTS
from minilm.reporting.groups import costs_of
from minilm.reporting.new_texts import answers_to_texts
from minilm.reporting.page import Code, Folded, Page, Section, Table, html, markdown
from minilm.reporting.record import Run, read_run
from minilm.reporting.report import environment_rows
from minilm.reporting.tables import ABSENT, decimal, duration, metric_name
from minilm.schema import shown as as_toml
from minilm.studies.checks import question_of
from minilm.studies.execution import read_note
from minilm.studies.finished import FinishedRun, groups_of
from minilm.studies.page_parts import data_section
from minilm.studies.plan import PlannedRun, Study, dump_study
from minilm.studies.results_csv import results_csv


def write_page(study: Study, finished: Sequence[PlannedRun], failed: Mapping[str, str]) -> Path:
    """Write the page (study.md, study.html), results.csv, study.toml and the pictures; return study.html.

    The figures are first drawn in another folder, so that the earlier page is kept if an error occurs.
    """
    runs = [FinishedRun(run, read_run(study.folder / run.name)) for run in finished]
    name, figures = study.config.page, study.config.figures
    with empty_folder(study.folder / ".page") as made:
        headline, sections = question_of(study).answer(study, runs, made / figures)
        sections = list(sections)
        sections += _new_texts(study, runs)
        if failed:
            rows = [[run, why] for run, why in failed.items()]
            sections.append(Section("Runs that failed", [Table(["run", "why"], rows, left=2)]))
        sections += [_every_run(study, runs), data_section(runs), _settings(study, runs[0]), _environment(study, runs)]
        page = Page(study.config.name, study.config.question, headline, sections)
        table = "results.csv" if name == "study" else f"results-{name}.csv"
        texts = {f"{name}.toml": dump_study(study), table: results_csv(study, runs, failed)}
        texts |= {f"{name}.md": markdown(page, made), f"{name}.html": html(page)}
        shutil.rmtree(study.folder / figures, ignore_errors=True)
        if (made / figures).exists():
            (made / figures).rename(study.folder / figures)
    for file_name, text in texts.items():
        with atomic(study.folder / file_name) as file:
            file.write(text.encode())
    return study.folder / f"{name}.html"


@contextlib.contextmanager
def empty_folder(place: Path) -> Iterator[Path]:
    """A context with an empty folder, which is removed at the end; an existing folder is replaced."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def describe_result(run: Run, metric: str) -> str:
    """``accuracy 0.9070``; the perplexity of a run that only adapted."""
    for split, key in (("test", metric), ("validation", "perplexity")):
        if (value := run.metric(key, split)) is not None:
            return f"{metric_name(key)} {decimal(value)}"
    return f"no {metric_name(metric)}"


def _new_texts(study: Study, runs: Sequence[FinishedRun]) -> list[Section]:
    """What each model answers to the texts of the study's file, if it has any."""
    if not study.config.texts:
        return []
    table, reasons = answers_to_texts(groups_of(runs), study.config.texts)
    return [Section(NEW_TEXTS, [*([table] if table else []), *reasons])]


def _every_run(study: Study, runs: Sequence[FinishedRun]) -> Section:
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
                describe_result(finished.run, study.config.metric),
                f"{best.epoch:.4g}" if best else ABSENT,
                duration(costs_of(finished.run).seconds),
            ]
        )
    times = [seconds for finished in runs if (seconds := costs_of(finished.run).seconds) is not None]
    total = [f"Training took {duration(sum(times))} in all."] if times else []
    return Section("Every run", [Table(header, rows), *total])


def _settings(study: Study, first: FinishedRun) -> Section:
    title, config = f"The config of {first.planned.name}, which can be run by itself", dump_config(first.run.config)
    return Section(
        "Settings",
        [Folded("The study's file", Code(dump_study(study), "toml")), Folded(title, Code(config, "toml"))],
    )


def _environment(study: Study, runs: Sequence[FinishedRun]) -> Section:
    """Versions and devices, and how many runs ran at the same time; if runs differ, all values."""
    found: dict[str, dict[str, None]] = {}
    for finished in runs:
        for key, value in environment_rows(finished.run.environment) if finished.run.environment else ():
            found.setdefault(key, {})[value] = None
    rows = [[key, " / ".join(values)] for key, values in found.items()]
    jobs = sorted({read_note(study.folder, finished.planned).jobs for finished in runs})
    rows += [["runs at the same time", " / ".join(map(str, jobs))]]
    shared = ["Runs that ran at the same time shared the machine: their times are upper bounds."]
    return Section("Environment", [Table(["", ""], rows, left=2), *(shared if jobs[-1] > 1 else [])])
