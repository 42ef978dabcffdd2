"""The processes that work on one run together, on one machine or many, connected by ``torch.distributed``.

    torchrun --nproc-per-node 4 -m minilm train CONFIG

All processes run the same program on the same data. Each has a number, its *rank*; the first has rank 0. Work is dealt
out (``deal_out``), the results are added up (``sum_``) or sent to all (``from_first``, ``gather``), and only the first
process prints and writes files. With one process all of this does nothing.

If a process fails, the others notice that its connection is closed, and end too; one of them reports the reason. If all
is well, the others wait until the first has written the results, as torchrun waits only minutes if some have ended.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from minilm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Store

T = TypeVar("T")
# How long a process waits for another that neither answers nor closes its connection, as when its machine loses power.
PATIENCE = timedelta(minutes=30)
TO_CONCLUDE = timedelta(hours=8)  # how long the others wait for the first, which writes results
TO_REPORT = 10  # seconds: how long the others wait for the one that reports an error
STARTED_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """The place of this process among all processes of a run."""

    rank: int = 0
    size: int = 1  # the number of processes
    local_rank: int = 0  # the rank among the processes on this machine
    local_size: int = 1  # the number of processes on this machine


_world = World()
_store: Store | None = None  # short texts that all processes of ``_world`` read and write
_joins = itertools.count()
_waits = itertools.count()


def world() -> World:
    """This process's place; without ``joined()``, it is alone."""
    return _world


def is_first() -> bool:
    """Whether this process prints and writes files."""
    return _world.rank == 0


def started() -> World:
    """The place that torchrun gave this process; that of a single process if torchrun did not start it."""
    if any(name not in os.environ for name in STARTED_BY_TORCHRUN):
        return World()
    rank, size, local_rank, local_size = (int(os.environ[name]) for name in STARTED_BY_TORCHRUN[:4])
    return World(rank, size, local_rank, local_size)


def restarted() -> bool:
    """Whether torchrun started the processes again after one had failed (``--max-restarts``)."""
    return started().size > 1 and _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


# --- Joining ------------------------------------------------------------------------------------------------------


@contextmanager
def joined() -> Iterator[None]:
    """Connect this process to the others that torchrun started, for the time of the context.

    At the end all wait for the first. An error ends all processes. One of them raises it, and the others raise
    SystemExit without a message.
    """
    global _world, _store
    place = started()
    if place.size == 1 or _world.size > 1:  # alone, or already joined
        yield
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    shared, _, _ = next(iter(rendezvous("env://", timeout=PATIENCE)))
    # Processes that are started again have the same store, with the keys of those that failed.
    store = dist.PrefixStore(f"minilm-{_restarts()}-{next(_joins)}", shared)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, timeout=PATIENCE)
    _world, _store = place, store
    log, level = logging.getLogger("minilm"), logging.getLogger("minilm").level
    if not is_first():
        log.setLevel(logging.ERROR)  # the first process gives the same warnings
    try:
        if len(set(gather(place.local_size))) > 1:
            raise UserError("start the same number of processes on every machine (--nproc-per-node)")
        yield
        wait_for_first()
    except BaseException as error:  # the connections stay open until the process ends, as closing them may wait
        if not _is_first_to_report(store):
            with suppress(KeyboardInterrupt):
                time.sleep(TO_REPORT)  # torchrun stops all when one ends, also the one that reports
            raise SystemExit(1) from None
        if _is_lost_connection(error):
            raise UserError(
                "another process of this run ended or cannot be reached (its reason may be above); give the same "
                "command again, with --resume if the run's folder exists"
            ) from error
        raise
    else:
        dist.destroy_process_group()
    finally:
        log.setLevel(level)
        _world, _store = World(), None


def _is_first_to_report(store: Store) -> bool:
    """Whether no other process has reported an error."""
    mine = os.environ["RANK"]
    try:
        store.set_timeout(timedelta(seconds=10))
        return bool(store.compare_set("reported", "", mine) == mine.encode())
    except RuntimeError:  # the machine of the store cannot be reached
        return True


