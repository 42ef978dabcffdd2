"""The question of zero-shot: its answer from made-up runs, and its file from end to end."""

from __future__ import annotations

import json
import re
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from minilm.checkpoints.models import load_model, save_model
from minilm.data.rows import Rows
from minilm.data.tokenization import load_tokenizer
from minilm.errors import UserError
from minilm.evaluation.metrics import classification_metrics
from minilm.loading import config_of
from minilm.reporting.predictions import write_predictions
from minilm.reporting.record import Run
from minilm.reporting.results import Baseline, DataSummary, Parameters, Results, Times, ZeroShot
from minilm.studies.config import StudyConfig
from minilm.studies.finished import FinishedRun
from minilm.studies.plan import PlannedRun, Study
from minilm.studies.questions import QUESTIONS
from tests.studies.test_experiments import REFERENCE, STUDIES, bert  # noqa: F401 (a fixture)
from tests.tiny import minilm, no_pictures

LABELS = np.arange(400) % 4
NAMES = ["a", "b", "c", "d"]


def scores(right: int) -> np.ndarray:
    """Scores (400, 4) that have just the first so many rows right."""
    return 3.0 * np.eye(4)[np.where(np.arange(400) < right, LABELS, (LABELS + 1) % 4)]


def asked(folder: Path, name: str, right: int, untrained: int = 100) -> FinishedRun:
    """A run that has so many of 400 rows right."""
    found = {key: classification_metrics(LABELS, scores(n)) for key, n in (("own", right), ("untrained", untrained))}
    majority = classification_metrics(LABELS, np.tile([1.0, 0, 0, 0], (400, 1)))
    table = {"name": "x", "model": {"source": "bert"}, "data": {"source": "x.csv"}}
    table["zero_shot"] = {"method": "cloze", "pattern": "{text} {label}"}
    results = Results(
        name="x",
        validation=found["own"],
        test=found["own"],
        labels=NAMES,
        baselines={
            "majority": Baseline(majority, majority),
            "untrained": Baseline(found["untrained"], found["untrained"]),
        },
        zero_shot=ZeroShot("cloze", "{text} {label}", words={"a": "alpha"}),
        parameters=Parameters(10, 0),
        times=Times(inference_seconds_per_100_texts=0.1),
        data=DataSummary("x", "f", {"train": 400, "validation": 400, "test": 400}),
    )
    config = config_of(table, {}, "x.toml")
    run = Run(folder / name, results, config, [], None)
    write_predictions(run.folder, Rows([""] * 400, None, LABELS), scores(right), NAMES)
    return FinishedRun(PlannedRun(name, name, {}, config), run)


def ask(runs: list[FinishedRun], figures: Path, metric: str = "accuracy") -> tuple[str, str]:
    """The answer, and all else on the page as text."""
    study = Study(StudyConfig("x", "How?", metric=metric), figures, (), Path("x.toml"))
    with mock.patch("minilm.reporting.style.Figure.savefig"):
        answer, sections = QUESTIONS["zero-shot"].answer(study, runs, figures)
    assert len(re.findall(r"[^.]\.(?: |$)", answer)) == 2, answer
    return answer, "\n".join(str(part) for section in sections for part in (section.title, *section.blocks))


def test_the_best_method_is_compared_with_what_it_must_beat_and_with_the_next(tmp_path):
    answer, page = ask([asked(tmp_path, "low", 240), asked(tmp_path, "high", 300)], tmp_path)
    assert answer.startswith("Without a labelled text high, the best of 2 methods, has accuracy 0.750 (95% interval 0.")
    assert "over 400 test rows); the majority class has 0.250 (0.2" in answer
    assert "Its interval is above both of theirs" in answer
    assert "the next best, low, has 0.600 (0.5" in answer
    assert "on the same 400 test rows low has 0 right that high has wrong, and 60 the other way round (Mc" in answer
    assert "(McNemar's test: p below 0.001), which is significant at 5%." in answer
    assert {path.name for path in tmp_path.iterdir() if path.suffix} == {"zero_shot.png", "zero_shot.svg"}
    assert "this is training and not" in page and "a: alpha" in page and "high, test row by test row" in page


def test_a_method_that_is_below_its_baselines_knows_less(tmp_path):
    answer, _ = ask([asked(tmp_path, "one", 30, untrained=100)], tmp_path)
    assert "is below that of the majority class and of the untrained head, so it knows less." in answer
    assert "overlaps" not in answer
    answer, _ = ask([asked(tmp_path, "two", 100, untrained=300)], tmp_path)
    assert "is below that of the untrained head, so it knows less, and overlaps with that of the majority" in answer


def test_what_the_test_rows_leave_undecided_is_named(tmp_path):
    answer, _ = ask([asked(tmp_path, "one", 130), asked(tmp_path, "two", 128, untrained=90)], tmp_path)
    assert "overlaps with that of the majority class and of the untrained head, so it is undecided" in answer
    assert "the next best, two, has 0.320" in answer and "which may be chance" in answer and "significant" not in answer
    assert "This metric has no interval over the test rows" in ask([asked(tmp_path, "one", 130)], tmp_path, "loss")[0]
    with pytest.raises(UserError, match=r"needs runs with a section \[zero_shot\] that have the metric jaccard"):
        ask([asked(tmp_path, "one", 130)], tmp_path, "jaccard")


def save_of_inference(bert: Path, folder: Path) -> Path:  # noqa: F811
    """The checkpoint with an untrained head of natural language inference."""
    model = load_model(bert, "classify", labels=["contradiction", "neutral", "entailment"])
    return save_model(model, folder, tokenizer=load_tokenizer(bert))


def test_its_file_runs_from_end_to_end_without_the_models_that_are_not_here(tmp_path, bert, monkeypatch):  # noqa: F811
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("minilm.reporting.style.Figure.savefig", lambda *arguments, **options: None)
    monkeypatch.setattr("minilm.studies.study_page.html", lambda page: page.answer)
    text = (STUDIES / "zero_shot.toml").read_text().replace("model.source=gpt2", "model.source=nobody/nothing")
    of_inference = save_of_inference(bert, tmp_path / "nli")
    models = {"bert": bert, "flan-t5": REFERENCE / "t5-lm", "bart-large-mnli": of_inference, "minilm": bert}
    for name, model in models.items():
        assert f"model.source={name}" in text
        text = text.replace(f'"model.source={name}"', f'"model.source={model}"')
    (tmp_path / "study.toml").write_text(text)
    small = ["data.sample=true", "data.validation_rows=12", "data.test_rows=16", "data.max_tokens=60"]
    with no_pictures():
        result = minilm("study", tmp_path / "study.toml", *small, "--runs", tmp_path / "runs")
    assert result.exit_code == 1 and len(re.findall(r"failed: \S+: nobody/nothing", result.stderr)) == 2, result.output
    folder = tmp_path / "runs" / "zero-shot"
    ways = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/results.json")}
    named = {"bert-cloze", "flan-t5-likelihood", "flan-t5-calibrated", "bart-entailment", "minilm-similarity"}
    assert set(ways) == named
    assert ways["flan-t5-likelihood"]["test"]["loss"] != ways["flan-t5-calibrated"]["test"]["loss"]
    assert "over 16 test rows); the majority class has 0.2" in (folder / "study.html").read_text()
    assert "threads = 1" in (folder / "bert-cloze" / "config.toml").read_text()
