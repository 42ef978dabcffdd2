from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minilm.config import TrainSection
from minilm.errors import UserError
from minilm.reporting.results import Evaluation
from minilm.training.optimizer import make_optimizer
from minilm.training.state import Checkpoints, Progress, trained_parameters
from tests.processes import left_by_killed
from tests.records import measured

CPU = torch.device("cpu")


def progress_at(step: int, best_step: int = -1, **changes: Any) -> Progress:
    """The progress of a run whose best evaluation was at a step; -1: none yet."""
    shared = {"epoch": 1.0, "lr": 0.1, "train_loss": 1 / 3, "tokens_per_second": 9.0, "seconds": 0.1}
    history = [Evaluation(step=best_step, validation=measured(loss=1 / 3), **shared)] if best_step >= 0 else []
    settings = {"seconds": 0.1, "best_value": 0.5 if history else None, **changes}
    return Progress(step=step, best_step=best_step, history=history, **settings)


class Job:
    """A model with an optimizer that takes random steps, which is all that a checkpoint knows of training."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(2, 2))
        self.model[2].requires_grad_(False)
        self.optimizer = make_optimizer(self.model, TrainSection(epochs=1, lr=0.1))
        self.checkpoints = Checkpoints(folder)

    def steps(self, number: int) -> Job:
        for _ in range(number):
            (self.model[1](self.model[0](torch.randn(5, 4))) ** 2).mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return self

    def parameters(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in trained_parameters(self.model).items()}

    def save(self, progress: Progress) -> Path:
        if progress.step == progress.best_step:
            self.checkpoints.keep_best(self.model)
        return self.checkpoints.save(self.model, self.optimizer, progress, CPU)

    def restore(self) -> Progress:
        restored = self.checkpoints.restore(self.model, self.optimizer, CPU)
        assert restored is not None
        return restored


def test_names_are_flushed_before_a_checkpoint_counts_and_before_the_last_one_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut takes every name with it that its folder's list of names was not flushed with."""
    job = Job(tmp_path).steps(1)
    first, fsync = job.save(progress_at(1)), os.fsync
    flushed: list[tuple[set[str], set[str]]] = []  # the names that are flushed, and all checkpoints at that moment

    def noted(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            flushed.append((set(os.listdir(descriptor)), set(os.listdir(tmp_path))))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    second = job.steps(1).save(progress_at(2, best_step=2))
    files = {f"{name}.safetensors" for name in ("model", "optimizer", "random", "best")} | {"progress.json"}
    unfinished = {first.name, f".{second.name}.tmp", "best.safetensors"}
    counting = {first.name, second.name, "best.safetensors"}
    assert (files, unfinished) in flushed and (counting, counting) in flushed
    assert set(os.listdir(tmp_path)) == {second.name, "best.safetensors"}


def test_work_goes_on_bit_for_bit_from_a_checkpoint(tmp_path: Path) -> None:
    job = Job(tmp_path).steps(3)
    job.checkpoints.keep_best(job.model)
    best = job.parameters()
    job.steps(1)
    progress = progress_at(4, 3, tokens=9, loss_sum=1 / 7)
    job.save(progress)
    job.steps(3)
    job.checkpoints.keep_best(job.model)  # later than the checkpoint
    random_state = torch.get_rng_state()

    other = Job(tmp_path, seed=1)  # other weights, other random numbers
    assert other.restore() == progress
    other.steps(3)
    for name, tensor in job.parameters().items():
        assert torch.equal(tensor, other.parameters()[name]), name
    assert torch.equal(torch.get_rng_state(), random_state)
    other.checkpoints.put_best_back(other.model)
    for name, tensor in best.items():
        assert torch.equal(tensor, other.parameters()[name]), name


def test_only_what_trains_is_kept(tmp_path: Path) -> None:
    place = Job(tmp_path).steps(1).save(progress_at(1))
    assert b'"2.weight"' not in (place / "model.safetensors").read_bytes()


def test_only_the_last_checkpoint_stays(tmp_path: Path) -> None:
    job = Job(tmp_path).steps(1)
    for step in (2, 9, 10, 10):
        place = job.save(progress_at(step))
        assert list(tmp_path.iterdir()) == [place] and job.checkpoints.last() == place
    assert place.name == "000004-step-10"


def test_what_a_kill_left_behind_is_neither_read_nor_kept(tmp_path: Path) -> None:
    job = Job(tmp_path).steps(1)
    job.save(progress_at(1))

    def leave() -> None:
        for junk in (".000002-step-2.tmp", ".000009-step-9.tmp", "000000-step-0"):
            (tmp_path / junk).mkdir()
            (tmp_path / junk / ".model.safetensors.7.tmp").write_bytes(b"half")

    leave()
    assert job.restore().step == 1 and len(list(tmp_path.iterdir())) == 1
    leave()
    place = job.save(progress_at(2, 2))
    assert set(tmp_path.iterdir()) == {place, job.checkpoints.best} and len(list(place.iterdir())) == 5


@pytest.mark.parametrize("can_link", [True, False])
def test_best_weights_that_did_not_change_are_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_link: bool
) -> None:
    if not can_link:
        monkeypatch.setattr(os, "link", _cannot)
    job = Job(tmp_path).steps(1)
    first = job.save(progress_at(1, 1)) / "best.safetensors"
    content, inode = first.read_bytes(), first.stat().st_ino
    again = job.steps(1).save(progress_at(2, 1)) / "best.safetensors"
    assert again.read_bytes() == content and (again.stat().st_ino == inode) == can_link
    newer = job.save(progress_at(3, 3)) / "best.safetensors"
    assert newer.read_bytes() != content


