"""Convert TOML tables to dataclasses and back, strictly: a dataclass is the schema of its table.

The type of a field is also its check. ``Literal`` lists the choices, and ``Annotated`` adds a limit. Another dataclass
is a nested section, ``Section | None`` an optional section, and ``list[Section]`` a section that may occur several
times, as ``[[section]]``. A union of dataclasses is a section in which one key chooses the dataclass:

    class Exact:  method: Literal["exact"]                      [search]
    class Beam:   method: Literal["beam"]; width: int           method = "beam"
    Search = Annotated[Exact | Beam, Choice("method")]          width = 4

An unknown key, a key of another choice, a value of a wrong type and a missing key are errors, which name the key and
the place where it was written.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from minilm.errors import UserError, closest, nearest
from minilm.foreign_names import FOREIGN_KEYS, FOREIGN_VALUES
from minilm.hints import quoted
from minilm.textfiles import DEEPEST, parse_toml

T = TypeVar("T")
Place = Callable[[str], str]  # key -> where it was written, such as the name of a file


class Syntax(NamedTuple):
    """The words for a table, and for several tables, in messages about a file format."""

    table: str
    tables: str


TOML = Syntax("a section [{key}]", "sections [[{key}]]")
JSON = Syntax("an object", "a list of objects")


class Limit(NamedTuple):
    """A condition on a value; used as ``Annotated[float, Limit("a number above 0", lambda x: x > 0)]``."""

    words: str  # the end of "must be ..."
    holds: Callable[[Any], bool]


class Example(NamedTuple):
    """A value for the message about a missing key; used as ``Annotated[int, Example(8)]``."""

    value: Any


class Choice(NamedTuple):
    """The key that chooses a member of a union of sections; used as ``Annotated[Exact | Beam, Choice("method")]``."""

    key: str
    default: str | None = None  # the choice of a table without the key; None: the key is required


# Reading --------------------------------------------------------------------------------------------------


def override(kind: Any, table: dict[str, Any], text: str) -> str:
    """Put ``section.key=value`` into the table of a dataclass ``kind``; return its key, ``section.key``.

    The value is TOML. If it is not valid TOML, or if the field must be a text and the TOML has another type, it is read
    as text: ``name=2024`` is the name "2024".
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise UserError(f"{text}: a change must have the form section.key=value, such as train.lr=3e-4")
    if text.encode(errors="ignore").decode() != text:  # bytes of the command line that are not text
        raise UserError(f"{text!a}: must be UTF-8")
    *sections, last = key.split(".")
    if len(sections) > DEEPEST:
        raise UserError(f"{text}: a key can be in at most {DEEPEST} nested tables")
    for i, section in enumerate(sections, start=1):
        kind = hints_of(kind).get(section)
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UserError(f"{text}: {'.'.join(sections[:i])} is a value and has no keys")
    kind = hints_of(kind).get(last)
    try:
        parsed = parse_toml(f"value = {value}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    except ValueError as error:
        raise UserError(f"{text}: {error}") from None
    is_toml = len(parsed) == 1  # 0: not TOML; 2: a line break and another key
    is_text = kind and accepts(kind, value, False) and not accepts(kind, parsed.get("value"), False)
    table[last] = parsed["value"] if is_toml and not is_text else value
    return key


def read_table(
    kind: type[T], table: Mapping[str, Any], place: Place, prefix: str = "", syntax: Syntax = TOML
) -> T:
    """Make a dataclass, including nested sections, from a table with the same keys.

    ``prefix`` (``"train."``) is put before the keys, in messages and for ``place``. Raises UserError if a key is
    unknown or missing, or if its value has a wrong type. Conditions on several keys are checked in ``__post_init__`` of
    the dataclass, whose ValueError becomes a UserError too.
    """
    hints = hints_of(kind)
    for key in table:
        if key not in hints:
            unknown = f"{prefix}{_shorten(_key(key))} is not a known key"
            raise UserError(f"{place(prefix + key)}: {unknown}{_suggestion(key, prefix, hints)}")
    values = {}
    for f in fields(kind):  # type: ignore[arg-type]
        key, hint = prefix + f.name, hints[f.name]
        required = f.default is MISSING and f.default_factory is MISSING
        if f.name in table:
            values[f.name] = _read_value(hint, table[f.name], place, key, syntax)
        elif required and sections_of(hint):  # the messages about its keys say what is missing
            values[f.name] = _read_value(hint, {}, place, key, syntax)
        elif required:
            raise UserError(f"{place(key)}: {key} is missing; it must be {wanted(hint)}{_example(key, hint)}")
    try:
        return kind(**values)
    except ValueError as error:
        name = prefix.rstrip(".")
        raise UserError(f"{place(name)}: {f'{name} ' if name else ''}{error}") from None


def _read_section(kind: Any, table: Any, place: Place, key: str, syntax: Syntax) -> Any:
    """``[key]``: the dataclass that the field's type names, or the member of a union that the table chooses."""
    if not isinstance(table, dict):
        raise UserError(f"{place(key)}: {key} must be {syntax.table.format(key=key)}, got {cut(table)}")
    section, choice = chosen(kind, table), choice_of(kind)
    if choice is not None:
        chooser, hints = f"{key}.{choice.key}", hints_of(kind)
        if choice.key in table:  # raises for an unknown choice
            _read_value(hints[choice.key], table[choice.key], place, chooser, syntax)
        elif section is None:
            raise UserError(f"{place(chooser)}: {chooser} is missing; it must be {wanted(hints[choice.key])}")
        for name in table:
            if name not in hints_of(section) and name in hints:
                raise UserError(f"{place(f'{key}.{name}')}: {belongs(kind, table, f'{key}.{name}')}")
    return read_table(section, table, place, key + ".", syntax)


def _read_value(kind: Any, value: Any, place: Place, key: str, syntax: Syntax) -> Any:
    """Read a value of a field's type, including nested sections in lists and dicts."""
    if value is None and NoneType in _members(kind):
        return None
    if sections_of(kind):
        return _read_section(kind, value, place, key, syntax)
    if item := _item_section(kind):  # a repeated section; messages count from 1
        if not isinstance(value, list) or not all(isinstance(inner, dict) for inner in value):
            raise UserError(f"{place(key)}: {key} must be {syntax.tables.format(key=key)}, got {cut(value)}")
        return [read_table(item, inner, place, f"{key}[{i}].", syntax) for i, inner in enumerate(value, start=1)]
    if get_origin(kind) is dict and isinstance(value, dict):  # name the wrong key in messages
        inner = get_args(kind)[1]
        return {k: _read_value(inner, v, place, f"{key}.{_shorten(_key(k))}", syntax) for k, v in value.items()}
    if accepts(kind, value):
        return _convert(kind, value)
    choices = [choice for k in _members(kind) if get_origin(k) is Literal for choice in get_args(k)]
    hint = nearest(value, choices) if isinstance(value, str) else ""
    hint = hint or _as_list(kind, value, key, place(key))
    raise UserError(f"{place(key)}: {key} must be {wanted(kind)}, got {cut(value)}{hint}")


def _example(key: str, hint: Any) -> str:
    """An example of a missing key, if its type has one: "; add lora.rank=8"."""
    extras = getattr(hint, "__metadata__", ())
    return "".join(f"; add {key}={shown(extra.value)}" for extra in extras if isinstance(extra, Example))


def _as_list(kind: Any, value: Any, key: str, place: str) -> str:
    """What to type if a text, such as "[query, value]", must be a list of texts, which need quotes; otherwise ""."""
    items = re.findall(r"[^\s\[\],\"']+", value) if isinstance(value, str) else []
    listed = [FOREIGN_VALUES.get(item, item) for item in items]
    if not items or not any(get_origin(k) is list and accepts(k, listed) for k in _members(kind)):
        return ""
    return f"; write {quoted(f'{key}={shown(listed)}') if place.startswith(f'{key}=') else shown(listed)}"


def _suggestion(key: str, prefix: str, hints: Mapping[str, Any]) -> str:
    """A hint for an unknown key: the key that is meant, or else all keys."""
    meant, before = _nested(key, hints) or closest(key, hints), "" if "[" in prefix else prefix
    return f' (did you mean "{before}{meant}"?)' if meant else f"; the keys are: {', '.join(hints)}"


def _nested(key: str, hints: Mapping[str, Any]) -> str:
    """The key of a section among ``hints`` that has this name, or that another library calls so; "" if none has."""
    inner = [name for name in (key, FOREIGN_KEYS.get(key)) if name and name not in hints]
    return next((f"{name}.{k}" for k in inner for name, hint in hints.items() if k in hints_of(hint)), "")


def meant_key(kind: Any, key: str) -> str:
    """The key of a config, such as "train.epochs", that somebody calls "epochs" or "num_train_epochs"; "" if none."""
    hints = hints_of(kind)
    name, _, below = key.partition(".")
    if below:
        return f"{name}.{inner}" if (inner := meant_key(hints.get(name), below)) else ""
    ours = FOREIGN_KEYS.get(key, "")
    return key if key in hints else _nested(key, hints) or (ours if ours in hints else "")


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"train": {"lr": 1}}`` as ``{"train.lr": 1}``."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


