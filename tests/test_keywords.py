"""Keywords are the changes that would be typed on the command line."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import pytest

from minilm.callers import in_python
from minilm.config import RunConfig
from minilm.errors import UserError
from minilm.keywords import changes_from, listed_changes, python_call
from minilm.loading import load_config
from minilm.studies.config import StudyConfig
from tests import tiny

CONFIG = tomllib.loads(tiny.CONFIG)


def test_keywords_are_the_changes_of_the_command_line() -> None:
    given = {
        "name": "2024", "seed": np.int64(2), "lora": {"rank": 8, "layers": (0, 1)}, "freeze": None,
        "model": {"config": {"width": 16}, "head": {"kind": "mlp"}},
        "train": {"lr": np.float64(1e-4), "class_weights": {"not so good": 2.0, "a.b=c": 1}, "best": "loss"},
    }  # fmt: skip
    made = changes_from(RunConfig, given)
    assert made == [
        'name="2024"', "seed=2", "lora.rank=8", "lora.layers=[0, 1]", "model.config.width=16", 'model.head.kind="mlp"',
        "train.lr=0.0001", 'train.class_weights={ "not so good" = 2.0, "a.b=c" = 1 }', 'train.best="loss"',
    ]  # fmt: skip
    table = CONFIG | {"data": {"source": "x.csv"}, "model": {"architecture": "gpt2", "config": {"depth": 1}}}
    config = load_config(table, [change for change in made if not change.startswith("lora")])
    assert config.model.config == {"depth": 1, "width": 16} and config.train
    assert config.train.class_weights == {"not so good": 2.0, "a.b=c": 1.0}


def test_axes_of_a_study_are_changed_one_by_one() -> None:
    made = changes_from(StudyConfig, {"axes": {"train.lr": [1e-3], "seed": (1, 2)}, "metric": "macro_f1"})
    assert made == ["axes.train.lr=[0.001]", "axes.seed=[1, 2]", 'metric="macro_f1"']


@pytest.mark.parametrize("key", ["a key", "a=b", "", 3])
def test_what_can_be_no_key_is_refused(key: Any) -> None:
    with pytest.raises(UserError, match=r"not a key of a config$"):
        changes_from(RunConfig, {"train": {key: 1}})


def test_changes_are_a_list() -> None:
    assert listed_changes(("a=1", "b=2")) == ["a=1", "b=2"]
    with pytest.raises(UserError, match="must be a list, such as"):
        listed_changes("a=1")
    for wrong in (None, [5], {"a": 1}, 5):
        with pytest.raises(UserError, match="must be a list of texts, such as"):
            listed_changes(wrong)


def test_an_unknown_keyword_is_answered_with_the_section_that_has_the_key() -> None:
    @python_call
    def call(config: str, data: object = None, *, train: object = None, name: str = "") -> str:
        return name

    wrong: dict[str, Any] = {"seed": 2}
    with pytest.raises(UserError, match=r"^minilm\.call: has no argument seed; write changes=\['seed=2'\]$"):
        call("minilm", **wrong)
    wrong = {"max_length": 9}
    with pytest.raises(UserError, match=r'max_length; write data={"source": "reviews\.csv", "max_tokens": 9}$'):
        call("minilm", "reviews.csv", **wrong)
    assert call("minilm", name="x") == "x" and not in_python()


def test_nan_is_a_value_and_not_a_missing_one() -> None:
    made = changes_from(RunConfig, {"train": {"lr": np.float64("nan")}, "augment": {"fraction": [float("nan")]}})
    assert made == ["train.lr=nan", "augment.fraction=[nan]"]