def _cannot(*_: object) -> None:
    raise OSError("no links on this file system")


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path).steps(1)
    place = job.save(progress_at(1, 1))
    monkeypatch.setattr("minilm.training.state.write_json", _cannot)
    with pytest.raises(OSError):
        job.save(progress_at(2, 1))
    assert set(tmp_path.iterdir()) == {place, job.checkpoints.best}


def test_best_weights_that_a_kill_cut_short_leave_nothing_behind(tmp_path: Path) -> None:
    job = Job(tmp_path)
    left_by_killed(job.checkpoints.best).write_bytes(b"half")
    job.checkpoints.keep_best(job.model)
    assert list(tmp_path.iterdir()) == [job.checkpoints.best]


def test_where_nothing_is_kept_nothing_is_restored(tmp_path: Path) -> None:
    job = Job(tmp_path / "none")
    assert job.checkpoints.last() is None
    assert job.checkpoints.restore(job.model, job.optimizer, CPU) is None


# --- Damage ---

FILES = ("model.safetensors", "optimizer.safetensors", "best.safetensors", "random.safetensors", "progress.json")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace(old: bytes, new: bytes) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        content = path.read_bytes()
        assert old in content and len(old) == len(new)
        path.write_bytes(content.replace(old, new, 1))

    return edit


DAMAGE = [
    *((name, cut) for name in FILES),
    *((name, empty) for name in FILES),
    *((name, Path.unlink) for name in FILES),
    ("model.safetensors", replace(b'"0.weight"', b'"9.weight"')),
    ("model.safetensors", replace(b"[3,4]", b"[4,3]")),
    ("best.safetensors", replace(b'"0.weight"', b'"9.weight"')),
    ("optimizer.safetensors", replace(b"0.weight/exp_avg_sq", b"0.weight/exp_avg_xy")),
    ("optimizer.safetensors", replace(b"[3,4]", b"[4,3]")),
    ("random.safetensors", replace(b'"cpu"', b'"gpu"')),
    ("progress.json", replace(b'"step"', b'"stop"')),
    ("progress.json", replace(b'"tokens": 12', b'"tokens": ""')),
    ("progress.json", replace(b'"tokens": 12', b'"tokens": -1')),
    ("progress.json", replace(b'"seconds": 0.1', b'"seconds": 0.0')),
    ("progress.json", replace(b'"best_step": 1', b'"best_step": 2')),
    ("progress.json", replace(b'"epoch": 1.0', b'"epoch": NaN')),
]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_any_file_of_a_checkpoint_is_noticed(tmp_path: Path, name: str) -> None:
    job = Job(tmp_path).steps(3)
    place, before = job.save(progress_at(1, 1, tokens=12, best_loss=1 / 3)), job.parameters()
    content = (place / name).read_bytes()
    for at in sorted({*range(0, len(content), 97), len(content) - 9, content.find(b"12") + 1}):
        (place / name).write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises((UserError, FileNotFoundError), match=r"^[^\n]*$"):
            job.restore()
    (place / name).write_bytes(content)
    assert job.restore() == progress_at(1, 1, tokens=12, best_loss=1 / 3)
    assert all(torch.equal(value, before[key]) for key, value in job.parameters().items())


def test_a_checkpoint_after_a_resume_has_the_checksum_of_the_best_weights_before_it(tmp_path: Path) -> None:
    Job(tmp_path).steps(1).save(progress_at(1, 1))
    job = Job(tmp_path)
    job.restore()
    first, second = (json.loads((job.save(progress_at(n, 1)) / "progress.json").read_text()) for n in (2, 3))
    assert first["checksums"]["best.safetensors"] == second["checksums"]["best.safetensors"]
    assert Job(tmp_path).restore().step == 3


def test_a_checkpoint_of_an_earlier_version_without_checksums_is_read(tmp_path: Path) -> None:
    job = Job(tmp_path).steps(1)
    place = job.save(progress_at(1, 1)) / "progress.json"
    table = json.loads(place.read_text())
    del table["checksums"]
    place.write_text(json.dumps(table))
    assert job.restore() == progress_at(1, 1)


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
def test_a_damaged_checkpoint_is_named_in_one_line(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    job = Job(tmp_path).steps(1)
    place = job.save(progress_at(1, 1, tokens=12))
    damage(place / name)
    with pytest.raises((UserError, FileNotFoundError)) as caught:
        job.restore()
    assert str(place / name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    Job(tmp_path).steps(1).save(progress_at(1, 1))
    other = Job(tmp_path)
    other.model[2].requires_grad_(True)  # trains more than the one that was kept
    with pytest.raises(UserError, match="another model"):
        other.restore()


def test_progress_is_readable_json(tmp_path: Path) -> None:
    place = Job(tmp_path).save(progress_at(3, best_value=0.25))
    assert json.loads((place / "progress.json").read_text())["best_value"] == 0.25


def test_the_progress_of_a_run_of_minilm_0_1_0_is_read(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.checkpoints.keep_best(job.model)
    place = job.save(progress_at(3, 2, bad_evaluations=1, loss_denominator=4.0)) / "progress.json"
    text = place.read_text().replace('"bad_evaluations"', '"stale"').replace('"loss_denominator"', '"loss_amount"')
    place.write_text(text)
    assert job.restore() == progress_at(3, 2, bad_evaluations=1, loss_denominator=4.0)
