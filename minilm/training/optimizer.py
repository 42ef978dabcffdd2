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
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from minilm.config import TrainSection
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


class AdamW:
    """The equations above, for the parameters that have a gradient; bit for bit ``torch.optim.AdamW(fused=True)``.

    The whole step is one kernel of torch's, which reads and writes each number once: in steps of their own, the
    equations take four times as long. ``torch.optim`` would call the same kernel, but loads torch's compiler first,
    which takes 1.5 seconds.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float
    ) -> None:
        """groups: "params", and their "weight_decay"; each gets an "lr", which may be changed before any step."""
        self.param_groups = [{"lr": lr, **group} for group in groups]  # as torch's loss scaling expects them
        self.betas, self.eps = betas, eps
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}  # m, v and t of each parameter, by torch.optim's names

    @torch.no_grad()
    def step(self) -> None:
        """One step along the gradients. A parameter without a gradient does not change, and neither do its m, v and
        t."""
        for group in self.param_groups:
            with_gradient = [p for p in group["params"] if p.grad is not None]
            if not with_gradient:
                continue
            for parameter in with_gradient:
                if parameter not in self.state:
                    self.state[parameter] = self.new_state(parameter)
            states = [self.state[p] for p in with_gradient]
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                with_gradient,
                [p.grad for p in with_gradient],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=group["lr"],
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=group["weight_decay"],
                eps=self.eps,
                amsgrad=False,
                maximize=False,
            )

    def new_state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """t, m and v of a parameter before its first step."""
        m, v = torch.zeros_like(parameter), torch.zeros_like(parameter)
        step = torch.zeros((), dtype=torch.float32, device=parameter.device)
        return {"step": step, "exp_avg": m, "exp_avg_sq": v}

    def zero_grad(self) -> None:
        """Remove all gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


def make_optimizer(model: nn.Module, settings: TrainSection) -> AdamW:
    """AdamW for the trainable parameters."""
    groups = parameter_groups(model, settings.weight_decay, decay_all=settings.decay_all)
    return AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.eps)


def warmup_steps(warmup: float, total: int) -> int:
    """The number of warmup steps: ``warmup`` below 1 is a fraction of all steps, otherwise a number of steps.

    A fraction never covers all steps, as the first warmup step has the learning rate 0.
    """
    return min(math.ceil(warmup * total), total - 1) if warmup < 1 else int(warmup)


def steps_per_epoch_of(batches: int, settings: TrainSection) -> int:
    """The number of optimizer steps in an epoch of ``batches`` batches."""
    return math.ceil(batches / settings.accumulate)


def with_least_steps(settings: TrainSection, batches: int) -> TrainSection:
    """The settings with as many epochs as ``min_steps`` needs. batches: per epoch."""
    least = math.ceil(settings.min_steps / steps_per_epoch_of(batches, settings))
    return replace(settings, epochs=max(settings.epochs, least))


def check_warmup(settings: TrainSection, batches: int, key: str) -> None:
    """Raises UserError if the warmup lasts until the end of training. batches: per epoch; key: its name in messages."""
    steps = settings.epochs * steps_per_epoch_of(batches, settings)
    if (warmup := warmup_steps(settings.warmup, steps)) >= steps:
        raise UserError(
            f"{key} is {warmup:,} steps, but training has only {steps:,} steps and would never reach its full rate; "
            "lower it (a number below 1 is a fraction of all steps)"
        )


def learning_rate(step: int, *, settings: TrainSection, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0.

    It rises linearly from 0 to ``lr`` during the warmup (so the first warmup step changes nothing, as in the schedules
    of ``transformers``). Then it falls to ``lr * lr_end`` at the end of the last epoch, along half a cosine (Loshchilov
    and Hutter 2017) or a line, or stays at ``lr`` (``schedule = "constant"``). With ``schedule_per = "epoch"`` it falls
    only between epochs, and as if there were no warmup, so in the last epoch it is still above ``lr * lr_end``.
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
