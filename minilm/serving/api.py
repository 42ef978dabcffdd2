"""The form of requests and answers: that of text classification on the Hub.

    {"inputs": "a text", "parameters": {"top_k": 2}}   ->   [[{"label": "good", "score": 0.9}, {"label": ...}]]

``inputs`` is a text, a pair ``{"text": ..., "text_pair": ...}``, or a list of these; each gets a list of labels. With
one label per text, the first label is the one that ``minilm predict`` gives (which, with a threshold, may be the less
probable of two), then come the others by their score. ``parameters`` may have:

    top_k                the number of labels; by default all
    function_to_apply    "softmax", "sigmoid" or "none", of the scores without a temperature; by default the
                         probabilities of `minilm predict`
    only_predicted       true: only the labels that `minilm predict` gives, with several labels perhaps none

A mistake in a request raises ``Refusal``, with an HTTP status and a message of one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from minilm.data.decoding import BROKEN
from minilm.errors import UserError
from minilm.evaluation.metrics import log_softmax, sigmoid
from minilm.evaluation.predictor import Predictor
from minilm.evaluation.reading import Text
from minilm.schema import JSON, Limit, read_table
from minilm.terminal import printable


class Refusal(Exception):
    """A request that cannot be answered: an HTTP status, and a message of one line."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


@dataclass(frozen=True)
class Parameters:
    """``parameters`` of a request."""

    top_k: Annotated[int, Limit("a whole number of at least 1", lambda n: n >= 1)] | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None
    only_predicted: bool = False


@dataclass(frozen=True)
class Limits:
    """The largest requests that are answered."""

    body: int = 16 * 2**20  # bytes
    characters: int = 100_000  # of a text
    texts: int = 1024  # of a request


