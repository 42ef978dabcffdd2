"""ALBERT: its published size, one layer passed many times, what padding may change, where it drops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from minilm.checkpoints.models import load_model
from minilm.checkpoints.names import is_ignored, places_of_theirs, plain_name, rows_of
from minilm.errors import UserError
from minilm.models import build_model
from minilm.models.albert import ARCHITECTURE, Albert, AlbertConfig, initialize
from minilm.models.batch import Batch

BASE = AlbertConfig(width=768, heads=12, mlp_width=3072)  # albert-base-v2
SMALL = AlbertConfig(vocab_size=50, context=16, embedding_width=8, width=12, depth=3, heads=3, mlp_width=20)


def small(config: AlbertConfig = SMALL) -> Albert:
    """A small model in evaluation mode, its weights large enough for differences to show."""
    torch.manual_seed(1)
    model = Albert(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_base_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert count(Albert(BASE)) == 11_683_584


def test_language_head_speaks_the_width_of_the_embeddings() -> None:
    with torch.device("meta"):
        model = build_model("albert", SMALL, "lm")
    assert model.head.output.weight is model.embeddings.token.weight
    assert model.head.dense.weight.shape == (8, 12)


def test_depth_counts_passes_through_one_layer() -> None:
    model, batch = small(), Batch(torch.tensor([[5, 6, 7, 8]]))
    once = model.run(model.embed(batch), batch, 0, 1)
    thrice = model.run(model.run(once, batch, 1, 2), batch, 2, 3)
    assert len(model.layers) == 1
    assert torch.equal(model.finish(thrice), model(batch))
    assert not torch.allclose(once.x, thrice.x, atol=1e-3)


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3), padding=st.integers(1, 6), seed=st.integers(0, 99))
def test_padding_never_changes_a_real_token(lengths: list[int], padding: int, seed: int) -> None:
    model = small()
    draw = torch.Generator().manual_seed(seed)
    length = max(lengths) + padding
    ids = torch.randint(0, 50, (len(lengths), length), generator=draw)
    segments = torch.randint(0, 2, ids.shape, generator=draw)
    mask = torch.arange(length) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        padded = model(ids, mask, segments)
        for row, own in enumerate(lengths):
            alone = model(ids[row : row + 1, :own], None, segments[row : row + 1, :own])
            torch.testing.assert_close(padded[row, :own], alone[0], atol=1e-5, rtol=1e-5)


def test_without_segments_all_is_the_first_text() -> None:
    model, ids = small(), torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(model(ids), model(ids, None, torch.zeros_like(ids)))
    assert not torch.allclose(model(ids), model(ids, None, torch.tensor([[0, 0, 1, 1]])), atol=1e-3)


def test_initial_weights_are_cut_off_and_norms_normalise() -> None:
    model = Albert(SMALL)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 9.0)
    initialize(model)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    assert all(0.005 < p.std() < 0.03 and p.abs().max() <= 0.04 for p in matrices)
    y = model.eval()(torch.tensor([[5, 6, 7, 8]]))
    torch.testing.assert_close(y.mean(-1), torch.zeros(1, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(-1, unbiased=False), torch.ones(1, 4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("key", ["num_hidden_groups", "inner_group_num"])
def test_layers_that_take_turns_are_refused(key: str) -> None:
    assert ARCHITECTURE.read({key: 1}) == {}
    with pytest.raises(UserError, match=f"{key} must be 1"):
        ARCHITECTURE.read({key: 2})


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("encode", "albert.embeddings.LayerNorm.beta"),
        ("encode", "albert.embeddings.position_ids"),
        ("encode", "encoder.albert_layer_groups.0.albert_layers.0.ffn.weight"),
        ("encode", "albert.pooler.weight"),
        ("classify", "classifier.bias"),
        ("lm", "sop_classifier.classifier.weight"),
        ("lm", "predictions.LayerNorm.weight"),
        ("lm", "predictions.decoder.weight"),
        ("lm", "predictions.decoder.bias"),
        ("lm", "predictions.bias"),
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
    shape = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    config = transformers.AlbertConfig(
        vocab_size=50, embedding_size=8, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.1, **shape
    )
    theirs = getattr(transformers, f"Albert{kind}")(config).train()
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


def test_a_model_of_one_segment_ignores_segments() -> None:
    model, ids = small(replace(SMALL, segments=1)), torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(model(ids), model(ids, None, torch.tensor([[0, 0, 1, 1]])))
