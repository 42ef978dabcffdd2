"""``TransformerClassifier`` is an estimator as scikit-learn's own are, for texts."""

from __future__ import annotations

import copy
import importlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags

import minilm
from minilm.config import RunConfig
from minilm.sklearn import TransformerClassifier
from tests import tiny

CONFIG = tomllib.loads(tiny.CONFIG) | {"data": {"max_tokens": 32}}
CONFIG["train"] = {"epochs": 6, "batch_size": 4, "lr": 2e-2, "threads": 1}
CONFIG["model"]["config"] |= {"dropout": 0.0, "attention_dropout": 0.0}
TEXTS, LABELS = map(list, zip(*tiny.texts(), strict=True))


@pytest.fixture(autouse=True)
def undrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with tiny.no_pictures():
        yield


def quick(**options: Any) -> TransformerClassifier:
    return TransformerClassifier(CONFIG, **{"epochs": 1} | options)


@pytest.fixture(scope="module")
def fitted() -> TransformerClassifier:
    with tiny.no_pictures():
        return TransformerClassifier(CONFIG).fit(TEXTS, LABELS)


# --- Parameters -----------------------------------------------------------------------------------------------------


def test_its_parameters_are_kept_as_given_and_cloned() -> None:
    classifier = quick(lr=0.01, changes=("seed=3",))
    assert set(classifier.get_params()) == {
        "config", "lr", "epochs", "batch_size", "max_tokens", "lora_rank", "seed", "changes",
    }  # fmt: skip
    twin = clone(classifier.set_params(batch_size=8))
    assert twin is not classifier and twin.get_params() == classifier.get_params()
    assert twin.changes == ("seed=3",) and twin.batch_size == 8
    with pytest.raises(ValueError, match="Invalid parameter 'rate'"):
        classifier.set_params(rate=1)
    assert TransformerClassifier().config == "minilm" and "lr=0.01" in repr(classifier)


def test_parameters_are_keys_of_the_config() -> None:
    seen: dict[str, RunConfig] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minilm.sklearn.train_on", lambda config, data, changes, **rest: seen.update(made=changes))
        options = {"epochs": 2, "lr": 0.1, "batch_size": 3, "max_tokens": 9, "lora_rank": 4, "seed": 5}
        with pytest.raises(AttributeError):
            TransformerClassifier("bert", **options, changes=("seed=6",)).fit(TEXTS, LABELS)
    assert seen["made"] == [
        "train.linear_baseline=false", "seed=5", "train.lr=0.1", "train.epochs=2", "train.batch_size=3",
        "data.max_tokens=9", "lora.rank=4", "seed=6",
    ]  # fmt: skip


def test_its_tags_say_that_it_classifies_texts() -> None:
    tags = get_tags(quick())
    assert is_classifier(quick()) and tags.classifier_tags.multi_label and tags.target_tags.required
    assert tags.input_tags.string and tags.input_tags.one_d_array and not tags.input_tags.two_d_array


def test_it_is_not_fitted_before_fit() -> None:
    for method in ("predict", "predict_proba"):
        with pytest.raises(NotFittedError):
            getattr(quick(), method)(TEXTS)


# --- fit and predict ------------------------------------------------------------------------------------------------


def test_it_learns_labels_as_they_are(fitted: TransformerClassifier) -> None:
    assert fitted.classes_.tolist() == ["bad", "good"]
    answers, p = fitted.predict(TEXTS), fitted.predict_proba(pandas.Series(TEXTS))
    assert p.shape == (60, 2) and p.dtype == np.float32 and np.allclose(p.sum(axis=1), 1, atol=1e-5)
    assert answers.tolist() == fitted.classes_[p.argmax(axis=1)].tolist()
    assert fitted.score(np.array(TEXTS), LABELS) == np.mean(answers == np.array(LABELS)) > 0.9
    assert fitted.run_.results.test is None and fitted.run_.results.data.sizes["train"] == 54


@pytest.mark.parametrize("labels", [[10, 9], [True, False], ["b.", "a, c"], [0.0, 1.0]])
def test_classes_are_sorted_and_so_are_the_columns_of_probabilities(labels: list[Any]) -> None:
    y = [labels[label == "bad"] for label in LABELS]
    classifier = quick().fit(np.array(TEXTS, dtype=object)[:, None], y)
    assert classifier.classes_.tolist() == sorted(labels) and classifier.predict(TEXTS).dtype == np.array(y).dtype
    assert classifier.classifier_.labels == [str(int(c)) if not isinstance(c, str) else c for c in sorted(labels)]


@pytest.mark.parametrize("sparse", [False, True])
def test_several_labels_are_an_indicator_matrix(sparse: bool) -> None:
    y = np.array([[label == "good", label == "bad", i % 3 == 0] for i, label in enumerate(LABELS)], dtype=int)
    classifier = quick().fit(TEXTS, csr_matrix(y) if sparse else y)
    answers, p = classifier.predict(TEXTS), classifier.predict_proba(TEXTS)
    assert answers.shape == p.shape == y.shape and set(np.unique(answers)) <= {0, 1}
    assert classifier.classes_.tolist() == [0, 1, 2] and classifier.score(TEXTS, y) <= 1


