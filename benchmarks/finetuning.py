"""Fine-tuning all-MiniLM-L6-v2 beside ``transformers`` and PEFT: samples per CPU second of training, and peak memory.

Texts as long as MRPC's (pairs of news sentences, 53 tokens on average), batches of 16. The peer takes its users' usual
random batches, padded to the longest text, or length-grouped ones. If the CPU computes in bfloat16, both sides do it
too, with length-grouped batches. Ours trains by the functions of ``minilm train``;
its time includes what the frozen prefix takes to compute. Each side runs in a process of its own, one after another.
"""

from __future__ import annotations

import contextlib
import csv
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import Go, Side
from benchmarks.timing import Result
from minilm.devices import cpu_computes_bfloat16

TEXTS, VALIDATION, ROUNDS = 256, 32, 3
BATCH, TOKENS, RATE, RANK, LAST = 16, 128, 5e-5, 8, 2
WEIGHTS = Path(__file__).parents[1] / "weights" / "minilm"
MRPC = Path(__file__).parents[2] / "shared" / "data" / "mrpc" / "train.csv"
SAMPLE = Path(__file__).parents[1] / "minilm" / "data" / "samples" / "paraphrases.tsv"


class Method(NamedTuple):
    """A way to train, with the aims against the peers."""

    words: str
    epochs: int  # of ours: what is kept of frozen layers pays from the second on
    random: float
    grouped: float
    bfloat16: float


METHODS = {
    "full": Method("full", 1, 1.3, 1.0, 1.1),
    "lora": Method(f"LoRA r={RANK} on query and value", 1, 1.3, 1.0, 1.1),
    "last": Method(f"last {LAST} of 6 layers, 4 epochs", 4, 2.0, 1.4, 1.4),
    "head": Method("head only, 4 epochs", 4, 3.0, 2.5, 2.5),
}
ORDERS = {"random": ("random", "float32"), "grouped": ("grouped", "float32"), "bfloat16": ("grouped", "bfloat16")}


def run() -> Iterator[Result]:
    """Every method: speed against both peers, and memory."""
    if not (WEIGHTS / "model.safetensors").exists():
        raise SystemExit("finetuning: needs all-MiniLM-L6-v2 in weights/minilm; get it with: make weights MODEL=minilm")
    with tempfile.TemporaryDirectory() as folder:
        write_texts(Path(folder))
        for method in METHODS:
            yield from measure(method, folder)


def write_texts(folder: Path) -> None:
    """train.csv and validation.csv: MRPC's first rows if the file exists, otherwise the embedded sample."""
    path = MRPC if MRPC.exists() else SAMPLE
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, dialect="excel" if path == MRPC else "excel-tab"))
    held = rows[:VALIDATION], rows[VALIDATION : VALIDATION + TEXTS]
    for name, some in zip(("validation", "train"), held, strict=True):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["sentence1", "sentence2", "label"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(row | {"label": NUMBERS.get(row["label"], row["label"])} for row in some)


NUMBERS = {"not equivalent": "0", "equivalent": "1"}  # the sample names its labels


def measure(method: str, folder: str) -> Iterator[Result]:
    """All sides in turn, a first round not counted."""
    orders = {name: order for name, order in ORDERS.items() if order[1] == "float32" or cpu_computes_bfloat16()}
    precisions = {precision for _, precision in orders.values()}
    with contextlib.ExitStack() as stack:
        ours = {
            precision: stack.enter_context(Side("benchmarks.finetuning_ours", method, folder, precision))
            for precision in sorted(precisions, reverse=True)
        }
        peers = {
            name: stack.enter_context(Side("benchmarks.finetuning_peer", method, folder, *order))
            for name, order in orders.items()
        }
        rounds: list[dict[str, Go]] = [
            {precision: side.go() for precision, side in ours.items()}
            | {f"peer, {name}": side.go() for name, side in peers.items()}
            for _ in range(ROUNDS + 1)
        ]
    words, _, *aims = METHODS[method]
    for (name, (order, precision)), aim in zip(orders.items(), aims, strict=False):
        pairs = [(goes[precision].rate, goes[f"peer, {name}"].rate) for goes in rounds[1:]]
        yield Result(
            f"{words}, {precision}, against {order} batches",
            ours=statistics.median(a for a, _ in pairs),
            peer=statistics.median(b for _, b in pairs),
            ratio=statistics.median(a / b for a, b in pairs),
            aim=aim,
        )
    memory = {side: go.memory for side, go in rounds[0].items()}  # as of one run
    least = min(memory[f"peer, {name}"] for name in ("random", "grouped"))
    yield Result(
        f"{words}, peak memory: the peer's is", memory["float32"], least, least / memory["float32"], aim=1.0, unit="MiB"
    )
