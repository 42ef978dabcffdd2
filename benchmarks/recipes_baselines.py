"""``python -m benchmarks.recipes_baselines FOLDER SIDE``: a logistic regression for ``benchmarks.recipes``.

SIDE is words (TF-IDF of one and two words) or vectors (the mean vectors of the checkpoint before it is trained). Prints
a line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.finetuning import WEIGHTS
from benchmarks.recipes import METRICS, Split, read_set
from minilm.checkpoints.models import load_model
from minilm.data.tokenization import load_tokenizer
from minilm.devices import runtime
from minilm.evaluation.baselines import linear
from minilm.evaluation.embeddings import embed_texts, fit_probe
from minilm.evaluation.metrics import classification_metrics, multilabel_metrics


def vectors(split: Split) -> np.ndarray:
    """The mean vectors (N, D) of a split's texts or pairs."""
    texts, pairs = split.texts[0], split.texts[1] if len(split.texts) == 2 else None
    model, tokenizer = load_model(WEIGHTS, "encode"), load_tokenizer(WEIGHTS)
    return embed_texts(model, tokenizer, texts, runtime("cpu", "float32"), pairs=pairs, max_tokens=128)


def main(folder: Path, side: str) -> None:
    """Fit to the training texts, and measure on the test texts."""
    splits, classes, several = read_set(folder)
    train, test = splits["train"], splits["test"]
    if side == "words":
        scores = linear(train.texts[0], train.labels, classes, *train.texts[1:]).predict(*test.texts)
    else:
        scores = fit_probe(vectors(train), train.labels, classes).predict(vectors(test))
    metrics = (multilabel_metrics if several else classification_metrics)(test.labels, scores)
    print(json.dumps({f"test_{name}": metrics.get(name) for name in METRICS}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
