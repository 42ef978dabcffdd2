from __future__ import annotations

import copy
import io
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from tqdm import tqdm
from transformers import EarlyStoppingCallback, TrainerControl, TrainerState

from minilm.checkpoints.models import new_model
from minilm.config import TrainSection
from minilm.devices import Runtime
from minilm.errors import UserError
from minilm.evaluation.metrics import Metrics
from minilm.models.batch import Batch
from minilm.models.gpt2 import GPT2Config
from minilm.models.heads import mlp_head
from minilm.reporting.results import Evaluation
from minilm.training import loop
from minilm.training.console import Interrupted
from minilm.training.loop import Task, train
from minilm.training.objectives import Objective
from minilm.training.state import Checkpoints, Progress, trained_parameters
from tests.records import measured

CPU = Runtime(torch.device("cpu"))
ROWS, LENGTH, CLASSES = 24, 6, 3
IDS = torch.randint(20, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(CLASSES, (ROWS,), generator=torch.Generator().manual_seed(1))


def gpt2(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=20, context=8, width=16, depth=1, heads=2, dropout=dropout, attention_dropout=dropout
    )
    return new_model("gpt2", config, "classify", labels=["a", "b", "c"], head=mlp_head(16, dropout=dropout))


def collate(rows: np.ndarray, epoch: int = 0) -> Batch:
    return Batch(IDS[rows], labels=LABELS[rows])


def in_batches(*sizes: int) -> Callable[[int], list[np.ndarray]]:
    """Batches of these sizes, of other rows each epoch."""

    def batches(epoch: int) -> list[np.ndarray]:
        order = np.random.default_rng(epoch).permutation(ROWS)[: sum(sizes)]
        return np.split(order, np.cumsum(sizes)[:-1])

    return batches


def says(*losses: float, metric: str = "loss") -> Callable[[], dict[str, Metrics]]:
    """An evaluation that finds these values, one after the other, then the last."""
    left = list(losses)

    def evaluate() -> dict[str, Metrics]:
        value = left.pop(0) if len(left) > 1 else left[0]
        return {"validation": measured(**{"loss": 1.0, metric: value})}

    return evaluate


SIX_BATCHES = in_batches(4, 4, 4, 4, 4, 4)


def task_of(batches: Callable[[int], Sequence[np.ndarray]] = SIX_BATCHES, **changes: Any) -> Task:
    task = Task(batches, collate, Objective(), evaluate=says(1.0), record=lambda history: None)
    return replace(task, **changes)


def settings_of(**changes: Any) -> TrainSection:
    return TrainSection(**{"epochs": 1, "lr": 1e-2, "clip": 0.0, "schedule": "constant", "best": "loss", **changes})


def run(
    folder: Path, model: nn.Module | None = None, task: Task | None = None, runtime: Runtime = CPU, **settings: Any
) -> Progress:
    checkpoints = Checkpoints(folder / "checkpoints")
    return train(model or gpt2(), task or task_of(), settings_of(**settings), runtime, checkpoints)


def same(a: nn.Module, b: nn.Module, **tolerance: float) -> None:
    for (name, x), y in zip(a.named_parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(x, y, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


# --- The step ---


def test_the_losses_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    ours, plain = gpt2(), gpt2()
    progress = run(tmp_path, ours, task_of(), epochs=4, clip=0.5, evaluate_every=1, weight_decay=0.0)

    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.0)
    losses = []
    for rows in (rows for epoch in range(4) for rows in SIX_BATCHES(epoch)):
        loss = F.cross_entropy(plain(IDS[rows]), LABELS[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    found = [entry.train_loss for entry in progress.history]
    assert len(found) == 24 and losses[0] > losses[-1]
    assert found[:20] == pytest.approx(losses[:20], rel=1e-4)


@pytest.mark.parametrize("sizes", [(4, 4), (7, 1), (2, 5, 1)])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.3, 1.0, 4.0])])
def test_accumulated_batches_make_the_step_of_one_large_batch(
    tmp_path: Path, sizes: tuple[int, ...], weights: torch.Tensor | None
) -> None:
    objective = Objective(weights)
    # With a large eps, AdamW's first step grows with the gradient, whose size it otherwise takes out.
    settings = {"eps": 1.0, "lr": 1.0, "weight_decay": 0.0}
    whole, parts = gpt2(), gpt2()
    a = run(tmp_path / "a", whole, task_of(in_batches(8), objective=objective), **settings)
    task = task_of(in_batches(*sizes), objective=objective)
    b = run(tmp_path / "b", parts, task, accumulate=len(sizes), **settings)
    assert a.step == b.step == 1
    assert a.history[0].train_loss == pytest.approx(b.history[0].train_loss, rel=1e-5)
    assert a.history[0].grad_norm == pytest.approx(b.history[0].grad_norm, rel=1e-4)
    same(whole, parts, rtol=1e-5, atol=1e-6)


