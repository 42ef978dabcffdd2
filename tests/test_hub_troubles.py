"""A Hub that fails in all ways that we could think of: each is one line, leaves nothing behind, and the next try works.

A row is one way, again and again: where it happens ("api" is the listing), what, and what the line must say: the
likely cause, then the way out.
"""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from minilm import connection
from minilm.connection import Patience, TransientError, Unreachable
from minilm.errors import UserError
from minilm.hub import download_model, resolve_model
from tests.hub_server import MODEL, NEEDED, Fault, Hub, Repo, files

HTML = {"Content-Type": "text/html; charset=utf-8"}
LOGIN = Fault(headers=HTML, body=b"<html><form>Please log in</form></html>")
ENDLESS = Fault(headers={"Content-Length": ""}, then="endless")
MIRROR = 'HF_ENDPOINT is "http://127.*mirror of the Hub'
AGAIN = "run the same command again; the part that was downloaded is kept"
LOG_IN = "`hf auth login`"
PAGE = "https://huggingface.co/some/model"


def listed(**changes: object) -> Fault:
    """A listing of the model with other fields."""
    repo = Repo(dict(MODEL))
    return Fault(body=json.dumps({"sha": repo.commit, "siblings": repo.listing()} | changes).encode())


def with_file(name: object) -> Fault:
    return listed(siblings=[*Repo(dict(MODEL)).listing(), {"rfilename": name, "size": 1, "blobId": "0" * 40}])


def with_fields(**fields: object) -> Fault:
    return listed(siblings=[entry | fields for entry in Repo(dict(MODEL)).listing()])


def sent_to(location: str) -> Fault:
    return Fault(status=302, headers={"Location": location}, body=b"")


