"""Predict with a trained classifier: from texts to scores and labels."""

from __future__ import annotations

import copy
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from minilm.callers import from_python
from minilm.checkpoints.models import card_of
from minilm.checkpoints.opening import holds_model, load_model
from minilm.data.batching import collate, evaluation_batches, length_multiple
from minilm.data.cleaning import cleaner
from minilm.data.in_memory import columns_of_data, is_in_memory
from minilm.data.long_texts import LongTexts, Windows
from minilm.data.rows import Rows
from minilm.data.tables import Table
from minilm.data.tokenization import Cut, Encoded, count_cut, encode, load_tokenizer, pad_id
from minilm.devices import Runtime, runtime, runtime_as_trained
from minilm.errors import UserError
from minilm.evaluation.decisions import Decision
from minilm.evaluation.explained import ExplainedText
from minilm.evaluation.explaining import explain_text
from minilm.evaluation.measuring import measure_on
from minilm.evaluation.metrics import Metrics
from minilm.evaluation.reading import Reading, Text, columns_of, config_of_run, decision_of, kind_of, names_of
from minilm.evaluation.regression import ScoreMetrics
from minilm.evaluation.validation_scores import ValidationScores, read_validation
from minilm.evaluation.windows import scores_of_texts
from minilm.evaluation.wishes import Wishes, apply_wishes
from minilm.hints import program
from minilm.hub import local_path
from minilm.loading import change_data
from minilm.models.architecture import Backbone, evaluation_mode
from minilm.models.batch import Batch
from minilm.terminal import printable
from minilm.textfiles import path_of
from minilm.world import deal_out, sum_, world

Forward = Callable[[Batch, np.ndarray], Tensor]  # a batch and its row numbers (B,) -> scores (B, C)
Combine = Callable[[np.ndarray, Windows], np.ndarray]  # the values of M windows (M, C), and their texts -> (N, C)


