"""A config's ``[data]`` section to three splits of checked, labelled texts.

    files -> rows (readers) -> texts and class numbers -> splits, given or made -> subsets -> a fingerprint

Nothing is repaired in silence. Every row that cannot be used is a defect with its file and line, and one
error reports them before any training: the first few and their number. What makes a result worth less but not
wrong (a test text that is also in the training data) is a warning with its number, in ``Dataset.warnings``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from minilm.config import SPLITS, DataSection
from minilm.data.cleaning import cleaner
from minilm.data.labels import bits, check_kind, classes, label_names, label_text
from minilm.data.locations import SPLIT_NAMES, find_source
from minilm.data.readers import BROKEN, SHOWN, Defects, Table, read_table
from minilm.data.row_lists import read_row_list
from minilm.data.splits import hold_out, keep_rows, keep_shots, strata_of
from minilm.errors import UserError, located


@dataclass(frozen=True)
class Rows:
    """N labelled texts."""

    texts: list[str]
    pairs: list[str] | None  # each text's second text
    labels: np.ndarray  # (N,) int64 class numbers; several labels a text: (N, C) int64 of 0 and 1

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> Rows:
        """The rows of these numbers, in this order."""
        pairs = None if self.pairs is None else [self.pairs[i] for i in rows]
        return Rows([self.texts[i] for i in rows], pairs, self.labels[rows])


@dataclass(frozen=True)
class Dataset:
    """Three splits with one label set."""

    name: str
    train: Rows
    validation: Rows
    test: Rows
    label_names: list[str]  # (C,)
    multi_label: bool
    fingerprint: str  # SHA-256 of the splits' texts and labels, in order
    warnings: list[str]
    whole: dict[str, int]  # rows of each split before data.train_rows, data.shots and their like took a part of them


def load_dataset(section: DataSection) -> Dataset:
    """Read, check and split.

    Raises UserError for files or columns that are missing, and for rows that cannot be used.
    """
    source = find_source(section)
    defects, warnings = Defects(), []
    tables = {split: read_table(path, _columns(section), defects) for split, path in source.files.items()}
    for split, table in tables.items():
        if source.rows and len(table.lines) != source.rows[split]:
            warnings.append(f"{table.path}: {len(table.lines):,} rows, the catalogue says {source.rows[split]:,}")
        _require_columns(table, section, defects)

    names = label_names(section, tables["train"])
    known = "data.labels lists" if section.labels else "the training data has"
    parts = {split: _part(table, section, names, known, defects) for split, table in tables.items()}
    if len(tables) == 1 and "split" in tables["train"].columns:
        parts = _by_column(parts["train"], tables["train"], defects)
    defects.check()
    if len(tables) > 1:
        _check_column(tables)
    if not (section.labels or section.label_columns):
        check_kind(tables["train"], section.label)

    parts = _make_missing(parts, section)
    whole = {split: len(parts[split].rows) for split in SPLITS}
    parts = _subsets(parts, section, warnings)
    parts["train"] = _chosen(parts["train"], section, names, warnings)
    rows = {split: parts[split].rows for split in SPLITS}
    with located(str(source.files["train"])):
        warnings += _check_classes(rows["train"], names)
    warnings += _duplicates(parts) + _shared_groups(parts, section.group)
    return Dataset(
        source.name, rows["train"], rows["validation"], rows["test"],
        label_names=names, multi_label=bool(section.label_columns),
        fingerprint=_fingerprint(rows, names), warnings=warnings, whole=whole,
    )  # fmt: skip


def load_rows(path: Path, section: DataSection, names: Sequence[str] = ()) -> Rows:
    """Every row of one more file with the columns of ``section``, for a model that knows the labels ``names``.

    Where none are given, they are those that the section lists. Raises UserError as ``load_dataset`` does.
    """
    section, defects = replace(section, group=""), Defects()
    table = read_table(path, _columns(section), defects)
    _require_columns(table, section, defects)
    rows = _part(table, section, list(names or section.labels), "the run's model knows", defects).rows
    defects.check()
    return rows


def load_texts(path: Path, section: DataSection, place: str = "") -> list[str] | list[tuple[str, str]]:
    """The texts of one more file, or its pairs, as they are written; it needs no labels.

    They are checked as ``load_dataset`` checks them, cleaned; what reads them cleans them itself. ``place``: where the
    section's keys are given, as messages name it after a key. Raises UserError as ``load_dataset`` does.
    """
    defects, clean = Defects(), cleaner(section.clean)
    keys = {name: key + place for name, key in _text_keys(section).items()}
    table = read_table(path, set(keys), defects)
    _require(table, keys, defects)
    for name in keys:
        _texts(table, name, clean, defects)
    defects.check()
    columns = [table.columns[name] for name in keys]
    return list(zip(*columns, strict=True)) if len(columns) > 1 else columns[0]


# Rows to texts and class numbers ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Rows, where they come from, and what they are split by."""

    rows: Rows
    table: Table
    lines: np.ndarray  # (N,) of the table's file
    groups: np.ndarray | None  # (N,) the group column's values

    def take(self, rows: np.ndarray) -> Part:
        groups = None if self.groups is None else self.groups[rows]
        return Part(self.rows.take(rows), self.table, self.lines[rows], groups)

    def place(self, rows: Sequence[int]) -> str:
        """Where the first of these rows are: ``test.csv, lines 3, 8``."""
        lines = ", ".join(str(line) for line in self.lines[rows[:SHOWN]])
        unit = self.table.unit + ("s" if len(rows) > 1 else "")
        return f"{self.table.path}, {unit} {lines}{', ...' if len(rows) > SHOWN else ''}"


