"""Load a config's ``[data]`` section as three splits of checked, labelled texts.

    files -> tables (readers) -> texts and class numbers (rows) -> splits, given or made -> subsets -> a fingerprint

No row is repaired or dropped silently. Every row that cannot be used is a defect with its file and line; one error
reports the first defects and their number before training starts. Problems that make a result less reliable, such as
test texts that are also in the training data, are in ``Dataset.warnings``. Guesses about the files, and rows that are
dropped because the config asks for it, are in ``Dataset.notes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from minilm.callers import changes, in_python
from minilm.config import SPLITS, DataSection
from minilm.data.checks import check_equal_texts, check_labels, check_shared_groups, named
from minilm.data.cleaning import cleaner
from minilm.data.columns import require_columns
from minilm.data.delimited import Format
from minilm.data.fingerprints import fingerprint_of
from minilm.data.in_memory import as_given
from minilm.data.labels import LabelScheme, check_kind, find_labels, label_text
from minilm.data.locations import SPLIT_NAMES, find_source
from minilm.data.readers import read_tables
from minilm.data.row_lists import read_row_list
from minilm.data.rows import LONGEST, LeftOut, Part, RowRules, Rows, read_rows
from minilm.data.splits import deal_folds, hold_out, join_groups, keep_rows, keep_shots, number_texts, strata_of
from minilm.data.tables import Defects, Table
from minilm.errors import UserError, located
from minilm.hints import program
from minilm.hub import local_path

TAB = {"tab": "\t", "\\t": "\t"}  # ways to type a tab on a command line
SPLIT = DataSection.split_column  # the name by default: a table need not have this column
NO_SPLIT_COLUMN = {"data.split_column": ""}


@dataclass(frozen=True)
class Dataset:
    """Three splits with one label set. With ``data.test_fraction = 0`` the test split has no rows."""

    name: str
    train: Rows
    validation: Rows
    test: Rows
    label_names: list[str]  # (C,)
    multi_label: bool
    fingerprint: str  # SHA-256 of the splits' texts and labels, in order
    warnings: list[str]
    whole: dict[str, int]  # rows of each split before data.train_rows, data.shots and similar keys chose a part
    notes: list[str]  # guesses about the files, and rows that are dropped because the config asks for it
    numbers: dict[str, np.ndarray]  # split -> the numbers of its rows in their files, from 1
    kept: dict[str, list[Any]] = field(default_factory=dict)  # the columns of data.keep in the test rows


def load_dataset(section: DataSection) -> Dataset:
    """Read, check and split the rows.

    Raises UserError if a file or a column is missing, or if rows cannot be used.
    """
    source = find_source(section)
    defects, warnings = Defects(), list[str]()
    tables = {split: read_columns(paths, section, defects) for split, paths in source.files.items()}
    for split, table in tables.items():
        table.files = [as_given(file, split if len(tables) > 1 else "") for file in table.files]
    notes = [f"{table.path}: {note}" for table in tables.values() for note in table.notes]
    for split, table in tables.items():
        if source.rows and len(table) != source.rows[split]:
            warnings.append(f"{table.path}: has {len(table):,} rows, but the catalogue says {source.rows[split]:,}")
        check_columns(table, section, defects, split, tables["train"].files[0].path)

    scheme = find_labels(scheme_of(section), tables["train"])
    _check_number(scheme.names, section.max_labels)
    known = "data.labels lists" if section.labels else "the training data has"
    rules, parts = rules_of(section, scheme), dict[str, Part]()
    for split, table in tables.items():
        left_out = LeftOut()
        parts[split] = read_rows(table, rules, known, defects, left_out)
        notes += left_out.notes(table)
    if len(tables) == 1 and section.split_column:
        parts = _by_column(parts["train"], section.split_column, defects, notes)
    defects.check()
    if len(tables) > 1 and section.split_column:
        _check_column(tables, section.split_column)
    if not (section.labels or scheme.multi_label):
        check_kind(tables["train"], section.label)

    made = [split for split in SPLITS if split not in parts]
    parts = _make_missing(parts, section)
    whole = {split: len(parts[split].rows) for split in SPLITS}
    parts = _subsets(parts, section, warnings)
    parts["train"] = _chosen(parts["train"], section, scheme.names, warnings)
    rows = {split: parts[split].rows for split in SPLITS}
    with located(tables["train"].path):
        warnings += check_labels({split: part.labels for split, part in rows.items()}, scheme.names, section.label)
    warnings += check_equal_texts(parts, made) + check_shared_groups(parts, section.group)
    return Dataset(
        source.name, rows["train"], rows["validation"], rows["test"],
        label_names=list(scheme.names), multi_label=scheme.multi_label,
        fingerprint=fingerprint_of(rows, scheme.names), warnings=warnings, whole=whole, notes=notes,
        numbers={split: parts[split].numbers + 1 for split in SPLITS}, kept=kept_columns(parts["test"], section.keep),
    )  # fmt: skip


# The section's settings of files, labels and rows -----------------------------------------------------------


def format_of(section: DataSection) -> Format:
    """The format of the section's files."""
    return Format(TAB.get(section.delimiter, section.delimiter), section.encoding, section.quoting, section.header)


