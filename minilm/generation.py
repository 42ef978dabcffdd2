"""Generate text with a language model, token by token; and fill in the masked words of a text.

A decoder reads a text and computes a score for each token of the vocabulary as the next token. In T5 and BART, the
encoder reads the text and the decoder computes the scores. One token is chosen (``sampling.py``) and appended to the
text, and so on:

    x_{t+1} ~ choose(head(model(x_1 .. x_t)))

Keys and values of earlier positions do not change, as a decoder attends only to the left. They are cached (``Cache`` in
``models/batch.py``), so a step computes only the position of the new token, and the head only the scores of the next
token.

A masked-language model attends to both sides. It computes the scores for a masked word within a text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from minilm import hub
from minilm.checkpoints.contents import read_contents
from minilm.checkpoints.models import card_of, load_model
from minilm.data.tokenization import load_tokenizer
from minilm.devices import runtime
from minilm.errors import UserError
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Backbone, evaluation_mode
from minilm.models.batch import Batch, Cache
from minilm.sampling import GREEDY, Sampling, choose, penalize
from minilm.schema import cut
from minilm.textfiles import read_json

TOGETHER = 32  # prompts in a batch

# --- Token ids in, token ids out ---------------------------------------------------------------------------------


def generate(
    model: Backbone,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    how: Sampling = GREEDY,
    stop: Collection[int] = (),
) -> list[list[int]]:
    """Continue each prompt; returns only the new tokens, without the stop token. See ``stream``."""
    written: list[list[int]] = [[] for _ in prompts]
    for text, token in stream(model, prompts, max_new_tokens, how, stop):
        written[text].append(token)
    return written


def stream(
    model: Backbone,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    how: Sampling = GREEDY,
    stop: Collection[int] = (),
) -> Iterator[tuple[int, int]]:
    """Yield each new token when it is chosen, as (number of its prompt from 0, token).

    The prompts are continued as a batch, but independently of each other. A prompt is finished and leaves the batch
    after a token of ``stop`` (which is not returned), after ``max_new_tokens`` new tokens, or at the model's context.

    Raises UserError if the model cannot generate text, or if a prompt is empty or leaves no room in the context.
    """
    _check_kind(model, masked=False)
    return _steps(model, prompts, _room(model, prompts, max_new_tokens), how, frozenset(stop))


@torch.inference_mode()
def _steps(
    model: Backbone, prompts: Sequence[Sequence[int]], left: list[int], how: Sampling, stop: frozenset[int]
) -> Iterator[tuple[int, int]]:
    """The loop of ``stream``. left: the most new tokens of each prompt."""
    device = next(model.parameters()).device
    source, begun = None, prompts  # the encoder's input, and the beginnings of the outputs
    if model.start_token is not None:
        source, begun = Batch(*_pad(prompts, device)), [[model.start_token]] * len(prompts)
    tokens, _ = _pad(begun, device)  # (B, T): the input of the next step
    lengths = torch.tensor([len(text) for text in begun], device=device)
    last = lengths - 1  # the last position of each text in ``tokens``
    slots = max((len(text) + n for text, n in zip(begun, left, strict=True)), default=0)
    cache = Cache(slots, torch.arange(tokens.shape[1], device=device).expand_as(tokens))
    seen = _seen(begun, model.config.vocab_size).to(device) if how.repetition_penalty != 1 else None
    texts, seed = list(range(len(prompts))), _seed(how)  # the number of each row's prompt
    rngs = [torch.Generator().manual_seed(seed + text) for text in texts]  # one generator per text
    with evaluation_mode(model):
        while texts:
            z = _scores(model, tokens, last, source, cache)
            z = z if seen is None else penalize(z, seen, how.repetition_penalty)
            new = choose(z, how, [rngs[text] for text in texts])
            going_on = []
            for row, (text, token) in enumerate(zip(texts, new.tolist(), strict=True)):
                if token not in stop:
                    yield text, token
                    left[text] -= 1
                    going_on += [row] * (left[text] > 0)
            if len(going_on) < len(texts):
                texts = [texts[row] for row in going_on]
                rows = torch.tensor(going_on, dtype=torch.long, device=device)
                new, lengths = new[rows], lengths[rows]
                seen = None if seen is None else seen[rows]
                source = None if source is None else source.rows(rows)
                cache.keep(rows)
            tokens, cache.positions, last = new[:, None], lengths[:, None], torch.zeros_like(new)
            lengths = lengths + 1
            seen = None if seen is None else seen.scatter(1, tokens, True)


def _scores(model: Backbone, tokens: Tensor, last: Tensor, source: Batch | None, cache: Cache) -> Tensor:
    """The scores of the token after position ``last`` (B,) of each row: (B, V) in float32."""
    if source is None:
        batch = Batch(tokens, positions=cache.positions, cache=cache)
    else:
        batch = replace(source, decoder_ids=tokens, cache=cache)
    state = model.run(model.embed(batch), batch, 0, model.num_layers)
    x = state.x[torch.arange(len(last), device=last.device), last]  # (B, D): the head needs no other position
    return model.apply_head(model.finish(replace(state, x=x[:, None])), batch)[:, 0].float()


def _pad(texts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Ids (B, T) padded on the right, and the mask of real tokens; None if there is no padding."""
    longest = max(map(len, texts), default=0)
    padded = [[*text, *[0] * (longest - len(text))] for text in texts]
    ids = torch.tensor(padded, dtype=torch.long, device=device).reshape(len(texts), longest)
    if all(len(text) == longest for text in texts):
        return ids, None
    lengths = torch.tensor([len(text) for text in texts], device=device)
    return ids, torch.arange(longest, device=device) < lengths[:, None]


