from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.errors import UserError
from minilm.model_files import shard_names


@given(st.text())
def test_no_name_that_an_index_gives_leaves_its_folder(name: str) -> None:
    try:
        accepted = shard_names({"weight_map": {"a": name}})
    except UserError:
        return
    assert accepted == [name] and not {"/", "\\", "\0"} & set(name) and Path("folder", name).parent == Path("folder")


@pytest.mark.parametrize("name", ["/etc/x.safetensors", "C:x.safetensors", "a\\b.safetensors", "..", "x.bin", "", 3])
def test_names_of_shards_are_plain(name: object) -> None:
    with pytest.raises(UserError, match=r"not a safetensors file beside it"):
        shard_names({"weight_map": {"a": name}})
    assert shard_names({"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}) == [
        "1.safetensors",
        "2.safetensors",
    ]
    with pytest.raises(UserError, match=r"no weight_map"):
        shard_names({})
