"""Classes without training: what a model that has learned from texts alone knows of them, by three ways of asking.

**Cloze** (Schick and Schuetze 2021), for masked-language models. A pattern makes a text a sentence with a gap, a word
stands for each class (its verbaliser), and the class is the one whose word fits the gap:

    "{text} This is about {label}."      ->      It rained all day. This is about [MASK].        weather? sport?

    s_c = sum_i log p(w_ci | the text with the gap)                i: the word's tokens, one mask each

A word of several tokens has a gap of as many masks, all hidden at once, and their probabilities are multiplied.

**Likelihood** (Radford et al. 2019; Brown et al. 2020), for models that write. The class is the one whose word the
model would rather write next; T5's encoder reads what is before the word, its decoder writes it:

    s_c = sum_i log p(w_ci | text, w_c1 ... w_c,i-1)

Some words are likely whatever the text. What a text without content ("N/A") gets is the model's prejudice s'; taking it
off is contextual calibration (Zhao et al. 2021, with W = diag(p')^-1; W p is scaled to add up to 1). Then that text's
classes are all as likely:

    log P = log_softmax(s - s')                  without calibration: log_softmax(s)

**Similarity**, for sentence models. The class is the one whose description's vector points where the text's does, both
the means of their tokens' vectors (``embeddings.py``):

    s_c = cos(e, d_c) / t              t = 0.05, with which such models are trained; decisions do not depend on it

Each returns log P: (N, C), as ``metrics.classification_metrics`` takes them, for one label per text. None looks at a
label, but a pattern that was chosen by its score on labelled texts has been trained on them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from minilm.checkpoints.models import card_of
from minilm.checkpoints.opening import load_model
from minilm.data.masking import MASK_NAMES, special_ids
from minilm.data.tokenization import Encoded, load_tokenizer, pad_id
from minilm.devices import Execution
from minilm.errors import UserError, nearest
from minilm.evaluation.embeddings import CUT, embed_texts
from minilm.evaluation.metrics import log_softmax
from minilm.evaluation.predictor import predict_scores
from minilm.generation import encode_prompt, has_encoder, load_language_model
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Backbone
from minilm.models.batch import Batch

CONTENT_FREE = "N/A"
WAYS = ("cloze", "likelihood", "similarity")


def open_model(source: str, way: str, device: str = "auto") -> tuple[Backbone, Tokenizer]:
    """The model that a way of asking needs, and its tokenizer.

    Raises UserError, before any weight is read, where its language head is missing, so that it would answer at random,
    or where it is of the other kind.
    """
    if way not in WAYS:
        raise UserError(f'no way to ask "{way}"{nearest(way, WAYS)}; there are: {", ".join(WAYS)}')
    if way != "similarity":
        return load_language_model(source, masked=way == "cloze", device=device)
    model = load_model(source, "encode", dtype=torch.float32)
    return model, load_tokenizer(card_of(model).tokenizer or source)


# --- the three ways ---


def cloze(
    model: Backbone,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    words: Sequence[str],
    pattern: str,
    run_on: Execution,
    *,
    pairs: Sequence[str] | None = None,
    max_tokens: int = 0,
    content_free: str = "",
) -> np.ndarray:
    """Log-probabilities (N, C) of the classes by how well their words fit a gap.

    Args:
        model: a masked-language model with its trained head (``open_model``).
        tokenizer: its own.
        texts: N texts, cut where a prompt is too long.
        words: one per class.
        pattern: has "{text}", where the pair goes "{pair}", and where the word goes "{label}".
        run_on: the device and precision.
        pairs: their second texts.
        max_tokens: of a prompt; 0: the model's context.
        content_free: a text to calibrate by; "": no calibration.

    Raises:
        UserError: the model is of another kind, the pattern lacks a slot, or a word cannot be told from the others.
    """
    _check_model(model, masked=True)
    _check_pattern(pattern, pairs is not None)
    mask, mask_id = _mask(tokenizer, model, pattern)
    answers = [_hidden_tokens(tokenizer, pattern, word, mask, mask_id) for word in words]
    _check_answers(answers, words, tokenizer, model)
    limit = _limit(model, max_tokens)

    def ask(parts: Sequence[str], gap: str) -> tuple[list[int], list[int]]:
        """A prompt's tokens, and where the masks of its gap are."""
        parts = _cut(tokenizer, parts, limit, lambda some: len(tokenizer.encode(_write(pattern, some, gap)[0])))
        prompt, start = _write(pattern, parts, gap)
        encoding = tokenizer.encode(prompt)
        return encoding.ids, _places(encoding, start, start + len(gap), mask_id)

    def score(texts: Sequence[str], pairs: Sequence[str] | None) -> np.ndarray:
        scores = np.empty((len(texts), len(words)))
        for length in {len(answer) for answer in answers}:  # one pass serves all words of as many tokens
            prompts, places = zip(*(ask(parts, mask * length) for parts in _parts(texts, pairs)), strict=True)
            same = [number for number, answer in enumerate(answers) if len(answer) == length]
            targets = torch.tensor([answers[number] for number in same])
            scores[:, same] = _log_probabilities(model, tokenizer, prompts, np.array(places), targets, run_on)
        return scores

    return _normalised(score, texts, pairs, content_free, len(words))


