"""Memory over a run: does it grow with the steps? ``python -m benchmarks.memory [--batch 8] [--steps 3000]``

A real fine-tuning of all-MiniLM-L6-v2 on AG News, all 22.7 million parameters, batches of random texts of up to 128
tokens, so that their shapes vary: what makes a heap grow, if anything does. The run is a process of its own, whose
resident memory is read from /proc at each evaluation, with the most since the one before. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEWS = ROOT.parent / "shared" / "data" / "ag_news"
WEIGHTS = ROOT / "weights" / "minilm"
EVERY, PAUSE = 250, 0.5  # steps between evaluations; seconds between readings
ROWS = 4000  # training texts
CONFIG = """
name = "memory"
[model]
source = "{weights}"
[model.head]
pooling = "mean"
[data]
source = "{data}"
max_tokens = 128
train_rows = {rows}
validation_rows = 64
test_rows = 64
[train]
epochs = {epochs}
batch_size = {batch}
group_by_length = false
lr = 2e-5
evaluate_every = {every}
device = "cpu"
precision = "float32"
linear_baseline = false
"""


def main() -> None:
    """Train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="texts in a batch")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--data", default=str(NEWS) if NEWS.exists() else "ag-news", help="a folder, a file or a name")
    options = parser.parse_args()
    if not (WEIGHTS / "model.safetensors").exists():
        sys.exit("memory: needs all-MiniLM-L6-v2 in weights/minilm; get it with: make weights MODEL=minilm")
    settings: dict[str, object] = {
        "weights": WEIGHTS, "data": options.data, "batch": options.batch, "every": min(EVERY, options.steps),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "memory.toml"
        rows = min(ROWS, options.batch * options.steps)
        settings |= {"rows": rows, "epochs": max(1, round(options.batch * options.steps / rows))}
        config.write_text(CONFIG.format(**settings))
        started = time.monotonic()
        found = measure(config, Path(folder) / "runs")
        print(f"\nall-MiniLM-L6-v2, batches of {options.batch}, {time.monotonic() - started:.0f} seconds\n")
        print(table(found))


def measure(config: Path, runs: Path) -> list[tuple[int, float, float]]:
    """Train in a process; for each evaluation its step, the resident memory then, and the most since the last (MiB)."""
    command = [sys.executable, "-m", "minilm", "train", str(config), "--runs", str(runs)]
    history, found, most = runs / "memory" / "metrics.jsonl", list[tuple[int, float, float]](), 0.0
    variables = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with subprocess.Popen(command, env=variables) as process:
        while process.poll() is None:
            now = resident(process.pid)
            most = max(most, now)
            lines = history.read_text().splitlines() if history.exists() else []
            if len(lines) > len(found):
                found.append((json.loads(lines[-1])["step"], now, most))
                most = 0.0
            time.sleep(PAUSE)
    if process.returncode:
        sys.exit(process.returncode)
    return found


def resident(process: int) -> float:
    """The resident memory of a process in MiB; 0 if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return 0.0
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(lines["VmRSS"].split()[0]) / 1024 if "VmRSS" in lines else 0.0


def table(found: list[tuple[int, float, float]]) -> str:
    """Markdown: a column for each evaluation."""
    rows = [
        ["step", *(f"{step:,}" for step, _, _ in found)],
        ["---", *("---:" for _ in found)],
        ["MiB", *(f"{now:.0f}" for _, now, _ in found)],
        ["most since the last, MiB", *(f"{most:.0f}" for _, _, most in found)],
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
