"""Listen on an address, serve the application, and end without losing a request.

After SIGTERM or Ctrl-C, the server accepts no more connections, answers all requests that it has received, and ends.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from minilm.errors import UserError
from minilm.hints import WINDOWS
from minilm.training.console import recorded_signals, say

HEAD_SECONDS = 10.0  # a connection that sends no request for so long is closed, after at most twice the time
DRAIN_SECONDS = 30  # in which requests are answered after SIGTERM
CONNECTIONS = 1000  # from this number of open connections on, every request gets 503


class PatientProtocol(H11Protocol):
    """HTTP/1.1 on one connection, which is closed if no whole head of a request arrives in time."""

    seen: Any = None  # the last request of the connection when it was looked at

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look at the connection from time to time."""
        super().connection_made(transport)
        self.loop.call_later(HEAD_SECONDS, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is self.seen:
            self.transport.close()
            return
        self.seen = self.cycle
        self.loop.call_later(HEAD_SECONDS, self._look)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address; port 0: any free port. Raises UserError if that is not possible."""
    try:
        [family, kind, _, _, address], *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a part of a name that is empty or too long
        reason = error.strerror if isinstance(error, OSError) else "is not a valid host name"
        raise UserError(f"--host: {host}: {reason}") from None
    listener = socket.socket(family, kind)
    if not WINDOWS:  # on Windows this would let a second server take the same port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise UserError(f"{host}, port {port}: {error.strerror}; choose another --port") from None
    listener.listen(1024)
    return listener


def address_of(listener: socket.socket) -> str:
    """The address of a listener as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def server(app: ASGIApp) -> uvicorn.Server:
    """A server of the application, which writes only errors to its log."""
    return uvicorn.Server(
        uvicorn.Config(
            app, http=PatientProtocol, ws="none", lifespan="on", log_level=logging.WARNING, access_log=False,
            timeout_graceful_shutdown=DRAIN_SECONDS, limit_concurrency=CONNECTIONS, server_header=False,
        )
    )  # fmt: skip


def run_server(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what has been received."""
    with recorded_signals():  # uvicorn sends itself the signal again when all is answered
        server(app).run(sockets=[listener])
    say("stopped")
