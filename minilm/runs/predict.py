"""``minilm predict RUN --file in.csv --out out.csv``: add predictions to the rows of a table.

All columns and rows of the input are kept, in their order. These columns are added:

    predicted      the label, or a list with several labels per text; "unsure" if its probability is too low
    probability    the probability of that label, or of each of them
    P(label)       with ``everything``, the probability of each label

If a row has no text or cannot be read, its added cells are empty. Such rows are counted and listed at the end, and do
not stop the others.

**Windows.** The rows are read in windows of 4,096. In a window, texts of similar length share a batch; predictions are
written in order. So memory does not grow with the file.

**Interruption.** Rows are written to ``.NAME.begun`` beside the output, and after each window ``.NAME.state`` records
their number. ``resume`` cuts the first file to the length in the second, and continues with the next window. The
windows do not depend on interruptions, so the output has the same bytes.
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

from minilm.atomic import atomic, move
from minilm.data.decoding import STDIN
from minilm.data.other_files import text_column
from minilm.data.row_stream import PAIR, TEXT, Row, RowStream, open_stream, survey
from minilm.data.row_writers import FORMATS, RowWriter, writer_for
from minilm.data.sources import format_of
from minilm.errors import UserError, nearest
from minilm.evaluation.predictor import Predictor
from minilm.evaluation.reading import columns_of
from minilm.evaluation.row_answers import RowAnswers, Tally
from minilm.evaluation.text_lines import check_column
from minilm.schema import read_table
from minilm.textfiles import read_json
from minilm.training.console import progress_bar, say

WINDOW = 4096  # the most rows of a window
CHARACTERS = 2**25  # the most characters of a window


@dataclass(frozen=True)
class TableJob:
    """The input and output files, and the options."""

    source: Path  # "-": standard input
    out: Path | None = None  # None: standard output
    column: str = ""  # with the texts; empty: that of the run's config
    format: str = ""  # of standard input and output: "csv", "tsv" or "jsonl"
    everything: bool = False  # whether to add a column for each label
    strict: bool = False  # whether a row without an answer is an error
    resume: bool = False
    overwrite: bool = False
    shard: tuple[int, int] = (1, 1)  # (i, n): only the i-th of n parts of the rows
    naming: str = "--column NAME"  # how the column is named, for messages
    safe: bool = False  # whether to write cells so that a spreadsheet runs none of them as a formula


@dataclass
class Done:
    """The progress of a job."""

    tally: Tally = field(default_factory=Tally)
    size: int = 0  # bytes that are written
    key: str = ""  # a hash of everything that the output depends on


def predict_file(predictor: Predictor, run: Path, job: TableJob) -> Tally:
    """Add predictions to every row of a file, and report rows without an answer on standard error.

    run: the run of the predictor, whose config names the columns. Raises UserError if the file as a whole cannot be
    read or written, and with ``strict`` for the first row without an answer.
    """
    table = open_table(predictor, run, job)
    answers, done = table.answers, Done()
    if job.out is None:
        for block in table.blocks(done):
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
    elif not _write_file(table, job, job.out, done):
        return answers.tally
    for line in answers.report():
        say(line)
    return answers.tally


def open_table(predictor: Predictor, run: Path, job: TableJob) -> AnsweredTable:
    """The table of a job, before its first row is answered. Raises UserError as ``predict_file`` does."""
    form = _form(job)
    section, place = columns_of(run, bool(predictor.reading.pairs))
    stream = open_stream(
        job.source, format_of(section), kind=job.format or "lines", pairs=bool(predictor.reading.pairs)
    )
    columns = [text_column(section, job.column, place), section.text_pair]
    if stream.kind == "lines":
        check_column(job.column, job.source)
        columns = [TEXT, PAIR]
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
    _check_columns(stream, [*names, *nested], answers, place, job)
    return AnsweredTable(answers, stream, writer_for(form, stream, names, answers.added, safe=job.safe), first, end)


@dataclass(frozen=True)
class AnsweredTable:
    """The input, the predictor and the writer of a job."""

    answers: RowAnswers
    stream: RowStream
    writer: RowWriter
    first: int = 0  # row
    end: int | None = None  # None: unknown

    def blocks(self, done: Done, most: int = 0, *, quiet: bool = False) -> Iterator[bytes]:
        """Yield the remaining bytes of the output, one window at a time.

        most: the most rows of a window; 0: ``WINDOW``. quiet: whether to show no progress bar.
        """
        answers, tally = self.answers, done.tally
        answers.tally = tally
        rows = itertools.islice(self.stream.rows(), self.first + tally.rows, self.end)
        if not done.size:
            yield self.writer.begin()
        total = None if self.end is None else self.end - self.first
        with tqdm(disable=True) if quiet else progress_bar(total, tally.rows, "row") as bar:
            for window in _windows(rows, most or WINDOW):
                answers.predictor.watch(_advance(bar, tally.rows, len(window)))
                added = answers.of(window)
                bar.update(tally.rows - bar.n)
                yield self.writer.block(window, added)


def _form(job: TableJob) -> str:
    """The format of the output. Raises UserError if options contradict each other."""
    endings = ", ".join(FORMATS)
    if job.out is not None:
        form = FORMATS.get(job.out.suffix.lower(), "")
        if not form:
            raise UserError(f"--out: {job.out}: must end in {endings}{nearest(job.out.suffix, FORMATS)}")
        if job.format and job.source != STDIN:
            raise UserError("--format is only for standard input and output; files have the format of their ending")
        if not job.out.parent.is_dir():
            raise UserError(f"--out: {job.out.parent}: no such folder")
        if job.out.is_dir():
            raise UserError(f"--out: {job.out}: is a folder; name a file that ends in {endings}")
    else:
        form = job.format or "csv"
    only_file = {"--resume": job.resume, "--overwrite": job.overwrite}
    for option in (name for name, given in only_file.items() if given and job.out is None):
        raise UserError(f"{option} needs an output file (--out)")
    if job.source == STDIN and (job.resume or job.shard != (1, 1)):
        raise UserError("standard input can be read only once; --resume and --shard need a file (--file)")
    if job.safe and form not in ("csv", "tsv"):
        raise UserError("--spreadsheet-safe is only for .csv and .tsv")
    return form


def _check_columns(stream: RowStream, names: Sequence[str], answers: RowAnswers, place: str, job: TableJob) -> None:
    """Raise UserError if a text column is missing, or if a column has the name of an added column."""
    if not names and stream.kind != "jsonl":
        raise UserError(f"{stream.name}: the file contains no rows")
    shown = ", ".join(f'"{name}"' for name in names[:30])
    option = job.naming.split()[0]
    keys = (option if job.column else f"data.text{place}", f"data.text_pair{place}")
    for key, name in zip(keys, answers.columns, strict=False):
        if names and name not in names:
            advice = f"; name the column of the texts: {job.naming}" if key.startswith("data.text ") else ""
            near = nearest(name, names)
            raise UserError(f'{stream.name}: no column "{name}" ({key}){near}; its columns are {shown}{advice}')
    for name in answers.added:
        if name in names:
            raise UserError(f'{stream.name}: already has a column "{name}"; rename or remove it')


# --- Writing ---


def _write_file(table: AnsweredTable, job: TableJob, out: Path, done: Done) -> bool:
    """Write a file, from its start or from where it was interrupted. False: it was already finished."""
    begun, state = out.with_name(f".{out.name}.begun"), out.with_name(f".{out.name}.state")
    key = _key(table, job)
    if out.exists() and job.source != STDIN and os.path.samefile(out, job.source):
        raise UserError(f"--out: {out}: is the input file; give another output file")
    if job.resume and state.exists():
        done = read_table(Done, read_json(state), lambda _: str(state))
        if done.key != key or not begun.is_file() or begun.stat().st_size < done.size:
            raise UserError(
                f"{out}: was started with other options, another file or another model; start again with --overwrite"
            )
        say(f"{out}: continues after {done.tally.rows:,} rows")
    elif job.resume and out.exists():
        say(f"{out}: is already finished; to answer again, with these options: --overwrite")
        return False
    elif out.exists() and not job.overwrite:
        raise UserError(f"--out: {out}: already exists; give another file, or replace it with --overwrite")
    elif state.exists() and not (job.overwrite or job.resume):
        raise UserError(f"--out: {out}: was started before; continue with --resume, or start again with --overwrite")
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
    move(table.writer.finish(begun), out)
    for path in (begun, state):
        path.unlink(missing_ok=True)
    return True


@contextmanager
def _kept(out: Path, begun: Path, state: Path) -> Iterator[None]:
    """A context that keeps the finished part after a signal or a full disk, but not after other user errors."""
    try:
        yield
    except UserError:
        begun.unlink(missing_ok=True)
        state.unlink(missing_ok=True)
        raise
    except KeyboardInterrupt:
        if state.exists():
            say(f"{out}: the finished part is saved; run the same command with --resume to continue")
        raise


def _key(table: AnsweredTable, job: TableJob) -> str:
    """A hash of everything that the bytes of the output depend on."""
    file = None if job.source == STDIN else job.source.resolve().stat()
    source = (str(job.source.resolve()), file.st_size, file.st_mtime_ns) if file else ()
    answers = table.answers
    settings = (answers.columns, list(answers.added), job.shard, job.safe)
    parts = (answers.predictor.identity(), answers.predictor.labels, *settings)
    return hashlib.sha256(repr((*source, *parts)).encode()).hexdigest()


def _advance(bar: tqdm[Any], done: int, rows: int) -> Callable[[float], None]:
    """A function that advances the progress bar within a window, by whole rows."""
    read = 0.0

    def advance(fraction: float) -> None:
        nonlocal read
        read = min(1.0, read + fraction)
        bar.update(done + int(read * rows) - bar.n)

    return advance


def _windows(rows: Iterator[Row], most: int) -> Iterator[list[Row]]:
    """Divide rows into windows of at most ``most`` rows, whose ends depend only on the rows."""
    window: list[Row] = []
    characters = 0
    for row in rows:
        window.append(row)
        characters += sum(len(cell) for cell in row.cells if isinstance(cell, str))
        if len(window) == most or characters >= CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window
