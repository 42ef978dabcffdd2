"""The command: where it listens, what it refuses, and how it ends."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from minilm.hints import install
from minilm.serving import check_installed
from tests.evaluation.classifiers import TEXTS, classifier
from tests.serving.serving import Reply, serving
from tests.tiny import finished_run, refused


@contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``minilm serve`` in a process of its own, and its address."""
    command = [sys.executable, "-m", "minilm", "serve", str(finished_run()), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = re.search(r"http://\S+(?=;)", process.stderr.readline())
            assert found
            yield process, urlsplit(found[0]).netloc
        finally:
            process.kill()


def test_after_sigterm_under_load_every_request_that_was_sent_is_answered() -> None:
    done, refusals, ready = list[bool](), list[str](), threading.Event()

    def client(place: str, number: int) -> None:
        while True:
            with closing(http.client.HTTPConnection(place, timeout=30)) as connection:
                try:
                    connection.connect()
                except OSError as error:  # the server accepts no more
                    refusals.append(type(error).__name__)
                    return
                try:
                    connection.request("POST", "/predict", json.dumps({"inputs": TEXTS[number] * 3}))
                    answer = connection.getresponse()
                except ConnectionError:  # it was connected by the system and never accepted
                    refusals.append("closed")
                    return
                done.append(answer.status == 200 and len(json.loads(answer.read())[0]) == 2)
                if len(done) > 20:
                    ready.set()

    with started("--batch", "4") as (process, place):
        clients = [threading.Thread(target=client, args=(place, i)) for i in range(8)]
        for each in clients:
            each.start()
        assert ready.wait(30)
        process.send_signal(signal.SIGTERM)
        for each in clients:
            each.join()
        assert process.stderr is not None
        messages = process.stderr.read()
        assert process.wait() == 0 and messages.splitlines() == ["stopped"]
    assert all(done) and len(refusals) == 8


def test_a_request_that_takes_too_long_gets_503_and_the_server_ends(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("minilm.serving.server.DRAIN_SECONDS", 0.3)
    monkeypatch.setattr("minilm.serving.batcher.END_SECONDS", 0.2)
    model, gate, begun = classifier(), threading.Event(), threading.Event()
    monkeypatch.setattr(model, "scores_of_clean", lambda *given: (begun.set(), gate.wait(20), {}["key"]))
    found = list[Reply]()
    with serving(model, finished_run()) as served:
        client = threading.Thread(target=lambda: found.append(served.post("/predict", {"inputs": "a"})))
        client.start()
        assert begun.wait(10)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    client.join()
    gate.set()
    assert found[0].status == 503 and "the server ends" in found[0].error and "Traceback" not in capfd.readouterr().err


def test_it_listens_on_this_machine_alone_reads_no_large_body_into_memory_and_ends_with_ctrl_c() -> None:
    with started() as (process, place):
        assert place.startswith("127.0.0.1:")
        before = peak(process.pid)
        with closing(http.client.HTTPConnection(place, timeout=60)) as connection:
            connection.request("POST", "/predict", b"x" * 100_000_000)
            assert connection.getresponse().status == 413
        assert peak(process.pid) - before < 50  # MiB: the largest body, and what a chunk takes
        taken = refused("serve", finished_run(), "--port", place.partition(":")[2])
        assert "Address already in use; choose another --port" in taken
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0


def peak(process: int) -> float:
    """MiB of memory that a process has held at most; 0 if the system does not show it."""
    status = Path(f"/proc/{process}/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else 0.0


def test_what_cannot_be_served_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "config.json" in refused("serve", finished_run().parent)
    assert "--host: nowhere.invalid: " in refused("serve", finished_run(), "--host", "nowhere.invalid")
    assert "--host: a..b: is not a valid host name" in refused("serve", finished_run(), "--host", "a..b")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setattr("minilm.serving.find_spec", lambda name: None if name == "uvicorn" else True)
    assert f"`minilm serve` needs uvicorn; to install: {install('serve')}" in refused("serve", finished_run())
    with pytest.raises(Exception, match="\\[serve\\]"):
        check_installed()
