from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import flat_array
from minilm.data.flat_array import FlatArray


@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=30), st.sampled_from([0, 8, 100, 10**6]))
def test_the_values_are_those_of_the_pieces_in_memory_or_in_a_file(pieces, budget):
    array = FlatArray(np.int32, budget)
    for piece in pieces:
        array.add(np.array(piece, np.int32))
    whole = array.whole()
    assert whole.dtype == np.int32 and whole.tolist() == [value for piece in pieces for value in piece]
    assert isinstance(whole, np.memmap) == (4 * sum(map(len, pieces)) > budget)


def test_pieces_are_written_as_they_come(monkeypatch):
    monkeypatch.setattr(flat_array, "JOINED", 3)
    array = FlatArray(np.uint8, budget=10)
    for value in range(100):
        array.add(np.full(7, value, np.uint8))
        assert len(array.pieces) < 3 and sum(map(len, array.joined_pieces)) <= 21
    assert array.whole().tolist() == [value for value in range(100) for _ in range(7)]
