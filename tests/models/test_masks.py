"""Who sees whom: padding is never seen, in any family, and a decoder never looks ahead."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from minilm.checkpoints.models import load_model
from minilm.models.batch import Batch
from tests.families import DECODERS, ENCODER_DECODERS, FAMILIES, mask_of

REFERENCES = Path(__file__).parent.parent / "reference"
# Every family, by its reference classifier's backbone, and the cases whose masks or positions are special.
LEFT_TO_RIGHT = [f"{family}-classify" for family in DECODERS]
LEFT_TO_RIGHT += ["llama-dynamic", "llama-yarn", "mistral-lm-window", "qwen2-lm-window"]
BOTH_SIDES = [f"{family}-classify" for family in FAMILIES if family not in DECODERS] + ["gemma3_text-bidirectional"]
seeds = st.integers(0, 1 << 20)


@cache
def model_of(case: str, task: str = "encode") -> Any:
    return load_model(REFERENCES / case, task, dtype=torch.float32)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randint(4, 60, shape, generator=torch.Generator().manual_seed(seed))


def test_a_batch_that_has_its_own_mask_takes_no_other() -> None:
    batch = Batch(draw(0, 2, 5))
    for given_too in ({"mask": mask_of([3, 5], 5)}, {"segments": torch.zeros(2, 5, dtype=torch.long)}):
        with pytest.raises(ValueError, match="a Batch contains mask, segments and decoder_ids"):
            Batch.of(batch, **given_too)


@pytest.mark.parametrize("case", LEFT_TO_RIGHT + BOTH_SIDES)
@settings(max_examples=8)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3), more=st.integers(0, 8), seed=seeds)
@torch.no_grad()
def test_padding_never_changes_a_real_token(case: str, lengths: list[int], more: int, seed: int) -> None:
    model, longest = model_of(case), max(lengths) + more
    ids, mask = draw(seed, len(lengths), longest), mask_of(lengths, longest)
    segments = draw(seed, len(lengths), longest) % 2
    output = model(ids, mask, segments)
    other = torch.where(mask, ids, draw(seed + 1, *ids.shape)), mask, torch.where(mask, segments, 1 - segments)
    assert torch.equal(model(*other)[mask], output[mask])  # what lies there
    for row, length in enumerate(lengths):  # how much of it there is
        alone = model(ids[row : row + 1, :length], None, segments[row : row + 1, :length])
        torch.testing.assert_close(output[row, :length], alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [f"{family}-classify" for family in FAMILIES])
@settings(max_examples=8)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3), more=st.integers(0, 8), seed=seeds)
@torch.no_grad()
def test_padding_never_changes_a_class(case: str, lengths: list[int], more: int, seed: int) -> None:
    model, longest = model_of(case, "classify"), max(lengths) + more
    ids, mask = draw(seed, len(lengths), longest), mask_of(lengths, longest)
    scores = model(ids, mask)
    for row, length in enumerate(lengths):
        alone = model(ids[row : row + 1, :length])
        torch.testing.assert_close(scores[row : row + 1], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", LEFT_TO_RIGHT)
@settings(max_examples=8)
@given(length=st.integers(2, 14), place=st.integers(1, 13), seed=seeds)
@torch.no_grad()
def test_a_later_token_never_changes_an_earlier_one(case: str, length: int, place: int, seed: int) -> None:
    model, ids, place = model_of(case), draw(seed, 1, length), min(place, length - 1)
    changed = torch.cat((ids[:, :place], draw(seed + 1, 1, length - place)), dim=1)
    assert torch.equal(model(changed)[:, :place], model(ids)[:, :place])


@pytest.mark.parametrize("case", LEFT_TO_RIGHT + BOTH_SIDES)
@torch.no_grad()
def test_a_real_token_does_change_those_that_see_it(case: str) -> None:
    model, ids = model_of(case), draw(1, 1, 6)
    ids[0, 3] = 5
    changed = ids.clone()
    changed[0, 3] = 6
    moved = (model(changed) != model(ids)).any(dim=-1)[0]
    assert moved[3:5].all() and moved[:3].all() == (case in BOTH_SIDES)


@pytest.mark.parametrize("case", ["t5-lm-flan", *(f"{family}-lm" for family in ENCODER_DECODERS)])
@settings(max_examples=8)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3), place=st.integers(1, 5), seed=seeds)
@torch.no_grad()
def test_a_decoder_looks_neither_ahead_nor_at_padding(case: str, lengths: list[int], place: int, seed: int) -> None:
    model, longest = model_of(case, "lm"), max(lengths) + 2
    ids, mask = draw(seed, len(lengths), longest), mask_of(lengths, longest)
    written = draw(seed + 1, len(lengths), 6)
    scores = model(Batch(ids, mask, decoder_ids=written))
    elsewhere = torch.where(mask, ids, draw(seed + 2, *ids.shape))
    assert torch.equal(model(Batch(elsewhere, mask, decoder_ids=written)), scores)
    later = torch.cat((written[:, :place], draw(seed + 3, len(lengths), 6 - place)), dim=1)
    assert torch.equal(model(Batch(ids, mask, decoder_ids=later))[:, :place], scores[:, :place])
    for row, length in enumerate(lengths):
        alone = model(ids[row : row + 1, :length], decoder_ids=written[row : row + 1])
        torch.testing.assert_close(scores[row : row + 1], alone, rtol=1e-5, atol=1e-5)