def _text_keys(section: DataSection) -> dict[str, str]:
    """Each text column and the config's key for it."""
    keys = {section.text: "data.text", section.text_pair: "data.text_pair"}
    return {name: key for name, key in keys.items() if name}


def _label_keys(section: DataSection) -> dict[str, str]:
    """Each label column and the config's key for it."""
    if section.label_columns:
        return dict.fromkeys(section.label_columns, "data.label_columns")
    return {section.label: "data.label"}


def _columns(section: DataSection) -> set[str]:
    named = {*_text_keys(section), section.group, *_label_keys(section)}
    return {name for name in named if name} | {"split"}


def _require_columns(table: Table, section: DataSection, defects: Defects) -> None:
    group = {section.group: "data.group"} if section.group else {}
    _require(table, {**_text_keys(section), **group, **_label_keys(section)}, defects)


def _require(table: Table, keys: dict[str, str], defects: Defects) -> None:
    for name, key in keys.items():
        if name not in table.columns:
            defects.check()  # a header in another encoding is told as such
            table.require(name, key)


def _part(table: Table, section: DataSection, names: list[str], known: str, defects: Defects) -> Part:
    clean = cleaner(section.clean)
    texts = _texts(table, section.text, clean, defects)
    pairs = _texts(table, section.text_pair, clean, defects) if section.text_pair else None
    if section.label_columns:
        labels = np.stack([bits(table, column, defects) for column in section.label_columns], axis=1)
    else:
        labels = classes(table, section, names, known, defects)
    groups = _groups(table, section.group, defects) if section.group else None
    return Part(Rows(texts, pairs, labels), table, np.array(table.lines), groups)


def _texts(table: Table, column: str, clean: Callable[[str], str], defects: Defects) -> list[str]:
    """The column's texts, cleaned and stripped."""
    texts = []
    for line, cell in zip(table.lines, table.columns[column], strict=True):
        text = clean(cell) if isinstance(cell, str) else ""
        if cell is not None and not isinstance(cell, str):
            defects.add(table.path, line, f'the text (column "{column}") is {cell!r}, not text', table.unit)
        elif not text:
            left = " once cleaned" if cell and cell.strip() else ""
            defects.add(table.path, line, f'the text (column "{column}") is empty{left}', table.unit)
        elif BROKEN.search(text):
            what = f'the text (column "{column}") contains an invalid Unicode surrogate'
            defects.add(table.path, line, what, table.unit)
        texts.append(text)
    return texts


