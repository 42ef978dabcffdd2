"""Show text from files safely on a terminal, and handle missing standard streams.

A label, a text or a column's name may contain characters that control a terminal: ``ESC [2J`` clears the screen, a
carriage return makes later text overwrite the line, a line break can imitate a message of minilm, and U+202E reverses
the reading direction ("Trojan Source", Boucher and Anderson 2021). They are shown as escapes, as in Python.
"""

from __future__ import annotations

import io
import os
import re
import sys
from typing import IO

WINDOWS = os.name == "nt"

# The control characters (C0, DEL, C1), the breaks of lines and paragraphs, the marks that embed, override or isolate a
# reading direction, and halves of surrogate pairs, which no encoding has.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    r"""A text on one line, in which control characters are escaped, except those in ``keep``.

    >>> printable("good\n\x1b[2Jbad")
    'good\\n\\x1b[2Jbad'

    Other scripts, accents and emoji do not change. A backslash does not either, so a second call changes nothing.
    """
    return _OBEYED.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def open_closed_streams() -> None:
    """Open standard input, output and error on the null device if they are closed, as they are in some services.

    Otherwise the next file that is opened would get their number, and the output of libraries would be written to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # as long as the process lives


def write_utf8() -> None:
    """Write UTF-8 into pipes and files on Windows too, whose own encodings lack most letters of other languages."""
    for stream in (sys.stdout, sys.stderr):
        if WINDOWS and isinstance(stream, io.TextIOWrapper) and not stream.isatty():
            stream.reconfigure(encoding="utf-8")


def silence(stream: IO[str]) -> None:
    """Send further output to the null device, because its reader has ended, as in ``| head -1``."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
