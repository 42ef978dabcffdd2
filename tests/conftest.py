"""What holds for all tests: one CPU thread each, no windows, and in CI the same random examples always.

And the Hub that tests of downloads talk to: ``playing``.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.hub_server import MODEL, Hub, Repo

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

signal.signal(signal.SIGINT, signal.default_int_handler)  # what started the tests may have had it ignored

settings.register_profile("minilm", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("minilm")


@pytest.fixture(scope="session", autouse=True)
def like_any_cpu() -> Iterator[None]:
    """Precision "auto" is float32, as on a CPU without bfloat16, so that tests find the same numbers on all machines.

    Commands in processes of their own use what the machine has.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minilm.devices.cpu_computes_bfloat16", lambda: False)
        yield


@pytest.fixture
def torch_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our models draw dropout as torch does, so that a peer with the same seed draws the same."""
    from torch.nn.functional import dropout

    monkeypatch.setattr("minilm.models.dropout.dropout", dropout)
    monkeypatch.setattr("minilm.models.attention.dropout", dropout)


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    hub = Hub()
    listener = hub.start()
    yield hub
    listener.shutdown()
    listener.server_close()


@pytest.fixture
def playing(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The server, pointed at, in an empty working folder, with an empty cache, and short pauses between attempts."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    from minilm import connection

    server.reset({"some/model": Repo(dict(MODEL)), "google-bert/bert-base-cased": Repo(dict(MODEL))})
    monkeypatch.chdir(tmp_path)
    for name in ("MINILM_WEIGHTS", "HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connection, "PATIENCE", connection.Patience(pauses=(0.01,) * 4))
    # What huggingface_hub reads from HF_ENDPOINT, HF_HOME and HF_TOKEN_PATH when it is imported.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    close_session()
    return server
