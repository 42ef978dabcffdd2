"""Read all rows of another file than those of training: to measure a model on it, or to classify its texts.

Nothing is split. Rows that cannot be used are one error, as in training, and rows that are dropped are named in notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from minilm.config import DataSection
from minilm.data.checks import named
from minilm.data.columns import require_columns
from minilm.data.label_matching import match_scheme
from minilm.data.labels import find_labels, known_labels, read_numbers
from minilm.data.readers import matching, read_tables
from minilm.data.rows import LeftOut, RowRules, Rows, read_rows, read_texts
from minilm.data.sources import check_columns, format_of, read_columns, rules_of, scheme_of, text_keys
from minilm.data.tables import Defects, Table
from minilm.errors import UserError


def load_rows(
    data: Path | Table, section: DataSection, names: Sequence[str] = (), notes: list[str] | None = None
) -> Rows:
    """All rows of another file or table with the columns of ``section``, for a model with the labels ``names``.

    Without ``names``, the labels are those that the section lists. ``notes`` gets the sentences that ``Dataset.notes``
    has. Raises UserError as ``load_dataset`` does.
    """
    section, table, defects = _other_file(data, replace(section, keep=[]))
    scheme = known_labels(scheme_of(section), names or section.labels or section.label_columns, table)
    return _rows_of(table, rules_of(section, scheme), "the run's labels are", defects, notes)


def load_rows_matched(
    data: Path | Table, section: DataSection, classes: Sequence[str], notes: list[str] | None = None
) -> tuple[Rows, dict[str, str]]:
    """Every row of a file or table, for a classifier with these classes that was trained elsewhere.

    Its labels are found as in ``load_dataset`` and matched with the classes (``label_matching``). If the section lists
    labels, they are the file's names of the classes, in their order.

    Returns the rows with class numbers, and the mapping from labels to classes. ``notes`` as for ``load_rows``. Raises
    UserError as ``load_dataset`` and ``match_scheme`` do.
    """
    if section.labels and len(section.labels) != len(classes):
        given = f"lists {len(section.labels)}, and the model has {len(classes)}"
        raise UserError(f"data.labels must name the model's labels in its order; it {given}: {named(classes)}")
    section, table, defects = _other_file(data, section)
    scheme = find_labels(scheme_of(section), table)
    taken = dict(zip(scheme.names, classes, strict=True)) if section.labels else {}
    if not section.labels:
        scheme = match_scheme(scheme, classes, table.path)
        taken = scheme.rename
    return _rows_of(table, rules_of(section, scheme), "the model knows", defects, notes), taken


def load_scores(
    data: Path | Table, section: DataSection, notes: list[str] | None = None
) -> tuple[Rows, np.ndarray]:
    """Every row of a file or table whose label column contains a number per text; the labels of the rows are all 0.

    Returns the rows and their numbers (N,) float64. ``notes`` as for ``load_rows``. Raises UserError as
    ``load_dataset`` does, and for a label that is not a finite number.
    """
    section, table, defects = _other_file(data, replace(section, empty="error", labels=["score"], rename={}))
    numbers = read_numbers(table, section.label, defects)
    table.columns[section.label] = ["score"] * len(table)
    return _rows_of(table, rules_of(section, scheme_of(section)), "there is", defects, notes), numbers


def _other_file(data: Path | Table, section: DataSection) -> tuple[DataSection, Table, Defects]:
    """Another file than that of training, of which every row is read: its section, its table, and the defects."""
    section, defects = replace(section, group="", split_column=""), Defects()
    table = data if isinstance(data, Table) else read_columns(matching(data), section, defects)
    check_columns(table, section, defects)
    return section, table, defects


def _rows_of(table: Table, rules: RowRules, known: str, defects: Defects, notes: list[str] | None) -> Rows:
    """The rows of another file. Raises UserError if there are defects."""
    left_out = LeftOut()
    rows = read_rows(table, rules, known, defects, left_out).rows
    defects.check()
    if notes is not None:
        notes += [*(f"{table.path}: {note}" for note in table.notes), *left_out.notes(table)]
    return rows


def text_column(section: DataSection, column: str, place: str) -> str:
    """The column of the texts: that of ``--column``, or else the section's. Raises UserError for that of the second
    texts. place: as for ``load_texts``."""
    if column and column == section.text_pair:
        raise UserError(f'the column "{column}" is that of the second texts (data.text_pair{place}); name the first')
    return column or section.text


def load_texts(
    path: Path, section: DataSection, place: str = "", column: str | None = None
) -> tuple[list[str | tuple[str, str]], np.ndarray]:
    """The texts, or pairs of texts, of another file, which needs no labels; and which of them are not empty, (N,) bool.

    They are checked after cleaning, as ``load_dataset`` does, but returned as written: the predictor cleans them.

    place: follows each key in messages, to say where the key was given. column: the option ``--column``, which names
    the column of the texts; "": it is not given; None: there is no such option. Raises UserError as ``load_dataset``
    does.
    """
    defects = Defects()
    section = replace(section, text=text_column(section, column or "", place), empty="skip")
    keys = {name: key + place for name, key in text_keys(section).items()}
    if column:
        keys[column] = "--column"
    table = read_tables(matching(path), set(keys), defects, format_of(section))
    missing = column == "" and section.text not in table.columns
    require_columns(table, keys, defects, "name the column of the texts: --column NAME" if missing else "")
    columns = [["" if cell is None else cell for cell in table.columns[name]] for name in keys]
    rules, usable = rules_of(section, scheme_of(section)), np.ones(len(table), dtype=bool)
    for name in keys:
        read_texts(table, name, rules, defects, usable)
    defects.check()
    return list(zip(*columns, strict=True)) if len(columns) > 1 else columns[0], usable
