"""Load texts without labels, which a zero-shot run classifies: ``data.label = ""`` and ``data.labels``.

All rows of the file are the test split, as none are needed for training. Their class numbers are all 0 and mean
nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from minilm.config import SPLITS, DataSection
from minilm.data import corpus
from minilm.data.columns import require_columns
from minilm.data.fingerprints import fingerprint_of
from minilm.data.locations import find_source
from minilm.data.readers import ending, read_tables
from minilm.data.rows import LeftOut, read_rows
from minilm.data.sources import Dataset, format_of, kept_columns, rules_of, scheme_of
from minilm.data.splits import keep_rows
from minilm.data.tables import Defects, Table, TableFile
from minilm.errors import UserError

TEXT = "text"  # the column of a file with one text per line


def load_unlabelled(section: DataSection) -> Dataset:
    """Read and check the texts of one file, a table or a .txt file with one text per line.

    Raises UserError if the file or a column is missing, if a text cannot be used, or if there are several splits.
    """
    source, defects = find_source(section), Defects()
    if len(source.files) > 1:
        there = ", ".join(split for split in SPLITS if split in source.files)
        raise UserError(f"{source.name}: has the splits {there}; give the file to classify (data.source=FILE)")
    if not section.text_pair and all(ending(path) == ".txt" for path in source.files["train"]):
        table, section = _lines(source.files["train"]), replace(section, text=TEXT)
    else:
        table = read_tables(
            source.files["train"], {section.text, section.text_pair, *section.keep} - {""}, defects, format_of(section)
        )
    keys = {section.text: "data.text"} | ({section.text_pair: "data.text_pair"} if section.text_pair else {})
    require_columns(table, keys, defects)
    table.columns[""] = [section.labels[0]] * len(table)  # which is replaced below
    section, left_out = replace(section, group=""), LeftOut()
    part = read_rows(table, rules_of(section, scheme_of(section)), "data.labels lists", defects, left_out)
    defects.check()
    notes = [*(f"{table.path}: {note}" for note in table.notes), *left_out.notes(table)]
    if not len(part.rows):
        raise UserError(f"{table.path}: contains no texts")
    whole = len(part.rows)
    if 0 < section.test_rows < whole:
        part = part.take(keep_rows(np.zeros(whole, np.int64), section.test_rows, (section.split_seed, 0)))
    none = part.rows.take(np.zeros(0, np.int64))
    rows = {"train": none, "validation": none, "test": replace(part.rows, labels=np.zeros_like(part.rows.labels))}
    return Dataset(
        source.name, **rows, label_names=list(section.labels), multi_label=section.multi_label,
        fingerprint=fingerprint_of(rows, section.labels), warnings=[], notes=notes,
        whole={split: whole if split == "test" else 0 for split in SPLITS},
        numbers={split: part.numbers + 1 if split == "test" else np.zeros(0, np.int64) for split in SPLITS},
        kept=kept_columns(part, section.keep),
    )  # fmt: skip


def _lines(paths: list[Path]) -> Table:
    """A table with one column, the lines of text files that are not empty."""
    table = Table([], [TEXT], {TEXT: []})
    for path in paths:
        lines = corpus.read_texts(path, [TEXT], str.strip)
        numbers = [number for number, line in enumerate(lines, 1) if line]
        table.files.append(TableFile(str(path), "line", numbers))
        table.columns[TEXT] += [line for line in lines if line]
    return table
