"""Texts to token ids: once, in parallel, into flat arrays.

A checkpoint brings its ``tokenizer.json``. A model from scratch may train one: byte-level byte-pair encoding
(Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; over bytes: Radford et
al. 2019, GPT-2). It starts from the 256 bytes and, until the vocabulary is full, makes the most frequent pair
of neighbouring tokens a token of its own; no text is ever out of its vocabulary. Train it on the training
split only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from minilm import hub
from minilm.errors import UserError
from minilm.textfiles import read_json

PAD, BOS, EOS = SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>")
PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|endoftext|>", "</s>", "<unk>")
ENDS = ("<|endoftext|>", "</s>")  # end-of-text tokens of tokenizers that put none
CHUNK = 4096  # texts encoded at a time: the encodings of so many, with all they carry, are in memory at once


@dataclass(frozen=True)
class Encoded:
    """The token ids of N texts (or pairs), one after another."""

    ids: np.ndarray  # (total,) int32
    offsets: np.ndarray  # (N + 1,) int64: text i is ids[offsets[i]:offsets[i + 1]]
    segments: np.ndarray | None  # (total,) uint8: 0 in the first text of a pair, 1 in the second; None for single texts
    full_lengths: np.ndarray  # (N,) int64 tokens before truncation

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each text."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, i: int) -> np.ndarray:
        """The ids of text i."""
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where the tokens of these texts lie in ``ids``, text after text in the order of ``rows``: (tokens,) int64."""
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)  # of each text among these tokens
        return np.repeat(self.offsets[rows] - (ends - lengths), lengths) + np.arange(lengths.sum())

    def take(self, rows: np.ndarray) -> Encoded:
        """These texts, in the order of ``rows``."""
        places = self.places(rows)
        offsets = np.concatenate([[0], np.cumsum(self.lengths[rows])])
        segments = None if self.segments is None else self.segments[places]
        return Encoded(self.ids[places], offsets, segments, self.full_lengths[rows])


