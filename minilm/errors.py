"""The error of something that the user can fix, the "did you mean" in its message, and how texts are shown."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator

# What a terminal obeys instead of showing: control characters, the marks that turn the direction of writing, and halves
# of characters, which cannot be written.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(Exception):
    """Something that the user can fix. The message names the thing, where it is, and what to do.

    The command line prints it without a traceback. Every other exception is a bug of minilm and keeps its traceback.
    """


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Put ``where``, such as a config's name, in front of the message of each UserError that is raised inside."""
    try:
        yield
    except UserError as error:
        error.args = (f"{where}: {error}",)
        raise


def nearest(word: str, choices: Iterable[str]) -> str:
    """The closest choice as ``' (did you mean "x"?)'``, or ``''`` if none is close."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""


def shortened(name: str, width: int = 40) -> str:
    """A name on one line and of at most so many characters; its middle is left out, as beginnings may be alike."""
    name = " ".join(name.split())
    if len(name) <= width:
        return name
    tail = (width - 1) // 3
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"


def printable(text: str, keep: str = "") -> str:
    r"""The text as a terminal may show it: control characters become escapes, except those to keep.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if text.isascii() and text.isprintable():
        return text
    return _CONTROL.sub(lambda c: c[0] if c[0] in keep else c[0].encode("unicode_escape").decode(), text)
