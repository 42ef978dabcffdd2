"""A small server on 127.0.0.1 that plays the Hub: enough of its protocol for downloads, and its bad days.

GET      /api/models/{repo_id}/revision/{revision}     the commit, and every file with its size and hash
GET      /{repo_id}/resolve/{revision}/{file}          the content, or the part that a Range header asks for;
                                                       or a redirect to
GET      /cdn/{repo_id}/{file}                         the same content
(data sets: /api/datasets/..., /datasets/...)

And for uploads, which need a token; that of ``READER`` may only read:

POST     /api/repos/create                             a new repository; 409 if there is one of this name
POST     /api/validate-yaml                            the metadata of a README.md
POST     /api/models/{repo_id}/preupload/{revision}    which files are large
POST     /{repo_id}.git/info/lfs/objects/batch         where the content of large files belongs:
PUT      /lfs/{sha256}
POST     /api/models/{repo_id}/commit/{revision}       the small files' content, and the large ones' hashes
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import socket
import struct
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

MODEL = {  # the contents are a model's in nothing but their names
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "pytorch_model.bin": b"a pickle",
    "tf_model.h5": b"another",
    "vocab.txt": b"a\nb",
    "README.md": b"# model",
    "onnx/model.onnx": b"onnx",
}


READER = "hf_reader"  # a token that may not write
NEEDED = {name: MODEL[name] for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")}


def files(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by their names below it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Fault:
    """What is wrong with an answer; the rest of it is as it should be."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    damaged: bool = False  # one bit of the body is flipped
    gzipped: bool = False
    stop: int | None = None  # after so many bytes of the body ...
    then: Literal["", "close", "reset", "stall", "trickle", "endless"] = ""  # ... this happens
    silent: bool = False  # it happens before a byte of the answer
    raw: bytes = b""  # this is sent, which is no HTTP


FAULTS = {
    "cut": Fault(then="close"),  # half of the body
    "reset": Fault(then="reset"),
    "damaged": Fault(damaged=True),
}


@dataclass
class Repo:
    """A repository: its files at every revision it has."""

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False  # listed to everybody, its files refused
    private: bool = False

    @property
    def commit(self) -> str:
        sums = sorted((name, hashlib.sha1(content).hexdigest()) for name, content in self.files.items())
        return hashlib.sha1(repr(sums).encode()).hexdigest()

    def listing(self) -> list[dict[str, Any]]:
        """As the API gives it. Git's hash of a small file: that of "blob", its size and its bytes."""
        entries: list[dict[str, Any]] = []
        for name, content in self.files.items():
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git}
            if _large(name):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        return entries


