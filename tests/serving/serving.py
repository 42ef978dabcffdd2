"""A server of the tests' classifiers, in a thread, and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from minilm.evaluation.predictor import Predictor
from minilm.serving.api import Limits
from minilm.serving.app import Service
from minilm.serving.server import address_of, listen, server


@dataclass(frozen=True)
class Reply:
    """An answer of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of an error, which is one line."""
        message = self.json["error"]
        assert self.status >= 400 and "\n" not in message
        return str(message)


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    service: Service

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """A request on a connection of its own; a body that is not bytes is sent as JSON."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        with contextlib.closing(connection):
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.headers), answer.read())

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        return self.send("POST", path, body, **headers)

    def get(self, path: str) -> Reply:
        return self.send("GET", path)


@contextlib.contextmanager
def serving(
    predictor: Predictor, run: Path, *, limits: Limits | None = None, batch: int = 64, room: int = 1024
) -> Iterator[Served]:
    """A server that has started; it ends with the context, when all requests are answered."""
    service = Service(predictor, run, limits=limits or Limits(), batch=batch, room=room)
    listener = listen("127.0.0.1", 0)
    url, running = address_of(listener), server(service.app("127.0.0.1"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not running.started:
            time.sleep(0.01)
        yield Served(url, service)
    finally:
        running.should_exit = True
        thread.join()
