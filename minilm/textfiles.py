"""TOML and JSON files, read with errors that name the file."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from minilm.errors import UserError, nearest


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UserError if it cannot be read or is not valid TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        beside = [str(p) for p in path.parent.glob("*.toml")]
        raise UserError(f"{path}: no such file{nearest(str(path), beside)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError if the file is missing or is not one valid JSON object."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid JSON (not UTF-8, byte {error.start})") from None
    return parse_object(text, str(path))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file that holds one JSON object a line. Raises UserError as ``read_json`` does."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [parse_object(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def parse_object(text: str, where: str) -> dict[str, Any]:
    """The JSON object that a text is. Raises UserError, with ``where`` in front, if it is not one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({error}); the file was cut short or edited") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: must hold a JSON object, found {type(value).__name__}")
    return value