@dataclass
class Hub:
    """The server's state. ``faults`` holds, for a file (or "api"), what happens to its next requests, one by one."""

    repos: dict[str, Repo] = field(default_factory=dict)  # "owner/name", or "datasets/owner/name"
    renamed: dict[str, str] = field(default_factory=dict)  # an old name -> the repository's
    faults: dict[str, list[int | str | Fault]] = field(default_factory=lambda: defaultdict(list))
    cdn: bool = False  # files are elsewhere, and asking for one is answered with a redirect
    ranges: bool = True  # whether a part of a file can be asked for
    log: list[str] = field(default_factory=list)  # "GET config.json", "GET model.safetensors bytes=100-"
    tokens: dict[str, str] = field(default_factory=dict)  # path -> the token that it was last asked for with
    sent: int = 0  # bytes of bodies
    port: int = 0
    large: dict[str, bytes] = field(default_factory=dict)  # SHA-256 -> content that was put

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fetched(self, name: str = "") -> list[str]:
        """The files whose content was asked for; or the requests for one of them."""
        asked = [line.split(" ", 1)[1] for line in self.log if line.startswith("GET ") and "api/" not in line]
        return [line for line in asked if line.startswith(name)] if name else sorted(asked)

    def reset(self, repos: dict[str, Repo]) -> None:
        self.repos, self.renamed, self.cdn, self.ranges, self.sent = repos, {}, False, True, 0
        for kept in (self.faults, self.log, self.tokens, self.large):
            kept.clear()

    def start(self) -> ThreadingHTTPServer:
        server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that hangs up is part of the play
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two packets; the second would wait for the first
    hub: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)[1:]
        self.hub.tokens[path] = self.headers.get("Authorization", "")
        for old, new in self.hub.renamed.items():
            if f"{path}/".removeprefix("api/models/").startswith(f"{old}/"):
                return self._answer(307, {"Location": self.path.replace(old, new, 1)})
        if match := re.fullmatch(r"(api/)(?:models/)?(.+?)(?:/revision/(.+))?", path):
            return self._api(match[2], match[3] or "main")
        if match := re.fullmatch(r"((?:datasets/)?[^/]+(?:/[^/]+)?)/resolve/([^/]+|refs/pr/\d+)/(.+)", path):
            return self._file(match[1], match[2], match[3])
        if match := re.fullmatch(r"cdn/([^/]+/[^/]+)/(.+)", path):
            return self._content(match[2], self.hub.repos[match[1]].files[match[2]])
        return self._answer(404)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.log.append(f"PUT {self.path}")
        self.hub.large[self.path.removeprefix("/lfs/")] = content
        return self._answer(200)

    def do_POST(self) -> None:
        body, path = self.rfile.read(int(self.headers["Content-Length"])), unquote(urlsplit(self.path).path)[1:]
        self.hub.log.append(f"POST {path}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            return self._answer(401)
        if token == READER:
            return self._answer(403, {"X-Error-Message": "this token may only read"})
        if path == "api/validate-yaml":
            good = json.loads(body)["content"].startswith("---\n")
            errors = [] if good else [{"message": "no metadata"}]
            return self._json({"errors": errors, "warnings": []}, 200 if good else 400)
        if path == "api/repos/create":
            return self._create(json.loads(body))
        match = re.fullmatch(r"(?:api/models/)?([^/]+/[^/]+?)(?:\.git/info/lfs/objects/(batch)|/(\w+)/main)", path)
        repo = self.hub.repos.get(match[1]) if match else None
        if match is None or repo is None:
            return self._answer(404, {"X-Error-Code": "RepoNotFound"})
        if match[3] == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = ({"path": n, "uploadMode": "lfs" if _large(n) else "regular", "shouldIgnore": False} for n in names)
            return self._json({"files": list(modes)})
        if match[2] == "batch":
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        return self._commit(repo, match[1], [json.loads(line) for line in body.splitlines()])

    def _create(self, wanted: dict[str, Any]) -> None:
        repo_id = f"{wanted['organization']}/{wanted['name']}"
        if repo_id in self.hub.repos:
            return self._json({"url": f"{self.hub.url}/{repo_id}"}, 409)
        self.hub.repos[repo_id] = Repo({}, private=wanted.get("visibility") == "private")
        return self._json({"url": f"{self.hub.url}/{repo_id}"})

    def _commit(self, repo: Repo, repo_id: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repo.files[value["path"]] = self.hub.large[value["oid"]]
        return self._json({"commitUrl": f"{self.hub.url}/{repo_id}/commit/{repo.commit}", "commitOid": repo.commit})

    def _json(self, value: Any, status: int = 200) -> None:
        return self._answer(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _repo(self, repo_id: str, revision: str) -> Repo | None:
        """The repository; answers as the Hub does, and returns None, where it is not there."""
        repo = self.hub.repos.get(repo_id)
        if repo is None:  # to someone who is not logged in, the Hub says 401: it may be private
            self._answer(401, {"X-Error-Code": "RepoNotFound"})
        elif revision not in (*repo.revisions, repo.commit):
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repo

    def _api(self, repo_id: str, revision: str) -> None:
        self.hub.log.append(f"GET api/{repo_id}")
        repo = self._repo(repo_id, revision)
        if repo is None:
            return None
        body = {"id": repo_id.removeprefix("datasets/"), "sha": repo.commit, "siblings": repo.listing()}
        body["private"] = repo.private
        return self._answer(200, {"Content-Type": "application/json"}, json.dumps(body).encode(), self._fault("api"))

    def _file(self, repo_id: str, revision: str, name: str) -> None:
        repo = self._repo(repo_id, revision)
        if repo is None:
            return None
        if repo.gated:
            return self._answer(403 if "Authorization" in self.headers else 401, {"X-Error-Code": "GatedRepo"})
        if name not in repo.files:
            return self._answer(404, {"X-Error-Code": "EntryNotFound"})
        if self.hub.cdn:
            return self._answer(302, {"Location": f"http://localhost:{self.hub.port}/cdn/{repo_id}/{name}"})
        return self._content(name, repo.files[name])

    def _content(self, name: str, content: bytes) -> None:
        wanted = self.headers.get("Range", "")
        self.hub.log.append(f"GET {name} {wanted}".strip())
        status, headers = 200, {"Content-Type": "application/octet-stream"}
        if wanted and self.hub.ranges:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
            status, headers["Content-Range"] = 206, f"bytes {first}-{len(content) - 1}/{len(content)}"
            content = content[first:]
            if not content:
                status = 416
        return self._answer(status, headers, content, self._fault(name))

    def _fault(self, name: str) -> Fault:
        faults = self.hub.faults[name]
        fault = faults.pop(0) if faults else Fault()
        if isinstance(fault, int):
            return Fault(status=fault, body=b"")
        return FAULTS[fault] if isinstance(fault, str) else fault

    def _answer(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", fault: Fault | None = None
    ) -> None:
        fault = fault or Fault()
        body = body if fault.body is None else fault.body
        if fault.damaged:
            body = body[:-1] + bytes([body[-1] ^ 1])
        if fault.gzipped:
            body = gzip.compress(body)
            fault = replace(fault, headers={**fault.headers, "Content-Encoding": "gzip"})
        if fault.raw:
            self.wfile.write(fault.raw)
        elif not fault.silent:
            self.send_response(fault.status or status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {}), **fault.headers}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            end = len(body) // 2 if fault.then and fault.stop is None else fault.stop
            self.wfile.write(body[:end])
            self.hub.sent += len(body[:end])
        if fault.then or fault.raw:
            self.close_connection = True
            self._misbehave(fault.then, body[len(body) // 2 :])

    def _misbehave(self, how: str, rest: bytes) -> None:
        self.wfile.flush()
        if how == "reset":  # a linger time of zero: the peer is sent a reset instead of an end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif how == "stall":
            self.connection.settimeout(60)
            self.connection.recv(1)  # until the peer hangs up
        elif how == "trickle":
            for byte in rest:
                time.sleep(0.02)
                self.wfile.write(bytes([byte]))
        elif how == "endless":
            while True:
                self.wfile.write(b"x" * (1 << 16))
                self.hub.sent += 1 << 16

    def log_message(self, format: str, *args: object) -> None:
        pass


def _large(name: str) -> bool:
    """Whether the Hub keeps a file as a large one, with a SHA-256."""
    return name.endswith((".safetensors", ".bin", ".parquet", ".onnx"))
