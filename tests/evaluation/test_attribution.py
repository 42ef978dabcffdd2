"""Attributions are complete for every architecture, equal the definition, and agree with leaving words out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logit, softmax
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from minilm.data.long_texts import LongTexts
from minilm.data.tokenization import train_bpe
from minilm.devices import Runtime
from minilm.evaluation.attribution import (
    Explanation,
    StraightPath,
    baseline_token,
    explain,
    integrated_gradients,
    leave_out,
)
from minilm.evaluation.words import read_words
from minilm.finetuning.lora import LoRAConfig, adapter_parameters, add_lora
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Backbone
from minilm.models.batch import Batch
from tests.families import FAMILIES, small_model

TEXT, PAIR = "it was a good film, really unbelievable", "a bad book"
TOKENIZER = train_bpe([TEXT, PAIR] * 3, 300)
WITHOUT_TOKENS_OF_ITS_OWN = Tokenizer(
    models.WordLevel({word: i for i, word in enumerate(TEXT.replace(",", " ,").split())}, unk_token="it")
)
WITHOUT_TOKENS_OF_ITS_OWN.pre_tokenizer = pre_tokenizers.Whitespace()


def classifier(model_type: str, classes: int = 3) -> Any:
    """A small model with random weights, large enough for words to matter and small enough for a smooth score."""
    model = small_model(model_type, vocab_size=300)
    model.head.output = nn.Linear(model.config.width, classes)
    torch.manual_seed(0)
    ARCHITECTURES[model_type].initialize(model)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.6 * parameter.shape[1] ** -0.5)
    nn.init.normal_(model.token_embedding.weight)
    nn.init.normal_(model.head.output.weight)
    return model


def explained(model: Backbone, **options: Any) -> Explanation:
    text, pair = options.pop("text", TEXT), options.pop("pair", None)
    return explain(model, TOKENIZER, text, pair, **{"max_tokens": 64, **options})


def path_of(model: Backbone, pair: str | None = None, baseline: int | None = 0) -> StraightPath:
    return StraightPath.of(model, read_words(TOKENIZER, TEXT, pair, 64)[0], baseline, multi_label=False)


def scores(model: Backbone, text: str, pair: str | None = None) -> np.ndarray:
    """The model's logits (C,), asked without the code under test."""
    encoding = TOKENIZER.encode(text, pair)
    segments = None if pair is None else torch.tensor([encoding.type_ids])
    with torch.no_grad():
        return model(torch.tensor([encoding.ids]), segments=segments)[0].double().numpy()


def log_odds(logits: np.ndarray, label: int) -> float:
    return float(logit(softmax(logits)[label]))


# --- Integrated gradients ---


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("pair", [None, PAIR])
def test_attributions_add_up_to_the_difference_of_scores(model_type, pair):
    model = classifier(model_type)
    found = explained(model, pair=pair)
    assert found.completeness_error <= 0.01
    assert abs(found.score - found.baseline_score) > 0.01
    assert found.attributions.sum() == pytest.approx(found.score - found.baseline_score, rel=0.01)
    assert found.label == scores(model, TEXT, pair).argmax()
    assert found.score == pytest.approx(log_odds(scores(model, TEXT, pair), found.label), abs=1e-4)
    assert [word.text for word in found.words if word.part == 0] == TEXT.replace(",", " ,").split()
    assert len(found.words) == len(found.attributions) == len(found.left_out) == (8 if pair is None else 11)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_attributions_are_complete_with_lora(model_type):
    model = classifier(model_type)
    plain = explained(model, label=1)
    add_lora(model, LoRAConfig(rank=4, targets=("all-linear",)))
    for parameter in adapter_parameters(model).values():
        nn.init.normal_(parameter, std=0.1)
    found = explained(model, label=1)
    assert found.completeness_error <= 0.01 and found.score != pytest.approx(plain.score, abs=1e-3)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_same_text_has_the_same_explanation_and_the_model_stays_as_it_was(model_type):
    model = classifier(model_type)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    table = model.token_embedding
    with torch.inference_mode():
        first = explained(model)
    second = explained(model)
    np.testing.assert_array_equal(first.attributions, second.attributions)
    np.testing.assert_array_equal(first.left_out, second.left_out)
    assert first.score == second.score
    assert model.training and model.token_embedding is table
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_attributions_are_the_papers_integral_as_a_plain_sum():
    """Equation 3 of the paper for a BERT, its path taken step by step through its own parts."""
    model, worded = classifier("bert"), read_words(TOKENIZER, TEXT, None, 64)[0]
    encoding, steps, total = TOKENIZER.encode(TEXT), 150, np.zeros(len(worded.ids))
    ids, parts = torch.tensor(encoding.ids), model.embeddings
    x = parts.token(ids).detach()
    own = torch.tensor(encoding.special_tokens_mask).bool()
    baseline = torch.where(own[:, None], x, parts.token(torch.tensor(0)).detach())  # <pad>
    for step in range(steps):
        vectors = (baseline + (step + 0.5) / steps * (x - baseline)).requires_grad_()
        first = parts.norm(vectors + parts.segment.weight[0] + parts.position(torch.arange(len(ids))))[None]
        for layer in model.layers:
            first = layer(first)
        z = model.head.output(model.pooler(first[:, 0]))[0]
        (z[2] - z[:2].logsumexp(0)).backward()
        total += ((x - baseline) * vectors.grad).sum(dim=1).double().numpy() / steps
    np.testing.assert_allclose(explained(model, label=2).attributions, worded.add_up(total), rtol=0.01, atol=1e-4)


