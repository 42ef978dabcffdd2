"""Masks and spans: the right share, of the right tokens, the same for the same arguments, and nothing lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from minilm.data.masking import (
    FIXED,
    IGNORED,
    MaskedWords,
    NextTokens,
    Spans,
    corrupted_batch,
    pack,
    special_ids,
    with_ends,
    without_special,
    word_numbers,
)
from minilm.data.tokenization import Encoded, encode, load_tokenizer, train_bpe
from minilm.errors import UserError

TEXTS = [
    "the unbelievable doctor prescribes antibiotics",
    "don't take unprescribed antibiotics, unbelievably",
    "doctors describe it well",
]


def bert() -> Tokenizer:
    """WordPiece with few words, so that many are in pieces."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=60, special_tokens=special))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def albert() -> Tokenizer:
    """SentencePiece's unigrams."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.UnigramTrainer(vocab_size=40, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def roberta() -> Tokenizer:
    """Byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


MASKED = {"bert": bert(), "albert": albert(), "roberta": roberta()}


def blocks_of(tokenizer: Tokenizer, block: int = 16) -> tuple[Encoded, np.ndarray]:
    encoded = encode(tokenizer, TEXTS, None, 10**6)
    return pack(encoded, block), word_numbers(tokenizer, TEXTS)


def asked(corruption: MaskedWords, blocks: Encoded, epoch: int = 0, **options: object) -> tuple[np.ndarray, np.ndarray]:
    """What is read and asked of all tokens, block after block."""
    rows = [np.array([i]) for i in range(len(blocks))]
    parts = [corrupted_batch(corruption, blocks, row, seed=1, epoch=epoch, pad=0, **options) for row in rows]
    return tuple(torch.cat([getattr(part, name)[0] for part in parts]).numpy() for name in ("ids", "labels"))


