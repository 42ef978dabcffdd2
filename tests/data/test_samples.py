"""The embedded set: written by hand, of the sizes its card tells, without templates or near-duplicates."""

import re
from collections import Counter

import numpy as np
import pytest

from minilm.data import catalog
from minilm.data.readers import read_table
from minilm.data.sources import load_dataset
from minilm.data.tables import Defects
from tests.data.loading import listed

WORD = re.compile(r"\w+")


@pytest.fixture(scope="module")
def rows() -> tuple[list[str], np.ndarray]:
    path = catalog.entries()["polish-slang-sample"].file
    columns = read_table(path, {"text", "label"}, Defects()).columns
    return columns["text"], np.array(columns["label"], dtype=np.int64)


def test_it_loads_without_a_warning():
    found = load_dataset(listed(source="polish-slang-sample"))
    assert [len(found.train), len(found.validation), len(found.test)] == [960, 120, 120]
    assert found.label_names == ["negative", "neutral or ambiguous", "positive"] and found.warnings == []


def test_sizes_and_shares(rows):
    texts, labels = rows
    lengths = np.array([len(text) for text in texts])
    assert len(texts) == 1200 and [text.strip() for text in texts] == texts
    assert (np.bincount(labels) / 1200).tolist() == pytest.approx([0.29, 0.51, 0.20], abs=0.005)
    assert lengths.min() >= 10 and lengths.max() <= 200 and abs(lengths.mean() - 80) < 8


def test_no_two_texts_are_alike(rows):
    """Jaccard index of the sets of words of every pair: |A and B| / |A or B| <= 0.8."""
    sets = [set(WORD.findall(text.lower())) for text in rows[0]]
    column = {word: i for i, word in enumerate(sorted(set.union(*sets)))}
    has = np.zeros((len(sets), len(column)), dtype=np.float32)
    for i, words in enumerate(sets):
        has[i, [column[word] for word in words]] = 1
    both = has @ has.T
    size = has.sum(axis=1)
    overlap = both / (size[:, None] + size - both)
    np.fill_diagonal(overlap, 0)
    worst = np.unravel_index(overlap.argmax(), overlap.shape)
    assert overlap.max() <= 0.8, [rows[0][i] for i in worst]


def test_words_and_openings_vary(rows):
    words = [WORD.findall(text.lower()) for text in rows[0]]
    assert len(set().union(*words)) >= 4000
    opening, number = Counter(tuple(found[:3]) for found in words).most_common(1)[0]
    assert number <= 0.01 * len(words), opening


def test_a_linear_model_neither_fails_nor_solves_it(rows):
    from minilm.evaluation.baselines import linear
    from minilm.evaluation.metrics import classification_metrics

    texts, labels = rows
    fold = np.random.default_rng(0).permutation(len(texts)) % 5
    scores = np.zeros((len(texts), 3))
    macro_f1 = []
    for k in range(5):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        model = linear([texts[i] for i in train], labels[train], 3)
        scores[test] = model.predict([texts[i] for i in test])
        macro_f1.append(classification_metrics(labels[test], scores[test])["macro_f1"])
    assert 0.45 <= np.mean(macro_f1) <= 0.75, macro_f1


SMALLER = ["news-sample", "medical-questions-sample", "tweet-emotions-sample", "paraphrases-sample"]


@pytest.mark.parametrize("name", SMALLER)
def test_the_smaller_sets_load_without_a_defect_and_repeat_nothing(name):
    found = load_dataset(listed(source=name))
    told = ["8 of 264 training rows have none of the labels, which is allowed"]  # tweets without an emotion
    assert found.warnings == (told if name == "tweet-emotions-sample" else [])
    rows = [found.train, found.validation, found.test]
    texts = [(a, b) for part in rows for a, b in zip(part.texts, part.pairs or part.texts, strict=True)]
    assert len(set(texts)) == len(texts) == catalog.entries()[name].rows["train"]


def test_both_rows_of_a_medical_question_are_on_one_side():
    found = load_dataset(listed(source="medical-questions-sample"))
    firsts = [set(part.texts) for part in (found.train, found.validation, found.test)]
    assert not firsts[0] & firsts[1] and not firsts[0] & firsts[2] and not firsts[1] & firsts[2]


def test_word_overlap_says_nothing_about_the_meaning_of_medical_questions():
    """Area under the ROC curve of the Jaccard index: how often a pair of one meaning shares more words than another."""
    path = catalog.entries()["medical-questions-sample"].file
    columns = read_table(path, {"question_1", "question_2", "label"}, Defects()).columns
    pairs = zip(columns["question_1"], columns["question_2"], strict=True)
    words = [[set(WORD.findall(question.lower())) for question in pair] for pair in pairs]
    overlap = np.array([len(a & b) / len(a | b) for a, b in words])
    same = np.array(columns["label"], dtype=np.int64) == 1
    assert same.sum() == 150 and len(same) == 300
    gap = overlap[same][:, None] - overlap[~same]
    assert 0.4 <= np.mean(gap > 0) + np.mean(gap == 0) / 2 <= 0.6
    for found in (overlap[same], overlap[~same]):
        assert np.mean(found < 0.2) >= 0.3 and np.mean(found > 0.4) >= 0.3
