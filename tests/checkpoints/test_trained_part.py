"""A folder with only the trained part is the whole model again, bit for bit, above its base and above no other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from minilm.checkpoints.configs import new_config
from minilm.checkpoints.files import fingerprint, read_json, write_json
from minilm.checkpoints.models import card_of, load_model, load_parts, new_model, save_model
from minilm.checkpoints.trained_part import Base, is_partly_frozen
from minilm.errors import UserError
from minilm.finetuning.freezing import freeze
from minilm.models import ARCHITECTURES
from minilm.models.heads import mlp_head

SIZES = {
    "gpt2": {"width": 16, "depth": 2, "heads": 2, "context": 20, "vocab_size": 30},
    "bert": {"width": 16, "depth": 2, "heads": 2, "mlp_width": 24, "context": 20, "vocab_size": 30},
}


def trained(folder: Path, family: str, own_head: bool, part: str, layers: int = 0) -> tuple[torch.nn.Module, Path]:
    """A base's folder, and a classifier above it whose trained parameters were changed."""
    torch.manual_seed(0)
    config = new_config(family, SIZES[family], "sizes")
    base = save_model(new_model(family, config, "lm"), folder / "base")
    head = mlp_head(16, hidden=0, pooling="last", norm=False, activation="gelu", dropout=0.0) if own_head else None
    model, _ = load_parts(base, "classify", labels=["a", "b", "c"], head=head)
    freeze(model, part, layers)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    return model, base


def same(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize("own_head", [True, False])
@pytest.mark.parametrize(("part", "layers"), [("backbone", 0), ("all-but-last", 1), ("first", 1)])
def test_the_part_is_the_whole_model_again(tmp_path, family, own_head, part, layers):
    model, base = trained(tmp_path, family, own_head, part, layers)
    assert is_partly_frozen(model) and family in ARCHITECTURES
    whole = save_model(model, tmp_path / "whole")
    kept = save_model(model, tmp_path / "part", base=Base(str(base), "", fingerprint(base)))
    assert not (kept / "model.safetensors").exists()
    assert (kept / "trained.safetensors").stat().st_size < (whole / "model.safetensors").stat().st_size
    opened = load_model(kept)
    assert same(opened, load_model(whole)) and card_of(opened).labels == ["a", "b", "c"]
    # Written again, it is a whole model, which needs no base.
    again = save_model(opened, tmp_path / "again")
    shutil.rmtree(base)
    assert same(load_model(again), load_model(whole))


def test_a_base_beside_the_part_may_move_with_it(tmp_path):
    model, base = trained(tmp_path / "run", "bert", True, "backbone")
    save_model(model, tmp_path / "run" / "model", base=Base("../base", "", fingerprint(base)))
    (tmp_path / "run").rename(tmp_path / "moved")
    assert same(load_model(tmp_path / "moved" / "model"), model)


def test_a_base_that_changed_or_is_gone_is_named(tmp_path):
    model, base = trained(tmp_path, "bert", True, "backbone")
    kept = save_model(model, tmp_path / "part", base=Base(str(base), "", fingerprint(base)))
    config = read_json(base / "config.json")
    write_json(base / "config.json", config | {"hidden_dropout_prob": 0.3})
    with pytest.raises(UserError, match=r"part: contains only trained parameters, and .*base has changed"):
        load_model(kept)
    shutil.rmtree(base)
    with pytest.raises(UserError, match=r"part: its base checkpoint cannot be loaded"):
        load_model(kept)


@pytest.mark.parametrize("base", [{"source": "x"}, "x", {"source": "", "revision": "", "fingerprint": ""}])
def test_a_base_that_says_too_little_is_refused(tmp_path, base):
    model, folder = trained(tmp_path, "bert", True, "backbone")
    kept = save_model(model, tmp_path / "part", base=Base(str(folder), "", fingerprint(folder)))
    config = read_json(kept / "config.json")
    write_json(kept / "config.json", config | {"minilm": config["minilm"] | {"base": base}})
    with pytest.raises(UserError, match=r'config.json: minilm.base must contain "source"'):
        load_model(kept)
