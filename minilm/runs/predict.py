"""``minilm predict RUN --file in.csv --out out.csv``: a table's rows with answers beside them.

All columns of the input are kept, in their order, and so are all rows. These columns follow them:

    predicted      the label; several labels a text: a list; "unsure" if its probability is too low
    probability    of that label, or of each of them
    P(label)       with ``everything``, one a label

A row without a text has empty cells there. So has one that cannot be read; it is counted and named at the end, and
never stops the others.

**Windows.** The rows are read in windows of 4,096. In a window, texts of like length share a batch; the answers are
written in order. So memory does not grow with the file.

**A kill.** Rows are written into ``.NAME.begun`` beside the output, and after each window ``.NAME.state`` records how
many they are. ``resume`` cuts the first to what the second says and goes on with the next window: windows are the same
as in a run that was never ended, so the bytes are the same too.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minilm.checkpoints.atomic import atomic
from minilm.data.decoding import STDIN
from minilm.data.row_stream import PAIR, TEXT, Row, RowStream, open_stream, survey
from minilm.data.row_writers import FORMATS, RowWriter, writer_for
from minilm.data.sources import format_of
from minilm.errors import UserError, nearest
from minilm.evaluation.predictor import Predictor
from minilm.evaluation.row_answers import RowAnswers, Tally
from minilm.evaluation.text_lines import columns_of
from minilm.schema import read_table
from minilm.textfiles import read_json
from minilm.training.console import progress_bar, say

WINDOW = 4096  # rows that are sorted by length together
CHARACTERS = 2**25  # and at most so many characters


@dataclass(frozen=True)
class TableJob:
    """What to read, and what to write."""

    source: Path  # "-": standard input
    out: Path | None = None  # None: standard output
    column: str = ""  # with the texts; empty: that of the run's config
    format: str = ""  # of standard input and output: "csv", "tsv" or "jsonl"
    everything: bool = False  # whether each label has a column
    strict: bool = False  # whether a row without an answer ends it
    resume: bool = False
    overwrite: bool = False
    shard: tuple[int, int] = (1, 1)  # the i-th of n parts of the rows
    safe: bool = False  # whether cells are written so that a spreadsheet runs none of them


@dataclass
class Done:
    """How far it is."""

    tally: Tally = field(default_factory=Tally)
    size: int = 0  # bytes that are written
    key: str = ""  # a hash of what it depends on


def predict_file(predictor: Predictor, run: Path, job: TableJob) -> Tally:
    """Answer every row of a file. Says on standard error what has no answer.

    run: which the predictor is from; its config names the columns. Raises UserError if the file as a whole cannot be
    read or written; with ``strict``, for the first row without an answer.
    """
    form = _form(job)
    section, place = columns_of(run, bool(predictor.reading.pairs))
    stream = open_stream(
        job.source, format_of(section), kind=job.format or "lines", pairs=bool(predictor.reading.pairs)
    )
    columns = [TEXT, PAIR] if stream.kind == "lines" else [job.column or section.text, section.text_pair]
    answers = RowAnswers(predictor, columns, everything=job.everything, strict=job.strict)
    start, end = list[Row](), None
    if job.source == STDIN:  # its first row shows its columns
        rows = stream.rows()
        start = list(itertools.islice(rows, 1))
        stream = replace(stream, rows=lambda: itertools.chain(start, rows))
        names = list(start[0].names) if start else []
        nested = {name for name in answers.columns if names and start[0].cell(name) is not None}
        first = 0
    else:
        found = survey(stream, answers.columns)
        names, nested = found.names, found.nested
        first, end = (found.rows * part // job.shard[1] for part in (job.shard[0] - 1, job.shard[0]))
    _check_columns(stream, [*names, *nested], answers, place)
    table = _Table(answers, stream, writer_for(form, stream, names, answers.added, safe=job.safe), first, end)
    done = Done()
    if job.out is None:
        for block in table.blocks(done):
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
    elif not _write_file(table, job, job.out, done):
        return answers.tally
    for line in answers.report():
        say(line)
    return answers.tally


@dataclass(frozen=True)
class _Table:
    """What is read, answered and written."""

    answers: RowAnswers
    stream: RowStream
    writer: RowWriter
    first: int = 0  # row
    end: int | None = None  # None: unknown

    def blocks(self, done: Done) -> Iterator[bytes]:
        """The bytes of the output from where it stands, a window at a time."""
        answers, tally = self.answers, done.tally
        answers.tally = tally
        rows = itertools.islice(self.stream.rows(), self.first + tally.rows, self.end)
        if not done.size:
            yield self.writer.begin()
        total = None if self.end is None else self.end - self.first
        with progress_bar(total, tally.rows, "row") as bar:
            for window in _windows(rows):
                answers.predictor.watch(_advance(bar, tally.rows, len(window)))
                added = answers.of(window)
                bar.update(tally.rows - bar.n)
                yield self.writer.block(window, added)


def _form(job: TableJob) -> str:
    """The format that is written. Raises UserError if the job contradicts itself."""
    endings = ", ".join(FORMATS)
    if job.out is not None:
        form = FORMATS.get(job.out.suffix.lower(), "")
        if not form:
            raise UserError(f"--out: {job.out}: must end in {endings}{nearest(job.out.suffix, FORMATS)}")
        if job.format and job.source != STDIN:
            raise UserError("--format is for standard input and output; the endings of --file and --out name theirs")
        if not job.out.parent.is_dir():
            raise UserError(f"--out: {job.out.parent}: no such folder")
        if job.out.is_dir():
            raise UserError(f"--out: {job.out}: is a folder; name a file that ends in {endings}")
    else:
        form = job.format or "csv"
    only_file = {"--resume": job.resume, "--overwrite": job.overwrite}
    for option in (name for name, given in only_file.items() if given and job.out is None):
        raise UserError(f"{option} is for a file that is written (--out)")
    if job.source == STDIN and (job.resume or job.shard != (1, 1)):
        raise UserError("standard input can be read once only: --resume and --shard need a file (--file)")
    if job.safe and form not in ("csv", "tsv"):
        raise UserError("--spreadsheet-safe is for .csv and .tsv")
    return form


def _check_columns(stream: RowStream, names: Sequence[str], answers: RowAnswers, place: str) -> None:
    """Raise UserError if a text column is missing, or if one has the name of an answer's."""
    if not names and stream.kind != "jsonl":
        raise UserError(f"{stream.name}: the file holds no rows")
    shown = ", ".join(f'"{name}"' for name in names[:30])
    for key, name in zip(("data.text", "data.text_pair"), answers.columns, strict=False):
        if names and name not in names:
            raise UserError(f'{stream.name}: no column "{name}" ({key}{place}); its columns are {shown}')
    for name in answers.added:
        if name in names:
            raise UserError(f'{stream.name}: has a column "{name}" already; rename it, or leave it out')


