"""Questions to the Hub (huggingface.co), with patience; and what can go wrong, in plain words.

``huggingface_hub`` gives the client (proxies), the token (HF_TOKEN, or `hf auth login`), HF_ENDPOINT and
HF_HUB_OFFLINE. Each error is one line that names the likely cause and the way out: a TransientError may pass, any
other UserError will not.
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
    """How long the Hub is waited for, in seconds."""

    answer: float = 30  # for the next bytes; then the connection counts as broken
    stall: float = 50  # for a transfer to move on, over all attempts; then it is given up
    pace: int = 1 << 16  # bytes; fewer than that are no progress
    pauses: tuple[float, ...] = (1, 2, 4, 8)  # before each further attempt
    asked: float = 60  # the longest pause that the Hub may ask for (Retry-After)


log = logging.getLogger("minilm")

PATIENCE = Patience()
AGAIN = "run the same command again: what has arrived is kept"


class TransientError(UserError):
    """What may pass: the network, or the server's state. What has arrived is kept, and the next try continues it."""

    def __init__(self, message: str, again: bool = True, asked: float | None = None) -> None:
        super().__init__(message)
        self.again = again  # whether a further attempt may help soon
        self.asked = asked  # seconds that the server asks to wait


class Unreachable(TransientError):
    """The Hub cannot be asked for what is not on this machine: no network, or HF_HUB_OFFLINE is set."""

    def __init__(self, who: str, why: str, without: str, again: bool = True) -> None:
        message = f"{who}: not (wholly) on this machine, and the Hub cannot be reached ({why}); {without}"
        super().__init__(message, again)
        self.who, self.why, self.without = who, why, without


class Attempts:
    """The attempts at one transfer: any number while it moves on, a few while it does not."""

    def __init__(self, position: int = 0, connected: bool = False) -> None:
        self.patience = PATIENCE
        self.connected = connected  # the Hub has just answered another question: there is a network
        self.best = position  # bytes
        self.moved = time.monotonic()  # when it last moved on
        self.failed = 0  # attempts since then
        self.waited = 0.0  # seconds, because the server asked for it

    def timeout(self) -> float:
        """Seconds that the next bytes may take."""
        return max(0.001, min(self.patience.answer, self.moved + self.patience.stall - time.monotonic()))

    def reached(self, position: int) -> bool:
        """Note how many bytes are there. Whether the transfer is still alive."""
        if position >= self.best + self.patience.pace:
            self.best, self.moved, self.failed = position, time.monotonic(), 0
        return time.monotonic() - self.moved < self.patience.stall

    def wait(self, error: TransientError) -> None:
        """Pause before the next attempt, or raise the error if there is none."""
        if not error.again or self.failed == len(self.patience.pauses):
            raise error
        pause = self.patience.pauses[self.failed]
        if error.asked is not None:  # no stall: the server is alive
            pause = error.asked
            self.waited += pause
            self.moved += pause
            if self.waited > self.patience.asked:
                raise error
            if pause >= 1:
                log.warning("the Hub asks to wait %.0f s; waiting", pause)
        if time.monotonic() + pause - self.moved > self.patience.stall:
            raise error
        self.failed += 1
        time.sleep(pause)


# Asking ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def answer(repository: Repository, url: str, attempts: Attempts, begin: int = 0) -> Iterator[httpx2.Response]:
    """An answer of the Hub with what was asked for, from byte ``begin`` on if it can; its body is still to be read.

    All that can happen in the network is a UserError, also while the body is read.
    """
    import httpx2

    who, client, headers = repository.repo_id, *_client(repository)
    headers |= {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begin}-"} if begin else {})
    expected = (200, 206, 416) if begin else (200,)  # 416: there is no such byte
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
        raise UserError(f"{who}: the way to the Hub leads nowhere ({_plain(error)}); {between()}") from error
    except httpx2.HTTPError as error:
        raise TransientError(f"{who}: the connection breaks ({_plain(error)}); {between()}; {AGAIN}") from error


def _client(repository: Repository) -> tuple[httpx2.Client, dict[str, str]]:
    """huggingface_hub's client, and the headers that say who asks."""
    import httpx2
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import get_session

    who = repository.repo_id
    if constants.is_offline_mode():
        raise Unreachable(who, "HF_HUB_OFFLINE is set", repository.without, again=False)
    token = "" if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token() or ""
    if not (token.isascii() and token.isprintable()):
        raise UserError(f"{who}: HF_TOKEN has characters that no token has; set it again, or run `hf auth login`")
    try:
        return get_session(), {"User-Agent": "minilm"} | ({"Authorization": f"Bearer {token}"} if token else {})
    except (OSError, ValueError, ImportError, httpx2.InvalidURL) as error:
        variables = "HTTPS_PROXY, ALL_PROXY or SSL_CERT_FILE"
        raise UserError(f"{who}: the Hub cannot be asked ({_plain(error)}); correct or unset {variables}") from error