def scheme_of(section: DataSection) -> LabelScheme:
    """How the section's labels are read; ``find_labels`` completes the names."""
    return LabelScheme(
        section.label, section.label_columns, section.label_separator, section.labels, section.rename, section.other
    )


def rules_of(section: DataSection, scheme: LabelScheme) -> RowRules:
    """How the section's rows are read."""
    longest = 0 if section.long_texts == "windows" else LONGEST
    clean = cleaner(section.clean)
    return RowRules(section.text, section.text_pair, section.group, scheme, clean, section.empty, longest)


def text_keys(section: DataSection) -> dict[str, str]:
    """Each text column and the config's key for it."""
    keys = {section.text: "data.text", section.text_pair: "data.text_pair"}
    return {name: key for name, key in keys.items() if name}


def _label_keys(section: DataSection) -> dict[str, str]:
    """Each label column and the config's key for it."""
    if section.label_columns:
        return dict.fromkeys(section.label_columns, "data.label_columns")
    return {section.label: "data.label"}


def read_columns(paths: Sequence[Path], section: DataSection, defects: Defects) -> Table:
    named = {*text_keys(section), section.group, *_label_keys(section), *section.keep}
    wanted = {*named, section.split_column} - {""}
    return read_tables(paths, wanted, defects, format_of(section))


def check_columns(table: Table, section: DataSection, defects: Defects, split: str = "train", train: str = "") -> None:
    """Raises UserError if a column is missing. ``train``: the path of the training file, if ``split`` is another."""
    texts, labels = text_keys(section), _label_keys(section)
    if split != "train" and not labels.keys() & table.columns.keys() and texts.keys() <= table.columns.keys():
        without = changes({f"data.{split}": ""} if section.train else {"data.source": "", "data.train": train})
        command = f"{program()} predict RUN --file {table.files[0].path}"
        raise UserError(
            f'{table.path}: has no column "{next(iter(labels))}" ({next(iter(labels.values()))}); without labels it '
            f"cannot be the {split} split. To make that split from the training rows, add: {without}; to classify the "
            f"texts after training: {'minilm.Classifier.load(RUN).predict(texts)' if in_python() else command}"
        )
    group = {section.group: "data.group"} if section.group else {}
    require_columns(table, {**texts, **group, **labels}, defects)


def kept_columns(test: Part, columns: Sequence[str]) -> dict[str, list[Any]]:
    """The cells of these columns in the test rows. Raises UserError if the test file does not have a column."""
    require_columns(test.table, dict.fromkeys(columns, "data.keep"), Defects())
    return {name: [test.table.columns[name][i] for i in test.numbers.tolist()] for name in columns}


def _check_number(names: Sequence[str], most: int) -> None:
    if len(names) > most:
        have = f"the data have {len(names):,} labels, more than {most:,}: {named(names)}"
        raise UserError(f"{have}; if these really are labels, add: {changes({'data.max_labels': str(len(names))})}")


# Splits -----------------------------------------------------------------------------------------------------


def _by_column(part: Part, column: str, defects: Defects, notes: list[str]) -> dict[str, Part]:
    """The splits according to ``data.split_column``; all rows if the table does not have a column of its default name.

    Adds a note about them, as nobody may have asked for them. Raises UserError if no row is for training.
    """
    table, rows = part.table, dict[str, list[int]]()
    if column == SPLIT and column not in table.columns:
        return {"train": part}
    require_columns(table, {column: "data.split_column"}, defects)
    for i, number in enumerate(part.numbers.tolist()):
        cell = label_text(table.columns[column][number])
        split = SPLIT_NAMES.get(cell.lower())
        if split is None:
            what = f'column "{column}" must be train, validation (or dev) or test, got "{cell}"'
            what += f" ({changes(NO_SPLIT_COLUMN)} ignores the column)"
            defects.add(table.origin(number), what)
        else:
            rows.setdefault(split, []).append(i)
    if "train" not in rows:
        defects.check()
        without = f"to ignore the column: {changes(NO_SPLIT_COLUMN)}"
        raise UserError(f'{table.path}: column "{column}" assigns no row to train; {without}')
    counts = ", ".join(f"{len(rows[split]):,} {split}" for split in SPLITS if split in rows)
    ignored = f"{changes(NO_SPLIT_COLUMN)} ignores the column"
    notes.append(f'{table.path}: its column "{column}" decides the splits: {counts} ({ignored})')
    return {split: part.take(np.array(found)) for split, found in rows.items()}


