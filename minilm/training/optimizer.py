"""AdamW and the learning rate.

AdamW (Loshchilov and Hutter 2019) moves each weight w against its gradient g, divided by the usual size of g, and
independently shrinks w a little ("weight decay"):

    m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2
    w = w - lr (m' / (sqrt(v') + eps) + decay w)            m' = m / (1 - b1^t),  v' = v / (1 - b2^t)

``t`` is the number of the step, from 1. m and v start at 0; m' and v' correct the bias that this causes.

Only matrices decay. A large matrix makes its layer's output depend steeply on its input; small weights make a smoother
function, which generalises better. Biases and norms only shift and scale single components, and decaying the weight of
a norm towards 0 would switch its layer off. The row of a token in an embedding gets a gradient only if the token
occurs, but decay would shrink it at every step, so rare tokens would vanish. ``decay_all`` applies decay to all
parameters.

The learning rate is a pure function of the step, so a resumed run needs no state for it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from minilm.config import TrainSection
from minilm.devices import Runtime
from minilm.errors import UserError


def parameter_groups(model: nn.Module, weight_decay: float, *, decay_all: bool = False) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: with weight decay and without."""
    # A tied language head shares the tensor of an embedding, so embeddings are found by identity, not by name.
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim > 1 and id(parameter) not in embeddings
            (decayed if is_matrix or decay_all else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, settings: TrainSection, runtime: Runtime) -> torch.optim.AdamW:
    """AdamW for the trainable parameters. The fused kernel updates all of them in one pass."""
    return torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay, decay_all=settings.decay_all),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=runtime.device.type in ("cpu", "cuda", "mps"),
    )


def warmup_steps(warmup: float, total: int) -> int:
    """The number of warmup steps: ``warmup`` below 1 is a fraction of all steps, otherwise a number of steps.

    A fraction never covers all steps, as the first warmup step has the learning rate 0.
    """
    return min(math.ceil(warmup * total), total - 1) if warmup < 1 else int(warmup)


def steps_per_epoch_of(batches: int, settings: TrainSection) -> int:
    """The number of optimizer steps in an epoch of ``batches`` batches."""
    return math.ceil(batches / settings.accumulate)


def check_warmup(settings: TrainSection, batches: int, key: str) -> None:
    """Raises UserError if the warmup lasts until the end of training. batches: per epoch; key: its name in messages."""
    steps = settings.epochs * steps_per_epoch_of(batches, settings)
    if (warmup := warmup_steps(settings.warmup, steps)) >= steps:
        raise UserError(
            f"{key} is {warmup:,} steps, but training has only {steps:,} steps and would never reach its full rate; "
            f"lower {key} (a number below 1 is a fraction of all steps)"
        )


def learning_rate(step: int, *, settings: TrainSection, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0.

    It rises linearly from 0 to ``lr`` during the warmup (so the first warmup step changes nothing, as in the schedules
    of ``transformers``). Then it falls to ``lr * lr_end`` at the end of the last epoch, along half a cosine (Loshchilov
    and Hutter 2017) or a line. With ``schedule_per = "epoch"`` it falls only between epochs, and as if there were no
    warmup.
    """
    total = settings.epochs * steps_per_epoch
    warmup = warmup_steps(settings.warmup, total)
    if step < warmup:
        return settings.lr * step / warmup
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule_per == "epoch":
        progress = (step // steps_per_epoch) / settings.epochs
    else:
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
    remaining = 0.5 * (1 + math.cos(math.pi * progress)) if settings.schedule == "cosine" else 1 - progress
    return settings.lr * (settings.lr_end + (1 - settings.lr_end) * remaining)
