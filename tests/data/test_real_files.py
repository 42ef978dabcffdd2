"""Ten kinds of files as people publish them, with invented rows: the first command works, or its message names the one
that does."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from minilm.data.sources import Dataset, load_dataset
from minilm.errors import UserError
from minilm.loading import load_config
from tests.tiny import write_config

WORDS = ["good", "fine", "great", "lovely", "bad", "poor", "awful", "dull"]


def text(i: int) -> str:
    return f"a {WORDS[i % 8]} thing, number {i}"


def spam(folder: Path) -> str:
    """No header, tabs, lone quote marks, and no ending."""
    marks = ['"', *[""] * 6]
    rows = [f"{'spam' if i % 8 > 3 else 'ham'}\t{marks[i % 7]}{text(i)}" for i in range(80)]
    (folder / "SMSSpamCollection").write_text("\n".join(rows))
    return f"data.source={folder / 'SMSSpamCollection'}"


def latin(folder: Path) -> str:
    """An encoding of Windows, and empty columns at the end, as a spreadsheet leaves them."""
    lines = ["v1,v2,,,", *(f'{("ham", "spam")[i % 8 // 4]},"win £{i} {text(i)}",,,' for i in range(80))]
    (folder / "spam.csv").write_bytes("\r\n".join(lines).encode("cp1252"))
    return f"data.source={folder / 'spam.csv'}"


def polish_pairs(folder: Path) -> str:
    """Quoted TSV, as pandas writes it."""
    lines = ["zdanie_A\tzdanie_B\trelacja"]
    for i in range(80):
        first = f'"Powiedział ""{WORDS[i % 8]}"" i wyszedł nr {i}"' if i % 3 == 0 else f"Źle i dobrze nr {i}"
        lines.append(f"{first}\tKtoś coś powiedział, {text(i)}\t{('tak', 'nie', 'może')[i % 3]}")
    (folder / "pary.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"data.source={folder / 'pary.tsv'} data.text_pair=zdanie_B"


def emotions(folder: Path) -> str:
    """No header, several labels a text as numbers between commas, and an id."""
    labels = ["8", "20", "8,20", "3", "3,8"]
    lines = [f"{text(i)}\t{labels[i % 5]}\teew5j{i:02d}" for i in range(80)]
    (folder / "train.tsv").write_text("\n".join(lines))
    return f"data.source= data.train={folder / 'train.tsv'}"


def two_files(folder: Path) -> str:
    """The texts in one file and the labels in another."""
    (folder / "train_text.txt").write_text("".join(f"{text(i)}\n" for i in range(80)))
    (folder / "train_labels.txt").write_text("".join(f"{i % 8 // 4}\n" for i in range(80)))
    return f"data.source={folder / 'train_text.txt'}"


def nested_json(folder: Path) -> str:
    """Rows in a list within an object, and their columns in objects within them."""
    rows = [{"id": i, "review": {"body": text(i)}, "meta": {"stars": 1 + i % 8 // 4}} for i in range(80)]
    (folder / "reviews.json").write_text(json.dumps({"version": "1.1", "data": rows}, indent=2))
    return f"data.source={folder / 'reviews.json'}"


def ratings(folder: Path) -> str:
    """Whole numbers with decimals, semicolons, and a mark that says UTF-16."""
    lines = ["review;rating", *(f"{text(i)};{1 + i % 4}.0" for i in range(80))]
    (folder / "ratings.csv").write_text("\n".join(lines), encoding="utf-16")
    return f"data.source={folder / 'ratings.csv'}"


def index_column(folder: Path) -> str:
    """An index without a name, and words in place of the usual columns' names."""
    lines = [",Phrase,Sentiment", *(f'{i},"{text(i)}",{i % 8 // 4}' for i in range(80))]
    (folder / "train.csv").write_text("\n".join(lines))
    return f"data.source={folder}"


def line_breaks(folder: Path) -> str:
    """Line breaks and commas in quoted fields."""
    lines = ["label,text", *(f'{("pos", "neg")[i % 8 // 4]},"{text(i)},\n\nand ""more"""' for i in range(80))]
    (folder / "breaks.csv").write_text("\n".join(lines))
    return f"data.source={folder / 'breaks.csv'}"


def header_twice(folder: Path) -> str:
    """Two files that were joined."""
    lines = ["text,label", *(f'"{text(i)}",{i % 8 // 4}' for i in range(40))]
    (folder / "joined.csv").write_text("\n".join([*lines, *lines[:1], *(line + "9" for line in lines[1:])]))
    return f"data.source={folder / 'joined.csv'}"


def load(folder: Path, changes: list[str]) -> Dataset:
    config = folder / "config" / "tiny.toml"
    if not config.exists():
        config.parent.mkdir()
        write_config(config.parent)
    return load_dataset(load_config(config, changes).data)


def follow(folder: Path, changes: list[str], most: int) -> tuple[Dataset, list[str]]:
    """What loading gives, after doing what each message says; and the messages."""
    messages: list[str] = []
    while True:
        try:
            return load(folder, changes), messages
        except UserError as error:
            messages.append(str(error))
            assert len(messages) <= most, messages
        for command in re.findall(r"(?:paste|sed -i) .*?(?=, then|$)", messages[-1]):
            subprocess.run(command, shell=True, check=True)
        new = [word.rstrip(";") for word in shlex.split(messages[-1]) if re.match(r"data\.\w+=", word)]
        if "data.encoding=cp1252" in new:  # of two that the message shows, the one that reads right
            new = ["data.encoding=cp1252"]
        changes = [*changes, *(change for change in new if not change.endswith("windows"))]


@pytest.mark.parametrize(
    ("kind", "messages", "check"),
    [
        (spam, 1, lambda d: d.label_names == ["ham", "spam"] and any(t.startswith('"') for t in d.train.texts)),
        (latin, 2, lambda d: d.label_names == ["ham", "spam"] and "win £" in d.train.texts[0]),
        (polish_pairs, 1, lambda d: d.label_names == ["może", "nie", "tak"] and '""' not in "".join(d.train.texts)),
        (emotions, 2, lambda d: d.multi_label and d.label_names == ["3", "8", "20"]),
        (two_files, 1, lambda d: d.label_names == ["0", "1"]),
        (nested_json, 1, lambda d: d.label_names == ["1", "2"]),
        (ratings, 1, lambda d: d.label_names == ["1.0", "2.0", "3.0", "4.0"] and d.notes),
        (index_column, 1, lambda d: d.label_names == ["0", "1"]),
        (line_breaks, 0, lambda d: d.train.texts[0].endswith(',\n\nand "more"')),
        (header_twice, 1, lambda d: d.label_names == ["0", "09", "1", "19"] or len(d.label_names) == 4),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
def test_a_file_as_people_publish_it_is_read_at_once_or_as_its_message_says(
    tmp_path: Path, kind: Callable[[Path], str], messages: int, check: Callable[[Dataset], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    found, said = follow(tmp_path, kind(tmp_path).split(), messages)
    assert len(said) == messages, said
    assert sum(map(len, (found.train, found.validation, found.test))) == 80
    assert check(found), (found.label_names, found.train.texts[:3], said)
