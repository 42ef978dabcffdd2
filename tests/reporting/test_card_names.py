"""In the card of an uploaded model, the code opens it by its name on the Hub."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minilm.evaluation.decisions import Decision
from minilm.models.architecture import Card
from minilm.reporting.card_names import with_name
from minilm.reporting.model_card import Exported, model_card
from tests.reporting.test_model_card import SINGLE


@pytest.mark.parametrize("name", ["news", "my news", 'a "quoted" one', "it's"])
@pytest.mark.parametrize("exported", [
    SINGLE, replace(SINGLE, adapter=True), replace(SINGLE, decision=None, labels=(), model=Card("bert", "lm")),
])  # fmt: skip
def test_all_code_has_the_name_of_the_hub(exported: Exported, name: str) -> None:
    _, there = (model_card(replace(exported, name=each), None).split("## Use it") for each in (name, "me/news"))
    here = with_name(model_card(replace(exported, name=name), None), "me/news").split("## Use it")
    assert here[1] == there[1]


def test_a_name_with_an_owner_and_prose_stay() -> None:
    text = 'minilm predict news "a"\n\n```sh\nminilm predict you/news "a"\n```\n'
    assert with_name(text, "me/news") == text


def test_a_linear_model_is_downloaded_first() -> None:
    linear = model_card(Exported(name="lin", labels=["a", "b"], decision=Decision("single")), None)
    lines = 'hf download me/news --local-dir news\nminilm predict news "some text"\n'
    assert lines in with_name(linear, "me/news", linear=True)
