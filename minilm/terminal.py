"""Text that others wrote, as a terminal may show it; and standard streams that are not there.

A label, a text or the name of a column may contain characters that a terminal obeys: ``ESC [2J`` clears the screen, a
carriage return lets what follows write over the line, a line break begins a line that looks like one of ours, and
U+202E turns the reading direction ("Trojan Source", Boucher and Anderson 2021). They are shown as Python writes them.
"""

from __future__ import annotations

import os
import re
import sys
from typing import IO

# The control characters (C0, DEL, C1), the breaks of lines and paragraphs, the marks that embed, override or isolate a
# reading direction, and halves of surrogate pairs, which no encoding has.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    r"""A text on one line, with what a terminal obeys escaped, but for the characters to ``keep``.

    >>> printable("good\n\x1b[2Jbad")
    'good\\n\\x1b[2Jbad'

    Other scripts, accents and emoji stay as they are; so does a backslash, so that a second call changes nothing.
    """
    return _OBEYED.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def open_closed_streams() -> None:
    """Open standard input, output and error on the null device if they are closed, as some services start a command.

    Else the next file that is opened gets their number, and what a library prints is written into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # as long as the process lives


def silence(stream: IO[str]) -> None:
    """Send what is written from here on to the null device: whoever read it has ended, as in ``| head -1``."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
