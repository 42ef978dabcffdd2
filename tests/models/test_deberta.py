"""DeBERTa: its published sizes, its buckets, its convolution, its settings, both spellings of its language head."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from minilm.checkpoints.configs import read_config, write_config
from minilm.checkpoints.files import read_json, read_tensors, write_tensors
from minilm.checkpoints.models import load_model, save_model
from minilm.checkpoints.names import is_ignored, places_of_theirs, plain_name, rows_of
from minilm.errors import UserError
from minilm.models import ARCHITECTURES, build_model, without_weights
from minilm.models.batch import Batch
from minilm.models.deberta import DebertaConfig, bucket, relative_rows
from minilm.models.deberta_family import Deberta1Config
from tests.families import mask_of, small_config, small_model

REFERENCE = Path(__file__).parents[1] / "reference"

# Configurations of published checkpoints, from memory.
V3 = {
    "model_type": "deberta-v2", "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02, "max_position_embeddings": 512, "relative_attention": True, "position_buckets": 256,
    "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": "p2c|c2p", "layer_norm_eps": 1e-7,
    "max_relative_positions": -1, "position_biased_input": False, "type_vocab_size": 0, "vocab_size": 128100,
}  # fmt: skip
V2 = {**V3, "pos_att_type": "c2p|p2c", "conv_kernel_size": 3, "conv_act": "gelu", "attention_head_size": 64}
V1 = {
    "model_type": "deberta", "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "max_position_embeddings": 512, "relative_attention": True, "pos_att_type": "c2p|p2c", "layer_norm_eps": 1e-7,
    "padding_idx": 0, "max_relative_positions": -1, "position_biased_input": False, "type_vocab_size": 0,
    "vocab_size": 50265,
}  # fmt: skip


def shape(width: int, depth: int, heads: int) -> dict[str, int]:
    return {
        "hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "intermediate_size": 4 * width
    }  # fmt: skip


PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {  # and how many parameters their backbones have
    "microsoft/deberta-v3-xsmall": ({**V3, **shape(384, 12, 6)}, 70_682_112),
    "microsoft/deberta-v3-small": ({**V3, **shape(768, 6, 12)}, 141_304_320),
    "microsoft/deberta-v3-base": ({**V3, **shape(768, 12, 12)}, 183_831_552),
    "microsoft/deberta-v3-large": ({**V3, **shape(1024, 24, 16)}, 434_012_160),
    "microsoft/mdeberta-v3-base": ({**V3, **shape(768, 12, 12), "vocab_size": 251000}, 278_218_752),
    "microsoft/deberta-v2-xlarge": ({**V2, **shape(1536, 24, 24)}, 884_593_152),
    "microsoft/deberta-v2-xxlarge": ({**V2, **shape(1536, 48, 24)}, 1_564_549_632),
    "microsoft/deberta-base": ({**V1, **shape(768, 12, 12)}, 138_601_728),
    "microsoft/deberta-large": ({**V1, **shape(1024, 24, 16)}, 405_163_008),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_number_of_parameters(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    published, parameters = PUBLISHED[name]
    with without_weights():
        ours = build_model(published["model_type"], read_config(published), "encode")
    assert sum(p.numel() for p in ours.parameters()) == parameters
    with torch.device("meta"):
        theirs = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**published))
    assert sum(p.numel() for p in theirs.parameters()) == parameters


def plain_bucket(distance: int, buckets: int, max_distance: int) -> float:
    """One distance's; the fraction tells how close it lies to the next."""
    near, size = buckets // 2, abs(distance)
    if size <= near:
        return distance
    return math.copysign(near + math.log(size / near) / math.log((max_distance - 1) / near) * (near - 1), distance)


@given(distance=st.integers(-600, 600), buckets=st.sampled_from([4, 32, 256]), max_distance=st.integers(200, 512))
def test_buckets_are_equal_steps_of_the_logarithm(distance: int, buckets: int, max_distance: int) -> None:
    expected = plain_bucket(distance, buckets, max_distance)
    assume(abs(expected - round(expected)) > 1e-4 or abs(distance) <= buckets // 2)  # float32 may round either way
    rounded = math.copysign(math.ceil(abs(expected)), distance)
    assert bucket(torch.tensor(distance), buckets, max_distance) == int(rounded)


def test_buckets_of_the_published_models_are_those_of_transformers() -> None:
    theirs = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2").make_log_bucket_position
    distance = torch.arange(-511, 512)
    for buckets, longest in ((256, 512), (32, 512), (6, 24)):
        ours = bucket(distance, buckets, longest)
        assert torch.equal(ours, theirs(distance, buckets, longest).long())
    assert int(bucket(torch.tensor(511), 256, 512)) == 255


def test_distances_beyond_the_table_share_its_ends() -> None:
    config = DebertaConfig(max_distance=2, relative=True)
    assert relative_rows(4, config).tolist() == [0, 0, 1, 2, 3, 3, 3]
    assert small_config("deberta-v2", max_distance=0, buckets=0).reach == 512


def test_positions_enter_by_distance_alone() -> None:
    """Without a table of absolute positions, only the relative ones tell a text from its words in another order."""
    model, ids = small_model("deberta-v2", "encode", kernel=0), torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        moved = model(ids[:, [1, 0, 2, 3]])[:, [1, 0, 2, 3]]
        assert not torch.allclose(moved, model(ids), atol=1e-3)
        alike = small_model("deberta-v2", "encode", kernel=0, relative=False)
        torch.testing.assert_close(alike(ids[:, [1, 0, 2, 3]])[:, [1, 0, 2, 3]], alike(ids), atol=1e-5, rtol=1e-5)


def test_a_convolution_sees_its_neighbours_and_no_padding() -> None:
    model = small_model("deberta-v2", "encode", depth=1, kernel=3, relative=False)
    ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]])
    with torch.no_grad():
        y = model(ids, mask_of([5, 3], 5))
        torch.testing.assert_close(y[1:, :3], model(ids[1:, :3]), atol=1e-5, rtol=1e-5)