def likelihood(
    model: Backbone,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    words: Sequence[str],
    pattern: str,
    run_on: Execution,
    *,
    pairs: Sequence[str] | None = None,
    max_tokens: int = 0,
    content_free: str = CONTENT_FREE,
) -> np.ndarray:
    """Log-probabilities (N, C) of the classes by how likely the model is to write their words.

    The arguments and errors are ``cloze``'s. model: one that writes, a decoder or T5. pattern: "{label}" is its end.
    max_tokens: of a prompt without the word. content_free: by default "N/A"; "": no calibration.
    """
    _check_model(model, masked=False)
    _check_pattern(pattern, pairs is not None)
    if not pattern.endswith("{label}"):
        raise UserError(f'the pattern {pattern!r} must end with "{{label}}": the model writes what comes next')
    pattern = pattern.removesuffix("{label}")
    answers = [_written_tokens(model, tokenizer, pattern, word) for word in words]
    _check_answers(answers, words, tokenizer, model)
    if not content_free:
        _check_beginnings(answers, words)
    limit = _limit(model, max_tokens, room=0 if has_encoder(model) else max(map(len, answers)) - 1)

    def read(parts: Sequence[str]) -> list[int]:
        return encode_prompt(model, tokenizer, _fill(pattern, parts).rstrip())

    def score(texts: Sequence[str], pairs: Sequence[str] | None) -> np.ndarray:
        prompts = [read(_cut(tokenizer, parts, limit, lambda p: len(read(p)))) for parts in _parts(texts, pairs)]
        scores = np.empty((len(texts), len(words)))
        for begun in {answer[:-1] for answer in answers}:  # one pass serves all words that begin alike
            same = [number for number, answer in enumerate(answers) if answer[:-1] == begun]
            targets = torch.tensor([answers[number] for number in same])
            if model.start_token is not None:
                ids, writes = prompts, [model.start_token, *begun]
                last = np.zeros(len(prompts), dtype=np.int64)
            else:
                ids, writes = [[*prompt, *begun] for prompt in prompts], None
                last = np.array([len(prompt) - 1 for prompt in prompts])
            places = last[:, None] + np.arange(len(begun) + 1)  # (N, k): what is read there predicts the word's tokens
            scores[:, same] = _log_probabilities(model, tokenizer, ids, places, targets, run_on, writes)
        return scores

    return _normalised(score, texts, pairs, content_free, len(words))


def similarity(
    model: Backbone,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    descriptions: Sequence[str],
    run_on: Execution,
    *,
    pairs: Sequence[str] | None = None,
    max_tokens: int = 0,
    temperature: float = 0.05,
) -> np.ndarray:
    """Log-probabilities (N, C) of the classes by how near the descriptions' vectors are to the texts'.

    descriptions: one per class. Everything else is as in ``embed_texts``.
    """
    x = embed_texts(model, tokenizer, texts, run_on, pairs=pairs, max_tokens=max_tokens)
    d = embed_texts(model, tokenizer, descriptions, run_on, max_tokens=max_tokens)
    x, d = (e / np.linalg.norm(e, axis=1, keepdims=True) for e in (x, d))
    return log_softmax(x @ d.T / temperature) if len(texts) else np.zeros((0, len(descriptions)))


def calibrate(scores: np.ndarray, content_free: np.ndarray) -> np.ndarray:
    """Scores (N, C) less those of a text without content (C,): log-probabilities (N, C)."""
    return log_softmax(scores - content_free)


