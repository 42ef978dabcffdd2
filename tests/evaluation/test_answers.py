"""A classifier of several labels that answers the same for nearly every text is said to."""

from __future__ import annotations

import numpy as np

from minilm.evaluation.answers import same_answer

NAMES = ["joy", "fear", "trust"]


def test_one_answer_for_nearly_all_texts_is_named():
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]] * 10)
    nothing = np.zeros_like(labels)
    assert same_answer(labels, nothing, NAMES).startswith("100% of the test texts get the same labels (none)")
    joy = np.tile([1, 0, 1], (40, 1))
    joy[0] = 0
    assert same_answer(labels, joy, NAMES).startswith("98% of the test texts get the same labels (joy, trust)")
    assert same_answer(labels, labels, NAMES) == ""


def test_an_answer_that_is_nearly_always_right_is_fine():
    labels = np.zeros((40, 3), np.int64)
    labels[0, 0] = 1
    assert same_answer(labels, np.zeros_like(labels), NAMES) == ""
