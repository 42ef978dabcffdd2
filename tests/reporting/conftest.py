"""A finished run's folder, as `minilm train` leaves it."""

import json
from pathlib import Path

import pytest

from tests import records


@pytest.fixture
def results():
    """results.json of a run with one label a text, a little worse than the linear baseline."""
    return records.trained()


@pytest.fixture
def several_results():
    """results.json of a run with several labels a text, better than the linear baseline."""
    results = records.trained()
    for split in ("train", "validation", "test"):
        results[split] = records.several(0.37, 0.25, 0.56)
    for baseline in results["baselines"].values():
        baseline["validation"] = baseline["test"] = records.several(0.4, 0.2, 0.5)
    scores = dict.fromkeys(results["labels"], 0.1)
    results["samples"] = [
        {"text": "I am sad", "label": ["negative", "positive"], "predicted": [], "scores": scores}
    ]
    return results


@pytest.fixture
def make_run(tmp_path):
    """Write a run's folder; ``config`` is some of its TOML."""

    def make(results, name="slang", config='[model]\narchitecture = "gpt2"\n') -> Path:
        folder = tmp_path / name
        (folder / "figures").mkdir(parents=True)
        history = [records.evaluation(30 * epoch, epoch, records.numbers()) for epoch in range(1, 29)]
        (folder / "results.json").write_text(json.dumps(results))
        (folder / "config.toml").write_text(records.config_text(config))
        (folder / "environment.json").write_text(json.dumps(records.environment()))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
        return folder

    return make
