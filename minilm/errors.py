"""The error for problems that the user can fix, and the "did you mean" in its message."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator

from minilm.foreign_names import FOREIGN_KEYS, FOREIGN_VALUES
from minilm.terminal import printable


class UserError(Exception):
    """A problem that the user can fix. The message names the problem, where it is, and what to do.

    The message is one line, whatever it quotes, and long values are cut in their middle; ``details`` are lines below.
    The command line prints it without a traceback. Every other exception is a bug of minilm and keeps its traceback.
    """

    def __init__(self, message: str, *details: str) -> None:
        super().__init__(message, *details)

    def __str__(self) -> str:
        return "\n  ".join(map(legible, self.args))


def legible(message: str) -> str:
    """A message on one line, with control characters escaped and long values cut in their middle."""
    return _VALUE.sub(_cut, printable(message))


# What a message may quote: a value in quotes, or something without spaces, such as a path. (An apostrophe is no quote.)
_VALUE = re.compile(r"""(?P<quoted>"[^"]*"|(?<!\w)'[^']*'(?!\w))|[^\s"]+""")
LONGEST, LONGEST_PATH = 200, 500  # characters that are shown of a quoted value, and of anything else


def _cut(found: re.Match[str]) -> str:
    value = found[0]
    if len(value) <= (LONGEST if found["quoted"] else LONGEST_PATH):
        return value
    return f"{value[: LONGEST // 2]} ... {value[-LONGEST // 4 :]}"


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Put ``where``, such as a config's name, in front of the message of each UserError that is raised inside."""
    try:
        yield
    except UserError as error:
        message, *details = error.args
        error.args = (f"{where}: {message}", *details)
        raise


def nearest(word: str, choices: Iterable[str]) -> str:
    """The closest choice as ``' (did you mean "x"?)'``, or ``''`` if none is close."""
    close = closest(word, choices)
    return f' (did you mean "{close}"?)' if close else ""


def closest(word: str, choices: Iterable[str]) -> str:
    """The choice that another library calls ``word``, or else the one with the most similar name; ``""`` if none is."""
    choices = list(choices)
    ours = [names[word] for names in (FOREIGN_KEYS, FOREIGN_VALUES) if names.get(word) in choices]
    return next(iter(ours or difflib.get_close_matches(word, choices, n=1, cutoff=0.6)), "")


def shortened(name: str, width: int = 40) -> str:
    """A name on one line, of at most ``width`` characters. A longer name is cut in the middle, as its end may
    matter."""
    name = printable(" ".join(name.split()))
    if len(name) <= width:
        return name
    tail = (width - 1) // 3
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"
