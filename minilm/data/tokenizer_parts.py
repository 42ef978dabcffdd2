"""Build a tokenizer from older files, for checkpoints that were published without ``tokenizer.json``.

    vocab.txt                   WordPiece (Wu et al. 2016): BERT and similar models
    vocab.json, merges.txt      BPE over bytes (Radford et al. 2019): GPT-2, RoBERTa, BART, DeBERTa, Qwen2;
                                over words that end in "</w>": HerBERT
    spiece.model, spm.model, sentencepiece.bpe.model, tokenizer.model
                                SentencePiece (Kudo and Richardson 2018): Unigram in ALBERT, T5, DeBERTa-v3, XLM-RoBERTa
                                and CamemBERT, BPE in Llama and Gemma

The tokenizer's class in ``transformers`` determines how these files are used: how a text is normalised and split into
words, which special tokens there are, and which are added to a text or a pair. ``RECIPES`` contains this for each
class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from minilm.data.sentencepiece_model import BPE, CONTROL, SPACE, UNIGRAM, USER_DEFINED, read_sentencepiece
from minilm.data.sentencepiece_model import SentencePieceModel as Pieces
from minilm.data.tokenizer_settings import BACKEND, TokenizerSettings, add_tokens, read_settings
from minilm.errors import UserError
from minilm.model_files import VOCABULARY_FILES

QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass
class Parts:
    """The files and settings of a tokenizer while it is built."""

    settings: TokenizerSettings
    files: list[Path]
    special: dict[str, AddedToken]  # by role: from the files, or else from the class
    pieces: Pieces | None = None  # the SentencePiece model

    def token(self, role: str) -> str:
        """The text of a special token."""
        return self.special[role].content

    def id_of(self, tokenizer: Tokenizer, role: str) -> int:
        """The id of a special token. Raises UserError if the vocabulary does not contain it."""
        number = tokenizer.token_to_id(self.token(role))
        if number is None:
            raise UserError(f"{self.files[0]}: does not contain {self.token(role)}, which is the {role}")
        return int(number)

    def flag(self, key: str, default: bool) -> bool:
        """An option of tokenizer_config.json."""
        value = self.settings.option(key, default)
        return default if value is None else value


Build = Callable[[Parts], Tokenizer]
Frame = Callable[[Parts, Tokenizer], Any]  # -> the post-processor that adds special tokens to texts


@dataclass(frozen=True)
class Recipe:
    """How one published class builds a tokenizer from its files."""

    files: tuple[str, ...]
    special: dict[str, str]  # special tokens by role; the files may name others
    build: Build
    frame: Frame
    eats_space: tuple[str, ...] = field(default=())  # roles whose token includes the space before it


def build_tokenizer(folder: Path) -> Tokenizer:
    """Build the tokenizer from the files in a folder. Raises UserError if files are missing or invalid, or if the
    class is unknown."""
    settings = read_settings(folder)
    there = [name for name in VOCABULARY_FILES if (folder / name).is_file()]
    if not there:
        raise UserError(f"{folder / 'tokenizer.json'}: no such file, and the folder contains no other tokenizer files")
    if settings.kind not in RECIPES:
        kind = settings.kind or "a tokenizer of unknown class"
        known = ", ".join(RECIPES)
        why = f"{folder}: no tokenizer.json, and minilm cannot build {kind} from {', '.join(there)}"
        way = "save it with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)"
        if settings.kind and settings.kind != BACKEND:
            raise UserError(f"{why}; {way}")
        raise UserError(f"{why}; set tokenizer_class in tokenizer_config.json to one of {known}, or {way}")
    recipe = RECIPES[settings.kind]
    absent = [name for name in recipe.files if name not in there]
    if absent:
        needs = " and ".join(recipe.files)
        raise UserError(f"{folder}: has {', '.join(there)}, but {settings.kind} needs {needs}; download {absent[0]}")
    special = {
        role: AddedToken(text, special=True, lstrip=role in recipe.eats_space) for role, text in recipe.special.items()
    }
    parts = Parts(settings, [folder / name for name in recipe.files], {**special, **settings.special})
    try:
        tokenizer = recipe.build(parts)
        add_tokens(tokenizer, settings, parts.special)
        if parts.pieces is not None:
            _add_pieces(tokenizer, parts.pieces)
        tokenizer.post_processor = recipe.frame(parts, tokenizer)
    except UserError:
        raise
    except Exception as error:  # tokenizers raises no narrower class
        names = " and ".join(recipe.files)
        verb = "is" if len(recipe.files) == 1 else "are"
        raise UserError(f"{folder}: {names} {verb} not a readable tokenizer: {error}") from None
    return tokenizer


def _add_pieces(tokenizer: Tokenizer, pieces: Pieces) -> None:
    """Add the pieces that SentencePiece never splits; those that mark the beginning or end of a text are special."""
    kinds = (CONTROL, USER_DEFINED)
    own = [piece for piece in pieces.pieces if piece.kind in kinds and tokenizer.token_to_id(piece.text) is not None]
    tokenizer.add_tokens([AddedToken(p.text, normalized=False, special=p.kind == CONTROL) for p in own])


# --- WordPiece, and BPE ----------------------------------------------------------------------------------------------


def _word_piece(parts: Parts) -> Tokenizer:
    """WordPiece: words are split at spaces and punctuation, and lower-cased unless do_lower_case is false."""
    tokenizer = Tokenizer(models.WordPiece.from_file(str(parts.files[0]), unk_token=parts.token("unk_token")))
    parts.id_of(tokenizer, "unk_token")
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=parts.flag("tokenize_chinese_chars", True),
        strip_accents=parts.settings.option("strip_accents", None),
        lowercase=parts.flag("do_lower_case", True),
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(prefix="##")
    return tokenizer


def _bpe(parts: Parts, **settings: Any) -> models.BPE:
    vocabulary, merges = map(str, parts.files)
    return models.BPE.from_file(vocabulary, merges, **settings)


def _byte_bpe(parts: Parts) -> Tokenizer:
    """GPT-2's tokenizer: a word includes the space before it and is encoded as bytes."""
    tokenizer = Tokenizer(_bpe(parts, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=parts.flag("add_prefix_space", False))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _qwen(parts: Parts) -> Tokenizer:
    """Qwen2's tokenizer: as GPT-2's, but words are split differently, with each digit as a separate word."""
    tokenizer = _byte_bpe(parts)
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(QWEN_WORDS), behavior="isolated")
    space = parts.flag("add_prefix_space", False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)]
    )
    return tokenizer


