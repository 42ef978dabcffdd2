"""Runs of one process share work, and none is told from a run by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm.data.tokenization import Encoded
from minilm.runs import assembly, fit, results
from minilm.runs.shared_cache import hash_of_tokens, memoize, shared_cache
from minilm.runs.train import train_run
from tests.tiny import write_data

REFERENCE = Path(__file__).parents[1] / "reference"
CONFIG = f"""
name = "head"
model = {{ source = "{REFERENCE / "bert-lm"}", head = {{ kind = "family" }} }}
freeze = {{ part = "backbone" }}
data = {{ source = "DATA", max_tokens = 20 }}
train = {{ epochs = 2, lr = 1e-2, embeddings_baseline = true, threads = 1 }}
"""


def test_within_sharing_a_thing_is_made_once_for_a_key_and_only_the_last_few_are_cache() -> None:
    made: list[int] = []

    def get(kind: str, number: int, keep: bool = True) -> int:
        def make() -> int:
            made.append(number)
            return number

        return memoize(kind, lambda: number, make, keep=lambda value: keep)

    assert [get("things", number) for number in (1, 1)] == made == [1, 1]  # nothing is kept by itself
    with shared_cache():
        assert [get("things", number) for number in (1, 2, 1, 3, 3)] == [1, 2, 1, 3, 3]
        assert made[2:] == [1, 2, 3]
        assert [get("activations", number) for number in (1, 2, 1)] == made[5:]  # much memory: the last alone is kept
        assert [get("others", 1, keep=False), get("others", 1)] == made[8:]
    assert get("things", 3) == 3 and made[10:] == [3]


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each expensive part of a run is done."""
    done: dict[str, int] = {}
    parts = [(assembly, "load_dataset"), (assembly, "encode"), (results, "linear")]
    parts += [(fit, "cache_activations"), (fit, "text_vectors")]
    for module, name in parts:
        part = getattr(module, name)

        def count(*given: Any, _part: Any = part, _name: str = name, **more: Any) -> Any:
            done[_name] = done.get(_name, 0) + 1
            return _part(*given, **more)

        monkeypatch.setattr(module, name, count)
    return done


def outcome(run: Path) -> dict[str, Any]:
    """All of a run's results but its times."""
    found = json.loads((run / "results.json").read_text())
    for key in ("times", "tokens_per_second", "name"):
        del found[key]
    for baseline in found["baselines"].values():
        del baseline["seconds"]
    return found


def test_pairs_of_the_same_tokens_cut_elsewhere_are_other_texts() -> None:
    ids, offsets, full = np.array([5, 6, 7], np.int32), np.array([0, 3]), np.array([3])
    cuts = [None, np.array([0, 0, 1], np.uint8), np.array([0, 1, 1], np.uint8)]
    assert len({hash_of_tokens(Encoded(ids, offsets, segments, full)) for segments in cuts}) == 3


def test_runs_that_share_end_as_each_would_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [(f"take {word} pill {i % 7}", label) for i in range(20) for word, label in (("one", "y"), ("no", "n"))]
    data, path = write_data(tmp_path / "texts.tsv", texts), tmp_path / "head.toml"
    path.write_text(CONFIG.replace("DATA", str(data)))
    seeds = [(f"seed={seed}",) for seed in (1, 2)]
    alone = [outcome(train_run(path, seed, runs=tmp_path / "alone")) for seed in seeds]
    done = counted(monkeypatch)
    with shared_cache():
        together = [outcome(train_run(path, seed, runs=tmp_path / "together")) for seed in seeds]
        assert done == {"load_dataset": 1, "encode": 3, "linear": 1, "cache_activations": 1, "text_vectors": 3}
        data.write_text(data.read_text().replace("pill 3", "pill 4"))
        changed = outcome(train_run(path, seeds[0], runs=tmp_path / "together"))
    assert together == alone and changed["data"] != alone[0]["data"]
    assert done["load_dataset"] == 2 and done["cache_activations"] == 2
