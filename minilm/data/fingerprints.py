"""A fingerprint of labelled texts, by which a run knows whether its data have changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np

from minilm.config import SPLITS
from minilm.data.rows import Rows

CHUNK = 1000  # rows that are hashed at once


def fingerprint_of(rows: dict[str, Rows], names: Sequence[str]) -> str:
    """SHA-256, in hexadecimal, of the texts and labels in order; it does not depend on the files they came from.

    It hashes ``json.dumps([split, texts, pairs, labels])`` of each split, piece by piece to save memory.
    """
    digest = hashlib.sha256(json.dumps(list(names)).encode())
    for split in SPLITS:
        part = rows[split]
        digest.update(f"[{json.dumps(split)}, ".encode())
        for values in (part.texts, part.pairs, part.labels):
            for piece in _json_pieces(values):
                digest.update(piece.encode())
            digest.update(b"]" if values is part.labels else b", ")
    return digest.hexdigest()


def _json_pieces(values: Sequence[str] | np.ndarray | None) -> Iterator[str]:
    """The text ``json.dumps(values)``, in pieces."""
    if values is None:
        yield "null"
        return
    yield "["
    for start in range(0, len(values), CHUNK):
        piece = values[start : start + CHUNK]
        text = json.dumps(piece.tolist() if isinstance(piece, np.ndarray) else piece)
        yield (", " if start else "") + text[1:-1]
    yield "]"
