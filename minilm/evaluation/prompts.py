"""Classification without training by a language model, with a prompt: two of the methods of ``zero_shot``.

**Cloze** (Schick and Schuetze 2021), for masked-language models. A pattern turns a text into a sentence with a gap, and
each class has a word (its verbaliser). The predicted class is the one whose word is most probable in the gap:

    "{text} This is about {label}."      ->      It rained all day. This is about [MASK].        weather? sport?

    s_c = sum_i log p(w_ci | the text with the gap)                i: the word's tokens, one mask per token

For a word of several tokens the gap has as many masks; the tokens are predicted together, and their probabilities are
multiplied.

**Likelihood** (Radford et al. 2019; Brown et al. 2020), for decoders and T5. The predicted class is the one whose word
is the most probable continuation of the prompt. T5's encoder reads the prompt, its decoder predicts the word:

    s_c = sum_i log p(w_ci | text, w_c1 ... w_c,i-1)

Some words are probable after any text. The scores s' of a text without content ("N/A") measure this; subtracting them
is contextual calibration (Zhao et al. 2021, with W = diag(p')^-1, where W p is scaled to add up to 1). It makes all
classes of that text equally probable:

    log P = log_softmax(s - s')                  without calibration: log_softmax(s)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from minilm.checkpoints.models import card_of
from minilm.data.masking import MASK_NAMES, special_ids
from minilm.data.tokenization import Encoded, pad_id
from minilm.devices import Runtime
from minilm.errors import UserError
from minilm.evaluation.embeddings import CUT
from minilm.evaluation.metrics import log_softmax
from minilm.evaluation.predictor import predict_scores
from minilm.generation import encode_prompt, has_encoder
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Backbone
from minilm.models.batch import Batch


@dataclass(frozen=True)
class Prompt:
    """A prompt that asks a language model for the class of a text."""

    pattern: str  # "{text}" stands for the text, "{pair}" for its second text, "{label}" for the word
    words: Sequence[str]  # one for each of the C classes
    content_free: str = ""  # a text for calibration; empty: no calibration
    max_tokens: int = 0  # the most tokens of a prompt, whose texts are cut; 0: the model's context

    def check(self, *, pairs: bool) -> None:
        """Raises UserError unless the pattern has each slot once, and "{pair}" only for pairs."""
        wanted = {"{text}": 1, "{label}": 1, "{pair}": int(pairs)}
        for slot, number in wanted.items():
            if self.pattern.count(slot) != number:
                often = "once" if number else "only for pairs of texts"
                raise UserError(f'the pattern {self.pattern!r} must have "{slot}" {often}')

    def sides(self, parts: Sequence[str]) -> tuple[str, str]:
        """The prompt before and after the word. ``parts``: the text, and its second text if there is one."""
        before, after = (_fill(side, parts) for side in self.pattern.split("{label}"))
        return before, after

    def limit(self, model: Backbone, room: int = 0) -> int:
        """The most tokens of a prompt, if ``room`` more tokens must fit into the model's context."""
        context = model.context
        limit = self.max_tokens or context or CUT
        return min(limit, context - room) if context else limit

    def log_probabilities(self, score: Score, texts: Sequence[str], pairs: Sequence[str] | None) -> np.ndarray:
        """Calibrated log-probabilities (N, C) of N texts or pairs. ``score``: parts -> sums of log-probabilities (N,
        C)."""
        if not len(texts):
            return np.zeros((0, len(self.words)))
        scores = score(_parts(texts, pairs))
        if not self.content_free:
            return log_softmax(scores)
        return calibrate(scores, score([[self.content_free] * (1 if pairs is None else 2)])[0])


Score = Callable[[Sequence[Sequence[str]]], np.ndarray]


# --- the two methods ---


