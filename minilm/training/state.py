"""The state from which an interrupted run resumes exactly, and how it is stored.

A checkpoint is a folder ``checkpoints/NUMBER-step-STEP``. It is written under another name, flushed to the disk, and
renamed, so that there is never an incomplete one.

    model.safetensors       the trained parameters
    optimizer.safetensors   AdamW's m, v and t of each
    best.safetensors        the trained parameters of the best evaluation so far, if there was one
    random.safetensors      the state of every random generator in use, of each process
    progress.json           the step, the evaluations so far, and so on; and the checksums of all of these

A checkpoint whose bytes have changed since, on the disk or in a copy, is an error and not trained on. The checksums are
CRC-32, as in a zip file, which notices every single flipped bit and is quick: 0.1 s for 400 MB.

The best parameters are written to ``checkpoints/best.safetensors`` when they are found, to save memory; a checkpoint
contains a hard link to the same file.

If several processes train the model, only the first reads and writes checkpoints; it gathers and sends tensors.

The order of the texts and the learning rate are functions of seed, epoch and step, so they need no state.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minilm.atomic import atomic, flush_names, move
from minilm.checkpoints.files import read_tensors, write_json, write_tensors
from minilm.errors import UserError
from minilm.measures import Measured, Number
from minilm.reporting.results import Evaluation, read_record
from minilm.schema import as_table
from minilm.training.optimizer import AdamW
from minilm.world import barrier, fill_, from_first, gather, is_first, world

PROGRESS = "progress.json"


@dataclass
class Progress:
    """The progress of a run."""

    step: Number = 0  # optimizer steps done
    tokens: Number = 0  # real tokens trained on
    seconds: Measured = 0.0  # training time, including the time before interruptions
    loss_sum: float = 0.0  # sum of the losses since the last evaluation
    loss_denominator: Measured = 0.0  # divisor for their mean
    best_step: int = -1  # step of the best evaluation; -1: none yet
    best_value: float | None = None  # its metric
    best_loss: float | None = None  # its validation loss
    bad_evaluations: Number = 0  # evaluations in a row without an improvement
    stopped: str = ""  # why it ended: "finished", "early stopping" or "max_minutes"; "": not yet
    loss_scaling: dict[str, Any] = field(default_factory=dict)  # state of float16's loss scaling
    history: list[Evaluation] = field(default_factory=list)
    # In a checkpoint: file -> its checksum; progress.json's is that of the other values here.
    checksums: dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        """Raise ValueError if the parts contradict each other."""
        steps = [entry.step for entry in self.history]
        if self.best_step != -1 and (self.best_step not in steps or self.best_value is None):
            raise ValueError("best_step must be the step of an evaluation in history, with its best_value")
        if self.step and not self.seconds:
            raise ValueError("seconds must be above 0 after the first step")


def trained_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that training changes, by name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def put_back(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Overwrite the trained parameters, in all processes by the tensors that the first has."""
    for name, parameter in trained_parameters(model).items():
        fill_(parameter, tensors.get(name))


