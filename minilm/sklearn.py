"""A classifier for scikit-learn: its pipelines, cross-validation and searches (Pedregosa et al. 2011).

>>> from minilm.sklearn import TransformerClassifier
>>> classifier = TransformerClassifier("minilm", epochs=3, lr=1e-4).fit(texts, labels)
>>> classifier.predict(["not bad at all"])
array(['positive'], dtype='<U8')
>>> GridSearchCV(TransformerClassifier("minilm"), {"lr": [5e-5, 1e-4]}, cv=3, n_jobs=2).fit(texts, labels)

Needs scikit-learn, the extra ``sklearn``.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from minilm.api import train_on
from minilm.config import RunConfig
from minilm.data.in_memory import check_cells, frame_columns, listed, text_columns
from minilm.data.labels import label_text
from minilm.errors import UserError
from minilm.evaluation.predictor import Classifier
from minilm.evaluation.reading import Text
from minilm.hints import install
from minilm.keywords import changes_from, listed_changes

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import check_is_fitted
except ModuleNotFoundError:
    raise UserError(f"minilm.sklearn needs scikit-learn; to install it: {install('sklearn')}") from None

SEVERAL = ("multilabel-indicator", "multiclass-multioutput")  # scikit-learn's words for several labels per text


class TransformerClassifier(ClassifierMixin, BaseEstimator):
    """A transformer that is fine-tuned, or trained from scratch, as an estimator of scikit-learn.

    ``fit`` holds out ``data.validation_fraction`` of its rows (a tenth) to choose the best epoch. It makes no test
    split, as scikit-learn does that. Without a name, a run is in a temporary folder, which exists as long as the
    estimator; with ``changes=("name=reviews",)`` it is in ``runs/reviews`` and has all pictures.

    An estimator that is pickled (joblib, ``n_jobs``) carries the files of its model, so it can be loaded anywhere; an
    adapter's base checkpoint is not among them and must be where the adapter's files say.

    Args:
        config: what ``minilm.train`` takes: a recipe's name, a TOML file, a run's folder, or a dict.
        lr, epochs, batch_size: ``[train]``; None: the config's.
        max_tokens: ``[data]``; longer texts are cut.
        lora_rank: the rank of LoRA adapters; 0: no adapters.
        seed: of initial weights, the order of the texts and dropout.
        changes: further changes of the config, as on the command line: ``("train.schedule=cosine",)``.

    Attributes:
        classes_: (C,) the labels, sorted; if a text may have several, the numbers of the columns.
        classifier_: the trained ``minilm.Classifier``.
        run_: the ``minilm.Run``: results, report, figures. An unpickled estimator of an unnamed run has none.
    """

    def __init__(
        self,
        config: str | Path | Mapping[str, Any] = "minilm",
        *,
        lr: float | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        lora_rank: int | None = None,
        seed: int | None = None,
        changes: Sequence[str] = (),
    ) -> None:
        self.config = config
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.lora_rank = lora_rank
        self.seed = seed
        self.changes = changes

    def fit(self, X: Any, y: Any) -> Self:
        """Train on texts and labels.

        X: N texts, or pairs of texts: a list, an array, a series, or a data frame with one or two columns.
        y: N labels of any type; or (N, C) of 0 and 1, if a text may have several.

        Raises minilm.UserError for texts that cannot be used and for a config that is not valid.
        """
        texts, own = texts_of(X), listed_changes(self.changes)
        classes, labels, names = _encoded(y)
        named = any(change.partition("=")[0].strip() == "name" for change in own)
        temporary = None if named else _TemporaryFolder()
        keywords = {
            "seed": self.seed,
            "train": {"lr": self.lr, "epochs": self.epochs, "batch_size": self.batch_size},
            "data": {"max_tokens": self.max_tokens},
            "lora": {"rank": self.lora_rank},
        }
        changes = [*changes_from(RunConfig, keywords), *own]
        if temporary is not None:
            changes.insert(0, "train.linear_baseline=false")
        data = {"source": (texts, labels), "labels": names, "test_fraction": 0.0}
        runs = Path("runs") if temporary is None else temporary.path
        run = train_on(self.config, data, changes, runs=runs, pictures=named)
        self.classes_, self.run_, self.classifier_ = classes, run, run.classifier()
        self._temporary = temporary  # an earlier fit's folder is removed
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(N,) the labels of texts; or (N, C) of 0 and 1. Raises NotFittedError before ``fit``."""
        check_is_fitted(self)
        decision = self.classifier_.decision
        chosen = decision.choose(decision.probabilities(self.classifier_.scores(texts_of(X))))
        return chosen.astype(np.int64) if decision.kind == "multi" else self.classes_[chosen]

    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, C) float32, the probabilities of the classes. Raises NotFittedError before ``fit``."""
        check_is_fitted(self)
        return self.classifier_.probabilities(texts_of(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.classifier_tags.multi_label = True
        tags.no_validation = True  # texts are checked by minilm
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if (classifier := state.pop("classifier_", None)) is not None:
            files = (path for path in sorted(classifier.home.rglob("*")) if path.is_file())
            state["_files"] = {path.relative_to(classifier.home).as_posix(): path.read_bytes() for path in files}
        if state.pop("_temporary", None) is not None:
            state.pop("run_", None)  # its folder is removed with this object
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        state = dict(state)
        files: Mapping[str, bytes] | None = state.pop("_files", None)
        super().__setstate__(state)
        if files is None:
            return
        self._temporary = _TemporaryFolder()
        for name, content in files.items():
            path = self._temporary.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.classifier_ = Classifier.load(self._temporary.path)


class _TemporaryFolder:
    """A folder that is removed with this object, at the latest when Python ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="minilm-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def texts_of(X: Any) -> list[Text]:
    """The texts, or pairs of texts, of whatever scikit-learn passes around: a list, an array, a series, a data frame.

    Raises UserError if they are in more than two columns.
    """
    frame = frame_columns(X)
    rows: Iterable[Any] = listed(X, "texts") if frame is None else map(list, zip(*frame.values(), strict=True))
    rows = [row[0] if isinstance(row, list) and len(row) == 1 else row for row in rows]
    columns, pairs = text_columns(rows)
    return list(zip(*columns.values(), strict=True)) if pairs else columns["text"]


def _encoded(y: Any) -> tuple[np.ndarray, list[Any], list[str]]:
    """The classes (C,), each text's label for training, and the names of the labels in the order of the classes."""
    if not hasattr(y, "toarray"):  # it may be a sparse matrix
        check_cells(listed(y, "labels"), "y: row {row:,}")
    check_classification_targets(y)
    if type_of_target(y) in SEVERAL:
        rows = np.asarray(y.toarray() if hasattr(y, "toarray") else y)  # (N, C)
        if len(wrong := rows[(rows != 0) & (rows != 1)]):
            raise UserError(f"y: with several labels per text, each cell must be 0 or 1, got {wrong[0]}")
        rows = rows.astype(np.int64)
        return np.arange(rows.shape[1]), rows.tolist(), [str(i) for i in range(rows.shape[1])]
    classes, numbers = np.unique(np.ravel(y), return_inverse=True)
    names = [label_text(name) for name in classes.tolist()]
    return classes, [names[number] for number in numbers], names
