from __future__ import annotations

import pytest
import torch

from minilm import devices
from minilm.devices import (
    Runtime,
    advice,
    choose_device,
    choose_precision,
    cpu_computes_bfloat16,
    has_bfloat16_flag,
    out_of_memory_explained,
    runtime,
    runtime_as_trained,
)
from minilm.errors import UserError
from minilm.world import World
from tests.families import FAMILIES, draw_batch, small_model


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


@pytest.mark.parametrize(
    ("asked", "gpus", "chosen"), [("auto", 2, "cuda:1"), ("cuda", 2, "cuda:1"), ("cpu", 2, "cpu"), ("auto", 0, "cpu")]
)
def test_each_of_several_processes_has_a_gpu_of_its_own(asked: str, gpus: int, chosen: str) -> None:
    assert choose_device(asked, gpus=gpus, mps=True, place=World(3, 4, 1, 2)) == chosen


@pytest.mark.parametrize(("asked", "what"), [("auto", "2 processes .* 1 GPUs"), ("cuda:0", "share"), ("mps", "share")])
def test_a_gpu_for_several_processes_is_refused(asked: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        choose_device(asked, gpus=1, mps=True, place=World(3, 4, 1, 2))


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
    ("asked", "kind", "bfloat16", "fast", "chosen"),
    [
        ("auto", "cuda", True, True, "bfloat16"),
        ("auto", "cuda", False, False, "float16"),
        ("auto", "mps", True, False, "float32"),
        ("auto", "cpu", True, False, "float32"),
        ("auto", "cpu", True, True, "bfloat16"),
        ("float32", "cuda", True, True, "float32"),
        ("float32", "cpu", True, True, "float32"),
        ("float16", "cuda", True, True, "float16"),
        ("bfloat16", "cpu", True, False, "bfloat16"),
        ("bfloat16", "mps", True, False, "bfloat16"),
    ],
)
def test_the_precision_of_each_device(asked: str, kind: str, bfloat16: bool, fast: bool, chosen: str) -> None:
    assert choose_precision(asked, kind, bfloat16=bfloat16, fast=fast) == chosen


@pytest.mark.parametrize("native", [True, False])
def test_a_cpu_uses_bfloat16_if_it_computes_in_it(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_computes_bfloat16", lambda: native)
    assert runtime("cpu").precision == ("bfloat16" if native else "float32")
    assert runtime("cpu", "float32").precision == "float32"


@pytest.mark.parametrize(("asked", "kind"), [("float16", "cpu"), ("float16", "mps"), ("bfloat16", "cuda")])
def test_a_precision_that_the_device_lacks_is_refused(asked: str, kind: str) -> None:
    with pytest.raises(UserError, match=r'precision "(b)?float16".*use "auto"'):
        choose_precision(asked, kind, bfloat16=False, fast=False)


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
    with pytest.raises(UserError, match=needs_less), out_of_memory_explained("train"):
        if error is None:
            torch.empty(2**60)
        else:
            raise error
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory_explained("train"):
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


INTEL = "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu avx2 avx512f {}\n\nprocessor\t: 1\nbugs\t\t: bf16\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("cpuinfo", "flag", "computes"),
    [
        (INTEL, "avx512_bf16", True),
        (INTEL, "amx_bf16 amx_tile", True),
        (INTEL, "avx512_vnni", False),
        (INTEL, "avx512_bf16x", False),
        (ARM, "bf16 i8mm", True),
        (ARM, "asimdhp", False),
        ("", "", False),
    ],
)
def test_the_processors_flags_tell_whether_it_computes_in_bfloat16(cpuinfo: str, flag: str, computes: bool) -> None:
    assert has_bfloat16_flag(cpuinfo.format(flag)) is computes


def test_without_flags_to_read_torch_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = cpu_computes_bfloat16.__wrapped__
    monkeypatch.setattr("pathlib.Path.is_file", lambda path: False)
    for found, computes in (({"avx512_bf16": True}, True), ({"amx_bf16": False, "avx2": True}, False), ({}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert ask() is computes


def test_torch_and_the_flags_agree_on_this_machine() -> None:
    found = torch.cpu.get_capabilities()
    if not {"avx512_bf16", "amx_bf16"} <= set(found):
        pytest.skip("not a processor whose bfloat16 torch tells")
    assert cpu_computes_bfloat16() == (found["avx512_bf16"] or found["amx_bf16"])


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_stored_in_bfloat16_give_the_same_scores_bit_for_bit(family: str) -> None:
    model, batch = small_model(family), draw_batch([7, 3])
    where = Runtime(torch.device("cpu"), "bfloat16")
    with torch.no_grad(), where.autocast():
        expected = model(batch)
        Runtime(torch.device("cpu"), "float32").store_as_computed(model)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        where.store_as_computed(model)
        assert torch.equal(model(batch), expected)
    assert model.get_parameter("embeddings.token.weight").dtype == torch.float32
    assert torch.bfloat16 in {parameter.dtype for parameter in model.parameters()}


@pytest.mark.parametrize(
    ("device", "precision", "native", "message"),
    [
        ("cpu", "float32", False, ""),
        ("cpu", "float32", True, ""),
        ("cpu", "bfloat16", True, ""),
        ("cpu", "bfloat16", False, "float32 is faster"),
        ("cuda", "bfloat16", True, ""),
    ],
)
def test_a_faster_precision_of_this_cpu_is_named(
    device: str, precision: str, native: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cpu_computes_bfloat16", lambda: native)
    found = advice(Runtime(torch.device(device), precision))
    assert message in found and bool(found) == bool(message)
