"""Texts without labels: a file that is not there is told with one like it that can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilm.data.corpus import read_texts
from minilm.errors import UserError


def test_a_hint_is_near_in_name_and_can_be_read(tmp_path: Path) -> None:
    for name in ("one.csv", "remark.txt", "texts.sh", "texts.tsv"):
        (tmp_path / name).touch()
    hints = [
        ("nope.txt", ""),
        ("remarks.txt", ' (did you mean "remark.txt"?)'),
        ("text.txt", ' (did you mean "texts.tsv"?)'),
    ]
    for name, hint in hints:
        with pytest.raises(UserError) as error:
            read_texts(tmp_path / name, ["text"], str)
        assert str(error.value) == f"{tmp_path / name}: cannot be read: No such file or directory{hint}"
