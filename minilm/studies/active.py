"""Active learning: a model trained on few labels chooses the texts to label next, and is trained anew on all of them.

    start     20 rows of the pool, drawn at random, the same for every rule
    round     the model of the round before looks at the rest of the pool; the rule (``selection``) chooses some; a new
              model, from the same checkpoint, is trained on all that are labelled by now

The pool is the training rows of the base's [data]. What a round is trained on is written before it starts, into a file
that ``data.rows`` of its config names: so each round is an ordinary run that anybody can run again, and a rule's rounds
are a chain in which each waits for the one before. A file that is there is kept: a study killed at any moment goes on
with the same rows. Annotators who err (``noise``) get the same rows wrong whatever the rule and the round.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from minilm.checkpoints.atomic import atomic
from minilm.config import RunConfig
from minilm.data.row_lists import read_row_list
from minilm.data.sources import Rows, load_dataset
from minilm.errors import UserError, nearest
from minilm.evaluation.embeddings import embed_texts
from minilm.evaluation.metrics import log_softmax, sigmoid
from minilm.evaluation.predictor import Classifier
from minilm.reporting.record import shown
from minilm.studies.config import Planned
from minilm.studies.execution import bring_to_end, state_of
from minilm.studies.selection import RULES, UNCERTAINTY, k_centres, most_uncertain, wrong_labels

START = "start"  # the variant of the first round, which all rules share
DRAWS, ERRORS = 11, 12  # streams of a seed


# --- The plan ---


def plan_rounds(
    base: RunConfig, rules: Sequence[str], labels: Sequence[int], seeds: Sequence[int], folder: Path, noise: float = 0.0
) -> list[Planned]:
    """Every round as a run, each after the one whose model chooses its rows.

    Args:
        base: what each round trains; its training rows are the pool.
        rules: of ``selection.RULES``.
        labels: how many rows are labelled in each round, ascending; the first are drawn at random.
        seeds: of the runs, and of what is drawn.
        folder: of the study.
        noise: share of the labels that are wrong.

    Raises:
        UserError: a rule is unknown, or the numbers do not grow.
    """
    if unknown := next((rule for rule in rules if rule not in RULES), None):
        raise UserError(f'no rule "{unknown}"{nearest(unknown, RULES)}; there are: {", ".join(RULES)}')
    if not labels or labels[0] < 1 or any(b <= a for a, b in itertools.pairwise(labels)):
        raise UserError(f"the numbers of labels must grow from round to round, got {', '.join(map(str, labels))}")
    if not 0 <= noise < 1:
        raise UserError(f"the share of wrong labels must be at least 0 and below 1, got {noise}")

    def planned(rule: str, seed: int, count: int, after: str) -> Planned:
        name = f"{rule}_labels-{count}_seed-{seed}" + (f"_noise-{noise:g}" if noise else "")
        data = replace(base.data, rows=str(rows_file(folder, name)), shots=0)
        if data.redraw:
            data = replace(data, split_seed=seed)
        point = {"rule": rule, "labels": count, "seed": seed} | ({"noise": noise} if noise else {})
        return Planned(name, rule, point, replace(base, name=name, seed=seed, data=data), after)

    runs = []
    for seed in seeds:
        runs.append(start := planned(START, seed, labels[0], ""))
        for rule in rules:
            before = start.name
            for count in labels[1:]:
                runs.append(planned(rule, seed, count, before))
                before = runs[-1].name
    return runs


def rows_file(folder: Path, name: str) -> Path:
    """Where a round's rows are named."""
    return folder / "configs" / f"{name}.rows.txt"


# --- A round ---


def run_rounds(folder: Path, runs: Sequence[Planned]) -> dict[str, str]:
    """Bring all rounds to their end, and return why some failed: run -> why. Finished ones are not run again.

    Raises minilm.training.loop.Interrupted where a signal came; the same call goes on.
    """
    failed: dict[str, str] = {}
    for run in runs:
        if run.after in failed:
            failed[run.name] = f"{run.after}, whose model chooses its rows, has failed"
            continue
        if state_of(folder, run) == "to do":
            choose_rows(folder, run)
        if why := bring_to_end(folder, run):
            failed[run.name] = why
    return failed


def choose_rows(folder: Path, run: Planned) -> None:
    """Write the file of the rows that a round is trained on, unless it is there. The round before has finished.

    Raises UserError where the pool has too few.
    """
    path = Path(run.config.data.rows)
    if path.exists():
        return
    data = load_dataset(replace(run.config.data, rows=""))
    rows, count, seed = data.train, run.point["labels"], run.config.seed
    if count > len(rows):
        raise UserError(f"{run.name}: the pool has {len(rows):,} rows, {count:,} are to be labelled")
    labelled = np.zeros(0, np.int64)
    if run.after:
        labelled, _ = read_row_list(rows_file(folder, run.after), rows.labels, data.label_names)
    chosen = _choose(folder, run, rows, labelled, count - len(labelled))
    wrong: dict[int, int] = {}
    if noise := run.point.get("noise", 0.0):
        if data.multi_label:
            raise UserError(f"{run.name}: wrong labels are for data with one label a text")
        wrong = wrong_labels(rows.labels, len(data.label_names), noise, (seed, ERRORS))
    lines = [f"{row}\t{data.label_names[wrong[row]]}" if row in wrong else str(row) for row in (*labelled, *chosen)]
    with atomic(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def _choose(folder: Path, run: Planned, rows: Rows, labelled: np.ndarray, count: int) -> np.ndarray:
    """The numbers of ``count`` rows by the rule, beside the labelled ones."""
    rule, seed = run.point["rule"], (run.config.seed, DRAWS, run.point["labels"])
    rest = np.setdiff1d(np.arange(len(rows)), labelled)
    if rule in (START, "random"):
        return np.random.default_rng(seed).permutation(rest)[:count]
    classifier = load_classifier(folder / run.after, run.config)
    if rule == "k-centres":
        return k_centres(embeddings(classifier, rows), labelled, count)
    return rest[most_uncertain(uncertainty(classifier, rows.take(rest), rule), count, seed)]


def load_classifier(run: Path, config: RunConfig) -> Classifier:
    """The model of a finished round, where the config says that it runs."""
    if not (run / "results.json").exists():
        raise UserError(f"{shown(run)}: has not finished, and its model is to choose the next rows")
    settings = config.train
    assert settings is not None  # of a round
    if settings.threads:
        torch.set_num_threads(settings.threads)
    return Classifier.load(run, settings.device)


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
        classifier.execution,
        pairs=rows.pairs,
        max_tokens=classifier.reading.max_tokens,
    )