def test_without_a_token_that_means_no_word_the_path_begins_at_zeros():
    model = classifier("gpt2")
    found = explain(model, WITHOUT_TOKENS_OF_ITS_OWN, TEXT, max_tokens=64)
    assert found.baseline == "zero" and found.completeness_error <= 0.01
    assert [word.text for word in found.words] == TEXT.replace(",", " ,").split()


def test_the_mask_stands_for_no_word_before_padding_does_and_a_token_that_the_model_lacks_does_not():
    assert baseline_token(TOKENIZER, 300) == ("<pad>", 0)
    both = Tokenizer(models.WordLevel({"[PAD]": 0, "a": 1, "[MASK]": 2}, unk_token="a"))
    assert baseline_token(both, 3) == ("[MASK]", 2)
    assert baseline_token(both, 2) == ("[PAD]", 0)


def test_the_tokenizers_own_tokens_count_for_nothing():
    path = path_of(classifier("bert"))
    attributions = integrated_gradients(path, 0).attributions
    assert (attributions[path.worded.word_of == -1] == 0).all() and (attributions[1:-1] != 0).all()


def test_a_token_that_a_causal_models_first_position_cannot_see_counts_for_nothing():
    model = classifier("gpt2")
    model.head.config = type(model.head.config)(pooling="cls", bias=False)
    found = integrated_gradients(path_of(model), 0)
    assert found.attributions[2:] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_attributions_are_complete_from_zeros_on(model_type):
    found = integrated_gradients(path_of(classifier(model_type), baseline=None), 0)
    assert found.attributions.sum() == pytest.approx(found.score - found.baseline_score, rel=0.01)


def test_a_path_that_is_steep_at_zeros_is_looked_at_more_closely_there():
    path = path_of(classifier("llama"), baseline=None)
    rough, found = (integrated_gradients(path, 0, tolerance=tolerance) for tolerance in (np.inf, 0.01))
    assert rough.steps == 16 and found.steps > 16
    assert rough.attributions.sum() != pytest.approx(rough.score - rough.baseline_score, rel=0.1)


def test_steps_end_and_the_error_is_reported_if_the_sum_is_not_complete_by_then():
    path = path_of(classifier("llama"), baseline=None)
    assert integrated_gradients(path, 0, tolerance=0.0, most_steps=100).steps <= 100
    assert integrated_gradients(path, 0, tolerance=0.0, most_steps=20).steps == 16
    found = Explanation([], 0, np.array([1.0, 0.5]), np.zeros(2), 3.0, 1.0, "zero", 32)
    assert found.completeness_error == 0.25
    found = Explanation([], 0, np.array([1e-3]), np.zeros(1), 1.0, 1.0, "zero", 32)
    assert found.completeness_error == pytest.approx(0.1)  # of 0.01 nats, for the scores are equal


@pytest.mark.parametrize(("classes", "multi_label"), [(1, False), (2, False), (3, False), (3, True)])
def test_the_score_is_the_log_odds_of_the_class(classes, multi_label):
    model = classifier("distilbert", classes)
    z = scores(model, TEXT)
    for label in range(classes):
        expected = z[label] if multi_label or classes == 1 else log_odds(z, label)
        assert explained(model, label=label, multi_label=multi_label).score == pytest.approx(expected, abs=1e-5)


def test_of_two_classes_what_speaks_for_one_speaks_against_the_other():
    model = classifier("bert", 2)
    first, second = explained(model, label=0), explained(model, label=1)
    np.testing.assert_allclose(first.attributions, -second.attributions, atol=1e-6)
    np.testing.assert_allclose(first.left_out, -second.left_out, atol=1e-6)


