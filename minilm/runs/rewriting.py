"""Methods for ``minilm.data.augmentation.augment`` that need a model.

    masked words         a masked-language model puts others in the place of some      (Wu et al. 2019, section 3)
    back-translation     into another language and back, by a model that writes        (Sennrich et al. 2016, section 3)

The first may change the meaning of a text, and with it the class: a model that has not seen the label writes "bad" in
place of "good". With a small fraction of the words, most texts keep their meaning.
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
    """Replaces this fraction of a text's words, at least one: each by one of the ``top`` words that the model finds
    likeliest there, drawn by their probabilities, and never by itself.

    model: from ``load_language_model(source, masked=True)``, so that its head is trained. A text that is longer than it
    reads stays as it is. Raises UserError if the tokenizer has no mask token.
    """
    mask = next((name for name in MASK_NAMES if tokenizer.token_to_id(name) is not None), "")
    if not mask:
        raise UserError(f"the tokenizer has no mask token, {' or '.join(MASK_NAMES)}: no words can be replaced")

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
    """Texts in ``language`` to ``pivot`` and back, with the prompts of Flan-T5; many side by side.

    model: from ``load_language_model(source, masked=False)``. how: greedy, a text becomes the same each time it is
    drawn; with a temperature it does not, but then it depends on which texts it is translated beside.
    """

    def change(texts: Sequence[str], rngs: Sequence[RNG]) -> list[str]:
        for source, target in ((language, pivot), (pivot, language)):
            prompts = [f"translate {source} to {target}: {text}" for text in texts]
            seeded = replace(how, seed=int(rngs[0].integers(2**32)))
            texts = generate_text(model, tokenizer, prompts, max_new_tokens, seeded)
        return list(texts)

    return lambda texts, rngs: change(texts, rngs) if texts else []
