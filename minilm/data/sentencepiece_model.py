"""SentencePiece's file, ``spiece.model`` and the like: read by hand, without its package.

The file is one message of protocol buffers: fields one after another, each a number that says which field and of what
kind, then its value. Of its four kinds we need three:

    key     = field << 3 | kind          a varint: 7 bits a byte, the last byte below 128
    kind 0  a varint    kind 1  8 bytes    kind 2  a length, then so many bytes    kind 5  4 bytes

The fields are those of ``sentencepiece_model.proto`` (Kudo and Richardson 2018). What is in the file makes a tokenizer
of the ``tokenizers`` package: Unigram (Kudo 2018) with the pieces' log-probabilities, or BPE, whose merges are all
splits of a piece into two other pieces, in the order of the pieces.
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
    """What the file holds, as far as it changes the tokens."""

    pieces: list[Piece]
    model_type: int
    unknown: int  # the number of the unknown token's piece
    byte_fallback: bool  # characters that no piece has become bytes
    charsmap: bytes  # how characters are normalised: a compiled table; empty: not at all

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
    """Read a file. Raises UserError if it is none of SentencePiece's, or neither Unigram nor BPE."""
    try:
        model = _read(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, IndexError, struct.error):
        raise UserError(f"{path}: no SentencePiece model, or cut short; download it again") from None
    if not model.pieces or not 0 <= model.unknown < len(model.pieces):
        raise UserError(f"{path}: no SentencePiece model, or cut short; download it again")
    if model.model_type not in (UNIGRAM, BPE):
        raise UserError(f"{path}: a SentencePiece model of words or characters; only Unigram and BPE are read")
    return model


def _read(data: bytes) -> SentencePieceModel:
    pieces, model_type, unknown, byte_fallback, charsmap = list[Piece](), UNIGRAM, 0, False, b""
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            pieces.append(_piece(value))
        elif field == 2 and isinstance(value, bytes):  # how it was trained
            for inner, setting in _fields(value):
                if inner == 3:
                    model_type = int(setting)
                elif inner == 35:
                    byte_fallback = bool(setting)
                elif inner == 40:
                    unknown = int(setting)
        elif field == 3 and isinstance(value, bytes):  # how texts are normalised
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
    """The fields of a message, in order: numbers, or bytes. Raises ValueError or IndexError if it is none."""
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
            raise ValueError(f"no kind {kind}")
        if place + length > len(data):
            raise ValueError("cut short")
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
            raise ValueError("no varint")
