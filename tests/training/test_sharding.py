"""Which runs may shard their model. That sharded models train as others do: ``test_distributed``."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from minilm import world
from minilm.devices import Runtime
from minilm.errors import UserError
from minilm.loading import load_config
from minilm.training.sharding import check_sharding
from minilm.world import World


@pytest.mark.parametrize("stage", ["train", "adapt.train"])
def test_sharding_in_float16_is_refused_by_its_key(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    train = {"epochs": 1, "batch_size": 2, "lr": 0.1}
    table = {"data": {"source": "x.csv"}, "model": {"source": "x"}, "adapt": {"train": train}, "train": train}
    config = load_config({"name": "x", **table})
    assert config.train is not None and config.adapt is not None
    if stage == "train":
        config = replace(config, train=replace(config.train, shard=True))
    else:
        config = replace(config, adapt=replace(config.adapt, train=replace(config.adapt.train, shard=True)))
    half = Runtime(torch.device("cuda"), "float16")
    check_sharding(config, half)  # one process has the whole model
    monkeypatch.setattr(world, "_world", World(size=2))
    check_sharding(config, replace(half, precision="bfloat16"))
    with pytest.raises(UserError, match=rf'^{stage}.shard needs train.precision = "bfloat16" or "float32"'):
        check_sharding(config, half)