# Choices --------------------------------------------------------------------------------------------------


def chosen(kind: Any, table: Mapping[str, Any]) -> Any:
    """The dataclass for a section's table: for a union, the member that the table chooses; None if it chooses none."""
    sections, choice = sections_of(kind), choice_of(kind)
    if choice is None:
        return sections[0]
    value = table.get(choice.key, choice.default)
    return next((section for section in sections if accepts(hints_of(section)[choice.key], value)), None)


def belongs(kind: Any, table: Mapping[str, Any], key: str) -> str:
    """A sentence with the choices of a union that have ``key``, such as "freeze.layers", and the table's choice."""
    choice = choice_of(kind)
    assert choice is not None
    name, section = key.rpartition(".")[2], key.rpartition(".")[0]
    having = merged(*(hints_of(member)[choice.key] for member in sections_of(kind) if name in hints_of(member)))
    chooser, value = f"{section}.{choice.key}", table.get(choice.key, choice.default)
    return f"{key} belongs to {chooser} = {wanted(having)}, but {chooser} is {shown(value)}"


def belongs_elsewhere(kind: Any, table: Mapping[str, Any], key: str) -> str:
    """The sentence of ``belongs`` if ``key``, or a table that contains it, belongs to another choice; otherwise ""."""
    names = key.split(".")
    for depth, name in enumerate(names):
        hint, inner = hints_of(kind).get(name), table.get(name)
        if hint is None or not sections_of(hint) or not isinstance(inner, dict) or depth + 1 == len(names):
            return ""
        kind, table, below = chosen(hint, inner), inner, names[depth + 1]
        if below in hints_of(hint) and below not in hints_of(kind):
            return belongs(hint, inner, ".".join(names[: depth + 2]))
    return ""


