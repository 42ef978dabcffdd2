"""What a run must remember to go on as if it had never stopped, and how it is kept.

A checkpoint is a folder ``checkpoints/NUMBER-step-STEP`` that appears whole or not at all (it is written under another name,
flushed, and renamed):

    model.safetensors       the trained parameters
    optimizer.safetensors   AdamW's m, v and t of each
    best.safetensors        the trained parameters of the best evaluation so far
    random.safetensors      the state of every random generator in use
    progress.json           where the run is

The order of the texts and the learning rate are functions of seed, epoch and step, so they need no state.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minilm.checkpoints.files import read_json, read_tensors, write_json, write_tensors
from minilm.errors import UserError


@dataclass
class Progress:
    """Where a run is."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # the epoch it is in
    batch: int = 0  # batches done of it
    seconds: float = 0.0  # of training, over all its parts
    tokens: int = 0  # real tokens trained on
    best_step: int = -1  # of the best evaluation; -1: none yet
    best_value: float = 0.0  # its metric
    stale: int = 0  # evaluations since then
    stopped: str = ""  # why it ended; "": it has not
    loss_sum: float = 0.0  # since the last evaluation: the rows' losses, added up ...
    loss_rows: int = 0  # ... over so many rows
    history: list[dict[str, Any]] = field(default_factory=list)  # an entry an evaluation


def trained_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that training changes, by name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def copy_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors in memory of their own."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def put_back(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Overwrite the trained parameters. Raises UserError where names or shapes are not the model's."""
    parameters = trained_parameters(model)
    same = parameters.keys() == tensors.keys()
    if not same or any(parameters[name].shape != t.shape for name, t in tensors.items()):
        raise UserError(f"{where}: belongs to another model than the config describes; start the run anew")
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"{names[id(parameter)]}/{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def _restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for full_name, value in tensors.items():
        name, _, key = full_name.rpartition("/")
        parameter = parameters[name]
        device = parameter.device if key != "step" or parameter.device.type != "cpu" else "cpu"
        optimizer.state[parameter][key] = value.clone().to(device)


def _random_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _restore_random(states: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"].clone())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].clone(), device)
    if device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"].clone())


def _link(existing: Path, new: Path) -> None:
    """A second name for a file, where the file system has such; else a copy."""
    try:
        os.link(existing, new)
    except OSError:
        shutil.copyfile(existing, new)


class Checkpoints:
    """The checkpoints of one run's folder; only the last is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._best_saved = -1  # step of the best parameters that the last checkpoint holds

    def last(self) -> Path | None:
        """The last whole checkpoint; None where there is none."""
        return max(self.folder.glob("[0-9]*-step-*"), default=None)

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        best: Mapping[str, Tensor],
        device: torch.device,
    ) -> Path:
        """Keep the run as it is now, then drop the checkpoint before it."""
        before = self.last()
        number = int(before.name.partition("-")[0]) + 1 if before else 1
        place = self.folder / f"{number:06d}-step-{progress.step}"
        beside = self.folder / f".{place.name}.tmp"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        write_tensors(beside / "model.safetensors", trained_parameters(model))
        write_tensors(beside / "optimizer.safetensors", _optimizer_tensors(model, optimizer))
        write_tensors(beside / "random.safetensors", _random_states(device))
        if before is not None and self._best_saved == progress.best_step:
            _link(before / "best.safetensors", beside / "best.safetensors")
        else:
            write_tensors(beside / "best.safetensors", best)
        write_json(beside / "progress.json", dataclasses.asdict(progress))
        beside.rename(place)
        self._flush()
        for old in [before, *self.folder.glob(".[0-9]*.tmp")]:
            if old is not None:
                shutil.rmtree(old)
        self._best_saved = progress.best_step
        return place

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> tuple[Progress, dict[str, Tensor]] | None:
        """Put model, optimizer and random states back; give the progress and the best parameters. None: nothing is kept.

        Raises UserError where the checkpoint is damaged or belongs to another model.
        """
        place = self.last()
        if place is None:
            return None
        progress = self.progress()
        assert progress is not None
        put_back(model, read_tensors(place / "model.safetensors"), str(place))
        _restore_optimizer(model, optimizer, read_tensors(place / "optimizer.safetensors"))
        _restore_random(read_tensors(place / "random.safetensors"), device)
        best = {name: t.to(device) for name, t in copy_of(read_tensors(place / "best.safetensors")).items()}
        self._best_saved = progress.best_step
        return progress, best

    def progress(self) -> Progress | None:
        """Where the last checkpoint stands; None where there is none. Raises UserError where it is damaged."""
        place = self.last()
        if place is None:
            return None
        stored = read_json(place / "progress.json")
        try:
            return Progress(**stored)
        except TypeError as error:
            raise UserError(f"{place / 'progress.json'}: not a run's progress ({error}); start the run anew") from error

    def _flush(self) -> None:
        """Flush the folder itself, so that the renaming survives a power cut."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
