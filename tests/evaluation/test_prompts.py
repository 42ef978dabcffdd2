"""Classes by asking a language model: equal to plain computations with ``transformers``, word by word."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from minilm.checkpoints.models import load_model
from minilm.data.tokenization import load_tokenizer
from minilm.devices import runtime
from minilm.errors import UserError
from minilm.evaluation import prompts
from minilm.evaluation.metrics import log_softmax
from minilm.evaluation.prompts import Prompt, cloze, likelihood

REFERENCE = Path(__file__).parents[1] / "reference"
CPU = runtime("cpu", "float32")
TEXTS = ["rain", "a dog", "no"]
WORDS = ["sky", "cat", "ox", "ants"]  # a token a letter: of several lengths, two of the same
THEIRS = {"bert-lm": hf.BertForMaskedLM, "llama-lm-biases": hf.LlamaForCausalLM, "t5-lm": hf.T5ForConditionalGeneration}
GAP, END = "{text} is {label}.", "{text} is {label}"


@cache
def ours(name: str) -> tuple[nn.Module, Tokenizer]:
    """A reference checkpoint, whose tokenizer gets the mask token that it lacks."""
    tokenizer = load_tokenizer(REFERENCE / name)
    if name == "bert-lm":
        tokenizer.add_special_tokens(["[MASK]"])
    return load_model(REFERENCE / name, "lm"), tokenizer


@cache
def theirs(name: str) -> Any:
    return THEIRS[name].from_pretrained(REFERENCE / name).eval()


def letters(name: str, text: str) -> list[int]:
    return ours(name)[1].encode(text, add_special_tokens=False).ids


@torch.no_grad()
def their_cloze(text: str) -> np.ndarray:
    """Scores (C,) of "<text> is <word>." with BERT's special tokens around."""
    scores = []
    for word in WORDS:
        before, mask = [2, *letters("bert-lm", f"{text} is ")], ours("bert-lm")[1].token_to_id("[MASK]")
        ids = [*before, *[mask] * len(word), *letters("bert-lm", "."), 3]
        log_p = theirs("bert-lm")(torch.tensor([ids])).logits[0].log_softmax(-1)
        scores.append(sum(log_p[len(before) + i, token].item() for i, token in enumerate(letters("bert-lm", word))))
    return np.array(scores)


@torch.no_grad()
def their_likelihood(name: str, text: str) -> np.ndarray:
    """Scores (C,) of "<text> is <word>", the word's begin read where its next letter is asked for."""
    scores = []
    for word in WORDS:
        if name == "t5-lm":
            source, written = torch.tensor([[*letters(name, f"{text} is"), 1]]), letters(name, word)
            log_p = theirs(name)(input_ids=source, labels=torch.tensor([written])).logits[0].log_softmax(-1)
        else:
            prompt, written = letters(name, f"{text} is"), letters(name, f" {word}")
            log_p = theirs(name)(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 :].log_softmax(-1)
        scores.append(sum(log_p[i, token].item() for i, token in enumerate(written)))
    return np.array(scores)


# --- Against transformers ---


def test_a_cloze_multiplies_the_probabilities_of_a_words_tokens_at_their_masks() -> None:
    expected = log_softmax(np.stack([their_cloze(text) for text in TEXTS]))
    assert cloze(*ours("bert-lm"), TEXTS, Prompt(GAP, WORDS), CPU) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["llama-lm-biases", "t5-lm"])
def test_a_likelihood_multiplies_the_probabilities_of_a_words_tokens_one_after_another(name: str) -> None:
    raw = np.stack([their_likelihood(name, text) for text in TEXTS])
    found = likelihood(*ours(name), TEXTS, Prompt(END, WORDS, content_free=""), CPU)
    assert found == pytest.approx(log_softmax(raw), abs=1e-4)
    calibrated = likelihood(*ours(name), TEXTS, Prompt(END, WORDS, content_free="a"), CPU)
    assert calibrated == pytest.approx(log_softmax(raw - their_likelihood(name, "a")), abs=1e-4)
    assert np.abs(calibrated - found).max() > 0.01


# --- Calibration ---


def test_a_text_without_content_gets_all_classes_alike() -> None:
    uniform = np.full((1, 4), 0.25)
    model, tokenizer = ours("t5-lm")
    assert np.exp(likelihood(model, tokenizer, ["N/A"], Prompt(END, WORDS, "N/A"), CPU)) == pytest.approx(uniform)
    model, tokenizer = ours("bert-lm")
    assert np.exp(cloze(model, tokenizer, ["no"], Prompt(GAP, WORDS, content_free="no"), CPU)) == pytest.approx(uniform)
    assert np.exp(cloze(model, tokenizer, ["no"], Prompt(GAP, WORDS), CPU)) != pytest.approx(uniform)


# --- Texts ---


def test_a_long_text_is_cut_and_the_pattern_is_not() -> None:
    long, cut = "rain and " * 9, "rain and r"
    prompt = Prompt(GAP, ["cat", "sky"])
    found = cloze(*ours("bert-lm"), [long], prompt, CPU)  # 24 tokens: 2 special, 4 before, 3 masks, "."
    whole = cloze(*ours("bert-lm"), [(long)[:14]], Prompt(GAP, ["cat", "sky"]), CPU)
    assert found == pytest.approx(whole)
    short = cloze(*ours("bert-lm"), [long], Prompt(GAP, ["cat", "sky"], max_tokens=20), CPU)
    assert short == pytest.approx(cloze(*ours("bert-lm"), [cut], Prompt(GAP, ["cat", "sky"]), CPU))
    found = likelihood(*ours("llama-lm-biases"), [long], Prompt(END, ["cat", "sky"]), CPU)
    assert found == pytest.approx(likelihood(*ours("llama-lm-biases"), [long[:26]], Prompt(END, ["cat", "sky"]), CPU))
    with pytest.raises(UserError, match="the pattern alone has more than the 6 tokens"):
        cloze(*ours("bert-lm"), ["rain"], Prompt(GAP, ["cat"], max_tokens=6), CPU)


