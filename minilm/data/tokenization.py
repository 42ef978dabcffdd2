"""Encode texts as token ids: once, in parallel, into flat arrays.

A checkpoint has its own ``tokenizer.json``, or the files of an older tokenizer. A model that trains from scratch can
train a tokenizer: byte-level byte-pair encoding (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with
Subword Units"; over bytes: Radford et al. 2019, GPT-2). It starts with the 256 bytes as tokens and merges the most
frequent pair of neighbouring tokens into a new token until the vocabulary is full. It can encode any text, as any text
consists of bytes. Train it on the training split only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from minilm import hub
from minilm.data.flat_array import FlatArray
from minilm.data.long_texts import CUT, LongTexts, Windows, pieces_of
from minilm.data.tokenizer_parts import build_tokenizer
from minilm.data.tokenizer_settings import apply_settings, cuts_left, read_settings, set_side
from minilm.errors import UserError

PAD, BOS, EOS = SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>")
PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|endoftext|>", "</s>", "<unk>")
ENDS = ("<|endoftext|>", "</s>")  # end-of-text tokens, which some tokenizers know but do not add
# The most texts, and characters, encoded in one call, as the tokenizers library's encodings take much memory.
CHUNK, CHARACTERS = 4096, 4_000_000
CUT_WORTH_A_WORD = 0.01  # show the message if more than this fraction of the texts is cut
PIECE = 100_000  # very long texts are encoded in pieces of at most this many characters


@dataclass(frozen=True)
class Encoded:
    """The token ids of N texts (or pairs), one after another, in M rows: one row per text, or one per window of a text.
    """

    ids: np.ndarray  # (total,) int32
    offsets: np.ndarray  # (M + 1,) int64: row i is ids[offsets[i]:offsets[i + 1]]
    segments: np.ndarray | None  # (total,) uint8: 0 in the first text of a pair, 1 in the second; None for single texts
    full_lengths: np.ndarray  # (N,) int64 tokens of each text before truncation
    windows: Windows | None = None  # the rows of each text; None: row i is text i

    @property
    def lengths(self) -> np.ndarray:
        """(M,) the number of tokens of each row."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.offsets) - 1

    @property
    def texts(self) -> np.ndarray:
        """(M,) the text that each row belongs to."""
        return np.arange(len(self)) if self.windows is None else self.windows.texts

    def row(self, i: int) -> np.ndarray:
        """The ids of row i."""
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def places(self, rows: np.ndarray) -> np.ndarray:
        """(tokens,) int64: the indices in ``ids`` of the tokens of these rows, in the order of ``rows``."""
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)  # the end of each row among these tokens
        return np.repeat(self.offsets[rows] - (ends - lengths), lengths) + np.arange(lengths.sum())

    def rows_of(self, texts: np.ndarray) -> np.ndarray:
        """The rows of these texts, in the order of ``texts``."""
        return texts if self.windows is None else self.windows.rows(texts)

    def take(self, texts: np.ndarray) -> Encoded:
        """These texts, in this order."""
        rows = self.rows_of(texts)
        places = self.places(rows)
        offsets = np.concatenate([[0], np.cumsum(self.lengths[rows])])
        segments = None if self.segments is None else self.segments[places]
        windows = None if self.windows is None else self.windows.take(texts)
        return Encoded(self.ids[places], offsets, segments, self.full_lengths[texts], windows)


