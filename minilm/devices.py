"""Choose the device of a model, CUDA, MPS (Apple silicon) or the CPU, and its precision.

Precision is mixed (Micikevicius et al. 2018): weights stay in float32, and matrix products run in a 16-bit type.
bfloat16 has the range of float32. float16 has a smaller range, in which small gradients would become zero, so the loss
is scaled up before the backward pass, and the gradients are scaled down after it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from minilm.errors import UserError, nearest
from minilm.packed import pack
from minilm.world import World, world

_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """A device and a precision, with the settings that depend on them."""

    device: torch.device
    precision: str = "float32"  # of matrix products: "float32", "bfloat16" or "float16"

    @property
    def scales_loss(self) -> bool:
        """Whether gradients would underflow without loss scaling."""
        return self.precision == "float16"

    @property
    def tokens_at_once(self) -> int:
        """The number of tokens to evaluate at a time: many use a GPU fully, few need less memory on a CPU."""
        return 2048 if self.device.type == "cpu" else 16384

    @property
    def batch_overhead(self) -> int:
        """The number of tokens that take as long as a batch itself does: a GPU is idle while its work is launched."""
        return 32 if self.device.type == "cpu" else 1024

    @property
    def most_lengths(self) -> int:
        """The most different lengths of batches; 0: any. A GPU wants few; a CPU computes all padding."""
        return 0 if self.device.type == "cpu" else 16

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context in which forward passes run."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_TYPES[self.precision])

    def store_as_computed(self, model: nn.Module) -> None:
        """Convert the weights of a model for inference, in place, to the dtype of its matrix products.

        If that is bfloat16, ``autocast`` would convert them again for each batch, and a CPU would lay them out again
        (``minilm.packed``). The scores are the same bit for bit.
        """
        if self.precision != "bfloat16":
            return
        embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        for module in model.modules():
            if isinstance(module, nn.Linear) and id(module.weight) not in embeddings:
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(torch.bfloat16)
        if self.device.type == "cpu" and cpu_computes_bfloat16():
            pack(model)

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type.upper()
        return f"{name}, {self.precision}"


def choose_device(wanted: str, *, gpus: int, mps: bool, place: World | None = None) -> str:
    """The device for ``wanted``, on a machine with ``gpus`` CUDA GPUs and with or without MPS.

    "auto" prefers CUDA to MPS to the CPU. If this is one of several processes, ``place``, each has a GPU of its own.
    Raises UserError for an unknown device, or one that the machine does not have.
    """
    if place is not None and place.size > 1:
        if wanted == "mps" or ":" in wanted:
            raise UserError(f'several processes cannot share the device "{wanted}"; use "auto", "cuda" or "cpu"')
        mps = False
        if gpus and wanted in ("auto", "cuda"):
            if place.local_size > gpus:
                raise UserError(
                    f"{place.local_size} processes were started on a machine with {gpus} GPUs; start at most one for "
                    "each (torchrun --nproc-per-node)"
                )
            return f"cuda:{place.local_rank}"
    if wanted == "auto":
        return "cuda" if gpus else "mps" if mps else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", wanted):
        hint = nearest(wanted, ("auto", "cpu", "cuda", "mps"))
        raise UserError(f'device must be "auto", "cpu", "mps", "cuda" or "cuda:1", got "{wanted}"{hint}')
    kind, _, number = wanted.partition(":")
    here = {"cpu": True, "mps": mps, "cuda": int(number or 0) < gpus}
    if not here[kind]:
        raise UserError(f'this machine has no device "{wanted}"; use "auto"')
    return wanted


def choose_precision(wanted: str, kind: str, *, bfloat16: bool, fast: bool) -> str:
    """The precision for ``wanted`` and a device ("cuda", "mps" or "cpu"), which has bfloat16 or not, and is ``fast`` in
    it or not.

    "auto": bfloat16 on a GPU that supports it and on a CPU that computes in it, float16 on an older GPU; float32 on
    other CPUs and on MPS, where 16 bits save no time. float16 needs CUDA, because of the loss scaling.
    """
    if wanted == "auto":
        return "bfloat16" if fast else "float16" if kind == "cuda" else "float32"
    if wanted == "bfloat16" and not bfloat16:
        raise UserError('this device does not support the precision "bfloat16"; use "auto"')
    if wanted == "float16" and kind != "cuda":
        raise UserError('the precision "float16" needs a CUDA device; use "auto"')
    return wanted


def runtime(device: str = "auto", precision: str = "auto") -> Runtime:
    """The device and precision on this machine. Raises UserError if the machine does not support them."""
    mps = torch.backends.mps.is_available()
    name = choose_device(device, gpus=torch.cuda.device_count(), mps=mps, place=world())
    kind = name.partition(":")[0]
    if kind == "cuda" and world().size > 1:
        torch.cuda.set_device(name)  # on which NCCL communicates
    return Runtime(torch.device(name), choose_precision(precision, kind, **_bfloat16_of(kind)))


def runtime_as_trained(device: str, precision: str) -> Runtime:
    """The device with the ``train.precision`` of a trained model, or float32 if the device does not support that. With
    the same precision on the same machine, scores are bit for bit those of training."""
    kind = runtime(device).device.type
    here = _bfloat16_of(kind)["bfloat16"] if precision == "bfloat16" else kind == "cuda" or precision != "float16"
    return runtime(device, precision if here else "float32")


def _bfloat16_of(kind: str) -> dict[str, bool]:
    """Whether this machine's device has bfloat16, and is fast in it."""
    if kind == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return {"bfloat16": supported, "fast": supported}
    return {"bfloat16": True, "fast": kind == "cpu" and cpu_computes_bfloat16()}


