from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from minilm.checkpoints.models import new_model
from minilm.config import TrainSection
from minilm.errors import UserError
from minilm.models.gpt2 import GPT2Config
from minilm.training.optimizer import (
    AdamW,
    check_warmup,
    learning_rate,
    make_optimizer,
    parameter_groups,
    steps_per_epoch_of,
    with_least_steps,
)
from tests.tiny import refused, write_config


def tiny(task: str = "classify") -> nn.Module:
    config = GPT2Config(vocab_size=20, context=8, width=8, depth=1, heads=2)
    return new_model("gpt2", config, task, labels=["a", "b"] if task == "classify" else [])


def groups_by_name(model: nn.Module, **settings: Any) -> dict[float, set[str]]:
    names = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, 0.1, **settings)
    return {group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in groups}


def test_only_matrices_decay_and_no_embedding_does() -> None:
    model = tiny()
    groups = groups_by_name(model)
    assert groups[0.1] == {
        "layers.0.attention.query.weight", "layers.0.attention.key.weight", "layers.0.attention.value.weight",
        "layers.0.attention.output.weight", "layers.0.mlp.up.weight", "layers.0.mlp.down.weight", "head.output.weight",
    }  # fmt: skip
    assert groups[0.1] | groups[0.0] == {name for name, _ in model.named_parameters()}
    assert not groups[0.1] & groups[0.0]


def test_a_language_head_tied_to_the_embedding_does_not_decay_either() -> None:
    model = tiny("lm")
    assert model.head.output.weight is model.embeddings.token.weight
    groups = parameter_groups(model, 0.1)
    decayed, plain = ([id(p) for p in group["params"]] for group in groups)
    assert id(model.head.output.weight) not in decayed
    assert plain.count(id(model.head.output.weight)) == 1


def test_everything_decays_when_asked_and_frozen_parameters_are_left_out() -> None:
    model = tiny()
    model.embeddings.requires_grad_(False)
    trained = {name for name, _ in model.named_parameters() if not name.startswith("embeddings.")}
    assert groups_by_name(model, decay_all=True) == {0.1: trained}


def test_a_step_is_that_of_the_equations() -> None:
    settings = TrainSection(epochs=1, lr=0.1, weight_decay=0.5, beta1=0.8, beta2=0.9, eps=1e-3)
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(model, settings)
    w, b = (p.detach().numpy().astype(np.float64) for p in (model.weight, model.bias))
    m, v = [np.zeros_like(w), np.zeros_like(b)], [np.zeros_like(w), np.zeros_like(b)]
    random = np.random.default_rng(0)
    for t in (1, 2, 3):
        gradients = [random.normal(size=w.shape), random.normal(size=b.shape)]
        model.weight.grad, model.bias.grad = (torch.tensor(g, dtype=torch.float32) for g in gradients)
        optimizer.step()
        for i, (g, decay) in enumerate(zip(gradients, (0.5, 0.0), strict=True)):
            m[i] = 0.8 * m[i] + 0.2 * g
            v[i] = 0.9 * v[i] + 0.1 * g**2
            move = 0.1 * (m[i] / (1 - 0.8**t) / (np.sqrt(v[i] / (1 - 0.9**t)) + 1e-3) + decay * (w, b)[i])
            w, b = (w - move, b) if i == 0 else (w, b - move)
    np.testing.assert_allclose(model.weight.detach(), w, atol=1e-6)
    np.testing.assert_allclose(model.bias.detach(), b, atol=1e-6)


def pair_of_optimizers(fused: bool = True) -> tuple[list[nn.Module], AdamW, torch.optim.Optimizer]:
    """Two equal models of matrices, vectors and one number, with our optimizer and torch's."""
    models = []
    for _ in range(2):
        torch.manual_seed(1)
        models.append(nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 3), nn.LayerNorm(3), nn.Linear(3, 1)))
    settings = TrainSection(epochs=1, lr=0.01, weight_decay=0.3, beta1=0.8, beta2=0.9, eps=1e-6)
    groups = parameter_groups(models[1], settings.weight_decay)
    theirs = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.9), eps=1e-6, fused=fused, foreach=False)
    return models, make_optimizer(models[0], settings), theirs


def step_both(models: list[nn.Module], ours: AdamW, theirs: torch.optim.Optimizer, number: int) -> None:
    """A step along the same random gradients, at a rate of its own; every third leaves the first Linear without one."""
    torch.manual_seed(number)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        one.grad = torch.randn_like(one) * 10 ** torch.randn(())
        other.grad = one.grad.clone()
    for model in models if number % 3 == 0 else []:
        model[1].zero_grad()
    for optimizer in (ours, theirs):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 / (1 + number)
        optimizer.step()


@pytest.mark.parametrize(("fused", "tolerance"), [(True, 0.0), (False, 1e-6)])
def test_steps_are_those_of_torch(fused: bool, tolerance: float) -> None:
    models, ours, theirs = pair_of_optimizers(fused)
    for number in range(20):
        step_both(models, ours, theirs, number)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
        for name, value in theirs.state[other].items():
            torch.testing.assert_close(ours.state[one][name], value, rtol=tolerance, atol=tolerance)
    ours.zero_grad()
    assert all(parameter.grad is None for parameter in models[0].parameters())


def test_a_state_of_torchs_optimizer_goes_on_here() -> None:
    models, ours, theirs = pair_of_optimizers()
    for number in range(5):
        step_both(models, ours, theirs, number)
    ours = make_optimizer(models[0], TrainSection(epochs=1, lr=0.01, weight_decay=0.3, beta1=0.8, beta2=0.9, eps=1e-6))
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        ours.state[one] = {name: value.clone() for name, value in theirs.state[other].items()}
    for number in range(5, 9):
        step_both(models, ours, theirs, number)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