WAYS: dict[str, tuple[str, Fault | int | str, str, str]] = {
    # The listing is something else.
    "login page": ("api", LOGIN, "127.0.0.1 answered with a web page instead of the Hub's", MIRROR),
    "a proxy's text": ("api", Fault(body=b"Blocked by policy"), "answered with something that is not JSON", MIRROR),
    "empty": ("api", Fault(body=b""), "something that is not JSON", MIRROR),
    "no content": ("api", 204, r"the Hub answered 204 \(No Content\)", MIRROR),
    "not UTF-8": ("api", Fault(body=b"\xff\xfe{}"), "something that is not JSON", MIRROR),
    "nested deep": ("api", Fault(body=b"[" * 200_000), "something that is not JSON", MIRROR),
    "[]": ("api", Fault(body=b"[]"), "JSON that is not a commit and its files", MIRROR),
    "{}": ("api", Fault(body=b"{}"), "JSON that is not a commit and its files", MIRROR),
    "null": ("api", Fault(body=b"null"), "JSON that is not a commit and its files", MIRROR),
    "a commit of another type": ("api", listed(sha=7), "JSON that is not a commit and its files", MIRROR),
    "a commit that is a path": ("api", listed(sha="../../x"), "JSON that is not a commit and its files", MIRROR),
    "files of another type": ("api", listed(siblings={"a": 1}), "JSON that is not a commit and its files", MIRROR),
    "files as strings": ("api", listed(siblings=["config.json"]), "a list in which a file has no name", MIRROR),
    "a name of another type": ("api", with_file(3), "a list in which a file has no name", MIRROR),
    "no sizes": ("api", with_fields(size=None), "gives no size and hash of config.json", MIRROR),
    "sizes as strings": ("api", with_fields(size="22"), "gives no size and hash of config.json", MIRROR),
    "sizes below 0": ("api", with_fields(size=-22), "gives no size and hash of config.json", MIRROR),
    "no hashes": ("api", with_fields(blobId=None, lfs=None), "gives no size and hash of config.json", MIRROR),
    "hashes that are paths": ("api", with_fields(blobId="../x", lfs=[1]), "no size and hash of config.json", MIRROR),
    "a name that climbs": ("api", with_file("../x"), r"the file '\.\./x', which is outside its folder", MIRROR),
    "an absolute name": ("api", with_file("/etc/x"), "which is outside its folder", MIRROR),
    "a name with a drive": ("api", with_file("a/C:x"), "which is outside its folder", MIRROR),
    "a name with NUL": ("api", with_file("a\0b"), "which is outside its folder", MIRROR),
    "endless listing": ("api", ENDLESS, "127.0.0.1 sends more than the expected 67,108,864 bytes", MIRROR),
    # A status.
    "bad request": ("api", 400, r"the Hub answered 400 \(Bad Request\)", MIRROR),
    "teapot": ("api", Fault(status=418, headers={"X-Error-Message": "a\tb"}), r"answered 418 \(a b\)", MIRROR),
    "not logged in": ("api", 401, "no model of this name on the Hub", LOG_IN),
    "forbidden": ("api", 403, r"the Hub refuses access \(403\); see the requirements at " + PAGE, LOG_IN),
    "not found": ("api", 404, "no such folder, and no model of this name .* at " + PAGE, LOG_IN),
    "a proxy wants a password": ("api", 407, r"a proxy needs a password \(407\)", "HTTPS_PROXY"),
    "too many requests": ("api", 429, "the Hub answered 429.*the limit is higher with a token", LOG_IN),
    "internal error": ("api", 500, "the Hub answered 500", AGAIN),
    "bad gateway": ("api", 502, "the Hub answered 502", AGAIN),
    "unavailable": ("config.json", 503, "the Hub answered 503", AGAIN),
    "gateway timeout": ("model.safetensors", 504, "the Hub answered 504", AGAIN),
    "a proxy's own number": ("api", 599, "the Hub answered 599", AGAIN),
    "a file forbidden": ("model.safetensors", 403, r"the Hub refuses access \(403\)", LOG_IN),
    "a file gone": ("config.json", 404, "answered 404 .*for a file that it lists", "another revision"),
    "a part unasked": ("config.json", 206, "the Hub answered 206", MIRROR),
    # A way that leads nowhere.
    "a redirect without a place": ("api", Fault(status=301), "the Hub answered 301", MIRROR),
    "a circle": ("api", sent_to("/api/models/some/model"), "the Hub's address does not work.*redirects", MIRROR),
    "a redirect to nobody": ("api", sent_to("http://127.0.0.1:1/"), "cannot be reached", "download some/model"),
    "a redirect to a file": ("api", sent_to("file:///etc/passwd"), "the Hub's address does not work", MIRROR),
    "a redirect to rubbish": ("api", sent_to("http://[x"), "cannot be reached", "download some/model"),
    "a file at nobody's": ("config.json", sent_to("http://127.0.0.1:1/"), "cannot be reached", "download some/model"),
    # A file is something else.
    "login page for a file": ("config.json", LOGIN, "answered with a web page", MIRROR),
    "login page for the weights": ("model.safetensors", LOGIN, "answered with a web page", MIRROR),
    "too short": ("model.safetensors", Fault(body=b"x" * 5120), "with 5,120 bytes .expected 10,240", MIRROR),
    "too long": ("model.safetensors", Fault(body=b"x" * 10241), "with 10,241 bytes .expected 10,240", MIRROR),
    "endless config": ("config.json", ENDLESS, "more than the expected 22 bytes", MIRROR),
    "endless weights": ("model.safetensors", ENDLESS, "more than the expected 10,240 bytes", MIRROR),
    "a bit flipped": ("model.safetensors", "damaged", "model.safetensors differs", MIRROR),
    "a bit flipped in a small file": ("tokenizer.json", "damaged", "tokenizer.json differs", MIRROR),
    "another file of that size": (
        "config.json", Fault(body=b"y" * 22), "config.json differs from the published one", MIRROR,
    ),
    "a false encoding": (
        "config.json", Fault(headers={"Content-Encoding": "gzip"}), "the connection failed.*decompress", AGAIN,
    ),
    "a small file cut": ("config.json", Fault(stop=1, then="close"), "the connection failed", AGAIN),
    # The connection.
    "hung up": ("api", Fault(silent=True, then="close"), "the connection failed .Server disconnected", AGAIN),
    "reset": ("api", Fault(silent=True, then="reset"), "the connection failed .*reset by peer", AGAIN),
    "reset at a file": ("config.json", Fault(silent=True, then="reset"), "the connection failed", AGAIN),
    "another protocol": ("api", Fault(raw=b"SSH-2.0-OpenSSH_9.6\r\n"), "the connection failed", MIRROR),
    "garbage": ("config.json", Fault(raw=bytes(range(256))), "the connection failed", MIRROR),
    "silence": ("api", Fault(silent=True, then="stall"), "almost no data for", AGAIN),
    "a small file stalls": ("config.json", Fault(stop=1, then="stall"), "almost no data for", AGAIN),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_fail_is_one_line_and_leaves_nothing_behind(
    playing: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], way: str
) -> None:
    where, fault, cause, way_out = WAYS[way]
    if isinstance(fault, Fault) and fault.then == "stall":
        monkeypatch.setattr(connection, "PATIENCE", Patience(answer=0.4, stall=1, pauses=(0.01,) * 4))
    playing.faults[where] = [fault] * 100
    with pytest.raises(UserError) as caught:
        download_model("some/model", say=lambda line: None)
    line = str(caught.value)
    assert re.search(f"^some/model: .*{cause}.*{way_out}", line) and line.isprintable() and len(line) < 420
    assert list(Path().iterdir()) == []  # no weights/, and no cache
    with pytest.raises(UserError) as caught:
        resolve_model("some/model")
    assert str(caught.value) == line
    begun = isinstance(fault, Fault) and fault.stop is not None  # a part that the next try continues
    assert len(list(Path().rglob("*.incomplete"))) == begun
    assert capfd.readouterr() == ("", "")  # nor does a library speak
    assert playing.sent < 70_000_000 * 2 + 20_000_000  # what is endless is cut off
    playing.faults.clear()
    monkeypatch.setattr(connection, "PATIENCE", Patience(pauses=(0.01,) * 4))
    assert files(resolve_model("some/model")) == NEEDED
    assert files(download_model("some/model", say=lambda line: None)) == NEEDED
    assert [path.name for path in Path("weights/some").iterdir()] == ["model"]