def cloze(
    model: Backbone,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    prompt: Prompt,
    runtime: Runtime,
    *,
    pairs: Sequence[str] | None = None,
) -> np.ndarray:
    """Log-probabilities (N, C) of the classes, from the probabilities of their words in a gap.

    Args:
        model: a masked-language model with its trained head (``open_model``).
        tokenizer: the model's tokenizer.
        texts: N texts, which are cut if a prompt is too long.
        prompt: the pattern, and a word for each class.
        runtime: the device and precision.
        pairs: the second texts of pairs.

    Raises:
        UserError: the model is not a masked-language model, the pattern lacks a slot, or two words have the same
        tokens.
    """
    _check_model(model, masked=True)
    prompt.check(pairs=pairs is not None)
    mask, mask_id = _mask(tokenizer, model, prompt.pattern)
    answers = [_masked_tokens(tokenizer, prompt, word, mask, mask_id) for word in prompt.words]
    _check_answers(answers, prompt.words, tokenizer, model)
    limit = prompt.limit(model)

    def encode_gap(parts: Sequence[str], gap: str) -> tuple[list[int], list[int]]:
        """A prompt's tokens, and the positions of its gap's masks."""

        def encoded(parts: Sequence[str]) -> Encoding:
            return tokenizer.encode(gap.join(prompt.sides(parts)))

        parts = _cut(tokenizer, parts, limit, lambda parts: len(encoded(parts)))
        encoding, start = encoded(parts), len(prompt.sides(parts)[0])
        return encoding.ids, _places(encoding, start, start + len(gap), mask_id)

    def score(all_parts: Sequence[Sequence[str]]) -> np.ndarray:
        scores = np.empty((len(all_parts), len(prompt.words)))
        for length in {len(answer) for answer in answers}:  # one pass for all words of this number of tokens
            prompts, places = zip(*(encode_gap(parts, mask * length) for parts in all_parts), strict=True)
            same = [number for number, answer in enumerate(answers) if len(answer) == length]
            targets = torch.tensor([answers[number] for number in same])
            scores[:, same] = _log_probabilities(model, tokenizer, prompts, np.array(places), targets, runtime)
        return scores

    return prompt.log_probabilities(score, texts, pairs)


def likelihood(
    model: Backbone,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    prompt: Prompt,
    runtime: Runtime,
    *,
    pairs: Sequence[str] | None = None,
) -> np.ndarray:
    """Log-probabilities (N, C) of the classes, from the probabilities of their words as continuations.

    The arguments and errors are those of ``cloze``. model: a decoder or T5. prompt: its pattern ends with
    "{label}", and its ``max_tokens`` do not include the word.
    """
    _check_model(model, masked=False)
    prompt.check(pairs=pairs is not None)
    if not prompt.pattern.endswith("{label}"):
        raise UserError(f'the pattern {prompt.pattern!r} must end with "{{label}}": the model writes what comes next')
    answers = [_written_tokens(model, tokenizer, prompt, word) for word in prompt.words]
    _check_answers(answers, prompt.words, tokenizer, model)
    if not prompt.content_free:
        _check_beginnings(answers, prompt.words)
    limit = prompt.limit(model, room=0 if has_encoder(model) else max(map(len, answers)) - 1)

    def encoded(parts: Sequence[str]) -> list[int]:
        return encode_prompt(model, tokenizer, prompt.sides(parts)[0].rstrip())

    def score(all_parts: Sequence[Sequence[str]]) -> np.ndarray:
        prompts = [encoded(_cut(tokenizer, parts, limit, lambda p: len(encoded(p)))) for parts in all_parts]
        scores = np.empty((len(all_parts), len(prompt.words)))
        for begun in {answer[:-1] for answer in answers}:  # one pass for all words with this beginning
            same = [number for number, answer in enumerate(answers) if answer[:-1] == begun]
            targets = torch.tensor([answers[number] for number in same])
            if model.start_token is not None:
                ids, writes = prompts, [model.start_token, *begun]
                last = np.zeros(len(prompts), dtype=np.int64)
            else:
                ids, writes = [[*tokens, *begun] for tokens in prompts], None
                last = np.array([len(tokens) - 1 for tokens in prompts])
            places = last[:, None] + np.arange(len(begun) + 1)  # (N, k): position i predicts the word's token i
            scores[:, same] = _log_probabilities(model, tokenizer, ids, places, targets, runtime, writes)
        return scores

    return prompt.log_probabilities(score, texts, pairs)


def calibrate(scores: np.ndarray, content_free: np.ndarray) -> np.ndarray:
    """Scores (N, C) minus those of a text without content (C,): log-probabilities (N, C)."""
    return log_softmax(scores - content_free)


# --- patterns ---


def _parts(texts: Sequence[str], pairs: Sequence[str] | None) -> list[list[str]]:
    """The texts of each prompt: the text, and with pairs its second text."""
    return [[text] for text in texts] if pairs is None else [list(parts) for parts in zip(texts, pairs, strict=True)]


def _fill(pattern: str, parts: Sequence[str]) -> str:
    return re.sub(r"\{(text|pair)\}", lambda slot: parts[slot[1] == "pair"], pattern)


