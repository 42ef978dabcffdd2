"""What a user did or met, told in one line; and the "did you mean" that goes with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend. The message names the thing, where it is, and what to do.

    The command line prints it without a traceback; every other exception is a fault of ours and keeps its own.
    """


def nearest(word: str, choices: Iterable[str]) -> str:
    """The closest choice as ``' (did you mean "x"?)'``, or ``''`` when none is close."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""