def test_the_language_heads_two_spellings_are_one_head(tmp_path: Path) -> None:
    """As version 3 is published: without "architectures" and "legacy", its head in the older spelling."""
    folder = REFERENCE / "deberta-v2-lm-new"
    config, tensors = read_json(folder / "config.json"), read_tensors(folder / "model.safetensors")
    assert "lm_predictions.lm_head.dense.weight" in tensors and "mask_predictions.dense.weight" in tensors
    del config["legacy"], config["architectures"]
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    write_tensors(tmp_path / "old" / "model.safetensors", tensors)
    expected = read_tensors(folder / "expected.safetensors")
    batch = Batch(expected["ids"], mask_of(expected["lengths"].tolist(), expected["ids"].shape[1]))
    save_model(load_model(tmp_path / "old", "lm"), tmp_path / "new")
    assert "cls.predictions.transform.dense.weight" in read_tensors(tmp_path / "new" / "model.safetensors")
    with torch.no_grad():
        for written in ("old", "new"):
            scores = load_model(tmp_path / written, "lm")(batch)
            torch.testing.assert_close(scores[batch.mask], expected["logits"][batch.mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("deberta-v2", "deberta.embeddings.word_embeddings.weight"),
        ("deberta-v2", "deberta.encoder.rel_embeddings.weight"),
        ("deberta-v2", "deberta.encoder.LayerNorm.bias"),
        ("deberta-v2", "encoder.conv.conv.weight"),
        ("deberta-v2", "deberta.encoder.layer.11.attention.self.pos_query_proj.weight"),
        ("deberta-v2", "deberta.embeddings.position_ids"),
        ("deberta-v2", "lm_predictions.lm_head.LayerNorm.weight"),
        ("deberta-v2", "mask_predictions.classifier.weight"),
        ("deberta", "deberta.encoder.layer.0.attention.self.in_proj.weight"),
        ("deberta", "deberta.encoder.layer.0.attention.self.v_bias"),
        ("deberta", "deberta.encoder.layer.0.attention.self.pos_proj.weight"),
    ],
)
def test_names_of_published_files_are_known(family: str, name: str) -> None:
    names = ARCHITECTURES[family].names
    rows = rows_of(names, small_config(family), "lm")
    held = places_of_theirs(plain_name(name, names), rows)
    assert held or is_ignored(plain_name(name, names), names)
    assert len(held) == 3 if "in_proj" in name else len(held) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_att_type": "c2p|p2p"}, "pos_att_type 'p2p' is not supported"),
        ({"attention_head_size": 32}, "attention_head_size must be"),
        ({"pooler_hidden_size": 32}, "pooler_hidden_size must be"),
        ({"conv_kernel_size": 4}, "kernel must be odd"),
        ({"conv_kernel_size": 3, "conv_groups": 7}, "kernel_groups must divide"),
        ({"position_buckets": 1}, "buckets must not be 1"),
        ({"conv_act": "glu"}, 'activation "glu" is not supported'),
        ({"model_type": "deberta", "talking_head": True}, "talking_head"),
    ],
)
def test_what_is_not_supported_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_config({**V3, **shape(768, 12, 12), **change})


def test_settings_come_back_and_version_1_reads_none_of_version_2() -> None:
    for published, _ in PUBLISHED.values():
        config = read_config(published)
        written = write_config(published["model_type"], config)
        assert "minilm" not in written and read_config(written) == config
    config = read_config({**V3, "model_type": "deberta", "cls_dropout": 0.3})
    assert (config.buckets, config.relative_norm, config.shared, config.head_dropout) == (0, False, False, 0.3)
    assert read_config(V3).head_dropout == read_config(V3).dropout == 0.1
    with pytest.raises(UserError, match="shared = False"):
        write_config("deberta", Deberta1Config(shared=True))
    with pytest.raises(UserError, match="key_bias = True"):
        write_config("deberta-v2", replace(DebertaConfig(), key_bias=False))


@pytest.mark.parametrize("case", ["deberta-classify", "deberta-v2-classify"])
@pytest.mark.usefixtures("torch_dropout")
def test_training_draws_the_same_dropout_as_transformers(case: str) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(REFERENCE / case).train()
    ours = load_model(REFERENCE / case).train()
    ours.head.query_position = lambda batch: None  # the last layer computes all positions, as theirs does
    ids, mask = torch.randint(5, 60, (2, 9)), mask_of([9, 6], 9)
    ids[~mask] = 0
    torch.manual_seed(2)
    expected = theirs(input_ids=ids, attention_mask=mask.long()).logits
    torch.manual_seed(2)
    torch.testing.assert_close(ours(ids, mask), expected, atol=1e-5, rtol=1e-5)