def test_what_is_left_at_the_end_of_an_epoch_makes_a_step_of_its_own(tmp_path: Path) -> None:
    progress = run(tmp_path, task=task_of(in_batches(4, 4, 4, 4, 4)), epochs=2, accumulate=2)
    assert progress.step == 2 * 3 and progress.tokens == 2 * 5 * 4 * LENGTH


def test_the_gradient_is_clipped_to_its_global_norm(tmp_path: Path) -> None:
    model, start = gpt2(), gpt2()
    task = task_of(in_batches(8))
    progress = run(tmp_path, model, task, eps=1e6, lr=1e6, clip=0.01, weight_decay=0.0)  # w -= clipped gradient
    F.cross_entropy(start(IDS[task.batches(0)[0]]), LABELS[task.batches(0)[0]]).backward()
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in start.parameters() if p.grad is not None))
    assert progress.history[0].grad_norm == pytest.approx(norm, rel=1e-5) and norm > 0.01  # as it was before
    before = trained_parameters(gpt2())
    moves = [(after - before[name]).norm() ** 2 for name, after in trained_parameters(model).items()]
    assert math.sqrt(sum(moves)) == pytest.approx(0.01, rel=1e-2)


def test_the_mean_loss_of_an_evaluation_covers_the_rows_since_the_last(tmp_path: Path) -> None:
    each = run(tmp_path / "a", task=task_of(in_batches(8, 2)), evaluate_every=1).history
    both = run(tmp_path / "b", task=task_of(in_batches(8, 2))).history
    assert len(each) == 2 and len(both) == 1
    mean = (8 * each[0].train_loss + 2 * each[1].train_loss) / 10
    assert both[0].train_loss == pytest.approx(mean, rel=1e-6)


def test_padding_is_not_counted_as_tokens(tmp_path: Path) -> None:
    mask = torch.arange(LENGTH) < torch.arange(1, 5)[:, None]
    task = task_of(in_batches(4), collate=lambda rows, epoch: Batch(IDS[rows], mask, labels=LABELS[rows]))
    assert run(tmp_path, task=task).tokens == 1 + 2 + 3 + 4


def test_frozen_weights_stay(tmp_path: Path) -> None:
    model = gpt2()
    model.embeddings.requires_grad_(False)
    run(tmp_path, model, decay_all=True)
    torch.testing.assert_close(model.embeddings.token.weight, gpt2().embeddings.token.weight, rtol=0, atol=0)
    assert not torch.equal(model.head.dense.weight, gpt2().head.dense.weight)


def test_dropout_is_on_in_training_and_the_model_left_in_evaluation_mode(tmp_path: Path) -> None:
    model = gpt2(dropout=0.5)
    modes = []
    task = task_of(collate=lambda rows, epoch: modes.append(model.training) or collate(rows))
    run(tmp_path, model, task)
    assert modes == [True] * 6 and not model.training


# --- Evaluation ---


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({}, [6, 12]), ({"evaluate_every": 5}, [5, 10, 12]), ({"evaluate_every": 99}, [12]), ({"accumulate": 4}, [2, 4])],
)
def test_evaluations_come_every_epoch_or_every_n_steps_and_at_the_end(
    tmp_path: Path, settings: dict[str, int], steps: list[int]
) -> None:
    recorded: list[int] = []
    task = task_of(record=lambda history: recorded.append(len(history)))
    progress = run(tmp_path, task=task, epochs=2, **settings)
    assert [entry.step for entry in progress.history] == steps
    assert progress.history[-1].epoch == 2 and progress.stopped == "finished"
    assert recorded == list(range(1, len(steps) + 1))


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("loss", (0.9, 0.5, 0.7), 2),
        ("accuracy", (0.5, 0.9, 0.9), 2),
        ("mcc", (-0.5, -0.2, -0.1), 3),
        ("macro_f1", (0.0, 0.0, 0.0), 1),
    ],
)
def test_the_best_weights_are_left_in_the_model(
    tmp_path: Path, metric: str, values: tuple[float, ...], best: int
) -> None:
    model, seen = gpt2(), []
    evaluate = says(*values, metric=metric)
    task = task_of(evaluate=lambda: seen.append(copy.deepcopy(trained_parameters(model))) or evaluate())
    progress = run(tmp_path, model, task, epochs=3, best=metric)
    assert progress.best_step == 6 * best and progress.best_value == values[best - 1]
    for name, tensor in trained_parameters(model).items():
        assert torch.equal(tensor, seen[best - 1][name]), name


