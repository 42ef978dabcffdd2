"""The schema serves any dataclass, not only a run's sections."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import pytest

from minilm.errors import UserError
from minilm.schema import (
    Choice,
    belongs_elsewhere,
    override,
    read_table,
    write_table,
)
from minilm.table_edits import drop_unchosen, fill_defaults


@dataclass(frozen=True)
class Adapter:
    rank: int
    targets: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    steps: int = 1
    adapter: Adapter | None = None
    free: dict[str, Any] = field(default_factory=dict)
    several: list[Adapter] = field(default_factory=list)


def read(text: str) -> Plan:
    return read_table(Plan, tomllib.loads(text), lambda key: "plan")


def test_a_section_may_come_several_times() -> None:
    plan = read("[[several]]\nrank = 8\n[[several]]\nrank = 4")
    assert plan.several == [Adapter(8), Adapter(4)]
    assert read(write_table(asdict(plan))) == plan
    with pytest.raises(UserError, match=r"plan: several\[2\]\.rang is not a known key \(did you mean \"rank\"\?\)"):
        read("[[several]]\nrank = 8\n[[several]]\nrang = 4")
    with pytest.raises(UserError, match=r"plan: several must be sections \[\[several\]\], got \[8\]"):
        read("several = [8]")


def test_an_optional_section_is_absent_or_whole() -> None:
    assert read("") == Plan(adapter=None)
    assert read("[adapter]\nrank = 8") == Plan(adapter=Adapter(8))
    with pytest.raises(UserError, match=r"plan: adapter\.rank is missing; it must be a whole number"):
        read("[adapter]")
    with pytest.raises(UserError, match=r"plan: adapter must be a section \[adapter\], got 8"):
        read("adapter = 8")


def test_an_optional_section_can_begin_on_the_command_line() -> None:
    table: dict[str, Any] = {}
    assert override(Plan, table, "adapter.rank=8") == "adapter.rank"
    assert read_table(Plan, table, str) == Plan(adapter=Adapter(8))


@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        Plan(adapter=Adapter(8, ["query", 'a "b"\n\\\x7f\x00é😀'])),
        Plan(free={"a.b": {"": {}}, "tables": [{"x": [1, 2.5, -0.0, 1e22]}, {}], "yes": True}),
    ],
)
def test_what_is_written_reads_back_equal(plan: Plan) -> None:
    assert read(write_table(asdict(plan))) == plan


# --- Unions ---


@dataclass(frozen=True)
class Exact:
    method: Literal["exact"] = "exact"


@dataclass(frozen=True)
class Beam:
    method: Literal["beam", "best-first"]
    width: int
    penalty: float = 0.5


@dataclass(frozen=True)
class Own:
    method: str
    width: str = "any"


@dataclass(frozen=True)
class Search:
    how: Annotated[Exact | Beam, Choice("method", "exact")] = field(default_factory=Exact)
    again: Annotated[Beam | Exact, Choice("method")] | None = None
    own: Annotated[Exact | Own, Choice("method", "")] = field(default_factory=Exact)


def search(text: str) -> Search:
    return read_table(Search, tomllib.loads(text), lambda key: f"at {key}")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", Search()),
        ("[how]", Search()),
        ('[how]\nmethod = "beam"\nwidth = 3', Search(Beam("beam", 3))),
        ('[how]\nmethod = "best-first"\nwidth = 3\npenalty = 1', Search(Beam("best-first", 3, 1.0))),
        ('[again]\nmethod = "exact"', Search(again=Exact())),
        ('[own]\nmethod = "mine"', Search(own=Own("mine"))),
        ('[own]\nmethod = "exact"', Search()),
    ],
)
def test_a_key_chooses_the_dataclass_of_a_section(text: str, found: Search) -> None:
    assert search(text) == found
    assert search(write_table(asdict(found))) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[how]\nwidth = 3", 'at how.width: how.width belongs to how.method = "beam" or "best-first", but how'),
        ('[how]\nmethod = "bean"', 'at how.method: how.method must be "exact", "beam" or "best-first", got "bean"'),
        ("[how]\nmethod = 1", 'at how.method: how.method must be "exact", "beam" or "best-first", got 1'),
        ('[how]\nmethod = "beam"', "at how.width: how.width is missing; it must be a whole number"),
        ('[how]\nwidht = 1\nmethod = "beam"', 'at how.widht: how.widht is not a known key (did you mean "how.width"?)'),
        ("[again]\nwidth = 1", 'at again.method: again.method is missing; it must be "beam", "best-first" or "exact"'),
        ("how = 3", "at how: how must be a section [how], got 3"),
        ("[own]\nmethod = 3", 'at own.method: own.method must be "exact" or a text, got 3'),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_choice_is_named(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        search(text)
    assert str(error.value).startswith(message)


def test_a_change_is_read_as_the_type_that_the_key_has_in_any_choice() -> None:
    table: dict[str, Any] = {}
    for change in ("how.method=beam", "how.width=3", "own.method=1", "own.width=2"):
        override(Search, table, change)
    assert table == {"how": {"method": "beam", "width": 3}, "own": {"method": "1", "width": "2"}}


def test_keys_of_another_choice_are_dropped_where_they_may_be() -> None:
    table: dict[str, Any] = {"how": {"method": "exact", "width": 3, "penalty": 1.0, "typo": 1}, "again": {"width": 1}}
    asked = []

    def may_drop(chooser: str, key: str) -> bool:
        asked.append((chooser, key))
        return key == "how.width"

    drop_unchosen(Search, table, may_drop)
    assert asked == [("how.method", "how.width"), ("how.method", "how.penalty")]
    assert table == {"how": {"method": "exact", "penalty": 1.0, "typo": 1}, "again": {"width": 1}}


def test_defaults_are_filled_in_for_what_is_chosen_and_absent_sections_stay_absent() -> None:
    table: dict[str, Any] = {"how": {"method": "beam", "width": 3}}
    fill_defaults(Search, table)
    assert table == {"how": {"method": "beam", "width": 3, "penalty": 0.5}, "own": {"method": "exact"}}


def test_a_key_that_belongs_to_another_choice_is_found_in_a_finished_config() -> None:
    table = asdict(Search())
    assert belongs_elsewhere(Search, table, "how.width").startswith('how.width belongs to how.method = "beam"')
    assert belongs_elsewhere(Search, table, "how.method") == belongs_elsewhere(Search, table, "own") == ""
    assert belongs_elsewhere(Search, asdict(Search(Beam("beam", 3))), "how.width") == ""
