"""Texts without labels, to learn a language from: where they come from, and which of them are kept.

    a text file, a line each; or a table's column of texts; or the texts of a labelled set, their labels left aside

A text that is there twice is kept once: a copy in the same block would give away what is hidden in the other. And none
is kept that the model will be measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from minilm.data.columns import require_columns
from minilm.data.readers import FORMATS, is_table, like_it, read_table
from minilm.data.rows import Rows
from minilm.data.tables import Defects
from minilm.errors import UserError


def texts_of(*parts: Rows) -> list[str]:
    """All texts of labelled rows; second texts are texts of their own, after all first ones of their part."""
    return [text for rows in parts for text in (*rows.texts, *(rows.pairs or ()))]


def distinct(texts: Sequence[str], without: Collection[str] = ()) -> list[str]:
    """Each text once, in order; empty ones and those in ``without`` left out."""
    left_out = {"", *without}
    return [text for text in dict.fromkeys(texts) if text not in left_out]


def read_texts(path: Path, columns: Sequence[str], clean: Callable[[str], str]) -> list[str]:
    """The texts of a file, cleaned: of a .txt a line each, of a table all cells of its ``columns``, the first required.

    Raises UserError if the file or the column is missing, or what it holds is no text.
    """
    if path.suffix.lower() != ".txt":
        return [clean(text) for text in _read_columns(path, columns)]
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        hint = like_it(path, (".txt", *FORMATS)) if isinstance(error, FileNotFoundError) else ""
        raise UserError(f"{path}: cannot be read: {error.strerror}{hint}") from None
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            texts.append(clean(line.decode()))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x})") from None
    return texts


def _read_columns(path: Path, columns: Sequence[str]) -> list[str]:
    if not is_table(path):
        raise UserError(f"{path}: not a known format; the endings known are .txt, {', '.join(FORMATS)}")
    defects = Defects()
    table = read_table(path, set(columns), defects)
    require_columns(table, {columns[0]: "data.text"}, defects)
    texts = []
    for name in columns:
        for row, cell in enumerate(table.columns.get(name, ())):
            if isinstance(cell, str):
                texts.append(cell)
            else:
                defects.add(table.origin(row), f'column "{name}" holds no text')
    defects.check()
    return texts
