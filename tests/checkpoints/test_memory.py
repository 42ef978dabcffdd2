"""Loading takes the memory of one model, whatever it is converted from, and no more time than it must."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minilm.checkpoints.configs import write_config
from minilm.checkpoints.files import write_json, write_tensors
from minilm.checkpoints.names import published_tensors, rows_of
from minilm.models import ARCHITECTURES, build_model, without_weights

# Loads a small model, to have all code in memory, then the one to be measured, and looks at every number of each.
# VmHWM is the peak that ru_maxrss gives, without what the parent process had in memory.
MEASURE = """
import json, re, sys, torch
from minilm.checkpoints.models import load_model

def memory(kind):
    return 1024 * int(re.search(kind + r":\\s*(\\d+) kB", open("/proc/self/status").read())[1])

def load(folder, dtype):
    before, model = memory("VmRSS"), load_model(folder, dtype=dtype)
    for parameter in model.parameters():
        parameter.flatten().view(torch.uint8).max()
    size = sum(p.numel() * p.dtype.itemsize for p in model.parameters())
    return size, (memory("VmHWM") - before) / size

small, large = sys.argv[1:]
load(small, torch.bfloat16), load(small, torch.float32)
shares = load(large, torch.bfloat16), load(large, torch.float32)  # the larger one last: a peak stays
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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory in use is read from /proc")
def test_two_copies_never_lie_in_memory(tmp_path: Path) -> None:
    folders = write_llama(tmp_path / "small", 1, 24), write_llama(tmp_path / "large", 6, 480)
    command = [sys.executable, "-c", MEASURE, *map(str, folders)]
    measured = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    for size, share in measured["shares"]:
        assert size > 60e6 and 0.9 < share < 1.15
    assert not measured["compiler"]  # loading it would take longer than most models
