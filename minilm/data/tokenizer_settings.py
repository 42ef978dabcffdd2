"""The settings in the files beside a tokenizer: its class, its special tokens, the side on which it cuts texts.

    tokenizer_config.json      the class, its options, its special tokens
    special_tokens_map.json    special tokens in older checkpoints; they take precedence over tokenizer_config.json
    added_tokens.json          additional tokens with their ids in older checkpoints
    config.json                its model_type determines the class if no other file names it

The files are read as ``AutoTokenizer`` of ``transformers`` 5 reads them. An option in these files takes precedence over
``tokenizer.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from minilm.errors import UserError
from minilm.textfiles import read_json

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
BACKEND = "TokenizersBackend"  # the published class that uses tokenizer.json without changes
# The tokenizer class of each family, if the files name none or another.
CLASS_OF_FAMILY = {
    "albert": "AlbertTokenizer",
    "bart": "RobertaTokenizer",
    "bert": "BertTokenizer",
    "camembert": "CamembertTokenizer",
    "deberta": "DebertaTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "gemma": "GemmaTokenizer",
    "gemma2": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
    "gpt2": "GPT2Tokenizer",
    "llama": "LlamaTokenizer",
    "mistral": "LlamaTokenizer",
    "mpnet": "MPNetTokenizer",
    "mt5": "T5Tokenizer",
    "phi3": "LlamaTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "roberta": "RobertaTokenizer",
    "t5": "T5Tokenizer",
    "umt5": "T5Tokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
ALIASES = {
    "BartTokenizer": "RobertaTokenizer",
    "DistilBertTokenizer": "BertTokenizer",
    "ElectraTokenizer": "BertTokenizer",
    "MT5Tokenizer": "T5Tokenizer",
    "PreTrainedTokenizer": BACKEND,
    "PythonBackend": BACKEND,
}
ALWAYS_THE_FAMILYS = ("qwen2",)  # families whose published files often name a wrong class
# The usual names of tokens with a role. They are written for other programs, which find the padding token by name.
NAMES_OF_ROLES = {
    "bos_token": ("<s>", "<bos>", "<|begin_of_text|>"),
    "eos_token": ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>"),
    "unk_token": ("[UNK]", "<unk>"),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>", "<|pad|>", "<|padding|>"),
    "cls_token": ("[CLS]", "<s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
UNLIMITED = (1 << 31) - 1  # the truncation length of a tokenizer that stores only the side


@dataclass(frozen=True)
class TokenizerSettings:
    """The settings in the files."""

    folder: Path
    kind: str = ""  # the name of the class without "Fast"; "": not named
    options: dict[str, Any] = field(default_factory=dict)  # tokenizer_config.json
    special: dict[str, AddedToken] = field(default_factory=dict)  # the special tokens that the files name, by role
    more_special: list[AddedToken] = field(default_factory=list)  # special tokens without a role
    added: dict[int, AddedToken] = field(default_factory=dict)  # additional tokens, by id

    def option(self, key: str, default: bool | None) -> bool | None:
        """A boolean option. Raises UserError if the value is not a boolean."""
        value = self.options.get(key, default)
        if value is not None and not isinstance(value, bool):
            raise UserError(f"{self.folder / 'tokenizer_config.json'}: {key} must be true or false, got {value!r}")
        return value

    @property
    def cuts_left(self) -> bool | None:
        """Whether long texts are cut at the beginning instead of the end; None: not specified."""
        side = self.options.get("truncation_side")
        if side not in (None, "left", "right"):
            where = self.folder / "tokenizer_config.json"
            raise UserError(f'{where}: truncation_side must be "left" or "right", got {side!r}')
        return None if side is None else side == "left"


def read_settings(folder: Path) -> TokenizerSettings:
    """Read the settings in a folder; each file may be absent. Raises UserError if a file is invalid."""

    def content(name: str) -> dict[str, Any]:
        return read_json(folder / name) if (folder / name).is_file() else {}

    options, config = content("tokenizer_config.json"), content("config.json")
    old = "added_tokens_decoder" not in options
    named = {**options, **(content("special_tokens_map.json") if old else {})}
    numbered = content("added_tokens.json") if old else {}
    try:
        special = {role: _token(named[role], special=True) for role in ROLES if named.get(role)}
        more = _tokens(named.get("extra_special_tokens") or named.get("additional_special_tokens"))
        added = {int(number): _token(token) for number, token in options.get("added_tokens_decoder", {}).items()}
        # Tokens without a role in special_tokens_map.json are special, but not in added_tokens.json.
        counted = _tokens(options.get("extra_special_tokens") or options.get("additional_special_tokens"))
        names = {token.content for token in (*special.values(), *counted)}
        for text, number in numbered.items():
            added[int(number)] = AddedToken(text, normalized=text not in names, special=text in names)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: its special or added tokens cannot be read ({error})") from None
    by_text = {token.content: token for token in added.values()}
    special = {role: by_text.get(token.content, token) for role, token in special.items()}
    return TokenizerSettings(folder, _class_of(options, config), options, special, more, added)


def _tokens(given: Any) -> list[AddedToken]:
    """Special tokens without roles, from a list or a table. Raises ValueError or TypeError for other values."""
    return [_token(token, special=True) for token in (given.values() if isinstance(given, dict) else given or ())]


def _token(given: Any, special: bool = False) -> AddedToken:
    """A token from its JSON value: a text, or a table of the text and flags. Raises ValueError for other values."""
    if isinstance(given, str):
        return AddedToken(given, special=special)
    if not isinstance(given, dict) or not isinstance(given.get("content"), str):
        raise ValueError(f"{given!r} is not a token; it must be a text or a table with content")
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(given["content"], **{"special": special, **{k: given[k] for k in flags if k in given}})


def _class_of(options: dict[str, Any], config: dict[str, Any]) -> str:
    """The class that ``transformers`` uses."""
    named = str(options.get("tokenizer_class") or config.get("tokenizer_class") or "")
    named = named.removesuffix("Fast")
    family = str(config.get("model_type"))
    if not named or family in ALWAYS_THE_FAMILYS:
        named = CLASS_OF_FAMILY.get(family, named)
    return ALIASES.get(named, named)


def add_tokens(tokenizer: Tokenizer, settings: TokenizerSettings, special: dict[str, AddedToken]) -> None:
    """Add the tokens that a tokenizer lacks, in the order of ``transformers``, so that new tokens get the same ids."""
    there = {repr(token) for token in tokenizer.get_added_tokens_decoder().values()}
    wanted = [token for _, token in sorted(settings.added.items()) if repr(token) not in there]
    known = {token.content for token in (*tokenizer.get_added_tokens_decoder().values(), *wanted)}
    for token in (*special.values(), *settings.more_special):
        if token.content not in known:
            known.add(token.content)
            wanted.append(token)
    for token in wanted:
        token.special = token.special or token.content in {named.content for named in special.values()}
    tokenizer.add_tokens(wanted)


def apply_settings(tokenizer: Tokenizer, settings: TokenizerSettings) -> None:
    """Apply the settings of the files to a tokenizer from ``tokenizer.json``, in place, as ``transformers`` does."""
    if settings.kind in ("BertTokenizer", "MPNetTokenizer"):
        keys = {"do_lower_case": "lowercase", "strip_accents": "strip_accents"}
        keys["tokenize_chinese_chars"] = "handle_chinese_chars"
        found = {key: settings.option(key, None) for key in keys if key in settings.options}
        # Without a value, accents are removed if texts are lower-cased.
        changes = {keys[key]: value for key, value in found.items() if value is not None or key == "strip_accents"}
        _change_normalizer(tokenizer, lambda n: {**n, **changes} if n.get("type") == "BertNormalizer" else n)
    lowercase = settings.option("do_lower_case", None)
    if settings.kind in ("AlbertTokenizer", "DebertaV2Tokenizer") and lowercase is not None:
        _change_normalizer(tokenizer, lambda n: _with_lowercase(n, lowercase))
    add_tokens(tokenizer, settings, settings.special)


def set_side(tokenizer: Tokenizer, settings: TokenizerSettings) -> None:
    """Store in the tokenizer on which side long texts are cut (``cuts_left``); the tokenizer itself cuts nothing."""
    stored = tokenizer.truncation
    left = settings.cuts_left
    if left is None:
        left = stored is not None and stored["direction"] == "left"
    tokenizer.no_truncation()
    if left:
        tokenizer.enable_truncation(UNLIMITED, direction="left")


def cuts_left(tokenizer: Tokenizer) -> bool:
    """Whether long texts are cut at the beginning."""
    return tokenizer.truncation is not None and tokenizer.truncation["direction"] == "left"


def settings_beside(tokenizer: Tokenizer, *, reads_segments: bool) -> dict[str, Any]:
    """The tokenizer_config.json to write beside a tokenizer.json, so that ``transformers`` uses that file unchanged.

    Without it, ``transformers`` uses the family's class, whose defaults may differ: BERT's class lower-cases texts.
    """
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    roles = {role: next((name for name in names if name in special), None) for role, names in NAMES_OF_ROLES.items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", *(["token_type_ids"] if reads_segments else []), "attention_mask"],
        **({"truncation_side": "left"} if cuts_left(tokenizer) else {}),
        **{role: name for role, name in roles.items() if name is not None},
    }


def _change_normalizer(tokenizer: Tokenizer, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    if tokenizer.normalizer is None:
        return
    table = json.loads(tokenizer.normalizer.__getstate__())
    changed = change(table)
    if changed != table:
        empty = {"model": {"type": "BPE", "vocab": {}, "merges": []}, "normalizer": changed}
        tokenizer.normalizer = Tokenizer.from_str(json.dumps(empty)).normalizer


def _with_lowercase(normalizer: dict[str, Any], wanted: bool) -> dict[str, Any]:
    """A sequence of normalizers with or without lower-casing, which is put before the table of characters, or first."""
    steps = normalizer.get("normalizers", [normalizer])
    if wanted == any(step["type"] == "Lowercase" for step in steps):
        return normalizer
    if wanted:
        place = next((i for i, step in enumerate(steps) if step["type"] == "Precompiled"), 0)
        steps = [*steps[:place], {"type": "Lowercase"}, *steps[place:]]
    else:
        steps = [step for step in steps if step["type"] != "Lowercase"]
    return {"type": "Sequence", "normalizers": steps}