def _check_column(tables: dict[str, Table], column: str) -> None:
    """Raises UserError if the file of one split has a column that assigns a row to another split.

    A column of this name whose cells name no split is ignored.
    """
    for split, table in tables.items():
        cells = [label_text(cell) for cell in table.columns.get(column, ())]
        names = [SPLIT_NAMES.get(cell.lower()) for cell in cells]
        if not any(names):
            continue
        instead = "divide the file into one file per split"
        if "train" in names:
            instead = "give only this file (data.source)"
        elif len(set(names)) == 1:
            instead = f"give the file as data.{names[0]}"
        for row, (cell, name) in enumerate(zip(cells, names, strict=True)):
            if name != split:
                raise UserError(
                    f'{table.origin(row)}: column "{column}" is "{cell}", but the config gives the file as the '
                    f"{split} split; {instead}, or ignore the column: {changes(NO_SPLIT_COLUMN)}"
                )


def _make_missing(parts: dict[str, Part], section: DataSection) -> dict[str, Part]:
    """Make the missing splits from the training rows; both fractions refer to the training rows as given.

    Rows with equal texts are held out together, unless that would leave a split empty. Raises UserError for too few.
    """
    parts = dict(parts)
    total = len(parts["train"].rows)
    if not total:
        raise UserError(f"{parts['train'].table.path}: no training row is left; see data.other and data.empty")
    fractions = {"test": section.test_fraction, "validation": section.validation_fraction}
    for stream, (split, fraction) in enumerate(fractions.items()):
        if split in parts:
            continue
        train = parts["train"]
        if not fraction and not (split == "test" and section.folds):
            parts[split] = train.take(np.zeros(0, dtype=np.int64))
            continue
        share, seed = fraction * total / len(train.rows), (section.split_seed, stream)
        strata = strata_of(train.rows.labels)
        for groups in (_groups_of(train), train.groups):
            if split == "test" and section.folds:
                held_out = deal_folds(strata, section.folds, seed, groups) == section.fold - 1
                kept, out = np.flatnonzero(~held_out), np.flatnonzero(held_out)
            else:
                kept, out = hold_out(strata, share, seed, groups)
            if len(out) and len(kept):
                break
        if not len(out) or not len(kept):
            grouped = f' in groups of "{section.group}"' if section.group else ""
            few = f"{total:,} rows{grouped} are too few"
            if split == "test" and section.folds:
                raise UserError(f"{few} for {section.folds} folds; lower data.folds")
            raise UserError(
                f"{few} to make a {split} split with the fraction {fraction}; give a file for that split, or change "
                f"data.{split}_fraction"
            )
        parts[split], parts["train"] = train.take(out), train.take(kept)
    return parts


def _groups_of(part: Part) -> np.ndarray | None:
    """(N,) group numbers: rows of one group, or with equal texts, must stay together. None: no rows must."""
    texts = number_texts(part.rows.texts, part.rows.pairs)
    if len(np.unique(texts)) == len(texts):
        return part.groups
    return texts if part.groups is None else join_groups(part.groups, texts)


def _subsets(parts: dict[str, Part], section: DataSection, warnings: list[str]) -> dict[str, Part]:
    """The stratified subsets that ``data.train_rows`` and similar keys ask for; if too few rows, all and a warning."""
    subsets = {}
    for stream, split in enumerate(SPLITS, start=2):
        part, count = parts[split], getattr(section, f"{split}_rows")
        if count > len(part.rows):
            warnings.append(f"data.{split}_rows asks for {count:,} rows, but the {split} split has {len(part.rows):,}")
        elif count:
            part = part.take(keep_rows(strata_of(part.rows.labels), count, (section.split_seed, stream)))
        subsets[split] = part
    return subsets


def _chosen(part: Part, section: DataSection, names: Sequence[str], warnings: list[str]) -> Part:
    """The training rows that ``data.shots`` or ``data.rows`` selects."""
    if section.rows:
        numbers, given = read_row_list(local_path(section.rows), part.rows.labels, names)
        part = part.take(numbers)
        return replace(part, rows=replace(part.rows, labels=given))
    if section.shots:
        strata = strata_of(part.rows.labels)
        rare = [int(c) for c, n in zip(*np.unique(strata, return_counts=True), strict=True) if n < section.shots]
        if rare:
            rarest = named([names[c] if c >= 0 else "no label" for c in rare])
            warnings.append(f"data.shots asks for {section.shots:,} rows per class, but there are fewer of {rarest}")
        part = part.take(keep_shots(strata, section.shots, (section.split_seed, 5)))
    return part
