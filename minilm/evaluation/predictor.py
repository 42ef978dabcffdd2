"""Predict with a trained classifier: from texts to scores and labels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from minilm.checkpoints.models import card_of
from minilm.checkpoints.opening import holds_model, load_model
from minilm.config import DataSection
from minilm.data import readers
from minilm.data.batching import collate, evaluation_batches
from minilm.data.cleaning import cleaner
from minilm.data.long_texts import LongTexts, Windows
from minilm.data.rows import Rows
from minilm.data.sources import load_texts
from minilm.data.tokenization import Cut, Encoded, count_cut, encode, load_tokenizer, pad_id
from minilm.devices import Runtime, runtime_as_trained
from minilm.errors import UserError
from minilm.evaluation.metrics import log_softmax, sigmoid
from minilm.evaluation.windows import scores_of_texts
from minilm.hints import program
from minilm.loading import load_config
from minilm.models.architecture import Backbone, Card, evaluation_mode
from minilm.models.batch import Batch
from minilm.schema import Limit, read_table

LINES = 512  # lines that are read and classified together

Forward = Callable[[Batch, np.ndarray], Tensor]  # a batch and its row numbers (B,) -> scores (B, C)
Combine = Callable[[np.ndarray, Windows], np.ndarray]  # the values of M windows (M, C), and their texts -> (N, C)
Text = str | tuple[str, str]  # a text, or a pair


def predict_scores(
    model: Backbone,
    encoded: Encoded,
    runtime: Runtime,
    *,
    pad: int,
    forward: Forward | None = None,
    combine: Combine | None = None,
) -> np.ndarray:
    """The model's scores (logits) of N texts: (N, C) float32, in the order of the texts.

    Rows of similar length share a batch. Each module keeps its training or evaluation mode. ``forward`` computes the
    scores of a batch from the batch and its row numbers, if a part is cached; by default the model does. ``combine``
    computes the scores of texts from those of their windows; by default it combines class probabilities.
    """
    scores, order = [], []
    with evaluation_mode(model), torch.inference_mode(), runtime.autocast():
        for rows in evaluation_batches(encoded.lengths, runtime.tokens_at_once):
            batch = collate(encoded, rows, None, pad, limit=model.context).to(runtime.device)
            scores.append((model(batch) if forward is None else forward(batch, rows)).float())
            order.append(rows)
    by_length = torch.cat(scores).cpu().numpy()
    result = np.empty_like(by_length)
    result[np.concatenate(order)] = by_length
    if encoded.windows is None:
        return result
    if combine is None:
        return scores_of_texts(result, encoded.windows, is_multi_label(card_of(model)))
    return combine(result, encoded.windows)


def is_multi_label(card: Card) -> bool:
    """Whether a classifier can give a text several labels."""
    return card.published.get("problem_type") == "multi_label_classification"


@dataclass(frozen=True)
class Reading:
    """How texts are prepared, in prediction as in training. Saved as "minilm" in the model's config.json."""

    # The most tokens that the model reads at once; 0: the model's context.
    max_tokens: Annotated[int, Limit("a whole number of at least 0", lambda n: n >= 0)] = 0
    clean: list[str] = field(default_factory=list)  # cleaning steps
    pairs: bool | None = None  # whether it reads pairs of texts; None: unknown
    # With several labels per text, the probability threshold: a label is assigned at or above it.
    threshold: Annotated[float, Limit("a number from 0 to 1", lambda x: 0 <= x <= 1)] = 0.5
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"  # train.precision
    long_texts: Literal["cut", "head-tail", "windows"] = "cut"  # how to handle longer texts, as data.long_texts
    window_stride: Annotated[int, Limit("a whole number of at least 0", lambda n: n >= 0)] = 0
    window_scores: Literal["mean", "max"] = "mean"

    @classmethod
    def of(cls, card: Card) -> Reading:
        """The settings in a model's config. Raises UserError for an invalid value."""
        names = {f.name for f in fields(cls)}
        stored = {key: value for key, value in card.extra.items() if key in names}
        place = f"{card.folder}/config.json" if card.adapter is None else f"{card.adapter}/adapter_config.json"
        return read_table(cls, stored, lambda key: place, "minilm.")


