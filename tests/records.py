"""The files of finished runs that never ran, as `minilm train` would have written them."""

from __future__ import annotations

import tomllib
from typing import Any

from minilm.config import RunConfig
from minilm.evaluation.metrics import Metrics
from minilm.loading import config_of, dump_config
from minilm.reporting.results import Results
from minilm.schema import JSON, read_table

CONFUSION = [[20, 10, 5], [9, 45, 7], [12, 6, 6]]
ROWS = [(0.4, 0.5, 0.4444, 35), (0.6, 0.7, 0.6462, 61), (0.5, 0.25, 0.3333, 24)]
FINGERPRINT = "ab12" * 16
SIZES = {"train": 960, "validation": 120, "test": 120}


def rows_of(numbers: list[tuple[float, float, float, int]]) -> list[dict[str, float]]:
    """The metrics of each label."""
    return [dict(zip(("precision", "recall", "f1", "support"), row, strict=True)) for row in numbers]


def numbers(loss: float = 1.0, accuracy: float = 0.5, macro_f1: float = 0.5, mcc: float = 0.0) -> dict[str, Any]:
    """The numbers of one label a text."""
    macro = {"macro_precision": macro_f1, "macro_recall": macro_f1, "macro_f1": macro_f1}
    return {"loss": loss, "accuracy": accuracy, **macro, "mcc": mcc}


def measured(**changes: float) -> Metrics:
    """The numbers of one label a text, as training measures them."""
    return Metrics(**numbers() | changes)


def single(loss: float = 1.0, accuracy: float = 0.5, macro_f1: float = 0.5, mcc: float = 0.0) -> dict[str, Any]:
    """The metrics of one label a text, three labels."""
    confusion = [row[:] for row in CONFUSION]
    return numbers(loss, accuracy, macro_f1, mcc) | {"per_class": rows_of(ROWS), "confusion": confusion}


def several(loss: float, subset: float, macro_f1: float) -> dict[str, Any]:
    """The metrics of several labels a text, three labels."""
    found = {"loss": loss, "subset_accuracy": subset, "label_accuracy": 0.84, "jaccard": 0.5, "micro_f1": 0.6}
    return found | {"macro_f1": macro_f1, "per_label": rows_of([(0.5, 0.5, 0.5, 40)] * 3)}


def many_labels() -> dict[str, Any]:
    """results.json of a run with so many labels that the most confused pairs stand for the matrix."""
    results = trained()
    tables = [results, *results["baselines"].values()]
    for metrics in (table[split] for table in tables for split in SIZES if split in table):
        del metrics["confusion"]
        metrics["confused"] = [{"truth": 2, "predicted": 0, "texts": 12}, {"truth": 0, "predicted": 1, "texts": 10}]
    return results


def trained() -> dict[str, Any]:
    """results.json of a run with one label a text, a little worse than the linear baseline."""
    names = ["negative", "neutral or ambiguous", "positive"]
    samples = [("ale sztos", "positive", (0.1, 0.2, 0.7))]
    samples.append(("a | b\n*c* <d> $e " + "x" * 300, "negative", (0.3, 0.1, 0.6)))
    return {
        "name": "slang",
        "architecture": "GPT-2",
        "train": single(0.5, 0.8, 0.79, 0.6),
        "validation": single(0.97, 0.55, 0.48, 0.25),
        "test": single(0.98, 0.5833, 0.512, 0.29),
        "baselines": {
            "majority": {
                "validation": single(1.02, 0.508, 0.2247, 0.0),
                "test": single(1.03, 0.5083, 0.2246, 0.0),
                "seconds": 0.0004,
            },
            "linear": {
                "validation": single(0.95, 0.57, 0.5, 0.26),
                "test": single(0.94, 0.6, 0.54, 0.3),
                "seconds": 0.4,
            },
        },
        "parameters": {"total": 5_728_003, "trained": 5_728_003},
        "times": {"train_seconds": 252.0, "inference_seconds_per_100_texts": 0.21},
        "tokens_per_second": 15321.2,
        "best": {"epoch": 23.0, "step": 690, "metric": "macro_f1", "value": 0.48},
        "stopped": "early stopping",
        "labels": names,
        "lengths": {
            **{"mean": 25.2, "median": 21.0, "p95": 60.0, "longest": 216, "truncated": 3, "max_tokens": 128},
            "unread": 0.01,
            "characters": {"mean": 80.0, "median": 75.0, "p95": 152.0, "longest": 600},
        },
        "samples": [
            {"text": text, "label": label, "predicted": "positive", "scores": dict(zip(names, scores, strict=True))}
            for text, label, scores in samples
        ],
        "data": {
            "name": "polish_slang",
            "fingerprint": FINGERPRINT,
            "sizes": dict(SIZES),
            "warnings": ["2 texts of test are in train too"],
            "classes": {split: [n // 2, n // 4, n // 4] for split, n in SIZES.items()},
        },
    }


def adapted() -> dict[str, Any]:
    """results.json of a run that only adapted a language model."""
    parameters, counts = {"total": 1000, "trained": 1000}, ("texts", "left_out", "blocks", "tokens", "held_out_tokens")
    adaptation = {
        "objective": "masked words",
        "parameters": parameters,
        "loss": {"before": 3.4, "after": 2.2},
        "perplexity": {"before": 30.0, "after": 9.0},
        **dict.fromkeys((*counts, "steps", "best_step"), 9),
        "seconds": 12.0,
        "stopped": "finished",
    }
    data = {"name": "polish_slang", "fingerprint": FINGERPRINT, "sizes": dict(SIZES)}
    parts = {"parameters": parameters, "times": {"train_seconds": 12.0}, "data": data}
    return {"name": "adapt", "labels": [], "adaptation": adaptation, **parts}


def environment() -> dict[str, Any]:
    """environment.json."""
    data = {"name": "polish_slang", "fingerprint": FINGERPRINT, "sizes": dict(SIZES)}
    versions = {"minilm": "0.1.0", "python": "3.11.7", "packages": {"torch": "2.13"}, "platform": "Linux"}
    return {**versions, "device": "cpu", "threads": 1, "data": data, "start": {"tokenizer": "12ab"}}


def evaluation(step: int, epoch: float, validation: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    usual = {"lr": 0.1, "train_loss": 0.5, "tokens_per_second": 1000.0, "seconds": float(step)}
    return {"step": step, "epoch": epoch, **usual, "validation": validation, **more}


def config(text: str = "") -> RunConfig:
    """The config of a run from some of its keys, the rest as needed."""
    table = {"name": "x"} | tomllib.loads(text)
    table["data"] = {"source": "x.csv"} | table.get("data", {})
    model, learning = table.setdefault("model", {"architecture": "gpt2"}), {"epochs": 1, "lr": 0.1}
    if "architecture" in model:
        table["tokenizer"] = {"source": "bpe"}
    if "adapt" in table:
        table["adapt"] = {"train": learning} | table["adapt"]
    else:
        table["train"] = learning | table.get("train", {})
    return config_of(table, {}, "x.toml")


def config_text(text: str = "") -> str:
    """The same as ``config.toml``."""
    return dump_config(config(text))


def typed(results: dict[str, Any]) -> Results:
    """results.json as it is read."""
    return read_table(Results, results, lambda key: "results.json", syntax=JSON)