def _cut(
    tokenizer: Tokenizer, parts: Sequence[str], limit: int, tokens: Callable[[Sequence[str]], int]
) -> Sequence[str]:
    """The parts, cut at their ends, so that the prompt has at most ``limit`` tokens.

    In a pair, the longer text is cut first. Raises UserError if nothing would be left.
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


# --- words to tokens ---


def _mask(tokenizer: Tokenizer, model: Backbone, pattern: str) -> tuple[str, int]:
    """The mask token and its id. Raises UserError if the tokenizer or the model has none, or if the pattern contains
    it."""
    found = [(name, number) for name in MASK_NAMES if (number := tokenizer.token_to_id(name)) is not None]
    if not found or found[0][1] >= model.config.vocab_size:
        whose = "model" if found else "tokenizer"
        raise UserError(f"the {whose} has no mask token, {' or '.join(MASK_NAMES)}: cloze needs one")
    if found[0][0] in pattern:
        raise UserError(f'the pattern {pattern!r} must have "{{label}}" in place of {found[0][0]}')
    return found[0]


def _places(encoding: Any, start: int, end: int, mask: int) -> list[int]:
    """The positions of the masks between the characters ``start`` and ``end``, as a text may contain other masks."""
    return [
        place
        for place, (token, (first, last)) in enumerate(zip(encoding.ids, encoding.offsets, strict=True))
        if token == mask and first < end and last > start
    ]


def _masked_tokens(tokenizer: Tokenizer, prompt: Prompt, word: str, mask: str, mask_id: int) -> tuple[int, ...]:
    """The tokens of a word in the pattern. They begin at the position of the gap's first mask."""
    before, after = prompt.sides(["a", "a"])
    start, end = len(before), len(before) + len(word)
    masked, whole = (tokenizer.encode(before + filled + after) for filled in (mask, word))
    first = _places(masked, start, start + len(mask), mask_id)[0]
    ends = [place for place, (_, last) in enumerate(whole.offsets) if place >= first and last >= end]
    if whole.ids[:first] != masked.ids[:first] or not ends or whole.offsets[ends[0]][1] > end:
        raise _is_joined(word, prompt)
    return tuple(whole.ids[first : ends[0] + 1])


def _written_tokens(model: Backbone, tokenizer: Tokenizer, prompt: Prompt, word: str) -> tuple[int, ...]:
    """The tokens of a word as the continuation of a prompt, or as T5's answer."""
    if has_encoder(model):
        return tuple(tokenizer.encode(word, add_special_tokens=False).ids)
    before = prompt.sides(["a", "a"])[0]
    begun, whole = (encode_prompt(model, tokenizer, text) for text in (before.rstrip(), before + word))
    if whole[: len(begun)] != begun:
        raise _is_joined(word, prompt)
    return tuple(whole[len(begun) :])


def _is_joined(word: str, prompt: Prompt) -> UserError:
    return UserError(
        f'the tokenizer joins "{word}" with the text next to it in {prompt.pattern!r}; put spaces around "{{label}}"'
    )


# --- checks ---


def _check_model(model: Backbone, *, masked: bool) -> None:
    card = card_of(model)
    where = card.folder or card.model_type
    if card.task != "lm":
        raise UserError(f'{where}: has no language head; load it with task "lm"')
    if ARCHITECTURES[card.model_type].classes["lm"].endswith("ForMaskedLM") != masked:
        use = 'writes texts: use the method "likelihood"' if masked else 'fills in words: use the method "cloze"'
        raise UserError(f"{where}: {card.model_type} {use}")


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
    """Raises UserError if a word begins with another word: the longer one would never be more probable."""
    for short, word in zip(answers, words, strict=True):
        for long, other in zip(answers, words, strict=True):
            if short != long and long[: len(short)] == short:
                raise UserError(
                    f'"{other}" begins with the tokens of "{word}", so it is never more probable; choose another word '
                    "for one class, or calibrate (content_free)"
                )


# --- prompts to scores ---


def _log_probabilities(
    model: Backbone,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    places: np.ndarray,
    targets: Tensor,
    runtime: Runtime,
    writes: Sequence[int] | None = None,
) -> np.ndarray:
    """Log-probabilities (N, C) of C words of k tokens each, ``targets`` (C, k), at the positions ``places`` (N, k) of N
    prompts.

    The head computes only these positions. writes: the decoder's input in an encoder-decoder, to which places then
    refer.
    """
    lengths = np.array([len(prompt) for prompt in prompts])
    ids = np.concatenate([np.array(prompt, dtype=np.int32) for prompt in prompts])
    encoded = Encoded(ids, np.concatenate([[0], np.cumsum(lengths)]), None, lengths)
    targets = targets.to(runtime.device)
    steps = torch.arange(targets.shape[1], device=runtime.device)[:, None]  # (k, 1)

    def forward(batch: Batch, rows: np.ndarray) -> Tensor:
        if writes is not None:
            batch = replace(batch, decoder_ids=torch.tensor([list(writes)] * len(rows), device=runtime.device))
        where = torch.from_numpy(places[rows]).to(runtime.device)  # (B, k)
        x = model.vectors(batch).take_along_dim(where[:, :, None], dim=1)  # (B, k, D)
        log_p = model.apply_head(x, batch).float().log_softmax(dim=-1)  # (B, k, V)
        return log_p[:, steps, targets.T].sum(dim=1)  # (B, k, C) -> (B, C)

    return predict_scores(model.to(runtime.device), encoded, runtime, pad=pad_id(tokenizer), forward=forward)