def _is_lost_connection(error: BaseException) -> bool:
    """Whether an error means that another process cannot be reached."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/transport" in str(error))


def wait_for_first() -> None:
    """Wait until the first process is here too. It may take longer than ``PATIENCE`` if it writes results.

    Raises SystemExit if another process has reported an error.
    """
    if _store is None or _world.size == 1:
        return
    arrived = f"first-is-here-{next(_waits)}"
    until = time.monotonic() + TO_CONCLUDE.total_seconds()
    with suppress(RuntimeError):  # the store ended with another process, which no longer waits
        if is_first():
            _store.set(arrived, "yes")
        while time.monotonic() < until and not _store.check([arrived]):
            if _store.check(["reported"]):
                raise SystemExit(1)
            time.sleep(0.1)


@contextmanager
def alone() -> Iterator[None]:
    """A context in which this process does not wait for the others, which may have ended."""
    global _world
    together, _world = _world, World()
    try:
        yield
    finally:
        _world = together


# --- Sharing work and results -------------------------------------------------------------------------------------


def deal_out(items: Sequence[T], *, on_this_machine: bool = False) -> Iterator[tuple[T, bool]]:
    """This process's part of a list: every ``size``-th item, beginning at its rank. The flag is true.

    If the items are too few for all processes, the last item is repeated, with the flag false: its result is not used.
    So all processes do the same number of steps, as a sharded model needs.

    on_this_machine: deal out to the processes on each machine, so that every machine has all items.
    """
    rank, size = (_world.local_rank, _world.local_size) if on_this_machine else (_world.rank, _world.size)
    for start in range(0, len(items), size):
        number = start + rank
        yield items[min(number, len(items) - 1)], number < len(items)


def sum_(tensor: Tensor) -> Tensor:
    """Replace a tensor by its sum over all processes, in place. All processes get the same bits."""
    sum_all_([tensor])
    return tensor


def sum_all_(tensors: Sequence[Tensor]) -> None:
    """``sum_`` of each tensor, all on their way at once."""
    if _world.size > 1:
        import torch.distributed as dist

        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()


def largest(number: int) -> int:
    """The largest number of all processes. It is exchanged between CPUs, so no GPU is waited for."""
    if _world.size == 1:
        return number
    import torch
    import torch.distributed as dist

    found = torch.tensor(int(number))
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def from_first(make: Callable[[], T]) -> T:
    """The value of ``make()``, which only the first process calls; the others receive the value."""
    if _world.size == 1:
        return make()
    import torch
    import torch.distributed as dist

    value = [make() if is_first() else None]
    dist.broadcast_object_list(value, src=0, device=torch.device("cpu"))
    return value[0]  # type: ignore[return-value]


def gather(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks."""
    if _world.size == 1:
        return [value]
    import torch.distributed as dist

    values: list[T | None] = [None] * _world.size
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def barrier() -> None:
    """Wait until all processes are here."""
    largest(0)


def check_same(what: Mapping[str, str], advice: str = "copy the same files to all machines") -> None:
    """Raise UserError if a value differs between processes, or only some have it.

    what: name -> value, such as a hash of the data; advice: what to do about a difference.
    """
    for rank, other in enumerate(gather(dict(what))):
        for name in sorted({*what, *other}):
            if other.get(name) != what.get(name):
                raise UserError(
                    f"the processes do not work on the same: {name} of process {rank} differs from that of process "
                    f"{_world.rank}; {advice}"
                )


# --- Sharded tensors ----------------------------------------------------------------------------------------------


def is_sharded(tensor: Tensor) -> bool:
    """Whether each process has only a part of a tensor (FSDP2's ``DTensor``)."""
    if _world.size == 1 or "torch.distributed.tensor" not in sys.modules:  # its import takes seconds
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor, gathered from all processes; any other tensor is returned unchanged."""
    if not is_sharded(tensor):
        return tensor
    gathered: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return gathered


def fill_(tensor: Tensor, stored: Tensor | None) -> None:
    """Overwrite a tensor, sharded or not, by a whole one, which only the first process has."""
    import torch

    with torch.no_grad():
        if _world.size == 1:
            assert stored is not None
            tensor.copy_(stored)
            return
        import torch.distributed as dist

        value = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        if stored is not None and is_first():
            value.copy_(stored)
        if is_sharded(tensor):
            from torch.distributed.tensor import DTensor, distribute_tensor

            assert isinstance(tensor, DTensor)
            value = distribute_tensor(value, tensor.device_mesh, tensor.placements)
        else:
            dist.broadcast(value, src=0)
        tensor.copy_(value)