# --- Writing ---


def _write_file(table: _Table, job: TableJob, out: Path, done: Done) -> bool:
    """Write a file, from its start or from where it was left. False: there was nothing left to do."""
    begun, state = out.with_name(f".{out.name}.begun"), out.with_name(f".{out.name}.state")
    key = _key(table, job)
    if out.exists() and job.source != STDIN and os.path.samefile(out, job.source):
        raise UserError(f"--out: {out}: is the file that is read; name another")
    if job.resume and state.exists():
        done = read_table(Done, read_json(state), lambda _: str(state))
        if done.key != key or not begun.is_file() or begun.stat().st_size < done.size:
            raise UserError(
                f"{out}: was begun with other options, another file or another model; --overwrite begins it anew"
            )
        say(f"{out}: goes on after {done.tally.rows:,} rows")
    elif job.resume and out.exists():
        say(f"{out}: is finished already")
        return False
    elif out.exists() and not job.overwrite:
        raise UserError(f"--out: {out}: exists already; name another file, or replace it: --overwrite")
    elif state.exists() and not (job.overwrite or job.resume):
        raise UserError(f"--out: {out}: was begun; go on with --resume, or begin anew with --overwrite")
    else:
        begun.unlink(missing_ok=True)
        done.key = key
    with _kept(out, begun, state), begun.open("ab") as file:
        file.truncate(done.size)
        for block in table.blocks(done):
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            done.size += len(block)
            with atomic(state) as record:
                record.write(json.dumps(asdict(done)).encode())
    if table.writer.converts:
        with begun.open("rb") as written, atomic(out) as final:
            table.writer.convert(written, final)
    else:
        begun.replace(out)
    for path in (begun, state):
        path.unlink(missing_ok=True)
    return True


@contextmanager
def _kept(out: Path, begun: Path, state: Path) -> Iterator[None]:
    """What is done when a signal or a full disk ends it is kept; after an error of the user's it is of no use."""
    try:
        yield
    except UserError:
        begun.unlink(missing_ok=True)
        state.unlink(missing_ok=True)
        raise
    except KeyboardInterrupt:
        if state.exists():
            say(f"{out}: what is done is kept; the same command goes on with --resume")
        raise


def _key(table: _Table, job: TableJob) -> str:
    """A hash of everything that the bytes of the output depend on."""
    file = None if job.source == STDIN else job.source.resolve().stat()
    source = (str(job.source.resolve()), file.st_size, file.st_mtime_ns) if file else ()
    answers = table.answers
    parts = (answers.predictor.identity(), answers.predictor.labels, list(answers.added), job.shard, job.safe)
    return hashlib.sha256(repr((*source, *parts)).encode()).hexdigest()


def _advance(bar: tqdm[Any], done: int, rows: int) -> Callable[[float], None]:
    """What moves the bar while a window is answered, by whole rows."""
    read = 0.0

    def advance(fraction: float) -> None:
        nonlocal read
        read = min(1.0, read + fraction)
        bar.update(done + int(read * rows) - bar.n)

    return advance


def _windows(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows in windows; where one ends depends on the rows alone."""
    window: list[Row] = []
    characters = 0
    for row in rows:
        window.append(row)
        characters += sum(len(cell) for cell in row.cells if isinstance(cell, str))
        if len(window) == WINDOW or characters >= CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window