def _herbert(parts: Parts) -> Tokenizer:
    """HerBERT's: BERT's words, the last piece of each marked "</w>"."""
    tokenizer = Tokenizer(_bpe(parts, unk_token=parts.token("unk_token"), end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.BPEDecoder("</w>")
    return tokenizer


# --- SentencePiece ---------------------------------------------------------------------------------------------------


def _pieces(parts: Parts, model_type: int) -> Pieces:
    """The SentencePiece model. Raises UserError if it has the wrong type."""
    parts.pieces = read_sentencepiece(parts.files[0])
    if parts.pieces.model_type != model_type:
        names = {UNIGRAM: "Unigram", BPE: "BPE"}
        found, wanted = names[parts.pieces.model_type], names[model_type]
        raise UserError(f"{parts.files[0]}: contains {found}, but {parts.settings.kind} needs {wanted}")
    return parts.pieces


def _unigram(scores: list[tuple[str, float]], unknown: int, steps: list[Any], words: list[Any]) -> Tokenizer:
    """Unigram, with pieces that begin with "▁" after a space or at the start of the text."""
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=unknown, byte_fallback=False))
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*words, pre_tokenizers.Metaspace(SPACE, "always")])
    tokenizer.decoder = decoders.Metaspace(SPACE, "always")
    return tokenizer


def _table(pieces: Pieces) -> list[Any]:
    """The normalizer that the model's table of characters defines."""
    return [normalizers.Precompiled(pieces.charsmap)] if pieces.charsmap else []


