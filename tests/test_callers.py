"""What a message asks the user to type has the same effect in a shell and in Python."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from minilm.callers import changes, from_python, in_python, training
from minilm.config import RunConfig
from minilm.keywords import changes_from
from minilm.schema import override, shown

CASES = [
    {"data.text": "my review", "data.label": "2024"},
    {"data.label_separator": shown(" ")},
    {"data.label_separator": shown(",")},
    {"data.header": "false", "data.text": "2"},
    {"data.rename": '{ "0" = "ham", "it\'s" = "spam" }'},
    {"train.min_steps": "0", "model.head.kind": "family", "seed": "3"},
]


def table_of(typed: list[str]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for change in typed:
        override(RunConfig, table, change)
    return table


@pytest.mark.parametrize("values", CASES)
def test_a_shell_and_python_get_the_same_table(values: dict[str, str]) -> None:
    in_shell = table_of(shlex.split(changes(values)))
    with from_python(None):
        keywords = eval(f"dict({changes(values)})")
    assert in_shell == table_of(changes_from(RunConfig, keywords)) != {}


def test_data_of_the_call_stay_in_it() -> None:
    frame, texts, labels = object(), ["a"], ["b"]
    for given, written in (
        ("a.csv", '{"source": "a.csv", "text": "x"}'),
        (Path("a.csv"), '{"source": "a.csv", "text": "x"}'),
        (frame, '{"source": frame, "text": "x"}'),
        ((texts, labels), '{"source": (texts, labels), "text": "x"}'),
        ({"label": "stars", "train": frame, "text": "y"}, '{"train": frame, "label": "stars", "text": "x"}'),
        (None, '{"text": "x"}'),
    ):
        with from_python(given):
            assert in_python() and changes({"data.text": "x"}) == f"data={written}"
    assert not in_python()


def test_a_source_that_is_cleared_becomes_the_training_file() -> None:
    values = {"data.source": "", "data.train": "runs/.data/frame.jsonl", "data.test": "b.csv"}
    with from_python({"source": object(), "test": "b.csv", "text": "review"}):
        assert changes(values) == 'data={"test": "b.csv", "train": frame, "text": "review"}'
    assert changes(values) == "data.source= data.train=runs/.data/frame.jsonl data.test=b.csv"


def test_another_model_is_a_command_or_a_call() -> None:
    values = {"model.source": "roberta-base"}
    assert training("bert", values).endswith(" train bert model.source=roberta-base")
    with from_python(None):
        assert training("bert", values) == 'minilm.train("bert", model={"source": "roberta-base"})'
