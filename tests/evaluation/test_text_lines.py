"""Texts without columns, line by line, and those of a table alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from minilm.data.tokenization import NoTokens
from minilm.errors import UserError
from minilm.evaluation import text_lines
from minilm.evaluation.predictor import Classifier
from minilm.evaluation.text_lines import predict_lines, predict_table
from tests.evaluation.classifiers import TEXTS, classifier
from tests.tiny import finished_run

# --- Lines ---


def test_lines_are_answered_in_order_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "LINES", 4)
    c = classifier()
    lines, together = list(predict_lines(c, TEXTS[:10])), c.predict(TEXTS[:10])
    assert [text for text, _ in lines] == TEXTS[:10]
    assert [found for _, found in lines] == [pytest.approx(scores, abs=1e-7) for scores in together]


def test_lines_of_pairs_have_a_tab_between() -> None:
    c = classifier(pairs=True)
    [(_, found)] = predict_lines(c, ["a good film\tit was dull"])
    assert found == c.predict([("a good film", "it was dull")])[0]


@pytest.mark.parametrize(
    ("lines", "pairs", "number"),
    [(["a", " "], False, 2), (["a\tb", "a"], True, 2), (["a\tb\tc"], True, 1), (["\udcff"], False, 1)],
)
def test_a_line_that_is_no_text_is_named(lines: list[str], pairs: bool, number: int) -> None:
    with pytest.raises(UserError, match=f"text {number} (must be|is empty)"):
        list(predict_lines(classifier(pairs=pairs), lines))


def test_a_line_of_which_cleaning_leaves_nothing_is_named_by_its_number_in_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text_lines, "LINES", 4)
    with pytest.raises(UserError, match=r"^x\.txt, line 7 is empty after cleaning$"):
        list(predict_lines(classifier(clean=["urls"]), [*TEXTS[:6], "http://a.b", "a"], "x.txt, line"))


# --- Tables ---


def test_the_texts_of_a_table_are_answered_in_order_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_lines, "LINES", 4)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:10]))
    c = classifier()
    found = list(predict_table(c, tmp_path / "a.jsonl", tmp_path))
    assert [text for text, _ in found] == TEXTS[:10]
    assert [scores for _, scores in found] == [pytest.approx(scores, abs=1e-7) for scores in c.predict(TEXTS[:10])]


def test_the_columns_are_those_of_the_config_beside_the_model(tmp_path: Path) -> None:
    run = shutil.copytree(finished_run(), tmp_path / "run")
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace('text = "text"', 'text = "tekst"'))
    (tmp_path / "a.csv").write_text("text,tekst\nx,it was good\n")
    c = Classifier.load(run, "cpu")
    for source in (run, run / "model"):
        [(text, scores)] = predict_table(c, tmp_path / "a.csv", source)
        assert text == "it was good" and scores == c.predict([text])[0]
    (tmp_path / "a.csv").write_text("text,label\nit was good,good\n")
    with pytest.raises(UserError, match=r'no column "tekst" \(data\.text in .*run/config\.toml\)'):
        list(predict_table(c, tmp_path / "a.csv", run))


def test_a_model_without_a_config_reads_the_usual_columns_and_says_which_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,text_pair\na good film,it was dull\n")
    c = classifier(pairs=True)
    [(text, scores)] = predict_table(c, tmp_path / "a.csv", "bert")
    assert text == "a good film\tit was dull" and scores == c.predict([("a good film", "it was dull")])[0]
    (tmp_path / "a.csv").write_text("a,text\nb,c\n")
    with pytest.raises(UserError, match=r'no column "text_pair" \(data\.text_pair by default, as bert has no config'):
        list(predict_table(c, tmp_path / "a.csv", "bert"))


def test_texts_of_which_nothing_is_left_have_empty_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_lines, "LINES", 2)
    texts = ["ala", "http://a.b", "http://a.b", " ", "", "kot"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text or None}) + "\n" for text in texts))
    c = classifier(clean=["urls"])
    found = list(predict_table(c, tmp_path / "a.jsonl", tmp_path))
    assert [text for text, _ in found] == texts and [bool(scores) for _, scores in found] == [1, 0, 0, 0, 0, 1]
    assert list(predict_lines(c, texts, gaps=True)) == found
    pairs = classifier(pairs=True)
    assert [bool(scores) for _, scores in predict_lines(pairs, ["a\tb", " ", "c\td"], gaps=True)] == [1, 0, 1]


def test_a_text_without_a_token_has_an_empty_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    c = classifier()
    scores_of_clean = c.scores_of_clean

    def refuse(texts: list[str], pairs: list[str] | None) -> np.ndarray:
        if rows := [i for i, text in enumerate(texts) if text == "?"]:
            raise NoTokens("no tokens", rows)
        return scores_of_clean(texts, pairs)

    monkeypatch.setattr(c, "scores_of_clean", refuse)
    found = [scores for _, scores in predict_lines(c, ["a", "", "?", "b"], gaps=True)]
    assert [bool(scores) for scores in found] == [True, False, False, True]


def test_the_column_of_the_second_texts_is_not_taken_for_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,text_pair\na good film,it was dull\n")
    with pytest.raises(UserError, match=r'^the column "text_pair" is that of the second texts \(data\.text_pair'):
        list(predict_table(classifier(pairs=True), tmp_path / "a.csv", "bert", "text_pair"))
