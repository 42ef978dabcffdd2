"""Texts without labels, for further pretraining: where they come from, and which of them are kept.

They come from a text file with one text per line, from text columns of a table, or from a labelled data set, whose
labels are ignored.

A repeated text is kept once: if both copies were in one block, one would reveal the tokens that are hidden in the
other. Texts that the model will be evaluated on are dropped.
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
    """All texts of labelled rows. The second texts of pairs count as separate texts, and follow the first ones."""
    return [text for rows in parts for text in (*rows.texts, *(rows.pairs or ()))]


def distinct(texts: Sequence[str], without: Collection[str] = ()) -> list[str]:
    """Each text once, in order, except empty texts and those in ``without``."""
    left_out = {"", *without}
    return [text for text in dict.fromkeys(texts) if text not in left_out]


def read_texts(path: Path, columns: Sequence[str], clean: Callable[[str], str]) -> list[str]:
    """The cleaned texts of a file: the lines of a .txt file, or all cells of a table's ``columns``.

    Raises UserError if the file or the first column is missing, or if a cell is not text.
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
        raise UserError(f"{path}: unknown format; the file name must end in .txt, {', '.join(FORMATS)}")
    defects = Defects()
    table = read_table(path, set(columns), defects)
    require_columns(table, {columns[0]: "data.text"}, defects)
    texts = []
    for name in columns:
        for row, cell in enumerate(table.columns.get(name, ())):
            if isinstance(cell, str):
                texts.append(cell)
            else:
                defects.add(table.origin(row), f'column "{name}" contains no text')
    defects.check()
    return texts
