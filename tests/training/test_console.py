"""The progress bar is seen where somebody looks: on a terminal and in a notebook, with and without ipywidgets."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from tqdm import tqdm

from minilm.training.console import Interrupted, Terminated, in_notebook, progress_bar, signal_of


def in_kernel(monkeypatch: pytest.MonkeyPatch, config: object) -> None:
    shell = SimpleNamespace(get_ipython=lambda: None if config is None else SimpleNamespace(config=config))
    monkeypatch.setitem(sys.modules, "IPython", shell)


@pytest.mark.parametrize(("config", "shown"), [(None, False), ({}, False), ({"IPKernelApp": {}}, True)])
def test_a_bar_is_seen_in_a_notebook_although_its_output_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, config: object, shown: bool
) -> None:
    in_kernel(monkeypatch, config)
    monkeypatch.setattr("minilm.training.console.find_spec", lambda name: None)
    with progress_bar(3, 1) as bar:
        assert in_notebook() == shown and bar.disable == (not shown) and type(bar) is tqdm


def test_with_ipywidgets_it_is_a_widget(monkeypatch: pytest.MonkeyPatch) -> None:
    class Widget(tqdm):
        """In place of tqdm's, which needs ipywidgets."""

    module = ModuleType("tqdm.notebook")
    module.tqdm = Widget  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tqdm.notebook", module)
    monkeypatch.setattr("minilm.training.console.find_spec", lambda name: name == "ipywidgets")
    with progress_bar(3, 0) as bar:
        assert type(bar) is tqdm  # not in a notebook
    in_kernel(monkeypatch, {"IPKernelApp": {}})
    with progress_bar(3, 0) as bar:
        assert type(bar) is Widget


def test_an_interruption_knows_its_signal_and_is_what_ctrl_c_is() -> None:
    stop = Interrupted(signal.SIGTERM, Path("runs/a"), "resume it")
    assert isinstance(stop, KeyboardInterrupt) and str(stop) == "SIGTERM: resume it" and stop.folder == Path("runs/a")
    assert str(Interrupted(signal.SIGINT, Path("runs/a"))) == "SIGINT"
    found = [signal_of(each) for each in (stop, Terminated(), KeyboardInterrupt())]
    assert found == [signal.SIGTERM, signal.SIGTERM, signal.SIGINT]
