"""New training texts made from the others: each means about the same as its source, and has its label.

"the cat sat on the mat", with a fifth of its words changed:

    insertion      the cat sat on cat the mat        a word's synonym, or the word again, anywhere in the text
    swap           the mat sat on the cat            two words change places
    deletion       the sat on the mat                a word is left out
    synonyms       the cat sat on the rug            a word of like meaning

(insertion, swap, deletion: Wei and Zou 2019, "EDA", section 2; synonyms: Zhang et al. 2015, section 2.4.) What needs a
model, masked-language substitution and back-translation, is in ``runs/rewriting.py``. All are a ``Method``.

``augment`` makes new rows of training rows with a method. A text that is new in name only is left out: one that equals
a text that is there already, be it in another split, but for case, spaces and punctuation.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import islice
from typing import Any

import numpy as np

from minilm.data.rows import Rows
from minilm.errors import UserError, nearest

RNG = np.random.Generator
Synonyms = Callable[[str], list[str]]  # a word's, the commonest first; none if there are none
Method = Callable[[Sequence[str], Sequence[RNG]], list[str]]  # texts -> as many others, each by its random numbers

SPARE = 3  # more often than the ratio asks for, every row may be tried, to make up for texts that were left out


# --- rows ---


def augment(rows: Rows, method: Method, ratio: float, seed: int, forbidden: Iterable[str] = ()) -> Rows:
    """The N training rows and, after them, round(ratio * N) new ones with the labels and second texts of their sources.

    Rows are drawn without replacement, and all anew once all were drawn. What a row becomes depends on the method, the
    seed, the row's number and how often it was drawn, and on no other row. Where a text is left out, the next row is
    drawn; so there are fewer new rows only if the method finds too little to change.

    Args:
        rows: of the training split, no other.
        method: what makes a text of a text.
        ratio: from 0 to 2.
        seed: of the drawing and of the method.
        forbidden: what no new text may equal: the texts of the validation and test splits.
    """
    if not 0 <= ratio <= 2:
        raise UserError(f"the ratio of new texts must be a number from 0 to 2, got {ratio}")
    wanted = round(ratio * len(rows))
    known = {_key(text) for text in (*rows.texts, *forbidden)}
    draws = ((turn, int(row)) for turn in range(int(ratio) + 1 + SPARE) for row in _order(len(rows), seed, turn))
    sources: list[int] = []
    texts: list[str] = []
    while drawn := list(islice(draws, wanted - len(texts))):  # as many as are missing: the models write side by side
        rngs = [np.random.default_rng([seed, 1, turn, row]) for turn, row in drawn]
        made = method([rows.texts[row] for _, row in drawn], rngs)
        for (_, row), text in zip(drawn, made, strict=True):
            if (key := _key(text)) and key not in known:
                known.add(key)
                sources.append(row)
                texts.append(text.strip())
    more = rows.take(np.array(sources, dtype=np.int64))
    pairs = None if rows.pairs is None else rows.pairs + (more.pairs or [])
    return Rows(rows.texts + texts, pairs, np.concatenate([rows.labels, more.labels]))


def _order(rows: int, seed: int, turn: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, turn]).permutation(rows)


def _key(text: str) -> str:
    """What near-copies have in common: the text without case and punctuation, unless it is only punctuation."""
    bare = "".join(" " if unicodedata.category(c).startswith("P") else c for c in text.lower())
    return " ".join((bare if bare.strip() else text).split())


# --- words: (words, how many of them to change, random numbers) -> words ---


def insertion(words: Sequence[str], number: int, rng: RNG, synonyms: Synonyms | None = None) -> list[str]:
    """So many times, a random synonym of a random word is put in at a random place; without ``synonyms``, the word."""
    known = {word: _synonyms_of(word, synonyms) if synonyms else [split_word(word)[1]] for word in words}
    able = [word for word in words if any(known[word])]
    new = list(words)
    for _ in range(number if able else 0):
        choices = known[able[rng.integers(len(able))]]
        new.insert(rng.integers(len(new) + 1), choices[rng.integers(len(choices))])
    return new


def swap(words: Sequence[str], number: int, rng: RNG) -> list[str]:
    """So many times, two random words change places."""
    new = list(words)
    for _ in range(number if len(new) > 1 else 0):
        i, j = rng.choice(len(new), 2, replace=False)
        new[i], new[j] = new[j], new[i]
    return new


def deletion(words: Sequence[str], number: int, rng: RNG) -> list[str]:
    """Each word is left out with probability number / words; if all are, a random one stays."""
    kept = rng.random(len(words)) * len(words) >= number
    if words and not kept.any():
        kept[rng.integers(len(words))] = True
    return [word for word, stays in zip(words, kept, strict=True) if stays]


def synonyms(words: Sequence[str], number: int, rng: RNG, synonyms: Synonyms) -> list[str]:
    """So many random words, of those that have any, are replaced by a synonym: the first with probability 1/2, the next
    with 1/4, and so on. Punctuation around a word and its capital letters stay."""
    known = {word: _synonyms_of(word, synonyms) for word in words}
    able = [place for place, word in enumerate(words) if known[word]]
    new = list(words)
    for place in rng.permutation(able)[:number]:
        before, core, after = split_word(words[place])
        choices = known[words[place]]
        choice = choices[(int(rng.geometric(0.5)) - 1) % len(choices)]
        if core.isupper() and len(core) > 1:
            choice = choice.upper()
        elif core[:1].isupper():
            choice = choice[:1].upper() + choice[1:]
        new[place] = before + choice + after
    return new


def split_word(word: str) -> tuple[str, str, str]:
    """What is before a word's letters, they, and what is after: ("(", "cat", "),")."""
    before, core, after = re.fullmatch(r"(\W*)(.*?)(\W*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
    return before, core, after


def _synonyms_of(word: str, synonyms: Synonyms) -> list[str]:
    core = split_word(word)[1].lower()
    return [other for other in synonyms(core) if other.lower() != core] if core else []


WORD_METHODS: dict[str, Callable[..., list[str]]] = {
    "insertion": insertion,
    "swap": swap,
    "deletion": deletion,
    "synonyms": synonyms,
}


def by_words(name: str, fraction: float = 0.1, synonyms: Synonyms | None = None) -> Method:
    """A method of ``WORD_METHODS``, which changes this fraction of a text's words, and one at least.

    synonyms: "synonyms" needs them, "insertion" is as published with them. Raises UserError for an unknown name.
    """
    if name not in WORD_METHODS:
        known = ", ".join(WORD_METHODS)
        raise UserError(f'no augmentation method "{name}"{nearest(name, WORD_METHODS)}; there are: {known}')
    if name == "synonyms" and synonyms is None:
        raise UserError("to replace words by synonyms, give the synonyms: those of wordnet(), or a function of yours")
    more = (synonyms,) if name in ("insertion", "synonyms") else ()

    def change(text: str, rng: RNG) -> str:
        words = text.split()
        return " ".join(WORD_METHODS[name](words, max(1, round(fraction * len(words))), rng, *more))

    return lambda texts, rngs: [change(text, rng) for text, rng in zip(texts, rngs, strict=True)]


# --- synonyms ---

# Common English function words. WordNet has other words that are spelled so: "a" is an
# angstrom to it, "in" an inch, "was" the state of Washington.
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a about above after again against all also am an and any are as at be because been before being below
        between both but by can could did do does doing don down during each few for from further had has have
        having he her here hers him himself his how i if in into is it its itself just may me might more most must
        my myself no nor not now of off on once one only or other our ours out over own s same shall she should so
        some such t than that the their theirs them then there these they this those through to too two under until
        up us very was we were what when where which while who whom why will with would you your yours
        """,
    )
)


def wordnet() -> Synonyms:
    """English synonyms from WordNet (Miller 1995): the words of every meaning of a word, the commonest meaning first.

    Raises UserError if nltk, which reads WordNet, or WordNet itself is missing.
    """
    try:
        corpus: Any = importlib.import_module("nltk.corpus").wordnet
    except ImportError:
        missing = "synonyms are read from WordNet by nltk, which is missing: pip install 'minilm[augmentation]'"
        raise UserError(missing) from None
    try:
        corpus.ensure_loaded()
    except LookupError:
        raise UserError("nltk is there, WordNet's data are not: python -m nltk.downloader wordnet") from None

    @cache
    def synonyms(word: str) -> list[str]:
        if word in STOP_WORDS:
            return []
        names = (lemma.name().replace("_", " ") for meaning in corpus.synsets(word) for lemma in meaning.lemmas())
        return [name for name in dict.fromkeys(names) if name.lower() != word]

    return synonyms
