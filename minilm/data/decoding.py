"""Decode a file into lines of text: from a path or standard input, gzipped or not, in any encoding.

The default is UTF-8, with or without a byte order mark; UTF-16 and UTF-32 are recognised by their byte order marks.
Other encodings cannot be distinguished by their bytes, so the user must name them. Bytes that are not UTF-8 are read as
lone surrogates, which no valid text contains, so that messages can name each bad line.
"""

from __future__ import annotations

import codecs
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from minilm.callers import changes
from minilm.data.compressed import Unzipped
from minilm.data.tables import Defects, RowOrigin
from minilm.errors import UserError

STDIN = Path("-")
BROKEN = re.compile("[\ud800-\udfff]")  # lone surrogates
LONGEST = 2**26  # characters of a line, or of a row of several lines
SAMPLE = 2**16  # bytes, or characters, from which the encoding and the format are guessed
MARKS = {  # UTF-32 comes first, as its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
WIDE = ("utf-16", "utf-32", "utf_16", "utf_32")  # the encodings that have no surrogateescape

_piped: tuple[object, bytes] | None = None  # standard input, which can be read only once, and its bytes


@dataclass(frozen=True)
class TextFile:
    """A file whose encoding is known."""

    path: Path
    encoding: str
    newline: str  # the line end: LF (a CR before it belongs to the line); CR in a file without LF

    @property
    def name(self) -> str:
        """The file's name in messages."""
        return display_name(self.path)

    @property
    def is_plain(self) -> bool:
        """Whether a line editor such as sed can edit it: it is not compressed, and its lines end in the byte LF."""
        if self.path == STDIN or self.newline != "\n" or self.encoding.startswith(WIDE):
            return False
        with open_bytes(self.path) as binary:
            return not isinstance(binary, Unzipped)

    def sample(self) -> str:
        """The first characters, up to the end of the last whole line."""
        with self._open(self.newline) as file:
            text = file.read(SAMPLE)
        whole = text.rfind(self.newline) + 1
        return text[:whole] if len(text) == SAMPLE and whole else text

    def lines(self, defects: Defects | None = None, newline: str | None = None) -> Iterator[str]:
        """Yield the lines with their line ends. Bytes that cannot be decoded become U+FFFD and a defect.

        newline: "" for lines as the csv module counts them, which may also end with CR. Raises UserError for a line of
        more than ``LONGEST`` characters, before the rest of it takes memory.
        """
        for number, line in enumerate(self._parts(LONGEST + 1, defects, newline), 1):
            if len(line) > LONGEST:
                raise too_long(RowOrigin(self.name, number))
            yield line

    def pieces(self, defects: Defects | None = None) -> Iterator[str]:
        """Yield the text in pieces: lines, and parts of long lines. Otherwise as ``lines``.

        Without ``defects``, bytes that cannot be decoded remain lone surrogates, so that the rows that contain them can
        be found.
        """
        return self._parts(SAMPLE, defects, None, keep=defects is None)

    def _parts(self, most: int, defects: Defects | None, newline: str | None, *, keep: bool = False) -> Iterator[str]:
        """The lines, those of more than ``most`` characters in parts. keep: whether lone surrogates remain."""
        explained, number = False, 1
        with self._open(self.newline if newline is None else newline) as file:
            while line := file.readline(most):
                here, number = number, number + line.endswith(("\n", "\r"))
                if keep or line.isascii() or not BROKEN.search(line):
                    yield line
                    continue
                if defects is not None:
                    what = _undecodable(line, self.encoding, explain=not explained)
                    defects.add(RowOrigin(self.name, here), what)
                    explained = True
                yield BROKEN.sub("\ufffd", line)

    @contextmanager
    def _open(self, newline: str) -> Iterator[io.TextIOWrapper]:
        errors = "strict" if self.encoding.startswith(WIDE) else "surrogateescape"
        with open_bytes(self.path) as binary:
            try:
                yield io.TextIOWrapper(binary, encoding=self.encoding, errors=errors, newline=newline)
            except UnicodeDecodeError as error:
                raise UserError(f"{self.name}: not {self.encoding}: {error.reason} (byte {error.start})") from None


def too_long(origin: RowOrigin) -> UserError:
    """The error for a line of more than ``LONGEST`` characters."""
    return UserError(f"{origin}: longer than {LONGEST:,} characters, the limit; divide this text into rows")


def display_name(path: Path) -> str:
    """The file's name in messages."""
    return "standard input" if path == STDIN else str(path)


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file at its start, decompressed. Standard input ("-") can be opened several times. Raises UserError if it
    cannot be read, also while it is read if it decompresses to too many bytes."""
    try:
        file: BinaryIO = io.BytesIO(_read_stdin()) if path == STDIN else path.open("rb")
    except OSError as error:
        raise UserError(f"{display_name(path)}: cannot be read: {error.strerror}") from None
    with file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if zipped:
            with Unzipped(file, display_name(path)) as unzipped:
                yield unzipped  # type: ignore[misc]  # it can be read like a BinaryIO
        else:
            yield file


def _read_stdin() -> bytes:
    global _piped
    if _piped is None or _piped[0] is not sys.stdin:
        if sys.stdin.isatty():
            raise UserError('standard input ("-") is a terminal; pipe a file into it: cat reviews.csv | minilm ...')
        _piped = sys.stdin, sys.stdin.buffer.read()
    return _piped[1]


def open_text(path: Path, encoding: str = "") -> TextFile:
    """Find a file's encoding, unless it is given, and its line ends. Raises UserError."""
    if not encoding:
        encoding = _find_encoding(path)
    else:
        try:
            encoding = codecs.lookup(encoding).name
            "".encode(encoding)  # some of Python's codecs are not text encodings
        except LookupError:
            known = "utf-8, utf-16, cp1250, cp1252, latin-1"
            raise UserError(f'data.encoding: unknown encoding "{encoding}"; use for example {known}') from None
    text = TextFile(path, "utf-8-sig" if encoding == "utf-8" else encoding, "\n")
    with text._open("") as file:
        while chunk := file.read(SAMPLE):
            if "\n" in chunk:
                return text
    return TextFile(path, text.encoding, "\r")


def _find_encoding(path: Path) -> str:
    with open_bytes(path) as file:
        start = file.read(SAMPLE)
    for mark, encoding in MARKS.items():
        if start.startswith(mark):
            return encoding
    for places, encoding in ((start[1::2], "utf-16-le"), (start[::2], "utf-16-be")):
        if len(places) > 8 and places.count(0) > len(places) / 2:
            add = changes({"data.encoding": encoding})
            raise UserError(f"{display_name(path)}: looks like UTF-16 without a byte order mark; add: {add}")
    return "utf-8"


def _undecodable(line: str, encoding: str, *, explain: bool) -> str:
    """What is wrong with a line. With ``explain``, also how a word of it reads in other encodings, for the user to
    choose from."""
    first = BROKEN.search(line)
    assert first is not None
    byte = ord(first[0]) - 0xDC00
    if not encoding.startswith("utf-8"):
        return f"not {encoding} (byte 0x{byte:02x}); change data.encoding"
    what = f"not UTF-8 (byte 0x{byte:02x})"
    if not explain:
        return what
    start = max(line.rfind(" ", 0, first.start()), line.rfind("\t", 0, first.start())) + 1
    word = re.split(r"[\s,;|]", line[max(start, first.start() - 20) : first.end() + 20])[0]
    readings: dict[str, str] = {}  # word -> encoding
    for other in ("cp1252", "cp1250"):
        readings.setdefault(word.encode("utf-8", "surrogateescape").decode(other, "replace"), other)
    read = ", ".join(f'data.encoding={other} reads it as "{seen}"' for seen, other in readings.items())
    return f"{what}; save the file as UTF-8, or name its encoding: {read}"
