"""The recipe as it comes, beside ``transformers``.

    python -m benchmarks.recipes --out experiments/results/recipes.csv

``minilm finetune minilm --data FOLDER``, with no setting but the seed, on six sets made of the files in shared/data.
The peer is the ``Trainer`` of ``transformers`` on the same files and checkpoint, 5 epochs, with the best of three
learning rates (``benchmarks.recipes_peer``). Beside them, two logistic regressions (``benchmarks.recipes_baselines``).
Each seed draws other texts; all sides read the same ones. A row of the file is one side of one seed, with its CPU
seconds from start to end. About twenty CPU minutes a seed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

SHARED = Path(__file__).parents[2] / "shared" / "data"
METRICS = ("loss", "accuracy", "macro_f1", "micro_f1", "jaccard")
COLUMNS = ("data", "side", "seed", "rate", "validation_loss", *(f"test_{name}" for name in METRICS), "cpu_seconds")
EMOTIONS = (
    "anger", "anticipation", "disgust", "fear", "joy", "love", "optimism", "pessimism", "sadness", "surprise", "trust",
)  # fmt: skip
Row = Mapping[str, str]


class Kind(NamedTuple):
    """A set: rows of the training and the test file, and the changes that name its columns."""

    rows: Callable[[str], list[Row]]  # all rows of a split
    train: int
    validation: int
    test: int
    changes: tuple[str, ...] = ()


def read(folder: str, split: str) -> list[Row]:
    """The rows of a file in shared/data."""
    [path] = (SHARED / folder).glob(f"{split}.*")
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".tsv":
            return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        return list(csv.DictReader(file))


def balanced(rows: list[Row]) -> list[Row]:
    """As many rows of each label as of the rarest: the first ones."""
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        by_label.setdefault(row["label"], []).append(row)
    least = min(map(len, by_label.values()))
    return [row for some in by_label.values() for row in some[:least]]


def combinations(rows: list[Row]) -> list[Row]:
    """Tweets with one of the 24 most frequent combinations of emotions in the training file, which is the label."""

    def joined(row: Row) -> str:
        return "+".join(emotion for emotion in EMOTIONS if row[emotion] == "1") or "none"

    known = dict(Counter(map(joined, read("tweet_emotions", "train"))).most_common(24))
    return [{"text": row["Tweet"], "label": joined(row)} for row in rows if joined(row) in known]


KINDS = {
    "topics": Kind(lambda split: read("ag_news", split), 160, 60, 400),
    "few": Kind(lambda split: read("ag_news", split), 48, 32, 400),
    "pairs": Kind(
        lambda split: read("mrpc", split), 240, 60, 400, ("data.text=sentence1", "data.text_pair=sentence2")
    ),
    "polish": Kind(lambda split: balanced(read("polish_tweets", split)), 160, 60, 300),
    "emotions": Kind(
        lambda split: read("tweet_emotions", split),
        240,
        60,
        400,
        ("data.text=Tweet", f"data.label_columns={json.dumps(EMOTIONS)}"),
    ),
    "combinations": Kind(lambda split: combinations(read("tweet_emotions", split)), 300, 100, 400),
}


def write_set(kind: Kind, folder: Path, seed: int) -> None:
    """train.csv, validation.csv and test.csv: rows drawn at random, none in two files."""
    rng = random.Random(seed)
    train, test = kind.rows("train"), kind.rows("test")
    chosen = rng.sample(train, kind.train + kind.validation)
    rows = {"train": chosen[: kind.train], "validation": chosen[kind.train :]}
    rows["test"] = rng.sample(test, min(kind.test, len(test)))
    if "label" in train[0]:  # a rare label may be in no training row
        known = {row["label"] for row in rows["train"]}
        rows = {split: [row for row in some if row["label"] in known] for split, some in rows.items()}
    folder.mkdir(parents=True)
    for split, some in rows.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(some[0]))
            writer.writeheader()
            writer.writerows(some)


class Split(NamedTuple):
    """A file of a set, as it is read by the other sides."""

    texts: list[list[str]]  # one or two columns
    labels: np.ndarray  # (N,) of 0..classes-1, or (N, classes) of 0 and 1


def read_set(folder: Path) -> tuple[dict[str, Split], int, bool]:
    """The files of a set, the number of classes, and whether a text may have several labels."""
    found = {}
    for split in ("train", "validation", "test"):
        with (folder / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            found[split] = list(csv.DictReader(file))
    first = found["train"][0]
    columns = [c for c in ("text", "Tweet", "sentence1", "sentence2") if c in first]
    names = sorted({row["label"] for row in found["train"]}) if "label" in first else []

    def labels(rows: list[dict[str, str]]) -> np.ndarray:
        if names:
            return np.array([names.index(row["label"]) for row in rows])
        return np.array([[int(row[emotion]) for emotion in EMOTIONS] for row in rows])

    splits = {split: Split([[row[c] for row in rows] for c in columns], labels(rows)) for split, rows in found.items()}
    return splits, len(names) or len(EMOTIONS), not names


def run(command: list[str], folder: Path) -> tuple[str, float]:
    """Run a command with one thread: what it prints, and its CPU seconds. Raises RuntimeError if it fails."""
    with (folder / "log.txt").open("a+") as log:
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=one_thread)
        assert process.stdout is not None
        printed = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {(folder / 'log.txt').read_text()}")
    return printed, usage.ru_utime + usage.ru_stime


def ours(kind: Kind, folder: Path, seed: int, changes: Sequence[str]) -> dict[str, object]:
    """Our side: one run, with the recipe as it comes, or with changes."""
    command = [sys.executable, "-m", "minilm", "finetune", "minilm", f"seed={seed}", *kind.changes, *changes]
    runs = folder / "runs"
    _, seconds = run([*command, "--data", str(folder), "--runs", str(runs)], folder)
    [path] = runs.glob("*/results.json")
    results = json.loads(path.read_text())
    metrics = {f"test_{metric}": results["test"].get(metric) for metric in METRICS}
    return {"validation_loss": results["validation"]["loss"], **metrics, "cpu_seconds": seconds}


def peer(folder: Path, seed: int) -> dict[str, object]:
    """The peer's side: the run with the lowest loss on validation; its CPU seconds are those of all rates."""
    command = [sys.executable, "-m", "benchmarks.recipes_peer", str(folder), str(seed)]
    printed, seconds = run(command, folder)
    *_, best = printed.splitlines()  # after the Trainer's own lines
    return json.loads(best) | {"cpu_seconds": seconds}


