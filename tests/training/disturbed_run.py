"""``minilm train``, disturbed at a step in one of the processes that torchrun starts, for ``test_distributed``.

    torchrun --nproc-per-node 2 -m tests.training.disturbed_run RANK STEP kill|signal|fail ARGUMENT ...
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from minilm.cli import main
from tests.tiny import at_step, no_pictures


def fail() -> None:
    raise RuntimeError("a bug in one process")


ACTIONS: dict[str, Callable[[], object]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "signal": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "fail": fail,
    "nothing": lambda: None,
}

if __name__ == "__main__":
    rank, step, action, *arguments = sys.argv[1:]
    here = ACTIONS[action if os.environ["RANK"] == rank else "nothing"]
    with at_step(int(step), here), no_pictures():
        main(arguments)
