"""Bounds on what a compressed file may decompress to: a few kilobytes may encode gigabytes ("zip bombs").

A file may decompress to ``ROOM`` bytes, or to ``RATIO`` times its own size: texts shrink to a third or a tenth. Bytes
are counted while they are decompressed, as a file may state a wrong size.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from minilm.errors import UserError

ROOM, RATIO = 1 << 28, 100
CELLS, SPARSE = 1 << 24, 20  # a sheet may have so many cells, with empty ones, or so many for each that is not empty
BLOCK = 1 << 16  # bytes that are decompressed at once
LONGEST_TAG = 300
_CELL = re.compile(rb'<(?:\w+:)?c\b[^<>]{0,200}?\br="([A-Z]{1,3})(\d{1,9})"')  # a cell of an .xlsx, and its place


class Room:
    """The bytes to which a file may decompress."""

    def __init__(self, name: str, size: int) -> None:
        """name: the file's name in messages. size: its size in bytes."""
        self.name, self.size = name, size
        self.limit, self.taken = max(ROOM, RATIO * size), 0

    def check(self, total: int) -> None:
        """Raise UserError if ``total`` bytes are too many."""
        if total > self.limit:
            much = f"{self.size:,} bytes decompress to more than {self.limit:,}"
            raise UserError(f"{self.name}: {much}, the limit; save the rows that you need in another file")

    def take(self, size: int) -> None:
        """Count ``size`` more bytes. Raises as ``check``."""
        self.taken += size
        self.check(self.taken)


class Unzipped(gzip.GzipFile):
    """A gzip file, decompressed. Reading raises UserError at the bytes that are too many, or that are damaged."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.room = Room(name, file.seek(0, io.SEEK_END))
        file.seek(0)
        super().__init__(fileobj=file, mode="rb")

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(BLOCK), b""))
        return self._counted(super().read, size)

    def read1(self, size: int = -1) -> bytes:
        return self._counted(super().read1, size)

    def _counted(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            data = read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{self.room.name}: not a complete gzip file: {error}") from None
        self.room.check(self.tell())  # not a sum, as pyarrow reads some parts twice
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:  # found by reading all
            while self.read(BLOCK):
                pass
        return super().seek(offset, whence)


def check_archive(binary: BinaryIO, name: str) -> None:
    """Check a spreadsheet that is a zip archive (.xlsx, .ods): the size of its contents, and of the sheets of an .xlsx.

    A sheet is read as a rectangle that reaches to its last cell, so one cell far from the others would take all memory.
    Raises UserError for a bomb. Anything else, such as a damaged archive, is left to the reader.
    """
    room = Room(name, binary.seek(0, io.SEEK_END))
    try:
        with zipfile.ZipFile(binary) as archive:
            for info in archive.infolist():
                sheet = _Sheet() if info.filename.startswith("xl/worksheets/") else None
                for block in _contents(binary, info):
                    room.take(len(block))
                    if sheet is not None:
                        sheet.read(block)
                if sheet is not None and sheet.columns * sheet.rows > max(CELLS, SPARSE * sheet.cells):
                    where = f"{info.filename} reaches to row {sheet.rows:,} and column {sheet.columns:,}"
                    raise UserError(f"{name}: {where}; delete the cells far from the others, or save it as .csv")
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, ValueError):
        return  # a damaged archive, which the reader describes
    finally:
        binary.seek(0)


def _contents(binary: BinaryIO, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The decompressed blocks of one file of an archive. (``ZipFile.open`` would stop at the size that it states.)"""
    binary.seek(info.header_offset + 26)  # a local header of 30 bytes ends with two lengths
    lengths = binary.read(4)
    binary.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), io.SEEK_CUR)
    left, unpack = info.compress_size, zlib.decompressobj(-zlib.MAX_WBITS)
    while left > 0 and (packed := binary.read(min(BLOCK, left))):
        left -= len(packed)
        if info.compress_type == zipfile.ZIP_STORED:
            yield packed
            continue
        while packed:
            yield unpack.decompress(packed, BLOCK)
            packed = unpack.unconsumed_tail


@dataclass
class _Sheet:
    """The cells of a sheet, from its blocks."""

    columns: int = 0
    rows: int = 0
    cells: int = 0
    rest: bytes = b""  # the end of the block before, as it may cut a cell

    def read(self, block: bytes) -> None:
        """Read the next block."""
        for letters, digits in _CELL.findall(block := self.rest + block):
            number = 0
            for letter in letters:
                number = 26 * number + letter - 64  # A is 1
            self.columns, self.rows = max(self.columns, number), max(self.rows, int(digits))
            self.cells += 1
        self.rest = block[max(block.rfind(b"<"), len(block) - LONGEST_TAG) :]
