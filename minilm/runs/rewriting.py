"""Methods for ``minilm.data.augmentation.augment`` that need a model.

    masked words         a masked-language model replaces some words                   (Wu et al. 2019, section 3)
    back-translation     a model translates into another language and back             (Sennrich et al. 2016, section 3)

The first may change the meaning of a text, and thus its class: the model does not know the label and may replace "good"
by "bad". If only a small fraction of the words is replaced, most texts keep their meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer

from minilm.data.augmentation import RNG, Method, split_word
from minilm.data.masking import MASK_NAMES
from minilm.errors import UserError
from minilm.generation import fill, generate_text
from minilm.models.architecture import Backbone
from minilm.sampling import GREEDY, Sampling


def masked_words(model: Backbone, tokenizer: Tokenizer, fraction: float = 0.1, top: int = 10) -> Method:
    """A method that replaces this fraction of a text's words, and at least one word. The new word is one of the ``top``
    words that are most probable at this place, drawn by their probabilities, and never the word itself.

    model: from ``load_language_model(source, masked=True)``, so that its head is trained. A text that is longer than
    the model's context is not changed. Raises UserError if the tokenizer has no mask token.
    """
    mask = next((name for name in MASK_NAMES if tokenizer.token_to_id(name) is not None), "")
    if not mask:
        raise UserError(f"the tokenizer has no mask token ({' or '.join(MASK_NAMES)}), so no words can be replaced")

    def change(text: str, rng: RNG) -> str:
        words = text.split()
        able = [place for place, word in enumerate(words) if split_word(word)[1]]
        places = sorted(rng.permutation(able)[: max(1, round(fraction * len(words)))].astype(int))
        parts = [split_word(words[place]) for place in places]
        for place, (before, _, after) in zip(places, parts, strict=True):
            words[place] = before + mask + after
        masked = " ".join(words)
        if not places or mask in text or len(tokenizer.encode(masked).ids) > model.context:
            return text
        for place, (before, core, after), found in zip(places, parts, fill(model, tokenizer, masked, top), strict=True):
            others = [(word, p) for word, p in found if word.isalpha() and word.lower() != core.lower()]
            weights = np.array([p for _, p in others])
            word = others[rng.choice(len(others), p=weights / weights.sum())][0] if others else core
            words[place] = before + word + after
        return " ".join(words)

    return lambda texts, rngs: [change(text, rng) for text, rng in zip(texts, rngs, strict=True)]


def back_translation(
    model: Backbone,
    tokenizer: Tokenizer,
    pivot: str = "German",
    language: str = "English",
    max_new_tokens: int = 256,
    how: Sampling = GREEDY,
) -> Method:
    """A method that translates texts from ``language`` to ``pivot`` and back, in batches, with the prompts of Flan-T5.

    model: from ``load_language_model(source, masked=False)``. how: with greedy decoding, a text has the same result
    each time; with a temperature above 0 it varies, but also depends on the other texts of its batch.
    """

    def change(texts: Sequence[str], rngs: Sequence[RNG]) -> list[str]:
        for source, target in ((language, pivot), (pivot, language)):
            prompts = [f"translate {source} to {target}: {text}" for text in texts]
            seeded = replace(how, seed=int(rngs[0].integers(2**32)))
            texts = generate_text(model, tokenizer, prompts, max_new_tokens, seeded)
        return list(texts)

    return lambda texts, rngs: change(texts, rngs) if texts else []
