"""Cleaning steps, by the names that ``data.clean`` lists. They run in the order below, then the text is stripped.

Most texts need none of this, as tokenizers handle links and tags. Use it to reproduce studies that clean their texts.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence

from minilm.errors import UserError, nearest


def _without_tags(text: str) -> str:
    """The text with a space in place of each comment and each tag, in linear time."""
    parts, start = list[str](), 0
    while (begin := text.find("<!--", start)) >= 0 and (end := text.find("-->", begin + 4)) >= 0:
        parts.append(text[start:begin])
        start = end + 3
    parts.append(text[start:])  # a comment without an end is text: no other one can have an end
    # A letter must follow "<" in a tag: "I <3 this" and "1 < 2 > 0" contain no tags.
    return " ".join(re.sub(r"</?[A-Za-z!][^<>]*>", " ", part) for part in parts)


STEPS: dict[str, Callable[[str], str]] = {
    "entities": html.unescape,  # &amp; -> &
    "tags": _without_tags,
    # "Awww...so cute" contains "www." but no URL; "texthttp://x.org" ends in a URL, as happens in tweets.
    "urls": lambda text: re.sub(r"(?i)https?://\S+|(?<!\w)www\.\w\S*", " ", text),
    "users": lambda text: re.sub(r"(?<!\w)@\w+", " ", text),  # @name, not name@example.org
    "symbols": lambda text: re.sub(r"[^\w\s.,!?;:'\"()-]", " ", text),  # all but letters, digits and punctuation
    "whitespace": lambda text: " ".join(text.split()),  # each run of whitespace becomes one space
    "lower": str.lower,
}


def cleaner(names: Sequence[str]) -> Callable[[str], str]:
    """A function that runs the named steps, in the order of ``STEPS``: an entity may hide a tag, and a tag a URL.

    Raises UserError for an unknown step.
    """
    for name in names:
        if name not in STEPS:
            raise UserError(f'data.clean: unknown step "{name}"{nearest(name, STEPS)}; steps are {", ".join(STEPS)}')
    steps = [step for name, step in STEPS.items() if name in names]

    def clean(text: str) -> str:
        for step in steps:
            text = step(text)
        return text.strip()

    return clean
