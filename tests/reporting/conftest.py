"""A finished run's folder, as `minilm train` leaves it."""

import copy
import json
from pathlib import Path

import pytest

ENVIRONMENT = {"device": "cpu", "packages": {"torch": "2.13"}, "data": {"name": "polish_slang"}}


def metrics(loss, accuracy, macro_f1, mcc):
    return {
        "loss": loss,
        "accuracy": accuracy,
        "macro_f1": macro_f1,
        "mcc": mcc,
        "per_class": [
            {"precision": 0.4, "recall": 0.5, "f1": 0.4444, "support": 35},
            {"precision": 0.6, "recall": 0.7, "f1": 0.6462, "support": 61},
            {"precision": 0.5, "recall": 0.25, "f1": 0.3333, "support": 24},
        ],
        "confusion": [[20, 10, 5], [9, 45, 7], [12, 6, 6]],
    }


def several(loss, subset, macro_f1):
    scores = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 40}
    return {
        "loss": loss,
        "subset_accuracy": subset,
        "label_accuracy": 0.84,
        "jaccard": 0.5,
        "micro_f1": 0.6,
        "macro_f1": macro_f1,
        "per_label": [scores, scores, scores],
    }


@pytest.fixture
def results():
    """results.json of a run with one label a text, a little worse than the linear baseline."""
    return {
        "name": "slang",
        "train": metrics(0.5, 0.8, 0.79, 0.6),
        "validation": metrics(0.97, 0.55, 0.48, 0.25),
        "test": metrics(0.98, 0.5833, 0.512, 0.29),
        "baselines": {
            "majority": {
                "validation": metrics(1.02, 0.508, 0.2247, 0.0),
                "test": metrics(1.03, 0.5083, 0.2246, 0.0),
                "seconds": 0.0004,
            },
            "linear": {
                "validation": metrics(0.95, 0.57, 0.5, 0.26),
                "test": metrics(0.94, 0.6, 0.54, 0.3),
                "seconds": 0.4,
            },
        },
        "parameters": {"total": 5_728_003, "trained": 5_728_003},
        "times": {"train_seconds": 252.0, "inference_seconds_per_100_texts": 0.21},
        "tokens_per_second": 15321.2,
        "best": {"epoch": 23.0, "step": 690, "metric": "macro_f1", "value": 0.48},
        "stopped": "early stopping",
        "labels": ["negative", "neutral or ambiguous", "positive"],
        "lengths": {
            "mean": 25.2,
            "median": 21.0,
            "p95": 60.0,
            "longest": 216,
            "truncated": 3,
            "max_tokens": 128,
        },
        "samples": [
            {
                "text": "ale sztos",
                "label": "positive",
                "predicted": "positive",
                "scores": {"negative": 0.1, "neutral or ambiguous": 0.2, "positive": 0.7},
            },
            {
                "text": "a | b\n*c* <d> $e " + "x" * 300,
                "label": "negative",
                "predicted": "positive",
                "scores": {"negative": 0.3, "neutral or ambiguous": 0.1, "positive": 0.6},
            },
        ],
        "data": {
            "name": "polish_slang",
            "fingerprint": "ab12" * 16,
            "sizes": {"train": 960, "validation": 120, "test": 120},
            "warnings": ["2 texts of test are in train too"],
        },
    }


@pytest.fixture
def several_results(results):
    """results.json of a run with several labels a text, better than the linear baseline."""
    results = copy.deepcopy(results)
    for split in ("train", "validation", "test"):
        results[split] = several(0.37, 0.25, 0.56)
    for baseline in results["baselines"].values():
        baseline["validation"] = baseline["test"] = several(0.4, 0.2, 0.5)
    results["samples"] = [
        {
            "text": "I am sad",
            "label": ["negative", "positive"],
            "predicted": [],
            "scores": dict.fromkeys(results["labels"], 0.1),
        }
    ]
    return results


@pytest.fixture
def make_run(tmp_path):
    """Write a run's folder."""

    def make(results, name="slang", config='[model]\narchitecture = "gpt2"\n') -> Path:
        folder = tmp_path / name
        (folder / "figures").mkdir(parents=True)
        history = [{"step": 30 * epoch, "epoch": float(epoch)} for epoch in range(1, 29)]
        (folder / "results.json").write_text(json.dumps(results))
        (folder / "config.toml").write_text(config)
        (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
        return folder

    return make