def _albert(parts: Parts) -> Tokenizer:
    pieces = _pieces(parts, UNIGRAM)
    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not parts.flag("keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if parts.flag("do_lower_case", True):
        steps.append(normalizers.Lowercase())
    return _unigram(pieces.scores, 1, [*steps, *_table(pieces)], [pre_tokenizers.WhitespaceSplit()])


def _t5(parts: Parts) -> Tokenizer:
    """T5's tokenizer, with 100 sentinels after the pieces, in descending order."""
    pieces = _pieces(parts, UNIGRAM)
    number = parts.settings.options.get("extra_ids", 100)
    if not isinstance(number, int) or not 0 <= number < 10_000:
        where = parts.settings.folder / "tokenizer_config.json"
        raise UserError(f"{where}: extra_ids must be a whole number, got {number!r}")
    sentinels = [(f"<extra_id_{i}>", 0.0) for i in reversed(range(number))]
    tokenizer = _unigram([*pieces.scores, *sentinels], 2, _table(pieces), [pre_tokenizers.WhitespaceSplit()])
    tokenizer.add_special_tokens([text for text, _ in sentinels])
    return tokenizer


def _xlm_roberta(parts: Parts) -> Tokenizer:
    """XLM-RoBERTa's tokenizer: four tokens of RoBERTa, then the SentencePiece pieces from the fourth on, then the mask.
    """
    pieces = _pieces(parts, UNIGRAM)
    first = [parts.token(role) for role in ("bos_token", "pad_token", "eos_token", "unk_token")]
    scores = [*((text, 0.0) for text in first), *pieces.scores[3:], (parts.token("mask_token"), 0.0)]
    return _unigram(scores, 3, _table(pieces), [pre_tokenizers.WhitespaceSplit()])


def _camembert(parts: Parts) -> Tokenizer:
    """CamemBERT's tokenizer: as XLM-RoBERTa's, but with five tokens first, of which some are never used."""
    pieces = _pieces(parts, UNIGRAM)
    first = ["<s>NOTUSED", parts.token("pad_token"), "</s>NOTUSED", parts.token("unk_token"), "<unk>NOTUSED"]
    never = [(text, -100.0 * (text == "<unk>NOTUSED")) for text in first]
    scores = [*never, *pieces.scores[1:], (parts.token("mask_token"), 0.0)]
    return _unigram(scores, 3, _table(pieces), [pre_tokenizers.WhitespaceSplit()])


def _deberta_v2(parts: Parts) -> Tokenizer:
    pieces = _pieces(parts, UNIGRAM)
    steps: list[Any] = [normalizers.Lowercase()] if parts.flag("do_lower_case", False) else []
    steps += [normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "), normalizers.NFC()]
    steps.append(normalizers.Strip(left=False, right=True))
    unknown = (parts.token("unk_token"), 0.0)
    number = pieces.scores.index(unknown) if unknown in pieces.scores else pieces.unknown
    words = [pre_tokenizers.Punctuation(behavior="isolated")] if parts.flag("split_by_punct", False) else []
    return _unigram(pieces.scores, number, steps, words)


def _llama(parts: Parts) -> Tokenizer:
    """Llama's tokenizer: BPE, in which a character that is in no piece becomes bytes."""
    vocabulary, merges = _pieces(parts, BPE).merges()
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, fuse_unk=True, byte_fallback=True))
    prefix = parts.flag("add_prefix_space", True)
    scheme = ("always" if parts.flag("legacy", False) else "first") if prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=False)
    steps: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return tokenizer


def _gemma(parts: Parts) -> Tokenizer:
    """Gemma's tokenizer: as Llama's, but no space is put before the text."""
    vocabulary, merges = _pieces(parts, BPE).merges()
    unknown = parts.token("unk_token")
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


# --- Special tokens around a text or a pair ---------------------------------------------------------------------------


def _template(single: str, pair: str) -> Frame:
    """A frame from a template of roles, each with its segment: "cls_token:0 $A:0 sep_token:0"."""

    def frame(parts: Parts, tokenizer: Tokenizer) -> Any:
        def filled(template: str) -> list[str]:
            words = (word.rpartition(":") for word in template.split())
            return [f"{name if name == '$A' or name == '$B' else parts.token(name)}:{kind}" for name, _, kind in words]

        roles = {word.partition(":")[0] for word in f"{single} {pair}".split()} - {"$A", "$B"}
        tokens = [(parts.token(role), parts.id_of(tokenizer, role)) for role in sorted(roles)]
        return processors.TemplateProcessing(filled(single), filled(pair), list(dict.fromkeys(tokens)))

    return frame


def _roberta_frame(parts: Parts, tokenizer: Tokenizer) -> Any:
    """<s> A </s>, or <s> A </s> </s> B </s>, in one segment. Offsets of words do not include the space before them."""
    sep, cls = ((parts.token(role), parts.id_of(tokenizer, role)) for role in ("sep_token", "cls_token"))
    if parts.settings.kind == "MPNetTokenizer":
        return processors.RobertaProcessing(sep, cls, trim_offsets=True, add_prefix_space=False)
    trims, space = parts.flag("trim_offsets", True), parts.flag("add_prefix_space", False)
    return processors.RobertaProcessing(sep, cls, trim_offsets=trims, add_prefix_space=space)


