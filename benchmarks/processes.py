"""One side of a comparison in a process of its own: nothing is shared, and its peak memory is its own."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20


@dataclass(frozen=True)
class Go:
    """One go of a side."""

    samples: int
    seconds: float  # of the CPU
    memory: float  # MiB at the process's peak, from its start

    @property
    def rate(self) -> float:
        """Samples per CPU second."""
        return self.samples / self.seconds


class Side:
    """A running ``python -m MODULE ARGUMENTS`` that works on request: see ``serve``."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.command = [sys.executable, "-m", module, *arguments]
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def go(self) -> Go:
        """Let it work once, to the end. Raises RuntimeError if it fails; its error is on the terminal."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{' '.join(self.command)} ended with {self.process.wait()}")
        return Go(**json.loads(answer))

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *of_an_error: object) -> None:
        self.process.communicate()  # no more lines: it ends


def serve(work: Callable[[], tuple[int, float]]) -> None:
    """In the process: for each line from the parent work once, and answer with the samples and the CPU seconds."""
    answers = sys.stdout
    for _ in sys.stdin:
        gc.collect()  # the last go's model may still be in memory
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            samples, seconds = work()
        print(json.dumps({"samples": samples, "seconds": seconds, "memory": peak()}), file=answers, flush=True)


def peak() -> float:
    """MiB of memory that this process has held at most."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the process that started this one
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB
