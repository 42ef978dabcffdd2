"""Runs side by side: what each is, how well it does, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from minilm.errors import UserError
from minilm.reporting.record import read_run
from minilm.reporting.tables import (
    ABSENT,
    decimal,
    duration,
    escape,
    markdown_table,
    metric_columns,
    metric_name,
    short_count,
    text_table,
)


def load_runs(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """What there is to compare of each run folder, in the order given.

    Keys: ``name``, ``model``, ``from_scratch``, ``test`` and ``validation`` (metrics), ``parameters``,
    ``trained``, ``train_seconds``, ``inference_seconds_per_100_texts``, ``tokens_per_second``, ``data`` and
    ``fingerprint``. Raises UserError where a folder is no run's, or its run has not finished.
    """
    runs = []
    for run in map(read_run, map(Path, paths)):
        results = run.results
        runs.append(
            {
                "name": run.name,
                "model": run.model,
                "from_scratch": run.from_scratch,
                "test": results.get("test") or {},
                "validation": results.get("validation") or {},
                "parameters": results["parameters"]["total"],
                "trained": results["parameters"]["trained"],
                "train_seconds": results["times"].get("train_seconds"),
                "inference_seconds_per_100_texts": results["times"].get("inference_seconds_per_100_texts"),
                "tokens_per_second": results.get("tokens_per_second"),
                "data": results["data"]["name"],
                "fingerprint": results["data"].get("fingerprint"),
            }
        )
    if not runs:
        raise UserError("nothing to compare: give one run folder or more, such as runs/*")
    return runs


def compare_text(runs: Sequence[dict[str, Any]]) -> str:
    """The runs as two tables for the terminal, a row a run: how well they do, and what they cost."""
    return "\n\n".join([text_table(*_quality(runs), left=2), text_table(*_cost(runs)), *_notes(runs)])


def compare_markdown(runs: Sequence[dict[str, Any]]) -> str:
    """The same in Markdown."""
    tables = []
    for (header, rows), left in ((_quality(runs), 2), (_cost(runs), 1)):
        tables.append(markdown_table(header, [[*map(escape, row)] for row in rows], left))
    return "\n\n".join([*tables, *map(escape, _notes(runs))])


def _quality(runs: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    # Where some runs have one label a text and some several, there are columns of both kinds.
    splits = ("test", "validation")
    columns = dict.fromkeys((split, key) for split in splits for run in runs for key in metric_columns(run[split]))
    header = ["run", "model", *(f"{split}\n{metric_name(key)}" for split, key in columns)]
    rows = [
        [
            run["name"],
            run["model"] + (", from scratch" if run["from_scratch"] else ""),
            *(decimal(run[split].get(key)) for split, key in columns),
        ]
        for run in runs
    ]
    return header, rows


def _cost(runs: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    header = ["run", "parameters", "trained", "training", "tokens/s", "100 texts predicted in"]
    rows = [
        [
            run["name"],
            short_count(run["parameters"]),
            short_count(run["trained"]),
            duration(run["train_seconds"]),
            short_count(run["tokens_per_second"]),
            duration(run["inference_seconds_per_100_texts"]),
        ]
        for run in runs
    ]
    return header, rows


def _notes(runs: Sequence[dict[str, Any]]) -> list[str]:
    """What makes the comparison unfair."""
    if len({run["fingerprint"] for run in runs}) == 1:
        return []
    sets = ", ".join(f"{run['name']}: {run['data']} {(run['fingerprint'] or ABSENT)[:8]}" for run in runs)
    return [f"Not the same data, so the metrics do not compare: {sets}."]