def baseline(side: str, folder: Path) -> dict[str, object]:
    """A logistic regression on words, or on the vectors of the checkpoint as it is."""
    command = [sys.executable, "-m", "benchmarks.recipes_baselines", str(folder), side]
    printed, seconds = run(command, folder)
    return json.loads(printed.splitlines()[-1]) | {"cpu_seconds": seconds}


SIDES = ("minilm", "transformers", "words", "vectors")
OURS: dict[str, tuple[str, ...]] = {  # our side, as it comes and with changes of the recipe that were tried
    "minilm": (),
    "minilm-100-steps": ("train.min_steps=100",),
    "minilm-mean-of-vectors": ("model.head.kind=mlp",),  # of pairs
}


def measured(task: tuple[str, int, str], place: Path) -> dict[str, object]:
    """The row of one set, seed and side."""
    name, seed, side = task
    folder = place / f"{name}-{seed}-{side}"
    write_set(KINDS[name], folder, seed)
    if side in OURS:
        row = ours(KINDS[name], folder, seed, OURS[side])
    else:
        row = peer(folder, seed) if side == "transformers" else baseline(side, folder)
    return {"data": name, "side": side, "seed": seed} | row


def main() -> None:
    """Run the sets, seeds and sides that the file does not have yet, and add their rows to it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--data", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--sides", nargs="+", choices=sorted({*SIDES, *OURS}), default=SIDES)
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    done = set()
    if chosen.out.exists():
        with chosen.out.open(encoding="utf-8", newline="") as file:
            done = {(row["data"], int(row["seed"]), row["side"]) for row in csv.DictReader(file)}
    tasks = [task for task in product(chosen.data, chosen.seeds, chosen.sides) if task not in done]
    tasks.sort(key=lambda task: task[1])  # all sets of the first seed first
    with (
        tempfile.TemporaryDirectory() as place,
        chosen.out.open("a", encoding="utf-8", newline="") as file,
        ThreadPoolExecutor(chosen.jobs) as pool,
    ):
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        if not done:
            writer.writeheader()
        for row in pool.map(partial(measured, place=Path(place)), tasks):
            writer.writerow(row)
            file.flush()


if __name__ == "__main__":
    main()
