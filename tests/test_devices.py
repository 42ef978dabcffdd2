from __future__ import annotations

import pytest
import torch

from minilm import devices
from minilm.devices import (
    Runtime,
    choose_device,
    choose_precision,
    out_of_memory_explained,
    runtime,
    runtime_as_trained,
)
from minilm.errors import UserError


@pytest.mark.parametrize(
    ("asked", "gpus", "mps", "chosen"),
    [
        ("auto", 0, False, "cpu"),
        ("auto", 0, True, "mps"),
        ("auto", 1, False, "cuda"),
        ("auto", 1, True, "cuda"),
        ("cpu", 2, True, "cpu"),
        ("mps", 0, True, "mps"),
        ("cuda", 2, False, "cuda"),
        ("cuda:1", 2, False, "cuda:1"),
    ],
)
def test_the_device_that_is_asked_for_or_the_fastest(asked: str, gpus: int, mps: bool, chosen: str) -> None:
    assert choose_device(asked, gpus=gpus, mps=mps) == chosen


@pytest.mark.parametrize("asked", ["cuda", "cuda:0", "cuda:2", "mps"])
def test_a_device_that_is_not_there_is_refused(asked: str) -> None:
    gpus = 2 if asked == "cuda:2" else 0
    with pytest.raises(UserError, match=f'this machine has no device "{asked}"; use "auto"'):
        choose_device(asked, gpus=gpus, mps=False)


@pytest.mark.parametrize(("asked", "hint"), [("cdua", 'did you mean "cuda"'), ("cuda:x", ""), ("mps:0", ""), ("", "")])
def test_a_device_that_does_not_exist_is_refused(asked: str, hint: str) -> None:
    with pytest.raises(UserError, match=f'device must be .*, got "{asked}".*{hint}'):
        choose_device(asked, gpus=9, mps=True)


@pytest.mark.parametrize(
    ("asked", "kind", "bfloat16", "chosen"),
    [
        ("auto", "cuda", True, "bfloat16"),
        ("auto", "cuda", False, "float16"),
        ("auto", "mps", True, "float32"),
        ("auto", "cpu", True, "float32"),
        ("float32", "cuda", True, "float32"),
        ("float16", "cuda", True, "float16"),
        ("bfloat16", "cpu", True, "bfloat16"),
        ("bfloat16", "mps", True, "bfloat16"),
    ],
)
def test_the_precision_of_each_device(asked: str, kind: str, bfloat16: bool, chosen: str) -> None:
    assert choose_precision(asked, kind, bfloat16=bfloat16) == chosen


@pytest.mark.parametrize(("asked", "kind"), [("float16", "cpu"), ("float16", "mps"), ("bfloat16", "cuda")])
def test_a_precision_that_the_device_lacks_is_refused(asked: str, kind: str) -> None:
    with pytest.raises(UserError, match=r'train\.precision: .*use "auto"'):
        choose_precision(asked, kind, bfloat16=False)


def test_a_model_is_run_as_it_was_trained_where_the_device_can() -> None:
    on_cpu = {"auto": "float32", "bfloat16": "bfloat16", "float16": "float32", "float32": "float32"}
    assert {trained: runtime_as_trained("cpu", trained).precision for trained in on_cpu} == on_cpu


WANTING = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried"),
    RuntimeError("MPS backend out of memory"),
]


@pytest.mark.parametrize("error", [*WANTING, None])
def test_want_of_memory_says_what_needs_less(error: Exception | None) -> None:
    needs_less = r"^out of memory .*lower train\.batch_size .*train\.accumulate.*train\.gradient_checkpointing"
    with pytest.raises(UserError, match=needs_less), out_of_memory_explained():
        if error is None:
            torch.empty(2**60)
        else:
            raise error
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory_explained():
        raise RuntimeError("shapes do not fit")


def test_only_float16_scales_the_loss() -> None:
    cpu = torch.device("cpu")
    assert [Runtime(cpu, p).scales_loss for p in ("float32", "bfloat16", "float16")] == [False, False, True]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_matrix_products_run_in_the_chosen_precision(precision: str) -> None:
    linear = torch.nn.Linear(2, 2)
    with Runtime(torch.device("cpu"), precision).autocast():
        assert linear(torch.ones(1, 2)).dtype == getattr(torch, precision)
    assert linear.weight.dtype == torch.float32


def test_this_machine_has_a_device() -> None:
    assert runtime("cpu") == Runtime(torch.device("cpu"), "float32")
    assert str(runtime("cpu", "bfloat16")) == "CPU, bfloat16"
    assert runtime().device.type in ("cpu", "cuda", "mps")


def test_apple_silicon_is_never_taken_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert runtime().device.type == "mps" and str(runtime()) == "MPS, float32"


@pytest.mark.parametrize(("new", "precision"), [(True, "bfloat16"), (False, "float16")])
def test_an_older_gpu_computes_in_float16(monkeypatch: pytest.MonkeyPatch, new: bool, precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: new)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert runtime("cuda:1") == Runtime(torch.device("cuda:1"), precision)
    assert str(devices.runtime("cuda:1")) == f"GPU 1, {precision}"