VALUES = st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.5, 0.51]), min_size=1, max_size=8)


@settings(max_examples=25)
@example([0.1, 0.2, 0.25, 0.3, 0.5, 0.51], 2, 0.2, "accuracy")  # better each time, but seldom by enough
@example([0.5, 0.51, 0.3, 0.3, 0.25, 0.1, 0.1], 3, 0.05, "loss")
@given(VALUES, st.integers(1, 3), st.sampled_from([0.0, 0.05, 0.2]), st.sampled_from(["loss", "accuracy"]))
def test_stopping_early_is_transformers(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], patience: int, threshold: float, metric: str
) -> None:
    task = task_of(in_batches(4), evaluate=says(*values, metric=metric))
    folder = tmp_path_factory.mktemp("run")
    progress = run(folder, task=task, epochs=len(values), patience=patience, min_delta=threshold, best=metric)
    stopped, best = stops_after(values, patience, threshold, metric)
    assert len(progress.history) == stopped and progress.best_value == best
    assert progress.stopped == ("finished" if stopped == len(values) else "early stopping")


@pytest.mark.parametrize(
    ("values", "losses", "best", "stopped"),
    [
        ([0.5, 0.5, 0.5, 0.5], [1.0, 0.8, 0.9, 0.7], 4, 4),  # the lower loss is better, and counts as better
        ([0.5, 0.5, 0.5, 0.5], [0.7, 0.8, 0.9, 1.0], 1, 3),
        ([0.5, 0.6, 0.5, 0.6], [0.5, 0.8, 0.1, 0.8], 2, 4),  # the metric comes first
    ],
)
def test_of_equal_metrics_the_one_with_the_lower_loss_is_the_best(
    tmp_path: Path, values: list[float], losses: list[float], best: int, stopped: int
) -> None:
    found = iter(zip(values, losses, strict=True))

    def evaluate() -> loop.Metrics:
        value, loss = next(found)
        return {"validation": measured(loss=loss, accuracy=value)}

    progress = run(tmp_path, task=task_of(evaluate=evaluate), epochs=4, patience=2, best="accuracy")
    assert (progress.best_step, len(progress.history)) == (6 * best, stopped)
    assert progress.best_loss == losses[best - 1]


def stops_after(values: list[float], patience: int, threshold: float, metric: str) -> tuple[int, float | None]:
    """The evaluations that transformers' Trainer makes, and the best value it has then found."""
    callback, control = EarlyStoppingCallback(patience, threshold), TrainerControl()
    arguments = SimpleNamespace(metric_for_best_model=metric, greater_is_better=metric != "loss")
    state = TrainerState()
    better = max if arguments.greater_is_better else min
    for number, value in enumerate(values, 1):
        callback.on_evaluate(arguments, state, control, {f"eval_{metric}": value})
        state.best_metric = value if state.best_metric is None else better(value, state.best_metric)
        if control.should_training_stop:
            return number, state.best_metric
    return len(values), state.best_metric


