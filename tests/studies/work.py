"""What workers do in tests: a function must have a module that a new process can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from minilm.studies.config import Planned


def obey(folder: Path, run: Planned) -> str:
    """Do as the run's name says."""
    (folder / run.name).touch()
    what = run.name.partition("-")[0]
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "fails":
        return "it failed"
    elif what == "breaks":
        raise ZeroDivisionError("a fault of ours")
    elif what == "sleeps":
        time.sleep(600)
    return ""
