"""Which requests a server on a loopback address answers: those of this machine's own pages and programs.

Any page in a browser can send requests to 127.0.0.1, and a name of its own may point there ("DNS rebinding"), so that
its script could read the answers. Two headers, which scripts cannot set, show it:

    Host      the name under which the page asks: it must be the address, 127.0.0.1, localhost or [::1]
    Origin    the page that sends a POST: it must be the server's own, "http://" and Host; programs send none
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

NAMES = ("127.0.0.1", "localhost", "[::1]")


class Guarded:
    """An application that answers only requests to the given names, with any port, and refuses others with 403."""

    def __init__(self, app: ASGIApp, names: tuple[str, ...]) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (message := self._refusal(scope["method"], Headers(scope=scope))):
            await JSONResponse({"error": message}, 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> str:
        """Why a request is refused; "" if it is not."""
        host = headers.get("host", "").lower()
        found = re.fullmatch(r"(\[[^]]*\]|[^:]*)(:\d*)?", host)  # an IPv6 address has colons of its own
        if found is None or found[1] not in self.names:
            return f"the header Host must be {', '.join(self.names)}, as this server listens on this machine alone"
        if method == "POST" and headers.get("origin", f"http://{host}").lower() != f"http://{host}":
            return "the header Origin names another address than this server's: other pages may not use it"
        return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an IP address."""
    return ip_address(host.partition("%")[0]).is_loopback


def guarded(app: ASGIApp, host: str) -> ASGIApp:
    """The application, which is guarded if the IP address that it listens on is a loopback address."""
    if not is_loopback(host):
        return app
    own = f"[{host}]" if ":" in host else host
    return Guarded(app, tuple(dict.fromkeys((*NAMES, own))))
