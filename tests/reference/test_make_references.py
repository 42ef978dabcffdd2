"""The stored references are what their script makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from minilm.checkpoints.files import read_tensors

transformers = pytest.importorskip("transformers")
FOLDER = Path(__file__).parent
STORED = (FOLDER / "VERSION").read_text().strip()
HERE = f"transformers {transformers.__version__}"


@pytest.mark.skipif(HERE != STORED, reason=f"the references were made with {STORED}, here is {HERE}")
def test_the_references_are_current(tmp_path: Path) -> None:
    from tests.reference.make_references import main

    threads = torch.get_num_threads()
    main(tmp_path)
    torch.set_num_threads(threads)
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


def test_the_references_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 6 << 20
