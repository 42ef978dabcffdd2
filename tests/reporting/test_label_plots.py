"""Pictures of labels fit their place with 3, 40 and 500 labels, whatever the names' length."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from minilm.evaluation.confusions import Confused
from minilm.evaluation.metrics import multilabel_metrics
from minilm.reporting.label_plots import class_distribution, confused_pairs, given_together, label_scores


@pytest.mark.parametrize("classes", [2, 3, 40, 41, 500])
def test_pictures_fit_their_place(tmp_path, classes):
    names = [f"label {i} " + "and more " * (20 * (i % 2)) for i in range(classes)]
    train = 2 + np.arange(classes)
    counts = {"train": train, "validation": train // 2, "test": np.zeros(classes, int)}
    pairs = [Confused(i, (i + 1) % classes, 9) for i in range(min(classes, 50))]
    drawn = [
        class_distribution(names, counts, tmp_path / "classes.png"),
        confused_pairs(pairs, names, "Confusion on the test texts", tmp_path / "pairs.png"),
    ]
    for path in drawn:
        height, width, _ = imread(path).shape
        assert 900 <= width <= 1500 and 250 <= height <= 1700, path.name


@pytest.mark.parametrize("classes", [2, 11, 77])
def test_pictures_of_several_labels_fit_their_place(tmp_path, classes):
    names = [f"label {i} " + "and more " * (20 * (i % 2)) for i in range(classes)]
    rng = np.random.default_rng(0)
    labels = (rng.random((50, classes)) < 0.3).astype(np.int64)
    labels[:, 0] = 0  # that no text has
    logits = rng.normal(size=labels.shape)
    drawn = [
        label_scores(multilabel_metrics(labels, logits), names, "test", tmp_path / "scores.png"),
        given_together(labels, (logits > 0).astype(np.int64), names, "test", tmp_path / "together.png"),
    ]
    for path in drawn:
        height, width, _ = imread(path).shape
        assert 900 <= width <= 3000 and 250 <= height <= 2000, (path.name, width, height)