class Question(NamedTuple):
    """The cleaned texts of a request, and how to answer."""

    texts: list[str]
    pairs: list[str] | None
    parameters: Parameters


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises Refusal if it is none."""
    try:
        table = json.loads(body)
    except (ValueError, RecursionError) as error:  # also for too long numbers and too deep nesting
        reason = str(error).partition(":")[0] or type(error).__name__
        raise Refusal(400, f"the body is not JSON ({reason})") from None
    if not isinstance(table, dict):
        raise Refusal(400, 'the body must be an object such as {"inputs": "a text"}')
    return table


def check_keys(table: Mapping[str, Any], others: Sequence[str], shown: str) -> None:
    """Raise Refusal unless an object has the key "inputs" and no keys but this and others."""
    unknown = [key for key in table if key not in ("inputs", *others)]
    if unknown or "inputs" not in table:
        what = f'has no key "{printable(unknown[0])}"' if unknown else 'needs the key "inputs"'
        raise Refusal(400, f'a request {what}; it is {{"inputs": ..., {shown}}}')


def read_question(body: bytes, predictor: Predictor, limits: Limits) -> Question:
    """The texts and parameters of a request to /predict. Raises Refusal."""
    table = read_object(body)
    check_keys(table, ("parameters", "options"), '"parameters": {...}')  # options: for the Hub alone
    texts, pairs = read_texts(table["inputs"], predictor, limits)
    return Question(texts, pairs, _parameters(table.get("parameters") or {}, predictor))


def read_explained(body: bytes, predictor: Predictor, limits: Limits) -> tuple[Text, str]:
    """The text or pair of a request to /explain, as it was sent, and the label; "": the given one. Raises Refusal."""
    table = read_object(body)
    check_keys(table, ("label",), '"label": "..."')
    parts, label = parts_of(table.get("inputs"), "inputs"), table.get("label") or ""
    if not isinstance(label, str):
        raise Refusal(400, "label must be the name of a label")
    read_texts(table["inputs"], predictor, limits)
    return parts[0] if len(parts) == 1 else (parts[0], parts[1]), label


def _parameters(table: Any, predictor: Predictor) -> Parameters:
    if not isinstance(table, dict):
        raise Refusal(400, 'parameters must be an object such as {"top_k": 1}')
    known = {key: value for key, value in table.items() if value is not None}
    try:
        found = read_table(Parameters, known, lambda key: "the request", "parameters.", JSON)
    except UserError as error:
        raise Refusal(400, str(error)) from None
    if found.only_predicted and predictor.decision.kind == "score":
        raise Refusal(400, "parameters.only_predicted: this model gives a score and no labels")
    return found


def read_texts(inputs: Any, predictor: Predictor, limits: Limits) -> tuple[list[str], list[str] | None]:
    """The cleaned texts of ``inputs``, and the second texts if they are pairs. Raises Refusal."""
    items = inputs if isinstance(inputs, list) else [inputs]
    if not items:
        raise Refusal(400, "inputs is empty; give at least one text")
    if len(items) > limits.texts:
        raise Refusal(413, f"inputs has {len(items):,} texts, more than {limits.texts:,}; send them in parts")
    found = [parts_of(item, f"inputs, text {number}") for number, item in enumerate(items, 1)]
    is_pair = {len(parts) == 2 for parts in found}
    if len(is_pair) > 1:
        raise Refusal(400, "inputs must be either single texts or pairs, not both")
    wanted, given = predictor.reading.pairs, is_pair.pop()
    if wanted not in (None, given):
        what = 'pairs of texts, such as {"text": "...", "text_pair": "..."}' if wanted else "single texts"
        raise Refusal(400, f"this model reads {what}")
    columns = [
        [_checked(parts[i], f"inputs, text {n}", predictor, limits) for n, parts in enumerate(found, 1)]
        for i in range(1 + given)
    ]
    return columns[0], columns[1] if given else None


def parts_of(item: Any, place: str) -> list[str]:
    """A text, or the two of a pair. Raises Refusal."""
    if isinstance(item, str):
        return [item]
    if isinstance(item, dict) and "text" in item and item.keys() <= {"text", "text_pair"}:
        parts = [part for part in (item["text"], item.get("text_pair")) if part is not None]
        if parts and all(isinstance(part, str) for part in parts):
            return parts
    raise Refusal(400, f'{place} must be a text, or {{"text": "...", "text_pair": "..."}}')


def _checked(text: str, place: str, predictor: Predictor, limits: Limits) -> str:
    """The cleaned text."""
    if len(text) > limits.characters:
        raise Refusal(413, f"{place} has {len(text):,} characters, more than {limits.characters:,}")
    if not text.isascii() and BROKEN.search(text):
        raise Refusal(400, f"{place} contains an invalid Unicode surrogate")
    cleaned = predictor.clean(text)
    if not cleaned:
        raise Refusal(400, f"{place} is empty{' after cleaning' if text.strip() else ''}")
    return cleaned


def answers(predictor: Predictor, scores: np.ndarray, parameters: Parameters) -> list[list[dict[str, Any]]]:
    """The labels of N texts, from their scores (N, C)."""
    decision, p = predictor.decision, predictor.decision.probabilities(scores)
    shown = _applied(parameters.function_to_apply, scores, p)
    given: Sequence[np.ndarray | None] = [None] * len(p)
    if decision.kind != "score":
        chosen = decision.choose(p)  # (N,), or (N, C) with several labels
        given = list(chosen if chosen.ndim == 2 else np.eye(p.shape[1], dtype=np.int64)[chosen])
    unsure = decision.is_unsure(p) if decision.kind == "single" else np.zeros(len(p), dtype=bool)
    found = []
    for row, labels, doubtful in zip(shown, given, unsure, strict=True):
        first = labels if labels is not None and decision.kind == "single" else np.zeros(len(row))
        order = np.lexsort((-row, -first))  # the given label, then by score
        if parameters.only_predicted:
            order = order[:0] if doubtful or labels is None else order[labels[order] == 1]
        order = order[: parameters.top_k]
        found.append([{"label": predictor.labels[c], "score": float(row[c])} for c in order])
    return found


def _applied(function: str | None, scores: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    if function is None:
        return probabilities
    if function == "softmax":
        return np.exp(log_softmax(np.asarray(scores, np.float64)))
    return sigmoid(scores) if function == "sigmoid" else np.asarray(scores, np.float64)
