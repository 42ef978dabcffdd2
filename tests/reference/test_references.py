"""Every family and task gives the numbers of the published implementation, on batches of texts of different lengths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minilm.checkpoints.files import read_tensors
from minilm.checkpoints.models import card_of, load_model
from minilm.checkpoints.names import plain_name, published_tensors, rows_of
from minilm.generation import generate
from minilm.models import ARCHITECTURES
from minilm.models.batch import Batch
from minilm.textfiles import read_json

FOLDER = Path(__file__).parent
CASES = sorted(path.parent.name for path in FOLDER.glob("*/config.json"))
WRITERS = [name for name in CASES if "prompts.0" in read_tensors(FOLDER / name / "expected.safetensors")]


def load(case: str, task: str | None = None) -> tuple[nn.Module, dict[str, Tensor], Batch]:
    """The model in float32, what it must compute, and from what."""
    expected = read_tensors(FOLDER / case / "expected.safetensors")
    mask = torch.arange(expected["ids"].shape[1]) < expected["lengths"][:, None]
    batch = Batch(expected["ids"], mask, expected.get("segments"), decoder_ids=expected.get("decoder_ids"))
    return load_model(FOLDER / case, task, dtype=torch.float32), expected, batch


def loss_of(model: nn.Module, output: Tensor, batch: Batch, labels: Tensor | None) -> Tensor:
    """What the published class computes when it is given labels; without them, a number that depends on all."""
    if labels is None:
        return output[batch.mask].sin().mean()
    card = card_of(model)
    if card.task == "lm" and ARCHITECTURES[card.model_type].language_modeling == "causal":
        output, labels = output[:, :-1], labels[:, 1:]
    return F.cross_entropy(output.flatten(0, -2), labels.flatten(), ignore_index=-100)


def test_no_family_and_no_task_is_left_out() -> None:
    held = [read_json(FOLDER / case / "config.json") for case in CASES]
    made_for = {(config["model_type"], config["architectures"][0]) for config in held}
    heads = {
        (model_type, kind)
        for model_type, architecture in ARCHITECTURES.items()
        for task, kind in architecture.classes.items()
        if task != "encode"
    }
    assert heads <= made_for


@pytest.mark.parametrize("case", CASES)
def test_vectors_equal_the_reference(case: str) -> None:
    model, expected, batch = load(case, "encode")
    with torch.no_grad():
        hidden = model(replace(batch, decoder_ids=None))  # a decoder reads the text
        torch.testing.assert_close(hidden[batch.mask], expected["hidden"][batch.mask], rtol=1e-5, atol=1e-5)
        if "pooled" in expected:
            torch.testing.assert_close(model.pooler(hidden[:, 0]), expected["pooled"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_logits_loss_and_gradients_equal_the_reference(case: str) -> None:
    model, expected, batch = load(case)
    output = model(batch)
    if "logits" in expected:
        real = batch.mask if output.dim() == 3 and batch.decoder_ids is None else ...
        torch.testing.assert_close(output[real], expected["logits"][real], rtol=1e-5, atol=1e-5)
    loss = loss_of(model, output, batch, expected.get("labels"))
    torch.testing.assert_close(loss, expected["loss"], rtol=1e-5, atol=1e-5)
    loss.backward()
    card = card_of(model)
    rows = rows_of(ARCHITECTURES[card.model_type].names, model.config, card.task, prefixed=True)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    names = ARCHITECTURES[card.model_type].names  # a head may have two spellings
    published = {plain_name(name, names): gradient for name, gradient in published_tensors(gradients, rows)}
    compared = [name.removeprefix("grad.") for name in expected if name.startswith("grad.")]
    assert compared
    for name in compared:
        wanted = expected[f"grad.{name}"]
        difference = (published[plain_name(name, names)] - wanted).norm() / wanted.norm()
        assert difference < 1e-4, name


@pytest.mark.parametrize("case", WRITERS)
def test_greedy_continuations_equal_the_reference(case: str) -> None:
    model, expected, _ = load(case)
    prompts = [expected[f"prompts.{i}"].tolist() for i in range(3)]
    wanted = [expected[f"continuations.{i}"].tolist() for i in range(3)]
    assert generate(model, prompts, len(wanted[0])) == wanted
