"""New training texts keep their labels, are new, come in the number asked for, and never leak from another split."""

from __future__ import annotations

import importlib
from collections import Counter
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.data.augmentation import augment, by_words, deletion, insertion, swap, synonyms, wordnet
from minilm.data.rows import Rows
from minilm.errors import UserError

KNOWN = {"cat": ["kitty", "feline"], "mat": ["rug"], "sat": ["sat", "rested"]}
WORDS = ["the", "cat", "sat", "on", "the", "mat", "and", "looked", "at", "a", "dog"]


def like(word: str) -> list[str]:
    return KNOWN.get(word, [])


def rows_of(*texts: str, pairs: bool = False) -> Rows:
    """Each text with its own label, and its own second text."""
    return Rows(list(texts), [f"second {i}" for i in range(len(texts))] if pairs else None, np.arange(len(texts)))


def some_rows(number: int = 20) -> Rows:
    return rows_of(*(f"row {i} says that the cat sat on the mat" for i in range(number)))


def numbered(texts: list[str], randoms: list[np.random.Generator]) -> list[str]:
    """A method that always finds something new to say."""
    return [f"{text} {random.integers(10**9)}" for text, random in zip(texts, randoms, strict=True)]


lists_of_words = st.lists(st.sampled_from([*WORDS, "CAT!", "(Mat),", "!?"]), min_size=1, max_size=12)
numbers, seeds = st.integers(1, 5), st.integers(0, 99).map(np.random.default_rng)


# --- words ---


@settings(max_examples=40)
@given(lists_of_words, numbers, seeds)
def test_insertion_adds_so_many_words_and_changes_no_other(words: list[str], number: int, random) -> None:
    new = insertion(words, number, random, like)
    added = Counter(new) - Counter(words)
    able = any(word.strip("()!?,").lower() in KNOWN for word in words)
    assert len(new) == len(words) + number * able
    assert not Counter(words) - Counter(new)
    assert set(added) <= {"kitty", "feline", "rug", "rested"}


def test_insertion_without_synonyms_repeats_a_word_of_the_text() -> None:
    new = insertion(["(cat)", "sat,", "!"], 3, np.random.default_rng(0))
    assert len(new) == 6 and set(Counter(new) - Counter(["(cat)", "sat,", "!"])) <= {"cat", "sat"}


@settings(max_examples=40)
@given(lists_of_words, numbers, seeds)
def test_swap_moves_words_and_keeps_them_all(words: list[str], number: int, random) -> None:
    new = swap(words, number, random)
    assert Counter(new) == Counter(words)
    assert sum(a != b for a, b in zip(words, new, strict=True)) <= 2 * number


@settings(max_examples=40)
@given(lists_of_words, numbers, seeds)
def test_deletion_leaves_words_in_order_and_one_at_least(words: list[str], number: int, random) -> None:
    new = deletion(words, number, random)
    rest = iter(words)
    assert new and all(word in rest for word in new)


def test_deletion_takes_the_share_that_is_asked_for_on_average() -> None:
    random = np.random.default_rng(0)
    left = [len(deletion(WORDS, 3, random)) for _ in range(500)]
    assert np.mean(left) == pytest.approx(len(WORDS) - 3, abs=0.3)


def test_a_synonym_keeps_the_punctuation_and_the_capitals_of_its_word() -> None:
    new = synonyms(["(Mat),", "MAT!", "dog", "...", "mat"], 9, np.random.default_rng(0), like)
    assert new == ["(Rug),", "RUG!", "dog", "...", "rug"]


def test_the_first_synonym_is_the_likeliest_and_a_word_is_not_its_own() -> None:
    random = np.random.default_rng(0)
    found = Counter(synonyms(["cat", "sat", "dog"], 1, random, like)[0] for _ in range(400))
    assert found["kitty"] > found["feline"] > 0
    assert synonyms(["sat"], 1, random, like) == ["rested"]


@pytest.mark.parametrize("name", ["insertion", "swap", "deletion", "synonyms"])
@pytest.mark.parametrize("text", ["dog", "cat", "?", "", "  "])
def test_single_words_survive(name: str, text: str) -> None:
    [new] = by_words(name, 0.5, like)([text], [np.random.default_rng(1)])
    assert bool(new) == bool(text.strip())
    assert new == text.strip() or name in ("insertion", "synonyms")


def test_an_unknown_method_and_synonyms_without_synonyms_are_told() -> None:
    with pytest.raises(UserError, match=r'unknown augmentation method "swop".*did you mean "swap"'):
        by_words("swop")
    with pytest.raises(UserError, match="needs the argument synonyms"):
        by_words("synonyms")


# --- rows ---


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0, 1.7, 2.0])
def test_so_many_rows_are_added_with_the_labels_and_second_texts_of_their_sources(ratio: float) -> None:
    rows = rows_of(*(f"text {i}" for i in range(20)), pairs=True)
    new = augment(rows, numbered, ratio, seed=3)
    assert len(new) == 20 + round(ratio * 20) == len(new.texts) == len(new.pairs or [])
    assert new.texts[:20] == rows.texts and new.labels[:20].tolist() == list(range(20))
    for text, second, label in zip(new.texts, new.pairs or [], new.labels, strict=True):
        assert text.startswith(f"text {label}") and second == f"second {label}"
    drawn = Counter(new.labels[20:].tolist())  # without replacement: no row a second time before all were drawn
    assert max(drawn.values(), default=0) <= np.ceil(ratio) and (ratio < 1 or len(drawn) == 20)


