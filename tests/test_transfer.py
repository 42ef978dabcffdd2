"""A Hub that fails in every way we could think of: downloads continue, or end in one line and leave nothing behind."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Literal

import pytest

from minilm import connection, hub, transfer
from minilm.connection import Patience, TransientError
from minilm.errors import UserError
from minilm.hub import download_model, resolve_model
from tests.hub_server import MODEL, NEEDED, Fault, Hub, files

WEIGHTS = MODEL["model.safetensors"]
HALF = len(WEIGHTS) // 2


def quietly(source: str) -> Path:
    return download_model(source, say=lambda line: None)


def environment(playing: Hub) -> dict[str, str]:
    """Of a process of its own, which asks the server and has its own cache."""
    root = Path(hub.__file__).parents[1]
    return os.environ | {"HF_ENDPOINT": playing.url, "HF_HOME": str(Path("home").absolute()), "PYTHONPATH": str(root)}


def in_a_process(code: str, playing: Hub) -> list[str]:
    """The lines that a Python process prints."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ran = subprocess.run(command, env=environment(playing), capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")  # and no progress bars where nobody watches
    return ran.stdout.splitlines()


# Continuing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut", "reset"])
@pytest.mark.parametrize("cdn", [False, True])
def test_a_broken_connection_is_continued_at_its_byte(playing: Hub, fault: str, cdn: bool) -> None:
    playing.cdn = cdn
    playing.faults["model.safetensors"] = [fault]
    assert files(resolve_model("some/model")) == NEEDED
    assert playing.fetched("model.safetensors") == ["model.safetensors", f"model.safetensors bytes={HALF}-"]


def test_sixty_megabytes_reset_at_thirty_go_on_at_thirty(playing: Hub) -> None:
    content = os.urandom(60_000_000)
    playing.repos["some/model"].files["model.safetensors"] = content
    playing.faults["model.safetensors"] = [Fault(stop=stop, then="reset") for stop in (30_000_000, 20_000_000)]
    assert (resolve_model("some/model") / "model.safetensors").read_bytes() == content
    first, *further = playing.fetched("model.safetensors")
    begins = [int(line.removeprefix("model.safetensors bytes=").removesuffix("-")) for line in further]
    # A reset may throw away what the system had not handed on yet: less than a few MB.
    assert first == "model.safetensors" and len(begins) == 2
    assert 25_000_000 < begins[0] <= 30_000_000 and begins[0] + 15_000_000 < begins[1] <= begins[0] + 20_000_000
    assert playing.sent < 75_000_000  # from the first byte each time: 110 MB
    assert not list(Path("cache").rglob("*.incomplete"))


def test_the_next_run_goes_on_where_a_broken_one_stopped(playing: Hub) -> None:
    playing.faults["model.safetensors"] = ["reset"] + [503] * 4
    for download in (resolve_model, quietly):
        with pytest.raises(TransientError, match=r"answered 503.*run the same command again; the part that"):
            download("some/model")
        playing.log.clear()
        assert files(download("some/model")) == NEEDED
        assert playing.fetched("model.safetensors") == [f"model.safetensors bytes={HALF}-"]
        playing.repos["some/model"].files["README.md"] = b"another commit"
        playing.faults["model.safetensors"] = ["reset"] + [503] * 4
        shutil.rmtree("cache", ignore_errors=True)
    assert [path.name for path in Path("weights/some").iterdir()] == ["model"]


@pytest.mark.parametrize("verb", ["resolve_model", "download_model"])
def test_the_next_run_goes_on_where_a_killed_one_stopped(playing: Hub, verb: str) -> None:
    content = os.urandom(1_000_000)
    playing.repos["some/model"].files["model.safetensors"] = content
    playing.faults["model.safetensors"] = [Fault(stop=700_000, then="stall")]
    code = f"from minilm.hub import {verb}; {verb}('some/model')"
    killed = subprocess.Popen([sys.executable, "-c", code], env=environment(playing), stdout=subprocess.DEVNULL)
    while not any(path.stat().st_size >= 600_000 for path in Path().rglob("*.incomplete")):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    playing.log.clear()
    in_a_process(code, playing)
    begin = int(playing.fetched("model.safetensors")[0].removeprefix("model.safetensors bytes=").removesuffix("-"))
    assert 600_000 <= begin <= 700_000
    left = [path.name for path in Path().rglob("*") if path.name.endswith((".incomplete", ".partial"))]
    assert left == [] and next(Path().rglob("model.safetensors")).read_bytes() == content


