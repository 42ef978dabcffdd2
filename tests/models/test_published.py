"""The page of well-known checkpoints is true and current: each configuration gives the reference's numbers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("transformers")

from tests.models.published import published
from tests.models.test_against_transformers import CHECKPOINTS

ROOT = Path(__file__).parents[2]
ROWS = {row.name: row for row in published()}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_checkpoints", ROOT / "docs" / "make_checkpoints.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = load()
OUTCOMES = {name: MAKE.refusal_of(row) or MAKE.EQUAL for name, row in ROWS.items()}


@pytest.mark.parametrize("name", [name for name in ROWS if name not in CHECKPOINTS])  # which are compared already
def test_what_the_page_says_of_a_checkpoint_is_so(name: str) -> None:
    assert MAKE.outcome_of(ROWS[name]) == OUTCOMES[name]


def test_the_page_is_current() -> None:
    assert MAKE.PAGE.read_text(encoding="utf-8") == MAKE.page(OUTCOMES), "run `make docs`"


def test_at_least_55_of_60_are_equal_and_every_other_names_a_substitute() -> None:
    assert len(ROWS) == len(published()) == 60
    assert sum(outcome == MAKE.EQUAL for outcome in OUTCOMES.values()) >= 55
    assert all(outcome == MAKE.EQUAL or "; use " in outcome for outcome in OUTCOMES.values())
