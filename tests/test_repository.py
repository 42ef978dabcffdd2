from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.repository import Remote, Repository, link, parse_listing, stays_inside

COMMIT = "0" * 40
FIELDS = st.sampled_from(["sha", "siblings", "rfilename", "size", "blobId", "lfs", "sha256"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("content", "git"),  # what `git hash-object` gives
    [(b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"), (b"hello\n", "ce013625030ba8dba906f756967f9e9ca394464a")],
)
def test_a_small_file_is_checked_by_the_hash_of_git(tmp_path: Path, content: bytes, git: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert Remote(len(content), git_sha1=git).matches(file)
    file.write_bytes(content + b"x")
    assert not Remote(len(content), git_sha1=git).matches(file)
    assert not Remote(len(content)).matches(file)


def test_a_large_file_is_checked_by_its_sha256(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a" * 300_000)
    assert Remote(sha256=hashlib.sha256(b"a" * 300_000).hexdigest(), git_sha1="f" * 40).matches(file)
    file.write_bytes(b"a" * 299_999 + b"b")
    assert not Remote(sha256=hashlib.sha256(b"a" * 300_000).hexdigest()).matches(file)


def test_a_listing_is_read() -> None:
    files = [
        {"rfilename": "config.json", "size": 2, "blobId": "a" * 40},
        {"rfilename": "x/model.safetensors", "size": 9, "blobId": "b" * 40, "lfs": {"sha256": "c" * 64, "size": 9}},
        {"rfilename": "unknown"},
    ]
    listing = parse_listing(json.dumps({"sha": COMMIT, "siblings": files}).encode())
    assert listing.commit == COMMIT and listing.files == {
        "config.json": Remote(2, git_sha1="a" * 40),
        "x/model.safetensors": Remote(9, sha256="c" * 64),
        "unknown": Remote(),
    }


LISTING = st.fixed_dictionaries({"sha": st.just(COMMIT), "siblings": st.lists(JSON)})


@given(LISTING | JSON)
def test_any_json_is_a_listing_or_a_value_error(answer: object) -> None:
    try:
        listing = parse_listing(json.dumps(answer).encode())
    except ValueError:
        return
    assert all(isinstance(name, str) and isinstance(remote.size, int) for name, remote in listing.files.items())


@given(st.binary())
def test_any_bytes_are_a_listing_or_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|a list"):
        parse_listing(body)


@given(st.text() | st.lists(st.sampled_from(["..", ".", "a", "/", "\\", "C:", "\0", ""])).map("/".join))
def test_no_listed_name_leaves_its_folder(name: str) -> None:
    if stays_inside(name):
        assert Path("/folder").joinpath(name).resolve().is_relative_to("/folder")


def test_names_in_folders_stay_inside() -> None:
    assert all(map(stays_inside, ["a", "a/b.json", "a b/c", "1_Pooling/config.json", "..a", "a..b", ".gitattributes"]))
    assert not any(map(stays_inside, ["", "..", "a/../b", "/a", "C:a", "a\\..\\b", "\\\\host\\x", "a\0"]))


def test_a_file_system_without_links_holds_the_content_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", none)
    (tmp_path / "blob").write_bytes(b"content")
    link(tmp_path / "blob", tmp_path / "snapshots" / "file")
    assert (tmp_path / "snapshots" / "file").read_bytes() == b"content" and not (tmp_path / "blob").exists()


def test_a_link_that_leads_nowhere_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to("gone")
    (tmp_path / "blob").write_bytes(b"content")
    link(tmp_path / "blob", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_addresses_are_those_of_the_hub() -> None:
    model, data = Repository("a/b"), Repository("a/b", kind="dataset")
    assert (model.page, data.page) == ("https://huggingface.co/a/b", "https://huggingface.co/datasets/a/b")
    assert (model.api("E"), data.api("E")) == ("E/api/models/a/b", "E/api/datasets/a/b")
    assert (model.file("E", "C"), data.file("E", "C")) == ("E/a/b/resolve/C/", "E/datasets/a/b/resolve/C/")
