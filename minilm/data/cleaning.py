"""Cleaning steps, by the names that ``data.clean`` lists. They run in the order below, then the text is stripped.

Real text needs little of this: a tokenizer copes with links and tags. The studies that clean are reproduced
with it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence

from minilm.errors import UserError, nearest

STEPS: dict[str, Callable[[str], str]] = {
    "entities": html.unescape,  # &amp; -> &
    # A tag's name begins at once: "I <3 this" and "1 < 2 > 0" have none.
    "tags": lambda text: re.sub(r"<!--.*?-->|</?[A-Za-z!][^<>]*>", " ", text, flags=re.DOTALL),
    # "Awww...so cute" is none, though it has "www."; "texthttp://x.org" ends in one, as tweets do.
    "urls": lambda text: re.sub(r"(?i)https?://\S+|(?<!\w)www\.\w\S*", " ", text),
    "users": lambda text: re.sub(r"(?<!\w)@\w+", " ", text),  # @name, not name@example.org
    "symbols": lambda text: re.sub(r"[^\w\s.,!?;:'\"()-]", " ", text),  # all but letters, digits and punctuation
    "whitespace": lambda text: " ".join(text.split()),  # runs of it become one space
    "lower": str.lower,
}


def cleaner(names: Sequence[str]) -> Callable[[str], str]:
    """One function of the named steps, in the order of ``STEPS``: an entity may hide a tag, a tag a URL.

    Raises UserError for a name there is no step of.
    """
    for name in names:
        if name not in STEPS:
            raise UserError(f'data.clean: no step "{name}"{nearest(name, STEPS)}; the steps are {", ".join(STEPS)}')
    steps = [step for name, step in STEPS.items() if name in names]

    def clean(text: str) -> str:
        for step in steps:
            text = step(text)
        return text.strip()

    return clean