def _groups(table: Table, column: str, defects: Defects) -> np.ndarray:
    """(N,) the column's values, as text."""
    groups = [label_text(cell) for cell in table.columns[column]]
    for line, group in zip(table.lines, groups, strict=True):
        if not group:
            defects.add(table.path, line, f'column "{column}" (data.group) is empty', table.unit)
    return np.array(groups)


# Splits -----------------------------------------------------------------------------------------------------


def _by_column(part: Part, table: Table, defects: Defects) -> dict[str, Part]:
    """The splits that the column ``split`` names."""
    rows: dict[str, list[int]] = {}
    for i, (line, cell) in enumerate(zip(table.lines, table.columns["split"], strict=True)):
        split = SPLIT_NAMES.get(label_text(cell).lower())
        if split is None:
            what = f'column "split" must be train, validation (or dev) or test, got "{label_text(cell)}"'
            defects.add(table.path, line, what, table.unit)
        else:
            rows.setdefault(split, []).append(i)
    if "train" not in rows:
        defects.check()
        raise UserError(f'{table.path}: column "split" names no row as train')
    return {split: part.take(np.array(found)) for split, found in rows.items()}


def _check_column(tables: dict[str, Table]) -> None:
    """Raises UserError where a file of one split says in its column ``split`` that a row is of another.

    A column that names no split at all is about something else.
    """
    for split, table in tables.items():
        cells = [label_text(cell) for cell in table.columns.get("split", ())]
        named = [SPLIT_NAMES.get(cell.lower()) for cell in cells]
        if not any(named):
            continue
        instead = "divide it into a file for each split"
        if "train" in named:
            instead = "give it alone (data.source)"
        elif len(set(named)) == 1:
            instead = f"give it as data.{named[0]}"
        for line, cell, name in zip(table.lines, cells, named, strict=True):
            if name != split:
                raise UserError(
                    f'{table.path}, {table.unit} {line}: column "split" says "{cell}", but the file is the '
                    f"{split} split, as others are given too; {instead}, or rename the column"
                )


def _make_missing(parts: dict[str, Part], section: DataSection) -> dict[str, Part]:
    """Make the splits not given from the training rows; both fractions are of the training rows as given."""
    parts = dict(parts)
    total = len(parts["train"].rows)
    for stream, split in enumerate(("test", "validation")):
        if split in parts:
            continue
        train = parts["train"]
        wanted: float = getattr(section, f"{split}_fraction")
        groups = train.groups
        fraction = wanted * total / len(train.rows)
        kept, out = hold_out(strata_of(train.rows.labels), fraction, (section.split_seed, stream), groups)
        if not len(out) or not len(kept):
            grouped = f' in groups of "{section.group}"' if section.group else ""
            raise UserError(
                f"{total:,} rows{grouped} are too few to make a {split} split of a fraction of "
                f"{wanted}; give the split, or change data.{split}_fraction"
            )
        parts[split], parts["train"] = train.take(out), train.take(kept)
    return parts


def _subsets(parts: dict[str, Part], section: DataSection, warnings: list[str]) -> dict[str, Part]:
    """The stratified subsets that ``data.train_rows`` and its like ask for; all, warning, where too few."""
    subsets = {}
    for stream, split in enumerate(SPLITS, start=2):
        part, count = parts[split], getattr(section, f"{split}_rows")
        if count > len(part.rows):
            warnings.append(f"data.{split}_rows asks for {count:,} rows, the {split} split has {len(part.rows):,}")
        elif count:
            part = part.take(keep_rows(strata_of(part.rows.labels), count, (section.split_seed, stream)))
        subsets[split] = part
    return subsets


