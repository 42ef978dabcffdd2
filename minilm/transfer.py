"""Download a repository's files from the Hub: list, download, continue and check them.

    GET {endpoint}/api/models/{repo_id}/revision/{revision}?blobs=true    the commit; each file's size and hash
    GET {endpoint}/{repo_id}/resolve/{commit}/{file}                      its bytes; with the header
                                                                          "Range: bytes=n-" from byte n

A file is written under another name (``.incomplete``). After an interruption the download continues at its last byte.
The complete file is compared with the hash in the listing, flushed, and only then renamed.

The download functions of ``huggingface_hub`` are not used, because they start at byte 0 and delete the downloaded part
if the connection is reset. This also applies to Xet, its second protocol, which downloads parts of a file in parallel.
One connection per file is slower on very fast lines. In exchange, a download can be resumed at any byte, stops at the
listed size, and ends with an error if there is no progress.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

from minilm.connection import AGAIN, Attempts, TransientError, answer, between, not_the_hub, pieces
from minilm.errors import UserError
from minilm.repository import Listing, Remote, Repository, link, parse_listing, remove_remains, taking_turns, unfinished

if TYPE_CHECKING:
    import httpx2

LONGEST_LISTING = 1 << 26  # bytes
ELSEWHERE = "free some space, or use another folder (HF_HOME for the Hub's cache, MINILM_WEIGHTS for weights/)"


def list_files(repository: Repository) -> Listing:
    """The list of a repository's files at the commit of its revision. Raises UserError."""
    from huggingface_hub import constants

    revision = f"/revision/{quote(repository.revision, safe='')}" if repository.revision else ""
    url = f"{repository.api(constants.ENDPOINT)}{revision}?blobs=true"
    attempts = Attempts()
    while True:
        try:
            with answer(repository, url, attempts) as response:
                body = b"".join(pieces(repository, response, attempts, 0, LONGEST_LISTING))
            break
        except TransientError as error:
            attempts.wait(error)
    try:
        return parse_listing(body)
    except ValueError as error:
        raise not_the_hub(repository, response, str(error)) from None


@contextlib.contextmanager
def disk_errors(repository: Repository) -> Iterator[None]:
    """Raise disk errors as UserErrors of one line."""
    who = repository.repo_id
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise TransientError(f"{who}: no space left on the disk ({error.strerror}); {ELSEWHERE}") from error
        place = f"{error.filename}: {error.strerror}" if error.filename else f"{who}: {error}"
        raise UserError(f"{place}; correct this, or use another folder") from error


def download(repository: Repository, listing: Listing, names: Sequence[str], folder: Path | None = None) -> Path:
    """Download files to the Hub's cache, or to ``folder``. Files that already exist are not downloaded again.

    Returns the folder that contains them. Raises UserError if the disk has too little space, or if the content of a
    file differs from the published one.
    """
    from huggingface_hub.utils import tqdm

    place = folder or repository.snapshot(listing.commit)
    lacking = {
        name: listing.files[name]
        for name in names
        if not _is_there(place / name, listing.files[name], checked=folder is None)
    }
    _check_listed(repository, lacking)
    paths = {name: folder / name if folder else repository.blob(remote) for name, remote in lacking.items()}
    _check_room(repository, place, [(paths[name], remote.size) for name, remote in lacking.items()])
    total = sum(remote.size for remote in lacking.values())
    hidden = None if lacking else True  # None: hidden if the output is not a terminal
    with tqdm(desc=repository.repo_id, total=total, unit="B", unit_scale=True, disable=hidden) as bar:
        for name, path in paths.items():
            if folder:
                _fetch(repository, listing, name, path, bar.update)
                continue
            with taking_turns(repository.lock(path.name), f"{name} of {repository.repo_id}"):
                if path.is_file():  # from another commit, or just downloaded by another process
                    bar.update(lacking[name].size)
                else:
                    _fetch(repository, listing, name, path, bar.update)
                link(path, place / name)
    if folder is None:
        repository.keep_ref(listing.commit)
        remove_remains(repository.storage / "blobs", listing)
    return place


def _is_there(path: Path, remote: Remote, checked: bool) -> bool:
    """Whether a complete file exists. Files in the cache were checked before they got their name."""
    if not path.is_file():
        return False
    if checked or remote.matches(path):
        return True
    path.unlink()
    return False


