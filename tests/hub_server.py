"""A small server on 127.0.0.1 that plays the Hub: enough of its protocol for huggingface_hub, and its bad days.

GET      /api/models/{repo_id}/revision/{revision}     the commit, and every file with its size and SHA-256
GET      /api/models/{repo_id}/tree/{commit}           the same as a tree
HEAD     /{repo_id}/resolve/{revision}/{file}          size, checksum and commit, in the headers
GET      /{repo_id}/resolve/{revision}/{file}          the content, or the part that a Range header asks for
(data sets: /api/datasets/..., /datasets/...)
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repo:
    """A repository: its files at every revision it has."""

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False  # listed to everybody, its files refused

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass
class Hub:
    """The server's state. ``faults`` holds, for a file (or "api"), what happens to its next requests, one by one:

    a number         that HTTP status
    "cut"            half of the body, then the connection is closed
    "reset"          half of the body, then the connection is torn down
    "short"          a body of half the length that was announced before
    "damaged"        a body of the right length with one bit flipped
    """

    repos: dict[str, Repo] = field(default_factory=dict)  # "owner/name", or "datasets/owner/name"
    faults: dict[str, list[int | str]] = field(default_factory=lambda: defaultdict(list))
    log: list[str] = field(default_factory=list)  # "GET config.json", "GET model.safetensors bytes=100-"
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fetched(self, name: str = "") -> list[str]:
        """The files whose content was asked for; or the requests for one of them."""
        asked = [line.split(" ", 1)[1] for line in self.log if line.startswith("GET ") and "api/" not in line]
        return [line for line in asked if line.startswith(name)] if name else sorted(asked)

    def start(self) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        server.daemon_threads = True
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two packets; the second would wait for the first
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)[1:]
        if match := re.fullmatch(r"(api/)(?:models/)?(.+?)(?:/(revision|tree)/(.+))?", path):
            self._api(match[2], match[3] or "", match[4] or "main")
        elif match := re.fullmatch(r"((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+|refs/pr/\d+)/(.+)", path):
            self._file(match[1], match[2], match[3])
        else:
            self._answer(404)

    def _repo(self, repo_id: str, revision: str) -> Repo | None:
        """The repository; answers as the Hub does, and returns None, where it is not there."""
        repo = self.hub.repos.get(repo_id)
        if repo is None:  # to someone who is not logged in, the Hub says 401: it may be private
            self._answer(401, {"X-Error-Code": "RepoNotFound"})
        elif revision not in (*repo.revisions, repo.commit):
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repo

    def _api(self, repo_id: str, verb: str, revision: str) -> None:
        self.hub.log.append(f"GET api/{repo_id}")
        fault = self._fault("api")
        if fault:
            return self._answer(int(fault))
        repo = self._repo(repo_id, revision)
        if repo is None:
            return None
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in repo.files.items()}
        body: Any
        if verb == "tree":
            body = [
                {"type": "file", "path": name, "size": len(content), "oid": sums[name][:40]}
                for name, content in repo.files.items()
            ]
        else:
            files = [
                {"rfilename": name, "size": len(content), "blobId": sums[name][:40]}
                | ({"lfs": {"sha256": sums[name], "size": len(content), "pointerSize": 134}} if _large(name) else {})
                for name, content in repo.files.items()
            ]
            body = {"id": repo_id.removeprefix("datasets/"), "sha": repo.commit, "siblings": files}
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(body).encode())

    def _file(self, repo_id: str, revision: str, name: str) -> None:
        wanted = self.headers.get("Range", "")
        self.hub.log.append(f"{self.command} {name} {wanted}".strip())
        repo = self._repo(repo_id, revision)
        if repo is None:
            return None
        if repo.gated:
            return self._answer(403 if "Authorization" in self.headers else 401, {"X-Error-Code": "GatedRepo"})
        if name not in repo.files:
            return self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repo.commit})
        content = repo.files[name]
        sha256 = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{sha256 if _large(name) else sha256[:40]}"'}
        fault = self._fault(name) if self.command == "GET" else None
        if isinstance(fault, int):
            return self._answer(fault)
        if fault == "short":
            content = content[: len(content) // 2]
        if fault == "damaged":
            content = content[:-1] + bytes([content[-1] ^ 1])
        first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self._answer(
            206 if wanted else 200, headers, content[first:], broken=fault if fault in ("cut", "reset") else ""
        )

    def _fault(self, name: str) -> int | str | None:
        faults = self.hub.faults[name]
        return faults.pop(0) if faults else None

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", broken: str = "") -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if broken else body)
        if broken:
            self.wfile.flush()
            if broken == "reset":  # a linger time of zero: the peer is sent a reset instead of an end
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def _large(name: str) -> bool:
    """Whether the Hub keeps a file as a large one, with a SHA-256."""
    return name.endswith((".safetensors", ".bin", ".parquet"))
