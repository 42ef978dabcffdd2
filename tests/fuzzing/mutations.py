"""Files as a broken disk, a hurried hand or an enemy leaves them. All is drawn from one seeded generator."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from minilm.schema import write_table

NESTED: Any = "x"
for _ in range(150):
    NESTED = [NESTED]
ODD: tuple[Any, ...] = (  # values that a key may not be ready for
    None, True, False, 0, 1, -1, 2, 7, 10**6, 2**31, 2**63, 10**30, 10**200, 0.5, -0.0, 1e-300, 1e308, float("inf"),
    float("nan"), "", "x", "1", "true", "\0", "a\nb", "\x1b[2J", "../../x", "~nosuch/x", "/dev/zero", "é" * 5000,
    [], {}, [1], [None], ["x"], [[1]], {"x": 1}, {"": None}, [0] * 1000, NESTED,
)  # fmt: skip
PIECES = (  # bytes that mean something in one format or another
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b", b"\r", b"\n", b"\t", b",", b'"', b"'", b"\\", b"{", b"[",
    b"]", b"}", b"=", b"#", b"\\u0000", b"\\ud800", b"\xed\xa0\x80", b"\xc5", b"null", b"NaN", b"1e999", b"9" * 5000,
    b"[" * 3000, b"PAR1", b"\x80" * 8, b"\x1b[2J",
)  # fmt: skip


def broken_bytes(data: bytes, rng: random.Random) -> bytes:
    """A few bits flipped, pieces removed, repeated, moved or put in, or an end that is missing."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 2, 8, 100, 1000)))
        match rng.randrange(7):
            case 0 if data:
                at = min(at, len(data) - 1)
                data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
            case 1:
                data = data[:at]
            case 2:
                data = data[:at] + data[end:]
            case 3:
                data = data[:at] + data[at:end] * 2 + data[end:]
            case 4:
                data = data[:at] + rng.choice(PIECES) + data[end if rng.random() < 0.5 else at :]
            case 5:
                data = data[:at] + bytes(end - at) + data[end:]
            case _:
                data = data[:at] + rng.randbytes(end - at) + data[end:]
    return data if rng.random() > 0.02 else b""


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container within a value, and a key or index of it."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys)[:200]:
        yield value, key
        yield from _places(value[key])


def broken_value(value: Any, rng: random.Random) -> Any:
    """A parsed value in which a few others stand, or are missing, or are there under another name. It is changed."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(value))
        if not places:
            return copy.deepcopy(rng.choice(ODD))
        where, key = rng.choice(places)
        match rng.randrange(8):
            case 0:
                del where[key]
            case 1 if isinstance(where, dict):
                where[rng.choice((f"{key}x", "", "minilm", "\0", str(key).upper()))] = where.pop(key)
            case 2 if isinstance(where, dict):
                where[f"{key}2"] = copy.deepcopy(where[key])
            case 3:
                other, name = rng.choice(places)
                where[key] = copy.deepcopy(other[name]) if name in _keys(other) else None
            case 4 if type(where[key]) in (int, float):
                where[key] = where[key] * rng.choice((-1, 0, 2, 0.5, 1000, 1e12)) + rng.choice((0, 1, 0.5))
            case _:
                where[key] = copy.deepcopy(rng.choice(ODD))
    return value


def _keys(value: Any) -> Any:
    return value.keys() if isinstance(value, dict) else range(len(value))


def broken_json(data: bytes, rng: random.Random) -> bytes:
    """A JSON file with other values in it, or with other bytes."""
    if rng.random() < 0.2:
        return broken_bytes(data, rng)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # it was broken before
        return broken_bytes(data, rng)
    return json.dumps(broken_value(value, rng), ensure_ascii=rng.random() < 0.5).encode(errors="replace")


def broken_lines(data: bytes, rng: random.Random, break_line: Callable[[bytes, random.Random], bytes]) -> bytes:
    """A file in which a few lines are broken, missing, or there twice."""
    lines = data.splitlines(keepends=True)
    for _ in range(rng.choice((1, 2, 5))):
        at = rng.randrange(len(lines) or 1)
        match rng.randrange(5) if lines else -1:
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[rng.randrange(len(lines))])
            case 2:
                lines[at] = lines[at].strip() + rng.choice((b"\r\n", b"\r", b"\n\n", b""))
            case _ if lines:
                lines[at] = break_line(lines[at].rstrip(b"\n"), rng) + b"\n"
    return b"".join(lines)


def broken_toml(data: bytes, rng: random.Random, table: dict[str, Any]) -> bytes:
    """A TOML file with other values in it, or with other bytes. ``table``: what it holds."""
    if rng.random() < 0.3:
        return broken_bytes(data, rng)
    broken = broken_value(json.loads(json.dumps(table)), rng)
    return write_table(_without_none(broken) if isinstance(broken, dict) else {"x": 1}).encode(errors="replace")


def _without_none(value: Any) -> Any:
    """TOML has no null."""
    if isinstance(value, dict):
        return {str(key): _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value if inner is not None] if isinstance(value, list) else value


def broken_safetensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header, another length of it, or other bytes."""
    length = int.from_bytes(data[:8], "little")
    head, body = data[8 : 8 + length], data[8 + length :]
    match rng.randrange(5):
        case 0:
            return broken_bytes(data, rng)
        case 1:
            length = rng.choice((0, 1, length - 1, length + 8, 2**31, 2**63, 2**64 - 1))
            return length.to_bytes(8, "little") + head + body
        case 2:
            return len(head).to_bytes(8, "little") + head + broken_bytes(body, rng)
        case _:
            head = broken_json(head.rstrip(), rng)
            return len(head).to_bytes(8, "little") + head + body
