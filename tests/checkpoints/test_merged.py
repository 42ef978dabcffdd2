"""An adapter becomes a whole model once; a whole model is taken as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from minilm import world
from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.merged import find_whole
from minilm.checkpoints.models import load_model, save_model
from minilm.errors import UserError
from minilm.finetuning.lora import LoRAConfig, add_lora
from minilm.model_files import is_whole
from minilm.models.heads import HeadConfig
from minilm.world import World
from tests.processes import left_by_killed

REFERENCE = Path(__file__).parents[1] / "reference"
IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINILM_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.mark.parametrize("head", [None, HeadConfig("mean", hidden=3)])
def test_an_adapter_is_merged_once_with_each_base(head: HeadConfig | None, weights: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = load_model(REFERENCE / "bert", "classify", labels=["a", "b"], head=head)
    add_lora(model, LoRAConfig(rank=2))
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    adapter = save_adapter(model, tmp_path / "adapter")
    weights.mkdir()
    merged = find_whole(str(adapter))
    remains = left_by_killed(merged)
    torch.testing.assert_close(load_model(merged)(IDS), model.eval()(IDS), rtol=1e-5, atol=1e-5)
    (merged / "model.safetensors").unlink()
    merged.rename(remains)
    assert find_whole(str(adapter)) == merged and not remains.exists()
    copy = save_model(load_model(REFERENCE / "bert"), tmp_path / "copy")
    (copy / "tokenizer.json").write_bytes((REFERENCE / "bert" / "tokenizer.json").read_bytes())
    (copy / "1_Pooling").mkdir()
    for name in ("modules.json", "1_Pooling/config.json"):
        (copy / name).write_text("{}")
    other = find_whole(str(adapter), base=str(copy))
    assert other != merged and (other / "1_Pooling" / "config.json").is_file()  # the base's pooling
    assert sorted(path.name[:7] for path in weights.iterdir() if path.is_dir()) == ["merged-"] * 2


def test_a_process_that_is_not_the_first_merges_too_as_its_machine_may_have_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(REFERENCE / "bert", "classify", labels=["a", "b"])
    add_lora(model, LoRAConfig(rank=2))
    adapter = save_adapter(model, tmp_path / "adapter")
    place = World(rank=1, size=2)
    monkeypatch.setattr(world, "_world", place)
    assert is_whole(find_whole(str(adapter))) and world.world() is place


def test_a_whole_model_is_taken_as_it_is_and_has_no_base(weights: Path) -> None:
    source = str(REFERENCE / "bert")
    assert find_whole(source) == REFERENCE / "bert" and not weights.exists()
    with pytest.raises(UserError, match=r"^model.base: .*bert is a whole model, not an adapter; remove model.base$"):
        find_whole(source, base=source)
