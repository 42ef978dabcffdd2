"""Groups of runs that differ only in their seed: their metrics, with the spread over seeds.

Runs are in one group if their configs differ only in name and seed. If a run starts from a checkpoint that another run
adapted, the config of that run is compared instead of the checkpoint's path, so that adaptations that differ only in
their seed are the same method.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from minilm.config import RunConfig
from minilm.evaluation.metrics import Metrics
from minilm.evaluation.statistics import Interval, bootstrap_interval, confusion_interval, wilson_interval
from minilm.reporting.over_seeds import over_how_many, seeds_interval
from minilm.reporting.predictions import read_predictions
from minilm.reporting.record import Run, adapted_by
from minilm.schema import flat


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed."""

    name: str
    runs: tuple[Run, ...]
    repeats: tuple[tuple[Run, Run], ...] = ()  # excluded runs, each with the run that it repeats

    def values(self, metric: str, split: str = "test") -> list[float]:
        """The values of a metric, of the runs that have it."""
        found = (run.metric(metric, split) for run in self.runs)
        return [value for value in found if value is not None]

    def by_seed(self, metric: str, split: str = "test") -> dict[int, float]:
        """The values of a metric by seed."""
        found = {run.config.seed: run.metric(metric, split) for run in self.runs}
        return {seed: value for seed, value in found.items() if value is not None}

    def texts(self, split: str = "test") -> int:
        """The smallest number of texts in this split over the runs."""
        return min(run.results.data.sizes[split] for run in self.runs)

    def interval(self, metric: str, split: str = "test") -> tuple[Interval, str] | None:
        """The 95% interval of a metric, and what it is over (such as "3 seeds"); None if the spread is not known.

        With several seeds it is over the seeds, as in ``over_seeds``. With one seed it is over the rows of the split,
        by ``method_over_rows``: from the confusion matrix or, with several labels per text, from the run's predictions.
        """
        values = self.values(metric, split)
        if len(values) > 1:
            found = seeds_interval(values, metric)
            return (found.interval, over_how_many(values, found)) if found else None
        metrics = self.runs[0].results.metrics(split)
        if metrics is not None and metrics.confusion:
            return interval_over_rows(metrics, metric, split)
        if not values or split != "test" or metric not in OF_MEANS:
            return None
        predictions = read_predictions(self.runs[0])
        if predictions is None:
            return None
        parts, number = parts_of(predictions.labels, predictions.predicted), len(predictions.labels)
        over = f"{number:,} {split} rows"
        if metric in SHARES:
            return wilson_interval(OF_MEANS[metric](parts.mean(axis=0)), number), over

        def metric_of(rows: np.ndarray) -> float:
            return OF_MEANS[metric](np.bincount(rows, minlength=number) @ parts / number)

        interval = bootstrap_interval(metric_of, number)
        return None if interval is None else (interval, over)


def method_over_rows(metric: str) -> str:
    """How the interval of a metric over rows is computed."""
    return "Wilson" if metric in SHARES else "bootstrap"


def interval_over_rows(metrics: Metrics, metric: str, split: str) -> tuple[Interval, str] | None:
    """The 95% interval of a metric with one label per text over the rows of a split, and how many these are.

    None if the metric does not follow from the confusion matrix, and if the bootstrap's interval has no width.
    """
    if not metrics.confusion or metric not in OF_CONFUSION or metrics.get(metric) is None:
        return None
    rows = int(np.sum(metrics.confusion))
    if metric in SHARES:
        return wilson_interval(metrics[metric], rows), f"{rows:,} {split} rows"
    interval = confusion_interval(OF_CONFUSION[metric], metrics.confusion)
    return None if interval is None else (interval, f"{rows:,} {split} rows")


class Costs(NamedTuple):
    """The costs of a run; None if they were not measured."""

    total: int  # parameters
    trained: int
    seconds: float | None  # for training, including adaptation
    tokens_per_second: float | None
    inference: float | None  # seconds to predict 100 texts


def costs_of(run: Run) -> Costs:
    """The number of parameters, and the seconds for training (including adaptation) and for predicting 100 texts."""
    results = run.results
    spent = [results.times.train_seconds]
    if results.adaptation is not None and not run.only_adapted:
        spent.append(results.adaptation.seconds)
    measured = [seconds for seconds in spent if seconds is not None]
    return Costs(
        results.parameters.total,
        results.parameters.trained,
        sum(measured) if measured else None,
        results.tokens_per_second,
        results.times.inference_seconds_per_100_texts,
    )


# Fractions of rows. Wilson's interval has a width also if all rows are right, and the bootstrap's has none then.
SHARES = ("accuracy", "subset_accuracy")


