"""The contract of every architecture: what it offers is there, and what follows a layer is what its list says."""

from __future__ import annotations

import ast
import doctest
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from minilm.finetuning.freezing import freeze, frozen_layers, shares_layers
from minilm.models import ARCHITECTURES, gpt2
from minilm.models.architecture import Backbone
from minilm.models.heads import HeadConfig
from tests.families import FAMILIES, OWN, draw_batch, small_model

PRODUCT = Path(gpt2.__file__).parents[1]


def test_every_architecture_has_a_small_model_for_the_tests() -> None:
    assert OWN.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_architecture_is_a_backbone_with_all_that_the_contract_names(family: str) -> None:
    model = small_model(family)
    assert isinstance(model, Backbone)
    assert len(model.blocks) == model.num_layers >= model.config.depth
    assert all(isinstance(block, nn.Module) for block in model.blocks)
    assert model.context >= 0 and model.token_embedding.weight.shape[0] == model.config.vocab_size
    assert ARCHITECTURES[family].title and ARCHITECTURES[family].title != family


@pytest.mark.parametrize(
    ("family", "changes"), [*((family, {}) for family in FAMILIES), ("gemma3_text", {"bidirectional": True})]
)
@torch.no_grad()
def test_the_first_vector_depends_on_later_tokens_unless_the_model_is_causal(
    family: str, changes: dict[str, bool]
) -> None:
    model, batch = small_model(family, "encode", **changes), draw_batch([5, 5])
    other = replace(batch, ids=torch.cat([batch.ids[:, :-1], (batch.ids[:, -1:] + 1) % 60], dim=1))
    assert torch.equal(model(batch)[:, 0], model(other)[:, 0]) == model.is_causal
    assert model.is_causal == (ARCHITECTURES[family].language_modeling == "causal" and not changes)


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_is_embed_run_and_finish_and_then_the_head(family: str) -> None:
    model, batch = small_model(family, head=HeadConfig("mean")), draw_batch([5, 3])
    state = model.run(model.embed(batch), batch, 0, model.num_layers)
    assert model.head is not None
    assert torch.equal(model(batch), model.head(model.finish(state), batch, model.pooler))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_trains_is_exactly_what_follows_the_frozen_layers(family: str) -> None:
    """A parameter follows layer L - k if, with the state before that layer given, the scores still depend on it."""
    for k in range(small_model(family).num_layers + 1):
        model, batch = small_model(family), draw_batch([5, 3])
        if k and shares_layers(model):
            return
        first = model.num_layers - k
        with torch.no_grad():
            state = model.run(model.embed(batch), batch, 0, first)
        names, parameters = zip(*model.named_parameters(), strict=True)
        scores = model(batch, state=state, first=first).square().sum()
        gradients = torch.autograd.grad(scores, parameters, allow_unused=True)
        follows = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
        # Tables that several layers look into are frozen with the embeddings.
        within = {module for block in model.blocks for module in block.modules()}
        modules = dict(model.named_modules()).items()
        tables = {f"{name}." for name, m in modules if isinstance(m, nn.Embedding) and m not in within}
        # An encoder's last norm stands between its last layer and the decoder's first.
        earlier = set(model.norms_after(first - 1) if first else ()) - set(model.norms_after(first))
        norms = {f"{name}." for name, module in model.named_modules() if module in earlier}
        follows = {name for name in follows if not name.startswith(("embeddings.", *tables, *norms))}

        freeze(model, "all-but-last", k)
        assert {name for name, p in model.named_parameters() if p.requires_grad} == follows
        assert frozen_layers(model) == first


def test_the_forward_pass_in_gpt2s_docstring_is_the_models() -> None:
    result = doctest.testmod(gpt2)
    assert result.attempted > 0 and result.failed == 0


def test_nothing_asks_a_model_or_its_config_by_the_name_of_an_attribute() -> None:
    asked = re.compile(r"\b(hasattr|getattr)\((self\.)?(model|config|model\.config|stored\.config|module), \"")
    untyped = re.compile(r"\bmodel: Any\b")
    for path in PRODUCT.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for pattern in (asked, untyped):
            assert not pattern.search(text), f"{path}: {pattern.search(text)}"
        for node in ast.walk(ast.parse(text)):  # also a name that is no variable called "model"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hasattr", "getattr"):
                target = ast.unparse(node.args[0])
                literal = isinstance(node.args[1], ast.Constant)
                assert not (literal and re.search(r"model|backbone|head\b", target)), f"{path}: {ast.unparse(node)}"
