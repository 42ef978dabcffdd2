"""``minilm init FILE``: a commented config for a table, whose columns and labels are guessed from its contents.

    file -> its columns (``data/columns.py``) -> its labels -> the settings of a recipe -> TOML with comments

The guesses are those that messages about missing columns show. The file that is written is a config like any other:
what was guessed wrongly is corrected in it, or by the options.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minilm.atomic import atomic
from minilm.config import SPLITS, DataSection, RunConfig
from minilm.data.columns import guess_columns, has_no_header
from minilm.data.decoding import STDIN
from minilm.data.delimited import Format
from minilm.data.label_sets import guess_separator, split_cell
from minilm.data.labels import check_kind, find_labels, label_text
from minilm.data.locations import SPLIT_NAMES
from minilm.data.readers import read_table
from minilm.data.sources import SPLIT, format_of, scheme_of
from minilm.data.tables import Defects, Table
from minilm.errors import UserError, nearest, shortened
from minilm.hints import program, quoted
from minilm.hub import list_models
from minilm.loading import load_config
from minilm.runs.finetune import FEW_TEXTS, OTHER_DATA, recipe_of
from minilm.schema import override, shown
from minilm.textfiles import read_toml

MEANINGS = {  # of the keys that recipes have
    "source": "`minilm models` lists others; a folder or a Hub id is possible too",
    "kind": '"mlp": minilm\'s own; "family": the one that transformers can load; it has no other keys in this section',
    "pooling": "how the vectors of a text's tokens become one",
    "max_tokens": 'longer texts are cut; long_texts = "windows" reads all of them',
    "epochs": "passes over the training texts, at least; with few texts min_steps asks for more",
    "batch_size": "texts in a step",
    "lr": "the learning rate: try half and twice as much",
    "schedule": "of the learning rate",
    "warmup": "the fraction of the steps in which the rate rises",
    "weight_decay": "pulls weights towards 0",
    "best": "the metric on the validation texts that chooses the epoch",
    "patience": "evaluations without an improvement before training stops",
    "evaluate_every": "steps",
    "min_steps": "few texts are trained for more epochs, until there are so many steps; 0: exactly epochs",
    "decision_threshold": "if a text has several labels: the probability of a label; \"auto\": chosen on validation",
    "rank": "of the LoRA adapters, the only weights that train besides the head",
}
OWN = re.compile(r"(train_rows|validation_rows|test_rows|clean|source|text|text_pair|label\w*)")  # of a recipe's data
SHOWN = 8  # labels


@dataclass(frozen=True)
class FirstLook:
    """What a table seems to contain."""

    section: DataSection  # with the columns
    rows: int  # with a text and a label
    labels: dict[str, int]  # label -> rows
    unfit: int  # the other rows
    splits: dict[str, int]  # split -> rows, if a column decides the splits; {}: they will be made
    unused: list[str]  # columns
    notes: list[str]  # guesses about the file's format


def look_at(path: Path, text: str = "", label: str = "") -> FirstLook:
    """Read a table, and guess its columns unless they are given.

    Raises UserError if it cannot be read, or if its columns cannot be guessed.
    """
    if path == STDIN:
        raise UserError("init needs a file, as training will read it too")
    table = _read(path, set(), Format())
    header = not has_no_header(table)
    if not header:
        table = _read(path, set(), Format(header=False))
    for option, name in (("--text", text), ("--label", label)):
        if name and name not in table.names:
            raise UserError(f'{option}: {path}: no column "{name}"{nearest(name, table.names)}; {_columns(table)}')
    guessed = guess_columns(table, taken=[name for name in (text, label) if name])
    text, label = text or guessed[0], label or guessed[1]
    if not text or not label:
        what, option = ("reads as texts", "--text") if not text else ("looks like labels", "--label")
        raise UserError(f"{path}: no column {what}; {_columns(table)}; name it: {option} COLUMN")
    section = DataSection(source=str(path), text=text, label=label, header=header)
    table = _read(path, {text, label, SPLIT}, format_of(section))
    section, labels, fit = _labels(table, section)
    splits = {} if SPLIT in (text, label) else _splits(table, fit)
    if SPLIT in table.names and not splits:
        section = replace(section, split_column="")
    used = (text, label, *([SPLIT] if splits else []))
    unused = [name for name in table.names if name not in used]
    return FirstLook(section, len(fit), labels, len(table) - len(fit), splits, unused, table.notes)


def _splits(table: Table, fit: Sequence[int]) -> dict[str, int]:
    """How many fit rows of each split the column of that name has; {} if it does not name a split in each of them."""
    cells = table.columns.get(SPLIT)
    found = Counter(SPLIT_NAMES.get(label_text(cells[row]).lower(), "") for row in fit) if cells else Counter[str]()
    return {split: found[split] for split in SPLITS if found[split]} if "train" in found and "" not in found else {}


def _read(path: Path, wanted: set[str], how: Format) -> Table:
    defects = Defects()
    table = read_table(path, wanted, defects, how)
    defects.check()
    return table


def _columns(table: Table) -> str:
    return "its columns are " + ", ".join(f'"{name}"' for name in table.names[:30])


def _labels(table: Table, section: DataSection) -> tuple[DataSection, dict[str, int], list[int]]:
    """The section, with a separator if cells contain several labels, and with ``empty = "skip"`` if rows have no text
    or no label; the labels with their numbers of rows; and the rows with both."""
    cells = table.columns[section.label]
    names = sorted({label_text(cell) for cell in cells if not isinstance(cell, list)} - {""})
    _, separator = guess_separator(cells, names)
    if separator:
        section = replace(section, label_separator=separator)
    else:
        check_kind(table, section.label)
    # With several labels per text, an empty cell is no gap: the text has none of the labels.
    pairs = enumerate(zip(table.columns[section.text], cells, strict=True))
    fit = [row for row, (text, cell) in pairs if label_text(text) and (separator or label_text(cell))]
    if len(fit) < len(table):
        section = replace(section, empty="skip")
    scheme = find_labels(scheme_of(section), table)
    if scheme.multi_hot:
        return section, dict.fromkeys(scheme.names, 0), fit
    each = (split_cell(cells[row], separator) if separator else [cells[row]] for row in fit)
    counts = Counter(name for items in each for name in set(map(label_text, items)))
    return section, {name: counts[name] for name in scheme.names}, fit


def write_config(look: FirstLook, out: Path, model: str) -> None:
    """Write a config with the settings of a model's recipe. Raises UserError if the file exists."""
    if out.exists():
        raise UserError(f"{out}: exists already; give another file with --out")
    text = config_text(look, out, read_toml(recipe_of(model)), model)
    with atomic(out) as file:
        file.write(text.encode())
    load_config(out)  # a config that is not valid would be a bug


