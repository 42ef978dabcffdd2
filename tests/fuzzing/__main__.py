"""``make fuzz``: broken files of every kind, to each of which the answer must be a result or a line.

    python -m tests.fuzzing --number 2000 --seed 1
    python -m tests.fuzzing --seed 1 --only 17          file 17 again
    python -m tests.fuzzing --seed 1 --only data.csv    the files of one kind
"""

from __future__ import annotations

import argparse
import os
import sys
import time

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=(), help="numbers of files, or kinds")
    options = parser.parse_args()

    import torch

    from tests.fuzzing import reference  # noqa: F401  # imported once, for all processes
    from tests.fuzzing.harness import fuzz, report, table

    torch.set_num_threads(1)
    started, outcomes = time.monotonic(), []
    print(f"seed {options.seed}, {options.number} files", flush=True)
    for outcome in fuzz(options.number, options.seed, compare=True, only=options.only):
        outcomes.append(outcome)
        if not outcome.good:
            report(outcome)
        elif options.only and len(options.only) < 5:
            print(f"{outcome.case}: {outcome.kind} {outcome.text}")
    print(f"\n{table(outcomes)}\n\n{time.monotonic() - started:.0f} seconds; seed {options.seed}")
    slowest, largest = max(o.seconds for o in outcomes), max(o.memory for o in outcomes)
    print(f"at most {slowest:.1f} s of CPU and {largest / 2**20:.0f} MiB of memory for a file")
    sys.exit(not all(outcome.good for outcome in outcomes))


if __name__ == "__main__":
    main()
