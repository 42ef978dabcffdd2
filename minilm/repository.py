"""One repository of the Hub (huggingface.co): what it holds, and where its files lie in the Hub's cache.

    $HF_HOME/hub/models--owner--name/refs/main                    the commit that "main" last meant
                                     snapshots/<commit>/<file>    a link to the file's content
                                     blobs/<hash>                 the content, once for all commits that have it
                                     blobs/<hash>.incomplete      while it is fetched

This is the layout of ``huggingface_hub``, which other libraries share. The hash of a large file (Git LFS) is its
SHA-256. A small file's is Git's own, the SHA-1 of "blob", its size and its bytes:

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

log = logging.getLogger("minilm")

UNFINISHED = ".incomplete"
OLD = 3600  # seconds: an unfinished file that nobody has written to for so long is nobody's


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub, at one revision."""

    repo_id: str  # owner/name; of some old models the name alone
    revision: str = ""  # a branch, tag, commit or pull request ("refs/pr/1"); "": main
    kind: Literal["model", "dataset"] = "model"
    without: str = ""  # what to do if the Hub cannot be reached
    missing: str = ""  # the error if the Hub has none of this name; "": a general one

    @property
    def page(self) -> str:
        """Where a person reads about it."""
        return f"https://huggingface.co/{self._prefix}{self.repo_id}"

    def api(self, endpoint: str) -> str:
        """The address of its listing."""
        return f"{endpoint}/api/{self.kind}s/{self.repo_id}"

    def file(self, endpoint: str, commit: str) -> str:
        """The address that each file's name follows."""
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
        """The file by which processes take turns at one content; ``huggingface_hub`` uses the same."""
        return self.storage.parent / ".locks" / self._storage_name / f"{name}.lock"

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit's files."""
        return self.storage / "snapshots" / commit

    def blob(self, remote: Remote) -> Path:
        """The place of a file's content."""
        return self.storage / "blobs" / remote.hash

    @property
    def cached(self) -> Path | None:
        """The snapshot of its revision, which may lack files; None: there is none."""
        ref = self.storage / "refs" / (self.revision or "main")
        commit = ref.read_text(errors="replace").strip() if ref.is_file() else self.revision
        folder = self.snapshot(commit)
        return folder if re.fullmatch(r"[0-9a-f]{40}", commit) and folder.is_dir() else None

    def keep_ref(self, commit: str) -> None:
        """Record the commit that the revision means."""
        ref = self.storage / "refs" / (self.revision or "main")
        if self.revision != commit and not (ref.is_file() and ref.read_text(errors="replace") == commit):
            ref.parent.mkdir(parents=True, exist_ok=True)
            beside = ref.with_name(f".{ref.name}.{os.getpid()}.tmp")
            beside.write_text(commit)
            beside.replace(ref)


@dataclass(frozen=True)
class Remote:
    """A file, as the Hub lists it."""

    size: int = -1  # bytes; -1: the listing does not tell
    sha256: str = ""  # of a large file
    git_sha1: str = ""  # of a small one

    @property
    def hash(self) -> str:
        """The name of its content in the cache; "": the listing gives no hash."""
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
    """The Hub's answer about a repository. Raises ValueError, with what is wrong, if it is no such answer."""
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
            raise ValueError(f"a list with the file {name!r}, which leads out of its folder")
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
    """Whether a file's name in a repository leads to a place inside the repository's folder, on any system."""
    parts = name.split("/")
    anchored = any(path.drive or path.root for path in (PurePosixPath(name), *map(PureWindowsPath, parts)))
    return bool(name) and "\0" not in name and not anchored and ".." not in name.replace("\\", "/").split("/")


# On the disk ------------------------------------------------------------------------------------------------


def unfinished(path: Path) -> Path:
    """Where a file is while it is fetched."""
    return path.with_name(path.name + UNFINISHED)


@contextlib.contextmanager
def taking_turns(lock: Path, what: str) -> Iterator[None]:
    """Wait until no other process downloads the same. The lock ends with its process, however that ends."""
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
    """Let ``path`` in a snapshot lead to its content; if the file system has no links, move the content there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a link that leads nowhere
    try:
        path.symlink_to(os.path.relpath(content, path.parent))
    except OSError:
        content.replace(path)


def remove_remains(blobs: Path, listing: Listing) -> None:
    """Remove what earlier downloads left unfinished, except what can be continued: a part of a listed file."""
    current = {remote.hash + UNFINISHED for remote in listing.files.values()}
    for path in blobs.glob(f"*{UNFINISHED}"):
        with contextlib.suppress(FileNotFoundError):
            if path.name not in current and time.time() - path.stat().st_mtime > OLD:
                path.unlink()
