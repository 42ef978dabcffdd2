"""A run's files are read strictly: what an editor or half a copy did to one is a line that names it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.errors import UserError
from minilm.reporting.compare import compare_html, compare_markdown, compare_text, load_groups
from minilm.reporting.report import write_report
from minilm.reporting.results import Adaptation, Environment, Results, read_history, read_record
from minilm.schema import as_table
from tests import records
from tests.tiny import finished_run


def read(folder: Path, results: dict[str, Any]) -> Results:
    (folder / "results.json").write_text(json.dumps(results))
    return read_record(Results, folder / "results.json")


def zero_shot() -> dict[str, Any]:
    """results.json of a run that asked a model without training it."""
    results = records.trained()
    for key in ("train", "best", "stopped", "tokens_per_second", "lengths"):
        del results[key]
    asked = {"method": "cloze", "pattern": "{text} {label}", "content_free": "", "words": {"negative": "bad"}}
    return results | {"zero_shot": asked, "times": {"inference_seconds_per_100_texts": 0.1}}


@pytest.mark.parametrize("results", [records.trained(), records.many_labels(), records.adapted(), zero_shot()])
def test_what_is_written_reads_back_equal(tmp_path: Path, results: dict[str, Any]) -> None:
    first = read(tmp_path, results)
    assert read(tmp_path, as_table(first)) == first


def test_a_run_reads_back_what_it_wrote() -> None:
    run = finished_run()
    results = json.loads((run / "results.json").read_text())
    assert as_table(read_record(Results, run / "results.json")) == results
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [as_table(entry) for entry in read_history(run)] == lines


def test_a_run_of_minilm_0_1_0_is_read(tmp_path: Path) -> None:
    new = zero_shot() | {"decision_threshold": 0.3}
    new["baselines"]["majority"]["decision_threshold"] = 0.2
    old = copy.deepcopy(new)
    old["threshold"] = old.pop("decision_threshold")
    old["baselines"]["majority"]["threshold"] = old["baselines"]["majority"].pop("decision_threshold")
    old["zero_shot"]["way"] = old["zero_shot"].pop("method")
    old["zero_shot"]["words"] = new["zero_shot"]["words"] = {"way": "threshold"}  # a label, and no key
    assert read(tmp_path, old) == read(tmp_path, new)
    start = {"the checkpoint": "1", "the tokenizer": "2", "the text that [augment] makes": "3"}
    environment = records.environment() | {"start": start | {"the text to adapt to": "4"}}
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    read_back = read_record(Environment, tmp_path / "environment.json")
    assert read_back.start == {"checkpoint": "1", "tokenizer": "2", "augmented_texts": "3", "adaptation_texts": "4"}


MISSING = object()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("test.accuracy", 7, "test.accuracy must be a number from 0 to 1, got 7"),
        ("test.accuracy", MISSING, "test must contain loss accuracy macro_precision macro_recall macro_f1 mcc, or"),
        ("test.loss", float("inf"), "test.loss must be a number from 0 to 1e12, got inf"),
        ("test", 3, "test must be an object, got 3"),
        ("test", MISSING, "test is missing"),
        ("test.confusion", [[1, 2], [3, 4]], "test confusion must be 3 rows of 3 whole numbers of texts"),
        ("test.per_class", [{"precision": 1, "recall": 1, "f1": 1, "support": 1}], "test confusion must be 1 rows"),
        ("data.classes.train", [1], "data.classes must contain a number of texts for each of the 3 labels"),
        ("labels", ["a"], "train must contain the metrics of each of the 1 labels"),
        ("labels", None, "labels must be a list, each item a text, got None"),
        ("parameters.trained", -1, "parameters.trained must be a whole number from 0 to 2^53, got -1"),
        ("parameters.total", 0, "parameters must contain a total above 0, and a trained number of at most the total"),
        ("times.train_seconds", 1e300, "times.train_seconds must be a number from 0 to 1e12, got 1e+300"),
        ("best.metric", "jaccard", 'best.metric: "jaccard" is not among the metrics of validation'),
        ("best", MISSING, "must contain best, zero_shot or adaptation"),
        ("data.sizes", {"test": 3}, "data must contain the sizes and classes of train, validation, test"),
        ("samples", {}, "samples must be a list of objects, got {"),
        ("samples", [{"text": ""}], "samples[1].label is missing; it must be a text or a list, each item a text"),
        ("baselines.linear.validation", MISSING, "baselines.linear.validation.loss is missing"),
        ("nmae", "x", 'nmae is not a known key (did you mean "name"?)'),
    ],
)
def test_a_message_names_the_file_and_the_key(tmp_path: Path, key: str, value: Any, message: str) -> None:
    results = records.trained()
    *path, last = key.split(".")
    table = results
    for name in path:
        table = table[name]
    if value is MISSING:
        del table[last]
    else:
        table[last] = value
    with pytest.raises(UserError) as caught:
        read(tmp_path, results)
    assert str(caught.value).startswith(f"{tmp_path / 'results.json'}: {message}") and "\n" not in str(caught.value)


# --- Mutations: always a line or a result ---

ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.integers(10**17, 10**400),
        st.sampled_from([-1, 0, 0.0, 1e308, -1e308, float("nan"), float("inf"), "\ud800", "train", "macro_f1"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to each value within a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


@st.composite
def mutated(draw: st.DrawFn, value: dict[str, Any]) -> str:
    """The JSON of a value, changed at one to three places, and perhaps as text."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(0, 3))):
        *path, last = draw(st.sampled_from(list(places(value)) or [("x",)]))
        table = value
        for key in path:
            table = table[key]
        if draw(st.booleans()) or (last not in table and isinstance(table, dict)):
            table[last] = draw(ANYTHING)
        else:
            del table[last]
    text = json.dumps(value)
    cut = draw(st.integers(0, len(text)))
    kind = draw(st.sampled_from(["whole", "whole", "whole", "cut", "copied", "junk"]))
    if kind == "cut":
        return text[:cut]
    if kind == "copied":
        return text[:cut] + text[cut // 2 :]
    if kind == "junk":
        return text[:cut] + draw(st.sampled_from(["\x00", "}", "9" * 5000, "[" * 3000, "\ufeff"])) + text[cut:]
    return text


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind of run, and one that only has predictions beside it."""
    found = {}
    configs = {"trained": "", "zero_shot": "", "adapted": '[model]\nsource = "bert"\n[adapt]\nblock = 64\n'}
    kinds = {"trained": records.trained, "zero_shot": zero_shot, "adapted": records.adapted}
    for name, make in kinds.items():
        folder = found[name] = tmp_path_factory.mktemp(name)
        history = [records.evaluation(step, step / 3, records.numbers()) for step in (1, 2, 3)]
        (folder / "config.toml").write_text(records.config_text(configs[name]))
        (folder / "results.json").write_text(json.dumps(make()))
        (folder / "environment.json").write_text(json.dumps(records.environment()))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    return found


def shown_or_refused(folders: list[Path]) -> None:
    """All that is made of runs, but for pictures; or one line."""
    try:
        for folder in folders:
            write_report(folder)
        groups = load_groups(folders)
        assert compare_text(groups) and compare_markdown(groups)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("minilm.reporting.style.Figure.savefig", lambda *_, **options: None)
            assert compare_html(groups)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000


@pytest.mark.parametrize(
    ("kind", "file", "content"),
    [
        ("trained", "results.json", records.trained()),
        ("trained", "results.json", records.many_labels()),
        ("zero_shot", "results.json", zero_shot()),
        ("adapted", "results.json", records.adapted()),
        ("trained", "environment.json", records.environment()),
        ("trained", "metrics.jsonl", records.evaluation(1, 1.0, records.numbers(), train=records.numbers())),
    ],
)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_changed_file_is_a_line_or_a_result(
    folders: dict[str, Path], kind: str, file: str, content: dict[str, Any], data: st.DataObject
) -> None:
    path = folders[kind] / file
    before = path.read_bytes()
    try:
        path.write_text(data.draw(mutated(content)), encoding="utf-8")
        shown_or_refused([folders[kind], folders["trained"]])
    finally:
        path.write_bytes(before)


def test_the_adaptation_of_a_run_is_read_alone_too(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(records.adapted()["adaptation"]))
    assert read_record(Adaptation, path).perplexity.after == 9.0
    path.write_text("{}")
    with pytest.raises(UserError, match=r"results.json: objective is missing"):
        read_record(Adaptation, path)
