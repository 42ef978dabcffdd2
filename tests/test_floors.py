"""Imports point down, floor by floor, without circles; names come from where they are defined; no file is long.

All imports count: at the top of a module, inside functions, under TYPE_CHECKING, and by ``import_module``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "minilm"

# A module imports modules of lower floors, and of its own package; at the bottom, all are one package.
FLOORS = {
    **dict.fromkeys(("terminal", "locking", "errors", "hints", "textfiles", "schema", "measures"), 0),
    **dict.fromkeys(("old_keys", "config", "rules"), 0),
    **dict.fromkeys(("hub", "repository", "model_files", "connection", "transfer"), 0),
    **dict.fromkeys(("atomic", "devices", "packed", "recipes", "sampling", "world"), 0),
    **dict.fromkeys(("callers", "foreign_names", "table_edits"), 0),
    "models": 1,
    **dict.fromkeys(("data", "finetuning"), 2),
    **dict.fromkeys(("checkpoints", "loading", "keywords"), 3),  # configs, completed from the catalogue of data
    "generation": 4,
    "evaluation": 5,
    "reporting": 6,
    "training": 7,  # evaluations are kept as reports have them
    "runs": 8,
    **dict.fromkeys(("studies", "serving"), 9),
    **dict.fromkeys(("verbs", "api"), 10),  # the command line, and the same from Python
    **dict.fromkeys(("answer_verbs", "sklearn"), 11),
    **dict.fromkeys(("cli", "__init__"), 12),  # "__init__": the public API
    "__main__": 13,
}
NEVER = {  # tests compare with them
    "transformers", "peft", "datasets", "accelerate", "sklearn", "scipy", "cleanlab", "sentencepiece",
    "sentence_transformers",
}  # fmt: skip

# Longer than files may be. The list must shrink to nothing: the test fails if what it lists has been mended.
LONG: set[str] = set()


class Import(NamedTuple):
    """One name that a module takes from another; the name is "" if it is the module itself."""

    user: str
    line: int
    module: str
    name: str


def sources() -> dict[str, str]:
    """The text of each module of the package, by its name without "minilm."; the package's own is "__init__"."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return found


def statements(text: str) -> Iterator[tuple[int, str, str, str]]:
    """All imports of a module: line, module, name in it or "", and what it is called here."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names):
                for alias in names:
                    yield node.lineno, alias.name, "", alias.asname or alias.name
            case ast.ImportFrom(module, names, level):
                assert level == 0 and module is not None, f"line {node.lineno}: a relative import"
                for alias in names:
                    yield node.lineno, module, alias.name, alias.asname or alias.name
            case ast.Call(
                ast.Name("import_module") | ast.Attribute(attr="import_module"), [ast.Constant(str(module)), *_]
            ):
                yield node.lineno, module, "", ""


def imports(modules: Mapping[str, str]) -> list[Import]:
    """What the modules take from each other; of a module that is imported itself, its attributes that are used."""
    found = []
    for user, text in modules.items():
        own: dict[str, str] = {}  # modules of ours, by what they are called here
        for line, module, name, called in statements(text):
            top, _, rest = module.partition(".")
            if top != "minilm":
                continue
            whole = ".".join(part for part in (rest, name) if part)
            if whole in modules or not name:
                found.append(Import(user, line, whole or "__init__", ""))
                own[called] = whole
            else:
                found.append(Import(user, line, rest or "__init__", name))
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.Attribute(ast.Name(called), name) if called in own and f"{own[called]}.{name}" not in modules:
                    found.append(Import(user, node.lineno, own[called], name))
    return found


def definitions(text: str) -> set[str]:
    """The names that a module defines itself."""
    names: set[str] = set()
    waiting = list(ast.parse(text).body)
    while waiting:
        match waiting.pop():
            case ast.FunctionDef(name) | ast.ClassDef(name):
                names.add(name)
            case ast.Assign(targets):
                names |= {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
            case ast.AnnAssign(ast.Name(name)):
                names.add(name)
            case ast.If(body=body, orelse=others) | ast.Try(body=body, orelse=others):
                waiting += body + others
    return names


def upwards(modules: Mapping[str, str]) -> set[tuple[str, str]]:
    """The imports that do not point down: user and module."""
    found = set()
    for user, _, module, _ in imports(modules):
        ours, theirs = user.partition(".")[0], module.partition(".")[0]
        is_own = ours == theirs or FLOORS[ours] == FLOORS[theirs] == 0
        if not is_own and FLOORS[theirs] >= FLOORS[ours]:
            found.add((user, module))
    return found


def circles(modules: Mapping[str, str]) -> set[frozenset[str]]:
    """The largest sets of modules each of which imports, perhaps through others, all others of the set."""
    imported: dict[str, set[str]] = {user: set() for user in modules}
    for each in imports(modules):
        imported[each.user].add(each.module)
    reached: dict[str, set[str]] = {}
    for user in modules:
        reached[user], waiting = set(), list(imported[user])
        while waiting:
            if (module := waiting.pop()) not in reached[user]:
                reached[user].add(module)
                waiting += imported[module]
    found = (frozenset(m for m in modules if m in reached[user] and user in reached[m]) for user in modules)
    return {circle for circle in found if circle}


def second_hand(modules: Mapping[str, str]) -> list[Import]:
    """The names that are taken from a module that only imports them itself."""
    defined = {module: definitions(text) for module, text in modules.items()}
    return [each for each in imports(modules) if each.name and each.name not in defined[each.module]]


def test_imports_point_down() -> None:
    assert upwards(sources()) == set()


def test_there_is_no_circle_of_imports() -> None:
    assert circles(sources()) == set()


def test_names_are_imported_from_where_they_are_defined() -> None:
    assert second_hand(sources()) == []


def test_the_packages_that_do_the_same_are_never_imported() -> None:
    found = {(user, m.partition(".")[0]) for user, text in sources().items() for _, m, _, _ in statements(text)}
    packages = {package for _, package in found - {("sklearn", "sklearn")}}  # minilm.sklearn is made for it
    assert "torch" in packages and not packages & NEVER


def test_no_file_is_long() -> None:
    long = set()
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).as_posix()
        if len(path.read_text(encoding="utf-8").splitlines()) > (300 if place.startswith("models/") else 400):
            long.add(place)
    assert long == LONG


IMPORTS = {
    "at the top": "from minilm.{} import x",
    "inside a function": "def f():\n    from minilm.{} import x",
    "for types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from minilm.{} import x",
    "by its name": "import minilm.{}",
    "from its package": "from minilm import {}",
    "when it is called": "import importlib\nm = importlib.import_module('minilm.{}')",
}


@pytest.mark.parametrize("how", IMPORTS)
def test_every_kind_of_import_is_seen(how: str) -> None:
    modules = {"models": IMPORTS[how].format("runs"), "runs": "from minilm.models import y", "cli": ""}
    assert upwards(modules) == {("models", "runs")}
    assert circles(modules) == {frozenset({"models", "runs"})}


def test_a_circle_through_others_is_found_and_a_name_that_is_passed_on() -> None:
    modules = {
        "hub": "from minilm.transfer import get\ndef give(): ...",
        "transfer": "from minilm.errors import fail\ndef get(): ...",
        "errors": "from minilm import hub\nhub.give()\nhub.get()\ndef fail(): ...",
        "schema": "from minilm.hub import get, give",
    }
    assert circles(modules) == {frozenset({"hub", "transfer", "errors"})}
    assert second_hand(modules) == [Import("errors", 3, "hub", "get"), Import("schema", 1, "hub", "get")]
