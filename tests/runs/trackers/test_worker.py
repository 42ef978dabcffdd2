from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minilm.errors import UserError
from minilm.locking import locked
from minilm.runs.trackers import worker
from minilm.runs.trackers.processes import LONGEST_ERROR
from minilm.runs.trackers.protocol import TrackedRun
from minilm.runs.trackers.worker import TrackerState, read_state, serve, state_path


class Recorded:
    """A tracker that notes its calls. ``trouble`` is called before each log, with its step, and before each other call
    that can fail, with -1."""

    calls: list[tuple[Any, ...]]
    groups: list[str]
    trouble: Callable[[int], None]

    def start(self, run: TrackedRun, id: str) -> str:
        self.groups.append(run.group)
        type(self).trouble(-1)
        self.calls.append(("start", id))
        return id or "new"

    def log(self, step: int, values: Mapping[str, float], stage: str) -> None:
        type(self).trouble(step)
        self.calls.append(("log", step))

    def finish(self, step: int, metrics: Mapping[str, float], figures: Sequence[Path]) -> None:
        self.calls.append(("finish", step))

    def close(self, finished: bool) -> None:
        type(self).trouble(-1)
        self.calls.append(("close", finished))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    module = ModuleType("minilm.runs.trackers.wandb")
    module.WeightsAndBiases = Recorded  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "minilm.runs.trackers.wandb", module)
    Recorded.calls, Recorded.groups, Recorded.trouble = [], [], lambda step: None
    return Recorded.calls


def served(folder: Path, *steps: int, finish: bool = False, group: str = "") -> list[Any]:
    """The answers to the messages of one process."""
    messages: list[Any] = [{"start": {"name": "a", "folder": str(folder), "group": group, "config": {}}}]
    messages += [{"log": {"stage": "", "entries": [[step, {"loss": 1.0}]]}} for step in steps]
    messages += [{"finish": {"step": 9, "metrics": {}, "figures": []}}] * finish
    answers = io.StringIO()
    serve("wandb", io.StringIO("".join(json.dumps(message) + "\n" for message in messages)), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_a_resumed_run_keeps_its_id_and_logs_nothing_twice(tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    assert served(tmp_path, 4, 8) == [{}, {}, {}]
    assert served(tmp_path, 4, 8, 12, finish=True) == [{}] * 5
    assert served(tmp_path, 4, 8, 12, finish=True) == [{}] * 5
    assert calls == [
        ("start", ""), ("log", 4), ("log", 8), ("close", False),
        ("start", "new"), ("log", 12), ("finish", 9), ("close", True),
        ("start", "new"), ("close", True),
    ]  # fmt: skip
    assert read_state(tmp_path, "wandb") == TrackerState("new", {"": 12}, True)


def test_a_step_that_failed_is_logged_by_the_next_attempt(tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    def fail(step: int) -> None:
        if step == 8:
            raise ConnectionError("no route\nto host")

    Recorded.trouble = fail
    assert served(tmp_path, 4, 8, 12) == [{}, {}, {"error": "no route to host"}]
    Recorded.trouble = lambda step: None
    assert served(tmp_path, 4, 8, 12) == [{}] * 4
    assert [step for verb, step in calls if verb == "log"] == [4, 8, 12]


def test_a_step_is_stored_after_it_was_handed_over(tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    """So a kill in between loses no step."""
    seen = []
    Recorded.trouble = lambda step: seen.append(read_state(tmp_path, "wandb").steps) if step > 0 else None
    served(tmp_path, 4, 8)
    assert seen == [{}, {"": 4}]


def test_a_tracker_is_complete_only_after_it_has_closed(tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    def fail(step: int) -> None:
        if ("finish", 9) in calls:
            assert not read_state(tmp_path, "wandb").finished
            raise ConnectionError("no network")

    Recorded.trouble = fail
    assert served(tmp_path, 4, finish=True) == [{}, {}, {}, {"error": "no network"}]
    assert not read_state(tmp_path, "wandb").finished
    Recorded.trouble = lambda step: None
    calls.clear()
    assert served(tmp_path, 4, finish=True) == [{}] * 3
    assert calls == [("start", "new"), ("finish", 9), ("close", True)]
    assert read_state(tmp_path, "wandb").finished


def test_a_run_keeps_its_group_even_if_its_tracker_could_not_start(
    tmp_path: Path, calls: list[tuple[Any, ...]]
) -> None:
    def fail(step: int) -> None:
        raise ConnectionError("no login")

    Recorded.trouble = fail
    assert served(tmp_path, group="rates") == [{"error": "no login"}]
    Recorded.trouble = lambda step: None
    served(tmp_path)
    assert Recorded.groups == ["rates", "rates"]
    assert read_state(tmp_path, "wandb") == TrackerState("new", group="rates")


def test_the_wait_for_an_earlier_process_is_bounded(
    tmp_path: Path, calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LOCK_SECONDS", 0.2)
    with locked(state_path(tmp_path, "wandb").with_suffix(".lock")):
        [answer] = served(tmp_path)
    assert f"end it, then resume the run: process {os.getpid()} on " in answer["error"]
    assert len(answer["error"]) <= LONGEST_ERROR and calls == []
    assert served(tmp_path) == [{}]


def test_an_edited_state_is_an_error(tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    path = state_path(tmp_path, "wandb")
    path.parent.mkdir()
    path.write_text('{"id": 3}')
    with pytest.raises(UserError, match=r"wandb\.json: id must be a text"):
        read_state(tmp_path, "wandb")
    [answer] = served(tmp_path)
    assert "id must be a text" in answer["error"] and calls == []
