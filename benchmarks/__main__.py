"""``python -m benchmarks [NAME ...]``: run some benchmarks, or all; exit with 1 where an aim is missed."""

from __future__ import annotations

import sys

import torch

from benchmarks import architectures, finetuning, gpu, inference, pieces, rows, serving, training_step, whole_runs

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


def main(names: list[str]) -> int:
    """Run the named benchmarks and print a table of each."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {unknown[0]}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    missed = False
    here = [name for name in BENCHMARKS if name != "gpu" or torch.cuda.is_available()]
    for name in names or here:
        print(f"\n{name}")
        for result in BENCHMARKS[name]():
            print(f"  {result}", flush=True)
            missed |= not result.reached
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
