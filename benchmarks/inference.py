"""Classifying 240 pairs of sentences with all-MiniLM-L6-v2 beside ``transformers``, from text to scores.

Both sort the texts by length. Ours takes 2,048 tokens at a time, as ``minilm predict`` does on a CPU, the peer 32
texts. The same weights give the same scores, within 1e-4 in float32. If the CPU computes in bfloat16, both do it too.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.finetuning import TOKENS, WEIGHTS, write_texts
from benchmarks.timing import Result, compare
from minilm.checkpoints.models import load_model, save_model
from minilm.data.tokenization import load_tokenizer
from minilm.devices import cpu_computes_bfloat16
from minilm.evaluation.predictor import Classifier

TEXTS, BATCH = 240, 32


def run() -> Iterator[Result]:
    """Every precision."""
    import transformers

    if not (WEIGHTS / "model.safetensors").exists():
        raise SystemExit("inference: needs all-MiniLM-L6-v2 in weights/minilm; get it with: make weights MODEL=minilm")
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_texts(folder)
        torch.manual_seed(1)
        model = load_model(WEIGHTS, "classify", labels=["different", "same"])
        save_model(model, folder / "model", tokenizer=load_tokenizer(WEIGHTS))
        for precision in ("float32", "bfloat16") if cpu_computes_bfloat16() else ("float32",):
            yield beside(folder, precision, transformers)


def read_pairs(folder: Path) -> list[tuple[str, str]]:
    """The first texts."""
    with (folder / "train.csv").open(newline="", encoding="utf-8") as file:
        rows = [(row["sentence1"], row["sentence2"]) for row in csv.DictReader(file)]
    return rows[:TEXTS]


def beside(folder: Path, precision: str, transformers: Any) -> Result:
    """Both sides in one precision."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    theirs = theirs.to(torch.bfloat16) if precision == "bfloat16" else theirs
    classifier = Classifier.load(folder / "model", "cpu", precision)
    pairs = read_pairs(folder)

    def peer() -> np.ndarray:
        texts = tokenizer(*map(list, zip(*pairs, strict=True)), truncation=True, max_length=TOKENS)
        order = np.argsort([len(ids) for ids in texts["input_ids"]], kind="stable")
        scores = np.empty((len(pairs), 2), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                batch = tokenizer.pad([{name: texts[name][i] for name in texts} for i in rows], return_tensors="pt")
                scores[rows] = theirs(**batch).logits.float().numpy()
        return scores

    def ours() -> np.ndarray:
        return classifier.scores(pairs)

    difference = float(np.abs(ours() - peer()).max())
    if difference > (1e-4 if precision == "float32" else 0.1):
        raise RuntimeError(f"inference, {precision}: the scores differ by {difference:.2g}")
    aim = 1.0 if precision == "float32" else 1.1
    words = f"{len(pairs)} pairs of sentences, {precision}, against transformers"
    return compare(words, ours, peer, samples=(len(pairs), len(pairs)), aim=aim, rounds=3)