def _decoder_frame(parts: Parts, tokenizer: Tokenizer) -> Any:
    """No special tokens, or those that add_bos_token and add_eos_token ask for."""
    begin = "bos_token:{0} " if parts.flag("add_bos_token", False) and "bos_token" in parts.special else ""
    end = " eos_token:{0}" if parts.flag("add_eos_token", False) and "eos_token" in parts.special else ""
    single, second = (f"{begin}{text}:{{0}}{end}".format(kind) for text, kind in (("$A", 0), ("$B", 1)))
    return _template(single, f"{single} {second}")(parts, tokenizer)


_BERT_FRAME = _template("cls_token:0 $A:0 sep_token:0", "cls_token:0 $A:0 sep_token:0 $B:1 sep_token:1")
_DEBERTA_FRAME = _template("cls_token:0 $A:0 sep_token:0", "cls_token:0 $A:0 sep_token:0 sep_token:0 $B:0 sep_token:0")
_XLM_FRAME = _template("bos_token:0 $A:0 eos_token:0", "bos_token:0 $A:0 eos_token:0 eos_token:0 $B:0 eos_token:0")
_T5_FRAME = _template("$A:0 eos_token:0", "$A:0 eos_token:0 $B:0 eos_token:0")

_BERT = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]",
}  # fmt: skip
_ROBERTA = {
    "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>",
    "cls_token": "<s>", "mask_token": "<mask>",
}  # fmt: skip
_BRACKETS = {"bos_token": "[CLS]", "eos_token": "[SEP]", **_BERT}
_END = "<|endoftext|>"
_BYTE_FILES = ("vocab.json", "merges.txt")

RECIPES: dict[str, Recipe] = {
    "AlbertTokenizer": Recipe(
        ("spiece.model",), {**_BRACKETS, "unk_token": "<unk>", "pad_token": "<pad>"}, _albert, _BERT_FRAME
    ),
    "BertTokenizer": Recipe(("vocab.txt",), _BERT, _word_piece, _BERT_FRAME),
    "CamembertTokenizer": Recipe(
        ("sentencepiece.bpe.model",), _ROBERTA, _camembert, _XLM_FRAME, eats_space=("mask_token",)
    ),
    "DebertaTokenizer": Recipe(_BYTE_FILES, _BRACKETS, _byte_bpe, _DEBERTA_FRAME),
    "DebertaV2Tokenizer": Recipe(("spm.model",), _BRACKETS, _deberta_v2, _BERT_FRAME),
    "GPT2Tokenizer": Recipe(
        _BYTE_FILES, {"bos_token": _END, "eos_token": _END, "unk_token": _END}, _byte_bpe, _decoder_frame
    ),
    "GemmaTokenizer": Recipe(
        ("tokenizer.model",), {
            "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>",
            "mask_token": "<mask>",
        }, _gemma, _decoder_frame,
    ),
    "HerbertTokenizer": Recipe(
        _BYTE_FILES, {role: text for role, text in _ROBERTA.items() if role[:3] not in ("bos", "eos")}, _herbert,
        _BERT_FRAME,
    ),
    "LlamaTokenizer": Recipe(
        ("tokenizer.model",), {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, _llama, _decoder_frame
    ),
    "MPNetTokenizer": Recipe(
        ("vocab.txt",), {**_ROBERTA, "unk_token": "[UNK]"}, _word_piece, _roberta_frame, eats_space=("mask_token",)
    ),
    "Qwen2Tokenizer": Recipe(
        _BYTE_FILES, {"eos_token": _END, "unk_token": _END, "pad_token": _END}, _qwen, _decoder_frame
    ),
    "RobertaTokenizer": Recipe(_BYTE_FILES, _ROBERTA, _byte_bpe, _roberta_frame),
    "T5Tokenizer": Recipe(
        ("spiece.model",), {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}, _t5, _T5_FRAME
    ),
    "XLMRobertaTokenizer": Recipe(("sentencepiece.bpe.model",), _ROBERTA, _xlm_roberta, _XLM_FRAME),
}  # fmt: skip
