"""Warnings about data that can be trained on, but make a result less reliable or are probably a mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from minilm.callers import changes
from minilm.data.rows import Part
from minilm.data.splits import number_texts
from minilm.errors import UserError, shortened

NAMED = 10  # the most labels that a message names
DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([T ].*)?")
MANY_LABELS, FEW_ROWS = 20, 5  # warn if there are this many labels with fewer training rows per label on average


def class_counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """(C,) the number of rows with each label. labels: (N,), or (N, C) of 0 and 1."""
    return labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)


def check_labels(labels: Mapping[str, np.ndarray], names: Sequence[str], column: str) -> list[str]:
    """Warnings about the labels of the splits, each (N,) or (N, C).

    Raises UserError if all training rows have one label.
    """
    train = labels["train"]
    several = train.ndim == 2
    counts = class_counts(train, len(names))
    if not several and np.count_nonzero(counts) == 1:
        raise UserError(
            f'all {len(train):,} training rows have the label "{names[int(counts.argmax())]}"; '
            "a classifier needs two labels or more"
        )
    warnings = _spellings(names, counts) + _dates(names, column)
    if absent := [name for name, count in zip(names, counts, strict=True) if not count]:
        warnings.append(f"no training row has the label {named(absent)}")
    if once := [name for name, count in zip(names, counts, strict=True) if count == 1]:
        is_one = f"the label {once[0]} has" if len(once) == 1 else f"{len(once):,} labels have"
        warnings.append(
            f"{is_one} only one training row{'' if len(once) == 1 else f': {named(once)}'}, too little to learn "
            "from; merge labels with data.rename, or drop them with data.labels and data.other=drop"
        )
    if len(names) >= MANY_LABELS and (rows := len(train) / len(names)) < FEW_ROWS:
        warnings.append(f"{len(train):,} training rows are few for {len(names):,} labels: {rows:.1f} rows per label")
    if several and (none := int((train.sum(axis=1) == 0).sum())):
        warnings.append(f"{none:,} of {len(train):,} training rows have none of the labels, which is allowed")
    return warnings + _measured(labels, names)


def named(names: Sequence[str]) -> str:
    """The names as a list in words; if there are many, the first ones and how many more there are."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(map(shortened, names[:NAMED])) + more


def _spellings(names: Sequence[str], counts: np.ndarray) -> list[str]:
    """A warning about labels that differ only in case, spaces and hyphens."""
    alike: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        alike.setdefault(re.sub(r"[\s_-]+", " ", name).strip().casefold(), []).append(i)
    groups = [sorted(group, key=lambda i: -counts[i]) for group in alike.values() if len(group) > 1]
    if not groups:
        return []
    shown = "; ".join(", ".join(f'"{names[i]}" ({counts[i]:,})' for i in group) for group in groups[:3])
    pairs = [(names[i], names[group[0]]) for group in groups[:3] for i in group[1:]]
    table = ", ".join(f"{_toml(old)} = {_toml(new)}" for old, new in pairs)
    remedy = changes({"data.rename": f"{{ {table} }}"})
    return [f"these labels differ only in spelling and count as different labels: {shown}; to merge them: {remedy}"]


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _dates(names: Sequence[str], column: str) -> list[str]:
    if sum(DATE.fullmatch(name) is not None for name in names) * 2 <= len(names):
        return []
    which = f'is "{column}" the right column? If not, name the right one in data.label'
    return [f"the labels look like dates, such as {names[0]}: {which}"]


def _measured(labels: Mapping[str, np.ndarray], names: Sequence[str]) -> list[str]:
    """Warnings about splits on which metrics mean little: all rows have one class, or some class has no row."""
    warnings = []
    for split in ("validation", "test"):
        rows = labels[split]
        if not len(rows) or rows.ndim == 2:
            continue
        counts = np.bincount(rows, minlength=len(names))
        seen = np.count_nonzero(counts)
        learned = np.bincount(labels["train"], minlength=len(names)) > 0
        if seen == 1:
            warnings.append(
                f"all {len(rows):,} {split} texts have the label {names[int(counts.argmax())]}, so metrics on this "
                f"split mean nothing: give more rows, or raise data.{split}_fraction"
            )
        elif missing := [names[i] for i in np.flatnonzero(learned & (counts == 0)).tolist()]:
            warnings.append(f"no {split} text has the label {named(missing)}, so it cannot be evaluated there")
    return warnings


# Across splits -----------------------------------------------------------------------------------------------


def check_equal_texts(parts: Mapping[str, Part], made: Sequence[str]) -> list[str]:
    """Warnings about texts that are in two splits, and about equal training texts with different labels.

    made: the splits that minilm made itself, which share texts only if that cannot be avoided.
    """
    splits = [split for split in ("train", "validation", "test") if len(parts[split].rows)]
    rows = {split: parts[split].rows for split in splits}
    texts = [text for split in splits for text in rows[split].texts]
    pairs = None if rows["train"].pairs is None else [pair for split in splits for pair in rows[split].pairs or ()]
    ends = np.cumsum([len(rows[split]) for split in splits])
    numbers = dict(zip(splits, np.split(number_texts(texts, pairs), ends[:-1]), strict=True))
    warnings = []
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if first not in splits or second not in splits:
            continue
        shared = np.flatnonzero(np.isin(numbers[second], numbers[first])).tolist()
        if shared:
            given = first not in made and second not in made
            remedy = "remove them from one file, or give all rows in one file (data.source), which minilm splits itself"
            warnings.append(
                f"{len(shared):,} of {len(rows[second]):,} {second} texts are also in the {first} split, so {second} "
                f"scores are too high: {parts[second].place(shared)}{f'; {remedy}' if given else ''}"
            )
    if contradicted := _contradicted(numbers["train"], rows["train"].labels):
        where = parts["train"].place(contradicted)
        warnings.append(f"{len(contradicted):,} training rows share a text with a row of a different label: {where}")
    return warnings


def _contradicted(numbers: np.ndarray, labels: np.ndarray) -> list[int]:
    """The rows whose text another row has with a different label.

    numbers: (N,) equal for equal texts. labels: (N,), or (N, C).
    """
    _, members, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(counts[members] > 1)
    if not len(repeated):
        return []
    _, kinds = np.unique(labels[repeated], axis=0, return_inverse=True)
    answers = np.unique(np.stack([numbers[repeated], kinds.reshape(-1)]), axis=1)[0]  # a text's number, once per label
    several = np.unique(answers[1:][answers[1:] == answers[:-1]])
    found: list[int] = repeated[np.isin(numbers[repeated], several)].tolist()
    return found


def check_shared_groups(parts: Mapping[str, Part], column: str) -> list[str]:
    """Warnings about groups with rows in both the training split and another; only splits from files can have these."""
    if not column:
        return []
    groups = {split: set(part.groups.tolist()) for split, part in parts.items() if part.groups is not None}
    shared = {split: len(groups["train"] & groups[split]) for split in ("validation", "test")}
    return [
        f'{number:,} values of "{column}" have rows in both the train and the {split} split'
        for split, number in shared.items()
        if number
    ]
