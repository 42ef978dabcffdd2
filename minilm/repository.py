"""A repository on the Hub (huggingface.co): its files, and their places in the Hub's cache.

    $HF_HOME/hub/models--owner--name/refs/main                    the last known commit of "main"
                                     snapshots/<commit>/<file>    a link to the file's content
                                     blobs/<hash>                 the content, shared by all commits
                                     blobs/<hash>.incomplete      during a download

This is the layout of ``huggingface_hub``, which other libraries use too. The hash of a large file (Git LFS) is its
SHA-256. The hash of a small file is that of Git, the SHA-1 of "blob", its size and its bytes:

    sha1(b"blob " + str(len(content)).encode() + b"\\0" + content)

Nothing here uses the network; ``transfer.py`` does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from minilm import atomic

log = logging.getLogger("minilm")

UNFINISHED = ".incomplete"
OLD = 3600  # seconds: an incomplete file that was not written to for so long is abandoned


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub, at one revision."""

    repo_id: str  # owner/name; for some old models only the name
    revision: str = ""  # a branch, tag, commit or pull request ("refs/pr/1"); "": main
    kind: Literal["model", "dataset"] = "model"
    without: str = ""  # what to do if the Hub cannot be reached
    missing: str = ""  # the error message if the Hub has no such repository; "": a general one

    @property
    def page(self) -> str:
        """The URL of its web page."""
        return f"https://huggingface.co/{self._prefix}{self.repo_id}"

    def api(self, endpoint: str) -> str:
        """The URL of its list of files."""
        return f"{endpoint}/api/{self.kind}s/{self.repo_id}"

    def file(self, endpoint: str, commit: str) -> str:
        """The URL of its files, without the file's name."""
        return f"{endpoint}/{self._prefix}{self.repo_id}/resolve/{commit}/"

    @property
    def _prefix(self) -> str:
        return "datasets/" if self.kind == "dataset" else ""

    @property
    def storage(self) -> Path:
        """Its folder in the Hub's cache."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE).expanduser() / self._storage_name

    @property
    def _storage_name(self) -> str:
        return f"{self.kind}s--{self.repo_id.replace('/', '--')}"

    def lock(self, name: str) -> Path:
        """The lock file for one content, which ``huggingface_hub`` uses too."""
        return self.storage.parent / ".locks" / self._storage_name / f"{name}.lock"

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit's files."""
        return self.storage / "snapshots" / commit

    def blob(self, remote: Remote) -> Path:
        """The path of a file's content."""
        return self.storage / "blobs" / remote.hash

    @property
    def cached(self) -> Path | None:
        """The snapshot of its revision, which may be incomplete; None if there is none."""
        ref = self.storage / "refs" / (self.revision or "main")
        commit = ref.read_text(errors="replace").strip() if ref.is_file() else self.revision
        folder = self.snapshot(commit)
        return folder if re.fullmatch(r"[0-9a-f]{40}", commit) and folder.is_dir() else None

    def keep_ref(self, commit: str) -> None:
        """Record the commit of the revision."""
        ref = self.storage / "refs" / (self.revision or "main")
        if self.revision != commit and not (ref.is_file() and ref.read_text(errors="replace") == commit):
            ref.parent.mkdir(parents=True, exist_ok=True)
            beside = atomic.unfinished(ref)  # each process writes its own: another machine may have another disk
            beside.write_text(commit)
            atomic.move(beside, ref)


@dataclass(frozen=True)
class Remote:
    """A file, as the Hub lists it."""

    size: int = -1  # bytes; -1: not in the listing
    sha256: str = ""  # for a large file
    git_sha1: str = ""  # for a small file

    @property
    def hash(self) -> str:
        """The name of its content in the cache; "" if the listing has no hash."""
        return self.sha256 or self.git_sha1

    def matches(self, path: Path) -> bool:
        """Whether a file's content is the published one."""
        digest = hashlib.sha256() if self.sha256 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: digest).hexdigest() == self.hash


@dataclass(frozen=True)
class Listing:
    """The files of a repository at one commit."""

    commit: str
    files: dict[str, Remote]


def parse_listing(body: bytes) -> Listing:
    """Parse the Hub's response about a repository. Raises ValueError with a description if it is invalid."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("something that is not JSON") from None
    fields = answer if isinstance(answer, dict) else {}
    commit, entries = fields.get("sha"), fields.get("siblings")
    if not _is_hex(commit, 40) or not isinstance(entries, list):
        raise ValueError("JSON that is not a commit and its files")
    files = {}
    for entry in entries:
        name = entry.get("rfilename") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise ValueError("a list in which a file has no name")
        if not stays_inside(name):
            raise ValueError(f"a list with the file {name!r}, which is outside its folder")
        files[name] = _remote(entry)
    return Listing(str(commit), files)


def _remote(entry: dict[str, Any]) -> Remote:
    lfs = entry.get("lfs")
    size, git_sha1 = entry.get("size"), entry.get("blobId")
    sha256 = lfs.get("sha256") if isinstance(lfs, dict) else ""
    return Remote(
        size if type(size) is int and size >= 0 else -1,
        str(sha256) if _is_hex(sha256, 64) else "",
        str(git_sha1) if _is_hex(git_sha1, 40) and not lfs else "",
    )


def _is_hex(value: object, digits: int) -> bool:
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{digits}}}", value) is not None


def stays_inside(name: str) -> bool:
    """Whether a file's name refers to a place inside the repository's folder, on every system."""
    parts = name.split("/")
    anchored = any(path.drive or path.root for path in (PurePosixPath(name), *map(PureWindowsPath, parts)))
    return bool(name) and "\0" not in name and not anchored and ".." not in name.replace("\\", "/").split("/")


# On the disk ------------------------------------------------------------------------------------------------


def unfinished(path: Path) -> Path:
    """The path of a file during its download."""
    return path.with_name(path.name + UNFINISHED)


@contextlib.contextmanager
def taking_turns(lock: Path, what: str) -> Iterator[None]:
    """Wait until no other process downloads the same file. The lock is released when its process ends."""
    from huggingface_hub.utils import WeakFileLock

    lock.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(lock, timeout=1))
        except TimeoutError:
            log.warning("another process is downloading %s; waiting for it", what)
            stack.enter_context(WeakFileLock(lock))
        yield


def link(content: Path, path: Path) -> None:
    """Make ``path`` in a snapshot a link to its content; if the file system has no links, move the content there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a broken link
    try:
        path.symlink_to(os.path.relpath(content, path.parent))
    except OSError:
        content.replace(path)


def remove_remains(blobs: Path, listing: Listing) -> None:
    """Remove incomplete files of earlier downloads, except parts of listed files, which can be continued."""
    current = {remote.hash + UNFINISHED for remote in listing.files.values()}
    for path in blobs.glob(f"*{UNFINISHED}"):
        with contextlib.suppress(FileNotFoundError):
            if path.name not in current and time.time() - path.stat().st_mtime > OLD:
                path.unlink()
