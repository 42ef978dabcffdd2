"""``python -m benchmarks [NAME ...] [--csv FILE]``: run some benchmarks, or all; exit with 1 if an aim is missed.

FILE gets a row for each result; rows that it has already stay.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import torch

from benchmarks import architectures, finetuning, gpu, inference, pieces, rows, serving, training_step, whole_runs
from benchmarks.timing import Result

BENCHMARKS = {
    "pieces": pieces.run,
    "training-step": training_step.run,
    "architectures": architectures.run,
    "finetuning": finetuning.run,
    "inference": inference.run,
    "serving": serving.run,
    "whole-runs": whole_runs.run,
    "rows": rows.run,
    "gpu": gpu.run,
}


COLUMNS = ("benchmark", "what", "ours", "peer", "ratio", "aim", "unit")


def keep(path: Path, name: str, result: Result) -> None:
    """Add a row to a file, and its header if it is new."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow([name, *(getattr(result, column) for column in COLUMNS[1:])])


def main() -> int:
    """Run the named benchmarks and print a table of each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--csv", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {unknown[0]}; there are: {', '.join(BENCHMARKS)}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    missed = False
    here = [name for name in BENCHMARKS if name != "gpu" or torch.cuda.is_available()]
    for name in chosen.names or here:
        print(f"\n{name}")
        for result in BENCHMARKS[name]():
            print(f"  {result}", flush=True)
            if chosen.csv is not None:
                keep(chosen.csv, name, result)
            missed |= not result.reached
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