# Types ----------------------------------------------------------------------------------------------------


def accepts(kind: Any, value: Any, limits: bool = True) -> bool:
    """Whether a TOML value has a type; ``limits=False`` ignores choices and ranges."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        base, *checks = args
        held = (check.holds(value) for check in checks if isinstance(check, Limit))
        return accepts(base, value, limits) and (not limits or all(held))
    if origin is Literal:
        return isinstance(value, str) and (not limits or value in args)
    if origin in (Union, UnionType):
        return any(accepts(k, value, limits) for k in args)
    if origin is list:
        return isinstance(value, list) and all(accepts(args[0], v, limits) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(accepts(args[1], v, limits) for v in value.values())
    if kind is Any:
        return any(accepts(k, value) for k in (bool, int, float, str, list[Any], dict[str, Any]))
    if kind is float:  # a whole number is a number too; infinity and nan are not allowed
        return type(value) in (int, float) and (not limits or abs(value) <= sys.float_info.max)
    return type(value) is kind  # True is not a whole number


def wanted(kind: Any) -> str:
    """A type in words, as the end of "must be ..."."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " and ".join(limit.words for limit in args[1:] if isinstance(limit, Limit))
    if origin is Literal:
        return " or ".join(part for part in (", ".join(map(shown, args[:-1])), shown(args[-1])) if part)
    if origin in (Union, UnionType):
        return " or ".join(wanted(k) for k in args if k is not NoneType)
    if origin is list:
        return f"a list, each item {wanted(args[0])}"
    if origin is dict:
        return "a table"
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(kind, "a text, a number, true, false, a list or a table")


