"""Output of training on the terminal, and handling of the signals that stop it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import IO, Any

from tqdm import tqdm

from minilm.config import TrainSection
from minilm.reporting.results import Evaluation
from minilm.terminal import printable, silence
from minilm.world import is_first


class Interrupted(KeyboardInterrupt):
    """A signal (Ctrl-C, or SIGTERM) stopped the run in ``folder``; its state is saved.

    The message is the name of the signal, and with a ``hint`` what to do.
    """

    def __init__(self, number: int, folder: Path, hint: str = "") -> None:
        name = signal.Signals(number).name
        super().__init__(f"{name}: {hint}" if hint else name)
        self.number, self.folder = number, folder


class Terminated(KeyboardInterrupt):
    """SIGTERM was received outside ``recorded_signals``: the program stops at once, as with SIGINT."""


def signal_of(stop: KeyboardInterrupt) -> signal.Signals:
    """The signal that caused a KeyboardInterrupt."""
    if isinstance(stop, Interrupted):
        return signal.Signals(stop.number)
    return signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT


@contextmanager
def terminable() -> Iterator[None]:
    """A context in which SIGTERM raises ``Terminated``, as SIGINT raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def recorded_signals() -> Iterator[list[int]]:
    """A context in which SIGINT and SIGTERM are added to a list instead of stopping the program, so that it can save
    its state; a second signal stops it at once."""
    recorded: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread may receive signals
        yield recorded
        return

    def note(number: int, frame: FrameType | None) -> None:
        if recorded:
            raise KeyboardInterrupt
        recorded.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield recorded
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(*lines: str) -> None:
    """Print lines for the user on standard error, separate from results."""
    for line in lines:
        write(printable(line), sys.stderr)


def write(text: str, stream: IO[str]) -> None:
    """A line, or several, above the bar if there is one. If the reader has ended, work continues without output.

    Only the first of several processes prints.
    """
    if not is_first():
        return
    try:
        tqdm.write(text, file=stream)
        stream.flush()
    except BrokenPipeError:
        silence(stream)


def progress_bar(total: int | None, done: int, unit: str = "step") -> tqdm[Any]:
    """A progress bar of optimizer steps, or of another unit; invisible if the output is neither a terminal nor a
    notebook. A notebook with ipywidgets gets a widget, and without them a line of text.

    total: the number of steps; None if it is unknown.
    """
    kind: type[tqdm[Any]] = tqdm
    if in_notebook() and find_spec("ipywidgets") is not None:
        kind = import_module("tqdm.notebook").tqdm
    hidden = False if in_notebook() else None  # None: if the output is not a terminal, which a notebook is not either
    hidden = hidden if is_first() else True
    return kind(total=total, initial=done, unit=unit, disable=hidden, dynamic_ncols=True, mininterval=0.5, leave=False)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    return running is not None and "IPKernelApp" in running.config


def show_evaluation(entry: Evaluation, settings: TrainSection, *, best: bool) -> None:
    """Print one evaluation in one line, above the bar if there is one."""
    validation, metric = entry.validation, settings.best
    chosen = "" if metric == "loss" else f"  {metric.replace('_', ' ')} {validation[metric]:.4f}"
    write(
        f"epoch {entry.epoch:>6.4g}/{settings.epochs}  step {entry.step:>6}  loss {entry.train_loss:.4f}  "
        f"validation: loss {validation.loss:.4f}{chosen}  rate {entry.lr:.1e}  "
        f"{entry.tokens_per_second:>7,.0f} tokens/s{'  best' if best else ''}",
        sys.stdout,
    )
