"""Match the labels of a file with the classes of a classifier that was trained elsewhere.

    by name      positive = positive; also Positive, and not_spam = "not spam", if classes remain distinct
    by number    1, 1.0, LABEL_1 = the second class, if the names of the classes contain no numbers

All labels of a file are matched in the same way. A label that cannot be matched is an error, as a wrong guess would
give wrong metrics.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from minilm.data.labels import WHOLE, LabelScheme
from minilm.errors import UserError

PLACE = re.compile(r"(?:label[ _-]?)?(0|[1-9][0-9]*)", re.IGNORECASE)  # of a class without a name: LABEL_0, 0
SHOWN = 10  # labels that a message names


def match_labels(written: Sequence[str], classes: Sequence[str]) -> dict[str, str]:
    """The class of each label: label as written -> class name, without labels that match no class.

    Labels are matched by number only if all of them are numbers and not all are names.
    """
    by_name = _by_name(written, classes)
    if len(by_name) == len(written):
        return by_name
    return _by_number(written, classes) or by_name


def _by_name(written: Sequence[str], classes: Sequence[str]) -> dict[str, str]:
    if set(written) <= set(classes):
        return {label: label for label in written}
    bare = {_bare(name): name for name in classes}
    if len(bare) < len(classes) or len(set(map(_bare, written))) < len(written):
        return {label: label for label in written if label in classes}
    return {label: bare[_bare(label)] for label in written if _bare(label) in bare}


def _by_number(written: Sequence[str], classes: Sequence[str]) -> dict[str, str]:
    """Match by the indices of the classes; {} unless every label is an index."""
    unnamed = [_place(name) for name in classes] == list(range(len(classes)))
    if not unnamed and any(re.search(r"\d", name) for name in classes):  # "1 star" is not the second of five
        return {}
    places = {label: _place(label) for label in written}
    found = {label: classes[place] for label, place in places.items() if 0 <= place < len(classes)}
    return found if len(found) == len(written) else {}


def _place(label: str) -> int:
    """The index that a label states; -1 if it states none."""
    whole = WHOLE.fullmatch(label)
    match = PLACE.fullmatch(whole[1] if whole else label)
    return int(match[1]) if match else -1


def _bare(name: str) -> str:
    """A name in lower case, without the characters between its words."""
    return re.sub(r"[\s_-]", "", name.casefold())


def match_scheme(scheme: LabelScheme, classes: Sequence[str], where: str) -> LabelScheme:
    """The scheme that reads a file's labels as the classes. ``scheme``: with the names that were found in the file.

    Raises UserError for a label that matches no class, unless ``other`` drops it; and, with several labels per text,
    for a class without a column. ``where``: the file.
    """
    if scheme.multi_hot:
        if len(scheme.names) != len(classes):
            counts = f"lists of {len(scheme.names)} numbers, and the model has {len(classes)} labels"
            raise UserError(f"{where}: its labels are {counts}: {_shown(classes)}")
        return replace(scheme, names=list(classes))
    found = match_labels(scheme.names, classes)
    unmatched = [label for label in scheme.names if label not in found]
    if unmatched and (scheme.other == "error" or not found):
        example = f'data.rename={{"{unmatched[0]}"="{classes[0]}"}}'
        raise UserError(
            f"{where}: its labels {_shown(unmatched)} are none of the model's: {_shown(classes)}; map them to these, "
            f"such as {example}, or list the file's names of the model's labels, in the model's order (data.labels)"
        )
    if not scheme.columns:
        return replace(scheme, names=list(classes), rename=_renamed(scheme, found))
    columns = {found[name]: column for name, column in zip(scheme.names, scheme.columns, strict=True) if name in found}
    if missing := [name for name in classes if name not in columns]:
        raise UserError(f"{where}: no column of data.label_columns is the model's label {_shown(missing)}")
    return replace(scheme, names=list(classes), columns=[columns[name] for name in classes])


def _renamed(scheme: LabelScheme, found: dict[str, str]) -> dict[str, str]:
    """The mapping from labels as written to classes."""
    known = {cell: found[name] for cell, name in scheme.rename.items() if name in found}
    return {**found, **known}


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
