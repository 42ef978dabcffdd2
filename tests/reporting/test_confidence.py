"""What a report says of probabilities, and the pictures of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm.evaluation.calibration import answers, reliability
from minilm.evaluation.decisions import Decision, fit_decision
from minilm.evaluation.selective import coverage_curve
from minilm.reporting.confidence_plots import accuracy_and_coverage, reliability_diagram
from minilm.reporting.report import write_report
from minilm.reporting.results import Results
from minilm.runs.confidence import draw_confidence, measure_calibration
from minilm.schema import as_table
from tests import records
from tests.evaluation.test_decisions import drawn, settings_of


def calibration(several: bool, texts: int = 400) -> dict[str, Any]:
    labels, scores = drawn(0, several, texts)
    found = measure_calibration(fit_decision(settings_of(), labels, scores), labels, scores, "test")
    assert found is not None
    return as_table(found)


@pytest.mark.parametrize("several", [False, True])
def test_the_errors_are_those_before_and_after_the_temperature(several: bool) -> None:
    found = calibration(several)
    assert found["after"]["loss"] <= found["before"]["loss"] + 1e-9  # on the texts that chose it
    assert found["after"]["expected_error"] < found["before"]["expected_error"]
    assert len(found["temperature"]) == (3 if several else 1)


def test_coverage_is_of_the_surest_texts() -> None:
    labels, scores = drawn(1, several=False, texts=400)
    decision = fit_decision(settings_of(), labels, scores)
    found = measure_calibration(decision, labels, scores, "test")
    assert found is not None and found.coverage[0].coverage == 1.0
    p = decision.probabilities(scores)
    for point in found.coverage:
        answered = p.max(axis=1) >= point.threshold
        assert answered.mean() == pytest.approx(point.coverage)
        assert (p.argmax(axis=1) == labels)[answered].mean() == pytest.approx(point.accuracy)


def test_with_several_labels_coverage_counts_the_labels_that_are_given() -> None:
    labels, scores = drawn(1, several=True, texts=400)
    decision = fit_decision(settings_of(), labels, scores)
    found = measure_calibration(decision, labels, scores, "test")
    assert found is not None
    p = decision.probabilities(scores)
    for point in found.coverage:
        assert (p >= point.threshold).sum() / len(p) == pytest.approx(point.coverage)
        assert labels[p >= point.threshold].mean() == pytest.approx(point.accuracy)


def test_without_a_temperature_nothing_is_measured_or_drawn(tmp_path: Path) -> None:
    labels, scores = drawn(0, several=False)
    assert measure_calibration(Decision("single"), labels, scores, "test") is None
    draw_confidence(Decision("single"), labels, scores, "test", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_page_has_both_and_says_how_to_use_them(make_run: Any, results: dict[str, Any]) -> None:
    text = write_report(make_run(results | {"calibration": calibration(False)})).read_text()
    assert "## What its probabilities mean" in text and "| with temperature |" in text
    assert "Scores are divided by a temperature of" in text and "which makes the answers less confident" in text
    assert "With 120 texts, most of the calibration error may be chance." in text
    assert "| answers from a probability of | texts answered | right |" in text
    assert "It was fitted on the 120 validation texts. " in text
    assert "What its probabilities mean" not in write_report(make_run(results, name="none")).read_text()


def test_the_page_names_the_number_of_validation_texts_if_they_are_few(make_run: Any, results: dict[str, Any]) -> None:
    results["data"]["sizes"]["validation"] = 6
    text = write_report(make_run(results, name="new")).read_text()
    assert "No temperature was fitted, as 6 validation texts are fewer than 30: whether the probabilities" in text
    old = write_report(make_run(results | {"calibration": calibration(False)}, name="old")).read_text()
    assert "It was fitted on the 6 validation texts, which are few: it may be far off." in old


def test_thresholds_of_each_label_are_in_the_table_of_labels(
    make_run: Any, results: dict[str, Any], several_results: dict[str, Any]
) -> None:
    found = several_results | {"decision_threshold": [0.25, 0.5, 0.75], "calibration": calibration(True)}
    found["baselines"]["majority"] |= {"decision_threshold": [0.2, 0.3, 0.4], "labels": []}
    text = write_report(make_run(found, name="several")).read_text()
    assert "Each label has its own threshold, from 0.25 to 0.75." in text
    assert "| F1 | texts | threshold |" in text and " | 40 | 0.25 |" in text
    assert "none has a probability of its label's threshold or more" in text
    assert "labels given from a probability of" in text and "The temperature of each label" in text
    two = results | {"decision_threshold": 0.3}
    config = '[train]\ndecision_threshold = "validation-per-label"\n'
    text = write_report(make_run(two, name="two", config=config)).read_text()
    assert '"neutral or ambiguous" is given from a probability of 0.30, else "negative", chosen on the' in text


def test_a_threshold_for_another_number_of_labels_is_no_result(several_results: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="decision_threshold must contain one for each of the 3 labels"):
        records.typed(several_results | {"decision_threshold": [0.5]})
    assert isinstance(records.typed(several_results | {"decision_threshold": [0.5] * 3}), Results)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("texts", [1, 3, 1000])  # of the test
def test_pictures_are_drawn_of_any_number_of_texts(tmp_path: Path, several: bool, texts: int) -> None:
    decision = fit_decision(settings_of(), *drawn(3, several))
    labels, scores = drawn(2, several, texts)
    draw_confidence(decision, labels, scores, "test", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"calibration.png", "coverage.png"}


def test_a_picture_of_answers_that_are_all_right(tmp_path: Path) -> None:
    p = np.full(9, 0.999)
    found = reliability(p, np.ones(9, dtype=bool))
    reliability_diagram(found, found, "test", tmp_path / "a.png")
    accuracy_and_coverage(coverage_curve(p, np.ones(9, dtype=bool)), 1, "test", tmp_path / "b.png")
    assert answers(np.zeros(2, np.int64), np.eye(2))[1].tolist() == [True, False]
