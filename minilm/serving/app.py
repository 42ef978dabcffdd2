"""The web application of ``minilm serve``.

    GET  /          a page: a text, its probabilities and the words that count; a table to be labelled
    POST /predict   labels of texts, in the form of the Hub's API (``api.py``); POST / is the same
    POST /explain   {"inputs": a text or a pair, "label": "good"} -> the words that count, as `minilm explain --json`
    POST /table?name=reviews.csv&column=text   the table with answers (``tables.py``)
    GET  /health    the model, its labels, and what it can do
    GET  /metrics   counts for Prometheus (``metrics.py``)

Every error is {"error": "one line"}, with an HTTP status. A request that finds no room gets 503 and ``Retry-After``.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minilm.errors import UserError
from minilm.evaluation.explained import ExplainedText
from minilm.evaluation.explaining import explain_text
from minilm.evaluation.predictor import Classifier, Predictor
from minilm.reporting.page import COMMON_STYLE
from minilm.schema import as_table
from minilm.serving.api import Limits, Refusal, answers, read_explained, read_question
from minilm.serving.batcher import Batcher, Busy, NoTokensIn, Stopped
from minilm.serving.guarding import guarded
from minilm.serving.metrics import CONTENT_TYPE, Metrics
from minilm.serving.tables import SentTable, TableResponse

T = TypeVar("T")
BODY_SECONDS = 30.0  # in which a body must arrive
DISCARDED = 2**28  # bytes of a body that is too large, which are read before the answer, as most clients send first
MOST_TABLES = 8  # that are answered at the same time
READERS = 4  # bodies that are parsed and cleaned at the same time
WORKERS = 2  # on a CPU with several cores
PAGE = Path(__file__).parent / "page.html"
LINES = "application/x-ndjson"
STOPPED = JSONResponse({"error": "the server ends; send the request again"}, 503, headers={"Retry-After": "5"})


class Service:
    """The handlers of requests, for one predictor."""

    def __init__(self, predictor: Predictor, run: Path, *, limits: Limits, batch: int, room: int) -> None:
        """run: the run of the predictor, whose config names the columns of tables. batch, room: see ``Batcher``."""
        self.predictor, self.run, self.limits = predictor, run, limits
        self.metrics = Metrics()
        self.reading = asyncio.Semaphore(READERS)
        self.tables = 0  # that are being answered
        self.explained = explainable(predictor)
        workers = share_cores(predictor)
        self.batcher = Batcher(predictor, self.metrics, batch=batch, room=room, workers=workers)
        self.page = PAGE.read_text(encoding="utf-8").replace("/* the common style */", COMMON_STYLE)
        self.policy = content_policy(self.page)

    def app(self, host: str) -> ASGIApp:
        """The ASGI application. host: the IP address that it listens on, which decides whom it answers."""

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            await asyncio.to_thread(self.batcher.close)

        routes = [
            Route("/", self.show_page, methods=["GET"]),
            Route("/", self.predict, methods=["POST"]),
            Route("/predict", self.predict, methods=["POST"]),
            Route("/explain", self.explain, methods=["POST"]),
            Route("/table", self.table, methods=["POST"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/metrics", self.show_metrics, methods=["GET"]),
        ]
        handlers: dict[Any, Any] = {
            Refusal: _refused, Busy: _busy, Stopped: _stopped, HTTPException: _http_error, UserError: _model_error,
            ClientDisconnect: _gone, Exception: _fault,
        }  # fmt: skip
        app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
        return Counted(guarded(app, host), self.metrics, {route.path for route in routes})

    async def predict(self, request: Request) -> Response:
        """Labels of texts."""
        question = await self._read(read_question, request)
        try:
            scores = await self.batcher.scores(question.texts, question.pairs)
        except NoTokensIn as error:
            raise Refusal(400, f"inputs, text {error.number + 1}: {error}") from None
        return JSONResponse(answers(self.predictor, scores, question.parameters))

    async def explain(self, request: Request) -> Response:
        """The words that count for a label of one text."""
        if (classifier := self.explained) is None:
            raise Refusal(400, "explanations need a single trained model")
        text, label = await self._read(read_explained, request)
        try:
            found: ExplainedText = await self.batcher.run(lambda: explain_text(classifier, text, label))
        except UserError as error:
            raise Refusal(400, str(error)) from None
        return JSONResponse({**as_table(found), "pieces": list(found.pieces())})

    async def table(self, request: Request) -> Response:
        """A table with answers."""
        sent = SentTable(request.query_params.get("name", "table.csv"))
        with ExitStack() as undone:
            undone.callback(sent.folder.cleanup)
            with sent.path.open("wb") as file:
                async for chunk in self._chunks(request):
                    file.write(chunk)
            if self.tables >= MOST_TABLES:
                raise self.batcher.busy()
            self.tables += 1
            undone.callback(self._table_ended)
            column = request.query_params.get("column", "")
            table = await run_in_threadpool(sent.open, self.predictor, self.run, column)
            ended = undone.pop_all().close  # from here on by the response
        as_lines = LINES in request.headers.get("accept", "")
        headers = {"Content-Disposition": f'attachment; filename="{sent.answered_name}"'}
        kind = LINES if as_lines else {"csv": "text/csv", "tsv": "text/tab-separated-values"}.get(sent.form, LINES)
        return TableResponse(sent.answer(table, self.batcher, as_lines=as_lines), ended, headers, kind)

    def _table_ended(self) -> None:
        self.tables -= 1

    async def health(self, request: Request) -> Response:
        """The model, its labels and what it can do."""
        predictor = self.predictor
        return JSONResponse(
            {
                "status": "ok", "model": predictor.name, "labels": predictor.labels,
                "kind": predictor.decision.kind,  # single, multi (several labels per text), score: a number
                "pairs": bool(predictor.reading.pairs), "explains": self.explained is not None,
                "max_characters": self.limits.characters, "max_bytes": self.limits.body,
            }
        )  # fmt: skip

    async def show_metrics(self, request: Request) -> Response:
        """The counts."""
        return Response(self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def show_page(self, request: Request) -> Response:
        """The page."""
        headers = {"Content-Security-Policy": self.policy, "Referrer-Policy": "no-referrer"}
        return HTMLResponse(self.page, headers=headers)

    async def _read(self, read: Callable[[bytes, Predictor, Limits], T], request: Request) -> T:
        """What is read from a body, in a thread: cleaning large texts takes a time in which others are answered."""
        body = await self._body(request)
        async with self.reading:
            return await run_in_threadpool(read, body, self.predictor, self.limits)

    async def _body(self, request: Request) -> bytes:
        return b"".join([chunk async for chunk in self._chunks(request)])

    async def _chunks(self, request: Request) -> AsyncIterator[bytes]:
        """The body in parts. Raises Refusal if it is too large, or does not arrive in time."""
        most, size = self.limits.body, 0
        large = Refusal(413, f"the body has more than {most / 2**20:g} MiB (--max-mb)", {"Connection": "close"})
        if int(request.headers.get("content-length", "0")) > most and "expect" in request.headers:
            raise large  # the client waits for this before it sends
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= most:
                        yield chunk
                    elif size > most + DISCARDED:
                        break
        except TimeoutError:
            message = f"the body did not arrive within {BODY_SECONDS:g} seconds"
            raise Refusal(408, message, {"Connection": "close"}) from None
        if size > most:
            raise large


def explainable(predictor: Predictor) -> Classifier | None:
    """The classifier that explains answers, if they can be explained.

    It has modules of its own, which an explanation changes for a time. It has the weights of the predictor, unless that
    does not compute in float32.
    """
    if not isinstance(predictor, Classifier):
        return None
    if (precise := predictor.in_float32()) is not predictor:
        return precise
    found = copy.copy(predictor)
    shared = (*predictor.model.parameters(), *predictor.model.buffers())
    found.model = copy.deepcopy(predictor.model, {id(tensor): tensor for tensor in shared})
    return found


def share_cores(predictor: Predictor) -> int:
    """The number of workers that may use a predictor at the same time; each gets its part of the CPU's cores."""
    if not isinstance(predictor, Classifier) or predictor.runtime.device.type != "cpu" or torch.get_num_threads() < 2:
        return 1
    predictor.model.eval()  # for good: otherwise the first worker to finish would change it back
    torch.set_num_threads(torch.get_num_threads() // WORKERS)
    return WORKERS


def content_policy(page: str) -> str:
    """The Content-Security-Policy of a page: only its own script and style run, and it talks only to this server."""

    def hashed(tag: str) -> str:
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {hashed('script')}; style-src {hashed('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class Counted:
    """An application whose requests are counted, and timed if they are to /predict.

    uvicorn cancels a request if it is not answered in time before the server ends: it gets 503, or, if its answer has
    begun, uvicorn closes the connection with one line in the log.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: set[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, started = scope["path"] if scope["path"] in self.paths else "other", time.monotonic()

        begun = False

        async def counted(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self.metrics.requests[path, message["status"]] += 1
                if path == "/predict":
                    self.metrics.seconds.observe(time.monotonic() - started)
            await send(message)

        try:
            await self.app(scope, receive, counted)
        except asyncio.CancelledError:
            if not begun:
                await STOPPED(scope, receive, counted)


# --- Errors ---


async def _refused(request: Request, error: Refusal) -> Response:
    return JSONResponse({"error": error.message}, error.status, headers=error.headers)


async def _busy(request: Request, error: Busy) -> Response:
    message = f"the server is busy; try again in {error.seconds} s"
    return JSONResponse({"error": message}, 503, headers={"Retry-After": str(error.seconds)})


async def _stopped(request: Request, error: Stopped) -> Response:
    return STOPPED


async def _http_error(request: Request, error: HTTPException) -> Response:
    path = f"{request.method} {request.url.path}"
    return JSONResponse({"error": f"{path}: {error.detail.lower()}"}, error.status_code, headers=error.headers)


async def _model_error(request: Request, error: UserError) -> Response:
    return JSONResponse({"error": str(error)}, 500)


async def _fault(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "an error of the server, which its log describes"}, 500)  # it is raised again


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)  # nobody reads it
