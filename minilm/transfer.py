"""Files of one repository on the Hub (huggingface.co): found in its cache, listed, downloaded.

The transfer itself is ``huggingface_hub``'s: it draws the progress bars, resumes a file whose connection is
cut, finds the token (HF_TOKEN, or `hf auth login`), obeys HF_ENDPOINT and HF_HUB_OFFLINE, and gives a file
its name only when it is whole. What is added here: patience with a server in trouble, a look at the room on
the disk, checksums, and plain words for what goes wrong.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from minilm.errors import UserError

log = logging.getLogger("minilm")
T = TypeVar("T")

PATIENCE = (1, 2, 4, 8)  # seconds before each further attempt
TIMEOUT = 30  # seconds for the Hub to answer
ELSEWHERE = "make room, or name a folder elsewhere (HF_HOME for the Hub's cache, MINILM_WEIGHTS for weights/)"


class Unreachable(UserError):
    """The Hub cannot be asked for what is not on this machine: no network, or HF_HUB_OFFLINE is set."""

    def __init__(self, who: str, why: str, without: str) -> None:
        super().__init__(f"{who}: not (wholly) on this machine, and the Hub cannot be reached ({why}); {without}")
        self.who, self.why, self.without = who, why, without


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub, at one revision."""

    repo_id: str  # owner/name
    revision: str = ""  # a branch, tag or commit; "": main
    kind: Literal["model", "dataset"] = "model"
    without: str = ""  # what to do where the Hub cannot be reached

    @property
    def page(self) -> str:
        """Where a person reads about it."""
        return f"https://huggingface.co/{'datasets/' if self.kind == 'dataset' else ''}{self.repo_id}"

    @property
    def cached(self) -> Path | None:
        """Its folder in the Hub's cache, which may lack files; None where there is none."""
        from huggingface_hub import constants

        storage = Path(constants.HF_HUB_CACHE) / f"{self.kind}s--{self.repo_id.replace('/', '--')}"
        ref = storage / "refs" / (self.revision or "main")
        commit = ref.read_text().strip() if ref.is_file() else self.revision
        folder = storage / "snapshots" / commit
        return folder if commit and folder.is_dir() else None


@dataclass(frozen=True)
class Remote:
    """What the Hub tells of a file."""

    size: int  # bytes
    sha256: str  # "": a small file, of which the Hub keeps none


def list_files(repository: Repository) -> dict[str, Remote]:
    """Every file of a repository, by name."""
    from huggingface_hub import HfApi

    api = HfApi()
    ask = api.dataset_info if repository.kind == "dataset" else api.model_info
    revision = repository.revision or None
    info = _patiently(lambda: ask(repository.repo_id, revision=revision, files_metadata=True, timeout=TIMEOUT))
    files = info.siblings or []
    return {file.rfilename: Remote(file.size or 0, file.lfs.sha256 if file.lfs else "") for file in files}