class Checkpoints:
    """The last checkpoint of a run, and its best parameters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = folder / "best.safetensors"
        self._checksum_of_best = ""  # it is not read again at every checkpoint

    def last(self) -> Path | None:
        """The last complete checkpoint; None if there is none."""
        return max(self.folder.glob("[0-9]*-step-*"), default=None)

    def keep_best(self, model: nn.Module) -> None:
        """Save the current trained parameters as the best."""
        write_tensors(self.best, trained_parameters(model))
        if is_first():
            self._checksum_of_best = _checksum_of_file(self.best)

    def put_best_back(self, model: nn.Module) -> None:
        """Put the best parameters into the model."""
        put_back(model, _read_parameters(model, self.best))

    def save(
        self, model: nn.Module, optimizer: AdamW, progress: Progress, device: torch.device
    ) -> Path | None:
        """Write a checkpoint of the current state, then remove the previous checkpoint.

        Returns its folder, in the first process.
        """
        contents = {
            "model": trained_parameters(model),
            "optimizer": _optimizer_tensors(model, optimizer),
            "random": _random_states(device),
        }
        if is_first():
            place = self._write(contents, progress)
        else:
            for name, tensors in contents.items():  # not written, but sharded tensors are gathered
                write_tensors(self.folder / f"{name}.safetensors", tensors)
        barrier()  # no process ends before the state is saved
        return place if is_first() else None

    def _write(self, contents: Mapping[str, Mapping[str, Tensor]], progress: Progress) -> Path:
        before = self.last()
        number = int(before.name.partition("-")[0]) + 1 if before else 1
        place = self.folder / f"{number:06d}-step-{progress.step}"
        beside = self.folder / f".{place.name}.tmp"
        shutil.rmtree(beside, ignore_errors=True)  # left over if the process was killed
        try:
            beside.mkdir(parents=True)
            for name, tensors in contents.items():
                write_tensors(beside / f"{name}.safetensors", tensors)
            if progress.best_step >= 0:  # if there was an evaluation
                _link(self.best, beside / self.best.name)
            write_json(beside / PROGRESS, as_table(self._with_checksums(progress, beside)))
            flush_names(beside)
            move(beside, place)
            flush_names(self.folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)  # does nothing if it was renamed
        self._drop_all_but(place)
        return place

    def restore(self, model: nn.Module, optimizer: AdamW, device: torch.device) -> Progress | None:
        """Restore model, optimizer, best parameters and random states from the last checkpoint; return the progress.

        Returns None if there is no checkpoint. Raises UserError if it is damaged or belongs to another model.
        """
        place = from_first(self.last)
        if place is None:
            return None
        progress = from_first(lambda: _read_progress(place))
        put_back(model, _read_parameters(model, place / "model.safetensors"))
        _restore_optimizer(model, optimizer, place / "optimizer.safetensors")
        _restore_random(place / "random.safetensors", device)
        if is_first() and progress.best_step >= 0:
            _read_parameters(model, place / self.best.name)  # raises if incomplete
            self.best.unlink(missing_ok=True)  # may be newer than the checkpoint if the process was killed
            _link(place / self.best.name, self.best)
            self._checksum_of_best = progress.checksums.get(self.best.name) or _checksum_of_file(self.best)
        if is_first():
            self._drop_all_but(place)  # remove incomplete checkpoints
        return progress

    def _with_checksums(self, progress: Progress, place: Path) -> Progress:
        """The progress with the checksums of the files in a folder."""
        files = [path for path in sorted(place.iterdir()) if path.name != self.best.name]
        found = {path.name: _checksum_of_file(path) for path in files}
        if progress.best_step >= 0:
            found[self.best.name] = self._checksum_of_best
        return replace(progress, checksums={**found, PROGRESS: _checksum_of_values(progress)})

    def _drop_all_but(self, place: Path) -> None:
        for other in self.folder.glob("*-step-*"):
            if other != place:
                shutil.rmtree(other)


def _checksum_of_file(path: Path) -> str:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return f"{value:08x}"


def _checksum_of_values(progress: Progress) -> str:
    """The checksum of all values but the checksums."""
    text = json.dumps(as_table(replace(progress, checksums={})), sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"


def _read_progress(place: Path) -> Progress:
    """The progress in a checkpoint. Raises UserError if one of its files has changed. (Those of earlier versions have
    no checksums.)"""
    progress = read_record(Progress, place / PROGRESS)
    for name, checksum in progress.checksums.items():
        path = place / Path(name).name
        if not path.is_file():
            raise UserError(f"{path}: no such file; start a new run without --resume")
        found = _checksum_of_values(progress) if name == PROGRESS else _checksum_of_file(path)
        if found != checksum:
            raise UserError(
                f"{path}: has changed since the run wrote it (checksum {found}, not {checksum}), by an edit or by a "
                "damaged disk; start a new run without --resume"
            )
    return progress


def _read_parameters(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Read the trained parameters in a file, in the first process; in others {}. Raises UserError if names or shapes
    differ from the model's."""
    if not is_first():
        return {}
    tensors = read_tensors(path)
    if _shapes(tensors) != _shapes(trained_parameters(model)):
        raise UserError(f"{path}: belongs to another model than the config describes; start a new run without --resume")
    return tensors


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _optimizer_tensors(model: nn.Module, optimizer: AdamW) -> dict[str, Tensor]:
    """AdamW's state, as ``PARAMETER/exp_avg`` (m), ``PARAMETER/exp_avg_sq`` (v) and ``PARAMETER/step`` (t)."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"{names[id(parameter)]}/{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def _restore_optimizer(model: nn.Module, optimizer: AdamW, path: Path) -> None:
    stored = read_tensors(path) if is_first() else {}
    left = set(from_first(lambda: list(stored)))
    for name, parameter in model.named_parameters():
        shapes = {"step": (), "exp_avg": tuple(parameter.shape), "exp_avg_sq": tuple(parameter.shape)}
        names = {key: f"{name}/{key}" for key in shapes if f"{name}/{key}" in left}
        state = {key: stored[full] for key, full in names.items() if is_first()}
        if state and _shapes(state) != shapes:  # a parameter that had no gradient yet has no state
            raise UserError(f"{path}: the state of {name} is incomplete; start a new run without --resume")
        if names:
            optimizer.state[parameter] = optimizer.new_state(parameter)
            for key, tensor in optimizer.state[parameter].items():
                fill_(tensor, state.get(key))
        left.difference_update(names.values())
    if left:
        raise UserError(
            f"{path}: contains {min(left)}, which belongs to another model; start a new run without --resume"
        )


def _random_states(device: torch.device) -> dict[str, Tensor]:
    """The states of this process's generators by device, and those of other processes as "cpu.RANK"."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    found = enumerate(gather(states))
    return {f"{kind}.{rank}" if rank else kind: state for rank, of in found for kind, state in of.items()}


def _restore_random(path: Path, device: torch.device) -> None:
    stored = from_first(lambda: {key: tensor.clone() for key, tensor in read_tensors(path).items()})
    if "cpu" not in stored or stored["cpu"].shape != torch.get_rng_state().shape:
        raise UserError(f"{path}: does not contain the CPU's random state; start a new run without --resume")
    mine = f".{world().rank}" if world().rank else ""
    states = {kind: stored[kind + mine] for kind in ("cpu", "cuda", "mps") if kind + mine in stored}
    if "cpu" in states:  # not if there were fewer processes
        torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    if device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


def _link(existing: Path, new: Path) -> None:
    """Make a hard link to a file, or a copy if the file system does not support hard links."""
    try:
        os.link(existing, new)
    except OSError:
        with existing.open("rb") as content, atomic(new) as file:
            shutil.copyfileobj(content, file)
