"""Answer the texts of many requests in batches: while the model reads one batch, the next texts wait for theirs.

    request -> texts wait in a queue, in order -> a worker takes up to ``batch`` of them -> scores -> each request

A batch takes what waits, and never waits for more: if one text is there, it is read alone; under load, batches grow by
themselves. Texts of very different lengths are divided again, so that they are not padded (``data/batching.py``).

A worker is a thread. On a CPU with several cores there are two, which read a batch each with half of the cores: small
batches do not keep many cores busy, and no core waits while another worker tokenizes. Longer work, such as an
explanation or some rows of a table, takes turns with the batches, one piece at a time. The queue is bounded: a request
that finds no room is refused at once, as a late answer helps nobody. One that was admitted is answered to its end.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np

from minilm.data.tokenization import NoTokens
from minilm.errors import UserError
from minilm.evaluation.predictor import Predictor
from minilm.serving.metrics import Metrics

T = TypeVar("T")
MOST_WORKS = 8  # pieces of longer work that may wait, beside those of admitted requests
END_SECONDS = 5.0  # in which a worker ends after the batch that it computes; then it is left behind
LONGEST_PAUSE = 60  # seconds: the most that a refused request is asked to wait


class Busy(Exception):
    """There is no room for a request; it may be sent again after ``seconds``."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Stopped(Exception):
    """The server ends before the request is answered."""


class NoTokensIn(UserError):
    """The tokenizer finds no tokens in a text of the request; ``number`` is the text's, from 0."""

    def __init__(self, number: int) -> None:
        super().__init__("the tokenizer finds no token in a text")
        self.number = number


@dataclass
class _Request:
    """N texts of one request, and the scores that have been found, perhaps by several workers."""

    left: int  # texts without scores
    scores: list[np.ndarray | None]  # (C,) each
    result: Future[np.ndarray] = field(default_factory=Future)
    lock: threading.Lock = field(default_factory=threading.Lock)  # guards all of them

    def wanted(self) -> bool:
        """Whether the request still waits for scores. From now on it cannot be cancelled."""
        with self.lock:
            if self.result.done():
                return False
            return self.result.running() or self.result.set_running_or_notify_cancel()

    def give(self, number: int, scores: np.ndarray) -> None:
        """Add the scores of a text."""
        with self.lock:
            self.scores[number] = scores
            self.left -= 1
            if not self.left and not self.result.done():
                self.result.set_result(np.array(self.scores))

    def fail(self, error: Exception) -> None:
        """Raise an exception in the request."""
        with self.lock:
            if not self.result.done():
                self.result.set_exception(error)


class _Text(NamedTuple):
    request: _Request
    number: int  # in its request
    text: str
    pair: str | None


class _Work(NamedTuple):
    call: Callable[[], object]
    result: Future[object]
    admitted: bool


