"""The state from which a run resumes as if it had never stopped, and how it is stored.

A checkpoint is a folder ``checkpoints/NUMBER-step-STEP`` that appears whole or not at all: it is written under
another name, flushed to the disk, and renamed.

    model.safetensors       the trained parameters
    optimizer.safetensors   AdamW's m, v and t of each
    best.safetensors        the trained parameters of the best evaluation so far, once there was one
    random.safetensors      the state of every random generator in use
    progress.json           where the run is

The best parameters are written when they are found, to ``checkpoints/best.safetensors``, as memory is scarcer than
disk; a checkpoint has the same file under a second name.

The order of the texts and the learning rate are functions of seed, epoch and step, so they need no state.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minilm.checkpoints.atomic import atomic, flush_names
from minilm.checkpoints.files import read_tensors, write_json, write_tensors
from minilm.errors import UserError
from minilm.measures import Measured, Number
from minilm.reporting.results import Evaluation, read_record
from minilm.schema import as_table
from minilm.training.optimizer import AdamW


@dataclass
class Progress:
    """Where a run is."""

    step: Number = 0  # optimizer steps done
    tokens: Number = 0  # real tokens trained on
    seconds: Measured = 0.0  # of training, over all its parts
    loss_sum: float = 0.0  # of the losses since the last evaluation ...
    loss_denominator: Measured = 0.0  # ... and what makes it a mean
    best_step: int = -1  # of the best evaluation; -1: none yet
    best_value: float | None = None  # its metric
    best_loss: float | None = None  # its validation loss
    bad_evaluations: Number = 0  # evaluations in a row without an improvement
    stopped: str = ""  # why it ended: "finished", "early stopping" or "max_minutes"; "": it has not
    loss_scaling: dict[str, Any] = field(default_factory=dict)  # state of float16's loss scaling
    history: list[Evaluation] = field(default_factory=list)

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
    """Overwrite the trained parameters."""
    with torch.no_grad():
        for name, parameter in trained_parameters(model).items():
            parameter.copy_(tensors[name])


class Checkpoints:
    """The checkpoints of one run, of which only the last is kept, and its best parameters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = folder / "best.safetensors"

    def last(self) -> Path | None:
        """The last whole checkpoint; None if there is none."""
        return max(self.folder.glob("[0-9]*-step-*"), default=None)

    def keep_best(self, model: nn.Module) -> None:
        """Remember the trained parameters as they are now."""
        write_tensors(self.best, trained_parameters(model))

    def put_best_back(self, model: nn.Module) -> None:
        """Return to the best parameters."""
        put_back(model, _read_parameters(model, self.best))

    def save(
        self, model: nn.Module, optimizer: AdamW, progress: Progress, device: torch.device
    ) -> Path:
        """Keep the run as it is now, then drop the checkpoint before it."""
        before = self.last()
        number = int(before.name.partition("-")[0]) + 1 if before else 1
        place = self.folder / f"{number:06d}-step-{progress.step}"
        beside = self.folder / f".{place.name}.tmp"
        shutil.rmtree(beside, ignore_errors=True)  # a kill may have left one
        try:
            beside.mkdir(parents=True)
            write_tensors(beside / "model.safetensors", trained_parameters(model))
            write_tensors(beside / "optimizer.safetensors", _optimizer_tensors(model, optimizer))
            write_tensors(beside / "random.safetensors", _random_states(device))
            if progress.best_step >= 0:  # else nothing was measured yet
                _link(self.best, beside / self.best.name)
            write_json(beside / "progress.json", as_table(progress))
            flush_names(beside)
            beside.rename(place)
            flush_names(self.folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)  # once renamed there is none
        self._drop_all_but(place)
        return place

    def restore(self, model: nn.Module, optimizer: AdamW, device: torch.device) -> Progress | None:
        """Put model, optimizer, best parameters and random states back; give the progress.

        None: there is no checkpoint. Raises UserError if it is damaged or belongs to another model.
        """
        place = self.last()
        if place is None:
            return None
        progress = read_record(Progress, place / "progress.json")
        put_back(model, _read_parameters(model, place / "model.safetensors"))
        _restore_optimizer(model, optimizer, place / "optimizer.safetensors")
        if progress.best_step >= 0:
            _read_parameters(model, place / self.best.name)  # raises if they are not whole
            self.best.unlink(missing_ok=True)  # a kill may have left later ones
            _link(place / self.best.name, self.best)
        _restore_random(place / "random.safetensors", device)
        self._drop_all_but(place)  # a kill may have left parts of others
        return progress

    def _drop_all_but(self, place: Path) -> None:
        for other in self.folder.glob("*-step-*"):
            if other != place:
                shutil.rmtree(other)


def _read_parameters(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """The trained parameters in a file. Raises UserError if names or shapes are not the model's."""
    tensors = read_tensors(path)
    if _shapes(tensors) != _shapes(trained_parameters(model)):
        raise UserError(f"{path}: belongs to another model than the config describes; start the run anew")
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
    stored = read_tensors(path)
    for name, parameter in model.named_parameters():
        shapes = {"step": (), "exp_avg": tuple(parameter.shape), "exp_avg_sq": tuple(parameter.shape)}
        state = {key: stored.pop(f"{name}/{key}") for key in shapes if f"{name}/{key}" in stored}
        if state and _shapes(state) != shapes:  # a parameter that no text has reached has no state
            raise UserError(f"{path}: the state of {name} is not whole; start the run anew")
        if state:
            optimizer.state[parameter] = {key: value.clone().to(parameter.device) for key, value in state.items()}
    if stored:
        raise UserError(f"{path}: holds {next(iter(stored))}, which belongs to another model; start the run anew")


def _random_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _restore_random(path: Path, device: torch.device) -> None:
    states = read_tensors(path)
    if "cpu" not in states or states["cpu"].shape != torch.get_rng_state().shape:
        raise UserError(f"{path}: does not hold the CPU's random state; start the run anew")
    torch.set_rng_state(states["cpu"].clone())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].clone(), device)
    if device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"].clone())


def _link(existing: Path, new: Path) -> None:
    """A second name for a file, if the file system has such; else a copy."""
    try:
        os.link(existing, new)
    except OSError:
        with existing.open("rb") as content, atomic(new) as file:
            shutil.copyfileobj(content, file)
