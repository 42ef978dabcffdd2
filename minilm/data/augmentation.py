"""Data augmentation: new training texts, made from the existing ones. Each keeps about the meaning of its source text
and gets the source's label.

The methods that change words, for "the cat sat on the mat", if they change 20% of the words:

    insertion      the cat sat on cat the mat        insert a synonym of a word, or the word again, at any place
    swap           the mat sat on the cat            exchange two words
    deletion       the sat on the mat                remove a word
    synonyms       the cat sat on the rug            replace a word by a synonym

(insertion, swap, deletion: Wei and Zou 2019, "EDA", section 2; synonyms: Zhang et al. 2015, section 2.4.) The methods
that need a model, masked-language substitution and back-translation, are in ``runs/rewriting.py``.

``augment`` makes new rows from training rows with a method. It drops a new text that differs from an existing text, of
any split, only in case, spaces or punctuation.
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
from minilm.hints import install

RNG = np.random.Generator
Synonyms = Callable[[str], list[str]]  # a word -> its synonyms, the commonest first; may be empty
Method = Callable[[Sequence[str], Sequence[RNG]], list[str]]  # N texts, a generator for each -> N new texts

SPARE = 3  # each row may be drawn this many times more than the ratio needs, to make up for new texts that are dropped


# --- rows ---


def augment(rows: Rows, method: Method, ratio: float, seed: int, forbidden: Iterable[str] = ()) -> Rows:
    """The N training rows, followed by round(ratio * N) new rows with the labels and second texts of their sources.

    Source rows are drawn without replacement; after all have been drawn, drawing starts again. A new text depends only
    on the method, the seed, the number of its source row and how often that row was drawn before. If a new text is
    dropped, the next row is drawn. So the result is shorter only if the method finds too little to change.

    Args:
        rows: the rows of the training split, and no others.
        method: makes new texts from texts.
        ratio: the number of new rows divided by N, from 0 to 2.
        seed: seeds the drawing of rows and the method.
        forbidden: texts that no new text may equal: those of the validation and test splits.
    """
    if not 0 <= ratio <= 2:
        raise UserError(f"the ratio of new texts must be a number from 0 to 2, got {ratio}")
    wanted = round(ratio * len(rows))
    known = {_key(text) for text in (*rows.texts, *forbidden)}
    draws = ((turn, int(row)) for turn in range(int(ratio) + 1 + SPARE) for row in _order(len(rows), seed, turn))
    sources: list[int] = []
    texts: list[str] = []
    while drawn := list(islice(draws, wanted - len(texts))):  # all missing ones at once: a model writes in batches
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
    """A key that is equal for near-copies: the text in lower case, without punctuation unless that is all there is."""
    bare = "".join(" " if unicodedata.category(c).startswith("P") else c for c in text.lower())
    return " ".join((bare if bare.strip() else text).split())


# --- words: (words, how many of them to change, random numbers) -> words ---


def insertion(words: Sequence[str], number: int, rng: RNG, synonyms: Synonyms | None = None) -> list[str]:
    """Insert a synonym of a random word, or without ``synonyms`` the word, at a random place, ``number`` times."""
    known = {word: _synonyms_of(word, synonyms) if synonyms else [split_word(word)[1]] for word in words}
    able = [word for word in words if any(known[word])]
    new = list(words)
    for _ in range(number if able else 0):
        choices = known[able[rng.integers(len(able))]]
        new.insert(rng.integers(len(new) + 1), choices[rng.integers(len(choices))])
    return new


def swap(words: Sequence[str], number: int, rng: RNG) -> list[str]:
    """Exchange two random words, ``number`` times."""
    new = list(words)
    for _ in range(number if len(new) > 1 else 0):
        i, j = rng.choice(len(new), 2, replace=False)
        new[i], new[j] = new[j], new[i]
    return new


def deletion(words: Sequence[str], number: int, rng: RNG) -> list[str]:
    """Remove each word with probability number / len(words); if that removes all words, keep a random one."""
    kept = rng.random(len(words)) * len(words) >= number
    if words and not kept.any():
        kept[rng.integers(len(words))] = True
    return [word for word, stays in zip(words, kept, strict=True) if stays]


def synonyms(words: Sequence[str], number: int, rng: RNG, synonyms: Synonyms) -> list[str]:
    """Replace ``number`` random words that have synonyms, each by one of them: by the first synonym with probability
    1/2, the second with 1/4, and so on. Punctuation around a word and its capital letters are kept."""
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
    """The punctuation before a word, the word, and the punctuation after it: "(cat)," is ("(", "cat", "),")."""
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
    """A method of ``WORD_METHODS`` that changes this fraction of each text's words, and at least one word.

    synonyms: required by "synonyms"; "insertion" uses them as in its paper, and repeats words without them.
    Raises UserError for an unknown name.
    """
    if name not in WORD_METHODS:
        known = ", ".join(WORD_METHODS)
        raise UserError(f'unknown augmentation method "{name}"{nearest(name, WORD_METHODS)}; the methods are: {known}')
    if name == "synonyms" and synonyms is None:
        raise UserError('the method "synonyms" needs the argument synonyms: wordnet(), or a function of your own')
    more = (synonyms,) if name in ("insertion", "synonyms") else ()

    def change(text: str, rng: RNG) -> str:
        words = text.split()
        return " ".join(WORD_METHODS[name](words, max(1, round(fraction * len(words))), rng, *more))

    return lambda texts, rngs: [change(text, rng) for text, rng in zip(texts, rngs, strict=True)]


# --- synonyms ---

# Common English function words. WordNet lists other words with the same spelling: "a" for angstrom, "in" for inch,
# "was" for the state of Washington.
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

    Raises UserError if nltk, which reads WordNet, or WordNet's data are missing.
    """
    try:
        corpus: Any = importlib.import_module("nltk.corpus").wordnet
    except ImportError:
        missing = f"WordNet's synonyms need the package nltk; to install it: {install('augmentation')}"
        raise UserError(missing) from None
    try:
        corpus.ensure_loaded()
    except (LookupError, OSError):  # no data; a file of them is missing
        raise UserError("nltk is installed, but WordNet's data are not: python -m nltk.downloader wordnet") from None

    @cache
    def synonyms(word: str) -> list[str]:
        if word in STOP_WORDS:
            return []
        names = (lemma.name().replace("_", " ") for meaning in corpus.synsets(word) for lemma in meaning.lemmas())
        return [name for name in dict.fromkeys(names) if name.lower() != word]

    return synonyms
