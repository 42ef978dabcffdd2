"""AdamW and the learning rate.

AdamW (Loshchilov and Hutter 2019) moves each weight w against its gradient g, in units of how large g usually is, and
shrinks it a little ("decay"), apart from the gradient:

    m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2
    w = w - lr (m' / (sqrt(v') + eps) + decay w)            m' = m / (1 - b1^t),  v' = v / (1 - b2^t)

``t`` is the number of the step, from 1: m and v start at 0, and m' and v' correct the mean for that.

Only matrices decay. A large matrix makes its layer's output depend steeply on its input; small weights make a smoother
function, which generalises better. Biases and norms do not do that: they shift and scale each number on its own, and a
norm's weight pulled towards 0 would shut its layer off. An embedding's row gets a gradient only when its word occurs,
but decay would shrink it at every step, so rare words would fade. ``decay_all`` decays all of them.

The rate is a pure function of how far training is, so a resumed run needs no state for it.
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
    """The trainable parameters in two groups: decayed, and not."""
    # A language head that is tied to an embedding shares its tensor, so embeddings are found by identity, not by name.
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
    """AdamW over the trainable parameters; the fused kernel updates them all in one pass."""
    return torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay, decay_all=settings.decay_all),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=runtime.device.type in ("cpu", "cuda", "mps"),
    )


def warmup_steps(warmup: float, total: int) -> int:
    """A warmup below 1 is a fraction of all steps, else a number of steps.

    A fraction leaves at least one step: the first step of the warmup has the rate 0, so one step alone learns nothing.
    """
    return min(math.ceil(warmup * total), total - 1) if warmup < 1 else int(warmup)


def steps_per_epoch_of(batches: int, settings: TrainSection) -> int:
    """How many steps an epoch of so many batches has."""
    return math.ceil(batches / settings.accumulate)


def check_warmup(settings: TrainSection, batches: int, key: str) -> None:
    """Raises UserError if the warmup lasts to the end of training on so many batches an epoch; ``key``: its name."""
    steps = settings.epochs * steps_per_epoch_of(batches, settings)
    if (warmup := warmup_steps(settings.warmup, steps)) >= steps:
        raise UserError(
            f"{key} is {warmup:,} steps, but training has only {steps:,} and would end before it reaches its rate; "
            "lower it (below 1 it is a fraction of all steps)"
        )


def learning_rate(step: int, *, settings: TrainSection, steps_per_epoch: int) -> float:
    """The rate of a step, the first of which has the number 0.

    From 0 up to ``lr`` over the warmup, linearly (so with a warmup the first step moves nothing, as in transformers'
    schedules); then down to ``lr * lr_end`` at the end of the last epoch, along half a cosine (Loshchilov and Hutter
    2017) or a line. With ``schedule_per = "epoch"`` it falls only between epochs, and as if there were no warmup.
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
