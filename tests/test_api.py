"""``minilm.train`` is the command line from Python: the same checks, folders and resuming, with data in memory."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pytest
import torch

import minilm
from minilm.config import RunConfig
from minilm.loading import load_config
from minilm.reporting.record import read_run
from tests import tiny

CONFIG = tomllib.loads(tiny.CONFIG) | {"data": {"max_tokens": 32}}
TEXTS, LABELS = map(list, zip(*tiny.texts(), strict=True))
BRIEF = {"epochs": 1, "linear_baseline": False}


def loaded(name: str, module: str) -> object:
    """An object of a class of another library, which need not be installed."""
    return type(name, (), {"__module__": module})()


@pytest.fixture(autouse=True)
def undrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with tiny.no_pictures():
        yield


def data_of(run: minilm.Run, split: str = "source") -> list[dict[str, Any]]:
    """The rows of the file that the run's config names."""
    return [json.loads(line) for line in Path(getattr(run.config.data, split)).read_text().splitlines()]


# --- The same as the command line -----------------------------------------------------------------------------------


def test_it_is_the_run_of_the_command_line_bit_for_bit(tmp_path: Path) -> None:
    config = tiny.finished_run().parents[1] / "tiny.toml"
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    run = minilm.train(config, runs=tmp_path)
    assert torch.get_num_threads() == 2  # the run had one
    assert run.folder == tmp_path / "tiny" and tiny.outcome(run.folder) == tiny.outcome(tiny.finished_run())
    again = minilm.train(str(run.folder), runs=tmp_path)  # from the folder of a run, with its settings
    torch.set_num_threads(before)
    assert again.folder == tmp_path / "tiny-2" and tiny.outcome(again.folder) == tiny.outcome(run.folder)


def test_a_dict_and_texts_in_memory_are_the_same_run_too(tmp_path: Path) -> None:
    run = minilm.train(CONFIG, (TEXTS, LABELS), runs=tmp_path)
    assert tiny.outcome(run.folder)["weights"].keys() == tiny.outcome(tiny.finished_run())["weights"].keys()
    assert run.results.test == read_run(tiny.finished_run()).results.test
    assert "source" not in CONFIG["data"] and "seed" not in CONFIG  # the caller's dict stays as it was


