"""The stored references are what their script makes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from minilm.checkpoints.files import read_tensors
from tests.making import dry_make

REFERENCES = Path(__file__).parent
transformers = pytest.importorskip("transformers")
FOLDER = Path(__file__).parent
STORED = (FOLDER / "VERSION").read_text().strip()
HERE = f"transformers {transformers.__version__}"


def make(folder: Path, *cases: str) -> None:
    from tests.reference.make_references import main

    threads = torch.get_num_threads()
    try:
        main([*cases, "--folder", str(folder)])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(HERE != STORED, reason=f"the references were made with {STORED}, here is {HERE}")
def test_the_references_are_current(tmp_path: Path) -> None:
    make(tmp_path)
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    stored = {path.relative_to(FOLDER) for path in FOLDER.rglob("*/*") if path.is_file() and path.suffix != ".pyc"}
    assert made == stored | {Path("VERSION")}
    for path in sorted(made):
        if path.suffix == ".json":
            assert json.loads((tmp_path / path).read_text()) == json.loads((FOLDER / path).read_text()), path
        elif path.suffix == ".safetensors":
            ours, theirs = read_tensors(tmp_path / path), read_tensors(FOLDER / path)
            assert ours.keys() == theirs.keys(), path
            least = 1e-5 if path.name == "expected.safetensors" else 1e-6  # another processor rounds otherwise
            for name, tensor in theirs.items():
                torch.testing.assert_close(ours[name], tensor, rtol=least, atol=least, msg=f"{path}: {name}")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_the_named_cases_are_made_again(tmp_path: Path) -> None:
    for case in ("gpt2", "gpt2-lm-old", "bert"):
        shutil.copytree(FOLDER / case, tmp_path / case)
        (tmp_path / case / "config.json").write_text("old")
        (tmp_path / case / "stale.safetensors").write_text("old")
    before = files(tmp_path)
    make(tmp_path, "gpt2")
    after = files(tmp_path)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed >= {"gpt2/config.json", "gpt2/stale.safetensors", "VERSION"}
    assert all(name.startswith("gpt2/") or name == "VERSION" for name in changed)
    make(tmp_path, "gpt2*")
    assert {name.partition("/")[0] for name in files(tmp_path)} == {
        "VERSION", "bert", *(path.name for path in REFERENCES.glob("gpt2*"))
    }  # fmt: skip
    assert files(tmp_path)["bert/config.json"] == b"old" != files(tmp_path)["gpt2-lm-old/config.json"]


@pytest.mark.parametrize(
    ("version", "case", "message"),
    [("transformers 0.1", "gpt2", "the others were made with transformers 0.1"), (HERE, "gpt3", "no case gpt3; the")],
)
def test_cases_are_refused_that_would_not_fit_the_others_or_are_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: str, case: str, message: str
) -> None:
    (tmp_path / "VERSION").write_text(f"{version}\n")
    with pytest.raises(SystemExit):
        make(tmp_path, case)
    assert message in capsys.readouterr().err and set(files(tmp_path)) == {"VERSION"}


def test_make_passes_the_names_on() -> None:
    done = dry_make("ARGS=gpt2 bert-lm", target="references")
    assert done.stdout.rstrip().endswith("tests/reference/make_references.py gpt2 bert-lm")


def test_the_references_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 6 << 20
