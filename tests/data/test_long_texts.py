"""Long texts: what is read of them, window by window, and how much is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import tokenization
from minilm.data.long_texts import LongTexts, Windows
from minilm.data.tokenization import Cut, count_cut, encode
from minilm.errors import UserError
from tests.data.test_tokenization import TEXTS, TOKENIZERS

WINDOWS = LongTexts("windows")
LONG = " ".join(f"{word} sztos" for word in ["ale", "nie", "sztos", "nie", "ale"])  # 10 words
IDS = [1, 2, 3, 2, 2, 2, 3, 2, 1, 2]


def rows_of(encoded) -> list[list[int]]:
    return [encoded.row(i).tolist() for i in range(len(encoded))]


def test_windows_begin_a_stride_apart_and_the_last_ends_with_the_text():
    found = encode(TOKENIZERS["bert"], ["ale", LONG], None, 6, LongTexts("windows", stride=3))
    assert rows_of(found) == [
        [5, 1, 4], [5, *IDS[:4], 4], [5, *IDS[3:7], 4], [5, *IDS[6:], 4],
    ]  # fmt: skip
    assert found.windows.starts.tolist() == [0, 1, 4] and found.texts.tolist() == [0, 1, 1, 1]
    assert found.full_lengths.tolist() == [3, 12]
    half = encode(TOKENIZERS["bert"], [LONG], None, 8, WINDOWS)
    assert rows_of(half) == [[5, *IDS[start : start + 6], 4] for start in (0, 3, 4)]


def test_head_and_tail_stay_one_to_three():
    found = encode(TOKENIZERS["bert"], [LONG, "ale"], None, 10, LongTexts("head-tail"))
    assert rows_of(found) == [[5, *IDS[:2], *IDS[4:], 4], [5, 1, 4]] and found.windows is None
    assert rows_of(encode(TOKENIZERS["plain"], [LONG], None, 3, LongTexts("head-tail"))) == [IDS[-3:]]


def test_each_window_of_a_pair_has_the_shorter_text_whole():
    found = encode(TOKENIZERS["bert"], [LONG, "nie"], ["ale", LONG], 8, WINDOWS)
    # room for 5 tokens of text: 1 of the short one, 4 of the long one
    assert rows_of(found)[:4] == [[5, *IDS[start : start + 4], 4, 1, 4] for start in (0, 2, 4, 6)]
    assert rows_of(found)[4:] == [[5, 3, 4, *IDS[start : start + 4], 4] for start in (0, 2, 4, 6)]
    assert found.segments[found.offsets[4] : found.offsets[5]].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    both = encode(TOKENIZERS["bert"], [LONG + " ale"], [LONG], 9, LongTexts("windows", stride=3))
    assert all(row[4:5] == [4] and row[-1] == 4 for row in rows_of(both)) and len(both) == 4
    assert {tuple(row[5:8]) for row in rows_of(both)} == {tuple(IDS[:3])}


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("paired", [False, True])
@given(texts=TEXTS, limit=st.integers(7, 12), stride=st.integers(0, 2), data=st.data())
def test_windows_cover_every_token_and_taken_texts_keep_theirs(name, paired, texts, limit, stride, data):
    tokenizer, pairs = TOKENIZERS[name], [text[::-1] + " ale" for text in texts] if paired else None
    found = encode(tokenizer, texts, pairs, limit, LongTexts("windows", stride))
    cut = encode(tokenizer, texts, pairs, limit)
    assert (found.lengths <= limit).all() and len(found.windows.starts) == len(texts) + 1
    assert found.full_lengths.tolist() == cut.full_lengths.tolist()
    for i in range(len(texts)):
        first, last = found.windows.starts[i : i + 2]
        assert found.row(first).tolist() == cut.row(i).tolist()  # the first window is the text's beginning
        if not paired:
            whole = encode(tokenizer, [texts[i]], None, 1000).row(0).tolist()
            assert {*np.concatenate([found.row(row) for row in range(first, last)])} == {*whole}
            assert last - first == 1 or found.row(last - 1).tolist()[-1] == whole[-1]
    some = np.array(data.draw(st.lists(st.integers(0, len(texts) - 1))) if texts else [], dtype=np.int64)
    taken = found.take(some)
    assert rows_of(taken) == [found.row(row).tolist() for row in found.rows_of(some)]
    assert taken.texts.tolist() == np.repeat(np.arange(len(some)), found.windows.counts[some]).tolist()


def test_a_stride_longer_than_a_window_is_refused():
    with pytest.raises(UserError, match=r"data\.window_stride must be at most 4, the tokens .*, got 5"):
        encode(TOKENIZERS["bert"], [LONG], None, 6, LongTexts("windows", stride=5))


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("paired", [False, True])
def test_a_text_of_megabytes_is_encoded_in_pieces_to_the_same_tokens(name, paired, monkeypatch):
    texts, pairs = [LONG, "ale", LONG * 3, "x" * 40], [LONG, LONG, "nie", "ale"] if paired else None
    whole = encode(TOKENIZERS[name], texts, pairs, 9, WINDOWS)
    monkeypatch.setattr(tokenization, "CHARACTERS", 20)
    monkeypatch.setattr(tokenization, "PIECE", 16)
    pieces = encode(TOKENIZERS[name], texts[:3], None if pairs is None else pairs[:3], 9, WINDOWS)
    assert rows_of(pieces) == rows_of(whole)[: len(pieces)] and len(pieces) > 8
    monkeypatch.setattr(tokenization, "PIECE", 40)
    assert rows_of(encode(TOKENIZERS[name], texts, pairs, 9, WINDOWS)) == rows_of(whole)


def test_what_is_cut_is_counted_and_named_with_what_to_do():
    texts = [LONG] * 9 + ["ale"]
    cut = count_cut(encode(TOKENIZERS["bert"], texts, None, 8), 8)
    assert cut == Cut(texts=10, cut=9, tokens=111, unread=36)
    assert cut.message("texts", 8, 16) == (
        "9 of 10 texts are longer than 8 tokens and are cut, so 32% of all tokens are not read; raise "
        "data.max_tokens (at most 16), or use data.long_texts=windows, which reads whole texts"
    )
    assert cut.message("texts", 8, 8).endswith("are not read; use data.long_texts=windows, which reads whole texts")
    assert count_cut(encode(TOKENIZERS["bert"], texts, None, 8, WINDOWS), 8).message("texts", 8, 0) == ""
    assert Cut(texts=1000, cut=10, tokens=1000, unread=10).message("texts", 8, 0) == ""
    assert Cut(1, 1, 9, 1) + Cut(2, 1, 9, 2) == (3, 2, 18, 3)


def test_windows_are_numbered_text_after_text():
    windows = Windows(np.array([0, 2, 3, 6]), "mean")
    assert windows.rows(np.array([2, 0])).tolist() == [3, 4, 5, 0, 1]
    assert windows.take(np.array([2, 0])).starts.tolist() == [0, 3, 5]