def test_every_section_of_a_config_is_a_keyword() -> None:
    keywords = inspect.signature(minilm.train).parameters
    assert {f.name for f in fields(RunConfig)} <= set(keywords)
    assert set(keywords) - {f.name for f in fields(RunConfig)} == {"config", "method", "changes", "runs", "resume"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": "distilbret"}, r'^no recipe "distilbret" \(did you mean "distilbert"\?\)'),
        ({"config": "reviews.csv"}, r"^reviews\.csv: is a data file, not a config"),
        ({"train": {"lr": -1}}, r"^train\.lr=-1: train\.lr must be a number above 0, got -1$"),
        ({"train": {"lr": object}}, r"train\.lr must be a number above 0, got"),
        ({"train": {"rate": 1}}, r"train\.rate is not a known key"),
        ({"train": {"a rate": 1}}, r"^'train\.a rate': not a key of a config$"),
        ({"lora": {"ranks": 8}}, r'lora\.ranks is not a known key \(did you mean "lora\.rank"\?\)'),
        ({"config": {"name": 3}}, r"^the config: data\b.* name must be|^the config: name must be"),
        ({"config": [CONFIG]}, "^the config must be a name, a path or a dict, got list$"),
        ({"changes": "train.lr=1"}, r"^changes must be a list, such as \['train\.lr=1'\], not a single text$"),
        ({"changes": None}, r"^changes must be a list of texts, such as \['train\.lr=1e-4'\], got None$"),
        ({"changes": [5]}, r"^changes must be a list of texts, such as .*, got \[5\]$"),
        ({"train": {"lr": float("nan")}}, r"^train\.lr=nan: train\.lr must be a number above 0, got nan$"),
        ({"method": "lorra"}, "^method must be full, head, last3"),
        ({"method": 3}, "must be full, head, last3 .* or lora, got 3$"),
        ({"runs": None}, "^runs must be a path, got None$"),
        ({"data": "nowhere.csv"}, r"nowhere\.csv"),
        ({"data": (TEXTS, LABELS[:-1])}, "^data: has 60 texts, but 59 labels$"),
        ({"data": ([], [])}, "^data: has no rows$"),
        ({"data": (TEXTS, "good")}, "the labels must be a list, an array or a series, got str"),
        ({"data": (TEXTS, np.array(3))}, "the labels must be a list, an array or a series, got a single value, 3$"),
        ({"data": (TEXTS, [b"x", b"y"] * 30)}, r"^data: row 1, column \"label\": is b'x', which is bytes; "),
        ({"data": (TEXTS, [[b"x"]] * 60)}, r"^data: row 1, column \"label\": is b'x', which is bytes; "),
        ({"data": pandas.DataFrame({"text": TEXTS, "label": [*LABELS[1:], b"x"]})}, '^data: row 60, column "label"'),
        ({"data": (TEXTS, [object()] * 60)}, '^data: row 1, column "label": is an object of the type object, not'),
        ({"data": ([("a", "b"), "c"], [0, 1])}, "^data: text 2 must be a pair of two texts, as text 1 is$"),
        ({"data": [TEXTS, LABELS]}, r"or \(texts, labels\), got list; a tuple of two lists is \(texts, labels\)"),
        ({"data": loaded("Dataset", "datasets.arrow_dataset")}, r"got Dataset; call its method to_pandas\(\) first$"),
        ({"data": loaded("DatasetDict", "datasets.dataset_dict")}, r'DatasetDict; .*data\["train"\]\.to_pandas\(\)'),
        ({"data": loaded("Dataset", "mine")}, r"got Dataset$"),
        ({"data": polars.LazyFrame({"text": TEXTS})}, r"call its method collect\(\) first"),
        ({"data": pandas.DataFrame([["a", "b"]], columns=["x", "x"])}, 'has two columns "x"'),
        (
            {"data": pandas.DataFrame({"comment": TEXTS, "stars": LABELS})},
            r'no column "text".* add: data={"source": frame, "text": "comment", "label": "stars"}$',
        ),
        (
            {"data": {"train": (TEXTS, LABELS), "test": pandas.DataFrame({"text": TEXTS})}},
            r"cannot be the test split.* after training: minilm\.Classifier\.load\(RUN\)\.predict\(texts\)$",
        ),
        (
            {"data": {"train": (TEXTS, LABELS), "text": "comment", "max_tokens": 9}},
            r'no column "comment".* add: data={"train": \(texts, labels\), "text": "text", "max_tokens": 9}$',
        ),
        (
            {"data": {"source": "a.csv", "test": Path("b.csv")}},
            r'need data\.train instead of data\.source; type: data={"test": "b\.csv", "train": "a\.csv"}$',
        ),
        ({"model": "distilbert"}, r'^model must be a dict .* of \[model\]; write model={"source": "distilbert"}$'),
        ({"freeze": "backbone"}, r'must be a dict with keys of \[freeze\]; write freeze={"part": "backbone"}$'),
        ({"lora": 8}, r'must be a dict with keys of \[lora\]; write lora={"rank": 8}$'),
        ({"lora": True}, r"must be a dict with keys of \[lora\]: rank, alpha, "),
        ({"model": {"head": "family"}}, r'keys of \[model\.head\]; write model={"head": {"kind": "family"}}$'),
        ({"epochs": 3}, r'^minilm\.train: has no argument epochs; write train={"epochs": 3}$'),
        ({"fp16": True}, r'has no argument fp16; write train={"precision": "float16"}$'),
        ({"fp16": 3}, r"has no argument fp16; minilm's key is train\.precision$"),
        ({"report_to": "wandb"}, r'write train={"log_to": \["wandb"\]}$'),
        ({"learning_rate": 1e-4}, r'has no argument learning_rate; write train={"lr": 0\.0001}$'),
        ({"text": "review"}, r'argument text; write data={"source": \(texts, labels\), "text": "review"}$'),
        ({"nmae": "x"}, r'has no argument nmae \(did you mean "name"\?\)$'),
        ({"zzz": object()}, r"has no argument zzz; the arguments are: config, data, method, "),
        (
            {"config": "roberta-base"},
            r'one of scratch, .*; for .*: minilm\.train\("bert", model={"source": "roberta-base"}\)$',
        ),
        ({"data": ([None, *TEXTS[1:]], LABELS)}, r"the data, row 1: the text \(column \"text\"\) is empty"),
    ],
)
def test_a_mistake_is_one_error_of_the_user(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(minilm.UserError, match=message):
        minilm.train(**{"config": CONFIG, "data": (TEXTS, LABELS), "runs": tmp_path / "runs"} | arguments)
    assert not list((tmp_path / "runs").glob("tiny*"))


def test_none_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(minilm.UserError, match=r"^runs must be a path, got None$"):
        minilm.study("seeds", runs=None)  # type: ignore[arg-type]
    with pytest.raises(minilm.UserError, match=r"^the classifier must be a path or a name, got None$"):
        minilm.Classifier.load(None)  # type: ignore[arg-type]
    with pytest.raises(minilm.UserError, match=r"^the run must be a path, got None$"):
        read_run(None)  # type: ignore[arg-type]


# --- Data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", [pandas, polars])
def test_a_data_frame_is_data_with_the_columns_that_the_config_names(library: Any, tmp_path: Path) -> None:
    frame = library.DataFrame({"comment": TEXTS, "stars": [len(label) for label in LABELS], "when": [None, 1.5] * 30})
    data = {"source": frame, "text": "comment", "label": "stars"}
    run = minilm.train(CONFIG, data, train=BRIEF, runs=tmp_path)
    assert run.results.labels == ["3", "4"] and run.results.test is not None
    assert data_of(run)[:2] == [
        {"comment": TEXTS[0], "stars": 4, "when": None}, {"comment": TEXTS[1], "stars": 3, "when": 1.5},
    ]  # fmt: skip
    assert [path.name for path in (tmp_path / ".data").iterdir()] == [Path(run.config.data.source).name]
    again = minilm.train(run.folder, changes=["name=again"], runs=tmp_path)  # the folder is enough
    assert again.results.test == run.results.test


def test_splits_are_given_one_by_one(tmp_path: Path) -> None:
    frames = [pandas.DataFrame({"text": TEXTS[i:j], "label": LABELS[i:j]}) for i, j in ((0, 40), (40, 50), (50, 60))]
    config = CONFIG | {"data": CONFIG["data"] | {"source": "elsewhere.csv"}}
    splits = dict(zip(("train", "validation", "test"), frames, strict=True))
    run = minilm.train(config, splits, train=BRIEF, runs=tmp_path)
    assert run.results.data.sizes == {"train": 40, "validation": 10, "test": 10}
    assert [row["text"] for row in data_of(run, "test")] == TEXTS[50:]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([["good", "new"] if label == "good" else {"bad"} for label in LABELS], ["bad", "good", "new"]),
        (np.array([[label == "good", label == "bad"] for label in LABELS], dtype=int), ["0", "1"]),
        (pandas.DataFrame({name: [label == name for label in LABELS] for name in ("good", "bad")}), ["good", "bad"]),
    ],
)
def test_a_text_may_have_several_labels(labels: Any, names: list[str], tmp_path: Path) -> None:
    run = minilm.train(CONFIG, (np.array(TEXTS), labels), train=BRIEF, runs=tmp_path)
    assert run.results.labels == names and run.results.multi_label


