"""Classification without training, by a model that was not trained on these labels: four methods.

    cloze         a masked-language model: which label's word is probable in a gap?       ``prompts.py``
    likelihood    a decoder or T5: which label's word is a probable continuation?         ``prompts.py``
    entailment    a model of inference: does the text entail that it is about the label?  ``entailment.py``
    similarity    a sentence model: whose description is nearest to the text?             here

**Similarity.** The predicted class is the one whose description has the highest cosine similarity with the text. Their
vectors are computed as the model's folder specifies, or are means of token vectors (``embeddings.py``):

    s_c = cos(e, d_c) / t              t = 0.05, as in the training of such models; it does not change predictions

Each method returns log P: (N, C), as input of ``metrics.classification_metrics``, with one label per text. No method
uses labels. But if a pattern is chosen by its score on labelled texts, this is training on them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer

from minilm import hub
from minilm.checkpoints.contents import read_contents
from minilm.checkpoints.models import card_of
from minilm.checkpoints.opening import load_model
from minilm.checkpoints.sentence_models import read_sentence_model
from minilm.data.tokenization import load_tokenizer
from minilm.devices import Runtime
from minilm.errors import UserError, nearest
from minilm.evaluation.embeddings import embed_texts
from minilm.evaluation.entailment import entailment_outputs
from minilm.evaluation.metrics import log_softmax
from minilm.generation import load_language_model
from minilm.models.architecture import Backbone

log = logging.getLogger("minilm")

METHODS = ("cloze", "likelihood", "entailment", "similarity")
TEMPERATURE = 0.05  # t


def open_model(source: str, method: str, device: str = "auto") -> tuple[Backbone, Tokenizer]:
    """Load the model that a method needs, and its tokenizer.

    Raises UserError, before any weight is read, if the model has no trained language head, has one of the other kind,
    or was not trained on natural language inference.
    """
    if method not in METHODS:
        raise UserError(f'unknown zero-shot method "{method}"{nearest(method, METHODS)}; use {", ".join(METHODS)}')
    if method in ("cloze", "likelihood"):
        return load_language_model(source, masked=method == "cloze", device=device)
    if method == "entailment":
        folder = hub.resolve_model(source)
        entailment_outputs(read_contents(folder).labels, folder)
        model = load_model(source, "classify", dtype=torch.float32)
    else:
        model = load_model(source, "encode", dtype=torch.float32)
        log.warning("%s: %s", source, read_sentence_model(card_of(model).folder))
    return model, load_tokenizer(card_of(model).tokenizer or source)


def similarity(
    model: Backbone,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    descriptions: Sequence[str],
    runtime: Runtime,
    *,
    pairs: Sequence[str] | None = None,
    max_tokens: int = 0,
) -> np.ndarray:
    """Log-probabilities (N, C) of the classes, from the similarity of their descriptions to the texts.

    descriptions: one per class. The other arguments are those of ``embed_texts``.
    """
    x = embed_texts(model, tokenizer, texts, runtime, pairs=pairs, max_tokens=max_tokens)
    d = embed_texts(model, tokenizer, descriptions, runtime, max_tokens=max_tokens)
    x, d = (e / np.linalg.norm(e, axis=1, keepdims=True) for e in (x, d))
    return log_softmax(x @ d.T / TEMPERATURE) if len(texts) else np.zeros((0, len(descriptions)))
