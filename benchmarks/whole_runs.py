"""What a run costs beside its training: the CPU seconds of a whole command, against a limit.

The run is as small as a run can be, 40 texts and a model of 9,000 parameters, so nearly all of it is the start of
Python and torch, the baselines, the pictures and the report.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.timing import Result

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
CONFIG = """name = "tiny"
[data]
source = "{data}"
max_tokens = 32
[model]
architecture = "gpt2"
[model.config]
context = 32
width = 16
depth = 1
heads = 2
[tokenizer]
source = "bpe"
vocab_size = 300
[train]
epochs = 2
lr = 1e-3
batch_size = 8
"""
STUDY = """name = "seeds"
question = "What do whole runs cost?"
base = "tiny.toml"
analysis = "seeds"
metric = "accuracy"
[axes]
seed = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
"""


def run() -> Iterator[Result]:
    """One run, and a study of twelve."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = random.Random(1)
        rows = [f"{' '.join(draw.choices(WORDS[:6] if i % 2 else WORDS[4:], k=8))},{'ab'[i % 2]}" for i in range(40)]
        (folder / "tiny.csv").write_text("\n".join(["text,label", *rows]))
        (folder / "tiny.toml").write_text(CONFIG.format(data=folder / "tiny.csv"))
        (folder / "study.toml").write_text(STUDY)
        yield within(folder, 4.5, "a run of 40 texts", "train", folder / "tiny.toml")
        yield within(folder, 14.0, "a study of 12 such runs", "study", folder / "study.toml")


def within(folder: Path, limit: float, words: str, *command: object) -> Result:
    """CPU seconds of a command, the least of three times, beside the most that they may be."""
    found = []
    for number in range(3):
        runs = ("--runs", folder / f"{command[0]}-{number}")
        before = cpu_of_children()
        subprocess.run([sys.executable, "-m", "minilm", *map(str, (*command, *runs))], check=True, capture_output=True)
        found.append(cpu_of_children() - before)
    seconds = min(found)
    return Result(f"{words}, CPU seconds; the limit is", seconds, limit, limit / seconds, aim=1.0, unit="s")


def cpu_of_children() -> float:
    """User and system seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
