"""Keep labelled texts that are in memory as a file beside the runs, so that a run can be repeated and resumed.

    runs/.data/texts-3fa81c20b6.jsonl    one JSON object per line

The name contains a hash of the content, so that the same texts are one file, and other texts never replace them. The
config of a run names the file by its absolute path, as the run may be resumed from another folder.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from minilm.atomic import atomic
from minilm.data.in_memory import KEPT_FOLDER, Columns
from minilm.data.row_stream import Row
from minilm.data.row_writers import JSONWriter
from minilm.data.tables import RowOrigin
from minilm.errors import UserError

CHUNK = 10_000  # rows that are written together


def keep_data(data: Columns, runs: Path) -> Path:
    """Write the rows into the folder of all runs, unless they are there; return the absolute path of the file.

    Raises UserError if the file cannot be written.
    """
    digest = hashlib.sha256()
    for block in _blocks(data):
        digest.update(block)
    path = runs.resolve() / KEPT_FOLDER / f"{data.name}-{digest.hexdigest()[:10]}.jsonl"
    if path.is_file():
        return path
    try:
        with atomic(path) as file:
            for block in _blocks(data):
                file.write(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another folder: runs=...") from error
    return path


def _blocks(data: Columns) -> Iterator[bytes]:
    """The content of the file, in pieces."""
    names, origin = list(data.columns), RowOrigin(data.name, 0)
    writer, rows = JSONWriter(names, {}), zip(*data.columns.values(), strict=True)
    while chunk := [Row(origin, names, cells) for cells in itertools.islice(rows, CHUNK)]:
        yield writer.block(chunk, [()] * len(chunk))