@pytest.mark.parametrize("fault", ["cut", "reset", Fault(then="stall")])
def test_only_a_part_of_the_weights_is_kept_hidden_for_the_next_try(
    playing: Hub, monkeypatch: pytest.MonkeyPatch, fault: str | Fault
) -> None:
    if isinstance(fault, Fault):
        monkeypatch.setattr(connection, "PATIENCE", Patience(answer=0.4, stall=1, pauses=(0.01,) * 4))
    playing.faults["model.safetensors"] = [fault] * 5
    with pytest.raises(TransientError, match=f"^some/model: .*{AGAIN}$"):
        download_model("some/model", say=lambda line: None)
    assert [path.name for path in Path("weights/some").iterdir()] == [".model.partial"]
    playing.faults["model.safetensors"] = [404]
    with pytest.raises(UserError, match="another revision"):
        download_model("some/model", say=lambda line: None)
    assert list(Path("weights").iterdir()) == []


# What is wrong on this side -----------------------------------------------------------------------------------------


def nobody() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


SETTINGS: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "nobody listens": ({"ENDPOINT": "http://{nobody}"}, {}, "127.0.0.1: .*Connection refused.*download some/model"),
    "no such host": ({"ENDPOINT": "http://no-such-host.invalid"}, {}, r"no-such-host.invalid: .*download some/model"),
    "no TLS": ({"ENDPOINT": "https://{server}"}, {}, r"cannot be reached \(127.0.0.1: \[SSL.*download some/model"),
    "no address": ({"ENDPOINT": "huggingface.co"}, {}, "the Hub's address does not work.*HF_ENDPOINT is .hugg"),
    "a broken address": ({"ENDPOINT": "http://[::1"}, {}, "the Hub's address does not work.*HF_ENDPOINT is"),
    "a token with letters": ({}, {"HF_TOKEN": "hf_zażółć"}, "HF_TOKEN contains invalid characters"),
    "a token with a bell": ({}, {"HF_TOKEN": "hf_a\ab"}, "HF_TOKEN contains invalid characters"),
    "a dead proxy": ({}, {"HTTP_PROXY": "http://{nobody}"}, "cannot be reached.*refused.*download some/model"),
    "a proxy of no kind": ({}, {"HTTP_PROXY": "ftp://127.0.0.1"}, "cannot connect to the Hub .*unset HTTPS_PROXY"),
    "no certificates": ({}, {"SSL_CERT_FILE": "no-such-file"}, "cannot connect to the Hub .*or SSL_CERT_FILE"),
}


@pytest.mark.parametrize("way", SETTINGS)
def test_each_wrong_setting_is_one_line_and_leaves_nothing_behind(
    playing: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], way: str
) -> None:
    places = {"nobody": nobody(), "server": playing.url.removeprefix("http://")}
    changes, variables, expected = SETTINGS[way]
    with monkeypatch.context() as patch:
        for name, value in changes.items():
            patch.setattr(constants, name, value.format(**places))
        for name, value in variables.items():
            patch.setenv(name, value.format(**places))
        with pytest.raises(UserError, match=f"^some/model: .*{expected}") as caught:
            download_model("some/model", say=lambda line: None)
        assert str(caught.value).isprintable() and "hf_" not in str(caught.value)
        assert isinstance(caught.value, Unreachable) == ("reached" in str(caught.value))
    assert list(Path().iterdir()) == [] and capfd.readouterr() == ("", "")
    close_session()
    assert files(download_model("some/model", say=lambda line: None)) == NEEDED
