"""Requests to the Hub (huggingface.co), with retries and clear errors.

``huggingface_hub`` provides the client (proxies), the token (HF_TOKEN, or `hf auth login`), HF_ENDPOINT and
HF_HUB_OFFLINE. Each error is one line with the probable cause and what to do. A TransientError may disappear after a
while; any other UserError will not.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from minilm.errors import UserError
from minilm.repository import Repository

if TYPE_CHECKING:
    import httpx2  # huggingface_hub's own client


@dataclass(frozen=True)
class Patience:
    """How long to wait for the Hub, in seconds."""

    answer: float = 30  # for the next bytes; after that the connection counts as broken
    stall: float = 50  # without progress of a transfer, over all attempts; after that it is an error
    pace: int = 1 << 16  # bytes; fewer do not count as progress
    pauses: tuple[float, ...] = (1, 2, 4, 8)  # before each further attempt
    asked: float = 60  # the longest pause that the Hub may request (Retry-After)


log = logging.getLogger("minilm")

PATIENCE = Patience()
AGAIN = "run the same command again; the part that was downloaded is kept"


class TransientError(UserError):
    """An error of the network or the server that may disappear. The downloaded part is kept, and the next attempt
    continues it."""

    def __init__(self, message: str, again: bool = True, asked: float | None = None) -> None:
        super().__init__(message)
        self.again = again  # whether a further attempt may help soon
        self.asked = asked  # seconds that the server asks to wait


class Unreachable(TransientError):
    """Files are not on this machine and the Hub cannot be reached: no network, or HF_HUB_OFFLINE is set."""

    def __init__(self, who: str, why: str, without: str, again: bool = True) -> None:
        message = f"{who}: not on this machine, or incomplete, and the Hub cannot be reached ({why}); {without}"
        super().__init__(message, again)
        self.who, self.why, self.without = who, why, without


class Attempts:
    """The attempts at one transfer: any number as long as there is progress, a few without."""

    def __init__(self, position: int = 0, connected: bool = False) -> None:
        self.patience = PATIENCE
        self.connected = connected  # whether the Hub has just answered another request
        self.best = position  # bytes
        self.moved = time.monotonic()  # the time of the last progress
        self.failed = 0  # attempts since then
        self.waited = 0.0  # seconds of pauses that the server requested

    def timeout(self) -> float:
        """The longest time in seconds for the next bytes."""
        return max(0.001, min(self.patience.answer, self.moved + self.patience.stall - time.monotonic()))

    def reached(self, position: int) -> bool:
        """Record the number of downloaded bytes; return whether the transfer still makes progress."""
        if position >= self.best + self.patience.pace:
            self.best, self.moved, self.failed = position, time.monotonic(), 0
        return time.monotonic() - self.moved < self.patience.stall

    def wait(self, error: TransientError) -> None:
        """Pause before the next attempt, or raise the error if no attempt is left."""
        if not error.again or self.failed == len(self.patience.pauses):
            raise error
        pause = self.patience.pauses[self.failed]
        if error.asked is not None:  # the server works, so this does not count as a stall
            pause = error.asked
            self.waited += pause
            self.moved += pause
            if self.waited > self.patience.asked:
                raise error
            if pause >= 1:
                log.warning("the Hub requests a pause of %.0f s; waiting", pause)
        if time.monotonic() + pause - self.moved > self.patience.stall:
            raise error
        self.failed += 1
        time.sleep(pause)


# Requests -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def answer(repository: Repository, url: str, attempts: Attempts, begin: int = 0) -> Iterator[httpx2.Response]:
    """A response of the Hub, from byte ``begin`` if the server supports it; its body has not been read yet.

    All network errors become UserErrors, also while the body is read.
    """
    import httpx2

    who, client, headers = repository.repo_id, *_client(repository)
    headers |= {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begin}-"} if begin else {})
    expected = (200, 206, 416) if begin else (200,)  # 416: the file has no such byte
    try:
        with client.stream("GET", url, headers=headers, timeout=attempts.timeout(), follow_redirects=True) as response:
            if response.status_code not in expected:
                raise _refusal(repository, response)
            yield response
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
        again = attempts.connected or isinstance(error, httpx2.ConnectTimeout)
        raise _unreachable(repository, error, again) from error
    except httpx2.TimeoutException as error:
        raise _stalled(repository, attempts) from error
    except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.TooManyRedirects, httpx2.InvalidURL) as error:
        raise UserError(f"{who}: the Hub's address does not work ({plain(error)}); {between()}") from error
    except httpx2.HTTPError as error:
        raise TransientError(f"{who}: the connection failed ({plain(error)}); {between()}; {AGAIN}") from error


def _client(repository: Repository) -> tuple[httpx2.Client, dict[str, str]]:
    """The client of huggingface_hub, and the headers with the token."""
    import httpx2
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import get_session

    who = repository.repo_id
    if constants.is_offline_mode():
        raise Unreachable(who, "HF_HUB_OFFLINE is set", repository.without, again=False)
    token = "" if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token() or ""
    if not (token.isascii() and token.isprintable()):
        raise UserError(f"{who}: HF_TOKEN contains invalid characters; set it again, or run `hf auth login`")
    try:
        return get_session(), {"User-Agent": "minilm"} | ({"Authorization": f"Bearer {token}"} if token else {})
    except (OSError, ValueError, ImportError, httpx2.InvalidURL) as error:
        variables = "HTTPS_PROXY, ALL_PROXY or SSL_CERT_FILE"
        raise UserError(f"{who}: cannot connect to the Hub ({plain(error)}); correct or unset {variables}") from error


def pieces(
    repository: Repository, response: httpx2.Response, attempts: Attempts, position: int, end: int
) -> Iterator[bytes]:
    """Yield the body as it arrives; its first byte is at ``position``. Raises UserError for bytes after ``end``."""
    for piece in response.iter_bytes():
        position += len(piece)
        if position > end:
            raise UserError(
                f"{repository.repo_id}: {response.url.host} sends more than the expected {end:,} bytes; they were "
                f"deleted; {between()}"
            )
        yield piece
        if not attempts.reached(position):
            raise _stalled(repository, attempts)


# Errors -----------------------------------------------------------------------------------------------------


def _refusal(repository: Repository, response: httpx2.Response) -> UserError:
    """The error for the status of a response."""
    who, page, status = repository.repo_id, repository.page, response.status_code
    code = response.headers.get("X-Error-Code", "")
    log_in = "run `hf auth login` (or set HF_TOKEN)"
    request = (*response.history, response)[0].request  # before any redirect
    asks_for_list, anonymous = "/resolve/" not in request.url.path, "authorization" not in request.headers
    if code == "GatedRepo":
        return UserError(f"{who}: you must accept the owner's terms; do so at {page}, then {log_in}")
    if code == "RevisionNotFound":
        return UserError(f'{who}: has no revision "{repository.revision}"; see {page}/commits/main')
    # Without a login, the Hub answers 401 for a missing repository, as it may be private.
    if code == "RepoNotFound" or (asks_for_list and (status == 404 or (status == 401 and anonymous))):
        return UserError(
            repository.missing or f"{who}: no such folder, and no {repository.kind} of this name on the Hub; check the "
            f"name at {page}, or if it is private, {log_in}"
        )
    reason = plain(response.headers.get("X-Error-Message") or response.reason_phrase)
    answered = f"the Hub answered {status} ({reason})"
    if status in (401, 403):
        return UserError(f"{who}: the Hub refuses access ({status}); see the requirements at {page}, then {log_in}")
    if status == 404:
        return UserError(f"{who}: {answered} for a file that it lists; try again later, or use another revision")
    if status == 407:
        return UserError(f"{who}: a proxy needs a password (407); set HTTPS_PROXY=http://user:password@host")
    if status in (408, 425, 429) or status >= 500:
        asked = _asked_to_wait(response)
        after = f"; wait {min(asked, 1e9):,.0f} s before the next attempt" if asked else ""
        limit = f"; the limit is higher with a token: {log_in}" if status == 429 and anonymous else ""
        return TransientError(f"{who}: {answered}{after}{limit}; {AGAIN}", asked=asked)
    return UserError(f"{who}: {answered}; {between()}")


def _asked_to_wait(response: httpx2.Response) -> float | None:
    """The requested pause in seconds, from Retry-After (RFC 9110, section 10.2.3) or the Hub's own header; or None."""
    from huggingface_hub.utils import parse_ratelimit_headers

    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    limit = parse_ratelimit_headers(response.headers) if response.status_code == 429 else None
    return float(limit.reset_in_seconds) if limit and not limit.remaining else None


