"""A training step on several processes (``minilm.world``): its batches are dealt out, and the gradients added up.

With N processes and a step of K batches, as many batches as N divides are dealt out whole. Each of those that are left
is cut into N parts, so that all processes have the same work:

    process r computes   batches r, r + N, r + 2N, ...      and of each batch that is left, the rows r, r + N, ...
    loss     = sum over processes of (sum of its losses) / n                n: denominator of the whole step
    gradient = sum over processes of d (sum of its losses / n) / d weights

That is the loss and the gradient of one process with all rows. So the number of processes changes the time, not the
result, except for the order in which numbers are added, and for dropout, which every process draws for itself.

The gradients are added after the backward pass. torch's DistributedDataParallel sends them layer by layer during it,
but needs the model in a wrapper (docs/many_machines.md compares them).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from minilm.models.batch import Batch
from minilm.world import deal_out, is_sharded, sum_all_, world

Part = tuple[np.ndarray, Batch, float]  # row numbers (B,), the rows on the CPU, and the weight of their loss


def part_of_step(batches: Sequence[np.ndarray], loaded: Sequence[Batch]) -> list[Part]:
    """What this process computes of a step: the row numbers of batches, and the batches on the CPU.

    The weight is 1. If a batch has fewer rows than there are processes, those without a row compute the first with the
    weight 0, so that all do the same steps.
    """
    size = world().size
    whole = len(batches) // size * size
    parts: list[Part] = [(batches[i], loaded[i], 1.0) for i, _ in deal_out(range(whole))]
    for rows, batch in zip(batches[whole:], loaded[whole:], strict=True):
        mine = np.arange(world().rank, len(rows), size)
        weight, mine = (1.0, mine) if len(mine) else (0.0, np.zeros(1, np.int64))
        parts.append((rows[mine], batch.rows(torch.from_numpy(mine)), weight))
    return parts


SMALL = 2**18  # numbers; gradients with fewer are sent together


def sum_gradients(model: nn.Module, loss: Tensor) -> None:
    """Replace the gradients, and the loss of one step (), by their sums over all processes.

    Sharded gradients are sums already, as FSDP2 adds them up in the backward pass.
    """
    if world().size == 1:
        return
    gradients = [p.grad.view(-1) for p in model.parameters() if p.grad is not None and not is_sharded(p)]
    small = [*(g for g in gradients if len(g) < SMALL), loss.view(1)]
    together = torch.cat(small)
    sum_all_([*(g for g in gradients if len(g) >= SMALL), together])
    for part, total in zip(small, together.split([len(part) for part in small]), strict=True):
        part.copy_(total)


def draw_for_itself() -> None:
    """Give each process but the first another random state, so that they draw different dropout."""
    if rank := world().rank:
        mixed = np.random.SeedSequence([torch.initial_seed(), rank]).generate_state(1, np.uint64)
        torch.manual_seed(int(mixed[0]) >> 1)