def download(
    repository: Repository, listing: Mapping[str, Remote], names: Sequence[str], folder: Path | None = None
) -> Path:
    """Download files into the Hub's cache, or into ``folder``. Those that are there already stay.

    Returns the folder that holds them. Raises UserError where the disk has too little room, or where a file's
    content is not what the Hub says it is.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import tqdm

    bars = cast(Any, partial(tqdm, disable=None))  # none where the output is piped
    there = folder or repository.cached or Path(constants.HF_HUB_CACHE)
    needed = sum(listing[name].size for name in names if not (there / name).is_file())
    disk = next(path for path in (there, *there.absolute().parents) if path.exists())
    free = shutil.disk_usage(disk).free
    if needed > free:
        raise UserError(
            f"{repository.repo_id}: needs {needed / 1e6:,.0f} MB, but the disk of {disk} has "
            f"{free / 1e6:,.0f} MB left; {ELSEWHERE}"
        )
    filled = _patiently(
        lambda: snapshot_download(
            repository.repo_id,
            repo_type=repository.kind,
            revision=repository.revision or None,
            allow_patterns=[glob.escape(name) for name in names],
            local_dir=folder,
            tqdm_class=bars,
        )
    )
    for name in names:
        check_sum(Path(filled) / name, listing[name].sha256, repository.repo_id)
    return Path(filled)


def check_sum(path: Path, sha256: str, origin: str) -> None:
    """Remove a file that is not what was published, and raise UserError. Without a ``sha256``, do nothing."""
    if not sha256:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        path.resolve().unlink()  # in the Hub's cache, the file is a link to its content
        path.unlink(missing_ok=True)
        raise UserError(
            f"{path.name} of {origin}: damaged on the way (its SHA-256 differs); removed, download it again"
        )


def _patiently(ask: Callable[[], T]) -> T:
    """Ask again, ever later, while the server is in trouble or connections are cut; not without a network."""
    import httpx2  # huggingface_hub's own client

    passing = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
    for seconds in PATIENCE:
        try:
            return ask()
        except (OSError, httpx2.HTTPError) as error:
            cause = _cause(error)
            cut = isinstance(cause, passing) and not isinstance(cause, httpx2.ConnectError)
            if not cut and _status(cause) not in (408, 429, 500, 502, 503, 504):
                raise
            log.warning("the Hub is in trouble (%s); trying again in %d s", _first_line(cause), seconds)
            time.sleep(seconds)
    return ask()


# What went wrong, in plain words ----------------------------------------------------------------------------


@contextlib.contextmanager
def plain_errors(repository: Repository) -> Iterator[None]:
    """Tell what goes wrong with a download as a UserError of one line."""
    import httpx2
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (OSError, RuntimeError, httpx2.HTTPError, HFValidationError) as error:
        raise _explain(_cause(error), repository) from error


def _explain(error: BaseException, repository: Repository) -> UserError:
    import httpx2
    from huggingface_hub import errors

    who, page, status = repository.repo_id, repository.page, _status(error)
    log_in = "run `hf auth login` (or set HF_TOKEN)"
    match error:
        case errors.GatedRepoError():
            return UserError(f"{who}: its owner asks you to accept terms; do so at {page}, then {log_in}")
        case errors.RepositoryNotFoundError():
            return UserError(
                f"{who}: no folder here, and the Hub shows no {repository.kind} of this name; check it at "
                f"{page}, and if it is private, {log_in}"
            )
        case errors.RevisionNotFoundError():
            return UserError(f'{who}: has no revision "{repository.revision}"; see {page}/commits/main')
        case errors.HFValidationError():
            return UserError(f'"{who}" is not a Hub id, which is like owner/name')
        case errors.OfflineModeIsEnabled():
            return _unreachable("HF_HUB_OFFLINE is set", repository)
        case httpx2.TransportError() | errors.LocalEntryNotFoundError():
            return _unreachable(_first_line(error), repository)
    if status in (401, 403):
        return UserError(f"{who}: the Hub refuses access ({status}); see {page} what it asks, then {log_in}")
    if status:
        return UserError(f"{who}: the Hub answered {status} ({_first_line(error)}); try again later")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(f"{who}: no space left on the disk ({error.strerror}); {ELSEWHERE}")
    if isinstance(error, OSError) and error.filename:
        return UserError(f"{error.filename}: {error.strerror}; mend that, or name a folder elsewhere")
    return UserError(f"{who}: the download failed ({_first_line(error)}); nothing bad is kept, run it again")


def _unreachable(why: str, repository: Repository) -> Unreachable:
    return Unreachable(repository.repo_id, why, repository.without)


def _cause(error: BaseException) -> BaseException:
    """What lies behind huggingface_hub's "nor in the cache", which is what it says of most troubles."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    return error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error


def _status(error: BaseException) -> int:
    """The HTTP status of an answer; 0 where there was none."""
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