def test_loss_scaling_takes_it() -> None:
    models, ours, _ = pair_of_optimizers()
    before = [p.detach().clone() for p in models[0].parameters()]
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for value, moved in ((math.inf, False), (8.0, True)):
        for parameter in models[0].parameters():
            parameter.grad = torch.full_like(parameter, value)
        scaler.scale(torch.ones(()))
        scaler.unscale_(ours)
        scaler.step(ours)
        scaler.update()
        assert all(torch.equal(p, q) != moved for p, q in zip(models[0].parameters(), before, strict=True))


# --- Schedules ---


def rates(settings: TrainSection, steps_per_epoch: int) -> list[float]:
    total = settings.epochs * steps_per_epoch
    return [learning_rate(step, settings=settings, steps_per_epoch=steps_per_epoch) for step in range(total)]


def reference(make: Any, lr: float, calls: int) -> list[float]:
    """The rates that a scheduler sets, one before each of its calls."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    found = []
    for _ in range(calls):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("lr_end", [0.0, 0.25])
def test_cosine_per_epoch_is_torchs_annealing_stepped_once_an_epoch(lr_end: float) -> None:
    settings = TrainSection(epochs=14, lr=1e-5, schedule="cosine", schedule_per="epoch", lr_end=lr_end)
    ours = rates(settings, steps_per_epoch=6)
    annealed = reference(lambda o: CosineAnnealingLR(o, T_max=14, eta_min=lr_end * 1e-5), 1e-5, 14)
    assert ours == pytest.approx([rate for rate in annealed for _ in range(6)], rel=1e-9)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 60), st.sampled_from(["linear", "cosine"]))
def test_warmup_then_decay_is_transformers(epochs: int, steps: int, warmup: int, schedule: str) -> None:
    settings = TrainSection(epochs=epochs, lr=3e-4, schedule=schedule, warmup=float(warmup))
    total = epochs * steps
    make = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}[schedule]
    theirs = reference(lambda o: make(o, num_warmup_steps=warmup, num_training_steps=total), 3e-4, total)
    assert rates(settings, steps) == pytest.approx(theirs, rel=1e-9, abs=1e-15)


def test_a_warmup_below_1_is_a_share_of_all_steps_and_from_1_on_a_number_of_them() -> None:
    tenth = rates(TrainSection(epochs=5, lr=1.0, schedule="constant", warmup=0.1), steps_per_epoch=11)
    assert tenth.index(1.0) == math.ceil(0.1 * 55)
    three = rates(TrainSection(epochs=5, lr=1.0, schedule="constant", warmup=3), steps_per_epoch=11)
    assert three[:5] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


@given(st.integers(1, 40), st.floats(0, 1, exclude_max=True))
def test_a_warmup_that_is_a_share_leaves_a_step_at_the_full_rate(steps: int, warmup: float) -> None:
    settings = TrainSection(epochs=1, lr=0.5, warmup=warmup)
    assert max(rates(settings, steps)) == 0.5
    check_warmup(settings, steps, "train.warmup")


@pytest.mark.parametrize(("batches", "steps"), [(2, 2), (3, 4), (1, 2)])
def test_a_warmup_to_the_end_of_training_is_refused_with_the_number_of_its_steps(batches: int, steps: int) -> None:
    said = f"c.toml: train.warmup is {steps} steps, but training has only {steps} steps and would never reach"
    settings = TrainSection(epochs=2, lr=0.5, batch_size=32, accumulate=2, warmup=steps)
    with pytest.raises(UserError, match=re.escape(said)):
        check_warmup(settings, batches, "c.toml: train.warmup")
    check_warmup(settings, 32, "c.toml: train.warmup")


def test_a_run_that_would_never_reach_its_rate_is_refused_before_it_has_a_folder(tmp_path: Path) -> None:
    said = refused("train", write_config(tmp_path), "train.warmup=18", "--runs", tmp_path / "runs")
    assert "tiny.toml: train.warmup is 18 steps, but training has only 18" in said
    assert not (tmp_path / "runs").exists()


@given(
    st.sampled_from(["cosine", "linear", "constant"]),
    st.sampled_from(["step", "epoch"]),
    st.floats(0, 40),
    st.floats(0, 1),
)
def test_the_rate_never_leaves_its_limits_and_after_the_warmup_never_rises(
    schedule: str, per: str, warmup: float, lr_end: float
) -> None:
    settings = TrainSection(epochs=4, lr=0.5, schedule=schedule, schedule_per=per, warmup=warmup, lr_end=lr_end)
    found = rates(settings, steps_per_epoch=5)
    peak = found.index(max(found))
    assert min(found) >= 0 and max(found) <= 0.5 + 1e-12
    assert all(a >= b - 1e-12 for a, b in zip(found[peak:], found[peak + 1 :], strict=False))


@given(st.integers(1, 9), st.integers(0, 500), st.integers(1, 300), st.integers(1, 4))
def test_the_epochs_are_the_fewest_that_make_the_least_number_of_steps(
    epochs: int, least: int, batches: int, accumulate: int
) -> None:
    settings = TrainSection(epochs=epochs, lr=1.0, min_steps=least, accumulate=accumulate)
    found, steps = with_least_steps(settings, batches).epochs, steps_per_epoch_of(batches, settings)
    assert found >= epochs and found * steps >= least
    assert found == epochs or (found - 1) * steps < least
