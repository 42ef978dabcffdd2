"""Every token of a text is of exactly one word, and words are what stands between white space, or finer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from minilm.data.long_texts import CUT, LongTexts
from minilm.data.tokenization import encode, load_tokenizer, train_bpe
from minilm.evaluation.words import NO_WORD, read_words

REFERENCE = Path(__file__).parents[1] / "reference"
TEXTS = ["it was a good day, don't!", "  żółty   kot\n\nidzie  ", "日本語 text 😀😀 ok", "abc", "a\u00a0b\tc"]


def without_first_cut() -> Tokenizer:
    """As Llama's: white space is a sign like others, and all of a text is one word to the tokenizer."""
    letters = sorted({letter for text in TEXTS for letter in text} | {"▁"})
    vocabulary = {token: i for i, token in enumerate(["<unk>", *letters, "▁a", "▁go", "od"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "a"), ("o", "d")], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def metaspace() -> Tokenizer:
    """As SentencePiece's: a sign before each word stands for the white space."""
    tokenizer = without_first_cut()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


TOKENIZERS = {
    "bytes": train_bpe(TEXTS * 3, 300),
    "letters": load_tokenizer(REFERENCE / "bert-classify"),
    "one word": without_first_cut(),
    "metaspace": metaspace(),
}


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60)
@given(text=st.one_of(st.sampled_from(TEXTS), st.text("abż ,.\n\t日😀'", min_size=1, max_size=20)), more=st.booleans())
def test_every_token_of_the_text_is_of_one_word_and_words_follow_each_other(name, text, more):
    tokenizer = TOKENIZERS[name]
    [found] = read_words(tokenizer, text, text if more else None, 64)
    special = np.array(tokenizer.encode(text, text if more else None).special_tokens_mask[: len(found.ids)], bool)
    np.testing.assert_array_equal(found.word_of == NO_WORD, special)
    of_text = found.word_of[~special]
    assert set(of_text) == set(range(len(found.words))) and (np.diff(of_text) >= 0).all()
    if text.strip():
        for part in (0, 1) if more else (0,):
            words = [word for word in found.words if word.part == part]
            ends = [0, *(word.end for word in words)]
            for word, before in zip(words, ends, strict=False):
                assert word.text == text[word.start : word.end]
                assert word.text and not any(map(str.isspace, word.text)) and word.start >= before
            assert "".join(word.text for word in words) == "".join(text.split())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bytes", ["it", "was", "a", "good", "day", ",", "don", "'t", "!"]),
        ("letters", ["it", "was", "a", "good", "day,", "don't!"]),
        ("one word", ["it", "was", "a", "good", "day,", "don't!"]),
        ("metaspace", ["it", "was", "a", "good", "day,", "don't!"]),
    ],
)
def test_words_are_as_fine_as_the_tokenizers_first_cut_but_never_hold_white_space(name, expected):
    [found] = read_words(TOKENIZERS[name], TEXTS[0], None, 64)
    assert [word.text for word in found.words] == expected


@pytest.mark.parametrize("how", ["cut", "head-tail", "windows"])
def test_a_long_text_has_the_tokens_that_the_model_reads_also_if_it_is_cut_on_the_left(how):
    tokenizer = Tokenizer.from_str(TOKENIZERS["letters"].to_str())
    tokenizer.enable_truncation(1000, direction="left")
    read = encode(tokenizer, [TEXTS[0]], None, 8, LongTexts(how))
    found = read_words(tokenizer, TEXTS[0], None, 8, LongTexts(how))
    assert np.concatenate([part.ids for part in found]).tolist() == read.ids.tolist()


def test_a_character_of_several_tokens_is_not_torn():
    [found] = read_words(TOKENIZERS["bytes"], "ok 🦊 ok", None, 64)
    assert [word.text for word in found.words] == ["ok", "🦊", "ok"]
    assert (found.word_of == 1).sum() > 1


def test_white_space_alone_is_one_word():
    [found] = read_words(TOKENIZERS["bytes"], " \n ", None, 64)
    assert [(word.start, word.end) for word in found.words] == [(0, 3)]
    assert set(found.word_of[1:-1]) == {0}


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("pair", [None, "a good day and more"])
@pytest.mark.parametrize("limit", [6, 9, 64])
@pytest.mark.parametrize("long", [CUT, LongTexts("head-tail"), LongTexts("windows", stride=2)])
def test_ids_and_segments_are_those_that_the_model_was_trained_on(name, pair, limit, long):
    tokenizer = TOKENIZERS[name]
    encoded = encode(tokenizer, TEXTS[:1], None if pair is None else [pair], limit, long)
    found = read_words(tokenizer, TEXTS[0], pair, limit, long)
    np.testing.assert_array_equal(np.concatenate([piece.ids for piece in found]), encoded.ids)
    assert [len(piece.ids) for piece in found] == np.diff(encoded.offsets).tolist()
    if pair is None:
        assert all(piece.segments is None for piece in found) and encoded.segments is None
    else:
        np.testing.assert_array_equal(np.concatenate([piece.segments for piece in found]), encoded.segments)
    for piece in found:
        assert {*piece.word_of.tolist(), NO_WORD} == {NO_WORD, *range(len(piece.words))}


def test_words_at_a_cut_are_those_whose_tokens_are_read():
    text, tokenizer = "one two three four five six", TOKENIZERS["letters"]  # a token a letter
    windows = read_words(tokenizer, text, None, 9, LongTexts("windows"))
    words = [[word.text for word in piece.words] for piece in windows]
    assert words[:2] == [["one", "two"], ["two", "th"]] and words[-1] == ["ive", "six"]
    [piece] = read_words(tokenizer, text, None, 10, LongTexts("head-tail"))
    assert [word.text for word in piece.words] == ["on", "ve", "six"]
    [piece] = read_words(tokenizer, "abcdefghijklmnop", None, 10, LongTexts("head-tail"))
    assert [(word.text, word.start) for word in piece.words] == [("ab", 0), ("klmnop", 10)]


def test_values_of_tokens_add_up_to_values_of_words_without_the_tokenizers_own():
    [found] = read_words(TOKENIZERS["letters"], "ab c", None, 64)  # [CLS] a b _ c [SEP]
    assert found.add_up(np.array([100.0, 1, 2, 4, 8, 100])).tolist() == [3.0, 12.0]
