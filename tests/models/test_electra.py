"""ELECTRA: its published sizes, tokens' short vectors, its generator's head, where it drops, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from minilm.checkpoints.configs import read_config
from minilm.checkpoints.models import load_model
from minilm.errors import UserError
from minilm.models import build_model, without_weights
from tests.families import small_model

transformers = pytest.importorskip("transformers")

# As the Hub has them, from memory: what their config.json says beside the published class's defaults.
BASE: dict[str, Any] = {
    "embedding_size": 768, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072,
}  # fmt: skip
LARGE: dict[str, Any] = {
    "embedding_size": 1024, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096,
    "num_hidden_layers": 24,
}  # fmt: skip
BASE_GENERATOR = {"embedding_size": 768}
PUBLISHED = {
    "electra-small-discriminator": ({}, "encode", 13_483_008),
    "electra-base-discriminator": (BASE, "encode", 108_891_648),
    "electra-large-discriminator": (LARGE, "encode", 334_092_288),
    "electra-small-generator": ({}, "lm", 13_546_682),
    "electra-base-generator": (BASE_GENERATOR, "lm", 33_740_602),
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_checkpoint_has_the_number_of_parameters_that_it_has_there(name: str) -> None:
    settings, task, parameters = PUBLISHED[name]
    with without_weights():
        model = build_model("electra", read_config({"model_type": "electra", **settings}), task)
    kind = {"encode": "ElectraModel", "lm": "ElectraForMaskedLM"}[task]
    with torch.device("meta"):
        theirs = getattr(transformers, kind)(transformers.ElectraConfig(**settings))
    theirs.tie_weights()
    assert count(model) == count(theirs) == parameters


def test_a_token_as_wide_as_the_layers_needs_no_projection() -> None:
    for width, shapes in ((8, [(24, 8), (24,)]), (24, [])):
        model = small_model("electra", "encode", embedding_width=width)
        assert [tuple(p.shape) for p in model.embeddings.get_submodule("projection").parameters()] == shapes
        assert model.token_embedding.embedding_dim == width


def test_the_generators_head_speaks_the_width_of_the_embeddings() -> None:
    model: Any = small_model("electra", "lm")
    assert model.head.output.weight is model.embeddings.token.weight
    assert model.head.dense.weight.shape == (8, 24) and model.head.norm.weight.shape == (8,)


def test_segments_tell_the_two_texts_of_a_pair_apart_if_there_are_two_kinds() -> None:
    ids, segments = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[0, 0, 1, 1]])
    for kinds in (2, 1):
        model = small_model("electra", "encode", segments=kinds)
        assert torch.equal(model(ids), model(ids, None, torch.zeros_like(ids)))
        assert torch.equal(model(ids), model(ids, None, segments)) == (kinds == 1)


@pytest.mark.parametrize("key", ["is_decoder", "add_cross_attention"])
def test_a_decoder_is_refused(key: str) -> None:
    with pytest.raises(UserError, match="is_decoder"):
        read_config({"model_type": "electra", key: True})


def test_vectors_of_no_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="embedding_size must be above 0"):
        read_config({"model_type": "electra", "embedding_size": 0})


@pytest.mark.parametrize("kind", ["ForSequenceClassification", "ForMaskedLM"])
@pytest.mark.usefixtures("torch_dropout")
def test_training_draws_the_same_dropout_as_transformers(kind: str, tmp_path: Path) -> None:
    config = transformers.ElectraConfig(
        vocab_size=50, embedding_size=8, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=20, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.1, classifier_dropout=0.4,
    )  # fmt: skip
    theirs = getattr(transformers, f"Electra{kind}")(config).train()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path).train()
    ours.head.query_position = lambda batch: None  # the last layer computes all positions, as theirs does
    ids, mask = torch.randint(5, 50, (2, 9)), torch.arange(9) < torch.tensor([[9], [6]])
    torch.manual_seed(2)
    y = theirs(input_ids=ids, attention_mask=mask.long()).logits
    torch.manual_seed(2)
    z = ours(ids, mask)
    real = mask if y.dim() == 3 else torch.ones(2, dtype=torch.bool)
    torch.testing.assert_close(z[real], y[real], atol=1e-5, rtol=1e-5)