@pytest.mark.parametrize("names", [[], ["x", "y", "z"]])
def test_a_matrix_of_labels_is_measured_as_it_was_learned(names: list[str], tmp_path: Path) -> None:
    matrix = np.array([[label == "good", label == "bad", i % 3 == 0] for i, label in enumerate(LABELS)], dtype=int)
    run = minilm.train(CONFIG, {"source": (TEXTS, matrix), "labels": names}, train=BRIEF, runs=tmp_path)
    classifier = run.classifier()
    chosen = classifier.decision.choose(classifier.probabilities(TEXTS))
    measured = classifier.evaluate((TEXTS, matrix))
    assert measured.label_accuracy == pytest.approx((chosen == matrix).mean())
    assert [row.support for row in measured.per_label or []] == matrix.sum(axis=0).tolist()
    rows = [{"text": text, "label": row} for text, row in zip(TEXTS, matrix.tolist(), strict=True)]
    Path("more.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert classifier.evaluate("more.jsonl").label_accuracy == measured.label_accuracy


def test_pairs_are_two_columns(tmp_path: Path) -> None:
    pairs = [(text, text[::-1]) for text in TEXTS]
    run = minilm.train(CONFIG, (pairs, pandas.Series(LABELS, dtype="category")), train=BRIEF, runs=tmp_path)
    assert data_of(run)[0] == {"text": TEXTS[0], "text_pair": TEXTS[0][::-1], "label": "good"}
    assert run.classifier().predict(pairs[:1])


def test_data_of_ones_own_are_used_whole_by_a_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = {}

    def stopped(source: Path, changes: list[str], **options: Any) -> Path:
        seen["config"] = load_config(source, changes)
        raise minilm.UserError("enough")

    monkeypatch.setattr("minilm.api.train_run", stopped)
    for data in ((TEXTS, LABELS), {"train": (TEXTS, LABELS)}, "reviews.csv"):
        with pytest.raises(minilm.UserError, match="enough"):
            minilm.train("distilbert", data, method="head", train={"epochs": 7}, runs=tmp_path)
        config = seen["config"]
        assert (config.data.train_rows, config.data.clean, config.train.epochs, config.lora.rank) == (0, [], 7, 0)
        assert config.freeze.part == "backbone" and config.train.best == "loss"
    with pytest.raises(minilm.UserError, match="enough"):
        minilm.train("distilbert", "sample", lora={"rank": 4}, seed=3)
    assert seen["config"].data.sample and seen["config"].data.train_rows == 2400
    assert (seen["config"].lora.rank, seen["config"].lora.dropout, seen["config"].seed) == (4, 0.1, 3)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(minilm.UserError, match=r"file/\.data/texts-\w+\.jsonl: cannot be written \(.*runs=\.\.\."):
        minilm.train(CONFIG, (TEXTS, LABELS), runs=tmp_path / "file")


# --- Interruptions --------------------------------------------------------------------------------------------------


def test_ctrl_c_keeps_the_state_and_the_message_is_what_resumes_it(tmp_path: Path) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with tiny.at_step(7, interrupt), pytest.raises(minilm.Interrupted) as stop:
        minilm.train(CONFIG, (TEXTS, LABELS), runs=tmp_path)
    assert isinstance(stop.value, KeyboardInterrupt)
    found = re.search(r"^SIGINT: the state is saved; resume with: minilm\.train\((.*)\)$", str(stop.value))
    assert found and found[1] == f'"{tmp_path}/tiny", resume=True'
    whole = minilm.train(CONFIG, (TEXTS, LABELS), runs=tmp_path / "whole")
    resumed = minilm.train(stop.value.folder, resume=True)
    assert resumed.folder == tmp_path / "tiny" and tiny.outcome(resumed.folder) == tiny.outcome(whole.folder)
    with tiny.at_step(2, interrupt), pytest.raises(minilm.Interrupted):
        minilm.train(CONFIG, (TEXTS, LABELS), seed=2, runs=tmp_path)
    assert minilm.train(CONFIG, (TEXTS, LABELS), seed=2, runs=tmp_path, resume=True).folder == tmp_path / "tiny-2"


def test_an_interrupted_study_is_resumed_by_the_same_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilm.studies.engine.write_page", lambda *given: tmp_path / "study.html")
    table = {"name": "seeds", "question": "How much is luck?", "base": CONFIG, "axes": {"seed": [1, 2]}}
    with (
        tiny.at_step(9, lambda: os.kill(os.getpid(), signal.SIGINT)),
        pytest.raises(minilm.Interrupted, match=r"^SIGINT: the state is saved; the same call of minilm\.study"),
    ):
        minilm.study(table, (TEXTS, LABELS), train=BRIEF, runs=tmp_path)
    study = minilm.study(table, (TEXTS, LABELS), train=BRIEF, runs=tmp_path)
    assert len(study.runs) == 2 and not study.failed and study.runs[1].history[-1].epoch == 1


def test_a_thread_may_train(tmp_path: Path) -> None:
    runs: list[minilm.Run] = []
    thread = threading.Thread(
        target=lambda: runs.append(minilm.train(CONFIG, (TEXTS, LABELS), train=BRIEF, runs=tmp_path))
    )
    thread.start()
    thread.join()
    assert runs[0].results.best is not None


def drawn(*given: object, **options: object) -> Path:
    """A picture in place of one that takes a second."""
    path = next(each for each in given if isinstance(each, Path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a picture")
    return path


# --- Runs and studies -----------------------------------------------------------------------------------------------


def test_a_run_is_a_line_in_a_terminal_and_a_table_with_curves_in_a_notebook() -> None:
    run = minilm.read_run(tiny.finished_run())
    test = run.results.test
    assert test is not None
    assert repr(run) == (
        f"<Run {run.folder}: test loss {test.loss:.4f}, accuracy {test.accuracy:.4f}, "
        f"macro F1 {test.macro_f1:.4f}, MCC {test.mcc:.4f}>"
    )
    assert run.report == (run.folder / "report.md").read_text() and run.figures == []
    html = run._repr_html_()
    assert html.startswith("<p><strong>tiny</strong>") and "<td class=text>linear, test</td>" in html
    assert "<img" not in html and "<html" not in html and "<style" not in html


def test_the_curves_are_in_the_cell_of_a_notebook_itself(tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    shutil.copytree(tiny.finished_run(), folder)
    picture = folder / "figures" / "learning_curves.png"
    picture.parent.mkdir()
    picture.write_bytes(b"a picture")
    run = minilm.read_run(folder)
    assert run.figures == [picture] and 'src="data:image/png;base64,YSBwaWN0dXJl"' in run._repr_html_()


def test_a_classifier_in_bfloat16_explains_in_float32() -> None:
    precise, fast = (minilm.Classifier.load(tiny.finished_run(), "cpu", kind) for kind in ("float32", "bfloat16"))
    assert fast.runtime.precision == "bfloat16" and precise.in_float32() is precise
    assert fast.explain("a good film") == precise.explain("a good film")
    assert fast.in_float32() is fast.in_float32()  # read once


def test_a_classifier_is_asked_explained_and_measured(capsys: pytest.CaptureFixture[str]) -> None:
    classifier = minilm.read_run(tiny.finished_run()).classifier("cpu")
    p = classifier.probabilities(TEXTS[:3])
    assert p.shape == (3, 2) and p.dtype == np.float32 and classifier.labels == ["bad", "good"]
    np.testing.assert_allclose([list(row.values()) for row in classifier.predict(TEXTS[:3])], p, atol=1e-6)
    assert classifier.probabilities([]).shape == (0, 2)
    found = classifier.explain("a good film", "good")
    assert found.label == "good" and [word.text for word in found.words] == ["a", "good", "film"]
    file = tiny.write_data(Path("more.tsv"))
    measured = classifier.evaluate(file)
    assert measured == classifier.evaluate((TEXTS, LABELS)) == classifier.evaluate(str(file))
    frame = polars.DataFrame({"review": TEXTS, "label": LABELS})
    assert classifier.evaluate(frame, changes=["data.text=review"]) == measured
    classifier.evaluate(([*TEXTS, ""], [*LABELS, "good"]), changes=["data.empty=skip"])
    assert "the data: 1 row is dropped: the text is empty (data.empty=skip)" in capsys.readouterr().err
    with pytest.raises(minilm.UserError, match=r'^the data: no column "text"'):
        classifier.evaluate(frame)
    with pytest.raises(minilm.UserError, match=r'^1 defect in the data.*\n  the data, row 2: unknown label "so"'):
        classifier.evaluate((TEXTS[:2], ["good", "so"]))
    with pytest.raises(minilm.UserError, match="gives one label per text"):
        classifier.evaluate((TEXTS[:2], [["good"], ["bad", "good"]]))


def test_a_classifier_decides_as_predict_does_with_the_same_options(capsys: pytest.CaptureFixture[str]) -> None:
    run, texts = tiny.finished_run(), TEXTS[:8]
    for options, given in (
        ([], {}), (["--threshold", "0.3"], {"threshold": 0.3}), (["--unsure-below", "1"], {"unsure_below": 1.0}),
        (["--raw"], {"raw": True}), (["--min-precision", "0.6"], {"min_precision": 0.6}),
    ):  # fmt: skip
        shown = tiny.minilm("predict", run, *texts, *options, "--json")
        capsys.readouterr()
        classifier = minilm.Classifier.load(run, "cpu", **given)
        assert capsys.readouterr().err == shown.stderr
        for scores, line in zip(classifier.predict(texts), map(json.loads, shown.stdout.splitlines()), strict=True):
            unsure = classifier.is_unsure(scores)
            assert ([] if unsure else classifier.decide(scores)) == line["labels"] and unsure is line.get("unsure")
            assert scores == pytest.approx(line["scores"])
    with pytest.raises(minilm.UserError, match=r"^unsure_below must be a number from 0 to 1, got 2$"):
        minilm.Classifier.load(run, "cpu", unsure_below=2)
    with pytest.raises(minilm.UserError, match="give either min_precision, which chooses a probability, or threshold"):
        minilm.Classifier.load(run, "cpu", threshold=0.5, min_precision=0.5)


def test_a_message_about_an_argument_of_load_keeps_the_path_as_it_is(tmp_path: Path) -> None:
    run = tmp_path / "my--run"
    shutil.copytree(tiny.finished_run(), run)
    (run / "model" / "validation.safetensors").unlink()
    with pytest.raises(minilm.UserError, match=r"my--run/model: has no validation.*min_precision.*unsure_below"):
        minilm.Classifier.load(run, "cpu", min_precision=0.5)


def test_the_rows_of_a_frame_are_named_by_their_position_and_a_label_NA_is_thought_of(tmp_path: Path) -> None:
    csv = "text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(TEXTS, LABELS, strict=True))
    frame = pandas.read_csv(io.StringIO(csv.replace(",bad", ",NA")))
    with pytest.raises(minilm.UserError) as error:
        minilm.train(CONFIG, frame, runs=tmp_path)
    first, second, *_ = str(error.value).split("\n")[1:]
    assert first.startswith('  the data, position 1 (from 0): the label (column "label") is missing, as in 30 rows;')
    assert "pd.read_csv(..., keep_default_na=False)" in first
    assert second == '  the data, position 3 (from 0): the label (column "label") is missing'
    whole = pandas.read_csv(io.StringIO(csv))
    whole.loc[5, "label"] = None
    with pytest.raises(minilm.UserError, match=r"data\.test, position 5 \(from 0\).*data\.empty=skip drops such rows"):
        minilm.train(CONFIG, {"train": pandas.read_csv(io.StringIO(csv)), "test": whole}, runs=tmp_path)
    with pytest.raises(minilm.UserError, match=r"the data, row 2: the label .* is missing \(data\.empty=skip"):
        minilm.train(CONFIG, (["a", "b"], ["good", None]), runs=tmp_path)
    with pytest.raises(minilm.UserError, match=r"the data, position 5 \(from 0\): the label"):
        minilm.Classifier.load(tiny.finished_run(), "cpu").evaluate(whole)


def test_a_study_is_its_runs_and_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("reporting.group_plots.bars", "reporting.group_plots.curves", "studies.page_parts.dashboard"):
        monkeypatch.setattr(f"minilm.{name}", drawn)
    table = {"name": "rates", "question": "Does a higher rate help?", "base": CONFIG, "axes": {"seed": [1, 2, 3]}}
    options: dict[str, Any] = {"axes": {"train.lr": [1e-3, 1e-2], "seed": (1,)}, "train": BRIEF, "runs": tmp_path}
    study = minilm.study(table, (TEXTS, LABELS), metric="macro_f1", **options)
    assert [run.config.train.lr for run in study.runs if run.config.train] == [1e-3, 1e-2]
    assert study.folder == tmp_path / "rates" and study.page == tmp_path / "rates" / "study.html"
    assert study.report.startswith("# rates\n\n*Does a higher rate help?*") and study.figures
    assert repr(study) == "<FinishedStudy rates: 2 runs; rates/study.html>"
    html = study._repr_html_()
    assert html.startswith("<p><strong>rates</strong>: Does a higher rate help?</p>\n<p>") and "<img" in html
    again = minilm.study(table, (TEXTS, LABELS), metric="macro_f1", **options)  # nothing is left to do
    assert again.page == study.page and again.runs[0].results == study.runs[0].results
    with pytest.raises(minilm.UserError, match="jobs must be a whole number of at least 1, got 0"):
        minilm.study(table, jobs=0)
    with pytest.raises(minilm.UserError, match=r'^no study "seed" \(did you mean "seeds"\?\)'):
        minilm.study("seed")


def test_a_study_that_comes_with_minilm_uses_other_data_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = []

    def stopped(study: Any, **options: Any) -> None:
        planned.append(study)
        raise minilm.UserError("enough")

    def runs_of(name: str, data: Any, **options: Any) -> list[RunConfig]:
        with pytest.raises(minilm.UserError, match="enough"):
            minilm.study(name, data, runs=tmp_path, **options)
        return [run.config for run in planned[-1].runs]

    monkeypatch.setattr("minilm.api.run_study", stopped)
    for data in ((TEXTS, LABELS), {"train": (TEXTS, LABELS)}, "reviews.csv"):
        for config in runs_of("seeds", data):
            assert config.train and config.train.best == "loss"
            assert (config.data.train_rows, config.data.test_rows, config.data.clean) == (0, 0, [])
    found = runs_of("scaling", (TEXTS, LABELS), axes={"data.train_rows": [20, 40], "seed": [1]})
    assert {config.data.train_rows for config in found} == {20, 40} and found[0].data.test_rows == 0
    found = runs_of("seeds", "reviews.csv", axes={"data.clean": [["lower"], []]}, changes=["data.train_rows=9"])
    assert {(config.data.train_rows, *config.data.clean) for config in found} == {(9, "lower"), (9,)}
    assert all(config.data.clean == [] for config in runs_of("zero_shot", "reviews.csv"))  # no run has [train]
    for data in (None, "sample", "ag-news", {"shots": 5}):
        assert {config.data.train_rows for config in runs_of("seeds", data)} == {2400}


# --- The package ----------------------------------------------------------------------------------------------------


def test_the_public_names_are_listed_and_explained() -> None:
    names = [name for name in dir(minilm) if not name.startswith("_")]
    assert names == sorted(minilm.__all__, key=str) and set(names) == set(minilm._HOMES)
    for name in names:
        assert inspect.getdoc(getattr(minilm, name)), name
    assert Path(minilm.__file__).with_name("py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        minilm.trian  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_imports_nothing_heavy_and_a_run_imports_no_extra(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "import sys, minilm\n"
        "heavy = {'torch', 'numpy', 'tokenizers', 'matplotlib', 'huggingface_hub'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert 'train' in dir(minilm)\n"
        "import minilm.api\n"
        "extras = {'pandas', 'polars', 'sklearn', 'pyarrow', 'nltk', 'wandb', 'mlflow', 'IPython', 'ipywidgets'}\n"
        "assert not extras & set(sys.modules), extras & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "a.py"], check=True)
