"""JSON, read strictly: from a file or a line of one to an object, or to an error of one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from minilm.errors import UserError

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises UserError if it is missing or broken."""
    return parse_json(read_text(path), str(path))


def read_json_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The JSON objects of a file, one a line, each with its place: "metrics.jsonl, line 3". Empty lines are skipped.

    Raises UserError if the file is missing or a line is broken.
    """
    lines = enumerate(read_text(path).splitlines(), 1)
    places = ((f"{path}, line {number}", line) for number, line in lines if line.strip())
    return [(place, parse_json(line, place)) for place, line in places]


def read_text(path: Path) -> str:
    """The text of a file in UTF-8. Raises UserError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None


def parse_json(text: str, place: str) -> dict[str, Any]:
    """A JSON object from a text; ``place`` names it in messages. Raises UserError if it is none."""
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):  # half of a pair of surrogates, which no text can hold
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not valid JSON ({error})") from None
    except UnicodeEncodeError:
        raise UserError(f"{place}: contains an invalid Unicode surrogate") from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, brackets too deep
        raise UserError(f"{place}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{place}: must hold a JSON object")
    return value
