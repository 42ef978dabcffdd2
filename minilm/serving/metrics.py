"""What the server counts, in Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/.

A histogram has, for each bound, the number of values that are at most this bound, then their sum and their number.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts values up to each of some bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, about: str) -> Iterator[str]:
        """The histogram in the text format."""
        yield from _head(name, "histogram", about)
        below = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self.sum:.6f}"
        yield f"{name}_count {below}"


class Metrics:
    """The counts since the server was started."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # path and status
        self.seconds = Histogram(SECONDS)  # of requests to /predict
        self.batch_sizes = Histogram(SIZES)
        self.texts = 0  # answered
        self.rows = 0  # of tables
        self.waiting = 0  # texts in the queue

    def text(self) -> str:
        """All of them in the text format."""
        lines = list(_head("minilm_requests_total", "counter", "Requests that were answered, by path and status."))
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'minilm_requests_total{{path="{path}",status="{status}"}} {count}')
        for name, kind, about, value in (
            ("minilm_texts_total", "counter", "Texts that were classified.", self.texts),
            ("minilm_table_rows_total", "counter", "Rows of tables that were answered.", self.rows),
            ("minilm_waiting_texts", "gauge", "Texts that wait for a batch.", self.waiting),
            ("process_cpu_seconds_total", "counter", "CPU seconds of the server.", round(time.process_time(), 3)),
        ):
            lines += [*_head(name, kind, about), f"{name} {value}"]
        lines += self.batch_sizes.lines("minilm_batch_texts", "Texts in a batch.")
        lines += self.seconds.lines("minilm_predict_seconds", "Seconds from a request to its answer, of /predict.")
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