def load_tokenizer(source: str | Path, revision: str = "") -> Tokenizer:
    """Load a checkpoint's tokenizer, without the padding and truncation settings that it stores.

    It is read from ``tokenizer.json``, with the settings of the files beside it (``tokenizer_settings``); without that
    file, it is built from older files (``tokenizer_parts``). If the settings cut texts on the left, ``encode`` does so.

    source: a tokenizer.json or its folder; or a model's name or Hub id (at ``revision``), to be downloaded if it is not
    on this machine. Raises UserError if the tokenizer is missing or cannot be read.
    """
    path = hub.local_path(source)
    if not path.is_file() and not hub.is_folder(source):
        path = hub.resolve_model(str(source), revision, want="tokenizer")
    folder, path = (path, path / "tokenizer.json") if path.is_dir() else (path.parent, path)
    if not path.is_file():
        tokenizer, settings = build_tokenizer(folder), read_settings(folder)
    else:
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises no narrower class
            raise UserError(f"{path}: not a readable tokenizer: {error}") from None
        settings = read_settings(folder)
        apply_settings(tokenizer, settings)
    tokenizer.no_padding()
    set_side(tokenizer, settings)
    return tokenizer


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train byte-level BPE of at most ``vocab_size`` tokens; the same texts give the same tokenizer.

    A text becomes ``<bos> text <eos>``, a pair ``<bos> text <eos> pair <eos>``.
    """
    least = len(SPECIAL_TOKENS) + 256
    if vocab_size < least:
        raise UserError(f"tokenizer.vocab_size must be at least {least}, for 256 bytes and {', '.join(SPECIAL_TOKENS)}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, show_progress=False,
        special_tokens=list(SPECIAL_TOKENS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}",
        pair=f"{BOS} $A {EOS} $B:1 {EOS}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in SPECIAL_TOKENS],
    )
    return tokenizer


def separate_pairs(tokenizer: Tokenizer) -> None:
    """Make the tokenizer, in place, separate the two texts of a pair: ("good film", "bad book") must not be read as
    "good filmbad book".

    The tokenizers of decoders such as GPT-2 and Qwen2 put nothing between the texts, and decoders ignore segments. So a
    delimiter is added, as in GPT's fine-tuning (Radford et al. 2018, section 3.3): the end-of-text token, or a line
    break if there is none. It is saved with the tokenizer, so that pairs are read as in training.
    """
    if tokenizer.num_special_tokens_to_add(is_pair=True):
        return
    name = next((name for name in ENDS if tokenizer.token_to_id(name) is not None), "\n")
    delimiter = tokenizer.encode(name, add_special_tokens=False)
    if not delimiter.ids:  # a tokenizer of whole words, which keeps the texts apart anyway
        return
    token = {"id": name, "ids": delimiter.ids, "tokens": delimiter.tokens}
    template = processors.TemplateProcessing(single="$A", pair=["$A", name, "$B:1"], special_tokens=[token])
    own = tokenizer.post_processor
    tokenizer.post_processor = template if own is None else processors.Sequence([own, template])


def pad_id(tokenizer: Tokenizer) -> int:
    """The id to pad with: that of the padding token, or of an end-of-text token if there is none, or 0.

    Models ignore padding, so any id of the vocabulary works.
    """
    ids = (tokenizer.token_to_id(name) for name in PAD_NAMES)
    return next((i for i in ids if i is not None), 0)


def encode(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_tokens: int,
    long: LongTexts = CUT,
) -> Encoded:
    """Encode N texts, or pairs with their segments, in rows of at most ``max_tokens``, including special tokens.

    long: how to handle longer texts. Texts are cut at the end, or at the beginning if the tokenizer cuts on the left.
    Raises UserError if ``max_tokens`` leaves no room for a token of text, or if a text has no tokens.
    """
    special = tokenizer.num_special_tokens_to_add(pairs is not None)
    if max_tokens <= special:
        raise UserError(f"data.max_tokens must be above {special}, the number of the tokenizer's special tokens")
    inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
    left = cuts_left(tokenizer)
    ids, segments = FlatArray(np.int32), FlatArray(np.uint8)
    full_lengths, windows, lengths = list[int](), list[int](), list[int]()
    for tokens in _tokens_of(tokenizer, inputs):
        full_lengths.append(len(tokens.ids))
        pieces: Sequence[np.ndarray | slice] = [slice(None)]
        if len(tokens.ids) > max_tokens:
            pieces = pieces_of(tokens.sequences(), 1 + (pairs is not None), max_tokens - special, long, left)
        windows.append(len(pieces))
        whole = None if pairs is None else tokens.segments()
        for piece in pieces:
            ids.add(tokens.ids[piece])
            lengths.append(len(tokens.ids[piece]))
            if whole is not None:
                segments.add(whole[piece])
    full = np.array(full_lengths, np.int64)
    if empty := np.flatnonzero(full == 0).tolist():
        what = f"text {empty[0] + 1:,}, {inputs[empty[0]]!r} ({len(empty):,} such texts)"
        raise NoTokens(f"the tokenizer finds no token in {what}", empty)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    starts = Windows(np.concatenate([[0], np.cumsum(windows, dtype=np.int64)]), long.scores)
    return Encoded(
        ids.whole(), offsets, None if pairs is None else segments.whole(), full,
        starts if long.how == "windows" else None,
    )  # fmt: skip


class NoTokens(UserError):
    """Texts that have no tokens at all; ``rows`` are their numbers, from 0."""

    def __init__(self, message: str, rows: list[int]) -> None:
        super().__init__(message)
        self.rows = rows


class _Tokens(NamedTuple):
    """All tokens of one text or pair."""

    ids: np.ndarray  # (T,) int32
    segments: Callable[[], np.ndarray]  # -> (T,) uint8; called only for pairs
    sequences: Callable[[], np.ndarray]  # -> (T,) each token's text, -1 if special; called only for long texts


def _tokens_of(tokenizer: Tokenizer, inputs: Sequence[str | tuple[str, str]]) -> Iterator[_Tokens]:
    """Yield the tokens of each text or pair. Texts are encoded in chunks, to limit memory."""
    # encode_batch_fast gives both texts of a pair segment 0 if the tokenizer has no template for pairs.
    paired = bool(inputs) and not isinstance(inputs[0], str)
    encode_batch = tokenizer.encode_batch if paired else tokenizer.encode_batch_fast
    start = 0
    while start < len(inputs):
        end, size = start, 0
        while end < len(inputs) and end - start < CHUNK and size < CHARACTERS:
            size += _characters(inputs[end])
            end += 1
        if end == start + 1 and size > CHARACTERS:
            yield _tokens_of_huge(tokenizer, inputs[start])
        else:
            yield from map(_tokens_in, encode_batch(inputs[start:end]))
        start = end


def _characters(given: str | tuple[str, str]) -> int:
    return len(given) if isinstance(given, str) else sum(map(len, given))


def _tokens_in(encoding: Encoding) -> _Tokens:
    def sequences() -> np.ndarray:
        return np.array([-1 if number is None else number for number in encoding.sequence_ids])

    return _Tokens(np.array(encoding.ids, np.int32), lambda: np.array(encoding.type_ids, np.uint8), sequences)


def _tokens_of_huge(tokenizer: Tokenizer, given: str | tuple[str, str]) -> _Tokens:
    """The tokens of a text of megabytes, encoded piece by piece: an encoding takes a hundred times the text's memory.

    Pieces end before a space, where tokenizers begin a new word. A short text or pair is encoded first, and its tokens
    are replaced by those of the pieces.
    """
    parts = [given] if isinstance(given, str) else list(given)
    frame = tokenizer.encode("a", "a" if len(parts) == 2 else None)
    ids, segments, sequences = [], [], []
    for place, number in enumerate(_tokens_in(frame).sequences().tolist()):
        if number < 0:
            found = [np.array(frame.ids[place : place + 1], np.int32)]
        elif place and number == frame.sequence_ids[place - 1]:
            continue  # a further token of the same short text
        else:
            pieces = _split(parts[number])
            found = [np.array(tokenizer.encode(p, add_special_tokens=False).ids, np.int32) for p in pieces]
        length = sum(map(len, found))
        ids += found
        segments.append(np.full(length, frame.type_ids[place], np.uint8))
        sequences.append(np.full(length, number))
    return _Tokens(np.concatenate(ids), lambda: np.concatenate(segments), lambda: np.concatenate(sequences))


def _split(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = start + PIECE
        space = text.rfind(" ", start + 1, end) if end < len(text) else -1
        end = space if space > start else end
        yield text[start:end]
        start = end


class Cut(NamedTuple):
    """Counts of what the model does not read because texts are cut."""

    texts: int = 0
    cut: int = 0  # texts that are cut
    tokens: int = 0  # tokens of all texts
    unread: int = 0

    def __add__(self, other: Cut) -> Cut:  # type: ignore[override]  # adds the counts; tuples would be joined
        return Cut(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def message(self, which: str, max_tokens: int, context: int) -> str:
        """The message for the user; empty if at most 1% of the texts are cut.

        which: the name of the texts in the message. context: the most tokens that the model can read; 0: no limit.
        """
        if self.cut <= CUT_WORTH_A_WORD * self.texts:
            return ""
        advice = "use data.long_texts=windows, which reads whole texts"
        if context == 0 or context > max_tokens:
            most = f" (at most {context:,})" if context else ""
            advice = f"raise data.max_tokens{most}, or {advice}"
        return (
            f"{self.cut:,} of {self.texts:,} {which} are longer than {max_tokens:,} tokens and are cut, so "
            f"{self.unread / self.tokens:.0%} of all tokens are not read; {advice}"
        )


def count_cut(encoded: Encoded, max_tokens: int) -> Cut:
    """Count what is cut off the texts."""
    full = encoded.full_lengths
    longer = full[full > max_tokens] if encoded.windows is None else full[:0]
    return Cut(len(full), len(longer), int(full.sum()), int((longer - max_tokens).sum()))


def length_statistics(encoded: Encoded, max_tokens: int) -> dict[str, Any]:
    """Statistics of the tokens per text before truncation, and how much is cut."""
    full, cut = encoded.full_lengths, count_cut(encoded, max_tokens)
    return {
        "mean": float(full.mean()),
        "median": float(np.median(full)),
        "p95": float(np.percentile(full, 95)),
        "longest": int(full.max()),
        "truncated": cut.cut,
        "max_tokens": max_tokens,
        "unread": cut.unread / max(1, cut.tokens),
        "windows": None if encoded.windows is None else len(encoded),
    }