class Clock:
    """Every look at it takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_training_ends_when_its_time_is_up_and_evaluations_take_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(loop.time, "monotonic", clock)

    def evaluate() -> dict[str, Metrics]:
        clock.now += 1000.0
        return {"validation": measured(loss=1 / clock.now)}

    def keep_best(self: Checkpoints, model: nn.Module) -> None:
        clock.now += 1000.0  # a slow disk
        written(self, model)

    written = Checkpoints.keep_best
    monkeypatch.setattr(Checkpoints, "keep_best", keep_best)
    progress = run(tmp_path, task=task_of(evaluate=evaluate), epochs=50, max_minutes=1, evaluate_every=10)
    assert progress.stopped == "max_minutes" and 60 <= progress.seconds < 80
    assert 30 < progress.step < 80 and progress.history[-1].step == progress.step


# --- What goes wrong ---


def poisoned(at: int, model: nn.Module) -> Task:
    """Just before this step (the first is 1) a weight becomes infinite."""
    steps = []

    def spoil(rows: np.ndarray, epoch: int) -> Batch:
        steps.append(rows)
        if len(steps) == at:
            model.head.output.bias.data[0] = math.inf
        return collate(rows)

    return task_of(collate=spoil)


def test_a_loss_that_is_not_finite_ends_the_run_and_the_state_before_the_step_is_kept(tmp_path: Path) -> None:
    model = gpt2()
    with pytest.raises(UserError) as caught:
        run(tmp_path, model, poisoned(5, model), lr=0.125)
    place = tmp_path / "checkpoints" / "000001-step-4"
    assert re.search(r"at step 5 \(learning rate 0\.125, gradient norm nan\)", str(caught.value))
    assert str(place) in str(caught.value) and place.is_dir()


def test_weights_that_are_no_numbers_are_told_as_such(tmp_path: Path) -> None:
    model = gpt2()
    with pytest.raises(UserError, match="at the first step, before any training, so the weights are damaged"):
        run(tmp_path, model, poisoned(1, model))


def test_a_gradient_that_is_not_finite_changes_no_weight(tmp_path: Path) -> None:
    model = gpt2()
    model.head.dense.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(UserError, match="at step 1 "):
        run(tmp_path, model)
    same(model, gpt2(), rtol=0, atol=0)


def test_a_validation_loss_that_is_not_finite_ends_the_run_too(tmp_path: Path) -> None:
    task = task_of(evaluate=says(0.5, math.nan))
    with pytest.raises(UserError, match=r"at or before step 12 .*is saved in .*000001-step-6"):
        run(tmp_path, task=task, epochs=3, checkpoint_minutes=0)


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps do not look at their loss, as on a GPU."""
    check = loop._Loop._check_finite
    monkeypatch.setattr(
        loop._Loop, "_check_finite", lambda self, loss, before_step=False: before_step or check(self, loss)
    )


@pytest.mark.usefixtures("unseen")
def test_where_steps_do_not_look_the_next_evaluation_finds_out(tmp_path: Path) -> None:
    model = gpt2()
    with pytest.raises(UserError, match=r"no longer finite at or before step 12 .*is saved in .*000001-step-6"):
        run(tmp_path, model, poisoned(8, model), epochs=3, checkpoint_minutes=0)


@pytest.mark.usefixtures("unseen")
def test_a_state_that_is_no_longer_good_is_never_kept(tmp_path: Path) -> None:
    model = gpt2()
    task = poisoned(2, model)
    calls: list[np.ndarray] = []

    def disturbed(rows: np.ndarray, epoch: int = 0) -> Batch:
        calls.append(rows)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return task.collate(rows, epoch)

    with pytest.raises(UserError, match=r"at or before step 3 .*No earlier state was saved"):
        run(tmp_path, model, replace(task, collate=disturbed))
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_under_way_and_keeps_the_state(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    calls = []

    def disturbed(rows: np.ndarray, epoch: int = 0) -> Batch:
        calls.append(rows)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return collate(rows)

    with pytest.raises(Interrupted) as caught:
        run(tmp_path, task=task_of(collate=disturbed))
    assert caught.value.number == number and caught.value.folder == tmp_path
    assert (tmp_path / "checkpoints" / "000001-step-3").is_dir()
    assert signal.getsignal(number) == before


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    def disturbed(rows: np.ndarray, epoch: int = 0) -> Batch:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return collate(rows)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, task=task_of(collate=disturbed))


def test_training_needs_no_main_thread(tmp_path: Path) -> None:
    steps: list[int] = []
    thread = threading.Thread(target=lambda: steps.append(run(tmp_path).step))
    thread.start()
    thread.join()
    assert steps == [6]


# --- float16 ---

HALF = Runtime(torch.device("cpu"), "float16")