def _normalised(
    score: Callable[[Sequence[str], Sequence[str] | None], np.ndarray],
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    content_free: str,
    classes: int,
) -> np.ndarray:
    if not len(texts):
        return np.zeros((0, classes))
    prejudice = (
        score([content_free], None if pairs is None else [content_free])[0] if content_free else np.zeros(classes)
    )
    return calibrate(score(texts, pairs), prejudice)


# --- patterns ---


def _parts(texts: Sequence[str], pairs: Sequence[str] | None) -> list[list[str]]:
    """What fills each prompt: the text, and its pair where there are pairs."""
    return [[text] for text in texts] if pairs is None else [list(parts) for parts in zip(texts, pairs, strict=True)]


def _fill(pattern: str, parts: Sequence[str]) -> str:
    return re.sub(r"\{(text|pair)\}", lambda slot: parts[slot[1] == "pair"], pattern)


def _write(pattern: str, parts: Sequence[str], label: str) -> tuple[str, int]:
    """The whole prompt, and where in it the label begins."""
    before, after = (_fill(side, parts) for side in pattern.split("{label}"))
    return before + label + after, len(before)


def _cut(
    tokenizer: Tokenizer, parts: Sequence[str], limit: int, tokens: Callable[[Sequence[str]], int]
) -> Sequence[str]:
    """The parts with their ends cut off, so that the prompt they make has at most ``limit`` tokens.

    Of a pair the longer is cut first. Raises UserError where nothing would be left.
    """
    while (surplus := tokens(parts) - limit) > 0:
        starts = [[start for start, _ in tokenizer.encode(part, add_special_tokens=False).offsets] for part in parts]
        total = sum(map(len, starts))
        if total <= surplus:
            raise UserError(f"the pattern alone has more than the {limit} tokens that a prompt may have; shorten it")
        left = total - surplus
        kept = [max(left // len(parts), left - (total - len(part))) for part in starts]
        parts = [
            text[: min(start[number], len(text) - 1)] if number < len(start) else text
            for text, start, number in zip(parts, starts, kept, strict=True)
        ]
    return parts


def _limit(model: Backbone, max_tokens: int, room: int = 0) -> int:
    """The tokens that a prompt may have, where ``room`` more must have a place in the model's context."""
    context = model.context
    limit = max_tokens or context or CUT
    return min(limit, context - room) if context else limit


# --- words to tokens ---


def _mask(tokenizer: Tokenizer, model: Backbone, pattern: str) -> tuple[str, int]:
    """The mask token and its id. Raises UserError where tokenizer or model has none, or the pattern has one already."""
    found = [(name, number) for name in MASK_NAMES if (number := tokenizer.token_to_id(name)) is not None]
    if not found or found[0][1] >= model.config.vocab_size:
        whose = "model" if found else "tokenizer"
        raise UserError(f"the {whose} has no mask token, {' or '.join(MASK_NAMES)}: no gap can be made")
    if found[0][0] in pattern:
        raise UserError(f'the pattern {pattern!r} must have "{{label}}" in place of {found[0][0]}')
    return found[0]


def _places(encoding: Any, start: int, end: int, mask: int) -> list[int]:
    """Where the masks are that were written from character ``start`` to ``end``: a text may hold others."""
    return [
        place
        for place, (token, (first, last)) in enumerate(zip(encoding.ids, encoding.offsets, strict=True))
        if token == mask and first < end and last > start
    ]


def _hidden_tokens(tokenizer: Tokenizer, pattern: str, word: str, mask: str, mask_id: int) -> tuple[int, ...]:
    """The tokens of a word in its place in the pattern. They begin where the gap's first mask stands."""
    prompt, start = _write(pattern, ["a", "a"], mask)
    masked, whole = tokenizer.encode(prompt), tokenizer.encode(_write(pattern, ["a", "a"], word)[0])
    first = _places(masked, start, start + len(mask), mask_id)[0]
    end = start + len(word)
    after = [place for place, (_, last) in enumerate(whole.offsets) if place >= first and last >= end]
    if whole.ids[:first] != masked.ids[:first] or not after or whole.offsets[after[0]][1] > end:
        raise _is_joined(word, pattern)
    return tuple(whole.ids[first : after[0] + 1])


def _written_tokens(model: Backbone, tokenizer: Tokenizer, pattern: str, word: str) -> tuple[int, ...]:
    """The tokens by which a word goes on from the pattern, or begins what T5 writes."""
    if has_encoder(model):
        return tuple(tokenizer.encode(word, add_special_tokens=False).ids)
    before = _fill(pattern, ["a", "a"])
    prompt, whole = (encode_prompt(model, tokenizer, text) for text in (before.rstrip(), before + word))
    if whole[: len(prompt)] != prompt:
        raise _is_joined(word, pattern + "{label}")
    return tuple(whole[len(prompt) :])


def _is_joined(word: str, pattern: str) -> UserError:
    return UserError(
        f'the tokenizer joins "{word}" with what is beside it in {pattern!r}; put spaces around "{{label}}"'
    )


# --- checks ---


def _check_model(model: Backbone, *, masked: bool) -> None:
    card = card_of(model)
    where = card.folder or card.model_type
    if card.task != "lm":
        raise UserError(f'{where}: has no language head; load it with task "lm"')
    if ARCHITECTURES[card.model_type].classes["lm"].endswith("ForMaskedLM") != masked:
        use = "writes texts: ask it by likelihood" if masked else "fills in words: ask it by cloze"
        raise UserError(f"{where}: {card.model_type} {use}")


def _check_pattern(pattern: str, pairs: bool) -> None:
    wanted = {"{text}": 1, "{label}": 1, "{pair}": int(pairs)}
    for slot, number in wanted.items():
        if pattern.count(slot) != number:
            often = "once" if number else "only where there are pairs of texts"
            raise UserError(f'the pattern {pattern!r} must have "{slot}" {often}')


def _check_answers(
    answers: Sequence[tuple[int, ...]], words: Sequence[str], tokenizer: Tokenizer, model: Backbone
) -> None:
    special = special_ids(tokenizer)
    for number, (answer, word) in enumerate(zip(answers, words, strict=True)):
        if not answer or special[list(answer)].any() or max(answer) >= model.config.vocab_size:
            raise UserError(f'the model does not know the word "{word}"; choose another for the class')
        if answer in answers[:number]:
            other = words[answers.index(answer)]
            raise UserError(f'"{other}" and "{word}" are the same to the tokenizer; choose another word for one class')


def _check_beginnings(answers: Sequence[tuple[int, ...]], words: Sequence[str]) -> None:
    """Raises UserError where a word goes on from another: each token makes it less likely, so it could never win."""
    for short, word in zip(answers, words, strict=True):
        for long, other in zip(answers, words, strict=True):
            if short != long and long[: len(short)] == short:
                raise UserError(
                    f'"{other}" begins with the tokens of "{word}", so it is never the likelier; choose another word '
                    "for one class, or calibrate (content_free)"
                )


# --- prompts to scores ---


def _log_probabilities(
    model: Backbone,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    places: np.ndarray,
    targets: Tensor,
    run_on: Execution,
    writes: Sequence[int] | None = None,
) -> np.ndarray:
    """Log-probabilities (N, C) of C words of k tokens each, ``targets`` (C, k), at places (N, k) of N prompts.

    The head sees those places only. writes: what the decoder of an encoder-decoder reads, for places in it.
    """
    lengths = np.array([len(prompt) for prompt in prompts])
    ids = np.concatenate([np.array(prompt, dtype=np.int32) for prompt in prompts])
    encoded = Encoded(ids, np.concatenate([[0], np.cumsum(lengths)]), None, lengths)
    targets = targets.to(run_on.device)
    steps = torch.arange(targets.shape[1], device=run_on.device)[:, None]  # (k, 1)

    def forward(batch: Batch, rows: np.ndarray) -> Tensor:
        if writes is not None:
            batch = replace(batch, decoder_ids=torch.tensor([list(writes)] * len(rows), device=run_on.device))
        where = torch.from_numpy(places[rows]).to(run_on.device)  # (B, k)
        x = model.vectors(batch).take_along_dim(where[:, :, None], dim=1)  # (B, k, D)
        log_p = model.apply_head(x, batch).float().log_softmax(dim=-1)  # (B, k, V)
        return log_p[:, steps, targets.T].sum(dim=1)  # (B, k, C) -> (B, C)

    return predict_scores(model.to(run_on.device), encoded, run_on, pad=pad_id(tokenizer), forward=forward)
