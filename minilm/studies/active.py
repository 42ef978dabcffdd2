"""Active learning: a model trained on few labels chooses the texts to label next, and is trained anew on all of them.

    start     some rows of the pool, drawn at random, the same for every rule
    round     the model of the round before looks at the rest of the pool; the rule (``selection``) chooses some; a new
              model, from the same checkpoint, is trained on all that are labelled by now

The pool is the training rows that a round's config has without ``data.rows``. What a round is trained on is written
before it starts into the file that ``data.rows`` names: so each round is an ordinary run, which anybody can run again.
The same model chooses the same rows: a study that was killed between the two goes on as if it had not been. Annotators
who err (``noise``) get the same rows wrong whatever the rule and the round.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from minilm.checkpoints.atomic import atomic
from minilm.data.row_lists import read_row_list
from minilm.data.rows import Rows
from minilm.data.sources import load_dataset
from minilm.errors import UserError
from minilm.evaluation.embeddings import embed_texts
from minilm.evaluation.metrics import log_softmax, sigmoid
from minilm.evaluation.predictor import Classifier
from minilm.studies.rounds import START, rows_file
from minilm.studies.selection import UNCERTAINTY, k_centres, most_uncertain, wrong_labels
from minilm.training.console import say

if TYPE_CHECKING:
    from minilm.studies.config import Planned

DRAWS, ERRORS = 11, 12  # streams of a seed


def choose_rows(folder: Path, run: Planned) -> None:
    """Write the file of the rows that a round of the study in ``folder`` is trained on.

    Raises UserError where the pool has too few, or the round before has left no model.
    """
    assert run.choice is not None  # of a round
    path, seed, count = Path(run.config.data.rows), run.config.seed, run.choice.labels
    data = load_dataset(replace(run.config.data, rows=""))
    rows = data.train
    if run.choice.most > len(rows):  # told before the first round, not by the last
        raise UserError(f"{run.name}: the pool has {len(rows):,} rows, {run.choice.most:,} are to be labelled")
    labelled = np.zeros(0, np.int64)
    if run.choice.rule != START:
        labelled, _ = read_row_list(rows_file(folder, run.after), rows.labels, data.label_names)
    chosen = _choose(folder, run, rows, labelled, count - len(labelled))
    wrong: dict[int, int] = {}
    if run.choice.noise:
        if data.multi_label:
            raise UserError(f"{run.name}: wrong labels (active.noise) are for data with one label a text")
        wrong = wrong_labels(rows.labels, len(data.label_names), run.choice.noise, (seed, ERRORS))
    lines = [f"{row}\t{data.label_names[wrong[row]]}" if row in wrong else str(row) for row in (*labelled, *chosen)]
    with atomic(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    say(f"{run.name}: {len(chosen):,} of {len(rows):,} rows chosen ({run.choice.rule}), {count:,} with those before")


def _choose(folder: Path, run: Planned, rows: Rows, labelled: np.ndarray, count: int) -> np.ndarray:
    """The numbers of ``count`` rows by the rule, beside the labelled ones."""
    assert run.choice is not None and run.config.train is not None  # of a round
    rule, seed = run.choice.rule, (run.config.seed, DRAWS, run.choice.labels)
    rest = np.setdiff1d(np.arange(len(rows)), labelled)
    if rule in (START, "random"):
        return np.random.default_rng(seed).permutation(rest)[:count]
    if run.config.train.threads:
        torch.set_num_threads(run.config.train.threads)
    classifier = Classifier.load(folder / run.after, run.config.train.device)
    if rule == "k-centres":
        return k_centres(embeddings(classifier, rows), labelled, count)
    return rest[most_uncertain(uncertainty(classifier, rows.take(rest), rule), count, seed)]


def uncertainty(classifier: Classifier, rows: Rows, rule: str) -> np.ndarray:
    """How unsure the model is of each of N rows, (N,); with several labels a text, the mean over them."""
    scores = classifier.scores_of_rows(rows)  # (N, C)
    if not classifier.multi_label:
        return UNCERTAINTY[rule](np.exp(log_softmax(scores)))
    p = sigmoid(scores).reshape(-1, 1)
    return UNCERTAINTY[rule](np.concatenate([p, 1 - p], axis=1)).reshape(scores.shape).mean(axis=1)


def embeddings(classifier: Classifier, rows: Rows) -> np.ndarray:
    """The means of the model's vectors of N rows, (N, D)."""
    return embed_texts(
        classifier.model,
        classifier.tokenizer,
        rows.texts,
        classifier.runtime,
        pairs=rows.pairs,
        max_tokens=classifier.reading.max_tokens,
    )