def advice(runtime: Runtime) -> str:
    """A hint if float32 would save time on this CPU; otherwise empty."""
    if runtime.device.type == "cpu" and runtime.precision == "bfloat16" and not cpu_computes_bfloat16():
        return "this CPU has no instructions for bfloat16 and converts each number: float32 is faster"
    return ""


@cache
def cpu_computes_bfloat16() -> bool:
    """Whether this machine's CPU multiplies bfloat16 itself, which is faster than float32.

    If not, torch computes it in float32 and converts each number, which saves no time. Some 16-bit instructions of
    x86 are ``avx512_bf16`` and AMX's ``amx_bf16``; ``bf16`` is that of ARM. They are read from Linux; on other systems
    torch reports those of x86.
    """
    flags = Path("/proc/cpuinfo")
    if flags.is_file():
        return has_bfloat16_flag(flags.read_text(encoding="utf-8", errors="replace"))
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in BFLOAT16_FLAGS)


BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")


def has_bfloat16_flag(cpuinfo: str) -> bool:
    """The same, from the text of Linux' ``/proc/cpuinfo``."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    flags = {flag for key, _, values in lines if key.strip() in ("flags", "Features") for flag in values.split()}
    return not flags.isdisjoint(BFLOAT16_FLAGS)


# --- Memory ---


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the GPU's or the machine's memory is exhausted."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    messages = ("can't allocate memory", "out of memory")  # the CPU's and MPS's allocators raise a plain RuntimeError
    return isinstance(error, RuntimeError) and any(message in str(error) for message in messages)


Stage = Literal["adapt", "train", "zero_shot"]
LESS_MEMORY: dict[Stage, str] = {  # what needs less memory in each stage of a run
    "adapt": "a lower adapt.train.batch_size (and a higher adapt.train.accumulate, which gives the same steps) or "
    "adapt.block, or with adapt.train.gradient_checkpointing = true",
    "train": "a lower train.batch_size (and a higher train.accumulate, which gives the same steps) or data.max_tokens, "
    "or with train.gradient_checkpointing = true",
    "zero_shot": "a lower data.max_tokens or a smaller model (model.source)",
}


@contextlib.contextmanager
def out_of_memory_explained(stage: Stage, resume: str = "") -> Iterator[None]:
    """If memory is exhausted inside the context, raise UserError with settings that need less memory.

    Args:
        stage: the section of the config whose stage runs.
        resume: the command to resume with; "": none.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory ({(str(error).strip() or 'none left').splitlines()[0]}); start a new run with "
            + LESS_MEMORY[stage]
            + (f"; if another program uses the memory, resume when it has ended: {resume}" if resume else "")
        ) from error
