"""Every class that ``transformers`` has of a family opens: with its head if we have its task, else without it."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from minilm.checkpoints.contents import read_contents
from minilm.checkpoints.files import fingerprint
from minilm.checkpoints.models import card_of, load_model, save_model
from minilm.checkpoints.trained_part import Base
from minilm.errors import UserError
from minilm.finetuning.freezing import freeze
from minilm.models import ARCHITECTURES
from minilm.models.batch import Batch
from minilm.models.heads import HeadConfig
from tests.reference.make_references import compute, random_batch, random_model

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
# The modules that stand beside the backbone.
HEADS = {
    "classifier", "cls", "discriminator_predictions", "head", "multiple_choice_head", "predictions", "qa_outputs",
    "score", "sequence_summary", "sop_classifier",
}  # fmt: skip


def published_classes(model_type: str) -> list[str]:
    """The public classes of the family's module, but for the abstract one that they inherit from."""
    config = type(transformers.AutoConfig.for_model(model_type))
    module = importlib.import_module(config.__module__.replace("configuration_", "modeling_"))
    models = [name for name in module.__all__ if name.endswith("Model") or "For" in name]
    models = [name for name in models if "pretrained" not in name.lower()]
    models = [name for name in models if getattr(transformers, name).config_class is config]
    half = ARCHITECTURES[model_type].language_modeling == "seq2seq"  # a decoder alone is refused
    return [name for name in models if not (half and name.endswith("ForCausalLM"))]


CLASSES = [(model_type, name) for model_type in ARCHITECTURES for name in published_classes(model_type)]
OURS = {name for architecture in ARCHITECTURES.values() for name in architecture.classes.values()}
OTHERS = [(model_type, name) for model_type, name in CLASSES if name not in OURS]


def saved(name: str, folder: Path) -> Any:
    """A small model of a class, with random weights, in a folder."""
    model = random_model(name, {"num_labels": 2}, 1)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(("model_type", "name"), CLASSES)
def test_every_published_class_opens_as_its_backbone_with_the_same_vectors(
    model_type: str, name: str, tmp_path: Path
) -> None:
    tensors = random_batch(there := saved(name, tmp_path), (7, 4), 1)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    model = load_model(tmp_path, "encode")
    assert card_of(model).model_type == model_type
    with torch.no_grad():
        vectors = model(Batch(tensors["ids"], mask, tensors.get("segments")))
    tensors.pop("labels", None)
    expected = compute(there, tensors)["hidden"]
    torch.testing.assert_close(vectors[mask], expected[mask], rtol=1e-5, atol=1e-5)


def test_a_decoder_without_its_encoder_is_refused_by_the_setting_that_says_so(tmp_path: Path) -> None:
    saved("BartForCausalLM", tmp_path)
    with pytest.raises(UserError, match="is_encoder_decoder = False is not supported"):
        load_model(tmp_path)


@pytest.mark.parametrize(("model_type", "name"), OTHERS)
def test_the_head_of_another_task_is_left_out_in_one_line_and_a_new_one_takes_its_place(
    model_type: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = saved(name, tmp_path)
    stored = read_contents(tmp_path)
    if stored.task != "encode":  # another class for one of our tasks
        assert card_of(load_model(tmp_path)).task == stored.task
        return
    with caplog.at_level(logging.WARNING, logger="minilm"):
        model = load_model(tmp_path)
    lines = [record.getMessage() for record in caplog.records if "is ignored" in record.getMessage()]
    heads = HEADS & {parameter.partition(".")[0] for parameter, _ in there.named_parameters()}
    assert len(lines) == bool(heads) and all(f"the head of {name} (" in line for line in lines)
    assert all(head in line for head in heads for line in lines)
    assert card_of(model).task == "encode" and not stored.labels
    why = f": it is a {name}, whose task is not supported" if heads else ""
    with pytest.raises(UserError, match=f"has no classification head{why};"):
        load_model(tmp_path, "classify")
    new = load_model(tmp_path, "classify", labels=["a", "b", "c"], head=HeadConfig("mean"))
    assert card_of(new).labels == ["a", "b", "c"] and new(torch.tensor([[5, 6, 1]])).shape == (1, 3)
    freeze(new, "backbone")
    part = save_model(new, tmp_path / "part", base=Base(str(tmp_path), "", fingerprint(tmp_path)))
    opened = dict(load_model(part).named_parameters())
    assert all(torch.equal(opened[parameter], value) for parameter, value in new.named_parameters())
