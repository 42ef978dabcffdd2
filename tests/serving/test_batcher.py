"""The batcher: a failure reaches its request and no other, and the end waits for nobody."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from minilm.serving.batcher import Batcher, Stopped, _Request
from minilm.serving.metrics import Metrics
from tests.evaluation.classifiers import TEXTS, classifier


def test_two_threads_may_fail_and_answer_one_request() -> None:
    for _ in range(10):
        request, faults, gate = _Request(8, [None] * 8), list[BaseException](), threading.Barrier(8)
        assert request.wanted()
        done = request.result.done

        def slow_done(done=done) -> bool:
            found = done()
            time.sleep(0.0005)  # so that all threads look before the first one writes
            return bool(found)

        request.result.done = slow_done  # type: ignore[method-assign]

        def finish(number: int, request=request, gate=gate, faults=faults) -> None:
            gate.wait()
            try:
                request.fail(ValueError(str(number))) if number % 2 else request.give(number, np.zeros(2))
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=finish, args=(i,)) for i in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert faults == [] and isinstance(request.result.exception(), ValueError)


def test_a_fault_around_a_batch_fails_its_request_and_the_worker_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = Batcher(classifier(), Metrics(), batch=4, room=100)

    def fault(size: float) -> None:
        raise RuntimeError("a fault")

    async def ask() -> np.ndarray:
        return await asyncio.wait_for(batcher.scores(TEXTS[:2], None), 10)

    with monkeypatch.context() as patch:
        patch.setattr(batcher.metrics.batch_sizes, "observe", fault)
        with pytest.raises(RuntimeError, match="a fault"):
            asyncio.run(ask())
    assert len(asyncio.run(ask())) == 2
    batcher.close()


def test_close_waits_neither_for_what_is_computed_nor_for_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilm.serving.batcher.END_SECONDS", 0.1)
    model, gate, begun = classifier(), threading.Event(), threading.Event()
    monkeypatch.setattr(model, "scores_of_clean", lambda *given: (begun.set(), gate.wait(10), np.zeros((1, 3)))[2])
    batcher = Batcher(model, Metrics(), batch=1, room=100)

    async def ask() -> list[object]:
        waiting = [asyncio.ensure_future(batcher.scores([text], None)) for text in TEXTS[:5]]
        waiting.append(asyncio.ensure_future(batcher.run(lambda: 1)))
        await asyncio.to_thread(begun.wait, 10)
        started = time.monotonic()
        await asyncio.to_thread(batcher.close)
        assert time.monotonic() - started < 3
        gate.set()
        found = await asyncio.gather(*waiting[1:], return_exceptions=True)
        with pytest.raises(Stopped):
            await batcher.scores(TEXTS[:1], None)
        await waiting[0]  # it was computed already
        return found

    assert all(isinstance(each, Stopped) for each in asyncio.run(ask()))
    assert all(thread.daemon for thread in batcher.threads)
