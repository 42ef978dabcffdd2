"""Models that do not fit on one device: each process keeps a part of every parameter (torch's FSDP2; ZeRO, Rajbhandari
et al. 2020).

    forward    of each layer: gather its parameters from all processes, compute, drop them
    backward   the same, and add up the gradients so that each process gets those of its parts
    step       each process updates its parts

So parameters, gradients and AdamW's m and v take 1/N of their memory; activations are not shared, but each process
computes only its rows. The numbers are those of one process, except for the order in which gradients are added.

Parameters are gathered by hooks that run when the *module* is called. So everything that computes with a sharded model
calls the model itself, or one of ``ENTRIES``; calling a part of it, such as its head, would compute with a fraction of
the weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from minilm.checkpoints.files import read_tensors
from minilm.config import RunConfig
from minilm.devices import Runtime
from minilm.errors import UserError
from minilm.models.architecture import Backbone
from minilm.training.state import trained_parameters
from minilm.world import world

ENTRIES = ("vectors_after", "states", "pooled", "classify")  # methods of a backbone, besides ``forward``


def check_sharding(config: RunConfig, runtime: Runtime) -> None:
    """Raise UserError if a stage of a run shards its model in float16, as the loss scaling would not know of other
    processes' overflows."""
    sections = {"train": config.train, "adapt.train": config.adapt.train if config.adapt else None}
    found = {key: section for key, section in sections.items() if section is not None}
    for key, section in found.items():
        if is_sharding(section.shard) and runtime.scales_loss:
            of = next(iter(found))  # [train] has the precision of both stages
            raise UserError(f'{key}.shard needs {of}.precision = "bfloat16" or "float32", not float16')


def shard(model: Backbone, runtime: Runtime) -> None:
    """Distribute the parameters of a model over all processes, in place. It is on the CPU, and moves to the device."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    # Its advice about in-place changes of a layer's output is for code that makes some.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    mesh = init_device_mesh(runtime.device.type, (world().size,))
    for layer in dict.fromkeys(model.blocks):
        fully_shard(layer, mesh=mesh)
    # Otherwise the model's own parameters would stay gathered after an evaluation, and not be those of the optimizer.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):  # add gradients up; by default it divides them by the number of processes
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # which gloo needs
    for name in ENTRIES:
        register_fsdp_forward_method(model, name)


def open_whole(make: Callable[[], Backbone], trained: Path) -> Backbone:
    """The whole model after sharded training, on the CPU: as ``make`` makes it before training, with the trained
    parameters of a file. Its weights are pages of files, so it needs little memory."""
    model, tensors = make(), read_tensors(trained)
    for name in trained_parameters(model):
        model.get_parameter(name).data = tensors[name]
    return model.eval()


def is_sharding(wanted: bool) -> bool:
    """Whether a model is sharded: if ``train.shard`` wants it, and there are several processes."""
    return wanted and world().size > 1