def _chosen(part: Part, section: DataSection, names: list[str], warnings: list[str]) -> Part:
    """The training rows that ``data.shots`` or ``data.rows`` leaves."""
    if section.rows:
        numbers, given = read_row_list(Path(section.rows), part.rows.labels, names)
        part = part.take(numbers)
        return replace(part, rows=replace(part.rows, labels=given))
    if section.shots:
        strata = strata_of(part.rows.labels)
        rare = [int(c) for c, n in zip(*np.unique(strata, return_counts=True), strict=True) if n < section.shots]
        if rare:
            rarest = ", ".join(names[c] if c >= 0 else "no label" for c in rare)
            warnings.append(f"data.shots asks for {section.shots:,} rows of each class, there are fewer of {rarest}")
        part = part.take(keep_shots(strata, section.shots, (section.split_seed, 5)))
    return part


# Checks across rows -----------------------------------------------------------------------------------------


def _check_classes(train: Rows, names: list[str]) -> list[str]:
    """Warn of classes without a training row. Raises UserError where all rows have one label."""
    several = train.labels.ndim == 2
    counts = train.labels.sum(axis=0) if several else np.bincount(train.labels, minlength=len(names))
    if not several and np.count_nonzero(counts) == 1:
        raise UserError(
            f'all {len(train):,} training rows have the label "{names[counts.argmax()]}"; '
            "a classifier needs two labels or more"
        )
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    warnings = [f"no training row has the label {', '.join(absent)}"] if absent else []
    if several and (none := int((train.labels.sum(axis=1) == 0).sum())):
        warnings.append(f"{none:,} of {len(train):,} training rows have none of the labels, which is an answer too")
    return warnings


def _duplicates(parts: dict[str, Part]) -> list[str]:
    """Warn of texts that are in two splits, and of equal training texts with unequal labels."""
    keys = {s: list(zip(p.rows.texts, p.rows.pairs or [""] * len(p.rows), strict=True)) for s, p in parts.items()}
    seen = {split: set(found) for split, found in keys.items()}
    warnings = []
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if rows := [i for i, key in enumerate(keys[second]) if key in seen[first]]:
            warnings.append(
                f"{len(rows):,} of {len(keys[second]):,} {second} texts are also in the {first} split, so scores there "
                f"flatter the model: {parts[second].place(rows)}"
            )
    labels: dict[tuple[str, str], set[bytes]] = {}
    for key, label in zip(keys["train"], parts["train"].rows.labels, strict=True):
        labels.setdefault(key, set()).add(label.tobytes())
    if rows := [i for i, key in enumerate(keys["train"]) if len(labels[key]) > 1]:
        where = parts["train"].place(rows)
        warnings.append(f"{len(rows):,} training rows have a text that another has with another label: {where}")
    return warnings


def _shared_groups(parts: dict[str, Part], column: str) -> list[str]:
    """Warn of groups with rows in both the training split and another, which only given splits can have."""
    if not column:
        return []
    groups = {split: set(part.groups.tolist()) for split, part in parts.items() if part.groups is not None}
    shared = {split: len(groups["train"] & groups[split]) for split in ("validation", "test")}
    return [
        f'{number:,} values of "{column}" have rows in both the train and the {split} split'
        for split, number in shared.items()
        if number
    ]


def _fingerprint(rows: dict[str, Rows], names: Sequence[str]) -> str:
    """SHA-256, in hexadecimal, of the texts and labels in order; the files they came from do not matter."""
    digest = hashlib.sha256(json.dumps(list(names)).encode())
    for split in SPLITS:
        part = rows[split]
        digest.update(json.dumps([split, part.texts, part.pairs, part.labels.tolist()]).encode())
    return digest.hexdigest()
