"""Classifying 240 pairs of sentences with all-MiniLM-L6-v2 beside ``transformers``, from text to scores.

Both sort the texts by length. Ours takes 2,048 tokens at a time, as ``minilm predict`` does on a CPU, the peer 32
texts. The same weights give the same scores, within 1e-4 in float32. If the CPU computes in bfloat16, both do it too.

Other runtimes take the graph of ``minilm export --onnx``, in batches as the peer's: onnxruntime with 8-bit integers
(how many labels are equal is in its row; it has no aim) and OpenVINO in bfloat16, each if it is installed.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.finetuning import TOKENS, WEIGHTS, write_texts
from benchmarks.timing import Result, compare
from minilm.checkpoints.models import load_model, save_model
from minilm.checkpoints.onnx_export import open_graph, quantize, write_onnx
from minilm.data.tokenization import load_tokenizer
from minilm.devices import cpu_computes_bfloat16
from minilm.evaluation.predictor import Classifier
from minilm.models.batch import Batch

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
        yield from beside_runtimes(folder, transformers)


def beside_runtimes(folder: Path, transformers: Any) -> Iterator[Result]:
    """Ours in the precision that "auto" chooses, beside the runtimes that are installed."""
    graph, small = folder / "model.onnx", folder / "small.onnx"
    model = load_model(folder / "model", "classify").eval()
    runs: dict[str, tuple[float, Callable[[Batch], np.ndarray]]] = {}
    if find_spec("onnxruntime") is None or find_spec("onnxscript") is None:
        return
    write_onnx(model, graph)
    quantize(graph, small)
    session = open_graph(small)
    runs["onnxruntime int8"] = 0.0, lambda batch: session(batch).numpy()
    if find_spec("openvino") is not None:
        runs["OpenVINO bfloat16"] = 0.9, open_in_openvino(graph)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    classifier, pairs = Classifier.load(folder / "model", "cpu", "auto"), read_pairs(folder)
    found = classifier.scores(pairs).argmax(1)
    for name, (aim, compute) in runs.items():

        def peer(compute: Callable[[Batch], np.ndarray] = compute) -> np.ndarray:
            return in_batches(tokenizer, pairs, compute)

        same = int((peer().argmax(1) == found).sum())
        words = f"{len(pairs)} pairs, {classifier.runtime.precision}, against {name} ({same} labels equal)"
        yield compare(
            words, partial(classifier.scores, pairs), peer, samples=(len(pairs), len(pairs)), aim=aim, rounds=3
        )


def open_in_openvino(path: Path) -> Callable[[Batch], np.ndarray]:
    """A function that computes scores (B, C) with OpenVINO in bfloat16, with as many threads as torch."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    model = openvino.Core().compile_model(path, "CPU", settings)
    names = [name.get_any_name() for name in model.inputs]

    def compute(batch: Batch) -> np.ndarray:
        mask = torch.ones_like(batch.ids) if batch.mask is None else batch.mask.long()
        segments = torch.zeros_like(batch.ids) if batch.segments is None else batch.segments
        given = {"input_ids": batch.ids, "attention_mask": mask, "token_type_ids": segments}
        return model([given[name].numpy() for name in names])[0]

    return compute


def in_batches(tokenizer: Any, pairs: list[tuple[str, str]], compute: Callable[[Batch], np.ndarray]) -> np.ndarray:
    """The scores (N, C) of all pairs, sorted by length and in batches."""
    texts = tokenizer(*map(list, zip(*pairs, strict=True)), truncation=True, max_length=TOKENS)
    order = np.argsort([len(ids) for ids in texts["input_ids"]], kind="stable")
    scores = np.empty((len(pairs), 2), np.float32)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        batch = tokenizer.pad([{name: texts[name][i] for name in texts} for i in rows], return_tensors="pt")
        scores[rows] = compute(Batch(batch["input_ids"], batch["attention_mask"].bool(), batch["token_type_ids"]))
    return scores


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

    def compute(batch: Batch) -> np.ndarray:
        mask = None if batch.mask is None else batch.mask.long()
        with torch.inference_mode():
            return theirs(batch.ids, mask, batch.segments).logits.float().numpy()

    def peer() -> np.ndarray:
        return in_batches(tokenizer, pairs, compute)

    def ours() -> np.ndarray:
        return classifier.scores(pairs)

    difference = float(np.abs(ours() - peer()).max())
    if difference > (1e-4 if precision == "float32" else 0.1):
        raise RuntimeError(f"inference, {precision}: the scores differ by {difference:.2g}")
    aim = 1.0 if precision == "float32" else 1.1
    words = f"{len(pairs)} pairs of sentences, {precision}, against transformers"
    return compare(words, ours, peer, samples=(len(pairs), len(pairs)), aim=aim, rounds=3)
