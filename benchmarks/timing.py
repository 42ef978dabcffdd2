"""Two programs timed in turn, A B A B ..., so that a machine whose speed drifts does not favour one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """How many times as fast ours is as a peer, beside the aim."""

    what: str
    ours: float  # median, per CPU second
    peer: float  # median, per CPU second
    ratio: float  # median over the rounds of ours / peer
    aim: float
    unit: str = "samples/CPU s"

    @property
    def reached(self) -> bool:
        """Whether the ratio is at least the aim."""
        return self.ratio >= self.aim

    def __str__(self) -> str:
        verdict = "" if self.reached else "  BELOW THE AIM"
        return (
            f"{self.what:<58} ours {self.ours:8.1f}  peer {self.peer:8.1f} {self.unit:<13}  "
            f"{self.ratio:5.2f} times (aim {self.aim:.2f}){verdict}"
        )


def seconds(work: Callable[[], object]) -> float:
    """The CPU seconds that one go takes, of all threads: other programs on the machine do not count."""
    started = time.process_time()
    work()
    return time.process_time() - started


def compare(
    what: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    samples: tuple[int, int],
    aim: float,
    rounds: int = 7,
    unit: str = "samples/CPU s",
) -> Result:
    """Time both, ``samples`` being how many each go of ours and of the peer handles. The first round is not counted."""
    pairs = [(samples[0] / seconds(ours), samples[1] / seconds(peer)) for _ in range(rounds + 1)][1:]
    return Result(
        what,
        ours=statistics.median(a for a, _ in pairs),
        peer=statistics.median(b for _, b in pairs),
        ratio=statistics.median(a / b for a, b in pairs),
        aim=aim,
        unit=unit,
    )
