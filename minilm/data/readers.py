"""Read rows from files of many formats. Each row has the line on which it starts, so that errors can name it.

    .csv             fields separated by commas, or by semicolons, tabs or pipes if the file has those
    .tsv, .tab       fields separated by tabs, or by another of these characters
    .jsonl, .ndjson  one JSON object per line
    .json            an array of objects, or another form that pandas or datasets write
    .parquet         columns; needs pyarrow, the extra ``data``
    .xlsx, .xls, .ods  the first sheet; needs python-calamine, the extra ``excel``

Each may be gzipped (``.csv.gz``). For other endings and for standard input (``-``), the format is guessed from the
content: JSON, a table, or fastText's format. If a guess is unusual, the table gets a note about it.
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
    """A file's ending in lower case, without ".gz": ".csv" for "reviews.CSV.gz"."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return next(reversed([suffix for suffix in suffixes[-2:] if suffix != ".gz"]), "")


def is_table(path: Path) -> bool:
    """Whether a file's ending is that of a table."""
    return ending(path) in FORMATS


def read_table(path: Path, wanted: set[str], defects: Defects, how: Format = USUAL) -> Table:
    """Read the wanted columns that the file has. Rows that cannot be read become defects.

    Raises UserError if the file as a whole cannot be read, or contains no rows.
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
        raise UserError(f"{display_name(path)}: the file contains no rows")
    return table


def matching(path: Path) -> list[Path]:
    """The path; or, if it is a pattern such as ``parts/train-*.csv``, the sorted files that match it.

    Raises UserError if no file matches.
    """
    if path == STDIN or path.exists() or not any(mark in path.name for mark in "*?["):
        return [path]
    found = sorted(p for p in path.parent.glob(path.name) if p.is_file())
    if not found:
        raise UserError(f"{path}: no file matches this pattern")
    return found


def read_tables(paths: Sequence[Path], wanted: set[str], defects: Defects, how: Format = USUAL) -> Table:
    """Read several files as one table, one after another."""
    return joined([read_table(path, wanted, defects, how) for path in paths])


def _read_text(text: TextFile, suffix: str, wanted: set[str], defects: Defects, how: Format) -> Table:
    start = text.sample().lstrip()
    if suffix in (".jsonl", ".ndjson") and not start.startswith("["):
        return read_json_lines(text, wanted, defects)
    if suffix in (".json", ".jsonl", ".ndjson"):
        return read_json(text, wanted, defects)
    if suffix in (".csv", ".tsv", ".tab") or how.delimiter:
        return read_delimited(text, wanted, defects, how, "," if suffix == ".csv" else "\t")
    # Unknown ending: guess the format from the content.
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
    """The delimiter of a table that begins with ``start``; empty if it does not look like a table.

    commas: whether a comma may be the delimiter, although sentences contain commas too.
    """
    delimiter = find_delimiter(start, "\t")
    return delimiter if delimiter in start.partition("\n")[0] and (commas or delimiter != ",") else ""


def _no_table(path: Path) -> str:
    """The message for a file in which no columns were found."""
    if path.suffix.lower() == ".txt":
        return texts_without_labels(path)
    known = ", ".join(FORMATS)
    return f"{display_name(path)}: unknown format; the file name must end in {known}, or set data.delimiter"


def texts_without_labels(path: Path) -> str:
    """The message for a file of texts without labels: how to join it with a file of labels."""
    labels = [p for p in path.parent.glob("*.txt") if p.name == path.name.replace("text", "labels") and p != path]
    labels = labels or [p for p in path.parent.glob("*.txt") if "label" in p.name.lower() and p != path]
    other = str(labels[0]) if len(labels) == 1 else "LABELS.txt"
    return (
        f"{path}: has one text per line, without labels. If another file has one label per line, join the files: "
        f"paste {path} {other} > joined.tsv, then add: "
        "data.source=joined.tsv data.header=false data.text=1 data.label=2"
    )


def like_it(path: Path, endings: Collection[str] = FORMATS) -> str:
    """A hint for a missing file: the file in its folder with the most similar name, if it has one of the endings.

    Endings are not compared, as all files of a folder may have the same one.
    """
    there = path.parent.glob("*") if path.parent.is_dir() else ()
    alike = [p.name for p in there if ending(p) in endings and nearest(path.stem, [p.stem])]
    return nearest(path.name, alike)
