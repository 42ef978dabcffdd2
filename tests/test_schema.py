"""The schema serves any dataclass, not only a run's sections."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

from minilm.errors import UserError
from minilm.schema import override, read_table, write_table


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
    with pytest.raises(UserError, match=r"plan: several\[2\]\.rang is no known key \(did you mean \"rank\"\?\)"):
        read("[[several]]\nrank = 8\n[[several]]\nrang = 4")
    with pytest.raises(UserError, match=r"plan: several must be sections \[\[several\]\], got \[8\]"):
        read("several = [8]")


def test_an_optional_section_is_absent_or_whole() -> None:
    assert read("") == Plan(adapter=None)
    assert read("[adapter]\nrank = 8") == Plan(adapter=Adapter(8))
    with pytest.raises(UserError, match=r"plan: adapter\.rank is missing: it must be a whole number"):
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
