"""Rows from files as people have them, each with the line it starts on, so that errors can name it.

    .csv             fields between commas, or semicolons, tabs or pipes, whichever the file has
    .tsv, .tab       fields between tabs, or another of these
    .jsonl, .ndjson  one JSON object a line
    .json            an array of objects, or any other shape that pandas or datasets write
    .parquet         columns; needs pyarrow, the extra ``data``
    .xlsx, .xls, .ods  the first sheet; needs python-calamine, the extra ``excel``

Each may be gzipped (``.csv.gz``). A file with any other ending, and standard input (``-``), is read as what it looks
like: JSON, a table, or fastText's lines. What is found by looking and is not the usual is a note of the table.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from minilm.data.columnar import read_parquet, read_spreadsheet
from minilm.data.decoding import STDIN, TextFile, display_name, open_text
from minilm.data.delimited import DELIMITERS, Format, find_delimiter, read_delimited
from minilm.data.json_rows import LABEL, read_fasttext, read_json, read_json_lines
from minilm.data.tables import Defects, Table, joined
from minilm.errors import UserError, nearest

SPREADSHEETS = (".xlsx", ".xls", ".ods")
FORMATS = (".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".parquet", *SPREADSHEETS)
USUAL = Format()


def ending(path: Path) -> str:
    """A file's ending in lower case, without that of gzip: ".csv" of "reviews.CSV.gz"."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return next(reversed([suffix for suffix in suffixes[-2:] if suffix != ".gz"]), "")


def is_table(path: Path) -> bool:
    """Whether a file's ending says that it has columns."""
    return ending(path) in FORMATS


def read_table(path: Path, wanted: set[str], defects: Defects, how: Format = USUAL) -> Table:
    """Read the wanted columns, those that there are. Rows that cannot be read become defects.

    Raises UserError if the file as a whole cannot be read, or holds no rows.
    """
    if path != STDIN and not path.is_file():
        what = "is a folder" if path.is_dir() else f"no such file{like_it(path)}"
        raise UserError(f"{path}: {what}")
    before = len(defects.found)
    suffix = ending(path)
    if suffix == ".parquet":
        table = read_parquet(path, wanted)
    elif suffix in SPREADSHEETS:
        table = read_spreadsheet(path, wanted, defects, header=how.header)
    else:
        text = open_text(path, how.encoding)
        table = _read_text(text, suffix, wanted, defects, how)
        if not how.encoding and not text.encoding.startswith("utf-8"):
            table.notes.insert(0, f"it is {text.encoding.upper()} (data.encoding)")
    if not len(table) and len(defects.found) == before:
        raise UserError(f"{display_name(path)}: the file holds no rows")
    return table


def matching(path: Path) -> list[Path]:
    """The files of a path, which may be a pattern such as ``parts/train-*.csv``, by name. Raises UserError for none."""
    if path == STDIN or path.exists() or not any(mark in path.name for mark in "*?["):
        return [path]
    found = sorted(p for p in path.parent.glob(path.name) if p.is_file())
    if not found:
        raise UserError(f"{path}: no file is named so")
    return found


def read_tables(paths: Sequence[Path], wanted: set[str], defects: Defects, how: Format = USUAL) -> Table:
    """The rows of several files, one after another."""
    return joined([read_table(path, wanted, defects, how) for path in paths])


def _read_text(text: TextFile, suffix: str, wanted: set[str], defects: Defects, how: Format) -> Table:
    start = text.sample().lstrip()
    if suffix in (".jsonl", ".ndjson") and not start.startswith("["):
        return read_json_lines(text, wanted, defects)
    if suffix in (".json", ".jsonl", ".ndjson"):
        return read_json(text, wanted, defects)
    if suffix in (".csv", ".tsv", ".tab") or how.delimiter:
        return read_delimited(text, wanted, defects, how, "," if suffix == ".csv" else "\t")
    # No known ending: what does it look like?
    if LABEL.match(start):
        table = read_fasttext(text, wanted, defects)
        table.notes.append("its lines begin with fastText's labels")
    elif start.startswith(("{", "[{")):
        table = read_json(text, wanted, defects)
        table.notes.append("it is JSON")
    elif delimiter := _delimiter_of(start, commas=text.path == STDIN):
        table = read_delimited(text, wanted, defects, replace(how, delimiter=delimiter), delimiter)
        table.notes.append(f"its fields are separated by {DELIMITERS[delimiter]} (data.delimiter)")
    else:
        raise UserError(_no_table(text.path))
    return table


def _delimiter_of(start: str, commas: bool) -> str:
    """What separates the fields of a text that begins so; empty: it looks like no table.

    commas: whether they may be delimiters, though sentences have them too.
    """
    delimiter = find_delimiter(start, "\t")
    return delimiter if delimiter in start.partition("\n")[0] and (commas or delimiter != ",") else ""


def _no_table(path: Path) -> str:
    """What to do with a file that has no columns."""
    if path.suffix.lower() == ".txt":
        return texts_without_labels(path)
    known = ", ".join(FORMATS)
    return f"{display_name(path)}: not a known format; the endings known are {known} (data.delimiter reads any other)"


def texts_without_labels(path: Path) -> str:
    """How a file of texts is joined with one of labels."""
    labels = [p for p in path.parent.glob("*.txt") if p.name == path.name.replace("text", "labels") and p != path]
    labels = labels or [p for p in path.parent.glob("*.txt") if "label" in p.name.lower() and p != path]
    other = str(labels[0]) if len(labels) == 1 else "LABELS.txt"
    return (
        f"{path}: a text a line, without labels. If another file has them, a line each, join the two: "
        f"paste {path} {other} > joined.tsv, then data.source=joined.tsv data.header=false data.text=1 data.label=2"
    )


def like_it(path: Path, endings: Collection[str] = FORMATS) -> str:
    """The file of the same folder whose name is most like that of a file that is not there, as a hint.

    It has one of the endings, which do not count: all the files of a folder may be alike in them.
    """
    there = path.parent.glob("*") if path.parent.is_dir() else ()
    alike = [p.name for p in there if ending(p) in endings and nearest(path.stem, [p.stem])]
    return nearest(path.name, alike)
