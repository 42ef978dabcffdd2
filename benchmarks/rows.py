"""Rows from 10^3 to 10^6: reading, checking and splitting a CSV file, and its tokens, in time that grows linearly.

``python -m benchmarks.rows NUMBER`` is one size, in a process of its own, so that its peak memory is its own. A size's
rate is compared with that of the size before: a ratio of 1 is linear time. Memory is beside the file's size.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from benchmarks.processes import peak
from benchmarks.timing import Result

SIZES, AIM, TOKENS = (10**3, 10**4, 10**5, 10**6), 0.8, 128
MEMORY = {"reading": 2.5, "tokens": 5}  # times the file: a text is held once, then its tokens too
WORDS = ["the", "a", "of", "market", "game", "film", "phone", "team", "price", "new", "old", "city", "player", "bank"]


def run() -> Iterator[Result]:
    """Every size beside the size before."""
    found = {}
    for size in SIZES:
        command = [sys.executable, "-m", "benchmarks.rows", str(size)]
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        found[size] = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
    for before, size in pairwise(SIZES):
        for part in ("reading", "tokens"):
            rates = [number / found[number][part] for number in (size, before)]
            words = f"{part} of {size:,} rows, the peer is {before:,} rows"
            yield Result(words, *rates, rates[0] / rates[1], AIM, "rows/CPU s")
        for part, times in MEMORY.items():
            memory, most = found[size][f"{part} memory"], 50 + times * found[size]["file"]
            words = f"memory after {part} of {size:,} rows; the peer: 50 MiB and {times} times their file"
            yield Result(words, memory, most, most / memory, 1.0, "MiB")


def measure(size: int) -> dict[str, float]:
    """CPU seconds of both parts, the memory above that of the program, and the size of the file, in MiB."""
    from minilm.config import DataSection
    from minilm.data.sources import load_dataset
    from minilm.data.tokenization import encode, train_bpe

    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows((f"{' '.join(draw.choices(WORDS, k=40))} {i}", draw.choice("abcd")) for i in range(size))
        tokenizer = train_bpe(WORDS * 10, 400)
        before, started = peak(), time.process_time()
        data = load_dataset(DataSection(source=str(path)))
        read, memory = time.process_time(), peak() - before
        for rows in (data.train, data.validation, data.test):
            encode(tokenizer, rows.texts, rows.pairs, TOKENS)
        ended = time.process_time()
        size_of_file = path.stat().st_size / 2**20
    return {
        "reading": read - started, "tokens": ended - read, "file": size_of_file,
        "reading memory": memory, "tokens memory": peak() - before,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