def predict_scores(
    model: Backbone,
    encoded: Encoded,
    runtime: Runtime,
    *,
    pad: int,
    forward: Forward | None = None,
    combine: Combine | None = None,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """The model's scores (logits) of N texts: (N, C) float32, in the order of the texts.

    Rows of similar length share a batch. Each module keeps its training or evaluation mode. ``forward`` computes the
    scores of a batch from the batch and its row numbers, if a part is cached; by default the model does. ``combine``
    computes the scores of texts from those of their windows; by default it combines class probabilities. ``progress``
    is called after each batch, with the batch's fraction of all rows. Several processes share the batches, and each
    returns the scores of all texts.
    """
    scores, order = [], []
    multiple = length_multiple(encoded.lengths, runtime.most_lengths)
    batches = list(evaluation_batches(encoded.lengths, runtime.tokens_at_once, runtime.batch_overhead, multiple))
    # Not inference_mode: a sharded model that is first used in it could not train any more.
    with evaluation_mode(model), torch.no_grad(), runtime.autocast():
        for rows, is_mine in deal_out(batches):
            batch = collate(encoded, rows, None, pad, multiple=multiple, limit=model.context).to(runtime.device)
            found = (model(batch) if forward is None else forward(batch, rows)).float()
            scores.append(found if is_mine else found[:0])
            order.append(rows if is_mine else rows[:0])
            if progress is not None:
                progress(world().size * len(rows) / len(encoded))
        by_length = torch.cat(scores).cpu()
        here = by_length.new_zeros(len(encoded.lengths), *by_length.shape[1:])
        here[torch.from_numpy(np.concatenate(order))] = by_length
        result = sum_(here).numpy()  # the rows of other processes are zero here
    if encoded.windows is None:
        return result
    if combine is None:
        return scores_of_texts(result, encoded.windows, kind_of(card_of(model)))
    return combine(result, encoded.windows)


class Predictor(ABC):
    """The base class of predictors, such as a model or an ensemble of models.

    A subclass sets the attributes and computes the scores of cleaned texts.
    """

    name: str  # the name in messages
    labels: list[str]  # (C,)
    reading: Reading
    decision: Decision
    clean: Callable[[str], str]

    @abstractmethod
    def scores_of_clean(self, texts: list[str], pairs: list[str] | None) -> np.ndarray:
        """The scores (logits) of N texts or pairs, (N, C)."""

    @abstractmethod
    def without_temperature(self) -> None:
        """Return probabilities without the temperature that was fitted on validation texts. Labels do not change."""

    @abstractmethod
    def identity(self) -> str:
        """A text that identifies the predictor and its settings. It differs if the answers may differ."""

    @abstractmethod
    def validation(self) -> ValidationScores:
        """The scores of the validation texts. Raises UserError if they were not saved."""

    @abstractmethod
    def watch(self, progress: Callable[[float], None]) -> None:
        """Call ``progress`` after each batch of texts, with the batch's fraction of all texts."""

    def cut_message(self) -> str:
        """A message about texts that were cut; empty if there were few."""
        return ""

    def counted_anew(self) -> Predictor:
        """The same predictor, which shares the model, but counts cut texts and shows its progress by itself."""
        return copy.copy(self)

    @property
    def multi_label(self) -> bool:
        """Whether a text may get several labels."""
        return self.decision.kind == "multi"

    def predict(self, texts: Iterable[Text], *, place: str = "text", first: int = 1) -> list[dict[str, float]]:
        """One ``{label: probability}`` per text; pairs are tuples.

        With one label per text the probabilities add up to 1; with several, they do not. A model that gives a score has
        one value for each of its outputs. Messages name the texts ``{place} {first}`` and so on.
        """
        probabilities = self.decision.probabilities(self.scores(texts, place=place, first=first))
        return [dict(zip(self.labels, map(float, row), strict=True)) for row in probabilities]

    def probabilities(self, texts: Iterable[Text]) -> np.ndarray:
        """The same as an array (N, C) float32, whose columns are in the order of ``labels``."""
        return self.decision.probabilities(self.scores(texts)).astype(np.float32)

    def decide(self, probabilities: dict[str, float]) -> list[str]:
        """The labels assigned to a text: the most probable; with several per text, all at or above their threshold.

        Raises UserError for a model that gives a score.
        """
        if self.decision.kind == "score":
            raise UserError(f"{self.name}: gives a score, not a label")
        chosen = self.decision.choose(np.array([list(probabilities.values())]))[0]
        names = list(probabilities)
        return [names[i] for i in np.flatnonzero(chosen)] if self.multi_label else [names[int(chosen)]]

    def is_unsure(self, probabilities: dict[str, float]) -> bool | None:
        """Whether the probability of a text's label is too low for an answer; None if there is no lower limit."""
        if not self.decision.unsure_below:
            return None
        return bool(self.decision.is_unsure(np.array([list(probabilities.values())]))[0])

    def scores(self, texts: Iterable[Text], *, place: str = "text", first: int = 1) -> np.ndarray:
        """The scores (logits), (N, C).

        Raises UserError for anything but texts and pairs, for pairs if the classifier was trained on single texts, for
        single texts if it was trained on pairs, and for a text that is empty after cleaning.
        """
        firsts, seconds = self._split(texts, place, first)
        firsts = self._cleaned(firsts, place, first)
        seconds = None if seconds is None else self._cleaned(seconds, place, first)
        return self.scores_of_clean_texts(firsts, seconds)

    def scores_of_rows(self, rows: Rows) -> np.ndarray:
        """The scores of rows whose texts are already clean; cleaning them again might change them again."""
        return self.scores_of_clean_texts(rows.texts, rows.pairs)

    def scores_and_plain(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """The scores of rows, and the scores in which no temperature is; here the same, which are read once."""
        scores = self.scores_of_rows(rows)
        return scores, scores

    def scores_of_clean_texts(self, texts: list[str], pairs: list[str] | None) -> np.ndarray:
        """The scores of cleaned texts, none of which is empty. Raises UserError if scores are infinite or NaN, and
        ``data.tokenization.NoTokens`` for texts in which the tokenizer finds no tokens."""
        if not texts:
            return np.zeros((0, len(self.labels)), np.float32)
        scores = self.scores_of_clean(texts, pairs)
        if not np.isfinite(scores).all():
            raise UserError(f"{self.name}: the scores are infinite or NaN, so the weights are damaged; train it again")
        return scores

    def _cleaned(self, texts: list[str], place: str, first: int) -> list[str]:
        cleaned = [self.clean(text) for text in texts]
        if "" in cleaned:
            row = cleaned.index("")
            raise UserError(f"{place} {first + row} is empty{' after cleaning' if texts[row].strip() else ''}")
        return cleaned

    def _split(self, texts: Iterable[Text], place: str, first: int) -> tuple[list[str], list[str] | None]:
        """The texts, or the first texts of pairs; and the second texts, or None if they are not pairs."""
        if isinstance(texts, str):
            raise UserError(f"give a list of texts, such as [{texts!r}], not a single text")
        texts = list(texts)
        for number, text in enumerate(texts, first):
            parts = (text,) if isinstance(text, str) else text
            if not isinstance(parts, list | tuple) or not all(isinstance(p, str) for p in parts):
                raise UserError(f"{place} {number} must be a text or a pair of two texts, got {text!r}")
        pairs: list[Any] = [text for text in texts if not isinstance(text, str)]
        if any(len(pair) != 2 for pair in pairs) or 0 < len(pairs) < len(texts):
            raise UserError("give either single texts or pairs of two texts, not both")
        if texts and self.reading.pairs not in (None, bool(pairs)):
            kind = "pairs of texts" if self.reading.pairs else "single texts"
            raise UserError(f"this classifier was trained on {kind}; give {kind}")
        if not pairs:
            return [str(text) for text in texts], None
        return [first for first, _ in pairs], [second for _, second in pairs]


class Classifier(Predictor):
    """A classification model with its tokenizer and the settings that it was trained with.

    >>> classifier = Classifier.load("runs/scratch-sample")
    >>> classifier.predict(["ale sztos"])
    [{'negative': 0.07, 'neutral': 0.26, 'positive': 0.67}]
    """

    def __init__(self, model: Backbone, tokenizer: Tokenizer, runtime: Runtime) -> None:
        """model: from ``load_model`` or ``new_model``, with a classification head."""
        self.model, self.tokenizer, self.runtime = model.to(runtime.device), tokenizer, runtime
        card = card_of(model)
        self.name = str(card.adapter or card.folder or "the model")
        self.labels, self.reading = names_of(card), Reading.of(card)
        self.decision = decision_of(card, self.reading)
        self.clean = cleaner(self.reading.clean)
        self.cut = Cut()  # counts over all texts that it has read
        self.progress: Callable[[float], None] | None = None
        self.forward: Forward | None = None  # computes scores in place of the model, such as a graph made from it
        self.precise: Classifier | None = None  # the same in float32, once it was needed
        self.home = card.adapter or card.folder  # the folder of its files

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: str = "auto",
        precision: str = "",
        *,
        raw: bool = False,
        threshold: float | None = None,
        unsure_below: float | None = None,
        min_precision: float | None = None,
    ) -> Classifier:
        """Load a classifier from a run's folder, a model's or an adapter's folder, a catalogue name or a Hub id.

        Args:
            source: the folder or the name.
            device: the device to compute on.
            precision: as in ``devices.runtime``; empty: the precision of training.
            raw: leave out the temperature that was fitted on validation texts, as ``--raw`` does.
            threshold: the probability from which ``decide`` gives a label (several labels, or two classes).
            unsure_below: with one label per text, ``is_unsure`` below this probability.
            min_precision: instead, find the lowest probability with this precision on the validation texts.

        Raises:
            UserError: there is no trained classifier, or a wish does not suit it.
        """
        folder = path_of(source, "the classifier", "a path or a name")
        if holds_model(folder / "model"):
            folder = folder / "model"
        elif (folder / "config.toml").exists():
            raise UserError(f"{folder}: {without_classifier(folder)}")
        model = load_model(folder if folder.exists() else source, "classify", dtype="stored")
        trained = Reading.of(card_of(model)).precision
        where = runtime(device, precision) if precision else runtime_as_trained(device, trained)
        for parameter in model.parameters():
            if (parameter.dtype, where.precision) != (torch.bfloat16, "bfloat16"):  # as in training
                parameter.data = parameter.data.float()
        where.store_as_computed(model)
        classifier = cls(model, load_tokenizer(card_of(model).tokenizer or source), where)
        classifier.home = folder if folder.is_dir() else classifier.home
        with from_python(None):
            notes = apply_wishes(classifier, Wishes(raw, threshold, unsure_below, min_precision))
        for note in notes:
            print(printable(note), file=sys.stderr)
        return classifier

    def scores_of_clean(self, texts: list[str], pairs: list[str] | None) -> np.ndarray:
        """(N, C) the model's scores (logits) of cleaned texts."""
        limit = self.reading.max_tokens or self.model.context or 512
        long = LongTexts(self.reading.long_texts, self.reading.window_stride, self.reading.window_scores)
        encoded = encode(self.tokenizer, texts, pairs, limit, long)
        self.cut = self.cut + count_cut(encoded, limit)
        pad = pad_id(self.tokenizer)
        forward, progress = self.forward, self.progress
        return predict_scores(self.model, encoded, self.runtime, pad=pad, forward=forward, progress=progress)

    def explain(self, text: Text, label: str = "") -> ExplainedText:
        """Which words of a text speak for its label, or for another label: integrated gradients, in nats of log-odds.

        The result has the words with their places and weights. It is computed in float32. Raises UserError as
        ``scores`` does, and for a label that the model does not have.
        """
        return explain_text(self.in_float32(), text, label)

    def in_float32(self) -> Classifier:
        """The classifier itself if it computes in float32; else the same, read again from its files once."""
        if self.runtime.precision == "float32":
            return self
        if self.precise is None:
            assert self.home is not None  # only a loaded model computes in another type
            self.precise = Classifier.load(self.home, str(self.runtime.device), "float32")
            self.precise.decision = self.decision
        return self.precise

    def evaluate(self, data: Any, *, changes: Sequence[str] = ()) -> Metrics | ScoreMetrics:
        """The metrics on labelled texts: loss, accuracy, F1, one row per label, and more.

        data: a file, a data frame of pandas or polars, or ``(texts, labels)``. A file or a frame has the columns of the
            data that the model was trained on, or "text" and "label"; ``changes`` names others, such as
            ``("data.text=review",)``.

        Raises UserError if there is no such file or column, or if labels are unknown.
        """
        home = self.home or Path(self.name)
        section, _ = columns_of(home, bool(self.reading.pairs))
        given: Path | Table
        if is_in_memory(data):
            columns = columns_of_data(data)
            given, section = columns.table(), replace(section, **columns.keys)
        else:
            given = local_path(str(data))
        section, matched = change_data(section, changes), config_of_run(home) is None
        metrics, notes = measure_on(self, given, section, matched=matched)
        for note in notes:
            print(printable(note), file=sys.stderr)
        return metrics

    def watch(self, progress: Callable[[float], None]) -> None:
        """See ``Predictor.watch``."""
        self.progress = progress

    def without_temperature(self) -> None:
        """See ``Predictor.without_temperature``."""
        self.decision = self.decision.without_temperature()

    def identity(self) -> str:
        """See ``Predictor.identity``: the files with their times, the runtime, and the decision."""
        files = sorted(self.home.iterdir()) if self.home is not None else []
        times = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.is_file()]
        return repr((self.name, times, str(self.runtime), self.decision))

    def validation(self) -> ValidationScores:
        """See ``Predictor.validation``."""
        return read_validation(self.home, self.name)

    def counted_anew(self) -> Classifier:
        """See ``Predictor.counted_anew``."""
        found = copy.copy(self)
        found.cut, found.progress = Cut(), None
        return found

    def cut_message(self) -> str:
        """See ``Predictor.cut_message``."""
        limit, context = self.reading.max_tokens, self.model.context
        return self.cut.message("texts", limit or context or 512, context)


def without_classifier(run: Path) -> str:
    """The message for a run's folder that contains no classifier."""
    if (run / "predictions.csv").exists() and (run / "metrics.jsonl").exists():
        return 'this run of a study kept no model (keep_model = "none"); train it again with `minilm train`'
    if (run / "results.json").exists() and not (run / "adapted").is_dir():
        return "this run did not train a model; replace [zero_shot] by [train] in its config to train one"
    if (run / "results.json").exists():
        return f"this run only adapted a checkpoint; to train a classifier, set model.source to {run / 'adapted'}"
    return f"this run has not finished; resume it with `{program()} train {run / 'config.toml'} --resume`"