class Classifier:
    """A classification model with its tokenizer and the settings that it was trained with.

    >>> classifier = Classifier.load("runs/scratch-sample")
    >>> classifier.predict(["ale sztos"])
    [{'negative': 0.07, 'neutral': 0.26, 'positive': 0.67}]
    """

    def __init__(self, model: Backbone, tokenizer: Tokenizer, runtime: Runtime) -> None:
        """model: from ``load_model`` or ``new_model``, with a classification head."""
        self.model, self.tokenizer, self.runtime = model.to(runtime.device), tokenizer, runtime
        card = card_of(model)
        self.labels = card.labels
        self.multi_label = is_multi_label(card)
        self.reading = Reading.of(card)
        self.clean = cleaner(self.reading.clean)
        self.cut = Cut()  # counts over all texts that it has read

    @classmethod
    def load(cls, source: str | Path, device: str = "auto") -> Classifier:
        """Load a classifier from a run's folder, a model's or an adapter's folder, a catalogue name or a Hub id.

        Raises UserError if there is no trained classifier.
        """
        folder = Path(source)
        if holds_model(folder / "model"):
            folder = folder / "model"
        elif (folder / "config.toml").exists():
            raise UserError(f"{folder}: {without_classifier(folder)}")
        model = load_model(folder if folder.exists() else source, "classify", dtype="stored")
        runtime = runtime_as_trained(device, Reading.of(card_of(model)).precision)
        for parameter in model.parameters():
            if (parameter.dtype, runtime.precision) != (torch.bfloat16, "bfloat16"):  # as in training
                parameter.data = parameter.data.float()
        return cls(model, load_tokenizer(card_of(model).tokenizer or source), runtime)

    def predict(self, texts: Iterable[Text], *, place: str = "text", first: int = 1) -> list[dict[str, float]]:
        """One ``{label: probability}`` per text; pairs are tuples.

        With one label per text the probabilities add up to 1. With several, they do not, and a label is assigned if its
        probability is at least ``reading.threshold``. Messages name the texts ``{place} {first}`` and so on.
        """
        scores = self.scores(texts, place=place, first=first)
        probabilities = sigmoid(scores) if self.multi_label else np.exp(log_softmax(scores))
        return [dict(zip(self.labels, map(float, row), strict=True)) for row in probabilities]

    def decide(self, probabilities: dict[str, float]) -> list[str]:
        """The labels assigned to a text: the most probable; with several per text, all at or above the threshold."""
        if self.multi_label:
            return [label for label, p in probabilities.items() if p >= self.reading.threshold]
        return [max(probabilities, key=lambda label: probabilities[label])]

    def scores(self, texts: Iterable[Text], *, place: str = "text", first: int = 1) -> np.ndarray:
        """The model's scores (logits), (N, C).

        Raises UserError for anything but texts and pairs, for pairs if the classifier was trained on single texts, for
        single texts if it was trained on pairs, and for a text that is empty after cleaning.
        """
        firsts, seconds = self._split(texts, place, first)
        firsts = self._cleaned(firsts, place, first)
        seconds = None if seconds is None else self._cleaned(seconds, place, first)
        return self._scores_of_clean(firsts, seconds)

    def _cleaned(self, texts: list[str], place: str, first: int) -> list[str]:
        cleaned = [self.clean(text) for text in texts]
        if "" in cleaned:
            row = cleaned.index("")
            raise UserError(f"{place} {first + row} is empty{' after cleaning' if texts[row].strip() else ''}")
        return cleaned

    def scores_of_rows(self, rows: Rows) -> np.ndarray:
        """The scores of rows whose texts are already clean; cleaning them again might change them again."""
        return self._scores_of_clean(rows.texts, rows.pairs)

    def _scores_of_clean(self, texts: list[str], pairs: list[str] | None) -> np.ndarray:
        if not texts:
            return np.zeros((0, len(self.labels)), np.float32)
        limit = self.reading.max_tokens or self.model.context or 512
        long = LongTexts(self.reading.long_texts, self.reading.window_stride, self.reading.window_scores)
        encoded = encode(self.tokenizer, texts, pairs, limit, long)
        self.cut = self.cut + count_cut(encoded, limit)
        scores = predict_scores(self.model, encoded, self.runtime, pad=pad_id(self.tokenizer))
        if not np.isfinite(scores).all():
            name = card_of(self.model).adapter or card_of(self.model).folder or "the model"
            raise UserError(f"{name}: the scores are infinite or NaN, so the weights are damaged; train it again")
        return scores

    def cut_message(self) -> str:
        """A message about texts that were cut; empty if there were few."""
        limit, context = self.reading.max_tokens, self.model.context
        return self.cut.message("texts", limit or context or 512, context)

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