def _check_listed(repository: Repository, remotes: Mapping[str, Remote]) -> None:
    for name, remote in remotes.items():
        if remote.size < 0 or not remote.hash:
            raise UserError(
                f"{repository.repo_id}: the listing gives no size and hash of {name}, so it cannot be checked; "
                f"{between()}"
            )


def _check_room(repository: Repository, place: Path, files: Sequence[tuple[Path, int]]) -> None:
    needed = sum(size - _size(unfinished(path)) for path, size in files if not path.is_file())
    disk = next(path for path in (place, *place.absolute().parents) if path.exists())
    free = shutil.disk_usage(disk).free
    if needed > free:
        raise UserError(
            f"{repository.repo_id}: needs {needed / 1e6:,.0f} MB, but the disk of {disk} has "
            f"{free / 1e6:,.0f} MB left; {ELSEWHERE}"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch(
    repository: Repository, listing: Listing, name: str, path: Path, advance: Callable[[int], object]
) -> None:
    """Download one file to ``path``, continuing an earlier download. Only one process at a time does this.

    ``advance`` is called with the change of the number of downloaded bytes. Raises UserError if the content differs
    from the published one; then the file is deleted.
    """
    remote, part = listing.files[name], unfinished(path)
    part.parent.mkdir(parents=True, exist_ok=True)
    begun = _size(part)
    try:
        with part.open("ab") as file:
            _fill(repository, listing, name, file, advance)
            file.flush()
            os.fsync(file.fileno())
    except (UserError, OSError) as error:
        refused = isinstance(error, UserError) and not isinstance(error, TransientError)
        if refused or not _size(part):
            part.unlink(missing_ok=True)
        raise
    if remote.matches(part):
        part.replace(path)
        return
    part.unlink()
    advance(-remote.size)
    if not begun:
        raise UserError(
            f"{repository.repo_id}: the downloaded {name} differs from the published one (wrong hash) and was deleted; "
            f"run the same command again; {between()}"
        )
    _fetch(repository, listing, name, path, advance)  # the part from an earlier download may be wrong


def _fill(
    repository: Repository, listing: Listing, name: str, file: IO[bytes], advance: Callable[[int], object]
) -> None:
    """Append the missing bytes to a file, in several attempts if necessary."""
    from huggingface_hub import constants

    url, size = repository.file(constants.ENDPOINT, listing.commit) + quote(name), listing.files[name].size
    advance(file.tell())
    if file.tell() > size:
        _empty(file, advance)
    attempts = Attempts(file.tell(), connected=True)
    while file.tell() < size:
        try:
            with answer(repository, url, attempts, file.tell()) as response:
                first = _first_byte(repository, response, file.tell(), size)
                if first != file.tell():
                    _empty(file, advance)
                if first < 0:
                    who = repository.repo_id
                    raise TransientError(f"{who}: the Hub sends another part than requested; {AGAIN}")
                for piece in pieces(repository, response, attempts, file.tell(), size):
                    file.write(piece)
                    advance(len(piece))
            if file.tell() < size:
                ends = f"{name} ends after {file.tell():,} of {size:,} bytes"
                raise TransientError(f"{repository.repo_id}: {ends}; {between()}; {AGAIN}")
        except TransientError as error:
            attempts.wait(error)


def _first_byte(repository: Repository, response: httpx2.Response, begin: int, size: int) -> int:
    """The first byte of a response: ``begin`` or 0; -1: another. Raises UserError if it is not a part of the file."""
    if "text/html" in response.headers.get("Content-Type", ""):
        raise not_the_hub(repository, response, "a web page")
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    first = 0
    if begin and response.status_code != 200:
        continued = response.headers.get("Content-Range", "").startswith(f"bytes {begin}-")
        if encoded or not continued or response.status_code != 206:
            return -1
        first = begin
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and not encoded and int(length) != size - first:
        raise not_the_hub(repository, response, f"{int(length):,} bytes (expected {size - first:,})")
    return first


def _empty(file: IO[bytes], advance: Callable[[int], object]) -> None:
    advance(-file.tell())
    file.seek(0)
    file.truncate()
