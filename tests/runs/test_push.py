"""What `minilm push` uploads, and what it refuses: against a small server on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import _commit_api, constants

from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.models import load_model
from minilm.data.tokenization import load_tokenizer
from minilm.finetuning.lora import LoRAConfig, add_lora
from tests.hub_server import READER, Hub, Repo, files
from tests.tiny import finished_run, minilm, refused

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture
def hub(playing: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The server, and a token that may write. Large files take the plain way, without Xet."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    return playing


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    assert minilm("export", finished_run(), folder).exit_code == 0
    return folder


def test_a_run_is_exported_and_uploaded_to_a_private_repository(hub: Hub) -> None:
    result = minilm("push", finished_run(), "me/news")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{hub.url}/me/news: uploaded\n" and "me/news: uploading " in result.stderr
    repo = hub.repos["me/news"]
    assert repo.private and {"README.md", "config.json", "tokenizer.json", "model.safetensors"} <= repo.files.keys()
    assert "minilm predict me/news " in repo.files["README.md"].decode()
    puts = [line for line in hub.log if line.startswith("PUT")]
    assert len(puts) == 2  # the weights of model and head are large files


def test_an_exported_folder_is_uploaded_and_can_be_downloaded_again(hub: Hub, exported: Path) -> None:
    result = minilm("push", exported, "me/news")
    assert result.exit_code == 0 and "not uploaded" not in result.stderr
    uploaded, here_files = dict(hub.repos["me/news"].files), files(exported)
    card = uploaded.pop("README.md").decode()
    assert "minilm predict me/news " in card and 'Classifier.load("me/news")' in card
    assert b"minilm predict model " in here_files.pop("README.md")  # the folder itself stays as it is
    assert uploaded == here_files
    here = minilm("predict", exported, "it was good").stdout
    assert minilm("predict", "me/news", "it was good").stdout == here != ""


@pytest.mark.parametrize(("answer", "options", "made"), [("y\n", (), True), ("n\n", (), False), ("", (), False)])
def test_it_asks_before_it_makes_a_public_repository(
    hub: Hub, exported: Path, answer: str, options: tuple[str, ...], made: bool
) -> None:
    result = minilm("push", exported, "me/news", "--public", *options, stdin=answer)
    assert "me/news will be public: everyone can read it" in result.stderr
    assert result.exit_code == int(not made) and ("me/news" in hub.repos) == made
    if made:
        assert not hub.repos["me/news"].private
    else:
        assert "me/news: nothing was uploaded; leave --public out, or confirm (--yes)" in result.stderr


def test_yes_answers_the_question(hub: Hub, exported: Path) -> None:
    result = minilm("push", exported, "me/news", "--public", "--yes")
    assert result.exit_code == 0 and "everyone" not in result.stderr and not hub.repos["me/news"].private


@pytest.mark.parametrize(("private", "options", "said"), [
    (False, (), "me/news: is a public repository; add --public to upload to it"),
    (True, ("--public", "--yes"), "me/news: is a private repository; leave --public out, or make it public at"),
])  # fmt: skip
def test_a_repository_that_exists_stays_as_private_as_it_is(
    hub: Hub, exported: Path, private: bool, options: tuple[str, ...], said: str
) -> None:
    hub.repos["me/news"] = Repo({}, private=private)
    assert said in refused("push", exported, "me/news", *options)
    assert not hub.repos["me/news"].files


def test_without_a_token_nothing_is_exported_or_sent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "me/news: you are not logged in to the Hub; run `hf auth login`" in refused("push", "nowhere", "me/news")
    assert not hub.log


def test_a_token_that_may_only_read_is_named(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)
    said = refused("push", exported, "me/news")
    assert 'me/news: your token may not write to "me" (403: this token may only read); use a token that may' in said


def test_without_a_network_it_is_one_line(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "me/news: the Hub cannot be reached (" in refused("push", exported, "me/news")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "me/news: HF_HUB_OFFLINE is set; unset it to upload" in refused("push", exported, "me/news")


def test_metadata_that_the_hub_refuses_are_the_users(hub: Hub, exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "edited")
    (folder / "README.md").write_text("no metadata")
    said = refused("push", folder, "me/news")
    assert "me/news: the Hub refuses the metadata above the text of README.md: " in said and "no metadata" in said


@pytest.mark.parametrize("name", ["news", "me/", "me/news/again", "../news"])
def test_a_name_must_be_one_of_the_hub(hub: Hub, name: str) -> None:
    assert f'"{name}" is not a name on the Hub; give OWNER/NAME' in refused("push", finished_run(), name)


def test_an_adapter_whose_base_others_do_not_have_is_refused(hub: Hub, tmp_path: Path) -> None:
    model = load_model(REFERENCE / "bert-classify")
    add_lora(model, LoRAConfig(rank=2))
    tokenizer = load_tokenizer(REFERENCE / "bert-classify")
    save_adapter(model, tmp_path / "adapter", base=str(REFERENCE / "bert-classify"), tokenizer=tokenizer)
    said, base = refused("push", tmp_path / "adapter", "me/news"), REFERENCE / "bert-classify"
    assert f"others do not have its base model, {base}; upload them as one model: --merge" in said
    assert "me/news" not in hub.repos
    (tmp_path / "adapter" / "README.md").write_text("---\ntags: []\n---\n")  # as in an exported folder
    assert minilm("push", tmp_path / "adapter", "me/news", "--merge").exit_code == 0
    found = hub.repos["me/news"].files
    assert "model.safetensors" in found and b"lora" not in found["README.md"]


@pytest.mark.parametrize("base", ["/home/me/mine", "../mine", "models/mine"])
def test_an_adapter_whose_base_is_a_path_is_refused(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    model = load_model(REFERENCE / "bert-classify")
    add_lora(model, LoRAConfig(rank=2))
    tokenizer = load_tokenizer(REFERENCE / "bert-classify")
    save_adapter(model, tmp_path / "adapter", base=base, tokenizer=tokenizer)
    (tmp_path / "adapter" / "README.md").write_text("---\ntags: []\n---\n")
    said = refused("push", tmp_path / "adapter", "me/news")
    assert f"others do not have its base model, {base}; upload them as one model: --merge" in said
    assert "me/news" not in hub.repos


def test_of_a_linear_model_only_its_files_are_uploaded_and_they_are_enough(hub: Hub, tmp_path: Path) -> None:
    assert minilm("export", finished_run(), tmp_path / "lin", "--linear").exit_code == 0
    result = minilm("push", tmp_path / "lin", "me/lin")
    left_out = "config.toml, environment.json and validation.safetensors"
    assert f"me/lin: not uploaded, as the model does not need it: {left_out}\n" in result.stderr
    assert "me/lin: uploading 3 files, " in result.stderr
    found = hub.repos["me/lin"].files
    assert found.keys() == {"README.md", "linear.json", "linear.safetensors"}
    assert b"hf download me/lin --local-dir lin\nminilm predict lin " in found["README.md"]
    (tmp_path / "down").mkdir()
    for name, content in found.items():
        (tmp_path / "down" / name).write_bytes(content)
    (tmp_path / "texts.tsv").write_text("text\nit was good\nreally awful\n")
    answers = [minilm("predict", tmp_path / each, "--file", tmp_path / "texts.tsv") for each in ("lin", "down")]
    assert answers[0].exit_code == 0 and answers[0].stdout == answers[1].stdout != ""


def test_files_of_a_trainer_stay_here(hub: Hub, exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "trainer")
    for name in ("optimizer.pt", "training_args.bin", "train.csv", "checkpoint-1/model.safetensors", ".env"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("private")
    result = minilm("push", folder, "me/news")
    assert hub.repos["me/news"].files.keys() == files(exported).keys()
    assert "need it: .env, checkpoint-1, optimizer.pt, train.csv and training_args.bin\n" in result.stderr


@pytest.mark.parametrize("error", [httpx2.ReadError("Connection reset by peer"), OSError("Connection reset by peer")])
def test_a_connection_that_is_lost_in_a_large_file_is_one_line(
    hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(_commit_api, "lfs_upload", lost)
    said = refused("push", exported, "me/news")
    assert "me/news: the upload failed (Connection reset by peer); run the same command again, as what is" in said


def test_a_folder_without_a_model_is_not_uploaded_because_it_has_a_readme(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("private")
    assert "notes" in refused("push", tmp_path / "notes", "me/news")
    assert "me/news" not in hub.repos
