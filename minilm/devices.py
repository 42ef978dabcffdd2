"""Where a model runs and in which precision: CUDA, MPS (Apple silicon) or the CPU, by one rule each.

Precision is mixed (Micikevicius et al. 2018): weights stay in float32, matrix products run in a 16-bit type. bfloat16 has
float32's range and needs nothing else. float16 does not: small gradients would become zero, so the loss is scaled up before
the backward pass and the gradients are scaled down after it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch

from minilm.errors import UserError

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Execution:
    """A device and a precision, and what follows from them."""

    device: torch.device
    precision: str = "float32"  # of matrix products: "float32", "bfloat16" or "float16"

    @property
    def scales_loss(self) -> bool:
        """Whether gradients would underflow without loss scaling."""
        return self.precision == "float16"

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context in which forward passes run."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_TYPES[self.precision])

    def synchronize(self) -> None:
        """Wait for the device, before reading a clock."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def peak_memory(self) -> int:
        """The most bytes that tensors took on a CUDA device at once; 0 elsewhere."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type.upper()
        return f"{name}, {self.precision}"


def choose_device(asked: str, *, cuda: bool, mps: bool) -> str:
    """The device for a wish and a machine: CUDA before MPS before the CPU. Raises UserError for one that is not there."""
    if asked == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    kind = asked.partition(":")[0]
    if (kind == "cuda" and not cuda) or (kind == "mps" and not mps):
        raise UserError(f'train.device: "{asked}" is not available on this machine; use "auto"')
    return asked


def choose_precision(asked: str, kind: str, *, bfloat16: bool) -> str:
    """The precision for a wish and a device ("cuda", "mps" or "cpu").

    "auto": bfloat16 on a GPU that computes in it, float16 on an older one; float32 on the CPU and on MPS, where 16 bits
    save no time. float16 is for CUDA alone, whose loss scaling it needs.
    """
    if asked == "auto":
        return ("bfloat16" if bfloat16 else "float16") if kind == "cuda" else "float32"
    if asked == "bfloat16" and not bfloat16:
        raise UserError('train.precision: this device does not compute in bfloat16; use "auto"')
    if asked == "float16" and kind != "cuda":
        raise UserError('train.precision: "float16" needs a CUDA device; use "auto"')
    return asked


def execution(device: str = "auto", precision: str = "auto") -> Execution:
    """The device and precision to run with on this machine."""
    name = choose_device(device, cuda=torch.cuda.is_available(), mps=torch.backends.mps.is_available())
    kind = name.partition(":")[0]
    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False) if kind == "cuda" else True
    return Execution(torch.device(name), choose_precision(precision, kind, bfloat16=bfloat16))
