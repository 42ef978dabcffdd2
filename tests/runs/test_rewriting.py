"""Models say a text otherwise: words where words were, there and back between languages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minilm.checkpoints.models import load_model
from minilm.data.augmentation import augment
from minilm.data.rows import Rows
from minilm.data.tokenization import load_tokenizer
from minilm.errors import UserError
from minilm.generation import load_language_model
from minilm.runs import rewriting
from minilm.runs.rewriting import back_translation, masked_words
from minilm.sampling import Sampling

REFERENCE = Path(__file__).parents[1] / "reference"


def randoms(number: int) -> list[np.random.Generator]:
    return [np.random.default_rng(i) for i in range(number)]


def test_masked_words_become_other_words_and_the_rest_stays() -> None:
    model, tokenizer = load_language_model(str(REFERENCE / "bert-lm"), masked=True, device="cpu")
    tokenizer.add_special_tokens(["[MASK]"])
    method = masked_words(model, tokenizer, fraction=0.3, top=60)
    text = "no (b), day c!"
    [new] = method([text], randoms(1))
    changed = [(a, b) for a, b in zip(text.split(), new.split(), strict=True) if a != b]
    assert len(changed) == 1 and "".join(filter(str.isalpha, changed[0][1])).isalpha()
    assert method([text], randoms(1)) == [new]
    long = "no day " * 9  # more than the model reads
    assert method([long, "?!", "[MASK] a"], randoms(3)) == [long, "?!", "[MASK] a"]


def test_masked_words_need_a_mask() -> None:
    model, tokenizer = load_model(REFERENCE / "bert-lm"), load_tokenizer(REFERENCE / "bert-lm")
    with pytest.raises(UserError, match="no mask token"):
        masked_words(model, tokenizer)


def test_texts_are_translated_there_and_back_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []

    def translate(model: object, tokenizer: object, prompts: list[str], new: int, how: Sampling) -> list[str]:
        said.append(list(prompts))
        assert how.seed is not None
        words = {"day": "Tag", "Tag": "daytime"}
        return [words.get(prompt.split(": ")[1], "") for prompt in prompts]

    monkeypatch.setattr(rewriting, "generate_text", translate)
    rows = Rows(["day", "fog"], None, np.array([1, 0]))
    new = augment(rows, back_translation(None, None), 1, seed=0)  # type: ignore[arg-type]
    assert new.texts == ["day", "fog", "daytime"] and new.labels.tolist() == [1, 0, 1]
    assert sorted(said[0]) == ["translate English to German: day", "translate English to German: fog"]
    assert sorted(said[1]) == ["translate German to English: ", "translate German to English: Tag"]


def test_a_model_that_writes_translates() -> None:
    model, tokenizer = load_language_model(str(REFERENCE / "t5-lm"), masked=False, device="cpu")
    method = back_translation(model, tokenizer, max_new_tokens=4)
    first, again = (method(["a day", "rain"], randoms(2)) for _ in range(2))
    assert first == again and len(first) == 2 and method([], []) == []
