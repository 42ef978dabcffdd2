"""A run that asks a model instead of training it: what it leaves, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from minilm.data.sources import load_dataset
from minilm.devices import runtime
from minilm.evaluation.entailment import entailment
from minilm.evaluation.prompts import Prompt, likelihood
from minilm.evaluation.zero_shot import open_model
from minilm.loading import load_config
from minilm.reporting.predictions import read_predictions
from minilm.reporting.record import read_run
from tests.tiny import finished_run, minilm, refused, write_data

REFERENCE = Path(__file__).parents[1] / "reference"
CONFIG = """
name = "asked"
[model]
source = "{model}"
[data]
source = "{data}"
max_tokens = 20
[zero_shot]
method = "likelihood"
pattern = "{{text}} is {{label}}"
content_free = "a"
threads = 1
[zero_shot.words]
bad = "dull"
"""
ROWS = [(f"{word} day", label) for i in range(30) for word, label in (("good", "good"), ("poor", "bad"))]


def write(folder: Path, model: str = "llama-lm-biases") -> Path:
    rows = [(f"{text} {'abcdefghij'[i % 10]}", label) for i, (text, label) in enumerate(ROWS)]
    path = folder / "asked.toml"
    path.write_text(CONFIG.format(model=REFERENCE / model, data=write_data(folder / "texts.tsv", rows)))
    return path


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Path:
    """The folder of a run that asked, to be read only."""
    folder = tmp_path_factory.mktemp("asked")
    result = minilm("train", write(folder), "--runs", folder / "runs")
    assert result.exit_code == 0, result.output
    assert "classifies them by likelihood, without training, on CPU, float32" in result.stderr
    assert "untrained, test" in result.stdout and "Try it" in result.stdout
    return folder / "runs" / "asked"


def test_the_baselines_untrained_head_is_no_news(tmp_path, caplog):
    assert minilm("train", write(tmp_path), "--runs", tmp_path / "runs").exit_code == 0
    assert "starts untrained" not in caplog.text


def test_its_scores_are_those_of_asking_and_no_model_is_kept(asked):
    run, data = read_run(asked), load_dataset(load_config(asked / "config.toml").data)
    model, tokenizer = open_model(str(REFERENCE / "llama-lm-biases"), "likelihood", "cpu")
    cpu, pattern, words = runtime("cpu", "float32"), "{text} is {label}", ["dull", "good"]
    prompt = Prompt(pattern, words, content_free="a", max_tokens=20)
    expected = likelihood(model, tokenizer, data.test.texts, prompt, cpu)
    assert read_predictions(run).predicted.tolist() == expected.argmax(axis=1).tolist()
    assert run.results.zero_shot.words == {"bad": "dull", "good": "good"}
    assert run.results.test.loss == pytest.approx(-expected[np.arange(6), data.test.labels].mean())
    assert run.results.parameters.trained == 0 and run.results.times.train_seconds is None
    assert not (asked / "model").exists() and run.results.train is None


def test_beside_it_stand_the_majority_and_the_head_that_training_would_start_from(asked, tmp_path):
    baselines = read_run(asked).results.baselines
    assert baselines["majority"].test.accuracy == 0.5
    config = (asked / "config.toml").read_text().partition("[zero_shot]")[0]
    still = tmp_path / "still.toml"
    still.write_text(config + "[train]\nepochs = 1\nlr = 1e-30\nweight_decay = 0\nthreads = 1\nbest = 'loss'\n")
    assert minilm("train", still, "--runs", tmp_path).exit_code == 0
    results = read_run(tmp_path / "asked").results
    for split in ("validation", "test"):
        untrained = getattr(baselines["untrained"], split)
        assert untrained.loss == pytest.approx(results.metrics(split).loss, abs=1e-6)


def test_its_report_says_how_it_was_asked_and_other_verbs_take_it(asked, tmp_path):
    report = (asked / "report.md").read_text()
    assert "none of them trained) was used without training (by likelihood)" in report and "| bad | dull |" in report
    assert "calibrated so that the text a has" in report and "this is training and not" in report
    assert "minilm predict" not in report
    assert "likelihood" not in minilm("compare", asked, "--html", tmp_path / "page.html").output
    assert "asked reaches" in (tmp_path / "page.html").read_text()
    assert minilm("predict", asked, "a text").stdout.endswith("\ta text\n")
    assert "did not train a model" in refused("export", asked, tmp_path / "exported")
    result = minilm("train", asked / "config.toml", "--resume")
    assert result.exit_code == 0 and "has already finished" in result.stderr
    (asked / "results.json").rename(tmp_path / "results.json")  # as if it had been killed
    assert minilm("train", asked / "config.toml", "--resume").exit_code == 0
    again, first = (json.loads((f / "results.json").read_text()) for f in (asked, tmp_path))
    assert {**again, "times": 0} == {**first, "times": 0}


def test_a_classifier_of_the_very_labels_is_refused_as_it_has_seen_them(tmp_path):
    rows = [(f"{'abcdefghij'[i % 10]} day {i}", ("cold", "mild", "hot")[i % 3]) for i in range(60)]
    write_data(tmp_path / "weather.tsv", rows)
    changes = ["zero_shot.method=similarity"]
    changes += [f"model.source={REFERENCE / 'distilbert-classify'}", f"data.source={tmp_path / 'weather.tsv'}"]
    said = refused("train", write(tmp_path), *changes, "--runs", tmp_path / "runs")
    assert "is a classifier that was trained on these labels" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["train={epochs=1, lr=1}"], "[zero_shot] cannot be combined with [train]"),
        (["freeze.part=backbone"], "[zero_shot] cannot be combined with [freeze]"),
        (["lora.rank=2"], "[zero_shot] cannot be combined with [lora]"),
        (["augment.method=swap"], "[augment] makes labelled texts for [train], which is missing"),
        (["zero_shot.pattern="], 'zero_shot.pattern must be a text with "{text}" and "{label}", got ""'),
        (["zero_shot.method=similarity", "zero_shot.pattern={text} {label}"], "zero_shot.pattern belongs to"),
        (["tokenizer.source=bpe"], "needs a checkpoint (model.source) with its own tokenizer"),
        (["zero_shot.words.god=x"], 'zero_shot.words: no label "god" (did you mean "good"?); the labels are bad, good'),
        (["zero_shot.words.bad= "], 'zero_shot.words: "bad" has an empty text; remove the key to use'),
        (["zero_shot.words.bad=ö"], '[zero_shot]: the model does not know the word "ö"'),
        (["zero_shot.words.bad=goods", "zero_shot.content_free="], '"goods" begins with the tokens of "good"'),
        (["zero_shot.pattern={label} {text} {text}"], 'must have "{text}" once'),
        (["zero_shot.method=cloze"], "[zero_shot]: "),
        ([f"model.source={REFERENCE / 'llama-classify'}"], "is a classifier; choose a language model"),
        (["data.max_tokens=99"], "data.max_tokens is 99"),
        (["data.source=tweet-emotions-sample"], 'finds one label per text, but these data have several'),
    ],
)
def test_what_cannot_be_asked_is_refused_and_leaves_nothing(tmp_path, changes, said):
    assert said in refused("train", write(tmp_path), *changes, "--runs", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# --- By entailment ---

ENTAILMENT = """
name = "entailed"
[model]
source = "{model}"
[model.head]
kind = "family"
[data]
source = "{data}"
max_tokens = 24
[zero_shot]
method = "entailment"
hypothesis_template = "so {{label}}."
threads = 1
[zero_shot.words]
bad = "dull"
"""


def write_entailment(folder: Path) -> Path:
    """A config, its data, and a model whose labels are those of inference."""
    shutil.copytree(REFERENCE / "bert-classify", folder / "nli")
    published = json.loads((folder / "nli" / "config.json").read_text())
    published["id2label"] = {"0": "contradiction", "1": "neutral", "2": "entailment"}
    (folder / "nli" / "config.json").write_text(json.dumps(published))
    rows = [(f"{text} {'abcdefghij'[i % 10]}", label) for i, (text, label) in enumerate(ROWS)]
    path = folder / "entailed.toml"
    path.write_text(ENTAILMENT.format(model=folder / "nli", data=write_data(folder / "texts.tsv", rows)))
    return path


def test_a_run_by_entailment_leaves_the_scores_of_its_hypotheses(tmp_path):
    result = minilm("train", write_entailment(tmp_path), "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    assert "classifies them by entailment, without training" in result.stderr
    run = read_run(tmp_path / "runs" / "entailed")
    data = load_dataset(load_config(run.folder / "config.toml").data)
    model, tokenizer = open_model(str(tmp_path / "nli"), "entailment", "cpu")
    cpu = runtime("cpu", "float32")
    expected = entailment(model, tokenizer, data.test.texts, ["so dull.", "so good."], cpu, max_tokens=24)
    assert read_predictions(run).predicted.tolist() == expected.argmax(axis=1).tolist()
    assert run.results.test.loss == pytest.approx(-expected[np.arange(6), data.test.labels].mean())
    assert run.results.zero_shot.pattern == "so {label}." and run.results.zero_shot.words["bad"] == "dull"
    assert "so {label}." in (run.folder / "report.md").read_text()


def test_by_entailment_a_text_may_have_several_labels(tmp_path):
    lines = [f"{text} {'abcdefghij'[i % 10]},{i % 2},{i % 3 // 2},{i % 5 // 4}" for i, (text, _) in enumerate(ROWS)]
    (tmp_path / "moods.csv").write_text("\n".join(["text,sad,calm,gay", *lines]))
    changes = [f"data.source={tmp_path / 'moods.csv'}", 'data.label_columns=["sad", "calm", "gay"]']
    config = write_entailment(tmp_path)
    result = minilm("train", config, *changes, "zero_shot.words={}", "--runs", tmp_path / "runs", pictures=True)
    assert result.exit_code == 0, result.output
    run = read_run(tmp_path / "runs" / "entailed")
    data = load_dataset(load_config(run.folder / "config.toml").data)
    hypotheses = [f"so {label}." for label in ("sad", "calm", "gay")]
    model, tokenizer = open_model(str(tmp_path / "nli"), "entailment", "cpu")
    expected = entailment(
        model, tokenizer, data.test.texts, hypotheses, runtime("cpu", "float32"), multi_label=True, max_tokens=24
    )
    assert run.results.multi_label and run.results.zero_shot.words["calm"] == "calm"
    assert np.array_equal(read_predictions(run).predicted, (expected >= 0).astype(int))
    assert run.results.baselines["majority"].test.jaccard is not None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([f"model.source={REFERENCE / 'bert-classify'}"], "has the labels cold, mild, hot, none of which means entail"),
        ([f"model.source={REFERENCE / 'bert-lm'}"], "has no classification head, so nothing means entailment"),
        (["zero_shot.hypothesis_template=so"], 'zero_shot.hypothesis_template must be a text with "{label}", got "so"'),
        (["zero_shot.pattern={text} {label}"], "zero_shot.pattern belongs to"),
        (["zero_shot.words.god=x"], 'zero_shot.words: no label "god"'),
        (["data.max_tokens=8"], "tokens of the second text leave no room for the first"),
        (["data.source=paraphrases-sample"], 'the method "entailment" reads a text and a sentence about it'),
    ],
)
def test_what_cannot_be_entailed_is_refused_and_leaves_nothing(tmp_path, changes, said):
    assert said in refused("train", write_entailment(tmp_path), *changes, "--runs", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# --- Texts without labels ---

UNLABELLED = ["data.label=", 'data.labels=["bad", "good"]']


def test_want_of_memory_is_answered_with_what_needs_less_here(tmp_path, monkeypatch):
    monkeypatch.setattr("minilm.runs.train.classify_and_report", no_memory)
    message = refused("train", write(tmp_path), "--runs", tmp_path / "runs")
    assert "start a new run with a lower data.max_tokens or a smaller model (model.source); if another" in message


def no_memory(*_, **__):
    raise MemoryError


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    """The folder of a run that classified a file without labels, and its texts."""
    folder = tmp_path_factory.mktemp("unlabelled")
    texts = [f"{text} {'abcdefghij'[i % 10]}" for i, (text, _) in enumerate(ROWS[:12])]
    (folder / "new.csv").write_text("id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)))
    changes = [f"data.source={folder / 'new.csv'}", 'data.keep=["id"]', *UNLABELLED]
    result = minilm("train", write(folder), *changes, "--runs", folder / "runs")
    assert result.exit_code == 0, result.output
    assert "12 texts without labels are classified; how well is not measured" in result.stderr
    return folder / "runs" / "asked", texts, result.stdout


def test_texts_without_labels_are_classified_and_nothing_is_measured(unlabelled):
    run, texts, shown = unlabelled
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == texts and [row["id"] for row in rows] == list(map(str, range(12)))
    assert "label" not in rows[0] and {row["predicted"] for row in rows} <= {"bad", "good"}
    results = read_run(run).results
    counts = Counter(row["predicted"] for row in rows)
    assert results.zero_shot.given == {"bad": counts["bad"], "good": counts["good"]}
    assert results.test is None and not results.baselines and len(results.samples) == 5
    assert re.search(rf"^good +{counts['good']} ", shown, re.MULTILINE) and "accuracy" not in shown
    assert "Try it" in shown
    report = (run / "report.md").read_text()
    assert "how many are right is not known" in report and "| text | given | scores |" in report
    assert "none of them trained" in report and "no labelled text" in report


def test_the_answers_are_those_of_predict_and_other_verbs_take_the_run(unlabelled, tmp_path):
    run, texts, _ = unlabelled
    with (run / "predictions.csv").open(newline="") as file:
        given = [row["predicted"] for row in csv.DictReader(file)]
    lines = minilm("predict", run, *texts).stdout.splitlines()
    assert [line.split()[0] for line in lines] == given
    out = tmp_path / "out.csv"
    assert minilm("predict", run, "--file", run.parents[1] / "new.csv", "--out", out).exit_code == 0
    with out.open(newline="") as file:
        assert [row["predicted"] for row in csv.DictReader(file)] == given
    assert minilm("compare", run, "--html", tmp_path / "page.html").exit_code == 1  # there is no metric
    assert minilm("compare", run).exit_code == 0
    assert "its texts have no labels; give a labelled file" in refused("evaluate", run)
    said = refused("evaluate", run, "--file", run.parents[1] / "texts.tsv")
    assert "its texts have no labels; name the file's column of labels: data.label=label" in said
    assert "accuracy" in minilm("evaluate", run, "--file", run.parents[1] / "texts.tsv", "data.label=label").stdout
    again = minilm("train", run / "config.toml", "--resume")
    assert again.exit_code == 0 and "has already finished" in again.stderr


def test_a_text_a_line_is_enough(tmp_path):
    (tmp_path / "new.txt").write_text("good day a\n\npoor day b\n")
    changes = [f"data.source={tmp_path / 'new.txt'}", *UNLABELLED]
    assert minilm("train", write(tmp_path), *changes, "--runs", tmp_path / "runs").exit_code == 0
    text = (tmp_path / "runs" / "asked" / "predictions.csv").read_text()
    assert "\n1,good day a," in text.replace("\r", "") and "\n2,poor day b," in text.replace("\r", "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["data.label="], 'data.label = "" (texts without labels) needs [zero_shot], and the labels to choose from'),
        (["data.label=", 'data.labels=["good"]'], "needs [zero_shot], and the labels to choose from in data.labels"),
        ([*UNLABELLED, "data.text=words"], 'no column "words" (data.text)'),
        ([*UNLABELLED, "data.source=FOLDER"], "has the splits train, test; give the file to classify"),
        ([*UNLABELLED, "zero_shot.words.god=x"], 'zero_shot.words: no label "god"'),
    ],
)
def test_texts_without_labels_that_cannot_be_classified_are_refused(tmp_path, changes, said):
    (tmp_path / "splits").mkdir()
    for split in ("train", "test"):
        write_data(tmp_path / "splits" / f"{split}.tsv")
    changes = [change.replace("FOLDER", str(tmp_path / "splits")) for change in changes]
    assert said in refused("train", write(tmp_path), *changes, "--runs", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_training_needs_labels(tmp_path):
    said = refused("train", finished_run() / "config.toml", *UNLABELLED, "--runs", tmp_path)
    assert 'data.label = "" (texts without labels) needs [zero_shot]' in said