def test_of_a_pair_the_longer_text_is_cut() -> None:
    tokenizer = ours("bert-lm")[1]
    cut = prompts._cut(tokenizer, ["abcdefgh", "xyz"], 7, lambda parts: len("".join(parts)))
    assert cut == ["abcd", "xyz"]
    cut = prompts._cut(tokenizer, ["abcdefgh", "tuvwxyz"], 6, lambda parts: len("".join(parts)))
    assert cut == ["abc", "tuv"]


def test_pairs_fill_their_own_place_and_slots_or_masks_in_a_text_are_text() -> None:
    model, tokenizer = ours("bert-lm")
    pattern = "{pair} {label} {text}"
    found = cloze(model, tokenizer, ["rain"], Prompt(pattern, WORDS), CPU, pairs=["dry"])
    assert found == pytest.approx(cloze(model, tokenizer, ["rain"], Prompt("dry {label} {text}", WORDS), CPU))
    assert found != pytest.approx(cloze(model, tokenizer, ["dry"], Prompt(pattern, WORDS), CPU, pairs=["rain"]))
    for text in ("{pair}", "[MASK] a"):
        there = cloze(model, tokenizer, [text], Prompt("{text} {label}", ["cat", "sky"]), CPU)
        assert np.isfinite(there).all()
    ids = tokenizer.encode("[MASK] a [MASK]").ids
    places = prompts._places(tokenizer.encode("[MASK] a [MASK]"), 9, 15, tokenizer.token_to_id("[MASK]"))
    assert places == [ids.index(tokenizer.token_to_id("[MASK]"), 2)]


def test_no_texts_have_no_scores() -> None:
    assert cloze(*ours("bert-lm"), [], Prompt(GAP, WORDS), CPU).shape == (0, 4)


# --- Words ---


def test_a_words_tokens_are_those_in_its_place() -> None:
    tokenizer = Tokenizer(
        models.BPE({" ": 0, "a": 1, "b": 2, ".": 3, " a": 4, "ab": 5, " ab": 6}, [(" ", "a"), (" a", "b")])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    tokenizer.add_special_tokens(["<mask>"])
    assert prompts._masked_tokens(tokenizer, Prompt("b{label}.{text}", ["b"]), "b", "<mask>", 7) == (2,)
    with pytest.raises(UserError, match="joins"):
        prompts._masked_tokens(tokenizer, Prompt(" {label}.{text}", ["ab"]), "ab", "<mask>", 7)


@pytest.mark.parametrize(
    ("words", "pattern", "message"),
    [
        (["cat", "cat"], GAP, '"cat" and "cat" are the same'),
        (["cat", "Cat"], GAP, '"cat" and "Cat" are the same'),
        (["cat", "ö"], GAP, 'does not know the word "ö"'),
        (["cat"], "{text} is [MASK].", 'must have "{label}" once'),
        (["cat"], "{text} {label} [MASK].", r"in place of \[MASK\]"),
        (["cat"], "it is {label}.", 'must have "{text}" once'),
        (["cat"], "{text} {pair} {label}", 'must have "{pair}" only for pairs of texts'),
    ],
)
def test_what_cannot_be_asked_is_told(words: list[str], pattern: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cloze(*ours("bert-lm"), TEXTS, Prompt(pattern, words), CPU)


def test_a_likelihoods_word_comes_last() -> None:
    with pytest.raises(UserError, match="must end with"):
        likelihood(*ours("t5-lm"), TEXTS, Prompt(GAP, WORDS), CPU)


@pytest.mark.parametrize("name", ["llama-lm-biases", "t5-lm"])
def test_a_likelihoods_word_that_goes_on_from_another_is_refused_unless_it_is_calibrated(name: str) -> None:
    with pytest.raises(UserError, match='"antics" begins with the tokens of "ant", so it is never more probable'):
        likelihood(*ours(name), TEXTS, Prompt(END, ["antics", "sky", "ant"]), CPU)
    assert likelihood(*ours(name), TEXTS, Prompt(END, ["antics", "sky", "ant"], "N/A"), CPU).shape == (3, 3)


def test_a_tokenizer_without_a_mask_is_told() -> None:
    with pytest.raises(UserError, match="the tokenizer has no mask token"):
        cloze(ours("bert-lm")[0], load_tokenizer(REFERENCE / "bert-lm"), TEXTS, Prompt(GAP, WORDS), CPU)


def test_a_model_of_the_other_kind_is_refused() -> None:
    with pytest.raises(UserError, match="has no language head"):
        cloze(load_model(REFERENCE / "bert"), ours("bert-lm")[1], TEXTS, Prompt(GAP, WORDS), CPU)
    with pytest.raises(UserError, match='use the method "likelihood"'):
        cloze(*ours("t5-lm"), TEXTS, Prompt(GAP, WORDS), CPU)
    with pytest.raises(UserError, match='use the method "cloze"'):
        likelihood(*ours("bert-lm"), TEXTS, Prompt(END, WORDS), CPU)