def not_the_hub(repository: Repository, response: httpx2.Response, what: str) -> TransientError:
    html = "text/html" in response.headers.get("Content-Type", "")
    what = "a web page" if html else what
    return TransientError(
        f"{repository.repo_id}: {response.url.host} answered with {what} instead of the Hub's response; {between()}",
        again=False,
    )


def _stalled(repository: Repository, attempts: Attempts) -> TransientError:
    seconds = f"{attempts.patience.stall:.0f} s"
    return TransientError(
        f"{repository.repo_id}: almost no data for {seconds}; check the network, then {AGAIN}"
    )


def _unreachable(repository: Repository, error: httpx2.RequestError, again: bool) -> Unreachable:
    why = f"{error.request.url.host}: {plain(error)}"
    if "CERTIFICATE_VERIFY_FAILED" in why:
        why += "; if a proxy inspects TLS here, set SSL_CERT_FILE to its certificate"
    return Unreachable(repository.repo_id, why, repository.without, again)


def between() -> str:
    """A hint about what may be between this machine and the Hub."""
    from huggingface_hub import constants

    if constants.ENDPOINT != "https://huggingface.co":
        return f'HF_ENDPOINT is "{constants.ENDPOINT}"; check that this is a complete mirror of the Hub'
    return "check for a proxy or a network login page: open https://huggingface.co in a browser"


def plain(text: object) -> str:
    """A text as one printable line, shortened if it is long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    line = line or (type(text).__name__ if isinstance(text, Exception) else "no reason given")
    return line if len(line) <= 160 else f"{line[:160]}..."
