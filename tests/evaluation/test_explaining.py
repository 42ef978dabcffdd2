"""Explained answers of a classifier: complete, the same each time, of the text as it is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from minilm.devices import Runtime
from minilm.errors import UserError
from minilm.evaluation.explaining import explain_clean, explain_text
from minilm.evaluation.predictor import Classifier
from minilm.reporting.explanations import explanation_text
from tests.evaluation.classifiers import CPU, classifier
from tests.tiny import finished_run, minilm, refused

TEXT = "it was a really good film"


def run() -> Classifier:
    return Classifier.load(finished_run(), "cpu", "float32")


def test_the_words_add_up_to_the_difference_of_scores_and_are_the_same_again() -> None:
    found = explain_text(run(), TEXT)
    total = sum(word.attribution for word in found.words)
    assert total == pytest.approx(found.score - found.baseline_score, abs=0.01 * max(abs(total), 0.01))
    assert [word.text for word in found.words] == TEXT.split()
    assert found == explain_text(run(), TEXT)


def test_the_answer_is_that_of_the_classifier_and_another_label_is_the_other_side() -> None:
    one = run()
    found = explain_text(one, TEXT)
    assert found.label == one.decide(one.predict([TEXT])[0])[0]
    assert found.probability == pytest.approx(one.predict([TEXT])[0][found.label])
    other = explain_text(one, TEXT, next(name for name in one.labels if name != found.label))
    for a, b in zip(found.words, other.words, strict=True):
        assert a.attribution == pytest.approx(-b.attribution, abs=1e-5)


def test_the_pieces_are_the_whole_text() -> None:
    text = "it was  good,\nreally film!"
    pieces = list(explain_text(run(), text).pieces())
    assert "".join(piece for piece, _ in pieces) == text
    weights = [weight for _, weight in pieces if weight is not None]
    assert max(map(abs, weights)) == pytest.approx(1.0)
    assert all(piece.isspace() for piece, weight in pieces if weight is None)


def test_texts_are_cleaned_and_pairs_have_both_parts() -> None:
    found = explain_text(classifier(clean=["lower"]), "GOOD Film")
    assert found.texts == ["good film"]
    found = explain_text(classifier(pairs=True), ("good film", "it was dull"))
    assert "".join(piece for piece, _ in found.pieces()) == "good film / it was dull"
    assert {word.part for word in found.words} == {0, 1}


def test_of_windows_the_one_that_speaks_most_for_the_label_is_explained() -> None:
    one = classifier(long_texts="windows", max_tokens=8)
    found = explain_clean(one, "it was good film book song day really quite this", None)
    assert found.windows > 1 and 1 <= found.window <= found.windows
    assert all(word.end <= len(found.texts[0]) for word in found.words)


def test_with_several_labels_the_likeliest_is_explained() -> None:
    one = classifier(several=True)
    found = explain_text(one, TEXT)
    scores = one.predict([TEXT])[0]
    assert found.label == max(scores, key=lambda name: scores[name])
    assert found.score == pytest.approx(np.log(found.probability / (1 - found.probability)), abs=1e-4)


@pytest.mark.parametrize(("several", "temperature"), [(False, [2.5]), (True, [2.5, 0.4, 1.5])])
def test_the_log_odds_are_those_of_the_probability_with_its_temperature(
    several: bool, temperature: list[float]
) -> None:
    one = classifier(several=several, temperature=temperature)
    found = explain_text(one, TEXT)
    assert found.probability == pytest.approx(max(one.predict([TEXT])[0].values()))
    assert found.score == pytest.approx(np.log(found.probability / (1 - found.probability)), abs=1e-5)
    assert sum(w.attribution for w in found.words) == pytest.approx(found.score - found.baseline_score, abs=1e-3)


def test_what_cannot_be_explained_is_refused() -> None:
    with pytest.raises(UserError, match=r'has no label "yess" \(did you mean "yes"\?\); its labels are "no", "yes"'):
        explain_text(classifier(), TEXT, "yess")
    narrow = classifier()
    narrow.runtime = Runtime(CPU.device, "bfloat16")
    with pytest.raises(UserError, match="explanations need float32"):
        explain_text(narrow, TEXT)
    assert "a text is empty" in refused("explain", finished_run(), " ")
    assert 'has no label "x"' in refused("explain", finished_run(), "a", "--label", "x")


def test_the_terminal_shows_colours_where_it_has_them_and_numbers_everywhere() -> None:
    found = explain_text(run(), TEXT)
    assert "\x1b[" in explanation_text(found)
    plain = minilm("explain", finished_run(), TEXT).stdout
    assert "\x1b" not in plain and TEXT in plain and "falls without it" in plain
    as_json = json.loads(minilm("explain", finished_run(), TEXT, "--json").stdout)
    assert as_json["label"] == found.label and len(as_json["words"]) == len(found.words)
    hostile = minilm("explain", finished_run(), "good\x1b[2J film").stdout
    assert "\x1b" not in hostile and "\\x1b" in hostile


def test_without_a_text_the_report_gets_its_sample_texts_explained(tmp_path: Path) -> None:
    copy = shutil.copytree(finished_run(), tmp_path / "run")
    shown = minilm("explain", copy).stdout
    samples = json.loads((copy / "results.json").read_text())["samples"]
    assert all(sample["text"] in shown for sample in samples)
    page = (copy / "report.html").read_text()
    assert "Why these answers" in page and page.count('class="weighted"') == len(samples)
    assert "Why these answers" in (copy / "report.md").read_text()
    kept = json.loads((copy / "explanations.json").read_text())
    assert [text["texts"] for text in kept["texts"]] == [[sample["text"]] for sample in samples]
