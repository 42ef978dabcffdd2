"""BERT and RoBERTa: their published sizes, what a token may see, where RoBERTa's positions begin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from minilm.checkpoints.models import load_model
from minilm.checkpoints.names import is_ignored, places_of_theirs, plain_name, rows_of
from minilm.errors import UserError
from minilm.models import build_model
from minilm.models.architecture import Architecture
from minilm.models.batch import Batch
from minilm.models.bert import ARCHITECTURE, ROBERTA, XLM_ROBERTA, Bert, BertConfig, initialize

SMALL = BertConfig(vocab_size=50, context=16, width=12, depth=2, heads=3, mlp_width=20)


def small(config: BertConfig = SMALL) -> Bert:
    """A small model in evaluation mode, its weights large enough for differences to show."""
    torch.manual_seed(1)
    model = Bert(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("vocab_size", "parameters"), [(30522, 109_482_240), (28996, 108_310_272)])
def test_base_has_the_published_number_of_parameters(vocab_size: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count(Bert(BertConfig(vocab_size=vocab_size))) == parameters


def test_language_head_adds_its_transform_and_one_number_a_word() -> None:
    config = BertConfig(pooler=False)
    with torch.device("meta"):
        added = count(build_model("bert", config, "lm")) - count(Bert(config))
    assert added == 768 * 768 + 768 + 2 * 768 + 30522  # dense, norm, bias: the words' matrix is shared


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    padding=st.integers(1, 6),
    seed=st.integers(0, 99),
    first=st.sampled_from([0, 2]),
)
def test_padding_never_changes_a_real_token(lengths: list[int], padding: int, seed: int, first: int) -> None:
    model = small(replace(SMALL, first_position=first))
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


def test_every_token_sees_every_other() -> None:
    def first_and_last(ids: Tensor) -> Tensor:
        return small()(ids)[0, [0, -1]]

    ids = torch.tensor([[5, 6, 7, 8]])
    right, left = torch.tensor([[5, 6, 7, 9]]), torch.tensor([[9, 6, 7, 8]])
    assert not torch.allclose(first_and_last(ids)[0], first_and_last(right)[0], atol=1e-3)
    assert not torch.allclose(first_and_last(ids)[1], first_and_last(left)[1], atol=1e-3)


def test_without_segments_all_is_the_first_text() -> None:
    model, ids = small(), torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(model(ids), model(ids, None, torch.zeros_like(ids)))
    assert not torch.allclose(model(ids), model(ids, None, torch.tensor([[0, 0, 1, 1]])), atol=1e-3)


def test_a_model_of_one_segment_ignores_segments() -> None:
    model, ids = small(replace(SMALL, segments=1)), torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(model(ids), model(ids, None, torch.tensor([[0, 0, 1, 1]])))


def test_layers_can_be_run_in_parts() -> None:
    model, batch = small(), Batch(torch.tensor([[5, 6, 7, 8]]))
    state = model.run(model.run(model.embed(batch), batch, 0, 1), batch, 1, 2)
    assert torch.equal(model.finish(state), model(batch))


def test_initial_weights_are_cut_off_and_norms_normalise() -> None:
    model = Bert(SMALL)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 9.0)
    initialize(model)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    assert all(0.005 < p.std() < 0.03 and p.abs().max() <= 0.04 for p in matrices)
    y = model.eval()(torch.tensor([[5, 6, 7, 8]]))
    torch.testing.assert_close(y.mean(-1), torch.zeros(1, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(-1, unbiased=False), torch.ones(1, 4), atol=1e-3, rtol=0)


def test_roberta_reads_only_the_rows_after_paddings_own() -> None:
    published = {"pad_token_id": 1, "max_position_embeddings": 514}
    config = replace(SMALL, **ROBERTA.read(published))
    assert (config.first_position, config.context) == (2, 512)
    assert ROBERTA.write(config) == published
    model, ids = small(config), torch.tensor([[5, 6, 7, 8]])
    model(ids).square().sum().backward()
    used = model.embeddings.position.weight.grad.abs().sum(-1) > 0
    assert used.nonzero().flatten().tolist() == [2, 3, 4, 5]


def test_a_classifiers_dropout_is_the_layers_where_it_has_none_of_its_own() -> None:
    assert ARCHITECTURE.read({"hidden_dropout_prob": 0.3, "classifier_dropout": None}) == {"head_dropout": 0.3}
    assert ARCHITECTURE.read({"hidden_dropout_prob": 0.3, "classifier_dropout": 0.2}) == {}


def test_a_bert_that_reads_one_way_is_refused() -> None:
    with pytest.raises(UserError, match="is_decoder"):
        ARCHITECTURE.read({"is_decoder": True})


@pytest.mark.parametrize(
    ("architecture", "task", "name"),
    [
        (ARCHITECTURE, "encode", "bert.embeddings.LayerNorm.gamma"),
        (ARCHITECTURE, "encode", "encoder.layer.11.output.LayerNorm.beta"),
        (ARCHITECTURE, "encode", "bert.embeddings.position_ids"),
        (ARCHITECTURE, "encode", "bert.pooler.dense.bias"),
        (ARCHITECTURE, "classify", "classifier.weight"),
        (ARCHITECTURE, "lm", "cls.seq_relationship.weight"),
        (ARCHITECTURE, "lm", "cls.sso.sso_relationship.bias"),
        (ARCHITECTURE, "lm", "cls.predictions.decoder.weight"),
        (ARCHITECTURE, "lm", "cls.predictions.decoder.bias"),
        (ARCHITECTURE, "lm", "cls.predictions.bias"),
        (ROBERTA, "encode", "roberta.pooler.dense.weight"),
        (ROBERTA, "classify", "classifier.out_proj.bias"),
        (XLM_ROBERTA, "lm", "lm_head.layer_norm.bias"),
        (XLM_ROBERTA, "lm", "lm_head.decoder.bias"),
    ],
)
def test_names_of_published_files_are_known(architecture: Architecture, task: str, name: str) -> None:
    plain = plain_name(name, architecture.names)
    rows = rows_of(architecture.names, SMALL, task)
    assert is_ignored(plain, architecture.names) or len(places_of_theirs(plain, rows)) == 1


@pytest.mark.parametrize(
    ("family", "kind"), [("Bert", "ForSequenceClassification"), ("Roberta", "ForMaskedLM"), ("XLMRoberta", "Model")]
)
@pytest.mark.usefixtures("torch_dropout")
def test_training_draws_the_same_dropout_as_transformers(family: str, kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=50, max_position_embeddings=16, hidden_dropout_prob=0.3, classifier_dropout=0.2, **shape
    )
    theirs = getattr(transformers, family + kind)(config).train()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path).train()
    if ours.head is not None:
        ours.head.query_position = lambda batch: None  # the last layer computes all positions, as theirs does
    ids = torch.randint(5, 50, (2, 9))
    mask = torch.arange(9) < torch.tensor([[9], [6]])
    ids[~mask] = config.pad_token_id
    torch.manual_seed(2)
    y = theirs(input_ids=ids, attention_mask=mask.long())
    y = y.last_hidden_state if kind == "Model" else y.logits
    torch.manual_seed(2)
    z = ours(ids, mask)
    real = mask if y.dim() == 3 else torch.ones(2, dtype=torch.bool)
    torch.testing.assert_close(z[real], y[real], atol=1e-5, rtol=1e-5)
