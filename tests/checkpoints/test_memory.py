"""Loading takes the memory of one model, whatever it is converted from, saving little more; both the least time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from minilm.checkpoints.configs import write_config
from minilm.checkpoints.files import write_json, write_tensors
from minilm.checkpoints.models import new_model, save_model
from minilm.checkpoints.names import published_tensors, rows_of
from minilm.models import ARCHITECTURES, build_model, without_weights

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory in use is read from /proc")

# Loads a small model, to have all code in memory, then the one to be measured, and looks at every number of each; so
# for saving. VmHWM is the peak that ru_maxrss gives, without what the parent process had in memory.
MEASURE = """
import json, re, sys, torch
from minilm.checkpoints.models import load_model, save_model

def memory(kind):
    return 1024 * int(re.search(kind + r":\\s*(\\d+) kB", open("/proc/self/status").read())[1])

def load(folder, dtype):
    before, model = memory("VmRSS"), load_model(folder, dtype=dtype)
    for parameter in model.parameters():
        parameter.flatten().view(torch.uint8).max()
    size = sum(p.numel() * p.dtype.itemsize for p in model.parameters())
    return size, (memory("VmHWM") - before) / size

def save(folder):
    before, model = memory("VmRSS"), load_model(folder)
    save_model(model, folder + "-again")
    size = sum(p.numel() * p.dtype.itemsize for p in model.parameters())
    return size, (memory("VmHWM") - before) / size

small, large, *dtypes = sys.argv[1:]
ways = [lambda folder, dtype=dtype: load(folder, getattr(torch, dtype)) for dtype in dtypes] or [save]
for way in ways:
    way(small)
shares = [way(large) for way in ways]
print(json.dumps({"shares": shares, "compiler": "torch._dynamo" in sys.modules}))
"""


def write_llama(folder: Path, depth: int, width: int) -> Path:
    """A checkpoint with Bielik's proportions in bfloat16, in shards."""
    config = ARCHITECTURES["llama"].config(
        vocab_size=21 * width, width=width, depth=depth, heads=12, kv_heads=2, mlp_width=6 * width, attention_bias=True,
        output_bias=True, mlp_bias=True, tied=False,
    )  # fmt: skip
    with without_weights():
        model = build_model("llama", config, "lm")
    rows = rows_of(ARCHITECTURES["llama"].names, config, "lm", prefixed=True)
    shapes = {name: tensor.shape for name, tensor in published_tensors(dict(model.named_parameters()), rows)}
    weight_map = {}
    for shard in range(3):
        names = list(shapes)[shard::3]
        write_tensors(folder / f"{shard}.safetensors", {n: torch.ones(shapes[n], dtype=torch.bfloat16) for n in names})
        weight_map |= dict.fromkeys(names, f"{shard}.safetensors")
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    write_json(folder / "config.json", {**write_config("llama", config), "architectures": ["LlamaForCausalLM"]})
    return folder


def write_gpt2(folder: Path, depth: int, width: int) -> Path:
    """A checkpoint whose weights are transposed and fused."""
    config = ARCHITECTURES["gpt2"].config(vocab_size=21 * width, width=width, depth=depth, heads=12)
    return save_model(new_model("gpt2", config, "encode"), folder)


def measure(small: Path, large: Path, *dtypes: str) -> list[tuple[int, float]]:
    """Bytes of the large model, and the peak of memory as a share of them, by dtype (none: of saving it)."""
    command = [sys.executable, "-c", MEASURE, str(small), str(large), *dtypes]
    measured = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert not measured["compiler"]  # loading it would take longer than most models
    return measured["shares"]


@pytest.mark.parametrize(
    ("write", "dtypes"),
    [(write_llama, ["bfloat16", "float32"]), (write_gpt2, ["bfloat16"]), (write_gpt2, ["float32"])],
)  # the larger dtype last: a peak stays
def test_two_copies_never_lie_in_memory(tmp_path: Path, write: Callable[..., Path], dtypes: list[str]) -> None:
    for size, share in measure(write(tmp_path / "small", 1, 24), write(tmp_path / "large", 6, 480), *dtypes):
        assert size > 40e6 and 0.9 < share < 1.15


def test_saving_transposed_weights_does_not_take_a_second_copy_of_them(tmp_path: Path) -> None:
    ((size, share),) = measure(write_gpt2(tmp_path / "small", 1, 24), write_gpt2(tmp_path / "large", 6, 480))
    assert size > 80e6 and share < 1.55  # joined tensors are copied, a fifth of the model; transposed, three quarters
