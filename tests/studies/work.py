"""What workers do in tests: a function must have a module that a new process can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from minilm.studies.plan import PlannedRun


class Fault(Exception):
    """An exception that cannot be sent to another process."""

    def __reduce__(self) -> str:
        raise TypeError("it cannot be pickled")


def obey(folder: Path, run: PlannedRun) -> str:
    """Do as the run's name says."""
    (folder / run.name).touch()
    what = run.name.partition("-")[0]
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "fails":
        return "it failed"
    elif what == "breaks":
        raise Fault("a fault of ours")
    elif what == "sleeps":
        time.sleep(600)
    return ""