def _convert(kind: Any, value: Any) -> Any:
    """An accepted value in its exact type: a whole number becomes a float if the field is a float."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _convert(args[0], value)
    if origin in (Union, UnionType):
        return next(_convert(k, value) for k in args if accepts(k, value))
    if origin is list:
        return [_convert(args[0], v) for v in value]
    return float(value) if kind is float else value


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def merged(*kinds: Any) -> Any:
    """A type that accepts the values of all these types; for ``Literal`` types, one with the choices of all."""
    if all(get_origin(kind) is Literal for kind in kinds):
        return Literal[tuple(value for kind in kinds for value in get_args(kind))]
    return Union[tuple(kinds)]  # noqa: UP007


def sections_of(kind: Any) -> tuple[Any, ...]:
    """The dataclasses for a table: one, or the members of a union; () for plain values."""
    found: list[Any] = []
    for member in _members(kind):
        if get_origin(member) is Annotated:
            found += sections_of(get_args(member)[0])
        elif is_dataclass(member):
            found.append(member)
    return tuple(found)


def choice_of(kind: Any) -> Choice | None:
    """The ``Choice`` of a union of sections; None for other types."""
    extras = [e for member in _members(kind) if get_origin(member) is Annotated for e in get_args(member)[1:]]
    return next((extra for extra in extras if isinstance(extra, Choice)), None)


def _item_section(kind: Any) -> Any:
    """The dataclass of a repeated section; None for other types."""
    items = [section for k in _members(kind) if get_origin(k) is list for section in sections_of(get_args(k)[0])]
    return items[0] if items else None


def hints_of(kind: Any) -> dict[str, Any]:
    """The fields of a section with their types; for a union, those of all members."""
    found: dict[str, Any] = {}
    for section in sections_of(kind):
        for name, hint in _hints_of_section(section).items():
            found[name] = merged(found[name], hint) if name in found and found[name] != hint else hint
    return found


@cache
def _hints_of_section(section: Any) -> dict[str, Any]:
    return get_type_hints(section, include_extras=True)


# Writing --------------------------------------------------------------------------------------------------


def as_table(section: Any) -> dict[str, Any]:
    """A dataclass as nested dicts, without None. ``read_table`` makes an equal dataclass from them."""
    return asdict(section, dict_factory=lambda pairs: {key: value for key, value in pairs if value is not None})


def write_table(table: Mapping[str, Any]) -> str:
    """Nested dicts as TOML, without None: plain values, then each table under its header."""
    return "\n".join(_lines(table, "")).strip() + "\n"


def _lines(table: Mapping[str, Any], header: str) -> list[str]:
    lines = [f"{_key(k)} = {shown(v)}" for k, v in table.items() if not isinstance(v, dict | NoneType)]
    for name, inner in table.items():
        if isinstance(inner, dict):
            path = f"{header}.{_key(name)}" if header else _key(name)
            lines += ["", f"[{path}]", *_lines(inner, path)]
    return lines


def shown(value: Any) -> str:
    """A value as TOML writes it, on one line."""
    if isinstance(value, str):  # JSON's escapes are those of TOML, except for one character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_key(k)} = {shown(v)}' for k, v in value.items())} }}"
    return str(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else shown(name)


def cut(value: Any) -> str:
    """A value for a message."""
    return _shorten(shown(value))


def _shorten(text: str) -> str:
    """The beginning and the end of a text that is longer than 100 characters."""
    return text if len(text) <= 100 else f"{text[:50]} ... {text[-34:]}"