def pieces(
    repository: Repository, response: httpx2.Response, attempts: Attempts, position: int, end: int
) -> Iterator[bytes]:
    """The body, whose first byte has the given position, as it arrives. Raises UserError for bytes after ``end``."""
    for piece in response.iter_bytes():
        position += len(piece)
        if position > end:
            raise UserError(
                f"{repository.repo_id}: {response.url.host} sends more than the {end:,} bytes that are expected; "
                f"nothing of it is kept; {between()}"
            )
        yield piece
        if not attempts.reached(position):
            raise _stalled(repository, attempts)


# What went wrong --------------------------------------------------------------------------------------------


def _refusal(repository: Repository, response: httpx2.Response) -> UserError:
    """What the status of an answer means."""
    who, page, status = repository.repo_id, repository.page, response.status_code
    code = response.headers.get("X-Error-Code", "")
    log_in = "run `hf auth login` (or set HF_TOKEN)"
    request = (*response.history, response)[0].request  # before any redirect
    asks_for_list, anonymous = "/resolve/" not in request.url.path, "authorization" not in request.headers
    if code == "GatedRepo":
        return UserError(f"{who}: its owner asks you to accept terms; do so at {page}, then {log_in}")
    if code == "RevisionNotFound":
        return UserError(f'{who}: has no revision "{repository.revision}"; see {page}/commits/main')
    # To who is not logged in, the Hub answers 401 about what is missing: it may be private.
    if code == "RepoNotFound" or (asks_for_list and (status == 404 or (status == 401 and anonymous))):
        return UserError(
            repository.missing or f"{who}: no folder here, and the Hub shows no {repository.kind} of this name; check "
            f"it at {page}, and if it is private, {log_in}"
        )
    reason = _plain(response.headers.get("X-Error-Message") or response.reason_phrase)
    answered = f"the Hub answered {status} ({reason})"
    if status in (401, 403):
        return UserError(f"{who}: the Hub refuses access ({status}); see {page} what it asks, then {log_in}")
    if status == 404:
        return UserError(f"{who}: {answered} for a file that it lists; try again later, or another revision")
    if status == 407:
        return UserError(f"{who}: a proxy asks for a password (407); put it into HTTPS_PROXY (http://user:password@host)")
    if status in (408, 425, 429) or status >= 500:
        asked = _asked_to_wait(response)
        after = f"; it asks to wait {min(asked, 1e9):,.0f} s" if asked else ""
        limit = f"; with a token it answers more often: {log_in}" if status == 429 and anonymous else ""
        return TransientError(f"{who}: {answered}{after}{limit}; {AGAIN}", asked=asked)
    return UserError(f"{who}: {answered}; {between()}")


def _asked_to_wait(response: httpx2.Response) -> float | None:
    """Seconds: by Retry-After (RFC 9110, section 10.2.3), or by the Hub's own header; None: neither tells."""
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
        f"{repository.repo_id}: {response.url.host} answered with {what}, which is not the Hub's answer; {between()}",
        again=False,
    )


def _stalled(repository: Repository, attempts: Attempts) -> TransientError:
    seconds = f"{attempts.patience.stall:.0f} s"
    return TransientError(
        f"{repository.repo_id}: nothing, or next to nothing, has arrived for {seconds}; check the network, then {AGAIN}"
    )


def _unreachable(repository: Repository, error: httpx2.RequestError, again: bool) -> Unreachable:
    why = f"{error.request.url.host}: {_plain(error)}"
    if "CERTIFICATE_VERIFY_FAILED" in why:
        why += "; if a proxy inspects TLS here, set SSL_CERT_FILE to its certificate"
    return Unreachable(repository.repo_id, why, repository.without, again)


def between() -> str:
    """What may be between this machine and the Hub."""
    from huggingface_hub import constants

    if constants.ENDPOINT != "https://huggingface.co":
        return f'HF_ENDPOINT is "{constants.ENDPOINT}": is that a whole mirror of the Hub?'
    return "is there a proxy, or a network that wants you to log in? open https://huggingface.co in a browser"


def _plain(text: object) -> str:
    """One line that can be printed, and is not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    line = line or (type(text).__name__ if isinstance(text, Exception) else "no reason given")
    return line if len(line) <= 160 else f"{line[:160]}..."
