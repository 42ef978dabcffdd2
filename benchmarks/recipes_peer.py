"""``python -m benchmarks.recipes_peer FOLDER SEED``: the peer's side of ``benchmarks.recipes``.

The ``Trainer`` of ``transformers``: batches of 16, 5 epochs, length-grouped, bfloat16 if the CPU
computes in it, three learning rates. The epoch and the rate with the lowest loss on validation are measured on test,
and printed as a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # all is on this machine
import numpy as np
import torch
import transformers

from benchmarks.finetuning import WEIGHTS
from benchmarks.recipes import METRICS, Split, read_set
from minilm.devices import cpu_computes_bfloat16
from minilm.evaluation.metrics import classification_metrics, multilabel_metrics

RATES = (2e-5, 5e-5, 1e-4)


class Texts(torch.utils.data.Dataset[dict[str, Any]]):
    """The rows of a file, tokenized."""

    def __init__(self, split: Split, tokenizer: Any) -> None:
        texts = tokenizer(*split.texts, truncation=True, max_length=128)
        self.inputs = [{key: texts[key][i] for key in texts} for i in range(len(split.labels))]
        self.labels = split.labels if split.labels.ndim == 1 else split.labels.astype(np.float32)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.inputs[i] | {"labels": self.labels[i]}


def main(folder: Path, seed: int) -> None:
    """Train at each rate, and measure the run with the lowest loss on validation on test."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(WEIGHTS)
    read, classes, several = read_set(folder)
    splits = {split: Texts(rows, tokenizer) for split, rows in read.items()}
    kind = {"num_labels": classes} | ({"problem_type": "multi_label_classification"} if several else {})
    trainers = {rate: train(splits, tokenizer, kind, rate, seed) for rate in RATES}
    rate, best = min(trainers.items(), key=lambda pair: pair[1].state.best_metric)
    measure = multilabel_metrics if several else classification_metrics
    answers = best.predict(splits["test"])  # in an order of its own
    metrics = measure(np.asarray(answers.label_ids).astype(np.int64), np.asarray(answers.predictions))
    row = {"rate": rate, "validation_loss": best.state.best_metric}
    print(json.dumps(row | {f"test_{name}": metrics.get(name) for name in METRICS}), flush=True)


def train(splits: dict[str, Texts], tokenizer: Any, kind: dict[str, Any], rate: float, seed: int) -> Any:
    """A ``Trainer`` after training, with the weights of its best epoch."""
    transformers.set_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(WEIGHTS, **kind)
    with tempfile.TemporaryDirectory() as place:
        arguments = transformers.TrainingArguments(
            place, num_train_epochs=5, learning_rate=rate,
            per_device_train_batch_size=16, per_device_eval_batch_size=32,
            train_sampling_strategy="group_by_length", eval_strategy="epoch", save_strategy="epoch", save_total_limit=1,
            save_only_model=True, load_best_model_at_end=True, metric_for_best_model="loss", greater_is_better=False,
            bf16=cpu_computes_bfloat16(), use_cpu=True, seed=seed, report_to="none", disable_tqdm=True,
            logging_strategy="no",
        )  # fmt: skip
        trainer = transformers.Trainer(
            model, arguments, train_dataset=splits["train"], eval_dataset=splits["validation"],
            processing_class=tokenizer,
        )  # fmt: skip
        trainer.train()
    return trainer


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