def test_a_server_without_ranges_is_asked_from_the_start(playing: Hub) -> None:
    playing.ranges = False
    playing.faults["model.safetensors"] = ["reset", "cut"]
    assert files(resolve_model("some/model")) == NEEDED
    assert len(playing.fetched("model.safetensors")) == 3


@pytest.mark.parametrize(
    "answer",
    [
        Fault(headers={"Content-Range": "bytes 0-9/10240"}),
        Fault(headers={"Content-Range": ""}),
        Fault(status=416, body=b""),
        Fault(headers={"Content-Encoding": "gzip"}),
    ],
)
def test_an_answer_that_does_not_continue_is_not_appended(playing: Hub, answer: Fault) -> None:
    playing.faults["model.safetensors"] = ["cut", answer]
    assert files(resolve_model("some/model")) == NEEDED
    assert playing.fetched("model.safetensors")[-1] == "model.safetensors"


@pytest.mark.parametrize("begun", [b"x" * 100, WEIGHTS[:-1] + b"x", b"x" * 20_000])
def test_what_an_earlier_download_left_damaged_is_fetched_anew(playing: Hub, begun: bytes) -> None:
    folder = Path("weights/some/.model.partial")
    folder.mkdir(parents=True)
    (folder / "model.safetensors.incomplete").write_bytes(begun)
    (folder / "config.json").write_bytes(b"of another revision")
    for name in ("model.safetensors.index.json", "added_tokens.json", "1_Pooling/config.json", "old.incomplete"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"of another revision")
    assert files(quietly("some/model")) == NEEDED


def test_what_is_left_over_is_cleared_except_what_can_be_continued(playing: Hub) -> None:
    blobs = Path("cache/models--some--model/blobs")
    blobs.mkdir(parents=True)
    weights = f"{hashlib.sha256(WEIGHTS).hexdigest()}.incomplete"
    for name, age in {"another-library's.1234abcd.incomplete": 7200, "just-now.incomplete": 0, weights: 7200}.items():
        (blobs / name).write_bytes(WEIGHTS[:100])
        os.utime(blobs / name, (time.time() - age, time.time() - age))
    resolve_model("some/model", want="tokenizer")
    assert {path.name for path in blobs.glob("*.incomplete")} == {"just-now.incomplete", weights}
    resolve_model("some/model")
    assert {path.name for path in blobs.glob("*.incomplete")} == {"just-now.incomplete"}
    assert playing.fetched("model.safetensors") == ["model.safetensors bytes=100-"]


def test_two_processes_fetch_a_model_once(playing: Hub) -> None:
    playing.repos["some/model"].files["model.safetensors"] = content = os.urandom(200)
    playing.faults["model.safetensors"] = [Fault(then="trickle")]  # for two seconds
    code = "import sys; from minilm.hub import {0}; {0}('some/model')"
    for verb in ("resolve_model", "download_model"):
        command = [sys.executable, "-c", code.format(verb)]
        both = [
            subprocess.Popen(command, env=environment(playing), text=True, stdout=-1, stderr=-1) for _ in range(2)
        ]
        said = "".join(process.communicate()[1] for process in both)
        assert [process.returncode for process in both] == [0, 0], said
        assert said.count("another process is downloading") == 1
        assert next(Path().rglob("model.safetensors")).read_bytes() == content
        assert len(playing.fetched("model.safetensors")) == 1
        shutil.rmtree("home", ignore_errors=True)
        playing.log.clear()
        playing.faults["model.safetensors"] = [Fault(then="trickle")]


@pytest.mark.parametrize("where", ["api", "config.json", "model.safetensors"])
def test_a_server_in_trouble_is_asked_again(playing: Hub, where: str) -> None:
    playing.faults[where] = [500, 503, Fault(silent=True, then="reset"), Fault(silent=True, then="close")]
    assert files(resolve_model("some/model")) == NEEDED


