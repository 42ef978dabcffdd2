"""The memory that a training step is expected to take, against a step that is made."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from minilm.finetuning.freezing import freeze, training_mode
from minilm.finetuning.lora import LoRAConfig, add_lora
from minilm.models import build_model, without_weights
from minilm.models.architecture import Backbone
from minilm.models.batch import Batch
from minilm.models.bert import BertConfig
from minilm.models.heads import mlp_head
from minilm.models.rotary import rotary_frequencies
from minilm.runs.memory import step_memory
from minilm.training.gradient_checkpointing import use_gradient_checkpointing
from minilm.training.optimizer import AdamW
from tests.families import small_model

TEXTS, TOKENS = 16, 64


class LiveBytes(TorchDispatchMode):
    """Adds up the storages of all tensors that exist, and remembers the most."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.alive = self.most = 0
        self.known: set[int] = set()
        for parameter in model.parameters():
            self.note(parameter)

    def note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self.known:
            return
        self.known.add(storage._cdata)
        self.alive += storage.nbytes()
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())

    def gone(self, number: int, size: int) -> None:
        self.known.discard(number)
        self.alive -= size

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else (result,):
            if isinstance(part, torch.Tensor):
                self.note(part)
        return result


def bert(how: str) -> Backbone:
    """A small BERT, frozen as a method does."""
    config = BertConfig(vocab_size=2000, width=128, depth=4, heads=4, mlp_width=512, context=TOKENS)
    model = build_model("bert", config, "classify", classes=2, head=mlp_head(128, pooling="cls"))
    if how == "lora":
        add_lora(model, LoRAConfig(8))
    elif how == "last":
        freeze(model, "all-but-last", 2)
    return model


def most_of_a_step(how: str, *, bfloat16: bool, checkpointing: bool) -> int:
    """The most bytes of tensors at any moment of a second step, in which the moments are there."""
    torch.manual_seed(0)
    model = bert(how)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.02)
    training_mode(model)
    if checkpointing:
        use_gradient_checkpointing(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = AdamW([{"params": trained, "weight_decay": 0.0}], lr=1e-3, eps=1e-8)
    batch = Batch(torch.zeros(TEXTS, TOKENS, dtype=torch.int64), torch.ones(TEXTS, TOKENS, dtype=torch.bool))
    with LiveBytes(model) as found:
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                scores = model(batch)
            F.cross_entropy(scores.float(), torch.zeros(TEXTS, dtype=torch.int64)).backward()
            del scores
            optimizer.step()
            for parameter in trained:
                parameter.grad = None
    return found.most


@pytest.mark.parametrize(
    ("how", "bfloat16", "checkpointing"),
    [
        ("full", False, False),
        ("lora", False, False),
        ("last", False, False),
        ("full", True, False),
        ("full", False, True),
    ],
)
def test_the_estimate_is_near_the_most_that_a_step_takes(how: str, bfloat16: bool, checkpointing: bool) -> None:
    with without_weights():
        model = bert(how)
    found = step_memory(model, TEXTS, TOKENS, bfloat16=bfloat16, checkpointing=checkpointing)
    most = most_of_a_step(how, bfloat16=bfloat16, checkpointing=checkpointing)
    assert found.total == pytest.approx(most, rel=0.1), (found, most)
    assert all(p.is_meta for p in model.parameters())


def test_an_estimate_leaves_no_angles_without_numbers_behind() -> None:
    rotary_frequencies.cache_clear()
    model = small_model("modernbert").to("meta")
    step_memory(model, 2, 8, bfloat16=False, checkpointing=False)
    assert torch.isfinite(small_model("modernbert")(torch.ones(1, 8, dtype=torch.int64))).all()
