"""Read TOML and JSON files, with errors that name the file."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from minilm.errors import UserError, nearest

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
DEEPEST = 100  # the deepest nesting of tables and lists; usual files have about five levels
LARGEST = 10**100  # the largest whole number; larger ones are not settings


def path_of(value: str | os.PathLike[str], what: str, kind: str = "a path") -> Path:
    """A value that a program passes as a path. Raises UserError, which begins with ``what``, if it is none."""
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{what} must be {kind}, got {value!r}")
    return Path(value)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, without a byte order mark. Raises UserError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        beside = [str(p) for p in path.parent.glob(f"*{path.suffix}")]
        raise UserError(f"{path}: no such file{nearest(str(path), beside)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except ValueError:
        raise UserError(f"{path}: contains a NUL character; remove it") from None


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UserError if it cannot be read or is not valid TOML."""
    try:
        return parse_toml(read_text(path))
    except ValueError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises tomllib.TOMLDecodeError if it is not TOML, and ValueError if a number is too
    large or values are nested too deeply."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError:  # Python does not read numbers of more than 4,300 digits
        raise ValueError(_TOO_LARGE) from None
    check_bounds(table)
    return table


_TOO_LARGE = "a whole number of more than 100 digits"
_TOO_DEEP = f"values nested more than {DEEPEST} levels deep"


def check_bounds(value: Any) -> None:
    """Raise ValueError if a parsed value is nested deeper than ``DEEPEST``, or contains a number above ``LARGEST``."""
    level = [value]
    for _ in range(DEEPEST):
        if any(isinstance(item, int) and abs(item) > LARGEST for item in level):
            raise ValueError(_TOO_LARGE)
        level = [
            inner for item in level if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]  # fmt: skip
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError if the file is missing or is not one valid JSON object."""
    return parse_object(read_text(path), str(path))


def read_json_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a file with one JSON object per line, each with its place: "metrics.jsonl, line 3".

    Raises UserError as ``read_json`` does.
    """
    lines = [(f"{path}, line {number}", line) for number, line in enumerate(read_text(path).splitlines(), 1)]
    return [(place, parse_object(line, place)) for place, line in lines if line.strip()]


def parse_object(text: str, where: str) -> dict[str, Any]:
    """Parse a text as a JSON object. Raises UserError, beginning with ``where``, if it is not a JSON object."""
    try:
        value = json.loads(text)
        check_bounds(value)
        if _SURROGATE.search(text):  # a lone surrogate is not valid text
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: contains an invalid Unicode surrogate") from None
    except (ValueError, RecursionError) as error:  # also for too long numbers and too deep nesting
        raise UserError(f"{where}: not valid JSON ({error}); the file is incomplete or was edited") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: must contain a JSON object, found {type(value).__name__}")
    return value


def read_lines(file: BinaryIO, place: str = "line") -> Iterator[str]:
    """Yield the lines of a file in UTF-8. Raises UserError for the first line that is not UTF-8."""
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{place} {number}: not UTF-8 (byte 0x{line[error.start]:02x})") from None
