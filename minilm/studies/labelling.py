"""Active learning: a model trained on few labelled texts chooses which texts are labelled next.

    first round    random rows of the pool, the same for every rule
    each round     the model of the previous round scores the rest of the pool, the rule (``query_rules``) chooses
                   rows, and a new model, from the same checkpoint, trains on all rows that are labelled so far

The pool is the training rows of a run's config without ``data.rows``. Before a round starts, its rows are written to
the file that ``data.rows`` names, so a round is an ordinary run that can be repeated separately. The same model chooses
the same rows, so a study that was interrupted between two rounds continues with the same results.
Simulated annotators with errors (``active.noise``) mislabel the same rows in every round and with every rule.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from minilm.atomic import atomic
from minilm.data.row_lists import read_row_list
from minilm.data.rows import Rows
from minilm.data.sources import load_dataset
from minilm.errors import UserError
from minilm.evaluation.embeddings import embed_texts
from minilm.evaluation.metrics import log_softmax, sigmoid
from minilm.evaluation.predictor import Classifier
from minilm.studies.plan import FIRST_ROUND, LabellingRound, PlannedRun, rows_file
from minilm.studies.query_rules import UNCERTAINTY, k_centres, most_uncertain, wrong_labels
from minilm.training.console import say

DRAW_STREAM, NOISE_STREAM = 11, 12  # random streams of a seed


def choose_rows(folder: Path, run: PlannedRun) -> None:
    """Write the file that lists the rows of a round. ``folder``: of the study.

    Raises UserError if the pool has too few rows, or if the previous round has no saved model.
    """
    labelling = _round_of(run)
    path, seed, count = Path(run.config.data.rows), run.config.seed, labelling.labels
    data = load_dataset(replace(run.config.data, rows=""))
    pool = data.train
    if labelling.final_labels > len(pool):  # checked before the first round
        needed = f"the study would label {labelling.final_labels:,} (active.labels)"
        raise UserError(f"{run.name}: the pool has {len(pool):,} rows, but {needed}")
    labelled = np.zeros(0, np.int64)
    if labelling.rule != FIRST_ROUND:
        labelled, _ = read_row_list(rows_file(folder, run.after), pool.labels, data.label_names)
    chosen = _choose(folder, run, pool, labelled, count - len(labelled))
    wrong: dict[int, int] = {}
    if labelling.noise:
        if data.multi_label:
            raise UserError(f"{run.name}: active.noise needs data with one label per text")
        wrong = wrong_labels(pool.labels, len(data.label_names), labelling.noise, (seed, NOISE_STREAM))
    lines = [f"{row}\t{data.label_names[wrong[row]]}" if row in wrong else str(row) for row in (*labelled, *chosen)]
    with atomic(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    say(f"{run.name}: {len(chosen):,} of {len(pool):,} rows chosen ({labelling.rule}), {count:,} labelled in all")


def _round_of(run: PlannedRun) -> LabellingRound:
    assert run.round is not None  # of a study with [active]
    return run.round


def _choose(folder: Path, run: PlannedRun, pool: Rows, labelled: np.ndarray, count: int) -> np.ndarray:
    """Indices of ``count`` rows of the pool, chosen by the rule, none of them labelled."""
    assert run.config.train is not None  # only runs that train have rounds
    rule, seed = _round_of(run).rule, (run.config.seed, DRAW_STREAM, _round_of(run).labels)
    rest = np.setdiff1d(np.arange(len(pool)), labelled)
    if rule in (FIRST_ROUND, "random"):
        return np.random.default_rng(seed).permutation(rest)[:count]
    if run.config.train.threads:
        torch.set_num_threads(run.config.train.threads)
    classifier = Classifier.load(folder / run.after, run.config.train.device)
    if rule == "k-centres":
        return k_centres(pool_embeddings(classifier, pool), labelled, count)
    return rest[most_uncertain(pool_uncertainty(classifier, pool.take(rest), rule), count, seed)]


def pool_uncertainty(classifier: Classifier, rows: Rows, rule: str) -> np.ndarray:
    """How uncertain the model is about each of N rows, (N,); with several labels per text, the mean over labels."""
    scores = classifier.scores_of_rows(rows)  # (N, C)
    if not classifier.multi_label:
        return UNCERTAINTY[rule](np.exp(log_softmax(scores)))
    p = sigmoid(scores).reshape(-1, 1)
    return UNCERTAINTY[rule](np.concatenate([p, 1 - p], axis=1)).reshape(scores.shape).mean(axis=1)


def pool_embeddings(classifier: Classifier, rows: Rows) -> np.ndarray:
    """The model's vector for each of N rows, (N, D)."""
    return embed_texts(
        classifier.model,
        classifier.tokenizer,
        rows.texts,
        classifier.runtime,
        pairs=rows.pairs,
        max_tokens=classifier.reading.max_tokens,
    )
