"""The next token is chosen as ``transformers`` chooses it, and as often as it is likely."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process

from minilm.errors import UserError
from minilm.sampling import GREEDY, Sampling, choose, draw, penalize, warp


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.1, 3),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.05, 1),
    penalty=st.floats(0.3, 3),
)
def test_scores_are_processed_as_in_transformers(
    seed: int, temperature: float, top_k: int, top_p: float, penalty: float
) -> None:
    chance = torch.Generator().manual_seed(seed)
    z = torch.randn(3, 30, generator=chance) * 4
    ids = torch.randint(0, 30, (3, 6), generator=chance)
    wanted = logits_process.RepetitionPenaltyLogitsProcessor(penalty)(ids, z.clone())
    wanted = logits_process.TemperatureLogitsWarper(temperature)(ids, wanted)
    wanted = logits_process.TopKLogitsWarper(top_k)(ids, wanted) if top_k else wanted
    wanted = logits_process.TopPLogitsWarper(top_p)(ids, wanted)
    seen = torch.zeros(3, 30, dtype=torch.bool).scatter(1, ids, True)
    got = warp(penalize(z, seen, penalty), Sampling(temperature, top_k, top_p, penalty))
    torch.testing.assert_close(got.softmax(-1), wanted.softmax(-1), atol=1e-6, rtol=1e-5)
    assert torch.equal(got.isinf(), wanted.isinf())


@given(seed=st.integers(0, 10_000), cut=st.integers(0, 6))
def test_tokens_are_drawn_as_often_as_they_are_likely_and_never_where_cut_off(seed: int, cut: int) -> None:
    z = torch.randn(8, generator=torch.Generator().manual_seed(seed)) * 2
    z[torch.randperm(8, generator=torch.Generator().manual_seed(seed))[:cut]] = -math.inf
    uniform = (torch.arange(4000) + 0.5)[:, None] / 4000
    shares = torch.bincount(draw(z.expand(4000, -1), uniform), minlength=8) / 4000
    torch.testing.assert_close(shares, z.softmax(-1), atol=1e-3, rtol=0)
    ends = draw(z.expand(2, -1), torch.tensor([[0.0], [1 - 2**-24]]))  # the least and the greatest that there are
    assert z[ends].isfinite().all()


def test_without_temperature_the_likeliest_token_is_taken() -> None:
    assert choose(torch.tensor([[1.0, 3.0, 2.0], [-5.0, -6.0, -4.0]]), GREEDY, []).tolist() == [1, 2]


def test_each_text_draws_from_its_own_random_numbers() -> None:
    def draws(*seeds: int) -> list[int]:
        chance = [torch.Generator().manual_seed(seed) for seed in seeds]
        return choose(torch.zeros(len(seeds), 1000), Sampling(1.0), chance).tolist()

    assert draws(1, 2, 1) == [*draws(1), *draws(2), *draws(1)]
    assert draws(1) != draws(2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": 1.0, "top_k": -1},
        {"temperature": 1.0, "top_p": 0.0},
        {"repetition_penalty": 0.0},
        {"seed": -1},
        {"top_k": 5},
    ],
)
def test_settings_that_make_no_sense_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=list(wrong)[-1]):
        Sampling(**wrong)