def test_the_token_is_for_the_hub_alone(playing: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    playing.cdn = True  # on another host
    resolve_model("some/model", want="config")
    commit = playing.repos["some/model"].commit
    assert playing.tokens == {
        "api/models/some/model": "Bearer hf_secret",
        f"some/model/resolve/{commit}/config.json": "Bearer hf_secret",
        "cdn/some/model/config.json": "",
    }


def test_compressed_answers_are_read(playing: Hub) -> None:
    for name in ("api", *NEEDED):
        playing.faults[name] = [Fault(gzipped=True)]
    assert files(resolve_model("some/model")) == NEEDED


# How long -----------------------------------------------------------------------------------------------------------


def test_a_pause_that_the_hub_asks_for_is_made(playing: Hub, caplog: pytest.LogCaptureFixture) -> None:
    playing.faults["api"] = [Fault(status=429, headers={"Retry-After": "1"}, body=b"")]
    playing.faults["config.json"] = [Fault(status=503, headers={"Retry-After": "0"}, body=b"")] * 4
    begin = time.monotonic()
    assert files(resolve_model("some/model")) == NEEDED
    assert time.monotonic() - begin >= 1 and caplog.messages == ["the Hub requests a pause of 1 s; waiting"]


@pytest.mark.parametrize(
    "header",
    [
        {"Retry-After": "3600"},
        {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"},
        {"RateLimit": '"api";r=0;t=3600'},
    ],
)
def test_a_pause_of_more_than_a_minute_is_named_and_not_made(playing: Hub, header: dict[str, str]) -> None:
    playing.faults["api"] = [Fault(status=429, headers=header, body=b"")]
    with pytest.raises(TransientError, match=r"answered 429 .*; wait (3,600|1,000,000,000) s before .* with a token"):
        resolve_model("some/model")
    assert playing.log == ["GET api/some/model"]


def test_all_pauses_that_are_asked_for_are_a_minute_together(playing: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", Patience(asked=1.5))
    playing.faults["api"] = [Fault(status=429, headers={"Retry-After": "1"}, body=b"")] * 2
    with pytest.raises(TransientError, match=r"wait 1 s before"):
        resolve_model("some/model")


def test_patience_is_less_than_a_minute() -> None:
    patience = Patience()
    assert patience.answer < patience.stall < 60 and sum(patience.pauses) < patience.stall and patience.asked == 60


@pytest.mark.parametrize("how", ["stall", "trickle"])
def test_a_transfer_that_does_not_move_on_is_given_up_in_time(
    playing: Hub, monkeypatch: pytest.MonkeyPatch, how: Literal["stall", "trickle"], caplog: pytest.LogCaptureFixture
) -> None:
    resolve_model("some/model", want="tokenizer")
    monkeypatch.setattr(connection, "PATIENCE", Patience(answer=0.3, stall=1, pauses=(0.01,) * 50))
    playing.faults["model.safetensors"] = [Fault(then=how)] * 50
    begin = time.monotonic()
    with pytest.raises(TransientError, match=r"some/model: almost no data for 1 s; check"):
        resolve_model("some/model")
    assert 0.9 < time.monotonic() - begin < 3
    assert caplog.messages == []  # one line in all


def test_a_slow_transfer_that_moves_on_is_waited_for(playing: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_model("some/model", want="tokenizer")
    monkeypatch.setattr(connection, "PATIENCE", Patience(stall=1, pace=5))
    playing.repos["some/model"].files["model.safetensors"] = bytes(200)
    playing.faults["model.safetensors"] = [Fault(then="trickle")]  # takes two seconds
    assert (resolve_model("some/model") / "model.safetensors").read_bytes() == bytes(200)


# The disk -----------------------------------------------------------------------------------------------------------


def test_a_disk_without_room_is_told_before_anything_is_fetched(playing: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(transfer.shutil.disk_usage("/"))
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: usage(100, 90, 10))
    with pytest.raises(UserError, match=r"needs 0 MB, but the disk of .* has 0 MB left; free some space.*HF_HOME"):
        resolve_model("some/model")
    assert playing.fetched() == []


def test_a_full_disk_is_told_and_nothing_half_written_is_taken_for_whole(playing: Hub) -> None:
    code = """
        import resource
        from minilm.errors import UserError
        from minilm.hub import resolve_model
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))  # no file larger than this
        try:
            resolve_model("some/model")
        except UserError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        print(resolve_model("some/model"))
    """
    told, folder = in_a_process(code, playing)
    assert told.startswith("some/model: no space left on the disk (File too large); free some space")
    assert folder.startswith(str(Path("home/hub").absolute())) and files(Path(folder)) == NEEDED
    assert not list(Path("home").rglob("*.incomplete"))
