from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from minilm.config import DataSection, RunConfig
from minilm.studies.plan import PlannedRun
from minilm.studies.workers import in_processes
from minilm.training.console import Interrupted
from tests.studies.work import obey


def work_at(names, folder, number=2):
    """Let workers do as the names say; how each has ended."""
    runs = [PlannedRun(name, "", {}, RunConfig(name, DataSection())) for name in names]
    ended = {}
    in_processes(
        number, folder, lambda: runs.pop(0) if runs else None, lambda run, why: ended.update({run.name: why}), obey
    )
    return ended


def test_every_run_ends_once_also_where_a_worker_is_killed(tmp_path):
    ended = work_at(["works-1", "killed-1", "fails-1", "works-2"], tmp_path)
    assert ended == {
        "works-1": "",
        "killed-1": "its process ended (SIGKILL); perhaps it ran out of memory",
        "fails-1": "it failed",
        "works-2": "",
    }


def test_a_fault_of_ours_fails_its_run_with_where_it_was(tmp_path):
    ended = work_at(["breaks-1", "works-1"], tmp_path, 1)
    line, _, trace = ended["breaks-1"].partition("\n")
    assert line == "Fault: a fault of ours" and "in obey" in trace and ended["works-1"] == ""


def test_a_signal_ends_all_workers(tmp_path):
    def interrupt():
        while not (tmp_path / "sleeps-1").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(Interrupted) as stop:
        work_at(["sleeps-1", "sleeps-2"], tmp_path, 1)
    assert stop.value.number == signal.SIGINT and not (tmp_path / "sleeps-2").exists()