def _seen(texts: Sequence[Sequence[int]], vocab_size: int) -> Tensor:
    """(B, V) bool: which tokens of the vocabulary are in each text."""
    seen = torch.zeros(len(texts), vocab_size, dtype=torch.bool)
    for row, text in enumerate(texts):
        seen[row, list(text)] = True
    return seen


def _seed(how: Sampling) -> int:
    return torch.Generator().seed() % 2**32 if how.seed is None else how.seed


def _room(model: Backbone, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[int]:
    """The most new tokens of each text: ``max_new_tokens``, or fewer at the model's context. Raises UserError if 0."""
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    context, apart = model.context, has_encoder(model)  # with an encoder, the output has its own context
    for number, prompt in enumerate(prompts, 1):
        if not prompt:
            raise UserError(f"prompt {number} has no tokens, but the model needs at least one")
        if apart and 0 < context < len(prompt):
            raise UserError(f"prompt {number} has {len(prompt)} tokens; the model's context is {context}; shorten it")
        if context and not apart and len(prompt) >= context:
            raise UserError(
                f"prompt {number} has {len(prompt)} tokens, which leaves no room for new tokens in the model's context "
                f"of {context}; shorten it"
            )
        if max(prompt) >= model.config.vocab_size:
            raise UserError(
                f"prompt {number}: token {max(prompt)} is not in the model's vocabulary of {model.config.vocab_size}; "
                "use the model's own tokenizer"
            )
    taken = [1 if apart else len(prompt) for prompt in prompts]  # an encoder-decoder's output has its start token
    return [min(max_new_tokens, context - tokens) if context else max_new_tokens for tokens in taken]


def _check_kind(model: Backbone, *, masked: bool) -> None:
    """Raise UserError unless the model is a language model of that kind."""
    card = card_of(model)
    where = card.folder or card.model_type
    if card.task != "lm":
        raise UserError(f'{where}: has no language head; load it with task "lm"')
    _check_family(card.model_type, str(where), masked=masked)


def _check_family(model_type: str, where: str, *, masked: bool) -> None:
    if (ARCHITECTURES[model_type].language_modeling == "masked") != masked:
        use = "a decoder, which generates text; use generate" if masked else "an encoder, which fills masks; use fill"
        raise UserError(f"{where}: {model_type} is {use}")


# --- Text in, text out -------------------------------------------------------------------------------------------


class Detokenizer:
    """Converts tokens into text one by one.

    A single token cannot always be decoded. If tokens consist of bytes, a character may need several tokens, and until
    it is complete its bytes are decoded as U+FFFD. If tokens contain the space before a word, decoding removes it at
    the start of a text. So the text that a token adds is the difference between the decoded texts with and without it.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        """before: the tokens before the text."""
        self.tokenizer = tokenizer
        self.ids = list(before)
        self.start, self.returned = 0, len(self.ids)  # the first token to decode; the tokens whose text was returned

    def add(self, token: int) -> str:
        """The text that the token completes; it may be empty."""
        self.ids.append(token)
        text = self._new()
        return self._return(text) if text and not text.endswith("\ufffd") else ""

    def finish(self) -> str:
        """The remaining text: an incomplete character, as U+FFFD."""
        return self._return(self._new())

    def _new(self) -> str:
        known = self.tokenizer.decode(self.ids[self.start : self.returned])
        return self.tokenizer.decode(self.ids[self.start :])[len(known) :]

    def _return(self, text: str) -> str:
        self.start, self.returned = self.returned, len(self.ids)
        return text


def encode_prompt(model: Backbone, tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The tokens of a prompt, with the special tokens that the tokenizer puts before it. For an encoder also those
    after it; for a decoder not, as they mark the end of a text, and the decoder must continue it.
    """
    ids = tokenizer.encode(prompt).ids
    special = tokenizer.encode("a").special_tokens_mask
    after = special[::-1].index(0) if 0 in special else 0
    return ids if has_encoder(model) else ids[: len(ids) - after]


def has_encoder(model: Backbone) -> bool:
    """Whether an encoder reads the prompt (T5), so that the output is separate from the prompt."""
    return model.start_token is not None


def stop_tokens(model: Backbone) -> frozenset[int]:
    """The tokens at which the checkpoint ends a text: of generation_config.json, or else of config.json.

    Raises UserError if they are not token ids.
    """
    card = card_of(model)
    path = (card.folder or Path()) / "generation_config.json"
    settings = read_json(path) if card.folder is not None and path.is_file() else {}
    stop = settings.get("eos_token_id", card.published.get("eos_token_id"))
    tokens = stop if isinstance(stop, list) else [] if stop is None else [stop]
    if any(type(token) is not int for token in tokens):
        raise UserError(f"{card.folder}: eos_token_id must be a token id or a list of token ids, got {cut(stop)}")
    return frozenset(tokens)


def stream_text(
    model: Backbone,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int,
    how: Sampling = GREEDY,
    stop: Collection[int] | None = None,
) -> Iterator[str]:
    """Yield the continuation of one prompt piece by piece, to print it while it is generated.

    stop: None means the stop tokens of the checkpoint. Raises UserError as ``stream`` does.
    """
    ids = encode_prompt(model, tokenizer, prompt)
    tokens = stream(model, [ids], max_new_tokens, how, stop_tokens(model) if stop is None else stop)
    text = Detokenizer(tokenizer, () if has_encoder(model) else ids)

    def pieces() -> Iterator[str]:
        for _, token in tokens:
            yield text.add(token)
        yield text.finish()

    return pieces()


def generate_text(
    model: Backbone,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    max_new_tokens: int,
    how: Sampling = GREEDY,
    stop: Collection[int] | None = None,
) -> list[str]:
    """The continuation of each prompt, without the prompt. The prompts are processed in batches.

    stop: None means the stop tokens of the checkpoint. Raises UserError as ``stream`` does.
    """
    stop = stop_tokens(model) if stop is None else stop
    seed = _seed(how)
    ids = [encode_prompt(model, tokenizer, prompt) for prompt in prompts]
    _room(model, ids, max_new_tokens)  # checks all prompts before the first batch
    texts = []
    for first in range(0, len(ids), TOGETHER):
        some = ids[first : first + TOGETHER]
        new = generate(model, some, max_new_tokens, replace(how, seed=seed + first), stop)
        for prompt, tokens in zip(some, new, strict=True):
            text = Detokenizer(tokenizer, () if has_encoder(model) else prompt)
            texts.append("".join([text.add(token) for token in tokens]) + text.finish())
    return texts


# --- Masked words ------------------------------------------------------------------------------------------------


@torch.inference_mode()
def fill(model: Backbone, tokenizer: Tokenizer, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
    """The most probable words at each mask of the text, with their probabilities: one list per mask, the best first.

    Raises UserError if the model is not a masked-language model, or if the text has no mask token or is too long.
    """
    _check_kind(model, masked=True)
    mask = next((name for name in ("[MASK]", "<mask>") if tokenizer.token_to_id(name) is not None), "")
    if not mask:
        raise UserError("the tokenizer has no mask token ([MASK] or <mask>)")
    ids = tokenizer.encode(text).ids
    places = [place for place, token in enumerate(ids) if token == tokenizer.token_to_id(mask)]
    if not places:
        raise UserError(f"the text has no {mask}; write {mask} in place of each word to fill in")
    if 0 < model.context < len(ids):
        raise UserError(f"the text has {len(ids)} tokens, but the model's context is {model.context}; shorten it")
    batch = Batch(torch.tensor([ids], device=next(model.parameters()).device))
    with evaluation_mode(model):
        x = model.vectors(batch)[:, places]  # (1, masks, D)
        probabilities = model.apply_head(x, batch)[0].float().softmax(dim=-1)  # (masks, V)
    best = probabilities.topk(min(top, probabilities.shape[-1]))
    return [
        [(tokenizer.decode([token], skip_special_tokens=False).strip(), p) for token, p in zip(*pairs, strict=True)]
        for pairs in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


# --- From a name -------------------------------------------------------------------------------------------------


def load_language_model(
    source: str, *, masked: bool, device: str = "auto", dtype: str = "auto"
) -> tuple[Backbone, Tokenizer]:
    """Load a model that generates text, or with ``masked`` a masked-language model, and its tokenizer.

    device: as in ``minilm.devices``. dtype: "float32", "bfloat16" or "float16"; "auto" is float32 on a CPU and the
    checkpoint's dtype elsewhere. Raises UserError, before any weight is read, if the checkpoint has no trained language
    head or a head of the other kind; and as ``load_model`` does.
    """
    target = runtime(device, "float32").device
    folder = hub.resolve_model(source)
    if (folder / "config.toml").is_file():
        adapted = folder / "adapted"
        instead = f"its language model is {adapted}" if adapted.is_dir() else "choose a language model"
        raise UserError(f"{source}: is a run's folder; {instead}")
    stored = read_contents(folder)
    if stored.task != "lm" and not stored.has("head", "lm"):
        kind = "a classifier" if stored.task == "classify" else "an encoder without a head"
        raise UserError(f"{source}: is {kind}; choose a language model")
    _check_family(stored.model_type, source, masked=masked)
    if dtype == "auto" and target.type == "cpu":
        dtype = "float32"
    numbers = None if dtype == "auto" else getattr(torch, dtype)
    return load_model(stored.folder, "lm", device=target, dtype=numbers), load_tokenizer(stored.folder)