def without_classifier(run: Path) -> str:
    """The message for a run's folder that contains no classifier."""
    if (run / "predictions.csv").exists() and (run / "metrics.jsonl").exists():
        return 'this run of a study kept no model (keep_model = "none"); train it again with `minilm train`'
    if (run / "results.json").exists() and not (run / "adapted").is_dir():
        return "this run did not train a model; replace [zero_shot] by [train] in its config to train one"
    if (run / "results.json").exists():
        return f"this run only adapted a checkpoint; to train a classifier, set model.source to {run / 'adapted'}"
    return f"this run has not finished; resume it with `{program()} train {run / 'config.toml'} --resume`"


# --- Files -------------------------------------------------------------------------------------------------------


def is_table(name: str) -> bool:
    """Whether a file of this name is a table; any other file has one text per line."""
    return readers.is_table(Path(name))


def predict_table(classifier: Classifier, path: Path, run: str | Path) -> Iterator[tuple[str, dict[str, float]]]:
    """The texts of a table, with their ``{label: probability}``, in order. A tab joins the two texts of a pair.

    The texts are in the columns that the classifier's ``run`` was trained on. Raises UserError before the first
    prediction if a column is missing or a text cannot be read.
    """
    section, place = _columns_of(Path(run), bool(classifier.reading.pairs))
    texts = load_texts(path, replace(section, clean=classifier.reading.clean), place)
    for start in range(0, len(texts), LINES):
        chunk = texts[start : start + LINES]
        shown = (text if isinstance(text, str) else "\t".join(text) for text in chunk)
        yield from zip(shown, classifier.predict(chunk), strict=True)


def _columns_of(run: Path, pairs: bool) -> tuple[DataSection, str]:
    """The columns of a run's config, and where they are given; the default columns if there is no config."""
    for path in (run / "config.toml", run.parent / "config.toml")[: 2 if run.name == "model" else 1]:
        if path.is_file():
            return load_config(path).data, f" in {path}"
    return DataSection(text_pair="text_pair" if pairs else ""), f" by default, as {run} has no config.toml"


def predict_lines(
    classifier: Classifier, lines: Iterable[str], place: str = "text"
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each line with its ``{label: probability}``, in order. Lines are classified in chunks.

    If the classifier reads pairs, a line is two texts with a tab between them. Raises UserError with the line's number
    if the line is empty, before or after cleaning, or is not a pair.
    """
    numbered = iter(enumerate(lines, 1))
    while chunk := list(itertools.islice(numbered, LINES)):
        texts = [_parse(line, f"{place} {number}", bool(classifier.reading.pairs)) for number, line in chunk]
        scores = classifier.predict(texts, place=place, first=chunk[0][0])
        yield from zip((line for _, line in chunk), scores, strict=True)


def _parse(line: str, place: str, as_pair: bool) -> Text:
    parts = [part.strip() for part in line.split("\t")] if as_pair else [line.strip()]
    is_text = line.isascii() or line == line.encode(errors="ignore").decode()  # not bytes of another encoding
    if not line.strip():
        raise UserError(f"{place} is empty")
    if not is_text or not all(parts) or len(parts) != 1 + as_pair:
        wanted = "two texts in UTF-8 with a tab between them" if as_pair else "a text in UTF-8"
        raise UserError(f"{place} must be {wanted}, got {line!r}")
    return (parts[0], parts[1]) if as_pair else parts[0]