# --- Grouping ---


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group the runs that differ only in their seed, in the order of each group's first run.

    A run with the same settings, seed and data as another adds no information about the spread, so it is excluded.
    """
    together: dict[str, dict[str, Run]] = {}
    repeats: dict[str, list[tuple[Run, Run]]] = {}
    for run in runs:
        alike, seeded = identity(run.config), _with_seed(run)
        first = together.setdefault(alike, {}).setdefault(seeded, run)
        if first is not run:
            repeats.setdefault(alike, []).append((run, first))
    names = unique_names([list(group.values()) for group in together.values()])
    return [
        Group(name, tuple(group.values()), tuple(repeats.get(alike, ())))
        for name, (alike, group) in zip(names, together.items(), strict=True)
    ]


def _with_seed(run: Run) -> str:
    """A key that is equal for two runs if one repeats the other: all settings but the name, and the data."""
    settings = {key: value for key, value in flat(asdict(run.config)).items() if key != "name"}
    return repr((sorted(settings.items()), run.results.data.fingerprint))


def unique_names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """A unique name for each group: the common beginning of its runs' names. If this is not unique, the name of their
    folder is added, or the name of the first run is used; if it is still not unique, a number is added."""
    shared = [common_name([run.name for run in group]) for group in groups]
    firsts = [group[0].name for group in groups]
    parents = [group[0].folder.resolve().parent.name for group in groups]
    kinds = [shared, _below(parents, shared), firsts, _below(parents, firsts)]
    found: list[str] = []
    for of_group in zip(*kinds, strict=True):
        name = next((n for n, kind in zip(of_group, kinds, strict=True) if kind.count(n) == 1), of_group[-1])
        numbered = (name if number == 1 else f"{name} #{number}" for number in itertools.count(1))
        found.append(next(n for n in numbered if n not in found))
    return found


def _below(parents: Sequence[str], names: Sequence[str]) -> list[str]:
    return [f"{parent}/{name}" for parent, name in zip(parents, names, strict=True)]


def identity(config: RunConfig) -> str:
    """A key that is equal for two configs if they differ only in name and seed."""
    seeds = ("name", "seed", "data.split_seed") if config.data.redraw else ("name", "seed")
    settings = {key: value for key, value in flat(asdict(config)).items() if key not in seeds}
    if (earlier := adapted_by(config.model.source)) is not None:
        settings["model.source"] = identity(earlier)
    return repr(sorted(settings.items()))


def common_name(names: Sequence[str]) -> str:
    """The common beginning of several names: "head" for head_seed-1 and head_seed-2."""
    if len(names) == 1:
        return names[0]
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    prefix = "".join(letters[0] for letters in alike)
    return re.sub(r"[-_.,\s]*(seed)?[-_.,=\s\d]*$", "", prefix) or names[0]


# --- Metrics computed from a confusion matrix (C, C), row = truth, for the bootstrap ---


def _macro_f1(confusion: np.ndarray) -> float:
    right, either = np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)
    return float((2 * right[either > 0] / either[either > 0]).mean())


def _mcc(confusion: np.ndarray) -> float:
    texts, right = float(confusion.sum()), float(np.trace(confusion))
    truth, predicted = confusion.sum(axis=1).astype(float), confusion.sum(axis=0).astype(float)
    scale = np.sqrt((texts**2 - predicted @ predicted) * (texts**2 - truth @ truth))
    return float((right * texts - truth @ predicted) / scale) if scale else 0.0


OF_CONFUSION: dict[str, Callable[[np.ndarray], float]] = {
    "accuracy": lambda confusion: float(np.trace(confusion) / confusion.sum()),
    "macro_f1": _macro_f1,
    "mcc": _mcc,
}


# --- Metrics with several labels per text, computed from means over the rows, so that the bootstrap is fast ---


def parts_of(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(N, 3 C + 3) the terms of each row in the metrics below, from labels and decisions (N, C)."""
    both, either = labels & predicted, labels | predicted
    jaccard = np.where(either.any(axis=1), both.sum(axis=1) / np.maximum(either.sum(axis=1), 1), 1.0)
    same = labels == predicted
    return np.column_stack([both, predicted, labels, same.all(axis=1), same.mean(axis=1), jaccard])


def _f1(both: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.where(sizes > 0, 2 * both / np.where(sizes > 0, sizes, 1), 0.0)


def _label_f1(means: np.ndarray, *, micro: bool) -> float:
    both, predicted, true = means[:-3].reshape(3, -1)
    return float(_f1(both.sum(), (predicted + true).sum()) if micro else _f1(both, predicted + true).mean())


OF_MEANS: dict[str, Callable[[np.ndarray], float]] = {
    "subset_accuracy": lambda means: float(means[-3]),
    "label_accuracy": lambda means: float(means[-2]),
    "jaccard": lambda means: float(means[-1]),
    "micro_f1": lambda means: _label_f1(means, micro=True),
    "macro_f1": lambda means: _label_f1(means, micro=False),
}
