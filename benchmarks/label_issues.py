"""How many planted wrong labels are found, beside cleanlab on the same probabilities.

    python -m benchmarks.label_issues AG_NEWS.csv --model weights/minilm

The first rows of a CSV file with the columns text and label are taken, and some get another label at random. Two
classifiers are fitted to the other folds each time: a logistic regression on TF-IDF, and with ``--model`` one on that
checkpoint's embeddings. From their probabilities both programs name rows. What is found is the fraction of the planted
rows that is among the first named ones. A few rows of the file are wrong before any is planted; they count as misses.

It is not among ``python -m benchmarks``, for it needs data that does not come with the project.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues as cleanlab_issues

from minilm.checkpoints.models import load_model
from minilm.data.tokenization import load_tokenizer
from minilm.devices import runtime
from minilm.evaluation.baselines import linear
from minilm.evaluation.embeddings import embed_texts, fit_probe
from minilm.evaluation.label_issues import find_label_issues

NAMED = 300  # so many of the first rows count
AIM, AGREEMENT = 0.60, 0.02  # found at least, and from cleanlab at most
METHODS = {"noise_rate": "prune_by_noise_rate", "class": "prune_by_class", "both": "both"}
Fit = Callable[[np.ndarray, np.ndarray], np.ndarray]  # rows to fit, rows to predict -> log-probabilities


def read(path: Path, rows: int) -> tuple[list[str], np.ndarray]:
    """The texts, and their labels as 0..C-1."""
    with path.open(newline="", encoding="utf-8") as file:
        table = [(row["text"], row["label"]) for row in csv.DictReader(file)][:rows]
    _, labels = np.unique([label for _, label in table], return_inverse=True)
    return [text for text, _ in table], labels


def plant(labels: np.ndarray, wrong: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which so many are another one, any with the same chance; and the rows that are."""
    rng = np.random.default_rng(seed)
    classes, changed = int(labels.max()) + 1, labels.copy()
    rows = rng.choice(len(labels), wrong, replace=False)
    changed[rows] = (labels[rows] + rng.integers(1, classes, wrong)) % classes
    return changed, rows


def out_of_fold(fit: Fit, rows: int, folds: int, seed: int) -> np.ndarray:
    """(N, C) probabilities, each row's from the fold that it is not fitted to."""
    fold = np.random.default_rng(seed).permutation(rows) % folds
    parts = [(fold != k, fold == k) for k in range(folds)]
    predicted = [(test, np.exp(fit(np.flatnonzero(train), np.flatnonzero(test)))) for train, test in parts]
    probabilities = np.empty((rows, predicted[0][1].shape[1]))
    for test, p in predicted:
        probabilities[test] = p
    return probabilities


def classifiers(texts: list[str], labels: np.ndarray, model: str | None) -> Iterator[tuple[str, Fit]]:
    """Each classifier's name and how it is fitted to the planted labels."""
    classes = int(labels.max()) + 1

    def words(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return linear([texts[i] for i in train], labels[train], classes).predict([texts[i] for i in test])

    yield "TF-IDF", words
    if model is not None:
        vectors = embed_texts(
            load_model(model, "encode"), load_tokenizer(model), texts, runtime("cpu", "float32"), max_tokens=128
        )
        yield (
            f"embeddings of {Path(model).name}",
            lambda train, test: fit_probe(vectors[train], labels[train], classes).predict(vectors[test]),
        )


def main() -> int:
    """Print a line for each classifier and method; 1 if an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", help="a checkpoint's folder")
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--wrong", type=int, default=200)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    texts, true = read(options.data, options.rows)
    labels, planted = plant(true, options.wrong, options.seed)
    missed = False
    for name, fit in classifiers(texts, labels, options.model):
        p = out_of_fold(fit, len(texts), options.folds, options.seed)
        print(f"{name}: accuracy out of fold {(p.argmax(axis=1) == true).mean():.3f} on the true labels")
        for prune, theirs in METHODS.items():
            for rank in ("self_confidence", "normalized_margin"):
                ours = [issue.row for issue in find_label_issues(labels, p, prune=prune, rank=rank)]
                peer = cleanlab_issues(labels, p, filter_by=theirs, return_indices_ranked_by=rank, n_jobs=1)
                found, peers = (np.isin(planted, rows[:NAMED]).mean() for rows in (ours, peer))
                reached = found >= AIM and abs(found - peers) <= AGREEMENT
                missed |= not reached
                print(
                    f"  {prune:<10} {rank:<17} named {len(ours):4} (cleanlab {len(peer):4})  found {found:6.1%} "
                    f"(cleanlab {peers:6.1%}){'' if reached else '  AIM MISSED'}"
                )
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
