"""AdamW and the learning rate.

AdamW (Loshchilov and Hutter 2019) moves each weight w against its gradient g, in units of how large g usually is, and
shrinks it a little ("decay"), apart from the gradient:

    m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2
    w = w - lr (m' / (sqrt(v') + eps) + decay w)            m' = m / (1 - b1^t),  v' = v / (1 - b2^t)

Decay is for matrices. A bias, a norm's weight or an embedding is not pulled towards zero unless asked for.

The rate is a pure function of how far training is, so a resumed run needs no state for it.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from minilm.config import TrainSection
from minilm.devices import Execution


def parameter_groups(model: nn.Module, weight_decay: float, *, decay_all: bool = False) -> list[dict[str, object]]:
    """The trainable parameters in two groups: decayed, and not."""
    plain = set()  # parameters of embeddings; a head tied to one shares the very tensor
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            plain.add(id(module.weight))
    trainable = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trainable if decay_all or (p.ndim > 1 and id(p) not in plain)]
    chosen = {id(p) for p in decayed}
    kept = [p for p in trainable if id(p) not in chosen]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, settings: TrainSection, execution: Execution) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; the fused kernel updates them all in one pass."""
    return torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay, decay_all=settings.decay_all),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=execution.device.type in ("cpu", "cuda", "mps"),
    )


def warmup_steps(warmup: float, total: int) -> int:
    """A warmup below 1 is a share of all steps, else a number of steps."""
    return math.ceil(warmup * total) if warmup < 1 else int(warmup)


def learning_rate(step: int, *, settings: TrainSection, steps_per_epoch: int) -> float:
    """The rate of a step (the first is 0).

    From 0 up to ``lr`` over the warmup, linearly; then down to ``lr * lr_end`` at the end of the last epoch, along half a
    cosine (Loshchilov and Hutter 2017) or a line. With ``schedule_per = "epoch"`` it changes only between epochs.
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
        progress = (step - warmup) / max(1, total - warmup)
    progress = min(1.0, progress)
    falling = 0.5 * (1 + math.cos(math.pi * progress)) if settings.schedule == "cosine" else 1 - progress
    return settings.lr * (settings.lr_end + (1 - settings.lr_end) * falling)