def config_text(look: FirstLook, out: Path, recipe: Mapping[str, Any], model: str) -> str:
    """The config as TOML, with a comment for each key."""
    section = look.section
    name = re.sub(r"[^\w.-]+", "-", out.stem).strip("-.")[:100] or "mine"
    data = {
        "source": (section.source, f"{look.rows:,} rows; {_held_out(look)}"),
        **({} if section.header else {"header": (False, "the first row is data; columns are numbers")}),
        "text": (section.text, "the column with the texts"),
        "label": (section.label, labels_in_words(look)),
    }
    if look.unfit:
        data["empty"] = (section.empty, f"{_unfit(look.unfit)}; \"error\" would stop at them")
    if look.splits:
        data["split_column"] = (SPLIT, f'the column that decides the splits: {_splits_in_words(look)}; "" ignores it')
    elif not section.split_column:
        data["split_column"] = ("", f'the column "{SPLIT}" does not name the splits')
    if section.label_separator:
        data["label_separator"] = (section.label_separator, "a text may have several labels")
    data |= {key: (value, MEANINGS.get(key, "")) for key, value in recipe["data"].items() if not OWN.fullmatch(key)}
    lines = [f"# Trains {model} on {shortened(section.source)}: {program()} train {quoted(str(out))}"]
    lines += ["# docs/config.md describes every key.", f"name = {shown(name)}  # the results are in runs/{name}/"]
    for title, table in recipe.items():
        if title == "data":
            lines += _section("data", data)
        elif isinstance(table, dict):
            own = _for_other_data(title, table)
            lines += _section(title, {key: (value, MEANINGS.get(key, "")) for key, value in own.items()})
    return "\n".join(lines) + "\n"


def _held_out(look: FirstLook) -> str:
    """Which texts will be held out."""
    held_out = [split for split in ("validation", "test") if split not in look.splits]
    made = f"{' and '.join(held_out)} texts are held out of {'the training rows' if look.splits else 'them'}"
    return made if held_out else "validation and test texts are among them"


def _splits_in_words(look: FirstLook) -> str:
    return ", ".join(f"{number:,} {split}" for split, number in look.splits.items())


def _for_other_data(title: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """A section of a recipe, with the changes that ``minilm finetune --data`` makes too."""
    changed: dict[str, Any] = {}
    for change in (*OTHER_DATA, FEW_TEXTS):
        override(RunConfig, changed, change)
    return dict(table) | changed.get(title, {})


def _section(title: str, keys: Mapping[str, tuple[Any, str]]) -> list[str]:
    """The lines of a section; the sections in it follow."""
    settings = {f"{key} = {shown(value)}": about for key, (value, about) in keys.items() if not isinstance(value, dict)}
    width = max((len(setting) for setting in settings if len(setting) < 40), default=0)
    lines = ["", f"[{title}]"]
    lines += [f"{setting:<{width}}  # {about}" if about else setting for setting, about in settings.items()]
    for key, (value, _) in keys.items():
        if isinstance(value, dict):
            lines += _section(f"{title}.{key}", {k: (v, MEANINGS.get(k, "")) for k, v in value.items()})
    return lines


def labels_in_words(look: FirstLook) -> str:
    """The labels and their numbers of rows, in one line."""
    several = bool(look.section.label_separator)
    found = [f"{shortened(name)} ({count:,})" if count else shortened(name) for name, count in look.labels.items()]
    more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    kind = "labels, several per text" if several else "labels"
    return f"{len(found):,} {kind}: {', '.join(found[:SHOWN])}{more}"


def _unfit(rows: int) -> str:
    return "1 row has no text or label" if rows == 1 else f"{rows:,} rows have no text or label"


def describe_look(look: FirstLook) -> list[str]:
    """The guesses, in lines for the terminal."""
    section = look.section
    lines = [f"{section.source}: {look.rows:,} rows", *(f"  {note}" for note in look.notes)]
    if look.unfit:
        lines.append(f"  {_unfit(look.unfit)}: left out (data.empty)")
    if not section.header:
        lines.append("  the first line looks like data, so columns are numbers (data.header)")
    lines += [f'  text:  column "{section.text}"', f'  label: column "{section.label}", {labels_in_words(look)}']
    if look.splits:
        lines.append(f'  splits: column "{SPLIT}", {_splits_in_words(look)} ({_held_out(look)})')
    if look.unused:
        lines.append(f"  not used: {', '.join(map(shortened, look.unused))}")
    return lines


def next_commands(out: Path, model: str) -> list[str]:
    """The commands that train with the config: first the download, if the model is not on this machine."""
    missing = any(entry.name == model and not entry.here for entry in list_models())
    download = [f"{program()} download {model}"] if missing else []
    return [*download, f"{program()} train {quoted(str(out))}"]
