"""Tokenization: flat arrays equal the tokenizer's encoding row by row, and a trained one is reproducible."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from minilm import hub
from minilm.data import tokenization
from minilm.data.tokenization import (
    EOS,
    Encoded,
    encode,
    length_statistics,
    load_tokenizer,
    pad_id,
    separate_pairs,
    train_bpe,
)
from minilm.errors import UserError

CORPUS = ["ale sztos, serio", "no nie wiem, ale serio sztos", "Żółć i łzy 🐶", "sztos sztos sztos nie"] * 3


def words(*special: str) -> Tokenizer:
    """A word-level tokenizer, with BERT's special tokens where there are two of them."""
    tokenizer = Tokenizer(
        models.WordLevel({"[UNK]": 0, "ale": 1, "sztos": 2, "nie": 3, "[SEP]": 4, "[CLS]": 5}, "[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 4), ("[CLS]", 5))
    return tokenizer


TOKENIZERS = {"bpe": train_bpe(CORPUS, 300), "bert": words("[CLS]", "[SEP]"), "plain": words()}
TEXTS = st.lists(st.text(st.sampled_from("ale sztos nie Ż🐶,"), min_size=1).filter(str.strip), max_size=9)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("paired", [False, True])
@given(texts=TEXTS, limit=st.integers(4, 12))
def test_encoding_is_the_tokenizers_own_row_by_row(name, paired, texts, limit):
    tokenizer, pairs = TOKENIZERS[name], [text[::-1] + " ale" for text in texts] if paired else None
    found = encode(tokenizer, texts, pairs, limit)
    assert len(found) == len(texts) and found.ids.dtype == np.int32 and (found.segments is not None) == paired
    for i, text in enumerate(texts):
        inputs = (text, pairs[i]) if pairs else (text,)
        assert found.full_lengths[i] == len(tokenizer.encode(*inputs))
        tokenizer.enable_truncation(limit)
        expected = tokenizer.encode(*inputs)
        tokenizer.no_truncation()
        assert found.row(i).tolist() == expected.ids and found.lengths[i] == len(expected) <= limit
        if found.segments is not None:
            assert found.segments[found.offsets[i] : found.offsets[i + 1]].tolist() == expected.type_ids


def test_long_lists_are_encoded_in_chunks(monkeypatch):
    whole = encode(TOKENIZERS["bpe"], CORPUS, CORPUS[::-1], 12)
    monkeypatch.setattr(tokenization, "CHUNK", 5)
    chunked = encode(TOKENIZERS["bpe"], CORPUS, CORPUS[::-1], 12)
    for name in ("ids", "offsets", "segments", "full_lengths"):
        assert np.array_equal(getattr(whole, name), getattr(chunked, name)), name


def test_of_a_pair_the_longer_text_is_cut_and_special_tokens_stay():
    found = encode(TOKENIZERS["bert"], ["ale " * 9], ["sztos"], 7)
    assert found.row(0).tolist() == [5, 1, 1, 1, 4, 2, 4]
    assert found.segments is not None and found.segments.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert found.full_lengths.tolist() == [13]


def test_a_limit_without_room_and_a_text_without_tokens_are_errors():
    with pytest.raises(UserError, match=r"data\.max_tokens must be above 3"):
        encode(TOKENIZERS["bert"], ["ale"], ["nie"], 3)
    with pytest.raises(UserError, match=r"no token in text 2, '\\u2003' .1 such"):
        encode(TOKENIZERS["plain"], ["ale", "\u2003"], None, 8)


def test_bpe_is_reproducible_and_loses_nothing():
    tokenizer = train_bpe(iter(CORPUS), 300)
    assert tokenizer.to_str() == train_bpe(CORPUS, 300).to_str()
    assert 259 < tokenizer.get_vocab_size() <= 300
    for text in ("日本 never seen\n", "  <b> Żółć 🐶"):
        ids = tokenizer.encode(text).ids
        assert [tokenizer.id_to_token(i) for i in (ids[0], ids[-1])] == ["<bos>", "<eos>"]
        assert tokenizer.decode(ids) == text


def test_a_pair_has_an_end_after_each_of_its_texts():
    tokens = train_bpe(CORPUS, 300).encode("ale", "nie").tokens
    assert tokens[0] == "<bos>" and tokens[1] != EOS and tokens.count(EOS) == 2 and tokens[-1] == EOS


def test_bpe_too_small_for_the_bytes_is_an_error():
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size must be at least 259"):
        train_bpe(CORPUS, 258)


def test_what_a_file_stores_of_padding_and_truncation_is_cleared(tmp_path):
    stored = train_bpe(CORPUS, 300)
    stored.enable_truncation(4)
    stored.enable_padding(length=16)
    stored.save(str(tmp_path / "tokenizer.json"))
    for source in (tmp_path, tmp_path / "tokenizer.json"):
        assert load_tokenizer(source).encode(CORPUS[0]).ids == TOKENIZERS["bpe"].encode(CORPUS[0]).ids


def test_a_tokenizer_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer.json: no such file"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="not a readable tokenizer"):
        load_tokenizer(tmp_path)


def test_a_models_name_is_resolved(tmp_path, monkeypatch):
    TOKENIZERS["bpe"].save(str(tmp_path / "tokenizer.json"))
    asked = []
    monkeypatch.setattr(hub, "resolve_model", lambda *a, want: asked.append((*a, want)) or tmp_path)
    assert load_tokenizer("owner/name", "v1").get_vocab_size() == TOKENIZERS["bpe"].get_vocab_size()
    assert asked == [("owner/name", "v1", "tokenizer")]


def gpt(*special: str) -> Tokenizer:
    """A byte-level tokenizer like GPT-2's, which adds nothing to a text and puts nothing between two."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["good film bad book"], trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


@pytest.mark.parametrize(
    ("special", "delimiter"), [(["</s>", "<|endoftext|>"], "<|endoftext|>"), (["</s>"], "</s>"), ([], "Ċ")]
)
def test_a_pair_whose_tokenizer_puts_nothing_between_gets_a_delimiter(special, delimiter):
    tokenizer = gpt(*special)
    first, second = tokenizer.encode("good film").tokens, tokenizer.encode("bad book").tokens
    separate_pairs(tokenizer)
    separate_pairs(tokenizer)
    assert tokenizer.encode("good film").tokens == first
    for same in (tokenizer, Tokenizer.from_str(tokenizer.to_str())):
        found = encode(same, ["good film"], ["bad book"], 20)
        assert [same.id_to_token(i) for i in found.row(0)] == [*first, delimiter, *second]
        assert found.segments.tolist() == [0] * (len(first) + 1) + [1] * len(second)
    long, room = "good film" * 9, len(second)
    cut = encode(tokenizer, [long], ["bad book"], 2 * room + 1)
    tokens = [tokenizer.id_to_token(i) for i in cut.row(0)]
    assert tokens == [*tokenizer.encode(long).tokens[:room], delimiter, *second]
    assert cut.segments.tolist() == [0] * (room + 1) + [1] * room


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_tells_two_texts_apart_stays_as_it_is(name):
    tokenizer = Tokenizer.from_str(TOKENIZERS[name].to_str())
    separate_pairs(tokenizer)
    assert tokenizer.to_str() == TOKENIZERS[name].to_str()


def test_the_padding_token_is_found_by_name_else_any_id_does():
    assert TOKENIZERS["bpe"].id_to_token(pad_id(TOKENIZERS["bpe"])) == "<pad>"
    assert pad_id(TOKENIZERS["plain"]) == 0


def test_length_statistics_are_of_the_full_lengths():
    full = np.array([2, 4, 4, 6, 34])
    short = Encoded(np.zeros(24, np.int32), np.array([0, 2, 6, 10, 16, 24]), None, full)
    assert length_statistics(short, 8) == {
        "mean": 10.0, "median": 4.0, "p95": pytest.approx(28.4),
        "longest": 34, "truncated": 1, "max_tokens": 8, "unread": 0.52, "windows": None,
    }  # fmt: skip


def test_herberts_two_files_make_the_tokenizer_that_transformers_makes_of_them(tmp_path):
    transformers = pytest.importorskip("transformers")
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "l", "e", "s", "z", "t", "o</w>", "e</w>", "s</w>", "al"]
    vocab = {piece: i for i, piece in enumerate([*pieces, "ale</w>", "sz", ",</w>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na l\nal e</w>\ns z\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "HerbertTokenizerFast"}')
    ours = load_tokenizer(tmp_path)
    theirs = transformers.HerbertTokenizer.from_pretrained(tmp_path)
    for text in ("ale", "ale szto, ale", "zażółć ale"):
        assert ours.encode(text).ids == theirs(text)["input_ids"]
    assert ours.encode("ale", "szto").type_ids == theirs("ale", "szto", return_token_type_ids=True)["token_type_ids"]


def test_parts_of_another_familys_tokenizer_are_refused(tmp_path):
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BlenderbotTokenizer"}')
    with pytest.raises(UserError, match="and minilm cannot build BlenderbotTokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("rows", [[], [2], [0, 3, 1], [1, 1]])
def test_taken_texts_keep_their_tokens_segments_and_lengths(rows):
    pairs = encode(
        TOKENIZERS["bert"], ["ale", "ale sztos nie", "nie", "sztos sztos"], ["nie", "ale", "sztos", "ale"], 6
    )
    rows = np.array(rows, dtype=np.int64)
    taken = pairs.take(rows)
    assert [taken.row(i).tolist() for i in range(len(taken))] == [pairs.row(i).tolist() for i in rows]
    assert taken.segments.tolist() == pairs.segments[pairs.places(rows)].tolist()
    assert taken.full_lengths.tolist() == pairs.full_lengths[rows].tolist()
