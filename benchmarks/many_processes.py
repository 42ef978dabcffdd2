"""A training step of MiniLM in one process with two threads, and in two processes: seconds, CPU seconds, bytes sent.

    OMP_NUM_THREADS=2 python -m benchmarks.many_processes
    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 -m benchmarks.many_processes

The steps of two processes alternate between our flat sum of the gradients and torch's DistributedDataParallel.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minilm import world
from minilm.checkpoints.models import load_model
from minilm.models.batch import Batch
from minilm.training.distributed import sum_gradients
from minilm.training.optimizer import AdamW
from minilm.world import joined

STEPS, TEXTS, TOKENS = 12, 32, 64


def sent() -> int:
    """Bytes that this machine has sent to itself."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[9]) for line in lines if line.strip().startswith("lo:"))


def measure(sides: dict[str, nn.Module]) -> None:
    """Print the median of each side."""
    place = world.world()
    model = sides["ours"]
    optimizer = AdamW([{"params": list(model.parameters()), "weight_decay": 0.0}], lr=1e-6, eps=1e-8)
    ids = torch.randint(1000, 20000, (TEXTS, TOKENS), generator=torch.Generator().manual_seed(0))
    mine, labels = slice(place.rank, None, place.size), torch.arange(TEXTS) % 2
    found: dict[str, list[tuple[float, float, float]]] = {side: [] for side in sides}
    for _ in range(STEPS + 1):  # the first does not count
        for side, called in sides.items():
            clocks: list[Callable[[], float]] = [time.perf_counter, time.process_time, sent]
            world.barrier()
            before = [clock() for clock in clocks]
            loss: Tensor = F.cross_entropy(called(Batch(ids[mine])), labels[mine], reduction="sum") / TEXTS
            (loss if side == "ours" else loss * place.size).backward()  # DDP takes the mean over processes
            if side == "ours":
                sum_gradients(model, loss.detach())
            optimizer.step()
            optimizer.zero_grad()
            world.barrier()
            seconds, cpu, size = (clock() - start for clock, start in zip(clocks, before, strict=True))
            found[side].append((seconds, cpu, size / 1e6))
    for side, rows in found.items() if place.rank == 0 else ():
        seconds, cpu, size = (statistics.median(row[i] for row in rows[1:]) for i in range(3))
        print(f"{place.size} process(es), {side}: {seconds:.3f} s, {cpu:.3f} CPU s each, {size:.0f} MB sent by all")


def main() -> None:
    with joined():
        model = load_model("minilm", "classify", labels=["a", "b"]).train()
        sides: dict[str, nn.Module] = {"ours": model}
        if world.world().size > 1:
            sides["DDP"] = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
        measure(sides)


if __name__ == "__main__":
    main()
