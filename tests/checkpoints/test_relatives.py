"""What is refused is refused with what to take instead: by kinship, never by spelling."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import minilm
from minilm.checkpoints.configs import architecture_of
from minilm.checkpoints.relatives import USUAL, instead_of, relatives
from minilm.errors import UserError
from minilm.hub import catalogue
from minilm.models import ARCHITECTURES

NESTED = {family for architecture in ARCHITECTURES.values() for family in architecture.nested_in}  # open too
REFERENCE = Path(__file__).parents[1] / "reference"


def test_every_relative_has_one_row_and_every_substitute_is_in_the_catalogue() -> None:
    families = [family for kin in relatives() for family in kin.families]
    assert len(families) == len(set(families))
    assert not {family for family in families if family in ARCHITECTURES}
    assert {name for kin in relatives() for name in kin.instead} | set(USUAL) <= set(catalogue())


def test_every_published_classifier_of_texts_is_ours_or_has_kin() -> None:
    auto = pytest.importorskip("transformers.models.auto.modeling_auto")
    families = {family for kin in relatives() for family in kin.families}
    assert set(auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES) <= families | set(ARCHITECTURES) | NESTED


def test_no_published_family_is_taken_for_a_slip_of_the_pen() -> None:
    auto = pytest.importorskip("transformers.models.auto.configuration_auto")
    others = set(auto.CONFIG_MAPPING_NAMES) - set(ARCHITECTURES) - NESTED
    taken = {family for family in others if "did you mean" in instead_of(family)}
    assert taken == set()


@pytest.mark.parametrize(
    ("model_type", "wanted"),
    [
        ("longformer", "it is for long texts; modernbert reads 8,192 tokens; use modernbert or mmbert"),
        ("mbart", "it is a relative of BART; use bart-base or flan-t5"),
        ("bloom", "it is a decoder that writes; use gpt2 or bielik"),
        ("convbert", "it is a BERT with changed layers; use bert or modernbert or mmbert"),
        ("qwen3_moe", "it is a relative of Qwen3 with changed layers; use qwen3-0.6b or qwen3-1.7b"),
        ("bertt", 'did you mean "bert"'),
        ("a-new-idea", "is not supported; use modernbert or mmbert or minilm instead"),
    ],
)
def test_the_line_names_what_would_do(model_type: str, wanted: str) -> None:
    with pytest.raises(UserError) as raised:
        architecture_of({"model_type": model_type}, "x/config.json")
    assert wanted in str(raised.value) and "\n" not in str(raised.value)
    assert str(raised.value).endswith(f"supported are: {', '.join(sorted(ARCHITECTURES))}")


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt", ".h5"])
def test_pickled_weights_in_a_folder_are_refused_with_both_ways_out(suffix: str, tmp_path: Path) -> None:
    config = json.loads((REFERENCE / "bert-classify/config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / f"pytorch_model{suffix}").write_bytes(b"cos\nsystem\n")
    with pytest.raises(UserError) as raised:
        minilm.load_model(tmp_path)
    text = str(raised.value)
    assert f"stored only in pytorch_model{suffix}" in text and "\n" not in text
    assert 'revision = "refs/pr/N"' in text
    assert f'BertForSequenceClassification.from_pretrained("{tmp_path}").save_pretrained("FOLDER", safe_' in text
