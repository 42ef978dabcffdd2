"""``make faults``: runs that are killed, run out of disk, or are started twice must end as if nothing had happened.

    python -m tests.faults --kills 100 --disks 20 --races 20 --seed 1
    python -m tests.faults --only kill/17 --seed 1        one of them again

Every fault is drawn from the seed and its number. A kill is SIGKILL just before or just after a change of a file or a
step of training, the n-th that the run makes, or after a time; a run may be killed several times. A full disk is a
limit on the size of files. A race is two processes that start the same command at the same moment. Afterwards the same
command is given again, with ``--resume``, until it has ended. Then weights, evaluations and results must be equal, bit
for bit, to those of a run without faults; and nothing else may lie beside it: no temporary file, no lock, no second
run.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

from tests.faults.kinds import KINDS, Kind, make_kind, outcome_of
from tests.faults.running import Running

ATTEMPTS = 12  # until a study counts as one that never ends


def kill(kind: Kind, runs: Path, rng: random.Random) -> tuple[int, str]:
    """One kill or several, then to the end."""
    kills = rng.choice((1, 1, 1, 2, 3))
    for i in range(kills):
        command = kind.command(runs, resume=(runs / "tiny" / "config.toml").exists())
        if kind.name == "study" or rng.random() < 0.3:
            Running(command).end(kill_after=rng.uniform(0, kind.seconds * 1.1))
        else:
            Running(command, kill_at=rng.randint(1, max(1, kind.events // (i + 1)))).end()
    return kills, to_the_end(kind, runs)


def disk(kind: Kind, runs: Path, rng: random.Random) -> tuple[int, str]:
    """A disk that is full, then one with room."""
    limit = int(100 * (kind.largest * 1.2 / 100) ** rng.random())
    attempt = Running(kind.command(runs, resume=False), limit=limit).end()
    if attempt.trace or attempt.code not in (0, 1):
        return 1, f"with {limit} bytes a file: {attempt}"
    errors = [line for line in attempt.output.splitlines() if line.startswith("Error: ")]
    if kind.name != "study" and attempt.code and not (len(errors) == 1 and "File too large" in errors[0]):
        return 1, f"with {limit} bytes a file it said: {attempt.output}"
    return int(attempt.code != 0), to_the_end(kind, runs)


def race(kind: Kind, runs: Path, rng: random.Random) -> tuple[int, str]:
    """Two processes at one run: both start it, or both resume it."""
    resume = kind.name != "study" and rng.random() < 0.7
    if resume:
        Running(kind.command(runs, resume=False), kill_at=rng.randint(kind.events // 3, kind.events // 2)).end()
        resume = (runs / "tiny" / "config.toml").exists()
    moment = time.time() + 0.5
    racing = [Running(kind.command(runs, resume=resume), wait_until=moment + rng.random() * 0.3) for _ in range(2)]
    attempts = [process.end() for process in racing]
    if any(attempt.trace for attempt in attempts):
        return 1, f"{attempts}"
    if not resume and kind.name != "study":
        if [attempt.code for attempt in attempts] != [0, 0]:
            return 1, f"two new runs: {attempts}"
        second = _renamed(runs, runs.with_name("second"))
        found = outcome_of(second)
        return 1, "" if found == kind.outcome else f"the second run differs: {difference(found, kind.outcome)}"
    for attempt in attempts:
        refused = "is working on this run" in attempt.output or "another process is running it" in attempt.output
        if attempt.code not in (0, 1) or (attempt.code == 1 and not refused):
            return 1, f"{attempt}"
    return 1, to_the_end(kind, runs)


def _renamed(runs: Path, other: Path) -> Path:
    """The second of two new runs, as if it were the first of its own."""
    other.mkdir()
    (runs / "tiny-2").rename(other / "tiny")
    return other


def to_the_end(kind: Kind, runs: Path) -> str:
    """Give the command until it has ended. Return what is wrong with what it leaves."""
    for _ in range(ATTEMPTS):
        attempt = Running(kind.command(runs, resume=(runs / "tiny" / "config.toml").exists())).end()
        if attempt.code == 0:
            return difference(outcome_of(runs), kind.outcome)
        if kind.name != "study" or attempt.trace:
            break
    return f"it does not end: {attempt}"


def difference(found: Any, wanted: Any) -> str:
    """The first thing in which two outcomes differ; empty if they are equal."""
    if found["files"] != wanted["files"]:
        return f"files: {sorted(set(found['files']) ^ set(wanted['files']))}"
    return next((f"{key} differs" for key in wanted if found.get(key) != wanted[key]), "")


FAULTS = {"kill": kill, "disk": disk, "race": race}


def faults(numbers: dict[str, int], seed: int, only: list[str], folder: Path) -> Iterator[tuple[str, str, int, str]]:
    """Each fault in turn: its name, the kind of run, how many there were, and what is wrong afterwards."""
    kinds = {name: make_kind(name, folder / name) for name in KINDS}
    for kind in kinds.values():
        print(f"{kind.name}: {kind.seconds:.1f} s, {kind.events} events, {kind.largest:,} bytes", flush=True)
    turns = [*KINDS[:-1], *KINDS]  # a study takes as long as several runs
    for fault, number in numbers.items():
        for i in range(number):
            name, kind, runs = f"{fault}/{i}", kinds[turns[i % len(turns)]], folder / f"{fault}-{i}" / "runs"
            if only and name not in only:
                continue
            runs.mkdir(parents=True)
            times, wrong = FAULTS[fault](kind, runs, random.Random(f"{seed}/{name}"))
            yield name, kind.name, times, wrong
            if not wrong:
                shutil.rmtree(runs.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for fault, number in (("kills", 100), ("disks", 20), ("races", 20)):
        parser.add_argument(f"--{fault}", type=int, default=number)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="such as kill/17")
    options = parser.parse_args()
    numbers = {"kill": options.kills, "disk": options.disks, "race": options.races}
    folder, started = Path(tempfile.mkdtemp(prefix="minilm-faults-")), time.monotonic()
    print(f"seed {options.seed}; what fails stays in {folder}", flush=True)
    runs, times, failures = collections.Counter[tuple[str, str]](), collections.Counter[str](), []
    for name, kind, count, wrong in faults(numbers, options.seed, options.only, folder):
        fault = name.partition("/")[0]
        runs[fault, kind] += 1
        times[fault] += count
        if wrong:
            failures.append(name)
            print(f"{name} ({kind}): {wrong}", flush=True)
    print(f"\n| fault | {' | '.join(KINDS)} | runs | faults |\n|---|{'---:|' * (len(KINDS) + 2)}")
    for fault in numbers:
        row = [runs[fault, kind] for kind in KINDS]
        print(f"| {fault} | {' | '.join(map(str, row))} | {sum(row)} | {times[fault]} |")
    seconds = time.monotonic() - started
    print(f"\n{len(failures)} ended otherwise; {seconds / 60:.1f} minutes; seed {options.seed}", *failures)
    if not failures:
        shutil.rmtree(folder)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
