"""One process is alone and does all by itself. How several share work: ``tests/training/test_distributed.py``."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.distributed import HashStore

from minilm import world
from minilm.errors import UserError
from minilm.hints import training_program
from minilm.world import World, deal_out

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1",
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("number", [1, 4, 5])
def test_every_item_is_dealt_out_once_and_all_do_as_many(
    size: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dealt = []
    for rank in range(size):
        monkeypatch.setattr(world, "_world", World(rank, size))
        dealt.append(list(deal_out(range(number))))
    assert len({len(each) for each in dealt}) == 1
    assert sorted(item for each in dealt for item, is_mine in each if is_mine) == list(range(number))


def test_what_torchrun_sets_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.started() == World()
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert world.started() == World(3, 4, 1, 2)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not world.restarted()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert world.restarted()
    assert training_program() == "torchrun OPTIONS -m minilm"  # two machines, with an address that is not known here
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert training_program() == "torchrun --nproc-per-node 4 -m minilm"
    monkeypatch.delenv("RANK")
    assert world.started() == World()


def test_alone_nothing_is_exchanged() -> None:
    tensor = torch.arange(3.0)
    with world.joined():
        assert world.is_first() and world.sum_(tensor) is tensor and world.whole(tensor) is tensor
        assert world.from_first(lambda: "made") == "made" and world.gather(7) == [7] and world.largest(2) == 2
        world.barrier()
        world.check_same({"the data": "a"})
    assert tensor.tolist() == [0, 1, 2]


def test_processes_that_read_other_files_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "gather", lambda what: [what, {"the data": "b"}])
    with pytest.raises(UserError, match="the data of process 1 differs from that of process 0; copy the same files"):
        world.check_same({"the data": "a"})
    with pytest.raises(UserError, match=r"the data of process 1 differs .*; give the same command"):
        world.check_same({}, "give the same command")  # only the other process has data


def test_the_others_wait_for_the_first_and_end_if_an_error_was_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HashStore()
    monkeypatch.setattr(world, "_store", store)
    for rank in (0, 1):
        monkeypatch.setattr(world, "_waits", itertools.count())
        monkeypatch.setattr(world, "_world", World(rank, 2))
        world.wait_for_first()
    store.set("reported", "0")
    with pytest.raises(SystemExit):
        world.wait_for_first()
