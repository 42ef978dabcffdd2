"""DistilBERT: its published size, what padding may change, where it drops."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from minilm.checkpoints.models import load_model
from minilm.checkpoints.names import is_ignored, places_of_theirs, plain_name, rows_of
from minilm.models import build_model
from minilm.models.batch import Batch
from minilm.models.distilbert import ARCHITECTURE, DistilBert, DistilBertConfig, initialize

SMALL = DistilBertConfig(vocab_size=50, context=16, width=12, depth=2, heads=3, mlp_width=20)


def small() -> DistilBert:
    """A small model in evaluation mode, its weights large enough for differences to show."""
    torch.manual_seed(1)
    model = DistilBert(SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_base_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert count(DistilBert(DistilBertConfig())) == 66_362_880
        classifier = build_model("distilbert", DistilBertConfig(), "classify", classes=4)
    assert count(classifier) == 66_362_880 + (768 + 1) * 768 + (768 + 1) * 4


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3), padding=st.integers(1, 6), seed=st.integers(0, 99))
def test_padding_never_changes_a_real_token(lengths: list[int], padding: int, seed: int) -> None:
    model = small()
    length = max(lengths) + padding
    ids = torch.randint(0, 50, (len(lengths), length), generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(length) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        padded = model(ids, mask)
        for row, own in enumerate(lengths):
            alone = model(ids[row : row + 1, :own])
            torch.testing.assert_close(padded[row, :own], alone[0], atol=1e-5, rtol=1e-5)


def test_segments_are_not_looked_at() -> None:
    model, ids = small(), torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(model(ids), model(ids, None, torch.tensor([[0, 0, 1, 1]])))


def test_layers_can_be_run_in_parts() -> None:
    model, batch = small(), Batch(torch.tensor([[5, 6, 7, 8]]))
    state = model.run(model.run(model.embed(batch), batch, 0, 1), batch, 1, 2)
    assert torch.equal(model.finish(state), model(batch))


def test_initial_norms_normalise() -> None:
    model = DistilBert(SMALL)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 9.0)
    initialize(model)
    assert all(0.005 < p.std() < 0.03 for p in model.parameters() if p.dim() == 2)
    y = model.eval()(torch.tensor([[5, 6, 7, 8]]))
    torch.testing.assert_close(y.mean(-1), torch.zeros(1, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(-1, unbiased=False), torch.ones(1, 4), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("encode", "distilbert.embeddings.LayerNorm.gamma"),
        ("encode", "distilbert.embeddings.position_ids"),
        ("encode", "transformer.layer.5.ffn.lin1.bias"),
        ("classify", "pre_classifier.weight"),
        ("lm", "vocab_projector.weight"),
    ],
)
def test_names_of_published_files_are_known(task: str, name: str) -> None:
    plain = plain_name(name, ARCHITECTURE.names)
    rows = rows_of(ARCHITECTURE.names, SMALL, task)
    assert is_ignored(plain, ARCHITECTURE.names) or len(places_of_theirs(plain, rows)) == 1


@pytest.mark.parametrize("kind", ["ForSequenceClassification", "ForMaskedLM"])
@pytest.mark.usefixtures("torch_dropout")
def test_training_draws_the_same_dropout_as_transformers(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.DistilBertConfig(
        vocab_size=50, max_position_embeddings=16, dim=12, n_layers=2, n_heads=3, hidden_dim=20, dropout=0.3
    )
    theirs = getattr(transformers, f"DistilBert{kind}")(config).train()
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
