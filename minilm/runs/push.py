"""``minilm push``: upload a run's model, or an exported folder, to the Hub, into a repository of its own."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from minilm.checkpoints.adapters import base_of
from minilm.checkpoints.opening import holds_model
from minilm.connection import between, plain
from minilm.errors import UserError
from minilm.evaluation.linear_classifier import holds_linear
from minilm.hub import REPO_ID, is_folder
from minilm.model_files import files_in, holds_adapter, published_files
from minilm.reporting.card_names import with_name
from minilm.reporting.model_card import CARD
from minilm.reporting.tables import join_words
from minilm.runs.export import export_run
from minilm.textfiles import read_text
from minilm.training.console import say

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

AGAIN = "run the same command again"
LISTED = 10  # the most names of files that are left out


def push_run(
    run: str, repo_id: str, *, public: bool = False, merged: bool = False, confirm: Callable[[str], bool] | None = None
) -> str:
    """Upload a model to the Hub, and return the address of its page. A new repository is private.

    Args:
        run: a folder that `minilm export` wrote; or what ``export_run`` takes, which is exported first. Only the
            files of the model and its card are uploaded, the card with ``repo_id`` in its examples.
        repo_id: "owner/name". The repository is made if it does not exist; files of the same names are replaced.
        public: make a new repository public, or upload to a public one.
        merged: as in ``export_run``.
        confirm: asked before anything becomes public; nothing is uploaded unless it returns True. None: do not ask.

    Raises:
        UserError: there is no token or no network, the Hub refuses, the repository is public and ``public`` is false,
            others could not use the model, as its base model is not on the Hub, or the connection fails.
    """
    if not REPO_ID.fullmatch(repo_id) or "/" not in repo_id:
        raise UserError(f'"{repo_id}" is not a name on the Hub; give OWNER/NAME, such as {Path(run).name}/news')
    with _hub_errors(repo_id):
        api = _logged_in(repo_id)
        _check_visibility(api, repo_id, public)
    if public and confirm is not None and not confirm(f"{repo_id} will be public: everyone can read it"):
        raise UserError(f"{repo_id}: nothing was uploaded; leave --public out, or confirm (--yes)")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(run)
        if not _is_exported(folder) or (merged and holds_adapter(folder)):
            folder = export_run(run, Path(place) / "model", merged=merged, name=repo_id)
        _check_base(folder)
        card = with_name(read_text(folder / CARD), repo_id, linear=holds_linear(folder)).encode()
        names = published_files(folder)
        size = (len(card) + sum((folder / name).stat().st_size for name in names)) / 1e6
        say(f"{repo_id}: uploading {len(names) + 1} files, {size:,.1f} MB")
        if others := sorted({name.partition("/")[0] for name in files_in(folder) if name not in (CARD, *names)}):
            listed = [*others[:LISTED], *([f"{len(others) - LISTED:,} more"] if len(others) > LISTED else [])]
            say(f"{repo_id}: not uploaded, as the model does not need it: {join_words(listed)}")
        with _hub_errors(repo_id):
            api.create_repo(repo_id, private=not public, exist_ok=True)
            # The card is first, so that metadata which the Hub refuses are an error before large files are uploaded.
            api.upload_file(
                path_or_fileobj=card, path_in_repo=CARD, repo_id=repo_id, commit_message="Upload a model card of minilm"
            )
            _upload(api, repo_id, folder, names)
    return f"{api.endpoint}/{repo_id}"


def _is_exported(folder: Path) -> bool:
    """Whether a folder holds a model with its card."""
    return (folder / CARD).is_file() and (holds_model(folder) or holds_linear(folder))


def _check_base(folder: Path) -> None:
    """Raise UserError for an adapter whose base model others do not have: a folder, also one that was removed."""
    if not holds_adapter(folder):
        return
    base = base_of(folder)
    if is_folder(base) or not REPO_ID.fullmatch(base):
        raise UserError(
            f"{folder}: is an adapter, and others do not have its base model, {base}; upload them as one model: --merge"
        )


def _upload(api: HfApi, repo_id: str, folder: Path, names: list[str]) -> None:
    """Upload files of a folder. Raises UserError if the transfer of a large file fails, for which the client has no
    error of its own; the Hub's refusals stay as they are."""
    from huggingface_hub.errors import HfHubHTTPError

    message = "Upload a model of minilm"
    try:
        api.upload_folder(repo_id=repo_id, folder_path=folder, allow_patterns=names, commit_message=message)
    except HfHubHTTPError:
        raise
    except (RuntimeError, OSError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, HfHubHTTPError):
            raise cause from error
        why = f"the upload failed ({plain(cause)})"
        raise UserError(f"{repo_id}: {why}; {AGAIN}, as what is uploaded is kept") from error


def _logged_in(repo_id: str) -> HfApi:
    """The client. Raises UserError if there is no token, or if HF_HUB_OFFLINE is set."""
    from huggingface_hub import HfApi, constants, get_token

    if constants.is_offline_mode():
        raise UserError(f"{repo_id}: HF_HUB_OFFLINE is set; unset it to upload")
    if not get_token():
        raise UserError(
            f"{repo_id}: you are not logged in to the Hub; run `hf auth login`, or set HF_TOKEN to one that may write"
        )
    return HfApi(endpoint=constants.ENDPOINT, library_name="minilm")


def _check_visibility(api: HfApi, repo_id: str, public: bool) -> None:
    """Raise UserError if the repository exists and is not as private as it should be, or the other way round."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        is_private = api.repo_info(repo_id).private
    except RepositoryNotFoundError:
        return
    page = f"{api.endpoint}/{repo_id}"
    if not is_private and not public:
        raise UserError(f"{repo_id}: is a public repository; add --public to upload to it, or choose another name")
    if is_private and public:
        how = f"leave --public out, or make it public at {page}/settings"
        raise UserError(f"{repo_id}: is a private repository; {how}")


@contextlib.contextmanager
def _hub_errors(repo_id: str) -> Iterator[None]:
    """Raise errors of the network and the Hub's refusals as UserErrors of one line."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        raise _refusal(repo_id, error) from error
    except ValueError as error:
        if not str(error).startswith("Invalid metadata"):
            raise
        raise UserError(f"{repo_id}: the Hub refuses the metadata above the text of {CARD}: {plain(error)}") from error
    except httpx2.HTTPError as error:
        why = f"the Hub cannot be reached ({plain(error)})"
        raise UserError(f"{repo_id}: {why}; check the network, then {AGAIN}; {between()}") from error


def _refusal(repo_id: str, error: HfHubHTTPError) -> UserError:
    """The error for the status of a response."""
    status, owner = error.response.status_code, repo_id.partition("/")[0]
    reason = plain(error.server_message or error.response.reason_phrase)
    if status == 401:
        return UserError(f"{repo_id}: the Hub does not accept your token (401); run `hf auth login` for a new one")
    if status in (402, 403):
        return UserError(
            f'{repo_id}: your token may not write to "{owner}" ({status}: {reason}); use a token that may write, or '
            "your own name, which `hf auth whoami` shows"
        )
    if status == 404:
        return UserError(f'{repo_id}: the Hub has no user or organization "{owner}", or it is not yours (404)')
    if status in (408, 425, 429) or status >= 500:
        return UserError(f"{repo_id}: the Hub answered {status} ({reason}); {AGAIN} later, as what is uploaded is kept")
    return UserError(f"{repo_id}: the Hub answered {status} ({reason}); {between()}")