# --- Packing ---


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(8, 40))
def test_packing_loses_nothing_but_a_short_rest(lengths: list[int], block: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    packed = pack(Encoded(np.arange(offsets[-1], dtype=np.int32), offsets, None, np.array(lengths)), block)
    assert set(packed.lengths[:-1]) <= {block} and 0 < packed.lengths[-1] <= block
    assert packed.ids.tolist() == list(range(len(packed.ids))) and packed.offsets[-1] == len(packed.ids)
    lost = offsets[-1] - len(packed.ids)
    assert lost < 8 and (lost == 0 or offsets[-1] >= 8)
    assert packed.lengths[-1] >= 8 or len(packed) == 1


def test_ends_are_added_and_special_tokens_are_left_out() -> None:
    encoded = Encoded(np.array([5, 1, 6, 7, 1], np.int32), np.array([0, 2, 5]), None, np.array([2, 3]))
    ended = with_ends(encoded, 9)
    assert [ended.row(i).tolist() for i in range(2)] == [[5, 1, 9], [6, 7, 1, 9]]
    plain = without_special(encoded, np.arange(10) == 1)
    assert [plain.row(i).tolist() for i in range(2)] == [[5], [6, 7]]


# --- Masked words ---


@given(st.sampled_from(sorted(MASKED)), st.floats(0.01, 0.9), st.booleans(), st.integers(0, 5), st.integers(8, 40))
def test_only_ordinary_tokens_are_asked_and_as_many_as_said(
    name: str, share: float, whole: bool, epoch: int, block: int
) -> None:
    tokenizer = MASKED[name]
    blocks, words = blocks_of(tokenizer, block)
    corruption = MaskedWords.of(tokenizer, share, tokenizer.get_vocab_size())
    read, labels = asked(corruption, blocks, epoch, words=words if whole else None)
    special = special_ids(tokenizer)
    assert not special[labels[labels >= 0]].any() and (read == blocks.ids)[labels < 0].all()
    assert (labels == blocks.ids)[labels >= 0].all()
    assert set(np.flatnonzero(special)) & set(read[labels >= 0]) <= {corruption.mask}
    for first, last in zip(blocks.offsets, blocks.offsets[1:], strict=False):
        ordinary, number = (~special[blocks.ids[first:last]]).sum(), (labels[first:last] >= 0).sum()
        if not whole:
            assert number == max(1, round(share * ordinary))
        else:
            pieces = words[first:last]
            of_asked = np.isin(pieces, pieces[labels[first:last] >= 0])
            assert (of_asked == (labels[first:last] >= 0)).all()  # wholly, or not at all
            assert 1 <= number <= max(round(share * ordinary), np.bincount(pieces[pieces >= 0]).max())


def test_of_what_is_asked_80_percent_is_hidden_and_10_percent_is_another_word() -> None:
    ids = np.resize(np.arange(5, 1005, dtype=np.int32), 60_000)
    corruption = MaskedWords(0.5, 4, np.arange(1005) < 5, np.arange(5, 1005))
    blocks = pack(Encoded(ids, np.array([0, len(ids)]), None, np.array([len(ids)])), 600)
    read, labels = asked(corruption, blocks)
    chosen = labels >= 0
    assert chosen.sum() == 30_000
    hidden, kept = (read[chosen] == 4).mean(), (read[chosen] == ids[chosen]).mean()
    changed = 1 - hidden - kept
    # Four standard deviations of a binomial share of 30,000; a random word is the same one in a thousand times.
    assert abs(hidden - 0.8) < 0.0093 and abs(kept - 0.1001) < 0.007 and abs(changed - 0.0999) < 0.007
    drawn = read[chosen][(read[chosen] != 4) & (read[chosen] != ids[chosen])]
    assert drawn.min() >= 5 and len(set(drawn.tolist())) > 900
    places = np.flatnonzero(chosen) % 600
    assert abs(places.mean() - 299.5) < 4  # no place in a block is preferred


def test_peers_mask_the_same_share_of_the_same_tokens() -> None:
    """With ``transformers``' collator: what is asked may differ by chance, not what can be asked."""
    peer = PreTrainedTokenizerFast(
        tokenizer_object=MASKED["bert"], mask_token="[MASK]", pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip
    blocks, _ = blocks_of(MASKED["bert"])
    collator = DataCollatorForLanguageModeling(peer, mlm_probability=0.5, seed=3)
    possible = np.zeros(len(blocks.ids), bool)
    for _ in range(30):
        rows = [{"input_ids": blocks.row(i).tolist()} for i in range(len(blocks))]
        labels = collator(rows)["labels"].numpy()
        possible |= np.concatenate([row[:n] >= 0 for row, n in zip(labels, blocks.lengths, strict=True)])
    assert (possible == ~special_ids(MASKED["bert"])[blocks.ids]).all()


@given(st.integers(0, 2**32 - 1), st.integers(-1, 50), st.permutations(range(12)))
def test_what_is_hidden_hangs_on_seed_epoch_and_block_alone(seed: int, epoch: int, order: list[int]) -> None:
    ids = np.arange(10, 12 * 32 + 10, dtype=np.int32)
    blocks = pack(Encoded(ids, np.array([0, len(ids)]), None, np.array([len(ids)])), 32)
    corruption = MaskedWords(0.15, 4, np.arange(400) < 5, np.arange(5, 400))

    def batch(rows: list[int], seed: int = seed, epoch: int = epoch) -> torch.Tensor:
        batch = corrupted_batch(corruption, blocks, np.array(rows), seed=seed, epoch=epoch, pad=0)
        assert batch.labels is not None and batch.mask is None
        return torch.stack([batch.ids, batch.labels])

    together = batch(list(range(12)))
    assert torch.equal(together[:, order], batch(order)) and torch.equal(together[:, 5:6], batch([5]))
    assert not torch.equal(together, batch(list(range(12)), epoch=epoch + 1))
    assert not torch.equal(together, batch(list(range(12)), seed=(seed + 1) % 2**32))
    assert len({tuple((row - row[0]).tolist()) for row in together[1]}) == 12  # other places in each block


@pytest.mark.parametrize(
    ("name", "words"),
    [("bert", ["don", "'", "t", "take"]), ("albert", ["don't", "take"]), ("roberta", ["don", "'t", "take"])],
)
def test_words_are_those_that_the_tokenizer_splits(name: str, words: list[str]) -> None:
    tokenizer = MASKED[name]
    encoded, numbers = encode(tokenizer, TEXTS, None, 10**6), word_numbers(tokenizer, TEXTS)
    assert len(numbers) == len(encoded.ids)
    assert ((numbers < 0) == special_ids(tokenizer)[encoded.ids]).all()
    second = encoded.row(1)[1:], numbers[encoded.offsets[1] + 1 : encoded.offsets[2]]
    found = [tokenizer.decode(second[0][second[1] == number].tolist()).strip() for number in np.unique(second[1])[1:]]
    assert found[: len(words)] == words
    assert len(np.unique(numbers[numbers >= 0])) == sum(
        len({w for w in tokenizer.encode(text).word_ids if w is not None}) for text in TEXTS
    )


def test_a_tokenizer_must_have_a_mask_and_words() -> None:
    with pytest.raises(UserError, match=r"the tokenizer has no mask token \(\[MASK\] or <mask>"):
        MaskedWords.of(train_bpe(TEXTS, 300), 0.15, 300)
    with pytest.raises(UserError, match="the model has no mask token"):
        MaskedWords.of(MASKED["bert"], 0.15, 4)
    characters = Tokenizer(models.BPE({"a": 0, "b": 1, " ": 2}, []))
    with pytest.raises(UserError, match="does not split texts into words"):
        word_numbers(characters, ["a b"])


def test_no_random_word_is_outside_the_model() -> None:
    assert MaskedWords.of(MASKED["bert"], 0.15, 30).random_ids.tolist() == list(range(5, 30))


# --- Spans ---

SENTINELS = np.arange(1000, 1100)


def restored(read: list[int], write: list[int]) -> list[int]:
    """The text, from what the encoder reads and the decoder writes."""
    assert read[-1] == write[-1] == 1
    spans: dict[int, list[int]] = {}
    for token in write[:-1]:
        if token >= 1000:
            spans[token] = current = []
        else:
            current.append(token)
    assert list(spans) == list(range(1000, 1000 + len(spans))) and spans[999 + len(spans)] == []
    return [token for number in read[:-1] for token in spans.get(number, [number])]


@given(st.integers(2, 300), st.floats(0.01, 0.6), st.floats(1.0, 9.0), st.integers(0, 1000))
def test_inputs_and_targets_give_the_text_back(length: int, share: float, mean: float, seed: int) -> None:
    ids = np.arange(2, length + 2)
    corruption = Spans(share, mean, np.arange(1000, 2000), 1)
    taken, spans = corruption.amounts(length)
    read, write = corruption.corrupt(ids, None, np.random.default_rng(seed))
    assert restored(read.tolist(), write.tolist()) == ids.tolist()
    assert len(read) == length - taken + spans + 1 and len(write) == taken + spans + 2
    assert read[0] == 2 and (np.diff(np.flatnonzero(read >= 1000)) > 1).all()  # between two spans something is left
    assert taken == min(max(round(share * length), 1), length - 1)
    assert spans == max(1, min(round(taken / mean), taken, length - taken))


def test_a_single_token_is_read_and_nothing_written() -> None:
    read, write = Spans(0.15, 3.0, SENTINELS, 1).corrupt(np.array([7]), None, np.random.default_rng(0))
    assert restored(read.tolist(), write.tolist()) == [7]


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_spans_are_three_tokens_long_on_average_and_all_cuts_as_likely(seed: int) -> None:
    corruption, random = Spans(0.15, 3.0, SENTINELS, 1), np.random.default_rng(seed)
    assert corruption.amounts(128) == (19, 6) and corruption.amounts(512) == (77, 26)  # T5's own numbers
    firsts = []
    for _ in range(300):
        _, write = corruption.corrupt(np.arange(2, 514), None, random)
        firsts.append(np.flatnonzero(write == 1001)[0] - 1)  # tokens of the first span
    assert abs(np.mean(firsts) - 77 / 26) < 5 * 2.4 / 300**0.5 and min(firsts) == 1


def t5(sentinels: int, end: str = "</s>") -> Tokenizer:
    tokenizer = train_bpe(TEXTS, 300)
    tokenizer.add_special_tokens([end, *(f"<extra_id_{i}>" for i in range(sentinels))])
    return tokenizer


def test_a_tokenizer_must_have_sentinels_and_enough_of_them() -> None:
    assert len(Spans.of(t5(10), 0.15, 3.0, 128).sentinels) == 10
    with pytest.raises(UserError, match="has no sentinels"):
        Spans.of(t5(0), 0.15, 3.0, 128)
    with pytest.raises(UserError, match="has no </s>"):
        Spans.of(t5(10, "<end>"), 0.15, 3.0, 128)
    with pytest.raises(UserError, match="a block of 128 tokens needs 7 sentinels, but the tokenizer has 6"):
        Spans.of(t5(6), 0.15, 3.0, 128)


# --- Next tokens, and batches ---


def test_the_next_token_is_one_to_the_right() -> None:
    ids, labels = NextTokens().corrupt(np.array([4, 5, 6]), None, np.random.default_rng(0))
    assert ids.tolist() == [4, 5, 6] and labels.tolist() == [5, 6, IGNORED]


def test_blocks_of_other_lengths_are_padded_where_nothing_is_asked() -> None:
    blocks = Encoded(np.arange(10, 15), np.array([0, 3, 5]), None, np.array([3, 2]))
    batch = corrupted_batch(NextTokens(), blocks, np.array([1, 0]), seed=0, epoch=FIXED, pad=9)
    assert batch.ids.tolist() == [[13, 14, 9], [10, 11, 12]] and batch.ids.dtype == torch.int64
    assert batch.mask is not None and batch.mask.tolist() == [[True, True, False], [True] * 3]
    assert batch.labels is not None and batch.labels.tolist() == [[14, -100, -100], [11, 12, -100]]


@pytest.mark.skipif(not Path("weights/minilm/tokenizer.json").exists(), reason="the checkpoint is not here")
def test_a_real_tokenizer_masks_whole_words() -> None:
    tokenizer = load_tokenizer("weights/minilm")
    words = word_numbers(tokenizer, ["unbelievable dermatofibrosarcoma"])
    assert words.tolist() == [-1, 0, *[1] * (len(words) - 3), -1]