class Batcher:
    """Workers that answer texts from a queue with a predictor."""

    def __init__(self, predictor: Predictor, metrics: Metrics, *, batch: int, room: int, workers: int = 1) -> None:
        """batch: the most texts in a batch. room: the most texts that may wait. workers: threads that use the
        predictor at the same time."""
        self.predictor, self.metrics, self.batch, self.room = predictor, metrics, batch, room
        self.texts: deque[_Text] = deque()
        self.works: deque[_Work] = deque()
        self.changed = threading.Condition()  # guards the two queues, and what the threads count
        self.closed = False
        self.working = False  # whether a worker does longer work
        self.computing = 0  # texts in the batches of all workers
        self.seconds = 0.0  # that a worker needs for a text: a moving average
        self.threads = [threading.Thread(target=self._run, name=f"minilm-{i}", daemon=True) for i in range(workers)]
        for thread in self.threads:
            thread.start()

    async def scores(self, texts: Sequence[str], pairs: Sequence[str] | None) -> np.ndarray:
        """The scores (N, C) of cleaned texts, none of which is empty.

        Raises Busy if there is no room, Stopped, NoTokensIn, and UserError as ``Predictor.scores_of_clean_texts`` does.
        """
        request = _Request(len(texts), [None] * len(texts))
        waiting = [_Text(request, i, text, None if pairs is None else pairs[i]) for i, text in enumerate(texts)]
        with self.changed:
            if self.closed:
                raise Stopped
            if len(self.texts) + len(waiting) > self.room:
                raise self.busy()
            self.texts.extend(waiting)
            self.metrics.waiting = len(self.texts)
            self.changed.notify_all()
        return await asyncio.wrap_future(request.result)

    async def run(self, work: Callable[[], T], *, admitted: bool = False) -> T:
        """The result of longer work that uses the predictor, or its exception.

        admitted: whether the work is a piece of a request that has been admitted, which has one piece at a time in the
        queue. Any other work raises Busy if there is no room. Both raise Stopped if the batcher is closed first.
        """
        result: Future[object] = Future()
        with self.changed:
            if self.closed:
                raise Stopped
            if not admitted and sum(not each.admitted for each in self.works) >= MOST_WORKS:
                raise self.busy()
            self.works.append(_Work(work, result, admitted))
            self.changed.notify_all()
        found = await asyncio.wrap_future(result)
        return found  # type: ignore[return-value]  # it is what ``work`` returned

    def close(self) -> None:
        """Raise Stopped in all requests that still wait, and end the workers.

        A worker that computes gets ``END_SECONDS`` for it. This blocks: call it in a thread of its own.
        """
        with self.changed:
            self.closed = True
            requests, works = [each.request for each in self.texts], list(self.works)
            self.texts.clear()
            self.works.clear()
            self.metrics.waiting = 0
            self.changed.notify_all()
        for request in requests:
            if request.wanted():
                request.fail(Stopped())
        for work in works:
            _refuse(work)
        last = time.monotonic() + END_SECONDS
        for thread in self.threads:
            thread.join(max(0.0, last - time.monotonic()))

    def busy(self) -> Busy:
        """The refusal of a request, with the seconds until the texts that wait now are answered, roughly."""
        seconds = math.ceil(len(self.texts) * self.seconds / len(self.threads))
        return Busy(min(max(1, seconds), LONGEST_PAUSE))

    def _run(self) -> None:
        while True:
            with self.changed:
                while not (self.texts or self._may_work() or self.closed):
                    self.changed.wait()
                batch = self._take()
                work = self.works.popleft() if self._may_work() else None
                self.working = self.working or work is not None
                self.computing += len(batch)
                self.metrics.waiting = len(self.texts)
                if not batch and work is None and self.closed:
                    return
            if batch:
                self._answer(batch)
            if work is not None:
                (_refuse if self.closed else _carry_out)(work)
            with self.changed:
                self.computing -= len(batch)
                self.working = self.working and work is None
                self.changed.notify_all()

    def _may_work(self) -> bool:
        return bool(self.works) and not self.working

    def _take(self) -> list[_Text]:
        """The next texts: either single texts or pairs. Those of requests that were cancelled or have failed are left
        out."""
        batch: list[_Text] = []
        fair = math.ceil((len(self.texts) + self.computing) / len(self.threads))  # so that no worker reads most of them
        most = min(self.batch, fair)
        while self.texts and len(batch) < most:
            if batch and (self.texts[0].pair is None) != (batch[0].pair is None):
                break
            text = self.texts.popleft()
            if text.request.wanted():
                batch.append(text)
        return batch

    def _answer(self, batch: list[_Text]) -> None:
        """Give each text its scores. Any exception but that of a text without tokens fails the whole batch."""
        try:
            self._give_scores(batch)
        except Exception as error:  # raised again in each request
            for each in batch:
                each.request.fail(error)

    def _give_scores(self, batch: list[_Text]) -> None:
        """Give each text its scores. A text without tokens fails alone."""
        started = time.monotonic()
        with self.changed:  # several threads count
            self.metrics.batch_sizes.observe(len(batch))
        while batch:
            pairs = None if batch[0].pair is None else [each.pair or "" for each in batch]
            try:
                found = self.predictor.scores_of_clean_texts([each.text for each in batch], pairs)
            except NoTokens as error:
                for i in error.rows:
                    batch[i].request.fail(NoTokensIn(batch[i].number))
                batch = [each for i, each in enumerate(batch) if i not in set(error.rows)]
            else:
                taken = (time.monotonic() - started) / len(batch)
                with self.changed:
                    self.metrics.texts += len(batch)  # before a request that has its answer may look at it
                    self.seconds = 0.8 * self.seconds + 0.2 * taken if self.seconds else taken
                for each, scores in zip(batch, found, strict=True):
                    each.request.give(each.number, scores)
                return


def _carry_out(work: _Work) -> None:
    if not work.result.set_running_or_notify_cancel():
        return
    try:
        work.result.set_result(work.call())
    except Exception as error:  # raised again in the request
        work.result.set_exception(error)


def _refuse(work: _Work) -> None:
    if work.result.set_running_or_notify_cancel():
        work.result.set_exception(Stopped())
