"""Some hundred broken files: each reader answers with a result or a line, in little time and memory.

``make fuzz`` breaks 2,000, and compares the results with those of other readers.
"""

from __future__ import annotations

import os
import random
import sys

import pytest

from tests.fuzzing.cases import CASES, Case
from tests.fuzzing.harness import one, prepare
from tests.fuzzing.mutations import ODD, broken_bytes, broken_json, broken_safetensors, broken_toml

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="processes are forked")
NUMBERS = {"finished run": 4, "interrupted run": 4, "checkpoint": 30, "config.json": 30}  # files; of all others: OTHERS
OTHERS = 15
SEED = 7


@pytest.fixture(scope="module", autouse=True)
def prepared() -> None:
    prepare()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_broken_file_gives_a_result_or_a_line(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcomes = [one(case, f"{SEED}/{i}", compare=False) for i in range(NUMBERS.get(case.name, OTHERS))]
    assert [outcome for outcome in outcomes if not outcome.good] == []
    assert any(outcome.kind == "line" for outcome in outcomes)


def test_a_seed_always_breaks_a_file_in_the_same_way_and_in_most_cases_it_does_break_it() -> None:
    data = b'{"a": [1, 2, {"b": "x"}], "c": 0.5}'
    table = {"a": [1, 2], "c": {"d": "x"}}
    whole = len(data).to_bytes(8, "little") + data + bytes(100)
    for damage in (
        lambda rng: broken_bytes(data, rng), lambda rng: broken_json(data, rng),
        lambda rng: broken_toml(b"a = [1, 2]\n[c]\nd = 'x'\n", rng, table), lambda rng: broken_safetensors(whole, rng),
    ):  # fmt: skip
        files = [damage(random.Random(f"1/{seed}")) for seed in range(100)]
        assert files == [damage(random.Random(f"1/{seed}")) for seed in range(100)]
        assert len(set(files)) > 60
    assert len(ODD) > 30