def test_pairs_are_two_columns_of_a_frame_or_tuples() -> None:
    pairs = [(text, text[::-1]) for text in TEXTS]
    classifier = quick().fit(pandas.DataFrame(pairs, columns=["question", "answer"]), LABELS)
    assert classifier.predict(pairs).shape == (60,)
    with pytest.raises(minilm.UserError, match="trained on pairs"):
        classifier.predict(TEXTS)


def test_what_cannot_be_labels_or_texts_is_refused() -> None:
    with pytest.raises(ValueError, match="continuous"):
        quick().fit(TEXTS, np.linspace(0, 1, 60))
    with pytest.raises(minilm.UserError, match="has 60 texts, but 59 labels"):
        quick().fit(TEXTS, LABELS[1:])
    with pytest.raises(minilm.UserError, match="must be a pair"):
        quick().fit(np.array([["a", "b", "c"]] * 60), LABELS)
    for matrix in (np.array([[1, 2], [2, 1]] * 30), csr_matrix([[2, 0], [0, 2]] * 30), np.array([[1, 2], [3, 1]] * 30)):
        with pytest.raises(minilm.UserError, match="y: with several labels per text, each cell must be 0 or 1"):
            quick().fit(TEXTS, matrix)
    with pytest.raises(minilm.UserError, match="y: row 1: is b'bad', which is bytes"):
        quick().fit(TEXTS, [b"bad", b"good"] * 30)
    for changes in (None, [5]):
        with pytest.raises(minilm.UserError, match="changes must be a list of texts"):
            quick(changes=changes).fit(TEXTS, LABELS)


# --- Its folder -----------------------------------------------------------------------------------------------------


def test_its_folder_is_removed_with_it_unless_it_has_a_name(tmp_path: Path) -> None:
    classifier = quick().fit(TEXTS, LABELS)
    first = classifier.run_.folder
    assert first.is_dir() and first.parent.parent == tmp_path
    second = classifier.fit(TEXTS, LABELS).run_.folder
    assert not first.exists() and second.is_dir()
    del classifier
    assert not second.exists() and not list(tmp_path.glob("minilm-*"))
    named = quick(changes=("name=mine",)).fit(TEXTS, LABELS)
    assert named.run_.folder == Path("runs/mine") and named.run_.results.baselines.keys() == {"majority", "linear"}
    del named
    assert Path("runs/mine/report.html").is_file()


def test_a_pickle_carries_the_model(fitted: TransformerClassifier, tmp_path: Path) -> None:
    joblib.dump(fitted, tmp_path / "classifier.joblib")
    assert len(joblib.load(joblib.dump(quick(), tmp_path / "unfitted.joblib")[0]).get_params()) == 8
    for twin in (joblib.load(tmp_path / "classifier.joblib"), copy.deepcopy(fitted)):
        home = twin.classifier_.home
        assert home != fitted.classifier_.home and twin.get_params() == fitted.get_params()
        np.testing.assert_array_equal(twin.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
        again = copy.deepcopy(twin)
        np.testing.assert_array_equal(again.predict(TEXTS), fitted.predict(TEXTS))
    assert fitted.run_.folder.is_dir()


# --- Within scikit-learn --------------------------------------------------------------------------------------------


def test_it_is_a_step_of_a_pipeline() -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = make_pipeline(lower, quick())
    pipeline.set_params(transformerclassifier__seed=2).fit([text.upper() for text in TEXTS], LABELS)
    assert pipeline.classes_.tolist() == ["bad", "good"] and pipeline.predict_proba(TEXTS[:3]).shape == (3, 2)
    assert pipeline[-1].run_.config.seed == 2


def test_cross_validation_and_a_search_over_rates() -> None:
    assert cross_val_score(quick(), TEXTS, LABELS, cv=2, error_score="raise").shape == (2,)
    search = GridSearchCV(quick(), {"lr": np.logspace(-4, -2, 2)}, cv=2, error_score="raise")
    search.fit(TEXTS, LABELS)
    assert search.best_estimator_.run_.config.train.lr == search.best_params_["lr"]
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_its_probabilities_can_be_calibrated() -> None:
    calibrated = CalibratedClassifierCV(quick(), cv=2).fit(TEXTS, LABELS)
    assert calibrated.predict_proba(TEXTS).shape == (60, 2) and calibrated.classes_.tolist() == ["bad", "good"]


@pytest.mark.slow
def test_a_search_in_two_processes_finds_the_same_as_in_one() -> None:
    found = []
    for jobs in (1, 2):
        search = GridSearchCV(quick(), {"lr": [1e-3, 1e-2]}, cv=2, n_jobs=jobs, error_score="raise")
        search.fit(TEXTS, LABELS)
        found.append((search.cv_results_["mean_test_score"].tolist(), search.predict_proba(TEXTS).tolist()))
    assert found[0] == found[1]


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "minilm.sklearn")
    with pytest.raises(minilm.UserError, match=r'^minilm.sklearn needs scikit-learn; .* pip install -e .*\[sklearn\]'):
        importlib.import_module("minilm.sklearn")
