"""No setting of config.json is ignored: changed one at a time, each gives the reference's numbers or is refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from minilm.models import ARCHITECTURES
from tests.models.single_settings import Change, changes_of, kinds, outcome

GOOD = ("equal", "refused", "refused by both")
CHANGES = {str(change): change for kind in dict.fromkeys(kinds()) for change in changes_of(kind)}
QUICK = 90  # of them, other ones in every run of the tests unless it is CI
# Our readers and the reference differ on purpose, and nobody is misled.
ALLOWED: dict[str, str] = {}


def check(change: Change, folder: Path) -> None:
    found = outcome(change, folder)
    assert found.what in GOOD or str(change) in ALLOWED, f"{change}: {found.what} {found.message}"
    if found.what == "refused":
        assert str(folder) in found.message


def test_every_family_and_class_is_swept() -> None:
    swept = {change.kind for change in CHANGES.values()}
    assert {kind for family in ARCHITECTURES.values() for kind in family.classes.values()} == swept
    assert set(ALLOWED) <= set(CHANGES)


@pytest.mark.parametrize("number", range(QUICK))
def test_a_setting_drawn_at_random_is_followed_or_refused(number: int, tmp_path: Path) -> None:
    name = random.Random(number).choice(list(CHANGES))
    check(CHANGES[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", dict.fromkeys(kinds()))
def test_every_setting_is_followed_or_refused(kind: str, tmp_path: Path) -> None:
    for number, change in enumerate(changes_of(kind)):
        (folder := tmp_path / str(number)).mkdir()
        check(change, folder)
