"""``[augment]``: add rows to the training rows of a run.

Only the training split grows; no new text equals a validation or test text. The new rows depend only on the data, the
section and the seed, so that a resumed run has the same rows.
"""

from __future__ import annotations

import hashlib
import json

from minilm.config import AugmentSection, BackTranslationSection, MaskedWordsSection, RunConfig
from minilm.data.augmentation import Method, augment, by_words, wordnet
from minilm.data.rows import Rows
from minilm.data.sources import Dataset
from minilm.errors import located
from minilm.generation import load_language_model
from minilm.runs.rewriting import back_translation, masked_words


def augmented(config: RunConfig, data: Dataset) -> Rows:
    """The training rows, followed by the new rows. Raises UserError if the method's model or word list is missing."""
    section = config.augment
    if section is None or not section.ratio:
        return data.train
    assert config.train is not None  # a rule of the config
    held_out = [text for rows in (data.validation, data.test) for text in (*rows.texts, *(rows.pairs or ()))]
    with located("[augment]"):
        return augment(data.train, _method(section, config.train.device), section.ratio, config.seed, held_out)


def _method(section: AugmentSection, device: str) -> Method:
    if isinstance(section, MaskedWordsSection):
        return masked_words(*load_language_model(section.model, masked=True, device=device), section.fraction)
    if isinstance(section, BackTranslationSection):
        return back_translation(*load_language_model(section.model, masked=False, device=device))
    return by_words(section.method, section.fraction, wordnet() if section.method == "synonyms" else None)


def hash_of_added(rows: Rows, given: int) -> str:
    """A hash of the rows after the first ``given``; empty if there are none."""
    if len(rows) == given:
        return ""
    pairs = rows.pairs and rows.pairs[given:]
    return hashlib.sha256(json.dumps([rows.texts[given:], pairs, rows.labels[given:].tolist()]).encode()).hexdigest()
