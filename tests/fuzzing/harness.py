"""Broken files, each read in a process of its own with little time and memory."""

from __future__ import annotations

import collections
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minilm.errors import UserError
from tests.fuzzing.cases import CASES, Case, Wrong

SECONDS, PATIENCE = 10, 180  # of CPU; of the clock
MEMORY = 1 << 30  # bytes


@dataclass(frozen=True)
class Outcome:
    """What became of one broken file."""

    case: str
    seed: str
    kind: str  # "result", "line", "traceback", "wrong", "time" or "memory"
    text: str = ""
    seconds: float = 0.0  # of CPU
    memory: int = 0  # bytes beyond what the process had

    @property
    def good(self) -> bool:
        """Whether the reader kept its promise."""
        return self.kind in ("result", "line")


def fuzz(number: int, seed: int, *, compare: bool, only: Sequence[str] = ()) -> Iterator[Outcome]:
    """So many broken files of all kinds, always the same for a seed. ``only``: kinds, or numbers of files."""
    draw = random.Random(seed)
    prepare()
    for i in range(number):
        case = draw.choices(CASES, [case.weight for case in CASES])[0]
        if i and i % 250 == 0:
            print(f"{i} of {number}", flush=True)
        if not only or str(i) in only or case.name in only:
            yield one(case, f"{seed}/{i}", compare=compare)


def prepare() -> None:
    """Read a whole file of each kind. What the cases share is made by that, and imported, before the processes part."""
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            rng = random.Random(0)
            case.make(Path(folder), rng)
            try:
                case.read(Path(folder), rng, False)
            except UserError:
                if case.name != "data.parquet":  # whose columns may be odd from the start
                    raise


def one(case: Case, seed: str, *, compare: bool) -> Outcome:
    """One broken file."""
    folder = Path(tempfile.mkdtemp(prefix="minilm-fuzz-"))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            _work(case, seed, folder, compare, write)
        except BaseException:
            _send(write, {"kind": "crash", "text": traceback.format_exc()[-3000:]})
    os.close(write)
    try:
        answer = b""
        end = time.monotonic() + PATIENCE
        while select.select([read], [], [], max(0.0, end - time.monotonic()))[0]:
            if not (chunk := os.read(read, 1 << 16)):
                break
            answer += chunk
        else:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(read)
        shutil.rmtree(folder, ignore_errors=True)
    if not answer:
        kind = "time" if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else "crash"
        return Outcome(case.name, seed, kind, f"ended with status {status}")
    outcome = Outcome(case.name, seed, **json.loads(answer))
    if outcome.good and outcome.memory > MEMORY:
        return Outcome(case.name, seed, "memory", outcome.text, outcome.seconds, outcome.memory)
    if outcome.good and outcome.seconds > SECONDS:
        return Outcome(case.name, seed, "time", outcome.text, outcome.seconds, outcome.memory)
    return outcome


def _work(case: Case, seed: str, folder: Path, compare: bool, write: int) -> None:
    """In the child: make, break and read the file, and send what became of it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.chdir(folder)
    rng = random.Random(seed)
    case.make(folder, rng)
    case.damage(folder, rng)
    resource.setrlimit(resource.RLIMIT_CPU, (int(_seconds()) + SECONDS + 5, resource.RLIM_INFINITY))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, _seconds()
    try:
        case.read(folder, rng, compare)
        kind, text = "result", ""
    except UserError as error:
        kind, text = "line", str(error)[:300]
    except Wrong as error:
        kind, text = "wrong", str(error)[:1000]
    except BaseException:
        kind, text = "traceback", traceback.format_exc()[-3000:]
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    _send(write, {"kind": kind, "text": text, "seconds": _seconds() - started, "memory": memory})


def _send(write: int, answer: dict[str, object]) -> None:
    """Send what became of a file, and end."""
    with os.fdopen(write, "wb") as file:
        file.write(json.dumps(answer).encode())
    os._exit(0)


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def table(outcomes: Sequence[Outcome]) -> str:
    """How many of each kind of file ended how, as Markdown."""
    counts = collections.Counter((outcome.case, outcome.kind) for outcome in outcomes)
    kinds = ("result", "line", "traceback", "time", "memory", "wrong", "crash")
    lines = ["| file | broken | result | a line | traceback | above 10 s | above 1 GiB | silently wrong | crash |"]
    lines += ["|---|" + "---:|" * 8]
    for name in dict.fromkeys(case.name for case in CASES):
        row = [counts[name, kind] for kind in kinds]
        lines.append(f"| {name} | {sum(row)} | {' | '.join(map(str, row))} |")
    total = [sum(counts[case.name, kind] for case in CASES) for kind in kinds]
    return "\n".join([*lines, f"| all | {sum(total)} | {' | '.join(map(str, total))} |"])


def report(outcome: Outcome) -> None:
    """Show a broken promise, and how to see it again."""
    print(f"\n{outcome.case}, seed {outcome.seed}: {outcome.kind} ({outcome.seconds:.1f} s, {outcome.memory:,} bytes)")
    print(outcome.text, file=sys.stdout, flush=True)