def test_loss_scaling_leaves_the_gradient_as_it_is(tmp_path: Path) -> None:
    half, full = gpt2(), gpt2()
    a = run(tmp_path / "a", half, runtime=HALF, clip=1.0, eps=1.0)
    b = run(tmp_path / "b", full, clip=1.0, eps=1.0)
    assert a.history[0].grad_norm == pytest.approx(b.history[0].grad_norm, rel=0.05)
    same(half, full, rtol=1e-2, atol=1e-3)


def test_a_gradient_that_overflows_float16_is_skipped_and_scaled_less(tmp_path: Path) -> None:
    model = gpt2()
    steps = []

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        steps.append(gradient)
        return gradient * math.inf if len(steps) <= 2 else gradient

    model.head.dense.weight.register_hook(overflow)
    progress = run(tmp_path, model, runtime=HALF, evaluate_every=2)
    assert progress.history[0].grad_norm is None and math.isfinite(progress.history[1].grad_norm)
    assert progress.loss_scaling["scale"] == 2.0**16 / 4
    resumed = loop._Loop(model, task_of(), settings_of(), HALF, Checkpoints(tmp_path / "checkpoints"))
    assert resumed.scaler.state_dict() == progress.loss_scaling


# --- Resuming ---


class Stop(Exception):
    pass


@pytest.mark.parametrize("runtime", [CPU, HALF])
@pytest.mark.parametrize("at", [1, 5, 8, 13])
def test_a_resumed_run_ends_bit_for_bit_where_the_uninterrupted_one_ends(
    tmp_path: Path, at: int, runtime: Runtime
) -> None:
    def losses(model: nn.Module) -> Callable[[], dict[str, Metrics]]:
        def evaluate() -> dict[str, Metrics]:
            model.eval()
            loss = F.cross_entropy(model(IDS), LABELS).item()
            model.train()
            return {"validation": measured(loss=loss)}

        return evaluate

    settings = {"epochs": 3, "accumulate": 2, "evaluate_every": 2, "checkpoint_minutes": 0, "clip": 1.0}
    sizes = in_batches(4, 4, 3, 4, 1)
    whole = gpt2(dropout=0.3)
    expected = run(tmp_path / "whole", whole, task_of(sizes, evaluate=losses(whole)), runtime, **settings)

    broken, calls = gpt2(dropout=0.3), []

    def break_off(rows: np.ndarray, epoch: int) -> Batch:
        calls.append(rows)
        if len(calls) == at:
            raise Stop
        return collate(rows)

    with pytest.raises(Stop):
        run(tmp_path, broken, task_of(sizes, evaluate=losses(broken), collate=break_off), runtime, **settings)
    torch.manual_seed(99)
    resumed = gpt2(dropout=0.3)  # which sets the seed, as a run does
    progress = run(tmp_path, resumed, task_of(sizes, evaluate=losses(resumed)), runtime, **settings)

    def without_times(history: list[Evaluation]) -> list[Evaluation]:
        return [replace(entry, seconds=0.0, tokens_per_second=0.0) for entry in history]

    assert without_times(progress.history) == without_times(expected.history)
    same(resumed, whole, rtol=0, atol=0)


def test_a_run_that_has_ended_takes_no_further_step(tmp_path: Path) -> None:
    model = gpt2()
    first = run(tmp_path, model, task_of(evaluate=says(0.3, 0.4, 0.5)), epochs=5, patience=2)
    assert first.stopped == "early stopping"
    again = gpt2()
    second = run(tmp_path, again, task_of(collate=lambda rows, epoch: 1 / 0), epochs=5, patience=2)
    assert second == first
    same(again, model, rtol=0, atol=0)


# --- What is seen ---


def test_the_bar_shows_loss_rate_and_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    bar = partial(tqdm, file=screen, mininterval=0, ncols=120)
    monkeypatch.setattr(loop, "progress_bar", lambda total, done: bar(total=total))
    run(tmp_path)
    last = screen.getvalue().split("\r")[-1]
    assert re.search(r"6/6 .*loss \d\.\d{3}, rate 1\.0e-02, [\d,]+ tokens/s", last), last


def test_piped_output_is_one_line_an_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, task=task_of(evaluate=says(0.5, 0.25)), epochs=2)
    out, err = capsys.readouterr()
    assert err == "" and len(out.splitlines()) == 2
    expected = r"epoch +2/2  step +12  loss \d\.\d{4}  validation: loss 0\.2500  rate 1\.0e-02 +[\d,]+ tokens/s  best"
    assert re.fullmatch(expected, out.splitlines()[1]), out