def load_tokenizer(source: str | Path, revision: str = "") -> Tokenizer:
    """A checkpoint's ``tokenizer.json``, with the padding and truncation that it stores cleared.

    source: the file or its folder; or a model's name or Hub id (at ``revision``), to be downloaded where it is not
    on this machine. Raises UserError if there is no tokenizer, or none that can be read.
    """
    path = hub.local_path(source)
    if not path.is_file() and not hub.is_folder(source):
        path = hub.resolve_model(str(source), revision, want="tokenizer")
    if path.is_dir() and not (path / "tokenizer.json").exists() and (path / "merges.txt").exists():
        return _word_piece_bpe(path)
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path}: no such file; a tokenizer is read from a checkpoint's tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower class
        raise UserError(f"{path}: not a readable tokenizer: {error}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _word_piece_bpe(folder: Path) -> Tokenizer:
    """HerBERT's tokenizer, which is published as vocab.json and merges.txt alone: BPE of words that end in "</w>".

    Raises UserError for another family's, or where a file is missing or broken.
    """
    settings = folder / "tokenizer_config.json"
    name = str(read_json(settings).get("tokenizer_class", "")) if settings.exists() else ""
    if not name.startswith("Herbert"):
        name = name or "no named tokenizer"
        raise UserError(f"{folder}: no tokenizer.json, and {name} cannot be built from its parts")
    try:
        bpe = models.BPE.from_file(
            str(folder / "vocab.json"), str(folder / "merges.txt"), unk_token="<unk>", end_of_word_suffix="</w>"
        )
    except Exception as error:  # tokenizers raises no narrower class
        raise UserError(f"{folder}: vocab.json and merges.txt are no readable tokenizer: {error}") from None
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.BPEDecoder("</w>")
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    vocabulary = tokenizer.get_vocab()
    tokenizer.post_processor = processors.BertProcessing(("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]))
    return tokenizer


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE of at most ``vocab_size`` tokens; the same texts give the same tokenizer.

    A text becomes ``<bos> text <eos>``, a pair ``<bos> text <eos> pair <eos>``.
    """
    least = len(SPECIAL_TOKENS) + 256
    if vocab_size < least:
        raise UserError(f"tokenizer.vocab_size must be at least {least}: 256 bytes and {', '.join(SPECIAL_TOKENS)}")
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
    """In place, see that two texts do not run into one: the pair ("good film", "bad book") is no "good filmbad book".

    The tokenizers of decoders such as GPT-2's and Qwen2's put nothing between them, and a decoder looks at no segments.
    They get a delimiter, as in GPT's own fine-tuning (Radford et al. 2018, section 3.3): the end-of-text token, else a
    line break. It stays with the tokenizer where that is saved, so that pairs are read as they were trained on.
    """
    if tokenizer.num_special_tokens_to_add(is_pair=True):
        return
    name = next((name for name in ENDS if tokenizer.token_to_id(name) is not None), "\n")
    delimiter = tokenizer.encode(name, add_special_tokens=False)
    if not delimiter.ids:  # a tokenizer of whole words, which cannot join two texts' either
        return
    token = {"id": name, "ids": delimiter.ids, "tokens": delimiter.tokens}
    template = processors.TemplateProcessing(single="$A", pair=["$A", name, "$B:1"], special_tokens=[token])
    own = tokenizer.post_processor
    tokenizer.post_processor = template if own is None else processors.Sequence([own, template])


def pad_id(tokenizer: Tokenizer) -> int:
    """The id to pad with: the padding token's; where the tokenizer has none, an end-of-text token's; else 0.

    No model looks at padding, so any id within the vocabulary does.
    """
    ids = (tokenizer.token_to_id(name) for name in PAD_NAMES)
    return next((i for i in ids if i is not None), 0)


def encode(tokenizer: Tokenizer, texts: Sequence[str], pairs: Sequence[str] | None, max_tokens: int) -> Encoded:
    """Encode N texts, or pairs with their segments, each cut to ``max_tokens`` with its special tokens kept.

    In a pair the longer text is cut first. Raises UserError for a limit without room for a token of text, and
    for a text that has no tokens at all.
    """
    special = tokenizer.num_special_tokens_to_add(pairs is not None)
    if max_tokens <= special:
        raise UserError(f"data.max_tokens must be above {special}, the tokenizer's special tokens")
    inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
    # The fast one gives both texts of a pair segment 0 where the tokenizer has no template for pairs.
    encode_batch = tokenizer.encode_batch if pairs is not None else tokenizer.encode_batch_fast
    ids, segments = [np.zeros(0, np.int32)], [np.zeros(0, np.uint8)]
    full_lengths: list[int] = []
    for start in range(0, len(inputs), CHUNK):
        for encoding in encode_batch(inputs[start : start + CHUNK]):
            full_lengths.append(len(encoding))
            kept = _kept(encoding, max_tokens, special) if len(encoding) > max_tokens else slice(None)
            ids.append(np.array(encoding.ids, np.int32)[kept])
            if pairs is not None:
                segments.append(np.array(encoding.type_ids, np.uint8)[kept])
    full = np.array(full_lengths, np.int64)
    if empty := np.flatnonzero(full == 0).tolist():
        raise UserError(
            f"the tokenizer makes no token of text {empty[0] + 1:,}, {inputs[empty[0]]!r} ({len(empty):,} such texts)"
        )
    offsets = np.concatenate([[0], np.cumsum(np.minimum(full, max_tokens))])
    return Encoded(np.concatenate(ids), offsets, None if pairs is None else np.concatenate(segments), full)


def _kept(encoding: Encoding, max_tokens: int, special: int) -> np.ndarray:
    """Which tokens of a text or pair stay when it is cut: the special ones, and the beginning of each text.

    The tokenizer would keep the same, but first make an encoding of every piece that it cuts off.
    """
    sequences = np.array([-1 if number is None else number for number in encoding.sequence_ids])
    texts = [np.flatnonzero(sequences == number) for number in range(encoding.n_sequences)]
    room = max_tokens - special
    if len(texts) == 1:
        lengths = [room]
    else:
        shorter = min(map(len, texts))
        few = shorter if shorter <= room - shorter else room // 2
        lengths = [few, room - few] if len(texts[0]) <= len(texts[1]) else [room - few, few]
    kept = sequences < 0
    for places, length in zip(texts, lengths, strict=True):
        kept[places[:length]] = True
    return kept


def length_statistics(encoded: Encoded, max_tokens: int) -> dict[str, Any]:
    """Tokens per text before truncation (mean, median, 95th percentile, longest), and the texts truncated."""
    full = encoded.full_lengths
    return {
        "mean": float(full.mean()),
        "median": float(np.median(full)),
        "p95": float(np.percentile(full, 95)),
        "longest": int(full.max()),
        "truncated": int((full > max_tokens).sum()),
        "max_tokens": max_tokens,
    }
