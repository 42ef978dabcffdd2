"""Read the file of a SentencePiece model, such as ``spiece.model``, without the package ``sentencepiece``.

The file is a message in the format of protocol buffers: a sequence of fields. Each field is a key, which contains the
field's number and kind, and a value. These are the kinds:

    key     = field << 3 | kind          a varint: 7 bits a byte, the last byte below 128
    kind 0  a varint    kind 1  8 bytes    kind 2  a length, then that many bytes    kind 5  4 bytes

The fields are those of ``sentencepiece_model.proto`` (Kudo and Richardson 2018). From them, a tokenizer of the package
``tokenizers`` can be built: Unigram (Kudo 2018) with the pieces' log-probabilities, or BPE. The merges of the BPE are
all splits of a piece into two other pieces, in the order of the pieces.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from minilm.errors import UserError

SPACE = "▁"  # stands for a space in pieces
UNIGRAM, BPE = 1, 2
CONTROL, USER_DEFINED = 3, 4


class Piece(NamedTuple):
    """A token with its log-probability (Unigram) or minus its rank (BPE)."""

    text: str
    score: float
    kind: int  # 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte


@dataclass(frozen=True)
class SentencePieceModel:
    """The contents of the file that affect tokenization."""

    pieces: list[Piece]
    model_type: int
    unknown: int  # the number of the unknown token's piece
    byte_fallback: bool  # whether characters that are in no piece become bytes
    charsmap: bytes  # the compiled table by which characters are normalised; empty: no normalisation

    @property
    def scores(self) -> list[tuple[str, float]]:
        """Each piece with its score, by number."""
        return [(piece.text, piece.score) for piece in self.pieces]

    def merges(self) -> tuple[dict[str, int], list[tuple[str, str]]]:
        """The vocabulary of a BPE, and its merges: each piece's splits into two pieces, in the order of the pieces."""
        vocabulary = {piece.text: number for number, piece in enumerate(self.pieces)}
        found = []
        for text, number in vocabulary.items():
            for cut in range(1, len(text)):
                left, right = text[:cut], text[cut:]
                if left in vocabulary and right in vocabulary:
                    found.append(((number, cut, len(text) - cut), (left, right)))
        return vocabulary, [pair for _, pair in sorted(found)]


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a file. Raises UserError if it is not a SentencePiece model, or neither Unigram nor BPE."""
    try:
        model = _read(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, IndexError, struct.error):
        raise UserError(f"{path}: not a SentencePiece model, or incomplete; download it again") from None
    if not model.pieces or not 0 <= model.unknown < len(model.pieces):
        raise UserError(f"{path}: not a SentencePiece model, or incomplete; download it again")
    if model.model_type not in (UNIGRAM, BPE):
        raise UserError(f"{path}: is a SentencePiece model of type word or char; minilm reads only Unigram and BPE")
    return model


def _read(data: bytes) -> SentencePieceModel:
    pieces, model_type, unknown, byte_fallback, charsmap = list[Piece](), UNIGRAM, 0, False, b""
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            pieces.append(_piece(value))
        elif field == 2 and isinstance(value, bytes):  # trainer_spec
            for inner, setting in _fields(value):
                if inner == 3:
                    model_type = int(setting)
                elif inner == 35:
                    byte_fallback = bool(setting)
                elif inner == 40:
                    unknown = int(setting)
        elif field == 3 and isinstance(value, bytes):  # normalizer_spec
            charsmap = next((table for inner, table in _fields(value) if inner == 2 and isinstance(table, bytes)), b"")
    return SentencePieceModel(pieces, model_type, unknown, byte_fallback, charsmap)


def _piece(data: bytes) -> Piece:
    text, score, kind = "", 0.0, 1
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif field == 2 and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif field == 3:
            kind = int(value)
    return Piece(text, score, kind)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message: numbers or bytes. Raises ValueError or IndexError if it is not a message."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            number, place = _varint(data, place)
            yield key >> 3, number
            continue
        if kind == 2:
            length, place = _varint(data, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown kind {kind}")
        if place + length > len(data):
            raise ValueError("incomplete")
        yield key >> 3, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
        shift += 7
        if shift > 63:
            raise ValueError("not a varint")