# --- Leaving words out ---


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("pair", [None, PAIR])
def test_a_word_that_is_removed_leaves_the_score_of_the_text_without_its_tokens(model_type, pair):
    model, worded = classifier(model_type), read_words(TOKENIZER, TEXT, pair, 64)[0]
    found = explained(model, pair=pair, label=1)
    whole = scores(model, TEXT, pair)
    for number in range(len(worded.words)):
        kept = worded.word_of != number
        segments = None if worded.segments is None else torch.from_numpy(worded.segments[kept])[None]
        with torch.no_grad():
            without = model(torch.from_numpy(worded.ids[kept])[None], segments=segments)[0].double().numpy()
        assert found.left_out[number] == pytest.approx(log_odds(whole, 1) - log_odds(without, 1), abs=1e-4)


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "t5"])
def test_a_word_that_is_replaced_leaves_the_score_of_the_text_with_the_token_that_means_no_word(model_type):
    model = classifier(model_type)
    path = path_of(model)
    found = leave_out(path, 1, how="replace")
    for number, drop in enumerate(found):
        ids = torch.from_numpy(np.where(path.worded.word_of == number, 0, path.worded.ids))[None]
        with torch.no_grad():
            without = model(ids)[0].double().numpy()
        assert drop == pytest.approx(log_odds(scores(model, TEXT), 1) - log_odds(without, 1), abs=1e-4)


def test_words_of_a_long_text_are_left_out_some_at_a_time(monkeypatch):
    model = classifier("bert")
    together = explained(model)
    monkeypatch.setattr("minilm.evaluation.attribution.AT_ONCE", 40)
    apart = explained(model)
    np.testing.assert_allclose(together.left_out, apart.left_out, atol=1e-6)
    np.testing.assert_allclose(together.attributions, apart.attributions, atol=1e-6)


def test_the_only_word_of_a_text_is_replaced_where_removing_it_would_leave_nothing():
    model = classifier("gpt2")
    found = explain(model, WITHOUT_TOKENS_OF_ITS_OWN, "good", max_tokens=64)
    assert found.left_out == pytest.approx([found.score - found.baseline_score], abs=1e-6)


def test_both_ways_find_the_word_that_decides():
    """A model that has learned that one word makes the class."""
    model = classifier("bert", 2)
    good = TOKENIZER.encode("a good").ids[2]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    rng = torch.Generator().manual_seed(0)
    for _ in range(100):
        ids = torch.randint(3, 300, (32, 8), generator=rng)
        labels = torch.arange(32) % 2
        ids[labels == 1, 3] = good
        loss = nn.functional.cross_entropy(model(ids), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = explained(model, label=1)
    decides = [word.text for word in found.words].index("good")
    assert found.score > 2
    assert found.attributions.argmax() == found.left_out.argmax() == decides
    assert found.attributions[decides] > 0.5 * (found.score - found.baseline_score)


# --- Long texts ---


def test_the_answer_to_each_window_of_a_long_text_is_explained_on_its_own():
    model, windows = classifier("bert"), LongTexts("windows", stride=4)
    second = explained(model, text=f"{TEXT} {TEXT}", max_tokens=8, long=windows, window=1, label=0)
    [*_, last] = read_words(TOKENIZER, f"{TEXT} {TEXT}", None, 8, windows)[:2]
    assert second.words == last.words and second.completeness_error <= 0.01
    with torch.no_grad():
        z = model(torch.from_numpy(last.ids)[None])[0].double().numpy()
    assert second.score == pytest.approx(log_odds(z, 0), abs=1e-4)


# --- What cannot be explained ---


def test_a_model_in_a_narrow_type_is_refused():
    with pytest.raises(ValueError, match=r"need a model in float32, got torch\.bfloat16"):
        explained(classifier("bert").bfloat16())
    stored = classifier("bert")
    Runtime(torch.device("cpu"), "bfloat16").store_as_computed(stored)  # as a classifier is that predicts in bfloat16
    with pytest.raises(ValueError, match=r"need a model in float32, got torch\.bfloat16"):
        explained(stored)


def test_a_text_without_a_word_is_refused_and_the_table_is_put_back_after_an_error():
    model = classifier("bert")
    with pytest.raises(ValueError, match="without words"):
        explained(model, text="")
    table = model.token_embedding
    with pytest.raises(IndexError):
        explained(model, label=7)
    assert model.token_embedding is table
    assert isinstance(model(Batch(torch.tensor([[1, 2]]))), torch.Tensor)