def test_several_labels_a_text_are_kept() -> None:
    rows = Rows(["one", "two"], None, np.array([[1, 0, 1], [0, 1, 0]]))
    new = augment(rows, numbered, 2, seed=0)
    assert new.labels.shape == (6, 3)
    assert all(
        (row == rows.labels[int(text.startswith("two"))]).all() for text, row in zip(new.texts, new.labels, strict=True)
    )


def test_near_copies_and_texts_of_other_splits_are_left_out_and_other_rows_make_up_for_them() -> None:
    said = {"a": " A ", "b": "the  TEST text", "c": "C2", "d": "c2", "e": "", "f": "A", "g": "really new"}
    new = augment(rows_of(*said), lambda texts, _: [said[t] for t in texts], 1, seed=0, forbidden=["The test Text"])
    assert sorted(text.lower() for text in new.texts[7:]) == ["c2", "really new"]
    assert augment(rows_of(*said), lambda texts, _: [said[t] for t in texts], 1 / 7, seed=0).texts[7:]


def test_punctuation_makes_no_text_new_in_any_split() -> None:
    said = {"The cat sat": "the cat sat.", "a": "(A), test -- text!", "!?": "?!", "b": "really: new"}
    new = augment(rows_of(*said), lambda texts, _: [said[t] for t in texts], 1, seed=0, forbidden=["a test text"])
    assert sorted(new.texts[4:]) == ["?!", "really: new"]


@settings(max_examples=15)
@given(
    st.lists(st.sampled_from(["a b", "b a", "A  b", "a", "b", "a a"]), min_size=1, max_size=6, unique=True), st.data()
)
def test_no_text_of_another_split_ever_appears(texts: list[str], data: st.DataObject) -> None:
    forbidden = data.draw(st.lists(st.sampled_from(["B A", "b", "a b a"]), max_size=3))
    name = data.draw(st.sampled_from(["insertion", "swap", "deletion"]))
    new = augment(rows_of(*texts), by_words(name, 0.4), 2, data.draw(st.integers(0, 9)), forbidden).texts[len(texts) :]
    keys = [" ".join(text.lower().split()) for text in new]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & {" ".join(text.lower().split()) for text in (*texts, *forbidden)}


def test_what_a_row_becomes_depends_on_the_seed_and_the_row_alone() -> None:
    method, rows = by_words("swap", 0.5), some_rows()
    first, again, other = (augment(rows, method, 1, seed).texts for seed in (1, 1, 2))
    assert first == again != other
    changed = Rows([*rows.texts[:-1], "something else altogether here"], None, rows.labels)
    kept = [text for text in augment(changed, method, 1, 1).texts[20:] if text.count("row")]
    assert set(kept) <= set(first) and len(kept) >= 19
    smaller = augment(rows, method, 0.5, 1).texts
    assert smaller == first[: len(smaller)]  # a larger ratio adds to what a smaller one has


def test_a_ratio_out_of_range_is_told() -> None:
    with pytest.raises(UserError, match=r"from 0 to 2, got 2.5"):
        augment(some_rows(), numbered, 2.5, 0)


# --- WordNet ---


def meaning(*names: str) -> SimpleNamespace:
    return SimpleNamespace(lemmas=lambda: [SimpleNamespace(name=lambda name=name: name) for name in names])


def with_nltk(corpus: object) -> mock._patch:
    """A stand-in for nltk and its data."""
    return mock.patch.object(importlib, "import_module", lambda name: SimpleNamespace(wordnet=corpus))


def test_wordnets_synonyms_are_those_of_all_meanings_in_order() -> None:
    meanings = {"dog": [meaning("dog", "domestic_dog"), meaning("frump", "dog"), meaning("Domestic_dog", "frump")]}
    corpus = SimpleNamespace(ensure_loaded=lambda: None, synsets=lambda word: meanings.get(word, [meaning("angstrom")]))
    with with_nltk(corpus):
        found = wordnet()
        assert found("dog") == ["domestic dog", "frump", "Domestic dog"]
        assert found("a") == []


@pytest.mark.parametrize("error", [LookupError("Resource wordnet not found"), OSError("No such file: lexnames")])
def test_what_is_missing_for_wordnet_is_named(error: Exception) -> None:
    def missing() -> None:
        raise error

    with (
        mock.patch.dict("sys.modules", {"nltk": None, "nltk.corpus": None}),
        pytest.raises(UserError, match=r"pip install -e .*\[augmentation\]"),
    ):
        wordnet()
    with with_nltk(SimpleNamespace(ensure_loaded=missing)), pytest.raises(UserError, match=r"nltk.downloader wordnet"):
        wordnet()
