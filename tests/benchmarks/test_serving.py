"""The benchmark of the server ends its server, also after an error."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import serving

SERVER = "import sys, time; print('at http://127.0.0.1:1; ready', file=sys.stderr, flush=True); time.sleep(60)"


def test_the_server_is_stopped_after_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    popen, started = subprocess.Popen, time.monotonic()
    command = [sys.executable, "-c", SERVER]
    monkeypatch.setattr(serving.subprocess, "Popen", lambda _, **options: popen(command, **options))
    with pytest.raises(ValueError, match="of a client"), serving.server(tmp_path) as place:
        assert place == "127.0.0.1:1"
        raise ValueError("of a client")
    assert time.monotonic() - started < 30
