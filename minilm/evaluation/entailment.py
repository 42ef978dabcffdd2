"""Classification without training by a model of natural language inference, the method "entailment" of ``zero_shot``
(Yin, Hay and Roth 2019, "Benchmarking Zero-shot Text Classification").

Such a model reads two texts, a premise and a hypothesis, and scores whether the premise entails the hypothesis,
contradicts it, or neither. The premise is the text to classify. There is one hypothesis per label, which states that
the label applies:

    It rained all day.   |   This text is about weather.           entailment? neutral? contradiction?
    It rained all day.   |   This text is about sport.             ...

With the score e_c of entailment and k_c of contradiction for label c:

    one label per text    log P = log_softmax(e)                    over the labels
    several               P(c) = exp e_c / (exp e_c + exp k_c)      each label separately: sigmoid(e_c - k_c)

These are the numbers of the zero-shot-classification pipeline of ``transformers``. The labels of the checkpoint
determine which output is entailment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from minilm.checkpoints.models import card_of
from minilm.data.long_texts import LongTexts
from minilm.data.tokenization import encode, pad_id
from minilm.devices import Runtime
from minilm.errors import UserError
from minilm.evaluation.embeddings import CUT
from minilm.evaluation.metrics import log_softmax
from minilm.evaluation.predictor import predict_scores
from minilm.models.architecture import Backbone

SLOT = "{label}"  # the place of a label in a hypothesis
CUT_TEXT = LongTexts("cut-first")  # a hypothesis is never cut
TOGETHER = 4096  # pairs that are encoded at once


class EntailmentOutputs(NamedTuple):
    """The outputs of a model, by meaning."""

    entailment: int
    contradiction: int | None  # None: none does


def entailment_outputs(labels: Sequence[str], where: Path | str) -> EntailmentOutputs:
    """Find the outputs by a checkpoint's labels, in any case. With two labels, the other one counts as contradiction.

    Raises UserError if none means entailment, or several do. ``where``: the name of the checkpoint in messages.
    """
    found = [number for number, label in enumerate(labels) if label.lower().startswith("entail")]
    if len(found) != 1:
        has = f"has the labels {', '.join(labels)}" if labels else "has no classification head"
        which = "two of which mean" if found else "none of which means" if labels else "so nothing means"
        raise UserError(
            f"{where}: {has}, {which} entailment; choose a model that was trained on natural language inference, such "
            "as bart-large-mnli"
        )
    against = [number for number, label in enumerate(labels) if label.lower().startswith("contradict")]
    if len(labels) == 2:
        against = [1 - found[0]]
    return EntailmentOutputs(found[0], against[0] if len(against) == 1 else None)


def entailment(
    model: Backbone,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    hypotheses: Sequence[str],
    runtime: Runtime,
    *,
    multi_label: bool = False,
    max_tokens: int = 0,
) -> np.ndarray:
    """Log-probabilities (N, C) of the classes: whether N texts entail their hypotheses; with several labels per
    text, logits.

    Args:
        model: a classifier of entailment (``zero_shot.open_model``).
        tokenizer: the model's tokenizer.
        texts: N texts; a text that is too long with a hypothesis is cut.
        hypotheses: one for each class.
        runtime: the device and precision.
        multi_label: whether a text may have several labels, or none.
        max_tokens: the most tokens of a text and a hypothesis; 0: the model's context.

    Raises:
        UserError: no output means entailment or, with several labels, contradiction; or a hypothesis leaves no room for
        a text.
    """
    card, classes = card_of(model), len(hypotheses)
    where = card.folder or card.model_type
    outputs = entailment_outputs(card.labels, where)
    if multi_label and outputs.contradiction is None:
        names = ", ".join(card.labels)
        raise UserError(
            f"{where}: has the labels {names}, none of which means contradiction; several labels per text need it"
        )
    limit, step = max_tokens or model.context or CUT, max(1, TOGETHER // classes)
    model.to(runtime.device)
    scores = np.zeros((len(texts), classes, len(card.labels)), np.float32)
    for start in range(0, len(texts), step):
        chunk = texts[start : start + step]
        premises = [text for text in chunk for _ in hypotheses]
        encoded = encode(tokenizer, premises, [*hypotheses] * len(chunk), limit, CUT_TEXT)
        found = predict_scores(model, encoded, runtime, pad=pad_id(tokenizer))  # (rows, outputs)
        scores[start : start + step] = found.reshape(len(chunk), classes, -1)
    for_it = scores[:, :, outputs.entailment].astype(np.float64)
    if multi_label and outputs.contradiction is not None:
        return for_it - scores[:, :, outputs.contradiction]
    return log_softmax(for_it)
